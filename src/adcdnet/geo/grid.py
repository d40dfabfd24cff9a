"""Pixel grids as values: where a raster lies, windows in it, and how a coarse grid lies on a fine one.

Rows grow downwards, columns to the right; windows are half-open; a transform maps pixel *corners* (the centre of pixel
(row, col) is at (col + 0.5, row + 0.5)). `ratio` is the number of fine (pan) pixels per coarse (ms) pixel and axis.

The edges of ms pixels may miss those of pan pixels by a constant part of a pan pixel, the phase (row, col): how far the
ratio × ratio pan pixels that belong to an ms pixel lie below and right of its edges, in pan pixels. It reaches from
−0.25 up to below 0.75: neither 0 (edges meet) nor 0.5 (centres meet, as of Landsat) lies at an end of the range, where
rounding would choose other whole pixels for one file than for the next. Nothing is resampled for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from adcdnet.errors import InputError

MAX_RATIO = 32
_TOLERANCE = 0.01  # in fine pixels: how far grid lines may miss each other and still count as meeting
_LOWEST_PHASE = -0.25
PHASE_TOLERANCE = 0.05  # pan pixels: phases that differ by no more count as one


@dataclass(frozen=True)
class Window:
    """Pixels [row, row + height) × [col, col + width) of some grid; it may reach beyond that grid."""

    row: int
    col: int
    height: int
    width: int

    def grow(self, margin: int) -> Window:
        """The window with `margin` more pixels on every side (fewer, if negative)."""
        return Window(self.row - margin, self.col - margin, self.height + 2 * margin, self.width + 2 * margin)

    def scale(self, ratio: int) -> Window:
        """The same ground on a grid `ratio` times finer."""
        return Window(self.row * ratio, self.col * ratio, self.height * ratio, self.width * ratio)

    def around(self, ratio: int, step: int, phase: Sequence[int]) -> Window:
        """The fine pixels that belong to a window of coarse ones whose targets are of this phase.

        Each coarse pixel holds step × step targets: phase (row, col) in 0..step − 1 says which of them is meant. Where
        targets are fine pixels (step = ratio), the window moves so that each lies at (ratio // 2, ratio // 2) of its
        ratio × ratio pixels: in the middle, or right behind it at an even ratio. With step 1 nothing moves.
        """
        return self.scale(ratio).shift(phase[0] - step // 2, phase[1] - step // 2)

    def shift(self, rows: int, cols: int) -> Window:
        """The window moved down by `rows` and right by `cols`."""
        return Window(self.row + rows, self.col + cols, self.height, self.width)

    def within(self, height: int, width: int) -> Window:
        """The part of the window inside a grid of this size; of size 0 or less where there is none."""
        row, col = max(0, self.row), max(0, self.col)
        bottom, right = min(height, self.row + self.height), min(width, self.col + self.width)
        return Window(row, col, bottom - row, right - col)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices; only meaningful for a window that does not begin before its grid."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


@dataclass(frozen=True)
class Grid:
    """Size, place and coordinate system of a raster. `crs` is WKT or "EPSG:n", or None where the file has none."""

    height: int
    width: int
    transform: Affine
    crs: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def is_north_up(self) -> bool:
        t = self.transform
        return t.b == 0 and t.d == 0 and t.a > 0 and t.e < 0

    @property
    def window(self) -> Window:
        """All of it."""
        return Window(0, 0, self.height, self.width)

    def crop(self, window: Window) -> Grid:
        """The grid of one window; the transform travels with it."""
        return Grid(window.height, window.width, self.transform @ Affine.translation(window.col, window.row), self.crs)

    def refine(self, ratio: int) -> Grid:
        """The grid `ratio` times finer over the same ground."""
        return Grid(self.height * ratio, self.width * ratio, self.transform @ Affine.scale(1 / ratio), self.crs)


def mirror(index: NDArray[np.int64], size: int, *, repeat_edge: bool) -> NDArray[np.int64]:
    """Indices beyond [0, size) folded back into it, as often as needed.

    repeat_edge: ... 1 0 | 0 1 2 ... (symmetric), which keeps a mirrored fine grid on a mirrored coarse one;
    otherwise ... 2 1 | 0 1 2 ... (reflect-101), as the paper profile has it.
    """
    # the sequence repeats after `period`; its second half runs back from `last`
    period, last = (2 * size, 2 * size - 1) if repeat_edge or size == 1 else (2 * size - 2, 2 * size - 2)
    folded: NDArray[np.int64] = np.mod(index, period)
    folded = np.minimum(folded, last - folded)
    return folded


def tiles(height: int, width: int, size: int) -> Iterator[Window]:
    """Windows of at most `size` × `size` that cover (height, width) once, row by row."""
    for row in range(0, height, size):
        for col in range(0, width, size):
            yield Window(row, col, min(size, height - row), min(size, width - col))


@dataclass(frozen=True)
class Match:
    """How an ms grid and a pan grid lie on each other: what both cover, as windows of each.

    phase: how far the pan window lies below and right of the ms one, in pan pixels; see the top of the file.
    """

    ratio: int
    ms: Window
    pan: Window
    phase: tuple[float, float] = (0.0, 0.0)


def same_phase(phase: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two phases are close enough for one model."""
    return max(abs(a - b) for a, b in zip(phase, other, strict=True)) <= PHASE_TOLERANCE + 1e-9


def phase_words(phase: Sequence[float]) -> str:
    """'0.50 rows and 0.50 columns'."""
    return f"{phase[0]:.2f} rows and {phase[1]:.2f} columns"


def match(
    ms: Grid,
    pan: Grid,
    *,
    names: tuple[str, str] = ("MS", "PAN"),
    tool: str = "adcdnet align",
    any_phase: bool = False,
) -> Match:
    """The common extent of two north-up grids, in whole ms pixels; `names` and `tool` are for the error messages.

    any_phase: edges may miss each other, by the phase of the match; otherwise that is 0.

    Coordinate systems are compared as text: give both grids the same spelling of the same system.
    Raises InputError when the coordinate systems differ, the ratio is not a whole number from 1 to 32, the edges of
    ms pixels do not fall on edges of pan pixels where they must, or nothing overlaps.
    """
    coarse, fine = names
    if (ms.crs is None) != (pan.crs is None):
        with_crs, without = (fine, coarse) if ms.crs is None else (coarse, fine)
        raise InputError(
            f"{with_crs} has a coordinate system and {without} has none; both or neither must; "
            f"assign it to {without}, e.g. with gdal_edit -a_srs"
        )
    if ms.crs != pan.crs:
        raise InputError(
            f"{coarse} is in {_crs_name(ms.crs)} and {fine} in {_crs_name(pan.crs)}; one coordinate system is needed; "
            f"reproject {fine} onto the pixel edges of {coarse}, e.g. with {tool}"
        )
    turned = [(name, grid) for name, grid in ((coarse, ms), (fine, pan)) if not grid.is_north_up]
    if turned:
        name, grid = turned[0]
        if tool == "adcdnet align":  # which leaves one of the two as it is
            tool = "gdalwarp, both of them" if len(turned) > 1 else f"{tool}{' --resample ms' * (name == coarse)}"
        raise InputError(
            f"{name} is rotated or not north-up (transform {tuple(grid.transform)[:6]}); warp it to a north-up grid, "
            f"e.g. with {tool}"
        )
    ratio_col, ratio_row = ms.transform.a / pan.transform.a, ms.transform.e / pan.transform.e
    ratio = round(ratio_col)
    # the drift of the fine grid lines over the whole image, not the ratio alone, says whether the grids fit
    drift = max(abs(ratio_col - ratio) * ms.width, abs(ratio_row - ratio) * ms.height)
    if ratio_col < 0.9 and ratio_row < 0.9:
        raise InputError(
            f"{coarse} pixels ({ms.transform.a:.6g} wide) are smaller than {fine} pixels ({pan.transform.a:.6g}); "
            f"{coarse} must be the coarser one; exchange the two"
        )
    if not 1 <= ratio <= MAX_RATIO or drift > 0.1:
        raise InputError(
            f"one {coarse} pixel holds {ratio_col:.6g} × {ratio_row:.6g} {fine} pixels; a whole number "
            f"from 1 to {MAX_RATIO} on both axes is needed; resample one image to fit the other, e.g. with {tool}"
        )
    # where the ms corner lies on the pan grid, in pan pixels
    col, row = ~pan.transform @ (ms.transform.c, ms.transform.f)
    off_row, off_col = row - round(row), col - round(col)
    if max(abs(off_row), abs(off_col)) > _TOLERANCE + drift and not any_phase:
        raise InputError(
            f"{coarse} pixel edges miss {fine} pixel edges by {off_row:+.2f} rows and {off_col:+.2f} columns ({fine} "
            f"pixels); they must meet; shift or resample one image onto the other's grid, e.g. with {tool}"
        )
    middle = ms.transform @ (ms.width // 2, ms.height // 2)
    middle_col, middle_row = ~pan.transform @ middle
    row, row_phase = _whole(row, middle_row - ms.height // 2 * ratio, _TOLERANCE + drift)
    col, col_phase = _whole(col, middle_col - ms.width // 2 * ratio, _TOLERANCE + drift)
    first_row, first_col = max(0, -(row // ratio)), max(0, -(col // ratio))
    stop_row = min(ms.height, (pan.height - row) // ratio)
    stop_col = min(ms.width, (pan.width - col) // ratio)
    if stop_row <= first_row or stop_col <= first_col:
        beyond = ""
        if (ms.crs or "").startswith("GEOG") and abs(ms.transform.c - pan.transform.c) > 180:  # degrees
            beyond = "their longitudes are on either side of 180°; shift one by 360°, e.g. with gdal_edit -a_ullr"
        corners = [f"({grid.transform.c:.10g}, {grid.transform.f:.10g})" for grid in (ms, pan)]
        raise InputError(
            f"{coarse} and {fine} have no ground in common: {coarse} begins at {corners[0]}, {fine} at {corners[1]}; "
            + (beyond or "check that both are of the same place and in the same coordinate system")
        )
    height, width = stop_row - first_row, stop_col - first_col
    return Match(
        ratio,
        Window(first_row, first_col, height, width),
        Window(row + first_row * ratio, col + first_col * ratio, height * ratio, width * ratio),
        (row_phase, col_phase),
    )


def _whole(corner: float, in_middle: float, tolerance: float) -> tuple[int, float]:
    """The pan pixel that the first ms pixel begins with, and the phase; both arguments say where on the pan grid that
    ms pixel begins, one from the corner and one from the middle of the image, where a drift counts half.
    """
    if abs(corner - round(corner)) <= tolerance:
        return round(corner), 0.0
    whole = math.ceil(round(in_middle + _LOWEST_PHASE, 3))
    return whole, round(whole - in_middle, 3)


def _crs_name(crs: str | None) -> str:
    """The name in a WKT string, which comes first in it."""
    named = re.search(r'"([^"]*)"', crs or "")
    return named.group(1) if named else str(crs)
