"""How often 95 % intervals hold the true accuracy where errors come in patches: blocks against single pixels.

Prints the table of docs/trust.md. White noise smoothed by a Gaussian of `patch` pixels and thresholded says which
pixels are right, with probability 0.8; the test area is a square of blocks that lie side by side.
"""

import math
from statistics import NormalDist

import numpy as np
from scipy import ndimage

from adcdnet.intervals import block_bootstrap, confusion_by_block

TRIALS, ACCURACY = 400, 0.8


def right_pixels(rng: np.random.Generator, side: int, patch: float):
    margin = round(4 * patch)
    field = ndimage.gaussian_filter(rng.standard_normal((side + 2 * margin,) * 2), patch)[
        margin:-margin, margin:-margin
    ]
    return field * 2 * math.sqrt(math.pi) * patch < NormalDist().inv_cdf(ACCURACY)


def main() -> None:
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
