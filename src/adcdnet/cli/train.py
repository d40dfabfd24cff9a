"""adcdnet train"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from adcdnet.cli.choices import MemberName, Profile, SplitUnit, TargetGrid
from adcdnet.cli.console import (
    ColumnOption,
    DeviceOption,
    FixShiftOption,
    LabelsOption,
    LayerOption,
    MaskBitsOption,
    MaskOption,
    MaskValuesOption,
    MinShareOption,
    MsBandsOption,
    MsFilesOption,
    PanBandsOption,
    PanFilesOption,
    bands_of,
    mask_rule,
    out_console,
    print_table,
    progress_bars,
    say,
)
from adcdnet.cli.stop import stopped_with
from adcdnet.errors import InputError
from adcdnet.files import refuse_replacing

if TYPE_CHECKING:
    from adcdnet.benchmark.random_split import Claim
    from adcdnet.geo.scene_files import SceneFiles
    from adcdnet.mapping.model import Run
    from adcdnet.training.needs import Needs
    from adcdnet.training.scenes import LabelledScene

_SCORES = (("oa", "OA"), ("aa", "AA"), ("kappa", "kappa"))
_LEAKS = "that says how well the scene is remembered, not how well new ground is mapped"


@stopped_with("the same command with --resume goes on from what is finished")
def train_command(
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    scenes: Annotated[
        Path | None, typer.Argument(help="scenes.toml: several scenes, trained together; or --ms, --pan and --labels.")
    ] = None,
    ms: MsFilesOption = None,
    pan: PanFilesOption = None,
    labels: LabelsOption = None,
    mask: MaskOption = None,
    mask_values: MaskValuesOption = None,
    mask_bits: MaskBitsOption = None,
    ms_bands: MsBandsOption = None,
    pan_bands: PanBandsOption = None,
    classes: Annotated[Path | None, typer.Option(help="CSV with the columns value, name, color.")] = None,
    column: ColumnOption = None,
    layer: LayerOption = None,
    min_share: MinShareOption = None,
    profile: Annotated[
        Profile | None,
        typer.Option(
            help="Of the member adcdnet: default; plain (without prior, DIA and DTM, as the member plain is); "
            "patch (small patches); paper (as the article says), paper-code (as its code does; both ratio 4 only). "
            "Not with --config."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML with settings, e.g. a run's config.toml.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed of the split, the first weights and all draws.")
    ] = None,
    stage1: Annotated[
        bool, typer.Option("--stage1/--no-stage1", help="Of the member adcdnet: train the self-supervised prior first.")
    ] = True,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of stage II; half as many where it trains by tiles.")
    ] = None,
    split: Annotated[
        SplitUnit | None,
        typer.Option(
            help="What stays in one part: blocks (squares of ground), polygons of the labels, "
            "or random: single pixels, as in many papers (leaks)."
        ),
    ] = None,
    split_raster: Annotated[
        Path | None, typer.Option(help="A split of your own on the MS grid: 1 train, 2 validation, 3 test, 0 unused.")
    ] = None,
    grid: Annotated[
        TargetGrid | None,
        typer.Option(help="Grid of labels and map: coarse (MS, the default) or fine (PAN)."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Run or model to begin from; --no-stage1 then keeps its prior as it is.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=1, max=20, help="Parts of the ground that test in turn (default 5); 1: a single split."),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            help=f"What answers together, of {', '.join(get_args(MemberName))}. Default: plain,boosting,perceptron."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look within a minute: one split, a perceptron alone.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Folds trained at once. Default: as many as there are processors.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what an earlier, stopped call of the same training finished.")
    ] = False,
    compare_random: Annotated[
        bool,
        typer.Option("--compare-random", help="Train twice, to show what a split by random pixels would have claimed."),
    ] = False,
    fix_shift: FixShiftOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Train on one labelled scene, or on several, and leave a run folder.

    Example: adcdnet train --ms ms.tif --pan pan.tif --labels polygons.gpkg --out runs/first
    """
    from adcdnet.config import TrainConfig
    from adcdnet.geo.scene_files import SceneFiles, read_scenes
    from adcdnet.mapping.model import Model
    from adcdnet.training.folder import require_run_folder
    from adcdnet.training.needs import needs_of
    from adcdnet.training.run import train
    from adcdnet.training.transfer import settings_of

    require_run_folder(out)
    if profile and config:
        raise typer.BadParameter("a settings file names its own profile; give one of the two", param_hint="--profile")
    settings = TrainConfig.read(config) if config else TrainConfig.of_profile(profile or "default")
    model = None if init is None else Model.load(init)
    if model is not None and not config and not profile:
        settings = settings_of(model)
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if grid is not None:
        changes["network"] = {"grid": grid}
    if not stage1 and model is not None and model.network.prior is not None:
        changes["stage1"] = {"steps": 0}
    elif not stage1:
        changes["network"] = {**changes.get("network", {}), "prior": False}
    if steps is not None:
        changes["stage2"] = {"steps": steps}
        changes["passes"] = 0.0  # exactly so many
    if quick and (folds is not None or members is not None):
        raise typer.BadParameter("it names folds and members itself; leave it out, or them", param_hint="--quick")
    if split is not None:
        changes["split"] = {"unit": split}
    if quick or folds is not None:
        changes["split"] = {**changes.get("split", {}), "folds": 1 if quick else folds}
    if quick or members is not None:
        changes["members"] = ["perceptron"] if quick else [name.strip() for name in (members or "").split(",")]
    settings = settings.replace(changes)
    if compare_random and settings.split.folds > 1:
        raise typer.BadParameter("it compares single splits; add --folds 1", param_hint="--compare-random")
    if compare_random and settings.split.unit == "random":
        raise typer.BadParameter("the split is of random pixels already", param_hint="--compare-random")
    if (scenes is None) == (not ms and not pan and not labels):
        raise typer.BadParameter("name a file of scenes, or --ms, --pan and --labels of one", param_hint="SCENES")
    if scenes is not None:
        if classes or column or layer or min_share or split_raster or mask or mask_values or mask_bits:
            raise typer.BadParameter(
                "classes, columns, layers, masks and splits stand in the file of scenes", param_hint="SCENES"
            )
        wanted = read_scenes(scenes)
    elif not ms or not pan or not labels:
        raise typer.BadParameter("a scene needs all of --ms, --pan and --labels", param_hint="--ms")
    else:
        rule = mask_rule(mask, mask_values, mask_bits)
        files = SceneFiles(
            ms=tuple(ms),
            pan=tuple(pan),
            labels=tuple(labels),
            classes=classes,
            column=column,
            layer=layer,
            min_share=min_share,
        )
        wanted = [files.model_copy(update={"mask": mask, "split": split_raster, **rule})]
    refuse_replacing(out, [path for files in wanted for path in (*files.files(), files.classes, files.split)])
    trained = {} if model is None else model.record.chosen_bands
    chosen = {
        "ms_bands": bands_of(ms_bands) or trained.get("ms"),
        "pan_bands": bands_of(pan_bands) or trained.get("pan"),
    }
    with ExitStack() as stack:
        fine = settings.network.grid == "fine"
        opened = [_open(files, stack, chosen, fine=fine, fix_shift=fix_shift) for files in wanted]
        words = sys.argv[1:]
        _say_needs(needs_of(opened, settings, jobs))
        with progress_bars() as report:
            run = train(
                opened,
                out=out,
                config=settings,
                init=model,
                device=device,
                jobs=jobs,
                resume=resume,
                progress=report,
                command=words,
            )
        said = {note for scene in opened for note in scene.notes}
        say([n for n in run.model.record.notes if n not in said])
        _print_run(run, by_blocks=settings.split.unit == "blocks" and len(wanted) == 1 and wanted[0].split is None)
        if compare_random:
            from adcdnet.benchmark.random_split import compare_random as compare

            whole = f"the run {run.folder} is whole, only the comparison is missing"
            with stopped_with(whole), progress_bars() as report:
                _print_claims(*compare(run, opened, init=model, device=device, progress=report))
    out_console.print(f"run: {run.folder}   report of it: adcdnet report {run.folder}", markup=False)


