"""A multilayer perceptron on the hand-made features, standardised over the labelled training pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.benchmark.methods.classifier import BALANCE, kappa_at_tau_1, on_map, shares_drawn, to_classify
from adcdnet.benchmark.methods.features import BandRoles, features
from adcdnet.benchmark.methods.loop import Recipe, TrainedNetwork, train
from adcdnet.geo.scene import Pixels
from adcdnet.training.area import TrainingArea

_BATCH = 256
_STEPS, _PASSES = 4000, 60  # at most so many steps, and so often each label


@dataclass(frozen=True)
class MLP(TrainedNetwork):
    """Linear layers on (x − mean) / deviation; mean and deviation (F,) are those of the training pixels."""

    network: nn.Module
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    bands: BandRoles
    drawn_shares: tuple[float, ...]

    @torch.inference_mode()
    def logits(self, pixels: Pixels, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(K, h, w), see `Classifier`."""
        chosen = to_classify(pixels, where)
        x = (features(pixels, self.bands)[chosen] - self.mean) / self.deviation
        return on_map(self.network(torch.from_numpy(x)).numpy().T, chosen)


def fit_mlp(area: TrainingArea, pixels: Pixels, bands: BandRoles, *, seed: int, steps: int | None = None) -> MLP:
    """Layers of 128 and 64 with dropout; classes weighted in the loss. About 10 s on one core.

    steps: as many as serve, unless given; of few labels more steps make worse networks (docs/notes/trials.md).
    """
    table = features(pixels, bands)
    rows = table[area.label >= 0]
    mean, deviation = rows.mean(0), rows.std(0)
    deviation = np.where(deviation > 0, deviation, 1).astype(np.float32)
    x = torch.from_numpy((rows - mean) / deviation)
    y = torch.from_numpy(area.label[area.label >= 0])
    held = torch.from_numpy((table[area.validation_label >= 0] - mean) / deviation)
    truth = area.validation_label[area.validation_label >= 0]
    drawn_shares = shares_drawn(area)
    weight = torch.from_numpy(area.class_counts.astype(np.float32) ** -BALANCE)
    rng = np.random.default_rng(seed)
    if steps is None:
        steps = min(_STEPS, ceil(_PASSES * len(x) / _BATCH))

    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the first weights and of dropout
        network = _network(x.shape[1], len(weight))

        def loss() -> Tensor:
            some = torch.from_numpy(rng.integers(len(x), size=_BATCH))
            return F.cross_entropy(network(x[some]), y[some], weight)

        def validation_kappa() -> float:
            return kappa_at_tau_1(network(held).numpy().T, truth, area, drawn_shares)

        train(network, Recipe(steps, 3e-3, 0.01), loss, validation_kappa if area.has_validation else None)
    return MLP(network, mean, deviation, bands, drawn_shares)


def _network(inputs: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in (128, 64):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.2)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
