"""Both sensors brought to the MS grid, each by a stream of its own; and the network of stage I, which is such streams.

b tiles | B bands of ms, B' of pan | h, w MS pixels | r ratio | c channels of a stream

    ms   (b, B, h, w)      two 3×3 convolutions                                              -> F_ms  (b, c, h, w)
    pan  (b, B', h·r, w·r) one 3×3 convolution at its own resolution, then one of stride f
                           and kernel f + 2 for every prime factor f of the ratio            -> F_pan (b, c, h, w)

each behind its attention. Kernels lie evenly about the cells that they make, so that flips and turns move all alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architecture import Layout, TileArchitecture
from .backbone import ConvUnit, normalised
from .parts import Attention, Parts

FINEST = 8  # PAN pixels per MS pixel and axis at which PAN is looked at


class Down(nn.Module):
    """Convolution of stride f and kernel f + 2, BatchNorm, ReLU: (b, c_in, h·f, w·f) -> (b, c_out, h, w)."""

    def __init__(self, c_in: int, c_out: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, factor + 2, factor, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(normalised(self.conv, self.norm, x))


class Stream(NamedTuple):
    """What a stream says of one sensor. depths: its maps, finest first; attended: F, on the MS grid."""

    depths: list[Tensor]
    attended: Tensor


class Streams(nn.Module):
    """Both streams. MS and PAN differ in which part of DIA is damped."""

    def __init__(self, config: TileArchitecture, layout: Layout, parts: Parts) -> None:
        super().__init__()
        c = config.stream
        self.ms = nn.ModuleList([unit(layout.ms_bands, c), unit(c, c)])
        widths = [layout.pan_bands, *pan_widths(config, layout.ratio)]
        self.pan = nn.ModuleList(
            unit(c_in, c_out) if stride == 1 else Down(c_in, c_out, stride)
            for c_in, c_out, stride in zip(widths[:-1], widths[1:], pan_strides(layout.ratio), strict=True)
        )
        made = config.attention == "dia"
        self.attention_ms: Attention | None = parts.attention(0.4, 0.1) if made else None
        self.attention_pan: Attention | None = parts.attention(0.1, 0.4) if made else None

    def forward(self, ms: Tensor, pan: Tensor) -> tuple[Stream, Stream]:
        return _through(self.ms, self.attention_ms, ms), _through(self.pan, self.attention_pan, pan)


def _through(units: nn.ModuleList, attention: Attention | None, x: Tensor) -> Stream:
    depths = []
    for layer in units:
        x = layer(x)
        depths.append(x)
    return Stream(depths, x if attention is None else attention(x))


def unit(c_in: int, c_out: int) -> ConvUnit:
    """3×3 convolution that keeps the size, BatchNorm, ReLU."""
    return ConvUnit(c_in, c_out, stride=1, padding="zeros")


def pan_strides(ratio: int) -> list[int]:
    """PAN pixels a side that become one in each unit of the PAN stream: none at first, then the prime factors of the
    ratio. Above a ratio of 8 the first unit has a stride too, so that a fine PAN costs no more than one of ratio 8;
    sensors of one resolution have two units without.
    """
    factors, divisor, rest, first = [], 2, ratio, 1
    while rest > 1:
        while rest % divisor == 0:
            factors.append(divisor)
            rest //= divisor
        divisor += 1
    while ratio // first > FINEST:
        first *= factors.pop(0)
    return [first, *(factors or [1])]


def pan_widths(config: TileArchitecture, ratio: int) -> list[int]:
    """Channels of the maps of the PAN stream: twice as many with every unit, as many as MS has at the end."""
    steps = len(pan_strides(ratio)) - 1
    return [min(config.stream, config.detail * 2**k) for k in range(steps)] + [config.stream]


class TilePrior(Streams):
    """The network of stage I: F_ms and F_pan of a tile, standardised, of which the prior masks are the σ.

    `mean` and `deviation` (2, c), per sensor and channel, are measured on training tiles at the end of stage I; 0 and
    1, as they begin, leave F as it is.
    """

    def __init__(self, config: TileArchitecture, layout: Layout, parts: Parts) -> None:
        super().__init__(config, layout, parts)
        self.register_buffer("mean", torch.zeros(2, config.stream))
        self.register_buffer("deviation", torch.ones(2, config.stream))
        self.mean: Tensor
        self.deviation: Tensor

    def features(self, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """Tiles -> (F_ms − mean) / deviation (b, c, h, w), the same of PAN."""
        ms_stream, pan_stream = self(ms, pan)
        scale, image = 1 / self.deviation, (-1, 1, 1)
        shift = -self.mean * scale
        standardised = [
            torch.addcmul(b.view(image), x.attended, a.view(image))
            for a, b, x in zip(scale, shift, (ms_stream, pan_stream), strict=True)
        ]
        return standardised[0], standardised[1]