def _say_needs(needs: Needs) -> None:
    memory, disk = (
        f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB" for size in (needs.memory, needs.disk)
    )
    where = "one process" if needs.processes == 1 else f"{needs.processes} processes"
    say([f"the training needs at least {memory} of memory, in {where}, and {disk} of disk"])


def _print_run(run: Run, *, by_blocks: bool) -> None:
    record = run.model.record
    pixels = ", ".join(f"{n} {c}" for n, c in record.labelled_pixels.items() if c)
    blocks = f" (blocks of {record.block} MS pixels)" if by_blocks and record.block else ""
    out_console.print(f"labelled pixels: {pixels}{blocks}")
    for name, of_scene in record.scenes.items():
        pixels = ", ".join(f"{n} {c}" for n, c in of_scene["labelled_pixels"].items() if c)
        out_console.print(f"  {name}: {pixels}", markup=False)
    if record.labels_per_tile is not None:
        sampling = f"sampling: {record.sampling} ({record.labels_per_tile:.1f} labelled pixels a tile on average)"
        out_console.print(sampling)
    if record.self_trained is not None:
        out_console.print(f"few labels: a second round learnt from {record.self_trained} pixels without one as well")
    if len(record.members) > 1:
        rows: list[tuple[str, ...]] = [("member", "weight", "OA", "AA", "kappa")]
        for name, told in record.members.items():
            alone = (f"{told[key]:.3f}" if told.get(key) is not None else "–" for key in ("oa", "aa", "kappa"))
            rows.append((name, f"{told['weight']:.2f}", *alone))
        print_table(rows)
    for part, v in (("validation", record.validation), (f"{record.folds} folds", record.cross_validation)):
        if v is not None:
            figures = (f"{label} {v[name]:.3f}{_span(v, name)}" for name, label in _SCORES)
            out_console.print(f"{part}: {', '.join(figures)}", markup=False)
    if record.cross_validation is not None:
        out_console.print(
            "every labelled pixel was judged once, by members that trained neither on it nor near it; the map is made "
            "by all folds together"
        )
    holding = record.leakage["holding"]
    if record.settings["split"]["unit"] == "random" and holding is not None:
        out_console.print(
            f"random pixels: {holding:.0%} of the test pixels have a training pixel in their window; {_LEAKS}"
        )


