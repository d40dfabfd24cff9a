"""The area of applicability of a model, measured from its labels and from answers to held-out ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.grid import tiles
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.applicability import Applicability, signs
from adcdnet.mapping.members import features_of
from adcdnet.nn.context import CONTEXT_REACH
from adcdnet.training.borders import bordered
from adcdnet.training.committee.cross_fit import Judgement
from adcdnet.training.committee.folds import Ground

REFERENCE = 1000  # labelled pixels that new ones are compared with
_JUDGED = 20_000  # held-out answers that it is measured by
_WINDOW = 128  # MS pixels per side whose statistics are computed at once


def applicability_of(
    ground: Ground, judgement: Judgement, statistics: BandStatistics, seed: int
) -> Applicability | None:
    """From the labelled MS pixels of all scenes that were answered; None where these are of one fold.

    statistics: by which the model standardises.
    """
    rng = np.random.default_rng(seed)
    features, truth, fold, p = [], [], [], []
    total = sum(len(answered.row) for of_scene in judgement.answered for answered in of_scene)
    for pixels, labels, of_scene in zip(ground.pixels, ground.labels, judgement.answered, strict=True):
        step = labels.index.shape[0] // pixels.ms_valid.shape[0]
        rows, cols = [], []
        for number, answered in enumerate(of_scene):
            known = labels.index[answered.row, answered.col] >= 0
            known &= rng.random(len(known)) < _JUDGED / max(total, 1)
            rows.append(answered.row[known])
            cols.append(answered.col[known])
            truth.append(labels.index[rows[-1], cols[-1]].astype(np.int64))
            fold.append(np.full(int(known.sum()), number))
            p.append(answered.probabilities[:, known])
        if rows:
            features.append(features_at(pixels, statistics, np.concatenate(rows) // step, np.concatenate(cols) // step))
    if not features or len(np.unique(np.concatenate(fold))) < 2:
        return None
    x, y, of_fold = np.concatenate(features), np.concatenate(truth), np.concatenate(fold)
    return measured(x, y, of_fold, np.concatenate(p, axis=1), rng)


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
