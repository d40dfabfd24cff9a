"""Two-branch CNN: Gaetano, Ienco, Ose and Cresson 2018, Remote Sensing 10(11), 1746.

Patches of 8×8 MS pixels. PAN: three 3×3 convolutions without padding, pooled on the way; MS: three more; each branch
ends in the maximum over its patch.
Deviation: the source has ratio 4 and pools PAN twice; at other ratios PAN is pooled as often as brings it near MS, at
most twice. The published rate of 2e-4 is for many epochs; for few steps it is five times that.
Training: `patches`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adcdnet.benchmark.methods.loop import Recipe
from adcdnet.benchmark.methods.patches import PatchMethod
from adcdnet.nn.architecture import Layout


class TwoBranchCNN(nn.Module):
    """ms (n, B, 8, 8) and pan (n, B', 8r, 8r) -> logits (n, K)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        poolings = min(2, math.ceil(math.log2(layout.ratio)))
        self.ms = _branch(layout.ms_bands, (256, 512, 1024), poolings=0)
        self.pan = _branch(layout.pan_bands, (128, 256, 512), poolings=poolings)
        self.classifier = nn.Sequential(nn.Dropout(0.4), nn.Linear(1024 + 512, layout.classes))

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.cat([self.ms(ms), self.pan(pan)], dim=1))
        return logits


def _branch(channels: int, widths: tuple[int, ...], *, poolings: int) -> nn.Module:
    layers: list[nn.Module] = []
    for depth, width in enumerate(widths):
        layers += [nn.Conv2d(channels, width, 3), nn.ReLU(), nn.BatchNorm2d(width)]
        if depth < poolings:
            layers.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())


TWO_BRANCH_CNN = PatchMethod(TwoBranchCNN, side=8, batch=64, recipe=Recipe(steps=100, learning_rate=1e-3))
