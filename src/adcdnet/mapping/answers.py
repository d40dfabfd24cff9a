"""From the logits of a scene's targets to probabilities, at any operating point: local priors, then the posterior.

K classes | n targets
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adcdnet.mapping.local_priors import LocalPriors
from adcdnet.mapping.model import Model
from adcdnet.mapping.posterior import posterior


class Answers:
    """First `add` every target of a scene, in any order and as many at a time as is handy; then ask for probabilities.

    shape (h, w): of the targets' grid. step: targets per MS pixel and axis. label_shares π, drawn_shares ρ (K,).
    local_priors: weight of how often classes seem to lie around a target; 0: they do not count.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        step: int,
        label_shares: Sequence[float],
        drawn_shares: Sequence[float],
        *,
        local_priors: float,
        temperature: float = 1.0,
    ) -> None:
        self._shares, self._temperature = (label_shares, drawn_shares), temperature
        self._local = LocalPriors(shape, step, label_shares, drawn_shares, local_priors)

    @classmethod
    def of(cls, model: Model, shape: tuple[int, int], *, prior: Sequence[float] | None = None) -> Answers:
        """For the logits of a model. prior: shares (K,) in which classes are expected; None: as they were labelled."""
        return cls(
            shape,
            model.step,
            model.label_shares if prior is None else prior,
            (1.0,) * len(model.classes),  # log likelihoods have no shares in them
            local_priors=model.answers.local_priors,
            temperature=model.temperature,
        )

    def add(self, logits: NDArray[np.floating], row: NDArray[np.integer], col: NDArray[np.integer]) -> None:
        """Targets at rows and columns (n,) with their logits (K, n)."""
        self._local.add(logits, row, col)

    def probabilities(
        self, logits: NDArray[np.floating], row: NDArray[np.integer], col: NDArray[np.integer], *, tau: float
    ) -> NDArray[np.float32]:
        """(K, n) at operating point tau, of targets that were added."""
        return posterior(self._local.adapt(logits, row, col), *self._shares, tau, self._temperature)
