"""adcdnet evaluate"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcdnet.cli.console import (
    ColumnOption,
    JsonOption,
    LayerOption,
    MinShareOption,
    out_console,
    print_table,
    say,
    score_table,
)

if TYPE_CHECKING:
    from adcdnet.assess.evaluate import Evaluation
    from adcdnet.metrics.intervals import Interval


def evaluate_command(
    map_path: Annotated[Path, typer.Option("--map", help="Map to judge.")],
    labels: Annotated[
        list[Path],
        typer.Option(
            help="Raster, polygons, or points of `adcdnet sample` with classes filled in; or --labels for each file."
        ),
    ],
    split: Annotated[Path | None, typer.Option(help="split.tif of a run.")] = None,
    part: Annotated[str | None, typer.Option(help="train, validation, test or guard.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="CSV value,name,color: classes of a map that carries no names.")
    ] = None,
    column: ColumnOption = None,
    layer: LayerOption = None,
    min_share: MinShareOption = None,
    block: Annotated[
        int | None, typer.Option(min=1, help="Map pixels per side of the blocks that intervals come from.")
    ] = None,
    json_path: JsonOption = None,
) -> None:
    """Compare a map with labels: OA, AA, kappa, F1 and more with 95 % intervals, confusion matrix, areas, leakage.

    Example: adcdnet evaluate --map map.tif --labels labels.tif --split runs/first/split.tif --part test
    """
    from adcdnet.assess.evaluate import evaluate
    from adcdnet.files import as_json, refuse_overwriting, write_whole
    from adcdnet.geo.classes import ClassTable

    if json_path is not None:
        refuse_overwriting([json_path], (map_path, *labels, split, classes))
    table = ClassTable.read(classes) if classes else None
    evaluation = evaluate(
        map_path,
        labels,
        split=split,
        part=part,
        classes=table,
        column=column,
        layer=layer,
        min_share=min_share,
        block=block,
    )
    if json_path is not None:
        write_whole(json_path, as_json(evaluation.to_dict()))
    say(evaluation.notes)
    print_evaluation(evaluation)


def print_evaluation(evaluation: Evaluation) -> None:
    s, sure = evaluation.scores, evaluation.intervals
    part = f"{evaluation.part} part" if evaluation.part else "all labels"
    if evaluation.folds:
        part = f"held-out answers of {evaluation.folds} folds"
    where = "whole map, estimated" if evaluation.of_sample else part
    means = []
    for name, label in (("oa", "OA"), ("aa", "AA"), ("kappa", "kappa"), ("macro_f1", "macro F1")):
        means.append(f"{label} {getattr(s, name):.3f}" + (_span(getattr(sure, name)) if sure else ""))
    out_console.print(f"{where}: {'  '.join(means)}", markup=False)
    print_table(score_table(s, evaluation.classes.names))
    if sure is not None:
        rows: list[tuple[str, ...]] = [("95 % interval", "precision", "recall", "F1")]
        for name, *spans in zip(evaluation.classes.names, sure.precision, sure.recall, sure.f1, strict=True):
            rows.append((name, *(_span(span).strip() or "–" for span in spans)))
        print_table(rows)
    out_console.print(_basis(evaluation), markup=False)
    if evaluation.leakage is not None:
        out_console.print(
            f"leakage: {evaluation.leakage.holding:.1%} of these pixels have a training pixel within the guard band's "
            f"width, {evaluation.leakage.overlapping:.1%} within twice that",
            markup=False,
        )
    if evaluation.training_ground is not None:
        how = {
            "hidden": "hidden from the network while it made the map",
            "seen": "in sight of the network while it made the map (predict --mask RUN/split.tif --mask-values 1 "
            "hides it)",
        }
        out_console.print(f"training ground: {how[evaluation.training_ground]}", markup=False)
    values = [str(value) for value in evaluation.classes.values]
    rows = [("labels ↓ map →", *values, "no class")]
    for value, name, counts in zip(values, evaluation.classes.names, evaluation.confusion, strict=True):
        rows.append((f"{value} {name}", *map(str, counts)))
    print_table(rows)
    _print_areas(evaluation)


def _span(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f" [{interval.low:.2f}, {interval.high:.2f}]"


def _basis(evaluation: Evaluation) -> str:
    """Where the intervals come from, or why there are none."""
    from adcdnet.metrics.intervals import FEWEST_BLOCKS

    if evaluation.of_sample:
        return f"intervals: of a probability sample of {evaluation.confusion.sum()} points, 1.96 standard errors"
    blocks = f"{evaluation.blocks} blocks of {evaluation.block}×{evaluation.block} map pixels"
    if evaluation.intervals is None:
        return f"no intervals: the labels lie in {blocks}, {FEWEST_BLOCKS} at least are needed; --block sets their side"
    return f"intervals: from {blocks} that hold labels, drawn anew"


def _print_areas(evaluation: Evaluation) -> None:
    areas = evaluation.areas
    if areas is None:
        return
    size = areas.pixel.hectares
    factor, digits = (1.0, 0) if size is None else (size, 2)
    rows: list[tuple[str, ...]] = [("area (pixels)" if size is None else "area (ha)", "mapped")]
    for k, name in enumerate(evaluation.classes.names):
        rows.append((name, f"{areas.mapped[k] * factor:.{digits}f}"))
        if areas.adjusted is not None:
            pixels, error = areas.adjusted[k]
            deviation = f"{error * factor:.{digits}f}" if error > 0 else "–"  # the points of every stratum agree
            rows[-1] += (f"{pixels * factor:.{digits}f}", deviation)
    if areas.adjusted is not None:
        rows[0] += ("adjusted", "± standard error")
    print_table(rows)
    if size is None:
        out_console.print(f"areas in pixels: {areas.pixel.unknown}", markup=False)
    if areas.adjusted is None:
        out_console.print("areas as mapped, errors and all: only a random sample can adjust them (adcdnet sample)")
