"""adcdnet sample"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcdnet.cli.console import out_console, print_table


def sample_command(
    map_path: Annotated[Path, typer.Option("--map", help="Map to draw from.")],
    n: Annotated[int, typer.Option("--n", min=2, help="How many points.")],
    out: Annotated[Path, typer.Option(help="New GeoPackage (.gpkg) with an empty column 'class'.")],
    min_per_class: Annotated[
        int | None,
        typer.Option(min=2, help="Points each mapped class gets at least (50, or an equal part of a small n)."),
    ] = None,
    simple: Annotated[
        bool, typer.Option("--simple", help="A simple random sample of the whole map, not one class by class.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the draw.")] = 0,
) -> None:
    """Draw random points for you to interpret, from which areas and accuracies of the whole map are estimated.

    Fill in the column 'class', then: adcdnet evaluate --map map.tif --labels points.gpkg

    Example: adcdnet sample --map map.tif --n 500 --out points.gpkg
    """
    import numpy as np

    from adcdnet.assess.sample import sample
    from adcdnet.geo.raster import read_classes

    drawn = sample(map_path, out, n=n, min_per_class=min_per_class, stratified=not simple, seed=seed)
    table = read_classes(map_path)
    names = dict(zip(table.values, table.names, strict=True)) if table else {}
    rows = [("mapped class", "pixels", "share", "points")]
    for h, (value, pixels) in enumerate(zip(drawn.values.tolist(), drawn.pixels.tolist(), strict=True)):
        name = names.get(value, str(value)) if value else "all of the map"
        share = f"{pixels / drawn.pixels.sum():.3f}"
        rows.append((name, str(pixels), share, str(np.count_nonzero(drawn.stratum == h))))
    print_table(rows)
    words = "names or values of classes" if table else "values of the map, or names and evaluate with --classes"
    out_console.print(f"points: {out}   fill in its column 'class' with {words}", markup=False)
