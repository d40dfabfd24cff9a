"""How often 95 % intervals hold the true accuracy where errors come in patches: blocks against single pixels.

Prints the table of docs/evidence/checks.md. White noise smoothed by a Gaussian of `patch` pixels and thresholded says
which pixels are right, with probability 0.8; the test area is a square of blocks that lie side by side.

python scripts/bench_intervals.py --map map.tif --labels labels.tif [--split split.tif --part test]

says instead how far the errors of a map reach: their correlation by distance, and the same of patches as in the table.
"""

import argparse
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy import fft, ndimage

from adcdnet.assess.evaluate import labels_in_part
from adcdnet.geo.labels import read_labels
from adcdnet.geo.maps import read_classes, read_map
from adcdnet.metrics.intervals import block_bootstrap, confusion_by_block

TRIALS, ACCURACY = 400, 0.8


def right_pixels(rng: np.random.Generator, side: int, patch: float):
    margin = round(4 * patch)
    field = ndimage.gaussian_filter(rng.standard_normal((side + 2 * margin,) * 2), patch)[
        margin:-margin, margin:-margin
    ]
    return field * 2 * math.sqrt(math.pi) * patch < NormalDist().inv_cdf(ACCURACY)


def correlations(right: np.ndarray, known: np.ndarray, furthest: int = 20) -> np.ndarray:
    """(furthest + 1,) correlation of right and wrong between known pixels that are so many pixels apart, rounded."""
    shape = tuple(fft.next_fast_len(n + furthest) for n in right.shape)
    deviation = np.where(known, right - right[known].mean(), 0.0)

    def pairs(x: np.ndarray) -> np.ndarray:
        return fft.irfft2(np.abs(fft.rfft2(x, shape)) ** 2, shape)

    sums, counts = pairs(deviation), pairs(known.astype(float))
    rows, cols = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    distance = np.hypot(rows[:, None], cols[None]).round().astype(int).clip(max=furthest + 1).ravel()
    found = np.bincount(distance, sums.ravel()) / np.bincount(distance, counts.ravel()).clip(1)
    return found[: furthest + 1] / found[0]


def reach_of_errors(map_path: Path, labels: Path, split: Path | None, part: str | None) -> None:
    values, grid = read_map(map_path)
    classes = read_classes(map_path)
    truth = labels_in_part(read_labels(labels, grid, classes=classes), grid, "the map", split, part)
    known = truth >= 0
    of_map = correlations(values == np.asarray(classes.values)[truth], known)
    rng = np.random.default_rng(0)
    rows = {"the map": of_map}
    for patch in (2, 3, 4, 5):
        drawn = [right_pixels(rng, 168, patch) for _ in range(20)]
        rows[f"patch {patch}"] = np.mean([correlations(right, np.ones_like(right)) for right in drawn], axis=0)
    for name, found in rows.items():
        below = int(np.argmax(found < 0.1)) if (found < 0.1).any() else f"more than {len(found) - 1}"
        some = "  ".join(f"{d}: {found[d]:+.2f}" for d in (1, 2, 4, 6, 8, 10, 12, 16, 20))
        print(f"{name}: below 0.1 at {below} pixels   {some}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--part")
    args = parser.parse_args()
    if args.map is not None:
        reach_of_errors(args.map, args.labels, args.split, args.part)
        return
    rng = np.random.default_rng(0)
    print("| patch | blocks of 28×28 | covered by blocks | covered by pixels |\n|---|---|---|---|")
    for patch in (1, 2, 3, 5, 8):
        for across in (4, 6):
            block = np.kron(np.arange(across**2).reshape(across, across), np.ones((28, 28), int))
            held = np.zeros(2)
            for _ in range(TRIALS):
                right = right_pixels(rng, 28 * across, patch)
                by_block = confusion_by_block(np.zeros_like(block), np.where(right, 0, 1), 2, block)
                interval, mean = block_bootstrap(by_block, rng=rng).oa, right.mean()
                half = 1.96 * math.sqrt(mean * (1 - mean) / right.size)
                held += interval.low <= ACCURACY <= interval.high, abs(mean - ACCURACY) <= half
            print(f"| {patch} | {across**2} | {held[0] / TRIALS:.1%} | {held[1] / TRIALS:.1%} |", flush=True)


if __name__ == "__main__":
    main()
