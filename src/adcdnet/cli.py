"""The command line: parses, calls, prints. Results go to files, summaries to stdout, progress and notes to stderr."""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from adcdnet.checkpoint import Model, write_whole
from adcdnet.classes import ClassTable
from adcdnet.config import TrainConfig
from adcdnet.demo import run_demo
from adcdnet.errors import InputError
from adcdnet.evaluation import Evaluation, evaluate
from adcdnet.explain import SceneExplanation, check_outputs, explain, write_explanation
from adcdnet.inference import predict
from adcdnet.labels import read_labels
from adcdnet.report import EXPLAINED, score_table
from adcdnet.scene import Scene
from adcdnet.training import train

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Land-cover maps from a multispectral (MS) and a panchromatic (PAN) image, each at its own resolution.",
)
err = Console(stderr=True, soft_wrap=True, highlight=False)
out_console = Console(soft_wrap=True, highlight=False)

MsOption = Annotated[Path, typer.Option("--ms", help="Coarse image, any number of bands.")]
PanOption = Annotated[Path, typer.Option("--pan", help="Fine image; a whole number of its pixels fit in an MS pixel.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
ColumnOption = Annotated[str | None, typer.Option(help="Column of a polygon file that holds the class.")]


def main() -> None:
    """Entry point: one line for a user's error, exit code 1; typer itself ends wrong use with 2."""
    debug = "--debug" in sys.argv
    _keep_memory()
    try:
        app(args=[a for a in sys.argv[1:] if a != "--debug"])
    except InputError as error:
        if debug:
            raise
        err.print(f"adcdnet: {error}", markup=False, style="red")
        raise SystemExit(1) from None


def _keep_memory() -> None:
    """Tell glibc to keep freed memory instead of handing pages back and faulting them in again for every tensor.

    Prediction ran 1.4 times as fast with it, training 1.1 times (benchmarks/RESULTS.md).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    os.environ.setdefault("GDAL_CACHEMAX", "128")  # MB; GDAL would take a twentieth of the machine


def _version(wanted: bool) -> None:
    if wanted:
        print(f"adcdnet {version('adcdnet')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command("train")
def train_command(
    ms: MsOption,
    pan: PanOption,
    labels: Annotated[Path, typer.Option(help="Raster on the MS or PAN grid (0: unlabelled), or polygons.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    classes: Annotated[Path | None, typer.Option(help="CSV with the columns value, name, color.")] = None,
    column: ColumnOption = None,
    profile: Annotated[
        str | None, typer.Option(help="default, or paper (as published; ratio 4 only). Not with --config.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML with settings, e.g. a run's config.toml.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, the first weights and all draws.")] = None,
    stage1: Annotated[bool, typer.Option("--stage1/--no-stage1", help="Self-supervised prior network.")] = True,
    steps: Annotated[int | None, typer.Option(help="Training steps of stage II.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train on one labelled scene and leave a run folder.

    Example: adcdnet train --ms ms.tif --pan pan.tif --labels polygons.gpkg --out runs/first
    """
    if profile not in (None, "default", "paper"):
        raise typer.BadParameter(f"{profile!r} is neither 'default' nor 'paper'", param_hint="--profile")
    if profile and config:
        raise typer.BadParameter("a settings file names its own profile; give one of the two", param_hint="--profile")
    settings = TrainConfig.read(config) if config else TrainConfig.of_profile(profile or "default")  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if not stage1:
        changes["network"] = {"prior": False}
    if steps is not None:
        changes["stage2"] = {"steps": steps}
    settings = settings.replace(changes)
    table = ClassTable.read(classes) if classes else None
    with Scene.open(ms, pan) as scene:
        found = read_labels(labels, scene.grid, classes=table, column=column)
        _say((*scene.notes, *found.notes))
        with _progress() as report:
            run = train(scene, found, out=out, config=settings, device=device, progress=report)
    record = run.model.record
    _say([n for n in record["notes"] if n not in (*scene.notes, *found.notes)])
    pixels = ", ".join(f"{n} {c}" for n, c in record["labelled_pixels"].items() if c)
    out_console.print(f"labelled pixels: {pixels} (blocks of {record['block']} MS pixels)")
    out_console.print(
        f"sampling: {record['sampling']} ({record['labels_per_tile']:.1f} labelled pixels a tile on average)"
    )
    if "validation" in record:
        v = record["validation"]
        out_console.print(f"validation: OA {v['oa']:.3f}, AA {v['aa']:.3f}, kappa {v['kappa']:.3f}")
    if record["interrupted"]:
        err.print("stopped early; the run holds the best model so far", style="yellow")
    out_console.print(f"run: {run.folder}", markup=False)


@app.command("predict")
def predict_command(
    model: Annotated[Path, typer.Argument(help="Run folder or model file.")],
    ms: MsOption,
    pan: PanOption,
    out: Annotated[Path, typer.Option(help="Map to write (GeoTIFF).")],
    probabilities: Annotated[Path | None, typer.Option(help="Also write a probability per class (GeoTIFF).")] = None,
    engine: Annotated[str | None, typer.Option(help="dense (default where the network allows) or patch.")] = None,
    tau: Annotated[
        float, typer.Option(min=0.0, help="1: classes as frequent as labelled; 0: all classes alike.")
    ] = 1.0,
    memory: Annotated[str, typer.Option(help="Resident memory to stay within, e.g. 2GB or 800MB.")] = "2GB",
    precision: Annotated[str, typer.Option(help="float32, or bf16: faster on processors that have it.")] = "float32",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished tiles until the map is whole; go on from those left before.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Map a scene.

    Example: adcdnet predict runs/first --ms ms.tif --pan pan.tif --out map.tif
    """
    if engine not in (None, "dense", "patch"):
        raise typer.BadParameter(f"{engine!r} is neither 'dense' nor 'patch'", param_hint="--engine")
    if precision not in ("float32", "bf16"):
        raise typer.BadParameter(f"{precision!r} is neither 'float32' nor 'bf16'", param_hint="--precision")
    budget = _bytes(memory)
    loaded = Model.load(model)
    with Scene.open(ms, pan) as scene:
        _say(scene.notes)
        started = time.perf_counter()
        with _progress() as report:
            warnings = predict(
                loaded,
                scene,
                out=out,
                probabilities=probabilities,
                engine=engine,  # type: ignore[arg-type]
                tau=tau,
                memory=budget,
                precision=precision,  # type: ignore[arg-type]
                resume=resume,
                device=device,
                progress=lambda done, of: report("map", done, of, {}),
            )
        seconds = time.perf_counter() - started
        pixels = scene.grid.height * scene.grid.width
    _say(warnings)
    out_console.print(f"map: {out} ({pixels} MS pixels in {seconds:.1f} s)", markup=False)


def _bytes(text: str) -> int:
    """'2GB', '800 MB' -> bytes, powers of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])i?B", text.strip(), re.IGNORECASE)
    if not found:
        raise typer.BadParameter(f"{text!r} is not an amount such as 2GB or 800MB", param_hint="--memory")
    return int(float(found[1]) * 2 ** {"M": 20, "G": 30}[found[2].upper()])


@app.command("evaluate")
def evaluate_command(
    map_path: Annotated[Path, typer.Option("--map", help="Map to judge.")],
    labels: Annotated[Path, typer.Option(help="Raster or polygons.")],
    split: Annotated[Path | None, typer.Option(help="split.tif of a run.")] = None,
    part: Annotated[str | None, typer.Option(help="train, validation, test or guard.")] = None,
    column: ColumnOption = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write all figures as JSON.")] = None,
) -> None:
    """Compare a map with labels: confusion matrix, OA, AA, kappa, precision, recall, F1, IoU.

    Example: adcdnet evaluate --map map.tif --labels labels.tif --split runs/first/split.tif --part test
    """
    found = evaluate(map_path, labels, split=split, part=part, column=column)
    _say(found.notes)
    print_evaluation(found)
    if json_path is not None:
        write_whole(json_path, (json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


@app.command("explain")
def explain_command(
    model: Annotated[Path, typer.Argument(help="Run folder or model file.")],
    ms: MsOption,
    pan: PanOption,
    labels: Annotated[Path, typer.Option(help="Raster or polygons: the pixels to explain, by class.")],
    out: Annotated[Path, typer.Option(help="Figure to write (.png or .svg); a CSV of the same name goes beside it.")],
    classes: Annotated[Path | None, typer.Option(help="CSV with other names for the model's classes.")] = None,
    column: ColumnOption = None,
    split: Annotated[Path | None, typer.Option(help="split.tif of a run.")] = None,
    part: Annotated[str | None, typer.Option(help="train, validation, test or guard.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write all figures as JSON.")] = None,
) -> None:
    """How much each depth and the prior gave to the answers of the DTM heads, by class and sensor.

    Example: adcdnet explain runs/first --ms ms.tif --pan pan.tif --labels labels.tif --out why.png
    """
    outputs = [out, out.with_suffix(".csv"), *([json_path] if json_path else [])]
    check_outputs(outputs, [p for p in (ms, pan, labels, classes, split) if p is not None])
    loaded = Model.load(model)
    table = ClassTable.read(classes) if classes else loaded.classes
    with Scene.open(ms, pan) as scene:
        found_labels = read_labels(labels, scene.grid, classes=table, column=column)
        _say((*scene.notes, *found_labels.notes))
        with _progress() as report:
            found = explain(
                loaded,
                scene,
                found_labels,
                split=split,
                part=part,
                progress=lambda done, of: report("explain", done, of, {}),
            )
        where = f"{part} part of {scene.name}" if part else f"all labels of {scene.name}"
    write_explanation(found, out, title=f"{loaded.record.get('name', 'model')} on the {where}")
    if json_path is not None:
        write_whole(json_path, (json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
    print_explanation(found)
    out_console.print(f"figure: {out}   table: {out.with_suffix('.csv')}", markup=False)


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for all that it makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the landscape and the training.")] = 0,
    size: Annotated[int, typer.Option(min=120, help="MS pixels per side.")] = 160,
    ratio: Annotated[int, typer.Option(min=2, max=8, help="PAN pixels per MS pixel and axis.")] = 4,
) -> None:
    """Simulate a labelled sensor pair, train on it, map it and judge the map, all offline in a few minutes.

    Example: adcdnet demo --out runs/demo
    """
    with _progress() as report:
        result = run_demo(out, seed=seed, size=size, ratio=ratio, progress=report)
    print_evaluation(result.evaluation)
    for name, oa in result.accuracies:
        out_console.print(f"overall accuracy with {name:9} {oa:.3f}")
    both, *alone = (oa for _, oa in result.accuracies)
    verdict = "beats" if both > max(alone) else "does NOT beat"
    out_console.print(f"MS + PAN {verdict} MS alone and PAN alone")
    out_console.print(f"figure: {out / 'figure.png'}   map: {out / 'map.tif'}   run: {out}", markup=False)


def print_evaluation(found: Evaluation) -> None:
    s = found.scores
    where = f"{found.part} part" if found.part else "all labels"
    out_console.print(f"{where}: OA {s.oa:.3f}  AA {s.aa:.3f}  kappa {s.kappa:.3f}  macro F1 {s.macro_f1:.3f}")
    _print_table(score_table(s, found.classes.names))
    values = [str(value) for value in found.classes.values]
    rows = [("labels ↓ map →", *values, "no class")]
    for value, name, counts in zip(values, found.classes.names, found.confusion, strict=True):
        rows.append((f"{value} {name}", *map(str, counts)))
    _print_table(rows)


def print_explanation(found: SceneExplanation) -> None:
    out_console.print(f"Explained: {EXPLAINED}.")
    for head in found.heads:
        share = [(f"{head.sensor} head, share of", "pixels", *head.tokens, "agrees with map", "right", "map right")]
        changed = [(f"{head.sensor} head, answers changed without", *head.tokens)]
        for k, name in enumerate(found.row_names):
            hits = head.agreement[k], head.right[k], found.map_right[k]
            share.append((name, str(found.pixels[k]), *_shares(*head.token_shares[k], *hits)))
            changed.append((name, *_shares(*head.changed[k])))
        _print_table(share)
        _print_table(changed)
        out_console.print(
            f"{head.sensor} head: {head.scan_shares[-1, -1]:.1%} of the evidence enters the scan at its last position, "
            "where the convolution has mixed the last four tokens"
        )


def _shares(*values: float) -> tuple[str, ...]:
    return tuple("–" if math.isnan(v) else f"{v:.3f}" for v in values)


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """First column to the left, the others to the right; never shortened, however narrow the terminal is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(text.rjust(n) for text, n in zip(others, widths[1:], strict=True))]
        out_console.print("  ".join(cells), markup=False)


def _say(notes: Any) -> None:
    for note in notes:
        err.print(f"note: {note}", markup=False, style="yellow")


@contextmanager
def _progress() -> Iterator[Any]:
    """A function (stage, step, of how many, what is known) that draws bars on a terminal and is quiet elsewhere."""
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[known]}"),
    )
    with Progress(*columns, console=err, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, step: int, steps: int, known: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=steps, known="")
            text = "  ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in known.items() if k != "learning_rate")
            bars.update(tasks[stage], completed=step)
            if text:
                bars.update(tasks[stage], known=text)

        yield report


if __name__ == "__main__":
    main()
