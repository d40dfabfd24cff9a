"""Which flips and quarter turns of a training sample keep how its PAN lies on its MS.

Turned around, PAN pixels lie as far above and left of MS edges as they lay below and right before. That is the same
where they lie on the edges. It is the same, too, where they lie half a pixel off and the sample is cut one PAN pixel
further on: so a cut there holds one more PAN row or column before its first, and whichever comes first once turned is
left out. Any other phase allows no flip along its axis. Rows may become columns where both axes have one phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.geo.grid import PHASE_TOLERANCE, same_phase


@dataclass(frozen=True)
class Turning:
    """phase: (row, col), see `grid`. step: targets per MS pixel and axis."""

    phase: tuple[float, float]
    step: int

    @cached_property
    def spare(self) -> tuple[int, int]:
        """Rows and columns of PAN that a cut needs before its first: 1 where MS pixels are targets and PAN lies half a
        pixel off."""
        row, col = (int(self.step == 1 and abs(offset - 0.5) <= PHASE_TOLERANCE) for offset in self.phase)
        return row, col

    @cached_property
    def ways(self) -> list[tuple[int, int]]:
        """Quarter turns, and 1 where the columns are flipped first, that keep the phase; at most 8."""
        row, col = (
            bool(spare) or abs(offset) <= PHASE_TOLERANCE for offset, spare in zip(self.phase, self.spare, strict=True)
        )
        alike = same_phase(self.phase[:1], self.phase[1:]) and self.spare[0] == self.spare[1]
        return [
            (turns, flip)
            for turns in range(4)
            for flip in (0, 1)
            # rows end up flipped by two turns or three; columns by one or two, or by the flip, but not by both
            if (row or turns < 2) and (col or flip == (turns in (1, 2))) and (alike or turns % 2 == 0)
        ]

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """One of the ways, each as likely."""
        if len(self.ways) == 8:
            return int(rng.integers(4)), int(rng.integers(2))
        return self.ways[rng.integers(len(self.ways))]

    def without_spare(self, pan: NDArray[Any], height: int, width: int) -> NDArray[Any]:
        """Turned pan (bands, h, w) of a cut, brought to its size; what is left over behind goes too."""
        top, left = self.spare
        return pan[:, top : top + height, left : left + width]


def turned(x: NDArray[Any], way: Sequence[int]) -> NDArray[Any]:
    """An array (..., h, w) flipped and turned."""
    turns, flip = way
    return np.rot90(x[..., ::-1] if flip else x, turns, axes=(-2, -1))
