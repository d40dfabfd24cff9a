"""How the features of two sensors over the same ground become one: the sum, as published, and what it is compared with.

F_ms, F_pan (n, c, g, g) -> (n, c, g, g)

    sum     F_ms + F_pan
    gate    G·F_ms + (1 − G)·F_pan,  G = σ(conv([F_ms, F_pan]))     1×1, 2c → c: a gate per cell and channel
    concat  conv([F_ms, F_pan])                                     1×1, 2c → c
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

FusionName = Literal["sum", "gate", "concat"]


class Sum(nn.Module):
    """F_ms + F_pan."""

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        return f_ms + f_pan


class Gate(nn.Module):
    """G·F_ms + (1 − G)·F_pan."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        gate = torch.sigmoid(self.conv(torch.cat((f_ms, f_pan), dim=1)))
        return f_pan + gate * (f_ms - f_pan)


class Concatenation(nn.Module):
    """conv([F_ms, F_pan]); no bias, since a Linear that has one follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        fused: Tensor = self.conv(torch.cat((f_ms, f_pan), dim=1))
        return fused


def fusion_of(name: FusionName, channels: int) -> nn.Module:
    """The fusion of that name. ValueError for another name."""
    match name:
        case "sum":
            return Sum()
        case "gate":
            return Gate(channels)
        case "concat":
            return Concatenation(channels)
    raise ValueError(f"fusion is {name!r}; it must be 'sum', 'gate' or 'concat'")
