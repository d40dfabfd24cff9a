"""What every method that we compare with gives, and how the validation part judges it.

All methods get the same training area and are read through the same posterior, so that none gains by another choice of
operating point: p_k ∝ q_k · π_k^tau / ρ_k, see `adcdnet.posterior`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adcdnet.config import TrainConfig
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.posterior import posterior
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.training.area import TrainingArea

BALANCE = TrainConfig().class_balance  # classes weigh in as (frequency)^-BALANCE, as in ADCD-Net's training


class Classifier(Protocol):
    """A trained method.

    drawn_shares (K,): in which training met the classes, ρ of the posterior. parameters: how many numbers were trained;
    for trees the number of nodes.
    """

    @property
    def drawn_shares(self) -> tuple[float, ...]: ...

    @property
    def parameters(self) -> int: ...

    def logits(self, pixels: Pixels, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(K, h, w) log posterior up to a constant for each MS pixel of a whole scene, nan where invalid.

        where (h, w): only these pixels are classified, the others are nan.
        """
        ...


Fit = Callable[..., Classifier]  # fit(area, pixels, bands, *, seed) -> Classifier


def shares_drawn(area: TrainingArea, balance: float = BALANCE) -> tuple[float, ...]:
    """(K,) class shares that training meets with classes weighted (frequency)^-balance."""
    counts = area.drawn_counts(balance)
    shares: list[float] = (counts / counts.sum()).tolist()
    return tuple(shares)


def kappa_at_tau_1(
    logits: NDArray[np.floating], truth: NDArray[np.int64], area: TrainingArea, drawn_shares: tuple[float, ...]
) -> float:
    """Kappa of logits (K, n) against classes (n), with classes expected as often as they were labelled."""
    label_shares = area.class_counts / area.class_counts.sum()
    answer = posterior(logits, label_shares.tolist(), drawn_shares, tau=1.0).argmax(0)
    return scores(confusion_matrix(truth, answer, len(logits))).kappa


def to_classify(pixels: Pixels, where: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """(h, w): the valid pixels, or those of them that are asked for."""
    return pixels.valid if where is None else pixels.valid & where


def on_map(logits: NDArray[np.floating], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Logits (K, n) of the true pixels of `where` (h, w), in their places (K, h, w); nan elsewhere."""
    placed = np.full((len(logits), *where.shape), np.nan, np.float32)
    placed[:, where] = logits
    return placed
