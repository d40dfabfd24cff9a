"""A small residual network (He et al., arXiv:1512.03385) with a place for a spatial attention in each block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Attention = Callable[[], nn.Module]


class Block(nn.Module):
    """Two 3×3 convolutions, the attention, and the way past them: (b, c, h, w) -> (b, out, h/stride, w/stride)."""

    def __init__(self, channels: int, out: int, stride: int, attention: Attention) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            attention(),
        )
        self.past = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.past(x))


class SmallResNet(nn.Module):
    """Three blocks; depths() gives their outputs, forward the logits of the usual head on the last one."""

    def __init__(self, bands: int, classes: int, attention: Attention = nn.Identity, width: int = 8) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(bands, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            Block(before, after, 2, attention) for before, after in zip((width, *widths[:2]), widths, strict=True)
        )
        self.classifier = nn.Linear(widths[-1], classes)

    def depths(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.depths(x)[-1].mean((2, 3)))
        return logits
