"""What is kept of one window of a scene: its logits, sums over its bands, and which pixels it was made of."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adcdnet.geo.grid import Window
from adcdnet.geo.scene import Pixels


@dataclass(frozen=True)
class BandSums:
    """Of valid pixels. ms (B,), pan (B',): sums of each band. counts: how many of both images."""

    ms: NDArray[np.float64]
    pan: NDArray[np.float64]
    counts: tuple[int, int]

    @classmethod
    def of(cls, pixels: Pixels) -> BandSums:
        ms = pixels.ms[:, pixels.ms_valid].sum(1, dtype=np.float64)
        pan = pixels.pan[:, pixels.pan_valid].sum(1, dtype=np.float64)
        return cls(ms, pan, (int(pixels.ms_valid.sum()), int(pixels.pan_valid.sum())))

    def __add__(self, other: BandSums) -> BandSums:
        counts = self.counts[0] + other.counts[0], self.counts[1] + other.counts[1]
        return BandSums(self.ms + other.ms, self.pan + other.pan, counts)


@dataclass(frozen=True)
class Tile:
    """logits (K, h, w): nan where invalid. sums: of the window without its halo. seen: `checksum` of all pixels that
    the logits were made of."""

    logits: NDArray[np.float32]
    sums: BandSums
    seen: int

    def to_bytes(self) -> bytes:
        content, sums = io.BytesIO(), self.sums
        numbers = np.array([*sums.counts, self.seen], np.int64)
        np.savez(content, logits=self.logits, ms=sums.ms, pan=sums.pan, numbers=numbers)
        return content.getvalue()

    @classmethod
    def of_bytes(cls, content: bytes) -> Tile:
        """ValueError where it is damaged."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                logits = np.asarray(kept["logits"], np.float32)
                ms, pan = (np.asarray(kept[name], np.float64) for name in ("ms", "pan"))
                ms_count, pan_count, seen = (int(number) for number in kept["numbers"])
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError("a damaged tile") from error
        return cls(logits, BandSums(ms, pan, (ms_count, pan_count)), seen)


class Tiles(Protocol):
    """Where tiles of one prediction are kept. Methods raise InputError where reading or writing fails."""

    def find(self, window: Window, seen: int) -> Tile | None:
        """The tile of a window, if there is one, and it was made of pixels of this checksum."""

    def keep(self, window: Window, tile: Tile) -> None:
        """Durably."""


def checksum(pixels: Pixels) -> int:
    """Of all values of a window and where they are valid."""
    known = 0
    for part in pixels:
        known = zlib.crc32(np.ascontiguousarray(part).data, known)
    return known


def name_of(window: Window) -> str:
    """Of the file of a tile."""
    return f"{window.row}_{window.col}_{window.height}_{window.width}.npz"
