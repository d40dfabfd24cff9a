"""What half a pixel costs: a simulated ground per seed, whose PAN meets the MS edges, lies half off, or is moved.

A PAN pixel is the mean of 2×2 pixels of a PAN twice as fine: from an even row and column on, its edges meet those of
MS ("edges meet"); from an odd one on, they lie half a pixel off ("half, as it is"). The copy that `adcdnet align` makes
of the second is the third ("half, aligned"). Labels, MS, split and settings are the same for all three.

    python scripts/bench_phase.py --seeds 3
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from affine import Affine

from adcdnet.assess.evaluate import evaluate
from adcdnet.config import TrainConfig
from adcdnet.demo.simulate import simulate
from adcdnet.geo.alignment import align
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import read_labels
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene import Scene
from adcdnet.mapping.predict import predict
from adcdnet.training.run import train
from adcdnet.training.scenes import LabelledScene

RATIO = 2
BORDER = 3  # MS pixels at the edges that are not labelled: resampling leaves some of them without a value


def write_pairs(folder: Path, side: int, seed: int) -> dict[str, Path]:
    """MS and labels, and the three PAN images by name."""
    made = simulate(side + 1, side + 1, ratio=2 * RATIO, seed=seed)
    grid = Grid(side, side, Affine(4, 0, 500_000, 0, -4, 5_000_000), "EPSG:32631")
    labels = made.labels[:-1, :-1].copy()
    for edge in (slice(None, BORDER), slice(-BORDER, None)):
        labels[edge], labels[:, edge] = 0, 0
    write_raster(folder / "ms.tif", made.ms[:, :-1, :-1], grid, nodata=None)
    write_raster(folder / "labels.tif", labels, grid, classes=made.class_table)
    pans = {name: folder / f"{name}.tif" for name in ("edges meet", "half, as it is", "half, aligned")}
    n = side * RATIO
    for first, name in enumerate(("edges meet", "half, as it is")):
        cut = made.pan[:, first : first + 2 * n, first : first + 2 * n].astype(np.float32)
        pan = cut.reshape(1, n, 2, n, 2).mean((2, 4))
        fine = grid.refine(RATIO)
        moved = Grid(n, n, fine.transform @ Affine.translation(first / 2, first / 2), fine.crs)
        write_raster(pans[name], pan, moved, nodata=None)
    align(folder / "ms.tif", pans["half, as it is"], out=pans["half, aligned"])
    return pans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=140, help="MS pixels")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--profile", default="plain")
    arguments = parser.parse_args()
    kappas: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        config = TrainConfig.of_profile(arguments.profile).replace(
            {
                "seed": seed,
                "members": ["adcdnet"],
                "stage2": {"steps": arguments.steps},
                "split": {"test": 0.4, "folds": 1},
            }
        )
        split = None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for what, pan in write_pairs(folder, arguments.side, seed).items():
                out = folder / what
                with Scene.open(folder / "ms.tif", pan) as scene:
                    labels = read_labels(folder / "labels.tif", scene.grid)
                    run = train([LabelledScene(scene, labels, split=split)], out=out, config=config)
                    predict(run, scene, out=out / "map.tif")
                split = split or run.split()
                judged = evaluate(out / "map.tif", folder / "labels.tif", split=split, part="test")
                kappas.setdefault(what, []).append(judged.scores.kappa)
                print(
                    f"seed {seed}  {what:16} phase {run.model.phase[0]:.1f}  OA {judged.scores.oa:.4f}  "
                    f"kappa {judged.scores.kappa:.4f}  {judged.confusion.sum()} pixels",
                    flush=True,
                )
    print(f"\n{'':16}{'mean kappa':>12}{'deviation':>11}")
    for what, values in kappas.items():
        print(f"{what:16}{np.mean(values):12.4f}{np.std(values, ddof=min(1, len(values) - 1)):11.4f}")


if __name__ == "__main__":
    main()
