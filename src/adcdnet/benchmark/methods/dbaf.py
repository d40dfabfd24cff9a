"""DBAF-Net: Zhu, Ma, Li, Jiao, Yang and Hou 2020, Information Fusion 58, 116-131.

n pixels | c channels | r ratio
MS asks which channels matter, PAN which places; both meet as 64 maps of 16×16 and are added.

    channel attention   y = x·σ(W₂ ReLU(W₁ mean x))     appended twice, 64 → 128 → 256, then a third to 64
    hour-glass          y = (1 + M)·T,  M = σ(conv(up(block(up(block(block(x↓)↓)) + block(x↓)))))   one mask for all c
                        T = block(x); ↓ halves by the maximum, up doubles
    PAN                 hour-glasses of 16, 32 and 64 channels at 64, 32 and 16 pixels a side

Patches of 16×16 MS pixels. Open in our description, and chosen here: what a block is (that of ResNet), how deep an
hour-glass goes (two halvings), 8 groups in the bottleneck, a quarter of the channels inside an attention, the maximum
over 2×2 before the Linears, and their widths 768 and 64, which make up the published 4.28 million parameters but for
half a per cent.
Deviation: at ratios other than 4 the sides between PAN's hour-glasses are 16·⌈r/2⌉ and 16. Training: `patches`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.benchmark.methods.loop import Recipe
from adcdnet.benchmark.methods.patches import PatchMethod
from adcdnet.benchmark.methods.resnet import Block, convolution
from adcdnet.nn.architecture import Layout

_SIDE = 16
_C = 64  # channels where the sensors meet


class DBAFNet(nn.Module):
    """ms (n, B, 16, 16) and pan (n, B', 16r, 16r) -> logits (n, K)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.ms = nn.Sequential(
            convolution(layout.ms_bands, _C, 3, 1),
            nn.ReLU(),
            _Bottleneck(_C),
            _Appended(_C),
            _Appended(2 * _C),
            _ChannelAttention(4 * _C, _C),
        )
        between = _SIDE * -(-layout.ratio // 2)
        self.pan = nn.Sequential(
            convolution(layout.pan_bands, 16, 3, 1),
            nn.ReLU(),
            _HourGlass(16),
            nn.AdaptiveMaxPool2d(between),
            convolution(16, 32, 3, 1),
            nn.ReLU(),
            _HourGlass(32),
            nn.AdaptiveMaxPool2d(_SIDE),
            convolution(32, _C, 3, 1),
            nn.ReLU(),
            _HourGlass(_C),
        )
        self.fused = nn.Sequential(_HourGlass(_C), nn.MaxPool2d(2), nn.Flatten())
        self.classifier = nn.Sequential(
            nn.Linear(_C * (_SIDE // 2) ** 2, 768),
            nn.ReLU(),
            nn.Linear(768, 64),
            nn.ReLU(),
            nn.Linear(64, layout.classes),
        )

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.fused(self.ms(ms) + self.pan(pan)))
        return logits


class _Bottleneck(nn.Module):
    """y = ReLU(x + conv(ReLU(grouped conv(ReLU(conv(x))))))"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=8, bias=False)
        self.change = nn.Sequential(
            convolution(channels, channels, 1, 1),
            nn.ReLU(),
            grouped,
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            convolution(channels, channels, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.change(x))


class _ChannelAttention(nn.Module):
    """A 3×3 convolution whose channels are weighed by what their means say: (n, c, h, w) -> (n, wider, h, w)."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.features = nn.Sequential(convolution(channels, wider, 3, 1), nn.ReLU())
        self.weight = nn.Sequential(nn.Linear(wider, wider // 4), nn.ReLU(), nn.Linear(wider // 4, wider), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        weighed: Tensor = x * self.weight(x.mean((2, 3)))[:, :, None, None]
        return weighed


class _Appended(nn.Module):
    """x (n, c, h, w) with its channel attention after it, (n, 2c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = _ChannelAttention(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.attention(x)], dim=1)


class _HourGlass(nn.Module):
    """(n, c, h, w) -> the same, h and w from 4 on. Formula: top of file."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk, self.at_half, self.at_quarter, self.rise = (Block(channels, channels, 1) for _ in range(4))
        self.mask = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.at_half(F.max_pool2d(x, 2))
        quarter = self.at_quarter(F.max_pool2d(half, 2))
        risen = self.rise(F.interpolate(quarter, size=half.shape[-2:], mode="nearest") + half)
        mask = torch.sigmoid(self.mask(F.interpolate(risen, size=x.shape[-2:], mode="nearest")))
        weighed: Tensor = (1 + mask) * self.trunk(x)
        return weighed


DBAF = PatchMethod(DBAFNet, side=_SIDE, batch=32, recipe=Recipe(steps=150, learning_rate=1e-3))
