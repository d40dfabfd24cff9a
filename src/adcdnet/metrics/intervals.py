"""How sure a score is, from how much it varies between places: the block bootstrap.

Neighbouring pixels are right or wrong together, so that n pixels say less than n independent ones would. Blocks of
pixels are drawn with replacement instead, whole, and the scores of each such resample spread as those of another test
area of this kind would. B blocks, K classes, R resamples; C (B, K, K + 1): the confusion matrix of each block.

The percentiles are set somewhat further out than 2.5 and 97.5, by what Student's t with B - 1 degrees of freedom and
the factor B / (B - 1) ask for, since plain percentiles are too narrow for few blocks (Hesterberg, "What Teachers Should
Know About the Bootstrap", The American Statistician 69, 2015, expanded percentile interval).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adcdnet.metrics import score_arrays

FEWEST_BLOCKS = 10  # with labelled pixels; their spread says too little below this
_RESAMPLES = 2000
_DRAWN_AT_ONCE = 2**21  # numbers: bounds memory where blocks are many
_UNDEFINED = 0.05  # share of resamples that may lack a score: a class must lie in some four blocks or more


class Interval(NamedTuple):
    """Both ends; nan where the data cannot say."""

    low: float
    high: float

    def to_list(self) -> list[float] | None:
        """For JSON."""
        return None if math.isnan(self.low) else [self.low, self.high]


NO_INTERVAL = Interval(math.nan, math.nan)


@dataclass(frozen=True)
class Intervals:
    """Where each score of `metrics.Scores` (or a difference of two) lies with a confidence of `level`.

    Per-class values are in class order. An interval is nan where its score is undefined in over a twentieth of the
    resamples, as are those of a class that lies in three blocks or fewer, and the means aa and macro_f1 with it.
    """

    oa: Interval
    aa: Interval
    kappa: Interval
    macro_f1: Interval
    precision: tuple[Interval, ...]
    recall: tuple[Interval, ...]
    f1: tuple[Interval, ...]
    level: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: [low, high], None in place of nan."""
        return {
            "level": self.level,
            **{name: getattr(self, name).to_list() for name in ("oa", "aa", "kappa", "macro_f1")},
            **{name: [each.to_list() for each in getattr(self, name)] for name in ("precision", "recall", "f1")},
        }


def block_bootstrap(
    confusions: NDArray[np.integer], *, rng: np.random.Generator, level: float = 0.95
) -> Intervals | None:
    """Intervals of all scores from the confusion matrix of each block (B, K, K + 1).

    Blocks without labelled pixels do not count; None where fewer than FEWEST_BLOCKS are left. A score that is 0
    or 1 in all blocks, such as the recall of a class that is never found, has none: resamples of them cannot vary.
    """
    held = confusions[confusions.any(axis=(1, 2))]
    if len(held) < FEWEST_BLOCKS:
        return None
    found = _resampled(held[:, None], rng)
    return _intervals({name: each[:, 0] for name, each in found.items()}, len(held), level, one_map=True)


def paired_bootstrap(
    a: NDArray[np.integer], b: NDArray[np.integer], *, rng: np.random.Generator, level: float = 0.95
) -> Intervals | None:
    """Intervals of score(a) - score(b) for two maps judged on the same pixels; shapes and None as `block_bootstrap`.

    Both maps are judged on the same resamples, so that what makes a place hard for both cancels out. A difference is
    clear where its interval does not hold 0. ValueError if the blocks of a and b differ in their true pixels.
    """
    if a.shape != b.shape or not np.array_equal(a.sum(axis=-1), b.sum(axis=-1)):
        raise ValueError(f"a {a.shape} and b {b.shape} must count the same true pixels in every block")
    both = np.stack([a, b], axis=1)[a.any(axis=(1, 2))]
    if len(both) < FEWEST_BLOCKS:
        return None
    found = _resampled(both, rng)
    return _intervals({name: each[:, 0] - each[:, 1] for name, each in found.items()}, len(both), level)


def confusion_by_block(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int, block: NDArray[np.integer]
) -> NDArray[np.int64]:
    """(B, K, K + 1): `metrics.confusion_matrix` of the pixels of each block that holds true ones, by block number.

    truth, prediction and block have one shape; the first two hold class indices, -1 for none. The matrices add up to
    that of all pixels. Two maps judged on the same truth have the same blocks.
    """
    counted = truth != -1
    true, mapped, place = (x[counted].astype(np.int64) for x in (truth, prediction, block))
    numbers, place = np.unique(place, return_inverse=True)
    shape = len(numbers), num_classes, num_classes + 1
    cell = np.ravel_multi_index((place, true, np.where(mapped == -1, num_classes, mapped)), shape)
    return np.bincount(cell, minlength=math.prod(shape)).reshape(shape)


def _resampled(confusions: NDArray[np.integer], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Scores (R, m) and (R, m, K) of resamples of B blocks, the same for m maps (B, m, K, K + 1).

    Means are over all classes of the data: over fewer they would be another score.
    """
    blocks, *one = confusions.shape
    flat = confusions.reshape(blocks, -1).astype(np.float64)  # sums of counts are exact in float64
    even = np.full(blocks, 1 / blocks)
    at_once = max(1, _DRAWN_AT_ONCE // blocks)
    sizes = [min(at_once, _RESAMPLES - start) for start in range(0, _RESAMPLES, at_once)]
    summed = np.concatenate([rng.multinomial(blocks, even, size=size).astype(np.float64) @ flat for size in sizes])
    occurs = np.asarray(confusions.any(axis=(0, 1, 3)))  # (K,)
    found = score_arrays(summed.reshape(-1, *one), counted=occurs)
    found["f1"][np.isnan(found["recall"])] = np.nan  # not 0: the resample has no true pixel of the class
    found["macro_f1"][np.isnan(found["aa"])] = np.nan
    return found


def _intervals(found: dict[str, NDArray[np.float64]], blocks: int, level: float, *, one_map: bool = False) -> Intervals:
    tail = stats.norm.cdf(-math.sqrt(blocks / (blocks - 1)) * stats.t.ppf((1 + level) / 2, blocks - 1))

    def interval(values: NDArray[np.float64]) -> Interval:
        defined = values[~np.isnan(values)]
        if defined.size < (1 - _UNDEFINED) * values.size:
            return NO_INTERVAL
        low, high = np.quantile(defined, (tail, 1 - tail)).tolist()
        return NO_INTERVAL if one_map and low == high in (0, 1) else Interval(low, high)

    return Intervals(
        oa=interval(found["oa"]),
        aa=interval(found["aa"]),
        kappa=interval(found["kappa"]),
        macro_f1=interval(found["macro_f1"]),
        precision=tuple(map(interval, found["precision"].T)),
        recall=tuple(map(interval, found["recall"].T)),
        f1=tuple(map(interval, found["f1"].T)),
        level=level,
    )
