"""The members of a model: classifiers of one pixel that answer together, each with its weight.

K classes | n targets | B bands of MS | B' bands of PAN
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.mapping.trees import Trees
from adcdnet.nn.context import CONTEXT_REACH, ContextBranch, context_statistics, feature_count
from adcdnet.nn.networks import Network

Classifier = Union[Network, ContextBranch, Trees]  # noqa: UP007


@dataclass(frozen=True, kw_only=True)
class Member:
    """One classifier, on the CPU and in eval mode, and what its logits are to be read by.

    name: what it is called in reports; members of one name were trained on different folds. statistics: by which its
    bands are standardised. drawn_shares: ρ (K,), the shares in which training met the classes; logits − log ρ are log
    likelihoods up to a constant. weight: of these in the sum over all members, at least 0.
    A network sees images; a perceptron (`ContextBranch`) and trees see context statistics of an MS pixel.
    sensors: "both", or the one that it sees.
    """

    name: str
    classifier: Classifier
    statistics: BandStatistics
    drawn_shares: tuple[float, ...]
    weight: float = 1.0
    sensors: str = "both"

    @property
    def network(self) -> Network | None:
        """None for a perceptron or trees."""
        return None if isinstance(self.classifier, ContextBranch | Trees) else self.classifier

    @property
    def reach(self) -> int:
        """MS pixels that it sees on every side of a target."""
        return CONTEXT_REACH if self.network is None else self.network.config.reach

    @property
    def parameters(self) -> int:
        """How many numbers were trained; of trees, their nodes."""
        if isinstance(self.classifier, Trees):
            return len(self.classifier.feature)
        return sum(p.numel() for p in self.classifier.parameters())


def features_of(
    ms: NDArray[np.float32], pan: NDArray[np.float32], wanted: NDArray[np.bool_], *, sensors: str
) -> NDArray[np.float32]:
    """Context statistics (n, F) of the wanted MS pixels (h, w) of a window, whose images (B, ...) and (B', ...) have a
    border of `CONTEXT_REACH`. A pixel's are the same to the bit in every window that holds it.

    sensors: "both", or the one whose statistics these are.
    """
    ratio = pan.shape[1] // ms.shape[1]
    with torch.inference_mode():
        maps = context_statistics(torch.from_numpy(ms)[None], torch.from_numpy(pan)[None], ratio)[0]
        picked: NDArray[np.float32] = maps[:, torch.from_numpy(wanted)].T.contiguous().numpy()
    return np.ascontiguousarray(picked[:, columns_of(sensors, len(ms), len(pan))])


def columns_of(sensors: str, ms_bands: int, pan_bands: int) -> slice:
    """Which of the context statistics are those of the sensors: MS comes first."""
    of_ms = feature_count(ms_bands, 0)
    return {"both": slice(None), "ms": slice(of_ms), "pan": slice(of_ms, None)}[sensors]


def feature_count_of(sensors: str, ms_bands: int, pan_bands: int) -> int:
    """F of `features_of`."""
    return len(range(feature_count(ms_bands, pan_bands))[columns_of(sensors, ms_bands, pan_bands)])


def by_features(classifier: ContextBranch | Trees, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (K, n) of features (n, F)."""
    if isinstance(classifier, Trees):
        return classifier.logits(features).T
    with torch.inference_mode():
        logits: NDArray[np.float32] = classifier(torch.from_numpy(features)).numpy().T
    return logits
