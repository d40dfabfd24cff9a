"""Dual ResNet-18, the plain baseline of this literature: He, Zhang, Ren and Sun 2016 (arXiv:1512.03385), two trunks.

Patches of 16×16 MS pixels. The stem is a 3×3 convolution of stride 1 and nothing is pooled at the start, as usual for
small images. Deviation: a quarter of the width; training: `patches`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.benchmark.methods.loop import Recipe
from adcdnet.benchmark.methods.patches import PatchMethod
from adcdnet.nn.architecture import Layout


class DualResNet(nn.Module):
    """ms (n, B, 16, 16) and pan (n, B', 16r, 16r) -> logits (n, K).

    width: channels of the first stage; 64 as published.
    """

    def __init__(self, layout: Layout, width: int = 16) -> None:
        super().__init__()
        self.ms, self.pan = _trunk(layout.ms_bands, width), _trunk(layout.pan_bands, width)
        self.classifier = nn.Sequential(
            nn.Linear(16 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, layout.classes)
        )

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.cat([self.ms(ms), self.pan(pan)], dim=1))
        return logits


def _trunk(bands: int, width: int) -> nn.Module:
    """-> (n, 8·width)"""
    stages: list[nn.Module] = []
    channels = width
    for stage in range(4):
        wider, stride = width * 2**stage, 1 if stage == 0 else 2
        stages += [Block(channels, wider, stride), Block(wider, wider, 1)]
        channels = wider
    return nn.Sequential(convolution(bands, width, 3, 1), nn.ReLU(), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Block(nn.Module):
    """y = ReLU(conv(ReLU(conv(x))) + shortcut(x))"""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.change = nn.Sequential(convolution(channels, wider, 3, stride), nn.ReLU(), convolution(wider, wider, 3, 1))
        same = channels == wider and stride == 1
        self.shortcut = nn.Identity() if same else convolution(channels, wider, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.change(x) + self.shortcut(x))


def convolution(channels: int, wider: int, kernel: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(channels, wider, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wider))


DUAL_RESNET = PatchMethod(DualResNet, side=16, batch=32, recipe=Recipe(steps=250, learning_rate=1e-3))
