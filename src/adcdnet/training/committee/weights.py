"""What each member is worth: weights and one temperature, fitted to answers on ground where no member trained.

Stacking as a Super Learner does it (van der Laan, Polley and Hubbard 2007, doi:10.2202/1544-6115.1309), with the log
loss: of log likelihoods ℓ_m and class shares π

    p_k ∝ exp( Σ_m v_m (ℓ_mk + log π_k) )        v_m ≥ 0

is likeliest, which is convex in v. The weights are w = v / Σ v and the temperature is T = 1 / Σ v, as in `posterior`.
M members | K classes | n pixels
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

LEAST = 0.02  # a member that weighs less is left out
_COLDEST, _HOTTEST = 0.1, 10.0  # T: few pixels that are all right ask for 0
_MOST = 50_000  # pixels that the weights are fitted to


def fit_weights(log_posteriors: NDArray[np.floating], truth: NDArray[np.integer]) -> tuple[NDArray[np.float64], float]:
    """w (M,), which sums to 1, and T. log_posteriors (M, K, n): ℓ + log π, up to a constant a pixel. truth (n,).

    Of many pixels evenly spread ones are taken. Members below `LEAST` get 0, and the others are weighed again.
    """
    every = -(-truth.size // _MOST)
    z, truth = log_posteriors[:, :, ::every].astype(np.float64), truth[::every]
    z -= z.max(1, keepdims=True)
    kept = np.arange(len(z))
    while True:
        v = _likeliest(z[kept], truth)
        w = v / v.sum()
        if (w >= LEAST).all():
            break
        kept = kept[w >= LEAST]
    weights = np.zeros(len(z))
    weights[kept] = w
    return weights, float(np.clip(1 / v.sum(), _COLDEST, _HOTTEST))


def _likeliest(z: NDArray[np.float64], truth: NDArray[np.integer]) -> NDArray[np.float64]:
    right = np.take_along_axis(z, np.broadcast_to(truth, (len(z), 1, truth.size)), axis=1)[:, 0]  # (M, n)

    def surprise(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total = np.tensordot(v, z, axes=1)  # (K, n)
        top = total.max(0)
        p = np.exp(total - top)
        sums = p.sum(0)
        loss = (top + np.log(sums) - v @ right).mean()
        slope = (np.einsum("mkn,kn->mn", z, p / sums) - right).mean(1)
        return float(loss), slope

    start = np.full(len(z), 1 / len(z))
    found = minimize(surprise, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(z)).x
    return found if found.sum() > 0 else start
