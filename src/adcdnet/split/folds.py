"""Splits for cross-validation: every labelled pixel is tested once, each time by a model that saw nothing near it.

Folds are made of whole spatial blocks, with a guard band of the network's reach around the test blocks as in a single
split: blocks from all over the scene, or all blocks of a strip, whose ground lies beyond all that is known, as that of
another scene does. `random_folds` is the protocol of most papers, kept to show what it claims: single pixels are drawn,
so that test pixels lie among training pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adcdnet.config import SplitConfig
from adcdnet.errors import InputError
from adcdnet.geo.labels import Labels
from adcdnet.split.blocks import block_numbers, block_of_squares, block_side, cost_of_parts, draw_parts, square_counts
from adcdnet.split.parts import FEWEST_TO_VALIDATE, TEST, TRAIN, UNUSED, VALIDATION, Split, add_guard, check_counts

_TRIALS = 600


class ClassInOnePlace(InputError):
    """A fold leaves no training pixel of a class. name: of the class."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name

    def __reduce__(self) -> tuple[type[ClassInOnePlace], tuple[str, str]]:
        return type(self), (str(self), self.name)  # so that it comes back from a process


def block_folds(
    labels: Labels,
    valid: NDArray[np.bool_],
    *,
    reach: int,
    folds: int,
    config: SplitConfig,
    seed: int,
    strips: Literal["rows", "columns"] | None = None,
) -> list[Split]:
    """One split per fold, its test part being that fold; the share `config.validation` of the rest validates.

    Many partitions of the blocks into folds are drawn and improved by exchange; the one is kept that gives each fold
    its share of every class and loses least to the guard. strips: instead, every fold is a strip of whole rows of
    blocks, from north to south, or of columns, from west to east, with about as many labelled pixels each; seed then
    decides on the validation blocks only. Raises InputError for a class with too few labelled pixels
    and for fewer blocks with labels than folds.
    """
    index = np.where(valid, labels.index, -1)
    totals = check_counts(index, labels.classes)
    validation = config.validation if totals.min() >= FEWEST_TO_VALIDATE else 0.0
    height, width = valid.shape
    side = config.block or block_side(height, width, reach=reach)
    block = block_numbers(height, width, side)
    weight = np.bincount(block[index >= 0], minlength=int(block.max()) + 1).astype(float)
    if (weight > 0).sum() < 2 * folds:
        raise InputError(
            f"{int((weight > 0).sum())} blocks of {side} MS pixels hold labels, too few for {folds} folds; ask for "
            "fewer folds or smaller blocks, or label more places"
        )
    square = max(1, reach // 3)
    counts = square_counts(index, len(totals), square)
    of_square = block_of_squares(block, square, counts.shape[1:])
    rng = np.random.default_rng(seed)

    def cost(part: NDArray[np.uint8], wanted: dict[int, float]) -> float:
        return cost_of_parts(part[of_square], counts, totals, wanted, -(-reach // square))

    def cost_of_folds(fold: NDArray[np.int64]) -> float:
        return sum(cost(_tested(fold, number), {TEST: 1 / folds}) for number in range(folds))

    columns = int(block[0].max()) + 1
    if strips is None:
        fold = _search(lambda: _draw_folds(weight, columns, folds, rng), cost_of_folds, weight > 0, rng)
    else:
        fold = _strips(weight.reshape(-1, columns), 1 if strips == "rows" else 0, folds)
    splits = []
    for number in range(folds):
        part = _tested(fold, number)
        if validation > 0:
            part = _with_validation(part, weight, validation, 1 / folds, cost, rng)
        parts = add_guard(part[block], valid, reach)
        present = [((index == k) & (parts == TRAIN)).any() for k in range(len(totals))]
        if not all(present):
            name = labels.classes.names[present.index(False)]
            raise ClassInOnePlace(
                f"fold {number + 1} of {folds} leaves no training pixel of class '{name}'; ask for fewer folds or "
                "smaller blocks",
                name,
            )
        splits.append(Split(parts, side, ()))
    return splits


def polygon_folds(labels: Labels, valid: NDArray[np.bool_], *, reach: int, folds: int, seed: int) -> list[Split]:
    """One split per fold, its test part being the polygons of that fold; all other ground beyond the guard trains.

    The polygons of each class are dealt from the largest to the smallest, each to the fold that has least of the class.
    Raises InputError for labels that are a raster, for a class with too few labelled pixels, and for one of fewer
    polygons than folds.
    """
    if labels.polygons is None:
        raise InputError("labels are a raster, which knows no polygons; use --split blocks, or label with polygons")
    index = np.where(valid, labels.index, -1)
    check_counts(index, labels.classes)
    number = np.full(index.shape, -1)
    number[index >= 0] = np.unique(labels.polygons[index >= 0], return_inverse=True)[1]
    size = np.bincount(number[index >= 0])
    class_of = np.empty(len(size), np.int64)
    class_of[number[index >= 0]] = index[index >= 0]
    rng, fold = np.random.default_rng(seed), np.empty(len(size), np.int64)
    total = np.zeros(folds)
    for k, name in enumerate(labels.classes.names):
        own = rng.permutation(np.flatnonzero(class_of == k))
        if len(own) < folds:
            raise InputError(
                f"class '{name}' has {len(own)} polygons, too few for {folds} folds; draw more of it, or ask for fewer"
            )
        held = np.zeros(folds)
        for polygon in own[np.argsort(-size[own], kind="stable")]:
            into = np.lexsort((total, held))[0]
            fold[polygon] = into
            held[into] += size[polygon]
            total[into] += size[polygon]
    splits = []
    for number_of_fold in range(folds):
        tested = (number >= 0) & (fold[number] == number_of_fold)
        parts = add_guard(np.where(tested, TEST, TRAIN).astype(np.uint8), valid, reach)
        missing = [n for k, n in enumerate(labels.classes.names) if not ((index == k) & (parts == TRAIN)).any()]
        if missing:
            raise InputError(
                f"fold {number_of_fold + 1} of {folds} leaves no training pixel of class '{missing[0]}': its polygons "
                f"lie within {reach} MS pixels of one another; ask for fewer folds, or draw some further away"
            )
        splits.append(Split(parts, block_side(*valid.shape, reach=reach), ()))
    return splits


def random_folds(labels: Labels, valid: NDArray[np.bool_], *, folds: int, seed: int) -> list[Split]:
    """Pixels dealt to folds at random, no guard; training sees the test pixels around its own, as in most papers."""
    index = np.where(valid, labels.index, -1)
    check_counts(index, labels.classes)
    fold = np.random.default_rng(seed).integers(folds, size=valid.shape)
    return [
        Split(np.where(valid, np.where(fold == number, TEST, TRAIN), UNUSED).astype(np.uint8), 1, (), hides_test=False)
        for number in range(folds)
    ]


def _tested(fold: NDArray[np.int64], number: int) -> NDArray[np.uint8]:
    """Parts of the blocks with one fold as the test part."""
    return np.where(fold == number, TEST, TRAIN).astype(np.uint8)


def _draw_folds(weight: NDArray[np.float64], columns: int, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Blocks in folds of about equal weight, taken along rows or columns, to and fro, or in any order."""
    numbers = np.arange(weight.size).reshape(-1, columns)
    if rng.random() < 0.5:
        numbers = numbers.T
    numbers = numbers.copy()
    numbers[1::2] = numbers[1::2, ::-1]
    order = numbers.ravel() if rng.random() < 0.7 else rng.permutation(weight.size)
    order = np.roll(order, rng.integers(weight.size))
    fold = np.empty(weight.size, np.int64)
    fold[order] = _in_turn(weight[order], folds)
    return fold


def _strips(weight: NDArray[np.float64], across: int, folds: int) -> NDArray[np.int64]:
    """Fold of each block, of blocks (rows, columns): whole lines of them, which run along the axis `across`.

    InputError where the lines are too few for every fold to have one that holds labels.
    """
    line = _in_turn(weight.sum(across), folds)
    if len(np.unique(line[weight.sum(across) > 0])) < folds:
        raise InputError(
            f"{len(line)} {('columns', 'rows')[across]} of blocks make no {folds} strips with labels each; ask for "
            "fewer folds"
        )
    return np.broadcast_to(np.expand_dims(line, across), weight.shape).ravel()


def _in_turn(weight: NDArray[np.float64], folds: int) -> NDArray[np.int64]:
    """Folds 0, 1, ... of what follows one another, about as much weight in each."""
    before = np.cumsum(weight) - weight / 2
    return np.asarray(np.minimum(before * folds / weight.sum(), folds - 1), np.int64)


def _with_validation(
    part: NDArray[np.uint8],
    weight: NDArray[np.float64],
    validation: float,
    test: float,
    cost: Callable[[NDArray[np.uint8], dict[int, float]], float],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Parts of the blocks with some of the training ones given to validation; the test part stays."""
    free = (part != TEST) & (weight > 0)
    wanted = {VALIDATION: validation * (1 - test)}

    def draw() -> NDArray[np.uint8]:
        return np.where(part == TEST, part, draw_parts(np.where(free, weight, 0), wanted, rng)).astype(np.uint8)

    return _search(draw, lambda drawn: cost(drawn, {TEST: test, **wanted}), free, rng)


def _search(
    draw: Callable[[], NDArray[Any]],
    cost: Callable[[NDArray[Any]], float],
    movable: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[Any]:
    """The cheapest of many draws, then improved by exchanging what two blocks are given."""
    places = np.flatnonzero(movable)
    best = min((draw() for _ in range(_TRIALS // 3)), key=cost)
    lowest = cost(best)
    for _ in range(_TRIALS - _TRIALS // 3):
        tried = best.copy()
        a, b = rng.choice(places, 2, replace=False)
        tried[[a, b]] = tried[[b, a]]
        if (tried_cost := cost(tried)) < lowest:
            best, lowest = tried, tried_cost
    return best
