"""adcdnet predict"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    PriorOption,
    TauOption,
    bands_of,
    file_to_write,
    mask_rule,
    out_console,
    prior_of,
    say,
)
from adcdnet.cli.helpers import SchedulerOption, TaskSecondsOption, WorkersOption, helpers_of
from adcdnet.cli.stop import stopped_with
from adcdnet.files import MODEL_FILE, refuse_overwriting

if TYPE_CHECKING:
    from adcdnet.cluster.scenes import Made, Work
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
    tau: TauOption = 1.0,
    prior: PriorOption = "natural",
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
    part: Annotated[
        str | None,
        typer.Option(help="3/100: only the third of 100 parts, of a scene's tiles or of several scenes."),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Make the map of all parts; of several scenes, say what became of each.")
    ] = False,
    tiles: Annotated[
        str | None,
        typer.Option(
            help="Where parts leave their tiles: a folder or an address such as s3://…; default beside --out."
        ),
    ] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    task_seconds: TaskSecondsOption = None,
    stac: Annotated[
        bool, typer.Option("--stac", help="Also describe each map by a STAC item, of its name with .json.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Map a scene, or several.

    Example: adcdnet predict runs/first --ms ms.tif --pan pan.tif --out map.tif
    """
    from adcdnet.cli.many import map_list, map_one
    from adcdnet.cluster.parts import Part
    from adcdnet.cluster.scenes import Made, Work, remember
    from adcdnet.geo.scene_files import SceneFiles
    from adcdnet.mapping.model import Model

    budget = _bytes(memory)
    loaded = Model.load(model)
    remember(loaded)
    trained = loaded.record.chosen_bands
    bands = bands_of(ms_bands) or trained.get("ms"), bands_of(pan_bands) or trained.get("pan")
    work = Work(
        model=model,
        digest=loaded.digest,
        ms_bands=None if bands[0] is None else tuple(bands[0]),
        pan_bands=None if bands[1] is None else tuple(bands[1]),
        fix_shift=fix_shift,
        engine=engine,
        tau=tau,
        prior=prior_of(prior, loaded.classes),
        memory=budget,
        precision=precision,
        sieved=sieve,
        device=device,
        resume=resume,
    )
    own = None if part is None else Part.read(part)
    if own is not None and finish:
        raise typer.BadParameter(
            "makes one part; --finish makes the map of all: give one of the two", param_hint="--part"
        )
    helpers = helpers_of(workers, scheduler, task_seconds, memory=budget)
    if helpers is not None and (own is not None or finish):
        raise typer.BadParameter("makes all parts and the map; leave out --part and --finish", param_hint="--workers")

    def named(files: SceneFiles, made: Made) -> None:
        if stac:
            _describe(work, files, made)
        if model.is_dir():
            words = _report_words(model, loaded, files, made, (ms_bands, pan_bands), fix_shift)
            out_console.print(f"report of it: {shlex.join(words)}", markup=False)

    made = Made(out, probabilities, trust)
    read = [model, scenes, *_known_to(model), *([] if prior in ("natural", "balanced") else [Path(prior)])]
    kept = resume or own is not None or helpers is not None
    with stopped_with("the same command goes on from the finished tiles" if kept else ""):
        if scenes is not None and not ms and not pan and mask is None and not mask_values and not mask_bits:
            if tiles is not None:
                raise typer.BadParameter(
                    "is for the parts of one scene; parts of a list are scenes", param_hint="--tiles"
                )
            map_list(work, scenes, made, part=own, finish=finish, helpers=helpers, named=named, read=read)
            return
        if scenes is not None or not ms or not pan:
            raise typer.BadParameter("name a file of scenes, or --ms and --pan of one", param_hint="SCENES")
        for path in made:
            file_to_write(path)
        images = [*ms, *pan, mask] if stac else []
        refuse_overwriting([*made.written(), *([out.with_suffix(".json")] if stac else [])], [*read, *images])
        rule = mask_rule(mask, mask_values, mask_bits)
        if mask is not None and not any(rule.values()):
            rule = _rule_of_training(model)
        files = SceneFiles(ms=tuple(ms), pan=tuple(pan), mask=mask, **rule)
        if map_one(work, files, made, part=own, finish=finish, tiles=tiles, helpers=helpers):
            named(files, made)


def _describe(work: Work, files: SceneFiles, made: Made) -> None:
    """A STAC item beside a map that is there."""
    from adcdnet.export.stac import write_item

    file = work.model / MODEL_FILE if work.model.is_dir() else work.model
    with work.open(files) as scene:
        write_item(made.map, work.load(), scene, tau=work.tau, prior=work.prior, soft=made.probabilities, file=file)


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


def _report_words(
    run: Path,
    model: Model,
    files: SceneFiles,
    made: Made,
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


def _bytes(text: str) -> int:
    """'2GB', '800 MB' -> bytes, powers of 1024; 'auto' -> half of what is free, or of what a container allows."""
    if text.strip().lower() == "auto":
        from adcdnet.assess.machine import usable_memory

        return usable_memory()
    amount = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])i?B", text.strip(), re.IGNORECASE)
    if not amount:
        raise typer.BadParameter(f"{text!r} is not an amount such as 2GB or 800MB", param_hint="--memory")
    return int(float(amount[1]) * 2 ** {"M": 20, "G": 30}[amount[2].upper()])
