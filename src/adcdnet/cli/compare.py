"""adcdnet compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcdnet.cli.console import JsonOption, file_to_write, out_console, print_table, say

if TYPE_CHECKING:
    from adcdnet.assess.compare import Comparison


def compare_command(
    first: Annotated[Path, typer.Argument(help="Map of the first date.")],
    second: Annotated[Path, typer.Argument(help="Map of the second date, on the same grid.")],
    out: Annotated[
        Path, typer.Option(callback=file_to_write, help="Change map to write (GeoTIFF): a class for each transition.")
    ],
    sample: Annotated[
        Path | None, typer.Option(help="Points of `adcdnet sample` drawn from that change map, filled in.")
    ] = None,
    json_path: JsonOption = None,
) -> None:
    """Say what became what between two maps and, from a random sample, how much ground truly changed.

    Example: adcdnet compare map2015.tif map2020.tif --out change.tif
    """
    from adcdnet.assess.compare import compare
    from adcdnet.files import as_json, refuse_overwriting, write_whole

    refuse_overwriting([out, *([json_path] if json_path else [])], (first, second, sample))
    found = compare(first, second, out, sample=sample)
    if json_path is not None:
        write_whole(json_path, as_json(found.to_dict()))
    print_comparison(found)
    if found.evaluation is None:
        out_console.print(
            f"these are areas as mapped, with the mistakes of both maps; for areas of change draw a sample: "
            f"adcdnet sample --map {out} --for-error 0.01 --out points.gpkg",
            markup=False,
        )


def print_comparison(found: Comparison) -> None:
    names, size = found.classes.names, found.pixel.hectares
    factor, digits = (1.0, 0) if size is None else (size, 2)
    unit = "pixels" if size is None else "ha"
    rows: list[tuple[str, ...]] = [(f"{unit}: first ↓ second →", *names, "all")]
    for name, counts in zip(names, found.matrix, strict=True):
        rows.append((name, *(f"{n * factor:.{digits}f}" for n in (*counts, counts.sum()))))
    rows.append(("all", *(f"{n * factor:.{digits}f}" for n in (*found.matrix.sum(axis=0), found.matrix.sum()))))
    print_table(rows)
    moved = 1 - found.matrix.trace() / found.matrix.sum()
    out_console.print(f"mapped as changed: {moved:.1%}; without a class in one of the maps: {found.without} pixels")
    evaluation = found.evaluation
    if evaluation is None or evaluation.areas is None or evaluation.areas.adjusted is None:
        return
    say(evaluation.notes)
    rows = [(f"transition ({unit})", "points", "mapped", "adjusted", "± standard error")]
    points = evaluation.confusion.sum(axis=1)
    for k, name in enumerate(evaluation.classes.names):
        area, error = evaluation.areas.adjusted[k]
        if points[k] or evaluation.areas.mapped[k]:
            figures = (evaluation.areas.mapped[k] * factor, area * factor, error * factor)
            rows.append((name, str(points[k]), *(f"{v:.{digits}f}" for v in figures)))
    print_table(rows)
    if found.changed is not None:
        share, error = found.changed
        out_console.print(f"truly changed: {share:.1%} of the ground, standard error {error:.1%}")
