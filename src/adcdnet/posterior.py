"""What a classifier's scores say of a pixel at an operating point; the same formula for every method compared.

    p_k ∝ q_k · π_k^tau / ρ_k

q the classifier's posterior, π the class shares of the training labels, ρ those in which training met the classes.
tau 1 expects classes as often as they were labelled, tau 0 all classes equally often.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def posterior(
    logits: NDArray[np.floating], label_shares: Sequence[float], drawn_shares: Sequence[float], tau: float
) -> NDArray[np.float32]:
    """Logits (K, ...), or log q, -> probabilities (K, ...) that sum to 1; nan where the logits are.

    label_shares is π, drawn_shares is ρ, each (K,).
    """
    shift = tau * np.log(np.asarray(label_shares)) - np.log(np.asarray(drawn_shares))
    z = logits - logits.max(0, keepdims=True) + shift.reshape(-1, *[1] * (logits.ndim - 1))
    p = np.exp(z - z.max(0, keepdims=True))
    return np.asarray(p / p.sum(0, keepdims=True), np.float32)
