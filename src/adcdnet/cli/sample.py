"""adcdnet sample"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from adcdnet.cli.console import file_to_write, out_console, print_table
from adcdnet.errors import InputError


def sample_command(
    map_path: Annotated[Path, typer.Option("--map", help="Map to draw from.")],
    out: Annotated[
        Path, typer.Option(callback=file_to_write, help="New GeoPackage (.gpkg) with an empty column 'class'.")
    ],
    n: Annotated[int | None, typer.Option("--n", min=2, help="How many points; or --for-error.")] = None,
    for_error: Annotated[
        float | None,
        typer.Option(help="As many points as give the overall accuracy this standard error, e.g. 0.03."),
    ] = None,
    of: Annotated[
        str | None, typer.Option(help="With --for-error: of the area of this class, as a share of the map, instead.")
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(help="What `adcdnet evaluate --json` said of such a map. Default: 80 % of each class are right."),
    ] = None,
    after: Annotated[
        Path | None, typer.Option(help="First points, filled in: they stay and count, and more are drawn.")
    ] = None,
    min_per_class: Annotated[
        int | None,
        typer.Option(min=2, help="Points each mapped class gets at least (50, or an equal part of a small n)."),
    ] = None,
    simple: Annotated[
        bool, typer.Option("--simple", help="A simple random sample of the whole map, not one class by class.")
    ] = False,
    pure: Annotated[
        bool,
        typer.Option("--pure", help="Only pixels whose eight neighbours are of their class; says nothing of the rest."),
    ] = False,
    ceo: Annotated[
        Path | None, typer.Option(callback=file_to_write, help="Also a CSV of the points for Collect Earth Online.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the draw.")] = 0,
) -> None:
    """Draw random points for you to interpret, from which areas and accuracies of the whole map are estimated.

    Fill in the column 'class', then: adcdnet evaluate --map map.tif --labels points.gpkg

    Example: adcdnet sample --map map.tif --for-error 0.03 --out points.gpkg
    """
    import numpy as np

    from adcdnet.assess.sample import sample, write_plots
    from adcdnet.files import refuse_overwriting
    from adcdnet.geo.maps import read_classes

    if (n is None) == (for_error is None):
        raise typer.BadParameter("give a number of points or a standard error, one of the two", param_hint="--n")
    if for_error is None and (of is not None or expected is not None):
        raise typer.BadParameter("it belongs to --for-error", param_hint="--of" if of is not None else "--expected")
    refuse_overwriting([out, *([ceo] if ceo else [])], (map_path, expected, after))
    table = read_classes(map_path)
    names = dict(zip(table.values, table.names, strict=True)) if table else {}
    drawn = sample(
        map_path,
        out,
        n=n,
        error=for_error,
        of=None if of is None else _value(of, names),
        expected=expected,
        after=after,
        min_per_class=min_per_class,
        stratified=not simple,
        pure=pure,
        seed=seed,
    )
    if ceo is not None:
        write_plots(drawn, ceo)
    rows = [("mapped class", "pixels", "share", "points")]
    for h, (value, pixels) in enumerate(zip(drawn.values.tolist(), drawn.pixels.tolist(), strict=True)):
        name = names.get(value, str(value)) if value else "all of the map"
        share = f"{pixels / drawn.pixels.sum():.3f}"
        rows.append((name, str(pixels), share, str(np.count_nonzero(drawn.stratum == h))))
    print_table(rows)
    if for_error is not None:
        what = "overall accuracy" if of is None else f"area of {of}, as a share of the map"
        out_console.print(f"{len(drawn.x)} points for a standard error of {for_error:g} ({what})", markup=False)
    words = "names or values of classes" if table else "values of the map, or names and evaluate with --classes"
    out_console.print(f"points: {out}   fill in its column 'class' with {words}", markup=False)


def _value(name: str, names: Mapping[int, str]) -> int:
    """The map's value of a class by its name or number. InputError where there is none."""
    found = [value for value, known in names.items() if name in (known, str(value))]
    if not found and name.isdigit() and not names:
        return int(name)
    if not found:
        raise InputError(f"the map has no class {name!r}; it has {', '.join(names.values()) or 'values without names'}")
    return found[0]
