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
from typing import NamedTuple, Protocol, Union

import torch
from torch import Tensor


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


Places = Union[Targets, Rectangle]  # noqa: UP007


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


class Masks(Protocol):
    """The masks of an attention for many patches of g × g cells."""

    def __call__(self, pooled: Tensor, *, side: int) -> Tensor:
        """The central cells (n, side²) of the masks, from mean and maximum over channels (n, g²·2), cell by cell."""
        ...
