"""Which values of a mask hide a pixel: all but 0, or those of a classification, or those with certain bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError

BIT_TYPES = "uint8", "int8", "uint16", "int16"  # pixels are read as float32, which holds these exactly


@dataclass(frozen=True)
class MaskRule:
    """values: those that hide, as of Sentinel-2's SCL. bits: any of which hides, 0 the lowest, as of QA_PIXEL.

    With neither, all but 0 hides; with both, either. InputError for what is no value or no bit.
    """

    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if any(not 0 <= bit < 16 for bit in self.bits):
            raise InputError(f"mask bits are {list(self.bits)}; they count from 0, the lowest, and must lie in 0..15")

    @classmethod
    def of(cls, values: Sequence[int] | None = None, bits: Sequence[int] | None = None) -> MaskRule:
        return cls(tuple(values or ()), tuple(bits or ()))

    @property
    def is_plain(self) -> bool:
        """All but 0 hides."""
        return not self.values and not self.bits

    def hides(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where (h, w) values hide a pixel."""
        if self.is_plain:
            return np.asarray(values != 0)
        hidden = np.isin(values, self.values)
        if self.bits:
            hidden |= (values.astype(np.int64) & sum(1 << bit for bit in set(self.bits))) != 0
        return hidden

    def __str__(self) -> str:
        parts = [("values", self.values), ("bits", self.bits)]
        return " and ".join(f"{what} {', '.join(map(str, given))}" for what, given in parts if given) or "all but 0"


PLAIN = MaskRule()
