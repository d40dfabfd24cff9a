"""Classes expected as often as they seem to lie around a pixel, not only as they were labelled: a scene differs from
place to place, and from the ground it was learnt on.

    p_k ∝ q_k · π_k^tau / ρ_k · (m_k / π_k)^w          m_k = mean of the posterior at tau 1 over the pixels around

K classes | n targets | q, π, ρ, tau as in `posterior` | w the weight of the surroundings, 0 to 1

With the mean over a whole scene, w = 1 and many rounds this is how Saerens, Latinne and Decaestecker find new priors
(2002, Neural Computation 14, equation 2.7). Deviations: a Gaussian window in place of the scene, one round, w below 1,
and a few pixels as labelled in every mean. Found on the scene as a whole the shares did harm; so found they help
(docs/notes/trials.md). What is added is a number a class and pixel, so adapted logits serve every tau and temperature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.mapping.posterior import posterior

SCALE = 32.0  # MS pixels: deviation of the window. Anything from 16 to 60 is about as good
_SQUARE = 16  # MS pixels per side of the squares in which pixels are counted
_AS_LABELLED = 100.0  # pixels in every mean whose classes are as labelled: keeps the means of small grounds calm


class LocalPriors:
    """First `add` every target that counts, in any order and as many at a time as is handy; then `adapt` logits.

    shape (h, w): of the targets' grid. step: targets per MS pixel and axis. label_shares π, drawn_shares ρ (K,).
    """

    def __init__(
        self,
        shape: tuple[int, int],
        step: int,
        label_shares: Sequence[float],
        drawn_shares: Sequence[float],
        weight: float,
    ) -> None:
        self.label_shares, self.drawn_shares, self.weight = label_shares, drawn_shares, weight
        self._side = _SQUARE * step
        self._squares = -(-shape[0] // self._side), -(-shape[1] // self._side)
        self._sums = np.zeros((len(label_shares) + 1, *self._squares))  # of the posteriors; last, how many pixels
        self._log_ratio: NDArray[np.float64] | None = None  # (K, rows, cols), made of the sums when first needed

    def add(self, logits: NDArray[np.floating], row: NDArray[np.integer], col: NDArray[np.integer]) -> None:
        """Targets at rows and columns (n,) with their logits (K, n)."""
        if not self.weight:
            return
        p = posterior(logits, self.label_shares, self.drawn_shares, tau=1.0)
        square = row // self._side * self._squares[1] + col // self._side
        for sums, weights in zip(self._sums, (*p, None), strict=True):
            sums += np.bincount(square, weights, sums.size).reshape(sums.shape)
        self._log_ratio = None

    def adapt(
        self, logits: NDArray[np.floating], row: NDArray[np.integer], col: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Logits (K, n) + w · log(m / π) of targets at rows and columns (n,)."""
        if not self.weight:
            return np.asarray(logits, np.float32)
        if self._log_ratio is None:
            self._log_ratio = self._measure()
        at = [(place + 0.5) / self._side - 0.5 for place in (row, col)]
        around = [ndimage.map_coordinates(values, at, order=1, mode="nearest") for values in self._log_ratio]
        return np.asarray(logits + self.weight * np.stack(around), np.float32)

    def _measure(self) -> NDArray[np.float64]:
        deviation = SCALE / _SQUARE
        near = ndimage.gaussian_filter(self._sums, deviation, mode="constant", truncate=3, axes=(1, 2))
        near *= 2 * np.pi * deviation**2  # the square in the middle counts whole
        shares = np.asarray(self.label_shares)[:, None, None]
        return np.asarray(np.log((near[:-1] / shares + _AS_LABELLED) / (near[-1] + _AS_LABELLED)))
