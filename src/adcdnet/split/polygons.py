"""Splits that are not made of blocks: whole polygons in one part each, a raster that somebody drew, or random pixels.

The guard band is that of every split: no window of a pixel of an earlier part holds one of a later part. Only random
pixels have none: they are the protocol of many papers, kept to show what it claims.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.config import SplitConfig
from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Window, match
from adcdnet.geo.labels import Labels
from adcdnet.geo.raster import read_band, same_crs
from adcdnet.split.blocks import block_side, draw_parts
from adcdnet.split.parts import (
    GUARD,
    PART_NAMES,
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Split,
    add_guard,
    check_counts,
    check_parts,
    near,
    shares_wanted,
)

_TRIALS = 3000


def split_polygons(labels: Labels, valid: NDArray[np.bool_], *, reach: int, config: SplitConfig, seed: int) -> Split:
    """Assign polygons to parts, each wholly to one, so that shares of every class agree; the rest of the ground trains.

    What lies between is cut by the guard, polygons that train included. Many assignments are drawn and improved by
    moving one polygon; the one is kept that spreads the labelled pixels best. Raises InputError for labels that are
    a raster, and for a class with too few labelled pixels or none left to train.
    """
    if labels.polygons is None:
        raise InputError("labels are a raster, which knows no polygons; use --split blocks, or label with polygons")
    index = np.where(valid, labels.index, -1)
    totals = check_counts(index, labels.classes)
    wanted, notes = shares_wanted(totals, labels.classes, config)
    number = np.full(index.shape, -1)  # polygons that label a pixel, counted anew
    number[index >= 0] = np.unique(labels.polygons[index >= 0], return_inverse=True)[1]
    size = np.bincount(number[index >= 0]).astype(float)
    class_of = np.empty(len(size), np.int64)
    class_of[number[index >= 0]] = index[index >= 0]
    losses = _losses(number, len(size), reach)
    rng = np.random.default_rng(seed)
    numbers = [TRAIN, *(n for n, share in wanted.items() if share > 0)]

    def cost(part: NDArray[np.uint8]) -> float:
        lost = losses @ (part == TEST)
        lost[part == TRAIN] += losses[part == TRAIN] @ (part == VALIDATION)
        left = np.where(part == TEST, size, np.maximum(size - lost, 0))
        total = 0.0
        for n in numbers:
            shares = np.bincount(class_of[part == n], left[part == n], minlength=len(totals)) / totals
            share = wanted.get(n, 1 - sum(wanted.values()))
            total += float(np.abs(shares - share).mean()) + (20.0 if n == TRAIN else 5.0) * float((shares == 0).sum())
        return total

    best = min((draw_parts(size, wanted, rng) for _ in range(_TRIALS // 10)), key=cost)
    lowest = cost(best)
    for _ in range(_TRIALS):
        tried = best.copy()
        tried[rng.integers(len(size))] = rng.choice(numbers)
        if (shares := cost(tried)) <= lowest:
            best, lowest = tried, shares
    parts = add_guard(np.where(number >= 0, best[number], TRAIN).astype(np.uint8), valid, reach)
    notes += [f"{len(size)} polygons: " + ", ".join(f"{(best == n).sum()} {PART_NAMES[n]}" for n in numbers)]
    notes += check_parts(parts, index, labels.classes, [n for n in numbers if n != TRAIN], reach)
    return Split(parts, block_side(*valid.shape, reach=reach), tuple(notes))


def split_random(labels: Labels, valid: NDArray[np.bool_], *, reach: int, config: SplitConfig, seed: int) -> Split:
    """Deal the labelled pixels of every class to the parts one by one, by their shares; other ground trains.

    No guard, and nothing is hidden: training sees the test pixels around its own. Raises InputError for a class with
    too few labelled pixels or none left to train.
    """
    index = np.where(valid, labels.index, -1)
    totals = check_counts(index, labels.classes)
    wanted, notes = shares_wanted(totals, labels.classes, config)
    parts = np.where(valid, TRAIN, UNUSED).astype(np.uint8)
    rng = np.random.default_rng(seed)
    for k, total in enumerate(totals.tolist()):
        places = rng.permutation(np.flatnonzero(index == k))
        for number, share in wanted.items():
            dealt, places = np.split(places, [round(share * total)])
            parts.flat[dealt] = number
    notes += check_parts(parts, index, labels.classes, [n for n, share in wanted.items() if share > 0], reach)
    return Split(parts, block_side(*valid.shape, reach=reach), tuple(notes), hides_test=False)


def _losses(number: NDArray[np.int64], polygons: int, reach: int) -> NDArray[np.float64]:
    """(n, n): how many pixels of polygon i lie within reach of polygon j; 0 for i = j."""
    losses = np.zeros((polygons, polygons))
    for j, (row, col) in enumerate(ndimage.find_objects(number + 1)):
        box = Window(row.start, col.start, row.stop - row.start, col.stop - col.start)
        around = number[box.grow(reach).within(*number.shape).slices]
        others = around[near(around == j, reach) & (around >= 0) & (around != j)]
        losses[:, j] = np.bincount(others, minlength=polygons)
    return losses


def split_given(path: Path | str, grid: Grid, labels: Labels, valid: NDArray[np.bool_], *, reach: int) -> Split:
    """The parts of a raster on the scene's MS grid, values as in a run's split.tif: 0 unused, 1 train, 2 validation,
    3 test, 4 guard. Pixels too near a later part become guard, which a note says. Raises InputError."""
    path = Path(path)
    values, own, _ = read_band(path)
    lies = match(grid, replace(own, crs=same_crs(own.crs, grid.crs)), names=("MS", path.name), tool="gdalwarp")
    if lies.ratio != 1 or lies.ms != grid.window:
        raise InputError(
            f"split {path} covers {lies.ms.height}×{lies.ms.width} MS pixels at {lies.ratio} of its own on each; "
            f"the scene's {grid.height}×{grid.width} at 1 are needed; warp it to the grid of MS"
        )
    values = values[lies.pan.slices]
    if not np.isin(values, range(len(PART_NAMES))).all():
        known = ", ".join(f"{n} {name}" for n, name in enumerate(PART_NAMES))
        raise InputError(f"split {path} holds values from {values.min()} to {values.max()}; known are {known}")
    part = values.astype(np.uint8)
    parts = add_guard(part, valid, reach)
    parts[part == UNUSED] = UNUSED
    cut = int(((parts == GUARD) & (part != GUARD)).sum())
    notes = [f"{cut} MS pixels of {path.name} lay within {reach} of a later part and became guard"] if cut else []
    index = np.where(valid, labels.index, -1)
    asked = [n for n in (VALIDATION, TEST) if (part == n).any()]
    notes += check_parts(parts, index, labels.classes, asked, reach)
    return Split(parts, block_side(*valid.shape, reach=reach), tuple(notes))
