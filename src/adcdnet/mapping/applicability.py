"""How far a pixel is from all that a model was trained on, and how likely its class is wrong.

x (n, F) context statistics of MS pixels | η²_f share of the variance of statistic f that lies between classes
z = x · s, s_f = √η²_f / deviation_f: statistics on one scale, those that tell classes apart counting most
r (m, F) labelled pixels on that scale, drawn from all | d̄ mean distance between two of them

    dissimilarity  DI = min_m ‖z − r_m‖ / d̄
    threshold      largest DI of labelled pixels to those of other folds, outliers (beyond Q3 + 1.5 IQR) left out
    P(wrong) = σ(a + b·log(DI / threshold) + c·logit p̂ + d·entropy)       p̂ the largest probability of the pixel

Ground beyond the threshold lies outside the area of applicability: nothing like it was labelled. Source: Meyer and
Pebesma 2021, Methods in Ecology and Evolution 12. Deviation: η² in the place of a model's variable importance, so that
it is the same whatever the members are; and a part of the labelled pixels where these are many. It is measured in
`training/applicability.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROWS = 4096  # pixels that are compared at once
_LEAST = 1e-6


@dataclass(frozen=True)
class Applicability:
    """scale (F,), reference (m, F), on that scale, and fold (m,) in which each of it tests. unit: d̄. error: a to d."""

    scale: NDArray[np.float32]
    reference: NDArray[np.float32]
    fold: NDArray[np.int64]
    unit: float
    threshold: float
    error: tuple[float, float, float, float]

    def dissimilarity(
        self, features: NDArray[np.float32], *, fold: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """DI (n,) of features (n, F). fold (n,): of labelled pixels, which are compared with those of others alone."""
        nearest = np.empty(len(features), np.float32)
        squares = np.square(self.reference).sum(axis=1)
        for first in range(0, len(features), _ROWS):
            rows = slice(first, first + _ROWS)
            z = features[rows] * self.scale
            distance = np.square(z).sum(axis=1)[:, None] - 2 * z @ self.reference.T + squares
            if fold is not None:
                distance = np.where(self.fold == fold[rows, None], np.inf, distance)
            nearest[rows] = np.sqrt(np.maximum(distance.min(axis=1), 0))
        return nearest / np.float32(self.unit)

    def expected_error(
        self, dissimilarity: NDArray[np.float32], probabilities: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """P(wrong) (n,) of pixels of this dissimilarity (n,) and these probabilities (K, n)."""
        a, *others = self.error
        logit = a + signs(dissimilarity / np.float32(self.threshold), probabilities) @ np.asarray(others)
        return np.asarray(1 / (1 + np.exp(-logit)), np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What `of_arrays` makes it from again."""
        numbers = np.array([self.unit, self.threshold, *self.error], np.float64)
        return {"scale": self.scale, "reference": self.reference, "fold": self.fold, "numbers": numbers}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Applicability:
        """ValueError for arrays that `arrays` never gave: other shapes, or numbers that cannot be."""
        scale, reference, fold, numbers = (arrays[name] for name in ("scale", "reference", "fold", "numbers"))
        if reference.ndim != 2 or scale.shape != reference.shape[1:] or fold.shape != reference.shape[:1]:
            raise ValueError("its area of applicability has arrays of shapes that do not fit each other")
        if (
            not len(reference)
            or numbers.shape != (6,)
            or not all(np.isfinite(x).all() for x in (scale, reference, numbers))
        ):
            raise ValueError("its area of applicability holds no labelled pixel, or numbers that are none")
        unit, threshold, *error = (float(x) for x in numbers)
        if unit <= 0 or threshold <= 0:
            raise ValueError("its area of applicability has a unit or threshold that is not above 0")
        a, b, c, d = error
        return cls(scale, reference, fold, unit, threshold, (a, b, c, d))  # type: ignore[arg-type]


def signs(relative: NDArray[np.floating], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 3): log of DI over the threshold, logit of the largest probability, and entropy."""
    p = np.clip(probabilities.astype(np.float64), _LEAST, 1 - _LEAST)
    largest = p.max(axis=0)
    return np.stack(
        (
            np.log(np.maximum(relative, 1e-3)),
            np.log(largest / (1 - largest)),
            -(p * np.log(p)).sum(axis=0),
        ),
        axis=1,
    )
