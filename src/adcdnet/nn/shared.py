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


def attention_mask(dia: DeformableInteractiveAttention, pooled: Tensor, *, core: int) -> Tensor:
    """The central core × core of DIA's masks, (n, 1, core, core), from pooled maps (n, 2, g, g): mean and maximum.

    Equal to `dia.mask_of`, with each 3×3 convolution written as one small matrix: thousands of 9×9 maps of one channel
    are the worst case of a convolution library and an easy one for a matrix product.
    """
    g = pooled.shape[-1]
    half = (g + 1) // 2
    avg = _apply(dia.down_avg, pooled[:, 0].flatten(1), g)  # (n, half²)
    top = _apply(dia.down_max, pooled[:, 1].flatten(1), g)
    gate_avg = torch.sigmoid(_apply(dia.gate_avg, scale_gradient(avg, dia.global_scale), half))
    gate_max = torch.sigmoid(_apply(dia.gate_max, scale_gradient(top, dia.local_scale), half))
    # which mixed value each cell of the core shows after nearest upsampling, as the interpolation itself has it
    number = torch.arange(half * half, dtype=torch.float32, device=pooled.device).view(1, 1, half, half)
    trim = (g - core) // 2
    shown = F.interpolate(number, size=(g, g), mode="nearest")[0, 0, trim : g - trim, trim : g - trim].flatten().long()
    needed, place = torch.unique(shown, return_inverse=True)
    mixed = _apply(dia.mask, torch.cat((gate_avg * top, gate_max * avg), dim=1), half, needed)
    return torch.sigmoid(mixed)[:, place].view(-1, 1, core, core)


def _apply(conv: nn.Conv2d, maps: Tensor, side: int, positions: Tensor | None = None) -> Tensor:
    """A convolution of one output channel on flattened maps (n, channels·side²), at all or some output positions."""
    inputs = conv.in_channels * side * side
    # the matrix of a convolution is its answer to each input being 1 and the others 0
    ones = torch.eye(inputs, dtype=conv.weight.dtype, device=conv.weight.device)
    ones = ones.view(inputs, conv.in_channels, side, side)
    matrix = F.conv2d(ones, conv.weight, None, conv.stride, conv.padding).flatten(1)
    if positions is not None:
        matrix = matrix[:, positions]
    return maps @ matrix if conv.bias is None else maps @ matrix + conv.bias
