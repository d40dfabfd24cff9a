"""adcdnet predict"""

from __future__ import annotations

import re
import shlex
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from adcdnet.cli.choices import Engine, Precision
from adcdnet.cli.console import (
    DeviceOption,
    FixShiftOption,
    MaskBitsOption,
    MaskOption,
    MaskValuesOption,
    MsBandsOption,
    MsFilesOption,
    PanBandsOption,
    PanFilesOption,
    bands_of,
    err,
    file_to_write,
    mask_rule,
    one_line,
    out_console,
    progress_bars,
    say,
)
from adcdnet.cli.stop import stopped_with
from adcdnet.errors import InputError
from adcdnet.files import MODEL_FILE, refuse_overwriting

if TYPE_CHECKING:
    from adcdnet.geo.classes import ClassTable
    from adcdnet.geo.scene import Scene
    from adcdnet.geo.scene_files import SceneFiles
    from adcdnet.mapping.model import Model


def predict_command(
    model: Annotated[Path, typer.Argument(help="Run folder or model file.")],
    out: Annotated[Path, typer.Option(help="Map to write (GeoTIFF); of several scenes, the folder of the maps.")],
    scenes: Annotated[
        Path | None, typer.Argument(help="scenes.toml: several scenes, one map each; or --ms and --pan.")
    ] = None,
    ms: MsFilesOption = None,
    pan: PanFilesOption = None,
    mask: MaskOption = None,
    mask_values: MaskValuesOption = None,
    mask_bits: MaskBitsOption = None,
    ms_bands: MsBandsOption = None,
    pan_bands: PanBandsOption = None,
    probabilities: Annotated[Path | None, typer.Option(help="Also write a probability per class (GeoTIFF).")] = None,
    trust: Annotated[
        Path | None,
        typer.Option(help="Also write how unlike labels each pixel is, and how likely its class is wrong (GeoTIFF)."),
    ] = None,
    engine: Annotated[Engine | None, typer.Option(help="dense (default where the network allows) or patch.")] = None,
    tau: Annotated[
        float, typer.Option(min=0.0, help="How much class shares count. 1: as labelled; 0: all classes alike.")
    ] = 1.0,
    prior: Annotated[
        str, typer.Option(help="Expected class shares: natural (as labelled), balanced, or a CSV file value,share.")
    ] = "natural",
    memory: Annotated[
        str,
        typer.Option(help="Most memory to use, of the process or of the GPU, e.g. 2GB; auto: half of what is free."),
    ] = "2GB",
    precision: Annotated[
        Precision, typer.Option(help="float32, or bf16: faster on processors that have it.")
    ] = "float32",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep finished tiles until the map is whole, and continue from tiles of a stopped call."
        ),
    ] = False,
    fix_shift: FixShiftOption = False,
    sieve: Annotated[
        int, typer.Option(min=0, help="Merge patches of fewer map pixels into their largest neighbour (0: none).")
    ] = 0,
    stac: Annotated[
        bool, typer.Option("--stac", help="Also describe each map by a STAC item, of its name with .json.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Map a scene, or several.

    Example: adcdnet predict runs/first --ms ms.tif --pan pan.tif --out map.tif
    """
    from adcdnet.geo import alignment
    from adcdnet.geo.scene_files import SceneFiles
    from adcdnet.mapping.model import Model
    from adcdnet.mapping.predict import predict

    budget = _bytes(memory)
    loaded = Model.load(model)
    fine = loaded.grid == "fine"
    expected = None if prior == "natural" else _prior(prior, loaded.classes)
    described: dict[str, Any] = {}
    if stac:
        from adcdnet.export.stac import predict_described as predict  # type: ignore[assignment]

        described["model_file"] = model / MODEL_FILE if model.is_dir() else model
    mapped = partial(
        predict,
        loaded,
        **described,
        engine=engine,
        tau=tau,
        prior=expected,
        memory=budget,
        precision=precision,
        resume=resume,
        sieved=sieve,
        device=device,
    )
    trained = loaded.record.chosen_bands
    bands = bands_of(ms_bands) or trained.get("ms"), bands_of(pan_bands) or trained.get("pan")

    how = "the same command goes on from the finished tiles" if resume else ""

    def opened(files: SceneFiles) -> Scene:
        scene = files.open(ms_bands=bands[0], pan_bands=bands[1])
        try:
            return alignment.fix_shift(scene) if fix_shift else scene
        except BaseException:
            scene.close()
            raise

    def named(files: SceneFiles, made: _Made) -> None:
        if model.is_dir():
            words = _report_words(model, loaded, files, made, (ms_bands, pan_bands), fix_shift)
            out_console.print(f"report of it: {shlex.join(words)}", markup=False)

    made = _Made(out, probabilities, trust)
    read = [model, scenes, *_known_to(model), *([] if prior in ("natural", "balanced") else [Path(prior)])]
    if scenes is not None and not ms and not pan and mask is None and not mask_values and not mask_bits:
        with stopped_with(how):
            _map_all(mapped, opened, named, scenes, made, fine=fine, read=read)
        return
    if scenes is not None or not ms or not pan:
        raise typer.BadParameter("name a file of scenes, or --ms and --pan of one", param_hint="SCENES")
    for path in made:
        file_to_write(path)
    refuse_overwriting(made.written(), read)
    rule = mask_rule(mask, mask_values, mask_bits)
    if mask is not None and not any(rule.values()):
        rule = _rule_of_training(model)
    files = SceneFiles(ms=tuple(ms), pan=tuple(pan), mask=mask, **rule)
    with stopped_with(how):
        _map(mapped, opened, files, made, fine=fine)
    named(files, made)


class _Made(NamedTuple):
    """The files that one scene gets, or the folders that those of several go into."""

    map: Path
    probabilities: Path | None
    trust: Path | None

    def of_scene(self, name: str) -> _Made:
        """Those of one of several scenes, called as it is."""
        return _Made(*(folder and folder / f"{name}.tif" for folder in self))  # type: ignore[arg-type]

    def written(self) -> list[Path]:
        """With the files that go beside them."""
        from adcdnet.geo.raster_writer import files_written

        return [file for path in self if path is not None for file in files_written(path)]


def _known_to(model: Path) -> list[Path]:
    """The files that a run was trained with, and model files."""
    from adcdnet.training import provenance

    return [model / MODEL_FILE, *(file.path for file in provenance.read(model)[0].values())]


def _rule_of_training(model: Path) -> dict[str, Any]:
    """What of a mask hid in training, as keyword arguments; said, for another mask may be of 0 and 1."""
    from adcdnet.geo.masks import PLAIN
    from adcdnet.training import provenance

    files = provenance.read(model)[0]
    rule = next((file.rule for name, file in files.items() if name.split(" ")[-1] == "mask"), PLAIN)
    if not rule.is_plain:
        say([f"{rule} of the mask hide, as in training; --mask-values and --mask-bits name others"])
    return {"mask_values": rule.values, "mask_bits": rule.bits}


def _prior(text: str, classes: ClassTable) -> tuple[float, ...]:
    from adcdnet.geo.classes import read_prior

    return (1 / len(classes),) * len(classes) if text == "balanced" else read_prior(Path(text), classes)


def _report_words(
    run: Path,
    model: Model,
    files: SceneFiles,
    made: _Made,
    bands: tuple[str | None, str | None],
    fix_shift: bool,
) -> list[str]:
    """The command that makes a report of a map: with all that the scene was opened with."""
    options: list[tuple[str, Path | str | None]] = [("--map", made.map), ("--probabilities", made.probabilities)]
    if files.name in model.record.scenes:
        options.append(("--scene", files.name))
    for option, image in (("--ms", files.ms), ("--pan", files.pan)):
        options += [(option, file) for file in ((image,) if isinstance(image, Path) else image)]
    for option, numbers in (("--mask-values", files.mask_values), ("--mask-bits", files.mask_bits)):
        options += [(option, ",".join(map(str, numbers)))] if numbers else []
    options += [("--mask", files.mask), ("--ms-bands", bands[0]), ("--pan-bands", bands[1])]
    given = [str(word) for option, value in options if value is not None for word in (option, value)]
    return ["adcdnet", "report", str(run), *given, *(["--fix-shift"] if fix_shift else [])]


def _map_all(
    mapped: partial[list[str]],
    opened: Callable[[SceneFiles], Scene],
    named: Callable[[SceneFiles, _Made], None],
    scenes: Path,
    made: _Made,
    *,
    fine: bool,
    read: list[Path | None],
) -> None:
    """A map for every scene of a file, called as the scene; goes on after one that fails, and fails at the end."""
    from adcdnet.geo.scene_files import read_scenes

    wanted = read_scenes(scenes, labelled=False)
    read += [file for files in wanted for file in (*files.files(), files.classes, files.split)]
    for files in wanted:
        refuse_overwriting(made.of_scene(files.name).written(), read)
    for folder in made:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{folder} is no folder for the maps: {error.strerror}; choose another one") from error
    failed = 0
    for files in wanted:
        own = made.of_scene(files.name)
        try:
            _map(mapped, opened, files, own, fine=fine)
            named(files, own)
        except InputError as error:
            failed += 1
            err.print(f"error: {one_line(f'{files.name}: {error}')}", markup=False, style="red")
    if failed:
        err.print(f"{failed} of {len(wanted)} scenes could not be mapped", style="red")
        raise typer.Exit(1)


def _map(
    mapped: partial[list[str]],
    opened: Callable[[SceneFiles], Scene],
    files: SceneFiles,
    made: _Made,
    *,
    fine: bool,
) -> None:
    from adcdnet.mapping.trust import require_applicability, write_trust

    model = mapped.args[0]
    if made.trust is not None:
        require_applicability(model)
    with ExitStack() as stack:
        scene = stack.enter_context(opened(files))
        say(scene.notes)
        started = time.perf_counter()
        soft = made.probabilities
        if soft is None and made.trust is not None:
            soft = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "probabilities.tif"
        with progress_bars() as report:
            warnings = mapped(scene, out=made.map, probabilities=soft, progress=report)
        outside = None if made.trust is None or soft is None else write_trust(model, scene, soft, made.trust)
        seconds = time.perf_counter() - started
        height, width = (scene.fine_grid if fine else scene.grid).shape
    say(warnings)
    kind = "PAN" if fine else "MS"
    out_console.print(f"map: {made.map} ({height * width} {kind} pixels in {seconds:.1f} s)", markup=False)
    if outside is not None:
        words = f"trust: {made.trust}   {outside:.1%} of the map lies outside the area of applicability"
        out_console.print(words, markup=False)


def _bytes(text: str) -> int:
    """'2GB', '800 MB' -> bytes, powers of 1024; 'auto' -> half of what is free, or of what a container allows."""
    if text.strip().lower() == "auto":
        from adcdnet.assess.machine import usable_memory

        return usable_memory()
    amount = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])i?B", text.strip(), re.IGNORECASE)
    if not amount:
        raise typer.BadParameter(f"{text!r} is not an amount such as 2GB or 800MB", param_hint="--memory")
    return int(float(amount[1]) * 2 ** {"M": 20, "G": 30}[amount[2].upper()])
