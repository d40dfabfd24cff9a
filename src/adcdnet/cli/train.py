"""adcdnet train"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from adcdnet import alignment, inputs
from adcdnet.classes import ClassTable
from adcdnet.cli.console import (
    ColumnOption,
    DeviceOption,
    FixShiftOption,
    MsOption,
    PanOption,
    err,
    out_console,
    progress_bars,
    say,
)
from adcdnet.config import TrainConfig
from adcdnet.labels import read_labels
from adcdnet.scene import Scene
from adcdnet.training import train


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
    fix_shift: FixShiftOption = False,
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
        if fix_shift:
            alignment.fix_shift(scene)
        else:  # a second or two beside minutes of training
            alignment.note_shift(scene)
        found = read_labels(labels, scene.grid, classes=table, column=column)
        say((*scene.notes, *found.notes))
        with progress_bars() as report:
            run = train(scene, found, out=out, config=settings, device=device, progress=report)
    record = run.model.record
    say([n for n in record["notes"] if n not in (*scene.notes, *found.notes)])
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
    files, of_polygons, _ = inputs.read(run.folder)
    inputs.write(run.folder, files, of_polygons, sys.argv[1:])
    out_console.print(f"run: {run.folder}   report of it: adcdnet report {run.folder}", markup=False)
