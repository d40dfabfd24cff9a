"""Answers averaged with those of the neighbours that look alike: fewer specks, and edges stay where they are.

Source of the weights: the bilateral filter, C. Tomasi and R. Manduchi, "Bilateral filtering for gray and color images",
ICCV 1998. Deviation: the values averaged are a classifier's logits, the likeness is that of the images it read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray


def looks(ms: NDArray[np.float32], pan: NDArray[np.float32], step: int, *, sensors: str) -> NDArray[np.float32]:
    """By what targets are compared, (bands, h·step, w·step): the MS pixel of a target and the mean of PAN on it.

    ms (B, h, w) and pan (B', h·ratio, w·ratio), standardised. step: targets per MS pixel and axis, a divisor of ratio.
    sensors: "both", or the one that a network reads.
    """
    height, width = (step * n for n in ms.shape[1:])
    seen = []
    if sensors != "pan":
        seen.append(ms.repeat(step, axis=1).repeat(step, axis=2))
    if sensors != "ms":
        seen.append(pan.reshape(len(pan), height, pan.shape[1] // height, width, -1).mean(axis=(2, 4)))
    return np.concatenate(seen)


def smooth(
    logits: NDArray[np.floating], look: NDArray[np.float32], deviation: float, likeness: float
) -> NDArray[np.float32]:
    """Logits (K, h, w) averaged with those of like neighbours, at most ceil(deviation) rows and columns away.

    look (B, h, w): by what they are compared, see `looks`. A neighbour weighs exp(−d² / 2·deviation²) · exp(−e² /
    2·likeness²): d pixels away, e the root of the mean squared difference of its bands. With deviation 0 none counts,
    with likeness 0 all count whatever they look like. A neighbour without logits (nan) does not count, and a pixel that
    has none gets none. Averaged logits give the same answer as averaged log posteriors, whatever tau and temperature:
    they differ by a constant a pixel.
    """
    given = ~np.isnan(logits[0])
    values = np.where(given, logits, 0.0).astype(np.float32)
    total, weights = values.copy(), given.astype(np.float32)
    for rows, cols in _pairs(ceil(deviation)):
        one, other = _overlap(rows, cols, given.shape)
        unlike = np.zeros(given[one].shape, np.float32)
        if likeness:
            for band in look:  # band by band, class by class: small enough for a processor's cache
                unlike += np.square(band[one] - band[other])
            unlike /= 2 * likeness**2 * len(look)
        weight = np.exp(-(rows**2 + cols**2) / (2 * deviation**2) - unlike)
        for here, there in ((one, other), (other, one)):
            for sums, value in zip(total, values, strict=True):
                sums[here] += weight * value[there]
            weights[here] += weight * given[there]
    return np.where(given, total / np.maximum(weights, 1.0), np.nan).astype(np.float32)


def _pairs(reach: int) -> Iterator[tuple[int, int]]:
    """Rows and columns to each neighbour; of two that lie opposite, one."""
    for rows, cols in product(range(reach + 1), range(-reach, reach + 1)):
        if (rows, cols) > (0, 0):
            yield rows, cols


def _overlap(rows: int, cols: int, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """All pixels of an image that have a neighbour so many rows and columns away, and these neighbours."""
    starts = [(max(0, -by), max(0, n - max(0, by))) for by, n in zip((rows, cols), shape, strict=True)]
    one = tuple(slice(start, max(start, stop)) for start, stop in starts)
    other = tuple(
        slice(start + by, max(start, stop) + by) for by, (start, stop) in zip((rows, cols), starts, strict=True)
    )
    return (one[0], one[1]), (other[0], other[1])
