"""What neighbouring patches share on a tile, and how the values of one patch are taken from it.

b tiles | n target pixels | c channels | g cells a side of a patch, 2 positions apart

Maps of a tile hold, at every position, the value that position has in any patch that contains it. A patch is then a
regular grid of positions around its target pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.nn.cbam import SpatialAttention
from adcdnet.nn.dia import DeformableInteractiveAttention, scale_gradient

Attention = DeformableInteractiveAttention | SpatialAttention


class Targets(NamedTuple):
    """Pixels of a batch of tiles to classify: index of the tile, row and column in it, each (n,) int64."""

    tile: Tensor
    row: Tensor
    col: Tensor


def positions(targets: Targets, size: torch.Size, *, side: int, step: int, reach: int) -> Tensor:
    """Where the side × side values around each target lie in maps of `size` (b, c, h, w), `step` positions apart.

    (n, side, side) int64, counting rows of (b, h, w). reach: by how many positions the maps begin before the first
    target row and column of a tile.
    """
    _, _, h, w = size
    offset = torch.arange(side, device=targets.tile.device) * step + reach - (side - 1) * step // 2
    row = (targets.tile * h + targets.row)[:, None] + offset  # (n, side)
    return row[:, :, None] * w + (targets.col[:, None] + offset)[:, None, :]


def take(x: Tensor, where: Tensor) -> Tensor:
    """Values (n, c, side, side) of maps (b, c, h, w) at `positions`; the channels of a position lie side by side."""
    flat = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return flat.index_select(0, where.flatten()).view(*where.shape, -1).permute(0, 3, 1, 2)


def gather(x: Tensor, targets: Targets, *, side: int, step: int, reach: int) -> Tensor:
    """`take` at `positions`, for maps that nobody else is read from."""
    return take(x, positions(targets, x.shape, side=side, step=step, reach=reach))


def box_mean(x: Tensor, window: int, step: int) -> Tensor:
    """Mean over window × window values that lie `step` positions apart; 'valid'."""
    for axis in (2, 3):
        length = x.shape[axis] - (window - 1) * step
        total = x.narrow(axis, 0, length)
        for k in range(1, window):
            total = total + x.narrow(axis, k * step, length)
        x = total / window
    return x


class MaskOperator:
    """DIA's masks for many patches of g × g cells: each pair of its 3×3 convolutions written as one small matrix.

    Equal to `DeformableInteractiveAttention.mask_of`. Thousands of 9×9 maps of one channel are the worst case of a
    convolution library and an easy one for a matrix product. Gradients reach the weights of `dia`.
    """

    def __init__(self, dia: DeformableInteractiveAttention, g: int) -> None:
        half = (g + 1) // 2
        self.dia, self.g, self.half = dia, g, half
        # columns [a', m'] from rows (cell, [mean, maximum]), as `take` lays them
        down = _side_by_side(_matrix(dia.down_avg, g), _matrix(dia.down_max, g))
        self.down = down.view(2, g * g, -1).transpose(0, 1).flatten(0, 1), _biases(dia.down_avg, dia.down_max, half)
        # columns [g_m, g_a], each above what it multiplies
        gates = _side_by_side(_matrix(dia.gate_avg, half), _matrix(dia.gate_max, half))
        self.gates = gates.roll(half * half, 1), _biases(dia.gate_max, dia.gate_avg, half)
        self._last: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, pooled: Tensor, *, core: int) -> Tensor:
        """The central (n, 1, core, core) of the masks, from mean and maximum over channels (n, 2, g, g)."""
        down = torch.addmm(self.down[1], pooled.permute(0, 2, 3, 1).flatten(1), self.down[0])  # (n, 2·half²)
        heard = down
        if torch.is_grad_enabled():
            avg, top = down.chunk(2, dim=1)
            scales = self.dia.global_scale, self.dia.local_scale
            heard = torch.cat([scale_gradient(v, s) for v, s in zip((avg, top), scales, strict=True)], dim=1)
        gates = torch.sigmoid(torch.addmm(self.gates[1], heard, self.gates[0]))
        if core not in self._last:
            self._last[core] = self._last_convolution(core)
        matrix, bias, place = self._last[core]
        mask = torch.sigmoid(torch.addmm(bias, gates * down, matrix))
        return mask.index_select(1, place).view(-1, 1, core, core)

    def _last_convolution(self, core: int) -> tuple[Tensor, Tensor, Tensor]:
        """Matrix and bias that give the mixed values which the core shows, and which of them each of its cells does."""
        # as nearest upsampling itself has it
        conv, g = self.dia.mask, self.g
        number = torch.arange(self.half**2, dtype=torch.float32, device=conv.weight.device)
        trim = (g - core) // 2
        shown = F.interpolate(number.view(1, 1, self.half, self.half), size=(g, g), mode="nearest")[0, 0]
        needed, place = torch.unique(shown[trim : g - trim, trim : g - trim].flatten().long(), return_inverse=True)
        # the convolution takes [g_a·m', g_m·a'], here they come the other way round
        matrix = _matrix(conv, self.half).roll(self.half**2, 0)[:, needed]
        bias = matrix.new_zeros(1) if conv.bias is None else conv.bias
        return matrix, bias, place


class ConvolutionMask:
    """CBAM's masks for many patches of g × g cells, its convolution written as one matrix. See `MaskOperator`."""

    def __init__(self, cbam: SpatialAttention, g: int) -> None:
        matrix = _matrix(cbam.conv, g).view(2, g * g, g, g)
        self.matrix = matrix.transpose(0, 1).flatten(0, 1)  # rows (cell, [mean, maximum]), as `take` lays them

    def __call__(self, pooled: Tensor, *, core: int) -> Tensor:
        """The central (n, 1, core, core) of the masks, from mean and maximum over channels (n, 2, g, g)."""
        trim = (self.matrix.shape[-1] - core) // 2
        shown = self.matrix[:, trim : trim + core, trim : trim + core].flatten(1)
        return torch.sigmoid(pooled.permute(0, 2, 3, 1).flatten(1) @ shown).view(-1, 1, core, core)


Masks = MaskOperator | ConvolutionMask


def mask_operator(attention: Attention, g: int) -> Masks:
    """The masks of an attention for many patches of g × g cells."""
    if isinstance(attention, SpatialAttention):
        return ConvolutionMask(attention, g)
    return MaskOperator(attention, g)


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Block-diagonal matrix of two."""
    both: Tensor = torch.block_diag(first, second)  # type: ignore[no-untyped-call]
    return both


def _biases(first: nn.Conv2d, second: nn.Conv2d, half: int) -> Tensor:
    """The biases of two convolutions, each for half × half positions."""
    each = [c.weight.new_zeros(1) if c.bias is None else c.bias for c in (first, second)]
    return torch.cat([b.expand(half * half) for b in each])


def _matrix(conv: nn.Conv2d, side: int) -> Tensor:
    """A convolution of one output channel on side × side maps without its bias, (channels·side², positions): its
    answer to each input being 1 and the others 0."""
    inputs = conv.in_channels * side * side
    ones = torch.eye(inputs, dtype=conv.weight.dtype, device=conv.weight.device)
    ones = ones.view(inputs, conv.in_channels, side, side)
    return F.conv2d(ones, conv.weight, None, conv.stride, conv.padding).flatten(1)
