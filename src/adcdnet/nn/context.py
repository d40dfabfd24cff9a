"""Context statistics of the inputs around a pixel: what a random forest would be given, as parts of the network.

n tiles | B bands of ms | B' bands of pan | r ratio | h, w coarse pixels

Per coarse pixel: the ms bands; their means and deviations in 3×3 and 7×7 coarse pixels; of its own r×r pan pixels mean,
deviation, minimum, maximum and gradient energy; pan means and deviations in 5×5 and 9×9 coarse pixels, and the gradient
energy in 5×5. All windows are centred on the pixel and 'valid', so neighbours share them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tile_sharing import box_mean

CONTEXT_REACH = 4  # coarse pixels on every side


def _deviation(mean: Tensor, mean_square: Tensor) -> Tensor:
    # inputs are standardised, so 1e-3 keeps the root (and its gradient) calm where a window is flat
    variance = (mean_square - mean.square()).clamp_min(0).add(1e-3)
    if variance.device.type != "cpu":
        return variance.sqrt()
    # on processors its root is the last bit off for one value in five, and trees compare to the last bit
    return variance.double().sqrt().to(variance)


def _window(x: Tensor, side: int) -> Tensor:
    """Mean over side × side positions at every position whose 9×9 neighbourhood lies inside x."""
    trim = CONTEXT_REACH - side // 2
    return box_mean(x[:, :, trim : x.shape[2] - trim, trim : x.shape[3] - trim], side)


def feature_count(ms_bands: int, pan_bands: int) -> int:
    """How many statistics there are of a pixel."""
    return 5 * ms_bands + 10 * pan_bands


def context_statistics(ms: Tensor, pan: Tensor, ratio: int) -> Tensor:
    """ms (n, B, h + 8, w + 8), pan (n, B', (h + 8)·r, (w + 8)·r), standardised -> (n, 5 B + 10 B', h, w)."""
    parts = [_window(ms, 1)]
    for side in (3, 7):
        mean = _window(ms, side)
        parts += [mean, _deviation(mean, _window(ms.square(), side))]
    cell = F.avg_pool2d(pan, ratio)
    square = F.avg_pool2d(pan.square(), ratio)
    # differences to the next fine pixel down and right, inside the coarse pixel where there is one (r > 1)
    down = (pan[:, :, 1:] - pan[:, :, :-1]).square()
    right = (pan[:, :, :, 1:] - pan[:, :, :, :-1]).square()
    energy = F.avg_pool2d(F.pad(down, (0, 0, 0, 1)) + F.pad(right, (0, 1, 0, 0)), ratio)
    parts += [_window(cell, 1), _deviation(_window(cell, 1), _window(square, 1))]
    parts += [_window(-F.max_pool2d(-pan, ratio), 1), _window(F.max_pool2d(pan, ratio), 1), _window(energy, 1)]
    for side in (5, 9):
        mean = _window(cell, side)
        parts += [mean, _deviation(mean, _window(square, side))]
    parts.append(_window(energy, 5))
    return torch.cat(parts, dim=1)


class ContextBranch(nn.Module):
    """Statistics at the targets (n, f) -> two layers -> logits (n, K): a perceptron that classifies by them alone.

    Inputs are standardised, and so nearly are their statistics. While it learns, log ρ is on its last bias: its
    logits are log likelihoods up to a constant, and the network expects the classes as drawn but once.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, 128)
        self.second = nn.Linear(128, 64)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(64, classes)

    def forward(self, statistics: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.first(statistics)))
        logits: Tensor = self.classifier(self.dropout(F.relu(self.second(x))))
        return logits


class Context(nn.Module):
    """Statistics (n, f, h, w) -> BatchNorm -> two layers -> (n, hidden)."""

    def __init__(self, ms_bands: int, pan_bands: int, *, hidden: int) -> None:
        super().__init__()
        self.features = feature_count(ms_bands, pan_bands)
        self.norm = nn.BatchNorm1d(self.features)
        self.first = nn.Linear(self.features, hidden)
        self.second = nn.Linear(hidden, hidden)

    def forward(self, statistics: Tensor) -> Tensor:
        """Statistics at the targets (n, f) -> (n, hidden)."""
        return F.relu(self.second(F.relu(self.first(self.norm(statistics)))))
