"""Class areas and accuracies of a whole map from a random sample of it, each with its standard error.

Sample points are drawn at random within strata, which are the classes of the map the sample was drawn from. The map
that is judged is that one as a rule, but may be another one of the same ground: the estimators are those of Stehman
("Estimating area and map accuracy for stratified random sampling when the strata are different from the map classes",
International Journal of Remote Sensing 35, 2014), which are equations 1 to 11 of Olofsson et al. ("Good practices for
estimating area and assessing accuracy of land change", Remote Sensing of Environment 148, 2014) where strata are the
classes of the judged map, and those of a simple random sample where there is one stratum.

h stratum | i class of the map (the last one "no class") | j true class
n[h, i, j] points          W[h] share of stratum h in all pixels sampled from
Deviation: a stratum of which every pixel is a point adds no error. Otherwise there is no finite population correction,
as in Olofsson et al.; it would make the errors smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-12


class Estimate(NamedTuple):
    """A share and its standard error; nan where the sample holds no such pixel."""

    value: float
    error: float


@dataclass(frozen=True)
class SampleEstimates:
    """Of all pixels that were sampled from. Per-class values are in class order.

    matrix (K, K + 1): estimated share of the pixels by true class (rows) and class of the map, the last column "no
    class"; the form of `metrics.confusion_matrix`.
    """

    oa: Estimate
    precision: tuple[Estimate, ...]  # user's accuracy
    recall: tuple[Estimate, ...]  # producer's accuracy
    area: tuple[Estimate, ...]  # share of the ground that truly is of each class
    matrix: NDArray[np.float64]


def estimate(n: NDArray[np.integer], pixels: NDArray[np.integer]) -> SampleEstimates:
    """From points n (H, K + 1, K) in strata of so many pixels (H,). ValueError for other shapes, or strata with fewer
    than two points (and more pixels), from which no standard error follows."""
    if n.ndim != 3 or n.shape[1] != n.shape[2] + 1 or pixels.shape != n.shape[:1]:
        raise ValueError(f"points {n.shape} must be (H, K + 1, K) and pixels {pixels.shape} (H,)")
    points = n.sum(axis=(1, 2))
    known = points == pixels  # whole strata
    if (points[~known] < 2).any():
        raise ValueError(f"every stratum needs two points or more, they have {points.tolist()}")
    share = n / points[:, None, None]  # (H, K + 1, K)
    W = pixels / pixels.sum()
    weight = np.where(known, 0, W**2 / np.maximum(points - 1, 1))
    right = np.diagonal(share, axis1=1, axis2=2)  # (H, K)
    mapped, true = share[:, :-1].sum(axis=2), share.sum(axis=1)
    everything = np.ones((len(n), 1))

    def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> tuple[Estimate, ...]:
        """Combined ratio estimator for each column of stratum means (H, m), where `part` is a subset of `whole`.

        R = sum W part / sum W whole, and the variance that of the residuals part - R whole of the single points
        (Stehman 2014, equations 27 and 28); for indicators part² = part · whole = part.
        """
        total = W @ whole
        with np.errstate(invalid="ignore", divide="ignore"):
            R = (W @ part) / total
            spread = part - 2 * R * part + R**2 * whole - (part - R * whole) ** 2  # mean square less squared mean
            spread[np.abs(spread) < _ROUNDING] = 0  # points that all agree
            error = np.sqrt(weight @ spread) / total
        return tuple(Estimate(*pair) for pair in zip(R.tolist(), error.tolist(), strict=True))

    return SampleEstimates(
        oa=ratio(right.sum(axis=1, keepdims=True), everything)[0],
        precision=ratio(right, mapped),
        recall=ratio(right, true),
        area=ratio(true, np.broadcast_to(everything, true.shape)),
        matrix=np.asarray(np.einsum("h,hij->ji", W, share)),
    )
