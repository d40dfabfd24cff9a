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

from adcdnet.nn.dia import DeformableInteractiveAttention, scale_gradient


class Targets(NamedTuple):
    """Pixels of a batch of tiles to classify: index of the tile, row and column in it, each (n,) int64."""

    tile: Tensor
    row: Tensor
    col: Tensor


def gather(x: Tensor, targets: Targets, *, side: int, step: int, reach: int) -> Tensor:
    """Values (n, c, side, side) around each target, `step` positions apart, from maps (b, c, h, w).

    reach: by how many positions the maps begin before the first target row and column of a tile.
    """
    _, c, h, w = x.shape
    offset = torch.arange(side, device=x.device) * step + reach - (side - 1) * step // 2
    row = (targets.tile * h + targets.row)[:, None] + offset  # (n, side)
    index = row[:, :, None] * w + (targets.col[:, None] + offset)[:, None, :]  # (n, side, side)
    flat = x.permute(0, 2, 3, 1).reshape(-1, c)
    return flat.index_select(0, index.flatten()).view(-1, side, side, c).permute(0, 3, 1, 2)


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
    """DIA's masks for many patches of g × g cells: each of its 3×3 convolutions written as one small matrix.

    Equal to `DeformableInteractiveAttention.mask_of`. Thousands of 9×9 maps of one channel are the worst case of a
    convolution library and an easy one for a matrix product. Gradients reach the weights of `dia`.
    """

    def __init__(self, dia: DeformableInteractiveAttention, g: int) -> None:
        half = (g + 1) // 2
        self.dia, self.g, self.half = dia, g, half
        self.down_avg, self.down_max = _matrix(dia.down_avg, g), _matrix(dia.down_max, g)  # (g², half²)
        self.gate_avg, self.gate_max = _matrix(dia.gate_avg, half), _matrix(dia.gate_max, half)
        self.mask = _matrix(dia.mask, half)  # (2·half², half²)

    def __call__(self, mean: Tensor, maximum: Tensor, *, core: int) -> Tensor:
        """The central core × core of the masks, (n, 1, core, core), from (n, 1, g, g) maps of mean and maximum."""
        dia, g = self.dia, self.g
        avg = _affine(mean.flatten(1), self.down_avg, dia.down_avg)  # (n, half²)
        top = _affine(maximum.flatten(1), self.down_max, dia.down_max)
        gate_avg = torch.sigmoid(_affine(scale_gradient(avg, dia.global_scale), self.gate_avg, dia.gate_avg))
        gate_max = torch.sigmoid(_affine(scale_gradient(top, dia.local_scale), self.gate_max, dia.gate_max))
        # which mixed value each cell of the core shows after nearest upsampling, as the interpolation itself has it
        number = torch.arange(self.half**2, dtype=torch.float32, device=mean.device).view(1, 1, self.half, self.half)
        trim = (g - core) // 2
        shown = F.interpolate(number, size=(g, g), mode="nearest")[0, 0, trim : g - trim, trim : g - trim]
        needed, place = torch.unique(shown.flatten().long(), return_inverse=True)
        mixed = _affine(torch.cat((gate_avg * top, gate_max * avg), dim=1), self.mask[:, needed], dia.mask)
        return torch.sigmoid(mixed)[:, place].view(-1, 1, core, core)


def _matrix(conv: nn.Conv2d, side: int) -> Tensor:
    """A convolution of one output channel on side × side maps without its bias, (channels·side², positions): its
    answer to each input being 1 and the others 0."""
    inputs = conv.in_channels * side * side
    ones = torch.eye(inputs, dtype=conv.weight.dtype, device=conv.weight.device)
    ones = ones.view(inputs, conv.in_channels, side, side)
    return F.conv2d(ones, conv.weight, None, conv.stride, conv.padding).flatten(1)


def _affine(x: Tensor, matrix: Tensor, conv: nn.Conv2d) -> Tensor:
    return x @ matrix if conv.bias is None else x @ matrix + conv.bias
