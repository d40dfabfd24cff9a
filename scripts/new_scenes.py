"""Methods on scenes that training has never seen: train on some labelled scenes, read on others, in one table.

    python scripts/new_scenes.py --train DIR ... --test DIR ... [--methods tiles boosting ...] [--seeds 1] [--out DIR]

It is `adcdnet benchmark --split given` of these scenes, networks in bf16. --halves trains on the western half of each
scene and reads the eastern half of others: two dates of one place. A DIR holds ms.tif, pan.tif, labels.tif, and
classes.csv in it or above it. The last training scene validates baselines (it is not trained on by them or by
networks). One line a method: kappa and AA at tau 0.5 and 1, confusion matrices of all test scenes summed; ± is the
standard deviation over seeds. Finished trainings in --out are not repeated.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from evidence import method_files

from adcdnet.benchmark.methods_by_name import method_name
from adcdnet.benchmark.tables import Row, benchmark
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene_files import SceneFiles

METHOD_NAMES = ("tiles", "tiles-plain", "patch", "boosting", "boosting-alike", "forest", "forest-alike", "mlp-alike")
TAUS = (0.5, 1.0)
Half = Literal["west", "east"]


def scene_in(folder: Path, part: Literal["train", "validation", "test"]) -> SceneFiles:
    table = next(p for p in (folder / "classes.csv", folder.parent / "classes.csv") if p.exists())
    ms, pan, labels = (folder / f"{what}.tif" for what in ("ms", "pan", "labels"))
    return SceneFiles(name=folder.name, ms=ms, pan=pan, labels=labels, classes=table, part=part)


def half_of(files: SceneFiles, half: Half, folder: Path) -> SceneFiles:
    """The scene with a mask that hides its other half."""
    with files.open() as scene:
        hidden = np.zeros(scene.grid.shape, np.uint8)
        middle = round(scene.grid.width / 2)
        hidden[:, slice(middle, None) if half == "west" else slice(middle)] = 1
        mask = folder / f"{files.name}-{half}.tif"
        write_raster(mask, hidden, scene.grid, nodata=None)
    return files.model_copy(update={"mask": mask})


def print_table(rows: Sequence[Row], methods: Sequence[str]) -> None:
    print("| method | kappa, tau 0.5 | kappa, tau 1 | AA, tau 0.5 | AA, tau 1 | train s |\n|---|---|---|---|---|---|")
    for method in methods:
        own = {row.tau: row for row in rows if row.method == method_name(method)}
        cells = []
        for score in ("kappa", "aa"):
            for tau in TAUS:
                spread = own[tau].deviation[score]
                cells.append(f"{own[tau].mean[score]:.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}"))
        print(f"| {method_name(method)} | {' | '.join(cells)} | {own[1.0].training_seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", default=METHOD_NAMES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--halves", action="store_true", help="train on western halves, read on eastern ones")
    parser.add_argument("--out", type=Path, help="where trainings are kept; nowhere otherwise")
    given = parser.parse_args()
    learnt = [scene_in(folder, "train") for folder in given.train]
    if len(learnt) > 1:
        learnt[-1] = learnt[-1].model_copy(update={"part": "validation"})
    tested = [scene_in(folder, "test") for folder in given.test]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.halves:
            learnt = [half_of(files, "west", folder) for files in learnt]
            tested = [half_of(files, "east", folder) for files in tested]
        methods = method_files(given.methods, folder / "methods")
        rows = benchmark(
            [*learnt, *tested],
            methods=methods,
            reference=methods[0],
            out=given.out or folder / "out",
            seeds=given.seeds,
            protocol="given",
            device="cpu",
        )
    print_table(rows, methods)


if __name__ == "__main__":
    main()
