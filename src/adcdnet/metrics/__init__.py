"""From true and mapped classes to scores.

K classes, n pixels. C confusion matrix (K, K + 1): C[i, j] counts pixels of true class i that the map gives class j;
the last column counts pixels the map left without a class. Those stay in every denominator that counts true pixels, so
that a map cannot gain by staying silent: they lower recall, F1, IoU, OA and kappa, and leave precision alone.
What is 0 / 0 is nan in Python and null in JSON, never 0 or 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

_SHAPE = "confusion matrix {} must be (K, K + 1), the last column for 'no class'"


def confusion_matrix(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    num_classes: int,
    *,
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Pixel counts, rows truth, columns prediction, last column "no class". Matrices of parts of a scene add up.

    truth and prediction hold class indices 0..K-1, or -1 for none, in any one shape. Pixels whose truth is -1, or
    where `valid` is false, are not counted. Returns (K, K + 1). ValueError if shapes or class indices do not fit.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} must have one shape")
    counted = truth != -1 if valid is None else (truth != -1) & valid
    true, mapped = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, index in (("truth", true), ("prediction", mapped)):
        if index.size and not -1 <= index.min() <= index.max() < num_classes:
            raise ValueError(
                f"{name} holds {index.min()}..{index.max()}; class indices -1..{num_classes - 1} are needed"
            )
    columns = num_classes + 1
    cell = true * columns + np.where(mapped == -1, num_classes, mapped)
    return np.bincount(cell, minlength=num_classes * columns).reshape(num_classes, columns)


@dataclass(frozen=True)
class Scores:
    """Agreement of a map with the truth. Per-class values are in class order; nan where undefined.

    aa and macro_f1 are means over the classes that occur in the truth.
    """

    oa: float  # overall accuracy: share of pixels mapped right
    aa: float  # average accuracy: mean recall
    kappa: float  # Cohen's: (oa - chance) / (1 - chance)
    macro_f1: float
    precision: tuple[float, ...]  # user's accuracy
    recall: tuple[float, ...]  # producer's accuracy
    f1: tuple[float, ...]
    iou: tuple[float, ...]
    support: tuple[int, ...]  # true pixels
    unmapped: int  # true pixels without a class in the map

    def to_dict(self) -> dict[str, float | int | None | list[float | None]]:
        """Plain values for JSON, None in place of nan."""
        return {
            name: [_none_if_nan(v) for v in value] if isinstance(value, tuple) else _none_if_nan(value)
            for name, value in asdict(self).items()
        }


def scores(confusion: NDArray[np.number]) -> Scores:
    """All scores of a confusion matrix (K, K + 1) as `confusion_matrix` returns it. ValueError for other shapes.

    Weighted counts, such as pixels that sample points stand for, do as well.
    """
    if confusion.ndim != 2:
        raise ValueError(_SHAPE.format(confusion.shape))
    arrays = score_arrays(confusion)
    return Scores(
        oa=float(arrays["oa"]),
        aa=float(arrays["aa"]),
        kappa=float(arrays["kappa"]),
        macro_f1=float(arrays["macro_f1"]),
        precision=tuple(arrays["precision"].tolist()),
        recall=tuple(arrays["recall"].tolist()),
        f1=tuple(arrays["f1"].tolist()),
        iou=tuple(arrays["iou"].tolist()),
        support=tuple(confusion.sum(axis=1).tolist()),
        unmapped=confusion[:, -1].sum().item(),
    )


def score_arrays(
    confusions: NDArray[np.number], *, counted: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[np.float64]]:
    """The formulas: scores of many confusion matrices (..., K, K + 1) at once, by the names of `Scores`.

    oa, aa, kappa and macro_f1 have shape (...), precision, recall, f1 and iou (..., K). nan where undefined.
    counted (K,): the classes that aa and macro_f1 are means over; by default those that occur in each matrix.
    ValueError for other shapes.
    """
    if confusions.ndim < 2 or confusions.shape[-1] != confusions.shape[-2] + 1:
        raise ValueError(_SHAPE.format(confusions.shape))
    right = np.diagonal(confusions, axis1=-2, axis2=-1).astype(np.float64)  # (..., K)
    support = confusions.sum(axis=-1).astype(np.float64)
    mapped = confusions[..., :-1].sum(axis=-2).astype(np.float64)
    total = support.sum(axis=-1)
    recall, f1 = _ratio(right, support), _ratio(2 * right, support + mapped)
    oa = _ratio(right.sum(axis=-1), total)
    chance = _ratio((support * mapped).sum(axis=-1), total**2)
    present = support > 0 if counted is None else np.broadcast_to(counted, support.shape)
    classes = present.sum(axis=-1)
    return {
        "oa": oa,
        "aa": _ratio(np.where(present, recall, 0).sum(axis=-1), classes),
        "kappa": _ratio(oa - chance, 1 - chance),
        "macro_f1": _ratio(np.where(present, f1, 0).sum(axis=-1), classes),
        "precision": _ratio(right, mapped),
        "recall": recall,
        "f1": f1,
        "iou": _ratio(right, support + mapped - right),
    }


def expected_calibration_error(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], *, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy (Guo et al. 2017, arXiv:1706.04599, equation 3); 0 is calibrated.

    probabilities (n, K), truth (n) class indices, -1 not counted. Confidence is the largest probability; pixels fall
    into `bins` equal intervals (lower, upper] of it, and the gaps are averaged weighted by pixels. nan without pixels.
    ValueError if shapes do not fit.
    """
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        raise ValueError(f"probabilities {probabilities.shape} must be (n, K) and truth {truth.shape} (n)")
    counted = truth != -1
    confidence = probabilities[counted].max(axis=1).astype(np.float64)
    right = probabilities[counted].argmax(axis=1) == truth[counted]
    interval = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # |mean accuracy - mean confidence| times the pixels of a bin is the absolute value of this sum over the bin
    gap = np.bincount(interval, weights=right - confidence, minlength=bins)
    return float(_ratio(np.abs(gap).sum(), np.asarray(confidence.size)))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.number]) -> NDArray[np.float64]:
    ratio = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
