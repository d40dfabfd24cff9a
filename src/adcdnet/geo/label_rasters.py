"""Rasters of labels, on any grid, as the class of each pixel of the grid that is to be labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.geo.class_lookup import look_up
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window, match
from adcdnet.geo.raster import UNPLACED, RasterReader, is_nodata, same_crs
from adcdnet.geo.shares import majority, overlaps

MOST = 0.5  # of a pixel that the pixels of one class must cover, by default: docs/notes/trials.md
_STRIP = 2**24  # pixels of a raster read at once
_NONE = -1  # in place of a value that is missing
PRODUCT = "labels are a product, not the truth on the ground"  # begins what is said of a raster whose tag names one
_POINTS = 8  # on each axis of a pixel, at which labels in another coordinate system are looked up


def read_raster(
    path: Path, grid: Grid, classes: ClassTable | None, min_share: float | None, nameless: str | None
) -> tuple[NDArray[np.int16], ClassTable, tuple[str, ...]]:
    """Class index (h, w) of the pixels of a grid, −1 where unlabelled, the classes, and notes.

    Arguments and errors as of `read_labels`.
    """
    with RasterReader(path) as raster:
        if raster.count != 1:
            raise InputError(f"{path} has {raster.count} bands; one is needed; extract it, e.g. with gdal_translate -b")
        own = _placed(replace(raster.grid, crs=same_crs(raster.grid.crs, grid.crs)), grid, path)
        declared = raster.nodata is not None and raster.nodata != 0
        named = classes is not None and (0 in classes.codes or "0" in classes.names)
        zero = named or (classes is None and nameless is None and declared)  # is a class
        least = MOST if min_share is None else min_share
        if own.crs == grid.crs and own.is_north_up:
            notes = _how_it_fits(own, grid, path)
            values, covered, zeros = _on(grid, own, raster, least, zero=zero)
        else:
            notes = (
                f"{path.name} is in another coordinate system or turned; each pixel of the scene looks it up at "
                f"{_POINTS}×{_POINTS} points",
            )
            points = grid.refine(_POINTS)
            with raster.looked_up(points) as there:
                values, covered, zeros = _on(grid, points, there, least, zero=zero)
    if product := raster.tags.get("LABEL_PRODUCT"):
        notes += (f"{PRODUCT} ({product}): scores say how well it is repeated",)
    if covered != grid.shape:
        notes += (f"{path.name} covers {covered[0]}×{covered[1]} of the scene's MS pixels",)
    if zeros and declared and not zero:
        notes += (f"{zeros} pixels of {path.name} have the value 0, which is no class here; they are unlabelled",)
    present = [int(value) for value in np.unique(values) if value != _NONE]
    meant = look_up(map(str, present), classes, path.name, nameless=nameless)
    index_of = np.array([meant.index_of[str(value)] for value in present] + [-1], np.int16)
    place = np.searchsorted(np.array(present, np.int32), values)
    index = np.where(values == _NONE, np.int16(-1), index_of[place])
    return index, meant.classes, notes + meant.notes


def _on(
    grid: Grid, own: Grid, raster: RasterReader, least: float, *, zero: bool
) -> tuple[NDArray[np.int32], tuple[int, int], int]:
    """Values (h, w) on a grid, −1 where there is none, of a raster whose grid `own` is north-up and in the same system;
    how many rows and columns of the grid it reaches; and how many zeros it holds there, which are missing unless `zero`
    says that they are a class."""
    col, row = ~own.transform @ (grid.transform.c, grid.transform.f)
    tall, wide = grid.transform.e / own.transform.e, grid.transform.a / own.transform.a
    rows, cols = overlaps(row, tall, grid.height, own.height), overlaps(col, wide, grid.width, own.width)
    if not rows.nnz or not cols.nnz:
        corners = [f"({at.transform.c:.10g}, {at.transform.f:.10g})" for at in (grid, own)]
        raise InputError(
            f"the scene and {raster.path.name} have no ground in common: the one begins at {corners[0]}, the other at "
            f"{corners[1]}; check that both are of the same place and in the same coordinate system"
        )
    left, right = int(cols.indices.min()), int(cols.indices.max()) + 1
    cols = cols[:, left:right]
    values, zeros = np.full(grid.shape, _NONE, np.int32), 0
    strip = max(1, int(_STRIP / (max(1.0, tall) * max(grid.width, right - left))))
    for first in range(0, grid.height, strip):
        some = rows[first : first + strip]
        if some.nnz:
            top, bottom = int(some.indices.min()), int(some.indices.max()) + 1
            fine = _whole_numbers(raster, Window(top, left, bottom - top, right - left))
            zeros += int((fine == 0).sum())
            if not zero:
                fine[fine == 0] = _NONE
            values[first : first + strip] = majority(fine, some[:, top:bottom], cols, least, none=_NONE)
    reached = (int((np.diff(axis.indptr) > 0).sum()) for axis in (rows, cols))
    return values, (next(reached), next(reached)), zeros


def _how_it_fits(own: Grid, grid: Grid, path: Path) -> tuple[str, ...]:
    """What is to be said of a raster whose pixels do not fill those of the scene."""
    if grid.transform.a < 0.99 * own.transform.a:
        return (
            f"pixels of {path.name} ({own.transform.a:.6g} wide) are larger than those that they label "
            f"({grid.transform.a:.6g}); classes end where its pixels end",
        )
    try:
        match(grid, own)
    except InputError:
        return (f"pixel edges of {path.name} do not meet those of the scene; a pixel is labelled by what covers it",)
    return ()


def _placed(own: Grid, grid: Grid, path: Path) -> Grid:
    """The grid of a raster of labels, laid over the grid to be labelled where only its size can say where it lies."""
    if own.transform != UNPLACED:
        if (own.crs is None) != (grid.crs is None):
            without, with_crs = (path.name, "the scene") if own.crs is None else ("the scene", path.name)
            raise InputError(
                f"{with_crs} has a coordinate system and {without} has none; assign the one it is in, e.g. with "
                "gdal_edit -a_srs"
            )
        return own
    refined = grid.refine(max(1, own.height // grid.height))
    if own.shape != refined.shape:
        raise InputError(
            f"{path} does not say where it lies, and its {own.height}×{own.width} pixels are no whole "
            f"multiple of the scene's {grid.height}×{grid.width}; give it a transform, e.g. with gdal_translate "
            "-a_ullr"
        )
    return replace(refined, crs=own.crs)


def _whole_numbers(raster: RasterReader, window: Window) -> NDArray[np.int32]:
    """Values (h, w) of a window as integers, −1 where nothing is."""
    values, path = raster.read(window)[0], raster.path
    missing = is_nodata(values, raster.nodata)
    kept = np.where(missing, 0, values)
    if kept.dtype.kind not in "iuf" or not np.array_equal(kept, np.trunc(kept)):
        raise InputError(f"{path} holds values that are not whole numbers; class values from 1 on are needed")
    if kept.min() < 0 or kept.max() >= 2**31:
        raise InputError(
            f"{path} holds values from {kept.min()} to {kept.max()}; class values must be whole numbers above 0; "
            f"declare others as nodata, e.g. with gdal_edit -a_nodata {kept.min()}"
        )
    numbers: NDArray[np.int32] = np.where(missing, np.int32(_NONE), kept.astype(np.int32))
    return numbers
