"""Labels of a scene, from a raster or from polygons, as one class index for each MS pixel of the common extent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.geo.class_lookup import look_up
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Match, Window, match
from adcdnet.geo.polygons import burn
from adcdnet.geo.raster import UNPLACED, RasterReader, is_nodata, is_raster, same_crs
from adcdnet.geo.shapes import holds_points

_STRIP = 2**24  # pixels of a raster read at once
_NONE = -1  # in place of a value that is missing


@dataclass(frozen=True)
class Labels:
    """What is known of a scene.

    index (h, w) int16 on the MS grid of the common extent: class index 0..K-1, −1 where unlabelled.
    polygons (h, w) int32: which polygon of the file, counted from 0, a labelled pixel lies in; −1 in none; None where
    the labels are a raster. notes: what a user should know, one sentence each. path, layer, column: where they were
    read from. contested: pixels in polygons of different classes, which stay unlabelled.
    """

    index: NDArray[np.int16]
    classes: ClassTable
    notes: tuple[str, ...] = ()
    polygons: NDArray[np.int32] | None = None
    path: Path | None = None
    column: str | None = None
    contested: int = 0
    layer: str | None = None

    def coarsen(self, ratio: int) -> Labels:
        """On a grid `ratio` times coarser, each pixel as the one in it whose class is rarest, so that none is lost."""
        h, w = (n // ratio for n in self.index.shape)
        counts = np.bincount(self.index[self.index >= 0], minlength=len(self.classes))
        rank = np.append(counts.argsort(kind="stable").argsort(), len(counts))  # unlabelled pixels, −1, come last

        def cells(x: NDArray[Any]) -> NDArray[Any]:
            return x.reshape(h, ratio, w, ratio).swapaxes(1, 2).reshape(h, w, -1)

        chosen = rank[cells(self.index)].argmin(axis=2)[:, :, None]
        index, *polygons = (
            np.take_along_axis(cells(x), chosen, axis=2)[:, :, 0] for x in (self.index, self.polygons) if x is not None
        )
        return replace(self, index=index, polygons=polygons[0] if polygons else None)


def read_labels(
    path: Path | str,
    grid: Grid,
    *,
    classes: ClassTable | None = None,
    column: str | None = None,
    layer: str | None = None,
    nameless: str | None = None,
) -> Labels:
    """Labels on a grid (of a scene's MS, its PAN or a map), from a raster on it or a finer one, or any polygon file.

    classes: without a table, the values of a raster or the names of polygons, in alphabetical order, are the classes;
    numbers outside 1..255 are numbered 1..K with the number as name. With one, names match names and numbers values.
    column: which column of a polygon file holds the class, chosen by its name where not given; layer: of several.
    nameless: what the labels are for, where that has class values without names: then labels with names are refused.
    A finer raster labels an MS pixel where all its pixels in it are of one class; a polygon labels the MS pixels
    whose centre lies in it, and one between centres the pixel in which most of it lies. Raises InputError.
    """
    path = Path(path)
    if is_raster(path) and not holds_points(path):
        labels = _from_raster(path, grid, classes, nameless)
    else:
        burnt = burn(path, grid, classes, column, layer, nameless)
        labels = Labels(burnt.index, burnt.classes, burnt.notes, burnt.polygons, contested=burnt.contested)
    present = np.unique(labels.index[labels.index >= 0])
    if present.size == 0:
        why = "check that it lies on the same ground"
        if labels.contested:
            why = f"{labels.contested} lie in polygons of different classes; let these not overlap"
        elif labels.polygons is None:
            why = f"{why}, and that its values are classes: of a finer raster all pixels on one must agree"
        raise InputError(f"{path} labels no pixel of the scene; {why}")
    if present.size == 1:
        name = labels.classes.names[present[0]]
        raise InputError(f"{path} labels only the class {name!r} in this scene; two classes at least are needed")
    return replace(labels, path=path, column=column, layer=layer)


def _from_raster(path: Path, grid: Grid, classes: ClassTable | None, nameless: str | None) -> Labels:
    with RasterReader(path) as raster:
        if raster.count != 1:
            raise InputError(f"{path} has {raster.count} bands; one is needed; extract it, e.g. with gdal_translate -b")
        matched = _match(grid, raster.grid, path)
        values = np.concatenate(
            [
                _coarsen(_whole_numbers(raster.read(rows)[0], raster.nodata, path), matched.ratio)
                for rows in _strips(matched.pan, matched.ratio)
            ]
        )
        declared = raster.nodata is not None and raster.nodata != 0
    notes: tuple[str, ...] = ()
    if matched.ms != grid.window:
        notes = (f"{path.name} covers {values.shape[0]}×{values.shape[1]} of the scene's MS pixels",)
    of_table = classes is not None and (0 in classes.codes or "0" in classes.names)
    if not of_table and (classes is not None or nameless is not None or not declared):
        zeros = int((values == 0).sum())
        if zeros and declared:
            notes += (f"{zeros} pixels of {path.name} have the value 0, which is no class here; they are unlabelled",)
        values[values == 0] = _NONE
    present = [int(value) for value in np.unique(values) if value != _NONE]
    meant = look_up(map(str, present), classes, path.name, nameless=nameless)
    index_of = np.array([meant.index_of[str(value)] for value in present] + [-1], np.int16)
    place = np.searchsorted(np.array(present, np.int32), values)
    index = np.full(grid.shape, -1, dtype=np.int16)
    index[matched.ms.slices] = np.where(values == _NONE, np.int16(-1), index_of[place])
    return Labels(index, meant.classes, notes + meant.notes)


def _match(grid: Grid, own: Grid, path: Path) -> Match:
    """Where a raster of labels lies on the grid to be labelled. Raises InputError."""
    if own.transform == UNPLACED:  # nothing but its size can say where it lies
        refined = grid.refine(max(1, own.height // grid.height))
        if own.shape != refined.shape:
            raise InputError(
                f"{path} does not say where it lies, and its {own.height}×{own.width} pixels are no whole "
                f"multiple of the scene's {grid.height}×{grid.width}; give it a transform, e.g. with gdal_translate "
                "-a_ullr"
            )
        own = replace(refined, crs=own.crs)
    if grid.transform.a < 0.9 * own.transform.a:
        raise InputError(
            f"pixels to be labelled ({grid.transform.a:.6g} wide) are smaller than {path.name} pixels "
            f"({own.transform.a:.6g}); labels must be as fine; use finer labels, polygons, or a coarser grid"
        )
    return match(grid, replace(own, crs=same_crs(own.crs, grid.crs)), names=("MS", path.name), tool="gdalwarp")


def _strips(extent: Window, ratio: int) -> Iterator[Window]:
    """An extent in strips of whole MS rows, so that a large raster of fine labels is never held whole."""
    height = ratio * max(1, _STRIP // (ratio * extent.width))
    for row in range(0, extent.height, height):
        yield Window(extent.row + row, extent.col, min(height, extent.height - row), extent.width)


def _whole_numbers(values: NDArray[Any], nodata: float | None, path: Path) -> NDArray[np.int32]:
    """Values as integers, −1 where nothing is."""
    missing = is_nodata(values, nodata)
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


def _coarsen(values: NDArray[np.int32], ratio: int) -> NDArray[np.int32]:
    """(h·ratio, w·ratio) → (h, w): the value where all fine pixels agree, otherwise −1."""
    h, w = values.shape[0] // ratio, values.shape[1] // ratio
    blocks = values.reshape(h, ratio, w, ratio)
    first = blocks[:, 0, :, 0]
    agree = (blocks == first[:, None, :, None]).all(axis=(1, 3))
    return np.where(agree, first, np.int32(_NONE))
