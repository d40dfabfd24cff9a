"""adcdnet evaluate"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcdnet.cli.console import ColumnOption, out_console, print_table, refuse_overwriting, say, score_table

if TYPE_CHECKING:
    from adcdnet.assess.evaluate import Evaluation
    from adcdnet.assess.intervals import Interval


def evaluate_command(
    map_path: Annotated[Path, typer.Option("--map", help="Map to judge.")],
    labels: Annotated[
        Path, typer.Option(help="Raster, polygons, or points of `adcdnet sample` with classes filled in.")
    ],
    split: Annotated[Path | None, typer.Option(help="split.tif of a run.")] = None,
    part: Annotated[str | None, typer.Option(help="train, validation, test or guard.")] = None,
    column: ColumnOption = None,
    block: Annotated[
        int | None, typer.Option(min=1, help="Map pixels per side of the blocks that intervals come from.")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write all figures as JSON.")] = None,
) -> None:
    """Compare a map with labels: OA, AA, kappa, F1 and more with 95 % intervals, confusion matrix, areas, leakage.

    Example: adcdnet evaluate --map map.tif --labels labels.tif --split runs/first/split.tif --part test
    """
    from adcdnet.assess.evaluate import evaluate
    from adcdnet.files import as_json, write_whole

    refuse_overwriting(json_path, (map_path, labels, split))
    found = evaluate(map_path, labels, split=split, part=part, column=column, block=block)
    say(found.notes)
    print_evaluation(found)
    if json_path is not None:
        write_whole(json_path, as_json(found.to_dict()))


def print_evaluation(found: Evaluation) -> None:
    s, sure = found.scores, found.intervals
    where = "whole map, estimated" if found.of_sample else f"{found.part} part" if found.part else "all labels"
    means = []
    for name, label in (("oa", "OA"), ("aa", "AA"), ("kappa", "kappa"), ("macro_f1", "macro F1")):
        means.append(f"{label} {getattr(s, name):.3f}" + (_span(getattr(sure, name)) if sure else ""))
    out_console.print(f"{where}: {'  '.join(means)}", markup=False)
    print_table(score_table(s, found.classes.names))
    if sure is not None:
        rows: list[tuple[str, ...]] = [("95 % interval", "precision", "recall", "F1")]
        for name, *spans in zip(found.classes.names, sure.precision, sure.recall, sure.f1, strict=True):
            rows.append((name, *(_span(span).strip() or "–" for span in spans)))
        print_table(rows)
    out_console.print(_basis(found), markup=False)
    if found.leakage is not None:
        out_console.print(
            f"leakage: {found.leakage.holding:.1%} of these pixels have a training pixel in their window, "
            f"{found.leakage.overlapping:.1%} have a window that overlaps one of a training pixel",
            markup=False,
        )
    values = [str(value) for value in found.classes.values]
    rows = [("labels ↓ map →", *values, "no class")]
    for value, name, counts in zip(values, found.classes.names, found.confusion, strict=True):
        rows.append((f"{value} {name}", *map(str, counts)))
    print_table(rows)
    _print_areas(found)


def _span(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f" [{interval.low:.2f}, {interval.high:.2f}]"


def _basis(found: Evaluation) -> str:
    """Where the intervals come from, or why there are none."""
    from adcdnet.assess.intervals import FEWEST_BLOCKS

    if found.of_sample:
        return f"intervals: of a probability sample of {found.confusion.sum()} points, 1.96 standard errors"
    blocks = f"{found.blocks} blocks of {found.block}×{found.block} map pixels"
    if found.intervals is None:
        return f"no intervals: the labels lie in {blocks}, {FEWEST_BLOCKS} at least are needed; --block sets their side"
    return f"intervals: from {blocks} that hold labels, drawn anew"


def _print_areas(found: Evaluation) -> None:
    areas = found.areas
    if areas is None:
        return
    size = areas.pixel.hectares
    factor, digits = (1.0, 0) if size is None else (size, 2)
    rows: list[tuple[str, ...]] = [("area (pixels)" if size is None else "area (ha)", "mapped")]
    for k, name in enumerate(found.classes.names):
        rows.append((name, f"{areas.mapped[k] * factor:.{digits}f}"))
        if areas.adjusted is not None:
            pixels, error = areas.adjusted[k]
            known = f"{error * factor:.{digits}f}" if error > 0 else "–"  # the points of every stratum agree
            rows[-1] += (f"{pixels * factor:.{digits}f}", known)
    if areas.adjusted is not None:
        rows[0] += ("adjusted", "± standard error")
    print_table(rows)
    if size is None:
        out_console.print(f"areas in pixels: {areas.pixel.unknown}", markup=False)
    if areas.adjusted is None:
        out_console.print("areas as mapped, errors and all: only a random sample can adjust them (adcdnet sample)")
