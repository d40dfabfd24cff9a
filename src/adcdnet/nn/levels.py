"""Encoder and decoder over whole tiles: far sight by few pixels, near sight by skips.

b tiles | w_k channels of level k | cells of level k are 2^(k−1) of the first

    e_1 = two units (x)                       e_k = two units, the first of stride 2 (e_{k−1})      units: 3×3, ReLU
    d_n = e_n                                 d_k = two units ([e_k, d_{k+1} ↑])                    ↑ bilinear, twice

Source: U-Net, Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597). Deviations: strided convolutions for pooling, of
kernel 4 so that they lie evenly about their cell; BatchNorm; bilinear upsampling; few levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .streams import Down, unit


class Levels(nn.Module):
    """x (b, c, h, w) -> d_1 (b, w_1, h, w) and e_1 ... e_n; h and w divisible by 2^(n−1)."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList([_pair(channels, widths[0])])
        for wide, narrow in zip(widths[:-1], widths[1:], strict=True):  # noqa: RUF007
            self.down.append(nn.Sequential(Down(wide, narrow, 2), unit(narrow, narrow)))
        self.up = nn.ModuleList(_pair(a + b, a) for a, b in zip(widths[:-1], widths[1:], strict=True))  # noqa: RUF007

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        encoded: list[Tensor] = []
        for block in self.down:
            x = block(x)
            encoded.append(x)
        for block, skip in zip(reversed(self.up), reversed(encoded[:-1]), strict=True):
            x = block(torch.cat([skip, enlarged(x, 2)], dim=1))
        return x, encoded


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Bilinear, `factor` times as many cells a side."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _pair(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(unit(c_in, c_out), unit(c_out, c_out))