def _span(scores: Mapping[str, Any], name: str) -> str:
    """The interval of a score, where there is one."""
    ends = (scores.get("intervals") or {}).get(name)
    return "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"


def _print_claims(own: Claim, random: Claim) -> None:
    rows: list[tuple[str, ...]] = [("on the test part", "own split", "random pixels")]
    for tau in own.scores:
        for name, label in (("oa", "OA"), ("aa", "AA"), ("kappa", "kappa")):
            values = (f"{getattr(claim.scores[tau], name):.3f}" for claim in (own, random))
            rows.append((f"{label} at tau {tau:g}", *values))
    rows.append(("labelled test pixels", str(own.pixels), str(random.pixels)))
    rows.append(("with a training pixel in their window", f"{own.holding:.0%}", f"{random.holding:.0%}"))
    rows.append(("with a window that overlaps a training one", f"{own.overlapping:.0%}", f"{random.overlapping:.0%}"))
    print_table(rows)
    gain = random.scores[1.0].oa - own.scores[1.0].oa
    by = f"{abs(gain):.3f} {'higher' if gain > 0 else 'lower'}"
    out_console.print(f"a split by random pixels would have claimed an OA {by}; {_LEAKS}; its model was not kept")


def _open(
    files: SceneFiles, stack: ExitStack, chosen: dict[str, list[str] | None], *, fine: bool, fix_shift: bool
) -> LabelledScene:
    """A scene with its labels, its notes said; the stack closes it. InputError names the scene where it has a name."""
    from adcdnet.geo import alignment
    from adcdnet.training.scenes import LabelledScene

    try:
        as_given = stack.enter_context(files.open(**chosen))
        # to measure takes a second or two beside minutes of training
        scene = alignment.fix_shift(as_given) if fix_shift else alignment.note_shift(as_given)
        labels = files.read_labels(scene.fine_grid if fine else scene.grid)
        labelled = LabelledScene(scene, labels, files.name, files.part, files.split)
    except InputError as error:
        raise InputError(f"{files.name}: {error}" if files.name else str(error)) from error
    say(labelled.notes)
    return labelled
