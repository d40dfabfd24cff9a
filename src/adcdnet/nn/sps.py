"""Semantic perceptual self-supervision, the loss of stage I (ADCD-Net, IEEE TGRS 2025).

b batch | c channels | n samples | d dimensions
F_ms, F_pan deep features (b, c, h, w) of the two sensors over the same ground

    x_1 = conv_1(2F − 1),  x_k = conv_k(x_{k−1}),   level_k = ReLU(x_k) / (‖ReLU(x_k)‖ + 1e-10)
    loss = mean_b Σ_k mean_space Σ_channels (level_k(F_ms) − level_k(F_pan))²          each term in [0, 2]

Deviation: `spread_loss` is added by the caller. The distance alone has no negatives and may collapse (measured: with
the metric frozen, effective rank 7.4 → 2.7); the term keeps variance and decorrelation as VICReg does
(Bardes, Ponce, LeCun 2022, arXiv:2105.04906).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MetricNet(nn.Module):
    """Three bias-free 3×3 convolutions (c→c, c→2c, 2c→2c; strides 1, 1, 2) shared by both sensors."""

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, 1, 1, bias=False)
        self.conv3 = nn.Conv2d(2 * channels, 2 * channels, 3, 2, 1, bias=False)

    def levels(self, features: Tensor) -> list[Tensor]:
        """Features (b, c, h, w) -> three maps of unit channel vectors. The ReLU is not passed on to the next level."""
        x, levels = 2 * features - 1, []
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv(x)
            y = F.relu(x)
            levels.append(y / (y.norm(dim=1, keepdim=True) + 1e-10))
        return levels

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        """The distance of each sample and level, (b, 3); `sps_loss` sums and averages it."""
        pairs = zip(self.levels(f_ms), self.levels(f_pan), strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs], dim=1)


def sps_loss(metric: MetricNet, f_ms: Tensor, f_pan: Tensor) -> Tensor:
    """Scalar: levels summed, mean over the batch."""
    per_level: Tensor = metric(f_ms, f_pan)
    return per_level.sum(1).mean()


def spread_loss(features: Tensor) -> Tensor:
    """Variance hinge (standard deviation below 1) plus squared off-diagonal covariance of vectors (n, d); scalar."""
    n, d = features.shape
    centred = features - features.mean(0)
    deviation = (centred.square().sum(0) / (n - 1) + 1e-4).sqrt()
    covariance = centred.T @ centred / (n - 1)
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return F.relu(1 - deviation).mean() + off_diagonal / d


def effective_rank(features: Tensor) -> float:
    """exp(entropy of the normalised singular values) of centred vectors (n, d): 1 (collapsed) to min(n, d).

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007. All vectors equal gives 0.
    """
    singular = torch.linalg.svdvals((features - features.mean(0)).double())
    total = singular.sum()
    if total <= 1e-12 * max(1.0, float(features.abs().max())):
        return 0.0
    share = singular / total
    return float(torch.exp(-(share * share.clamp_min(1e-30).log()).sum()))
