"""The area of applicability of a model, measured from its labels and from answers to held-out ground.

F statistics of a pixel | K classes | n labelled pixels
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.grid import tiles
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.applicability import Applicability, signs
from adcdnet.mapping.members import features_of
from adcdnet.metrics.intervals import block_bootstrap, confusion_by_block
from adcdnet.nn.context import CONTEXT_REACH
from adcdnet.split.blocks import block_numbers
from adcdnet.training.borders import bordered
from adcdnet.training.committee.cross_fit import Judgement
from adcdnet.training.committee.folds import Ground

REFERENCE = 1000  # labelled pixels that new ones are compared with
_JUDGED = 20_000  # held-out answers that it is measured by
_WINDOW = 128  # MS pixels per side whose statistics are computed at once
_BINS = 10  # of equal size, by the expected error


class HeldPixels(NamedTuple):
    """Labelled MS pixels with answers of members that did not train on them: features (n, F), truth (n,) class indices,
    the fold (n,) in which each tests, probabilities (K, n), and the block of ground (n,) that each lies in."""

    features: NDArray[np.float32]
    truth: NDArray[np.int64]
    fold: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    block: NDArray[np.int64]

    def some(self, chosen: NDArray[np.bool_]) -> HeldPixels:
        """Those where chosen (n,) holds."""
        return HeldPixels(
            self.features[chosen],
            self.truth[chosen],
            self.fold[chosen],
            self.probabilities[:, chosen],
            self.block[chosen],
        )


def applicability_of(
    ground: Ground, judgement: Judgement, statistics: BandStatistics, seed: int, *, block: int
) -> tuple[Applicability | None, dict[str, Any] | None]:
    """From the labelled pixels of all scenes that were answered, and what `judged_by_folds` says of it; None where
    these are of too few folds.

    statistics: by which the model standardises. block: targets per side of the blocks that intervals come from.
    """
    rng = np.random.default_rng(seed)
    held = _held_pixels(ground, judgement, statistics, block, rng)
    if held is None or len(np.unique(held.fold)) < 2:
        return None, None
    area = measured(held.features, held.truth, held.fold, held.probabilities, rng)
    return area, None if area is None else judged_by_folds(held, rng)


def _held_pixels(
    ground: Ground, judgement: Judgement, statistics: BandStatistics, block: int, rng: np.random.Generator
) -> HeldPixels | None:
    """About `_JUDGED` of them; None where there is none."""
    found: list[HeldPixels] = []
    blocks = 0
    total = sum(len(answered.row) for of_scene in judgement.answered for answered in of_scene)
    for pixels, labels, of_scene in zip(ground.pixels, ground.labels, judgement.answered, strict=True):
        step = labels.index.shape[0] // pixels.ms_valid.shape[0]
        height, width = labels.index.shape
        numbers = block_numbers(height, width, block) + blocks
        rows, cols, fold, p = [], [], [], []
        for number, answered in enumerate(of_scene):
            known = labels.index[answered.row, answered.col] >= 0
            known &= rng.random(len(known)) < _JUDGED / max(total, 1)
            rows.append(answered.row[known])
            cols.append(answered.col[known])
            fold.append(np.full(int(known.sum()), number))
            p.append(answered.probabilities[:, known])
        if not rows:
            continue
        row, col = np.concatenate(rows), np.concatenate(cols)
        found.append(
            HeldPixels(
                features_at(pixels, statistics, row // step, col // step),
                labels.index[row, col].astype(np.int64),
                np.concatenate(fold),
                np.concatenate(p, axis=1),
                numbers[row, col],
            )
        )
        blocks = int(numbers.max()) + 1
    if not found:
        return None
    return HeldPixels(
        np.concatenate([held.features for held in found]),
        np.concatenate([held.truth for held in found]),
        np.concatenate([held.fold for held in found]),
        np.concatenate([held.probabilities for held in found], axis=1),
        np.concatenate([held.block for held in found]),
    )


def judged_by_folds(held: HeldPixels, rng: np.random.Generator) -> dict[str, Any] | None:
    """How well an area of applicability says where answers are wrong, for metrics.json: each fold is judged by one that
    was measured from the other folds alone. None where two other folds are never there.

    inside, outside: pixels, their overall accuracy and its 95 % interval from whole blocks of ground, None where these
    are too few. reliability: bins of equally many pixels by expected error, with its mean and the share that is wrong.
    """
    inside, expected = np.zeros(len(held.truth), bool), np.full(len(held.truth), np.nan)
    for k in np.unique(held.fold):
        own = held.fold == k
        others = held.some(~own)
        area = measured(others.features, others.truth, others.fold, others.probabilities, rng)
        if area is None:
            continue
        apart = area.dissimilarity(held.features[own])
        inside[own] = apart <= area.threshold
        expected[own] = area.expected_error(apart, held.probabilities[:, own])
    known = np.isfinite(expected)
    if not known.any():
        return None
    wrong = held.probabilities.argmax(axis=0) != held.truth
    bins = np.array_split(np.flatnonzero(known)[np.argsort(expected[known], kind="stable")], _BINS)
    return {
        "inside": _accuracy(held.some(known & inside)),
        "outside": _accuracy(held.some(known & ~inside)),
        "reliability": [
            {"expected": float(expected[these].mean()), "wrong": float(wrong[these].mean()), "pixels": len(these)}
            for these in bins
            if len(these)
        ],
    }


def _accuracy(held: HeldPixels) -> dict[str, Any]:
    classes = len(held.probabilities)
    by_block = confusion_by_block(held.truth, held.probabilities.argmax(axis=0), classes, held.block)
    intervals = block_bootstrap(by_block, rng=np.random.default_rng(0))
    right = by_block[:, range(classes), range(classes)].sum()
    return {
        "pixels": len(held.truth),
        "oa": float(right / len(held.truth)) if len(held.truth) else None,
        "interval": None if intervals is None else intervals.oa.to_list(),
    }


def features_at(
    pixels: Pixels, statistics: BandStatistics, row: NDArray[np.int64], col: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Context statistics (n, F) of the MS pixels of a scene at these rows and columns (n,)."""
    height, width = pixels.ms_valid.shape
    ratio = pixels.pan_valid.shape[0] // height
    wide = bordered(pixels, CONTEXT_REACH, repeat_edge=True)
    found: NDArray[np.float32] | None = None
    for window in tiles(height, width, _WINDOW):
        here = (row // _WINDOW == window.row // _WINDOW) & (col // _WINDOW == window.col // _WINDOW)
        if not here.any():
            continue
        around = window.shift(CONTEXT_REACH, CONTEXT_REACH).grow(CONTEXT_REACH)
        fine = around.scale(ratio).slices
        cut = Pixels(wide.ms[:, *around.slices], wide.pan[:, *fine], wide.ms_valid[around.slices], wide.pan_valid[fine])
        every = np.ones((window.height, window.width), bool)
        of_window = features_of(*statistics.standardise(*cut), every, sensors="both")
        if found is None:
            found = np.empty((len(row), of_window.shape[1]), np.float32)
        found[here] = of_window[(row[here] - window.row) * window.width + col[here] - window.col]
    assert found is not None
    return found


def measured(
    features: NDArray[np.float32],
    truth: NDArray[np.int64],
    fold: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    rng: np.random.Generator,
) -> Applicability | None:
    """From labelled pixels: features (n, F), class indices (n,), the fold in which each tests (n,), and held-out
    probabilities (K, n). None where labels of no two folds can be compared."""
    drawn = _balanced(truth, rng)
    deviation = features.std(axis=0)
    scale = np.where(deviation > 0, np.sqrt(_between(features, truth)) / np.maximum(deviation, 1e-12), 0)
    reference = (features[drawn] * scale).astype(np.float32)
    unit = _mean_distance(reference)
    bare = Applicability(scale.astype(np.float32), reference, fold[drawn], unit, 1.0, (0.0,) * 4)
    some = rng.permutation(len(features))[:_JUDGED]
    apart = bare.dissimilarity(features[some], fold=fold[some])
    if not np.isfinite(apart).all():  # what is compared with lies in one fold
        return None
    low, high = np.percentile(apart, (25, 75))
    threshold = max(float(apart[apart <= high + 1.5 * (high - low)].max()), 1e-9)
    wrong = probabilities[:, some].argmax(axis=0) != truth[some]
    return Applicability(
        bare.scale,
        reference,
        bare.fold,
        unit,
        threshold,
        _fit(signs(apart / threshold, probabilities[:, some]), wrong),
    )


def _balanced(truth: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """At most `REFERENCE` samples, in turn one of each class, so that rare ones are all there."""
    order = rng.permutation(len(truth))
    turn = np.empty(len(truth), np.int64)
    for k in np.unique(truth):
        of_class = order[truth[order] == k]
        turn[of_class] = np.arange(len(of_class))
    return np.sort(np.argsort(turn, kind="stable")[:REFERENCE])


def _between(features: NDArray[np.float32], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """η² (F,): between-class sum of squares in all of it, with classes weighing alike."""
    groups = [features[truth == k].astype(np.float64) for k in np.unique(truth)]
    means = np.stack([group.mean(axis=0) for group in groups])
    between = np.square(means - means.mean(axis=0)).mean(axis=0)
    within = np.stack([group.var(axis=0) for group in groups]).mean(axis=0)
    return np.asarray(between / np.maximum(between + within, 1e-12))


def _mean_distance(reference: NDArray[np.float32]) -> float:
    squares = np.square(reference.astype(np.float64)).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * reference.astype(np.float64) @ reference.T, 0))
    n = len(reference)
    return max(float(distance.sum() / max(1, n * (n - 1))), 1e-12)


def _fit(signs: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """a to d; where all answers are right, or all wrong, a alone, with one more of either."""
    if wrong.all() or not wrong.any():
        share = (wrong.sum() + 1) / (len(wrong) + 2)
        return float(np.log(share / (1 - share))), 0.0, 0.0, 0.0
    fitted = LogisticRegression(C=1.0, max_iter=500).fit(signs, wrong)
    b, c, d = (float(v) for v in fitted.coef_[0])
    return float(fitted.intercept_[0]), b, c, d
