"""What neighbouring patches share on a tile, and how the values of one patch are taken from it.

b tiles | n target pixels, *p their shape: (n,) of `Targets`, (rows, columns) of `Rectangle` | c channels
g cells a side of a patch, 2 positions apart

Maps of a tile hold, at every position, the value that position has in any patch that contains it. A patch is then a
regular grid of positions around its target pixel, which are read cell by cell: those of one cell of many targets at
once. Of `Targets`, which lie anywhere, values are gathered; of a `Rectangle` they are slices of the maps, and only
what the masks are made of is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cbam import SpatialAttention
from .dia import DeformableInteractiveAttention, scale_gradient

Attention = DeformableInteractiveAttention | SpatialAttention


class Targets(NamedTuple):
    """Pixels of a batch of tiles to classify: index of the tile, row and column in it, each (n,) int64."""

    tile: Tensor
    row: Tensor
    col: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.tile.shape

    def cells(self, x: Tensor, *, side: int, step: int, reach: int) -> Sequence[Tensor]:
        """The side × side values (*p, c) around each target in maps (b, c, h, w), row by row, `step` positions apart.

        reach: by how many positions the maps begin before the first target row and column of a tile.
        """
        return self._take(x, side, step, reach).unbind(1)

    def windows(self, x: Tensor, *, side: int, step: int, reach: int) -> Tensor:
        """The same, (n, side²·c): those of a target side by side, cell by cell."""
        return self._take(x, side, step, reach).flatten(1)

    def _take(self, x: Tensor, side: int, step: int, reach: int) -> Tensor:
        _, c, h, w = x.shape
        offset = torch.arange(side, device=x.device) * step + reach - (side - 1) * step // 2
        row = (self.tile * h + self.row)[:, None] + offset  # (n, side)
        where = row[:, :, None] * w + (self.col[:, None] + offset)[:, None, :]
        flat = x.permute(0, 2, 3, 1).reshape(-1, c)  # the channels of a position side by side
        return flat.index_select(0, where.flatten()).view(-1, side**2, c)


class Rectangle(NamedTuple):
    """All pixels of some rows and columns of a single tile; its methods are as those of `Targets`."""

    top: int
    left: int
    height: int
    width: int

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.height, self.width))

    def cells(self, x: Tensor, *, side: int, step: int, reach: int) -> Sequence[Tensor]:
        return [plane.permute(1, 2, 0) for plane in self._slices(x, side, step, reach)]

    def windows(self, x: Tensor, *, side: int, step: int, reach: int) -> Tensor:
        return torch.stack(self._slices(x, side, step, reach)).view(side**2 * x.shape[1], -1).T

    def _slices(self, x: Tensor, side: int, step: int, reach: int) -> list[Tensor]:
        first = reach - (side - 1) * step // 2
        tops, lefts = ([start + first + k * step for k in range(side)] for start in (self.top, self.left))
        return [x[0, :, top : top + self.height, left : left + self.width] for top in tops for left in lefts]


Places = Targets | Rectangle


def as_map(cells: Iterable[Tensor], side: int) -> Tensor:
    """Cells (n, c), row by row, -> (n, c, side, side); the channels of a cell lie side by side."""
    together = torch.stack(tuple(cells), dim=1)  # (n, side², c)
    return together.view(-1, side, side, together.shape[-1]).permute(0, 3, 1, 2)


def cells_of(x: Tensor) -> Sequence[Tensor]:
    """Maps (n, c, side, side) -> their cells (n, c), row by row."""
    return x.flatten(2).unbind(2)


def box_mean(x: Tensor, window: int, step: int = 1) -> Tensor:
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
        # columns [a', m'] from rows (cell, [mean, maximum]), as `windows` lays them
        down = _side_by_side(_matrix(dia.down_avg, g), _matrix(dia.down_max, g))
        self.down = down.view(2, g * g, -1).transpose(0, 1).flatten(0, 1), _biases(dia.down_avg, dia.down_max, half)
        # columns [g_m, g_a], each above what it multiplies
        gates = _side_by_side(_matrix(dia.gate_avg, half), _matrix(dia.gate_max, half))
        self.gates = gates.roll(half * half, 1), _biases(dia.gate_max, dia.gate_avg, half)
        self._last: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, pooled: Tensor, *, side: int) -> Tensor:
        """The central cells (n, side²) of the masks, from mean and maximum over channels (n, g²·2), cell by cell."""
        down = torch.addmm(self.down[1], pooled, self.down[0])  # (n, 2·half²)
        heard = down
        if torch.is_grad_enabled():
            avg, top = down.chunk(2, dim=1)
            scales = self.dia.global_scale, self.dia.local_scale
            heard = torch.cat([scale_gradient(v, s) for v, s in zip((avg, top), scales, strict=True)], dim=1)
        gates = torch.sigmoid(torch.addmm(self.gates[1], heard, self.gates[0]))
        if side not in self._last:
            self._last[side] = self._last_convolution(side)
        matrix, bias, place = self._last[side]
        mask = torch.sigmoid(torch.addmm(bias, gates * down, matrix))
        return mask.index_select(1, place)

    def _last_convolution(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Matrix and bias that give the mixed values which the centre shows, and which of them each cell there does."""
        # as nearest upsampling itself has it
        conv, g = self.dia.mask, self.g
        number = torch.arange(self.half**2, dtype=torch.float32, device=conv.weight.device)
        trim = (g - side) // 2
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
        self.matrix = matrix.transpose(0, 1).flatten(0, 1)  # rows (cell, [mean, maximum]), as `windows` lays them

    def __call__(self, pooled: Tensor, *, side: int) -> Tensor:
        """The central cells (n, side²) of the masks, from mean and maximum over channels (n, g²·2), cell by cell."""
        trim = (self.matrix.shape[-1] - side) // 2
        shown = self.matrix[:, trim : trim + side, trim : trim + side].flatten(1)
        return torch.sigmoid(pooled @ shown)


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
