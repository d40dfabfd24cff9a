"""adcdnet scenes"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcdnet.cli.console import ColumnOption, err, file_to_write, out_console, print_table, say
from adcdnet.errors import InputError


def scenes_command(
    folder: Annotated[Path, typer.Argument(help="Folder of pairs, in it or in folders below.")],
    out: Annotated[Path, typer.Option(callback=file_to_write, help="File to write.")] = Path("scenes.toml"),
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of label files beside a pair, e.g. 'train*.gpkg', if not labels, polygons or training."
        ),
    ] = None,
    column: ColumnOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write scenes.toml from a folder: find the pairs of MS and PAN by their names, with masks and labels.

    Known are Landsat 7 to 9, Sentinel-2, SPOT 6/7, Pléiades, Maxar, GaoFen, SpaceNet, and ms.tif with pan.tif.

    Example: adcdnet scenes images --out scenes.toml
    """
    from adcdnet.geo.scene_files import write_scenes
    from adcdnet.geo.scene_folders import find_scenes

    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; name another file with --out, or replace it with --overwrite")
    found = find_scenes(folder, labels=labels or (), column=column)
    say(found.notes)
    for name, why in found.refused:
        err.print(f"error: {name}: {why}", markup=False, style="red")
    if not found.scenes:
        raise InputError(f"none of the {len(found.refused)} pairs in {folder} can be used; nothing is written")
    write_scenes(out, ((scene.files, scene.remarks) for scene in found.scenes))
    rows: list[tuple[str, ...]] = [("scene", "named as", "MS bands", "PAN bands", "ratio", "mask hides", "labels")]
    for scene in found.scenes:
        files = scene.files
        say(f"{files.name}: {remark}" for remark in scene.remarks if files.labels or "left out" in remark)
        hidden = f"{scene.hidden:.0%}" if files.mask else "–"
        counts = *map(str, scene.bands), str(scene.ratio)
        rows.append(
            (files.name, scene.product, *counts, hidden, ", ".join(path.name for path in files.label_files) or "none")
        )
    print_table(rows)
    without = sum(scene.files.labels is None for scene in found.scenes)
    if 0 < without < len(found.scenes):
        say([f"{without} of {len(found.scenes)} scenes have no labels; remove them from {out.name} for `train`"])
    out_console.print(
        f"scenes: {out} ({len(found.scenes)} of {len(found.scenes) + len(found.refused)} pairs)", markup=False
    )
