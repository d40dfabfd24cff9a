"""Arrays with mirrored borders, repeated over finer pixels, or one under another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from adcdnet.geo.grid import mirror
from adcdnet.geo.scene import Pixels

Kind = TypeVar("Kind", bound=np.generic)


def with_border(x: NDArray[Kind], border: int, *, repeat_edge: bool) -> NDArray[Kind]:
    """(bands, h, w) with `border` mirrored pixels on every side."""
    row, col = (mirror(np.arange(-border, n + border), n, repeat_edge=repeat_edge) for n in x.shape[1:])
    return x[:, row[:, None], col[None, :]]


def bordered(pixels: Pixels, border: int, *, repeat_edge: bool = False) -> Pixels:
    """The pixels of a whole scene with so many mirrored MS pixels on every side."""
    fine = border * (pixels.pan_valid.shape[0] // pixels.ms_valid.shape[0])
    return Pixels(
        with_border(pixels.ms, border, repeat_edge=repeat_edge),
        with_border(pixels.pan, fine, repeat_edge=repeat_edge),
        with_border(pixels.ms_valid[None], border, repeat_edge=repeat_edge)[0],
        with_border(pixels.pan_valid[None], fine, repeat_edge=repeat_edge)[0],
    )


def without(pixels: Pixels, ground: NDArray[np.bool_]) -> Pixels:
    """The same with ground (h, w), in MS pixels, that counts as invalid: members see the training mean there."""
    ratio = pixels.pan_valid.shape[0] // pixels.ms_valid.shape[0]
    return pixels._replace(ms_valid=pixels.ms_valid & ~ground, pan_valid=pixels.pan_valid & ~refine(ground, ratio))


def refine(x: NDArray[Any], ratio: int) -> NDArray[Any]:
    """Every coarse value (..., h, w) repeated over its fine pixels."""
    return x.repeat(ratio, -2).repeat(ratio, -1)


def stack(arrays: Sequence[NDArray[Any]], *, gap: int, fill: float) -> NDArray[Any]:
    """Arrays (..., h, w) of any h and w one under another, `gap` rows apart; `fill` in gaps and beside narrow ones."""
    width = max(array.shape[-1] for array in arrays)
    parts = []
    for k, array in enumerate(arrays):
        below = gap if k < len(arrays) - 1 else 0
        beside = [(0, 0)] * (array.ndim - 2) + [(0, below), (0, width - array.shape[-1])]
        parts.append(np.pad(array, beside, constant_values=fill))
    return np.concatenate(parts, axis=-2)
