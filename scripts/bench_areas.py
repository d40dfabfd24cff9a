"""How well areas and their errors come out of `adcdnet sample` and `adcdnet evaluate` where the truth is known.

python scripts/bench_areas.py --map map.tif --labels labels.tif [--samples 100] [--n 300]

The map is cut to the pixels that the labels know: these are the truth of all of it. Then `--samples` times points
are drawn, told the truth and evaluated, as a user would. One row of a table per class, areas in pixels; "named": in how
many samples `evaluate` warned of its few points. Below it, how often the interval of OA holds the truth.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import pyogrio

from adcdnet.assess.evaluate import evaluate
from adcdnet.assess.sample import sample
from adcdnet.geo.labels import read_labels
from adcdnet.geo.maps import read_classes, read_map
from adcdnet.geo.raster_writer import RasterWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--n", type=int, default=300)
    args = parser.parse_args()
    values, grid = read_map(args.map)
    classes = read_classes(args.map)
    index = read_labels(args.labels, grid, classes=classes).index
    truth = np.where(index >= 0, np.asarray(classes.values, np.uint8)[index], 0)
    true = np.array([np.count_nonzero(truth == value) for value in classes.values])
    right = np.count_nonzero((values == truth) & (truth > 0)) / true.sum()
    adjusted, errors, named, oa_held = [], [], Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        cut, file = Path(folder, "map.tif"), Path(folder, "points.gpkg")
        with RasterWriter(cut, grid, classes=classes, descriptions=["class"]) as writer:
            writer.write(np.where(truth > 0, values, 0))
        for seed in range(args.samples):
            drawn = sample(cut, file, n=args.n, seed=seed)
            col, row = (np.floor(v).astype(int) for v in ~grid.transform @ (drawn.x, drawn.y))
            points = geopandas.read_file(file, layer="points")
            points["class"] = [classes.names[classes.values.index(v)] for v in truth[row, col].tolist()]
            pyogrio.write_dataframe(points, file, layer="points", driver="GPKG")  # the design beside it stays
            found = evaluate(cut, file)
            assert found.of_sample
            adjusted.append([area for area, _ in found.areas.adjusted])
            errors.append([error for _, error in found.areas.adjusted])
            few = [note for note in found.notes if note.startswith("fewer than")]
            named.update(name for name in classes.names for note in few if f" {name} (" in note)
            low, high = found.intervals.oa
            oa_held += low <= right <= high
            file.unlink()
    mapped = [np.count_nonzero((values == value) & (truth > 0)) for value in classes.values]
    area, error = np.array(adjusted), np.array(errors)
    held = (np.abs(area - true) <= 1.959964 * error).mean(axis=0)
    print("| class | true pixels | mapped | adjusted, mean | mean standard error | interval holds the truth | named |")
    print("|---|---|---|---|---|---|---|")
    for k, name in enumerate(classes.names):
        share = f"{held[k]:.0%} | {named[name] / args.samples:.0%}"
        print(f"| {name} | {true[k]} | {mapped[k]} | {area[:, k].mean():.0f} | {error[:, k].mean():.0f} | {share} |")
    print(
        f"\nOA {right:.3f}; its interval held it in {oa_held / args.samples:.0%} of {args.samples} samples of {args.n}"
    )


if __name__ == "__main__":
    main()
