"""adcdnet evaluate"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adcdnet.checkpoint import write_whole
from adcdnet.cli.console import ColumnOption, out_console, print_table, say
from adcdnet.evaluation import Evaluation, evaluate
from adcdnet.report import score_table


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
    say(found.notes)
    print_evaluation(found)
    if json_path is not None:
        write_whole(json_path, (json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


def print_evaluation(found: Evaluation) -> None:
    s = found.scores
    where = f"{found.part} part" if found.part else "all labels"
    out_console.print(f"{where}: OA {s.oa:.3f}  AA {s.aa:.3f}  kappa {s.kappa:.3f}  macro F1 {s.macro_f1:.3f}")
    print_table(score_table(s, found.classes.names))
    values = [str(value) for value in found.classes.values]
    rows = [("labels ↓ map →", *values, "no class")]
    for value, name, counts in zip(values, found.classes.names, found.confusion, strict=True):
        rows.append((f"{value} {name}", *map(str, counts)))
    print_table(rows)
