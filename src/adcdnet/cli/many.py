"""How `predict` maps one scene or a list of them: by itself, in parts, or with helpers; what it says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from adcdnet.cli.console import err, one_line, out_console, print_table, progress_bars, say
from adcdnet.cli.helpers import Helpers
from adcdnet.errors import InputError
from adcdnet.files import refuse_overwriting

if TYPE_CHECKING:
    from adcdnet.cluster.parts import Part
    from adcdnet.cluster.scenes import Made, Mapped, Records, Work
    from adcdnet.geo.scene_files import SceneFiles
    from adcdnet.mapping.progress import Progress

_PIXELS_OF_PART = 2**19  # MS pixels that a task of helpers has: a quarter of a minute of one core, or more
_LARGE = 2**25  # MS pixels from which a scene of a list is no single task: a quarter of an hour of one core


def map_one(
    work: Work,
    files: SceneFiles,
    made: Made,
    *,
    part: Part | None,
    finish: bool,
    tiles: str | None,
    helpers: Helpers | None,
) -> bool:
    """Map a scene, or make a part of it. Returns whether there is a map now."""
    from adcdnet.cluster.parts import place_of_tiles
    from adcdnet.cluster.scenes import make_part, map_scene

    place = place_of_tiles(made.map) if tiles is None else tiles
    if tiles is not None and part is None and not finish and helpers is None:
        raise typer.BadParameter("says where parts lie; give --part, --finish or --workers too", param_hint="--tiles")
    if part is not None:
        with progress_bars() as report:
            count = make_part(work, files, part, place, progress=report)
        out_console.print(f"part {part.number} of {part.of}: {count} tiles at {place}", markup=False)
        return False
    with progress_bars() as report:
        if helpers is not None and (reason := _make_parts(work, files, place, helpers, report)):
            raise InputError(reason)
        in_parts = finish or helpers is not None
        mapped = map_scene(work, files, made, place=place if in_parts else None, progress=report)
    _tell(work, made, mapped)
    return True


def _make_parts(work: Work, files: SceneFiles, place: str, helpers: Helpers, report: Progress) -> str:
    """All parts of a scene that are not there yet, each a task. Returns why some cannot be made, "" where all are."""
    from adcdnet.cluster.engine import Failed
    from adcdnet.cluster.parts import missing_parts
    from adcdnet.cluster.scenes import make_part

    with work.open(files) as scene:
        shape = scene.grid.shape
    missing = missing_parts(place, shape, max(1, round(shape[0] * shape[1] / _PIXELS_OF_PART)))
    if not missing:
        return ""
    calls = [(work, files, part, place) for part in missing]
    reasons = {
        missing[number].number: result.reason
        for number, result in helpers.run(make_part, calls, what="parts", hours=1, progress=report)
        if isinstance(result, Failed)
    }
    if not reasons:
        return ""
    first = min(reasons)
    return (
        f"{len(reasons)} of {missing[0].of} parts could not be made, part {first} because: {reasons[first]}; "
        "the same command makes only these again"
    )


def map_list(
    work: Work,
    scenes: Path,
    made: Made,
    *,
    part: Part | None,
    finish: bool,
    helpers: Helpers | None,
    named: Callable[[SceneFiles, Made], None],
    read: list[Path | None],
) -> None:
    """A map for every scene of a file, or for those of a part, called as the scene; goes on after one that fails.

    Says what became of all scenes, and ends with exit code 1 where one failed. finish: only says it, and open ones
    count too.
    """
    from adcdnet.cluster.scenes import Records, deal
    from adcdnet.geo.scene_files import read_scenes

    listed = read_scenes(scenes, labelled=False)
    mine = [] if finish else deal(listed, part)
    read += [file for files in listed for file in (*files.files(), files.classes, files.split)]
    for files in listed:
        refuse_overwriting(made.of_scene(files.name).written(), read)
    for folder in made:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{folder} is no folder for the maps: {error.strerror}; choose another one") from error
    records = Records(made, work)
    todo = _not_mapped(work, mine, records)
    failed = 0
    for files, mapped in _map_each(work, todo, made, helpers):
        if isinstance(mapped, str):
            failed += 1
            records.failed(files.name, mapped)
            err.print(f"error: {one_line(f'{files.name}: {mapped}')}", markup=False, style="red")
        else:
            records.done(files.name, mapped)
            _tell(work, made.of_scene(files.name), mapped)
            named(files, made.of_scene(files.name))
    summary = records.summary([files.name for files in listed])
    if finish or part is not None or helpers is not None:
        print_table([("scenes", ""), *((state, str(summary[state])) for state in ("done", "failed", "open"))])
    if finish:
        _tell_of_others(summary)
    elif failed:
        err.print(f"{failed} of {len(mine)} scenes could not be mapped", style="red")
        raise typer.Exit(1)


def _tell_of_others(summary: dict[str, Any]) -> None:
    """Which scenes have no map, though others should have made them; exit code 1 where there is one."""
    for scene in summary["scenes"]:
        if scene["state"] == "failed":
            err.print(f"error: {one_line(scene['scene'])}: {one_line(scene['reason'])}", markup=False, style="red")
    opened = [scene["scene"] for scene in summary["scenes"] if scene["state"] == "open"]
    if opened:
        more = f" and {len(opened) - 20} more" if len(opened) > 20 else ""
        err.print(f"open: {one_line(', '.join(opened[:20]))}{more}", markup=False, style="yellow")
    if opened or summary["failed"]:
        raise typer.Exit(1)


def _not_mapped(work: Work, scenes: list[SceneFiles], records: Records) -> list[SceneFiles]:
    """Scenes that have still to be mapped: with --resume, without those whose map is of the same content."""
    todo = []
    for files in scenes:
        if work.resume and _is_mapped(work, files, records):
            say([f"{files.name}: its map is there"])
        else:
            records.open(files.name)
            todo.append(files)
    return todo


def _is_mapped(work: Work, files: SceneFiles, records: Records) -> bool:
    try:
        with work.open(files) as scene:
            return records.is_mapped(files.name, work.of_scene(scene))
    except InputError:  # said when it is mapped
        return False


def _map_each(
    work: Work, scenes: list[SceneFiles], made: Made, helpers: Helpers | None
) -> Iterator[tuple[SceneFiles, Mapped | str]]:
    """Each scene with what became of it: a map, or the reason why there is none."""
    from adcdnet.cluster.scenes import map_scene

    if helpers is None or not scenes:
        for files in scenes:
            try:
                with progress_bars() as report:
                    mapped = map_scene(work, files, made.of_scene(files.name), progress=report)
            except InputError as error:
                yield files, str(error)
            else:
                yield files, mapped
        return
    from adcdnet.cluster.engine import Failed

    large = {files.name for files in scenes if _is_large(work, files)}
    for files in (files for files in scenes if files.name in large):
        with progress_bars() as report:
            mapped_or_why = _map_in_parts(work, files, made.of_scene(files.name), helpers, report)
        yield files, mapped_or_why
    others = [files for files in scenes if files.name not in large]
    calls = [(work, files, made.of_scene(files.name)) for files in others]
    with progress_bars() as report:
        for number, result in helpers.run(map_scene, calls, what="scenes", hours=6, progress=report):
            yield others[number], result.reason if isinstance(result, Failed) else result


def _is_large(work: Work, files: SceneFiles) -> bool:
    try:
        with work.open(files) as scene:
            return scene.grid.height * scene.grid.width >= _LARGE
    except InputError:  # said when it is mapped
        return False


def _map_in_parts(work: Work, files: SceneFiles, made: Made, helpers: Helpers, report: Progress) -> Mapped | str:
    """As a scene alone is: its parts by helpers, the map by this process."""
    from adcdnet.cluster.parts import place_of_tiles
    from adcdnet.cluster.scenes import map_scene

    place = place_of_tiles(made.map)
    try:
        if reason := _make_parts(work, files, place, helpers, report):
            return reason
        return map_scene(work, files, made, place=place, progress=report)
    except InputError as error:
        return str(error)


def _tell(work: Work, made: Made, mapped: Mapped) -> None:
    say(mapped.notes)
    say(mapped.warnings)
    kind = "PAN" if work.load().grid == "fine" else "MS"
    height, width = mapped.shape
    out_console.print(f"map: {made.map} ({height * width} {kind} pixels in {mapped.seconds:.1f} s)", markup=False)
    if mapped.outside is not None:
        words = f"trust: {made.trust}   {mapped.outside:.1%} of the map lies outside the area of applicability"
        out_console.print(words, markup=False)
