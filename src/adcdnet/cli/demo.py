"""adcdnet demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcdnet.cli.console import out_console, progress_bars
from adcdnet.cli.evaluate import print_evaluation


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the scene, the run and the map.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Random seed of the landscape and of training.")] = 0,
    size: Annotated[int, typer.Option(min=120, help="MS pixels per side.")] = 160,
    ratio: Annotated[int, typer.Option(min=2, max=8, help="PAN pixels per MS pixel and axis.")] = 4,
) -> None:
    """Simulate a labelled sensor pair, train on it, map it and judge the map, all offline in a few minutes.

    Example: adcdnet demo --out runs/demo
    """
    from adcdnet.demo.run import run_demo
    from adcdnet.report.write import write_report

    with progress_bars() as report:
        result = run_demo(out, seed=seed, size=size, ratio=ratio, progress=report)
    print_evaluation(result.evaluation)
    for name, oa in result.accuracies:
        out_console.print(f"overall accuracy with {name:9} {oa:.3f}")
    both, *alone = (oa for _, oa in result.accuracies)
    verdict = "beats" if both > max(alone) else "does NOT beat"
    out_console.print(f"MS + PAN {verdict} MS alone and PAN alone")
    page = write_report(out)
    out_console.print(f"figure: {out / 'figure.png'}   map: {out / 'map.tif'}   run: {out}", markup=False)
    out_console.print(f"report, to open in a browser: {page}", markup=False)
