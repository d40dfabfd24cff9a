"""A small U-Net (Ronneberger et al., arXiv:1505.04597) with places for spatial attentions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attention = Callable[[], nn.Module]


def level(channels: int, out: int, attention: Attention) -> nn.Sequential:
    """Two 3×3 convolutions, the attention behind the last normalisation: (b, c, h, w) -> (b, out, h, w)."""
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), attention(), nn.ReLU(),
    )  # fmt: skip


class SmallUNet(nn.Module):
    """Three levels down, two up; depths() gives the outputs of all five, forward the logits (b, K, h, w).

    at_ends: the attention at the end of each level. beside: that on what passes beside, from down to up.
    h and w must be multiples of 4.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        at_ends: Attention = nn.Identity,
        beside: Attention = nn.Identity,
        width: int = 8,
    ) -> None:
        super().__init__()
        self.widths = (width, 2 * width, 4 * width, 2 * width, width)
        first, second, bottom = self.widths[:3]
        self.down = nn.ModuleList(level(a, b, at_ends) for a, b in ((bands, first), (first, second), (second, bottom)))
        self.up = nn.ModuleList(level(a, b, at_ends) for a, b in ((bottom + second, second), (second + first, first)))
        self.beside = nn.ModuleList((beside(), beside()))
        self.classifier = nn.Conv2d(first, classes, 1)

    def depths(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for k, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if k else x)
            found.append(x)
        for up, beside, fine in zip(self.up, self.beside, (found[1], found[0]), strict=True):
            x = up(torch.cat((F.interpolate(x, scale_factor=2.0, mode="nearest"), beside(fine)), dim=1))
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.depths(x)[-1])
        return logits
