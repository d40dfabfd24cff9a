"""What a classifier's scores say of a pixel at an operating point; the same formula for every method compared.

    p_k ∝ (q_k · π_k^tau / ρ_k)^(1 / T)

q the classifier's posterior, π the class shares of the training labels, ρ those in which training met the classes.
tau 1 expects classes as often as they were labelled, tau 0 all classes equally often. T, the temperature, makes
probabilities mean what they say (Guo et al. 2017, arXiv:1706.04599, section 4.2) and leaves the winner alone.
Deviation: Guo et al. divide q's logits; with π and ρ beside them that could change the winner, so T divides all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

_HOTTEST = 10.0  # T lies between this and its inverse: few validation pixels that are all right ask for T = 0


def posterior(
    logits: NDArray[np.floating],
    label_shares: Sequence[float],
    drawn_shares: Sequence[float],
    tau: float,
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """Logits (K, ...), or log q, -> probabilities (K, ...) that sum to 1; nan where the logits are.

    label_shares is π, drawn_shares is ρ, each (K,).
    """
    shift = tau * np.log(np.asarray(label_shares)) - np.log(np.asarray(drawn_shares))
    z = (logits - logits.max(0, keepdims=True) + shift.reshape(-1, *[1] * (logits.ndim - 1))) / temperature
    p = np.exp(z - z.max(0, keepdims=True))
    return np.asarray(p / p.sum(0, keepdims=True), np.float32)


def fit_temperature(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The T under which truth (n,) is likeliest, from probabilities (K, n) at T = 1; the search is convex in 1 / T."""
    z = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))

    def surprise(log_t: float) -> float:
        tempered = z / np.exp(log_t)
        top = tempered.max(0)
        total = top + np.log(np.exp(tempered - top).sum(0))
        return float((total - tempered[truth, np.arange(len(truth))]).mean())

    edge = np.log(_HOTTEST)
    return float(np.exp(minimize_scalar(surprise, bounds=(-edge, edge), method="bounded").x))
