"""From features to logits: the two heads of the main branch and the decision behind them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architecture import Layout, PatchArchitecture
from .context import Context
from .parts import Parts

CORE = 3  # cells a side around the target that the centre head looks at


class Decision(nn.Module):
    """(n, hidden) -> LayerNorm, ReLU, Dropout, Linear -> logits (n, K)."""

    def __init__(self, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(F.relu(self.norm(x))))
        return logits


class FlattenHead(nn.Module):
    """The published fusion: flatten(F'_ms + F'_pan) -> Linear -> (n, hidden); or another fusion than the sum.

    Flattened cell by cell, the channels of a cell side by side: a sum over cells, each with its part of the weights.
    """

    def __init__(self, config: PatchArchitecture, parts: Parts) -> None:
        super().__init__()
        self.cells = config.cells**2
        self.fuse = parts.fuse(config.widths[-1])
        self.linear = nn.Linear(config.widths[-1] * self.cells, config.hidden)

    def forward(self, f_ms: Iterable[Tensor], f_pan: Iterable[Tensor]) -> Tensor:
        """Cells of patches, (*p, c) each -> (n, hidden)."""
        hidden: Tensor = self.linear.bias
        weight = self.linear.weight.view(len(hidden), self.cells, -1).unbind(1)
        for own, ms, pan in zip(weight, f_ms, f_pan, strict=True):
            fused = self.fuse(*(f.flatten(0, -2)[:, :, None, None] for f in (ms, pan))).flatten(1)
            if torch.is_autocast_enabled(fused.device.type):  # products in bf16, their sum in float32
                hidden = hidden + fused @ own.T
            else:
                hidden = torch.addmm(hidden, fused, own.T)
        return hidden


class CentreHead(nn.Module):
    """What lies at the target pixel counts most: the centre cell and the full-resolution tap of both sensors, mean and
    deviation of the 3×3 cells around it, and context statistics of the inputs -> Linear -> (n, hidden).
    """

    def __init__(self, config: PatchArchitecture, layout: Layout) -> None:
        super().__init__()
        self.context = Context(layout.ms_bands, layout.pan_bands, hidden=config.hidden)
        first, last = config.widths[0], config.widths[-1]
        self.linear = nn.Linear(2 * (3 * last + first) + config.hidden, config.hidden)

    def forward(
        self, f_ms: Iterable[Tensor], f_pan: Iterable[Tensor], tap_ms: Tensor, tap_pan: Tensor, statistics: Tensor
    ) -> Tensor:
        """The 3×3 cells around targets, (*p, c) each, taps (*p, c_1) and statistics (n, f) -> (n, hidden)."""
        parts = [tap_ms, tap_pan, *_moments(f_ms), *_moments(f_pan)]
        context = self.context(statistics).view(*tap_ms.shape[:-1], -1)
        hidden: Tensor = self.linear(torch.cat([*parts, context], dim=-1).flatten(0, -2))
        return hidden


def _moments(cells: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The one in the middle, mean and deviation of 3×3 cells (*p, c), which are read once, one after the other.

    Summed in float32 at least: of near values, squares rounded to bf16 leave nothing when the mean is taken off.
    """
    rest = iter(cells)
    middle = total = next(rest)
    total = total.to(torch.promote_types(total.dtype, torch.float32))
    squares = total * total
    for k, cell in enumerate(rest, start=1):
        total, squares = total + cell, torch.addcmul(squares, cell.to(total.dtype), cell.to(total.dtype))
        middle = cell if k == CORE**2 // 2 else middle
    mean = total / CORE**2
    return middle, mean, (squares / CORE**2 - mean * mean).clamp_min(0).add(1e-3).sqrt()
