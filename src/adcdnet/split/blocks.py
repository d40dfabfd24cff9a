"""Parts made of spatial blocks: the assignment that spreads every class with least loss to the guard band."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adcdnet.config import SplitConfig
from adcdnet.geo.labels import Labels
from adcdnet.split.parts import TEST, TRAIN, VALIDATION, Split, add_guard, check_counts, check_parts, shares_wanted

_TRIALS = 1500


def split_blocks(labels: Labels, valid: NDArray[np.bool_], *, reach: int, config: SplitConfig, seed: int) -> Split:
    """Assign blocks to parts so that every class is in every part where possible and shares agree.

    valid (H, W) says which MS pixels can be used at all. Many random assignments are drawn; the one is kept that
    spreads the labelled pixels of each class as asked and loses fewest of them to the guard. No image value and no
    prediction takes part in the choice. Raises InputError for a class with too few labelled pixels.
    """
    index = np.where(valid, labels.index, -1)
    totals = check_counts(index, labels.classes)
    wanted, notes = shares_wanted(totals, labels.classes, config)
    height, width = valid.shape
    largest = config.block or block_side(height, width, reach=reach)
    sides = [largest] if config.block else [max(1, largest), max(1, largest * 2 // 3)]
    rng = np.random.default_rng(seed)
    # assignments are weighed on squares of this side, at most about 40,000 of them; the chosen one is made exactly
    square = max(1, reach // 3, int((height * width / 40_000) ** 0.5))
    counts = square_counts(index, len(totals), square)
    best: tuple[float, int, NDArray[np.uint8]] | None = None
    for side in sides:
        block = block_numbers(height, width, side)
        of_square = block_of_squares(block, square, counts.shape[1:])
        weight = np.bincount(block[index >= 0], minlength=int(block.max()) + 1).astype(float)
        leader: tuple[float, NDArray[np.uint8]] | None = None
        for trial in range(_TRIALS):
            if leader is None or trial < _TRIALS // 3:
                part = draw_parts(weight, wanted, rng)
            else:  # then exchange blocks of the best so far
                part = leader[1].copy()
                a, b = rng.integers(part.size, size=2)
                part[[a, b]] = part[[b, a]]
            cost = cost_of_parts(part[of_square], counts, totals, wanted, -(-reach // square))
            if leader is None or cost < leader[0]:
                leader = (cost, part)
        assert leader is not None
        if best is None or leader[0] < best[0]:
            best = (leader[0], side, leader[1])
    assert best is not None
    _, side, part = best
    parts = add_guard(part[block_numbers(height, width, side)], valid, reach)
    notes += check_parts(parts, index, labels.classes, [n for n, share in wanted.items() if share > 0], reach)
    return Split(parts, side, tuple(notes))


def block_of_squares(block: NDArray[np.int64], square: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The block number in the middle of every square × square pixels; the last may be narrower than half of that."""
    middle = block[square // 2 :: square, square // 2 :: square]
    return np.pad(middle, ((0, shape[0] - middle.shape[0]), (0, shape[1] - middle.shape[1])), mode="edge")


def block_side(height: int, width: int, *, reach: int) -> int:
    """MS pixels per side of a block where none are asked for: a quarter of the shorter side of the scene, but enough
    for a window to lie in it (2 reach) and no more than 16 reach."""
    return int(np.clip(round(min(height, width) / 4), 2 * reach, 16 * reach))


def block_numbers(height: int, width: int, side: int) -> NDArray[np.int64]:
    """Block number of every pixel, from 0; blocks are as equal as possible, about side × side."""
    rows, cols = max(1, round(height / side)), max(1, round(width / side))
    row = np.arange(height) * rows // height
    col = np.arange(width) * cols // width
    return row[:, None] * cols + col[None, :]


def square_counts(index: NDArray[np.int16], classes: int, square: int) -> NDArray[np.int64]:
    """Labelled pixels of every class in every square × square pixels, (K, h, w)."""
    rows, cols = -(-index.shape[0] // square), -(-index.shape[1] // square)
    row, col = np.nonzero(index >= 0)
    flat = (index[row, col].astype(np.int64) * rows + row // square) * cols + col // square
    return np.bincount(flat, minlength=classes * rows * cols).reshape(classes, rows, cols)


def draw_parts(weight: NDArray[np.float64], wanted: dict[int, float], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random assignment of blocks: test and validation are filled up to their share of labelled pixels.

    Half of the draws order the blocks at random, half grow a part from neighbouring numbers (less guard).
    """
    order = rng.permutation(weight.size)
    if rng.random() < 0.5:
        order = np.roll(np.arange(weight.size), rng.integers(weight.size))
    order = order[weight[order] > 0]
    part = np.full(weight.size, TRAIN, np.uint8)
    start = 0
    for number, share in wanted.items():
        total = np.cumsum(weight[order[start:]]) / weight.sum()
        take = int(np.searchsorted(total, share, side="left")) + 1 if share > 0 else 0
        part[order[start : start + take]] = number
        start += take
    return part


def cost_of_parts(
    part: NDArray[np.uint8], counts: NDArray[np.int64], totals: NDArray[np.int64], wanted: dict[int, float], reach: int
) -> float:
    """Deviation from the wanted shares, summed over classes and parts; a missing class weighs most."""
    guarded = add_guard(part, np.ones(part.shape, bool), reach)
    cost = 0.0
    for number in (TRAIN, VALIDATION, TEST):
        share = wanted.get(number, 1 - sum(wanted.values()))
        if share == 0:
            continue
        shares = counts[:, guarded == number].sum(1) / totals
        cost += float(np.abs(shares - share).mean()) + (20.0 if number == TRAIN else 5.0) * float((shares == 0).sum())
    return cost
