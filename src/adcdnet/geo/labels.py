"""Labels of a scene, from a raster or from polygons, as one class index for each MS pixel of the common extent."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError
from rasterio.features import rasterize
from shapely.errors import ShapelyError

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Match, Window, match
from adcdnet.geo.raster import UNPLACED, RasterReader, is_nodata, is_raster, same_crs

_COLUMNS = ("class", "class_name", "classname", "label", "land_cover", "landcover", "name")  # in order of preference
_STRIP = 2**24  # pixels of a raster read at once


@dataclass(frozen=True)
class Labels:
    """What is known of a scene.

    index (h, w) int16 on the MS grid of the common extent: class index 0..K-1, −1 where unlabelled.
    polygons (h, w) int32: which polygon of the file, counted from 0, a labelled pixel lies in; −1 in none; None where
    the labels are a raster. notes: what a user should know, one sentence each. path, column: where they were read from.
    contested: pixels in polygons of different classes, which stay unlabelled.
    """

    index: NDArray[np.int16]
    classes: ClassTable
    notes: tuple[str, ...] = ()
    polygons: NDArray[np.int32] | None = None
    path: Path | None = None
    column: str | None = None
    contested: int = 0

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
    path: Path | str, grid: Grid, *, classes: ClassTable | None = None, column: str | None = None
) -> Labels:
    """Labels on a grid (of a scene's MS, its PAN or a map), from a raster on it or a finer one, or any polygon file.

    classes: without a table, the values of a raster or the names of polygons, in alphabetical order, are the classes.
    column: which column of a polygon file holds the class; found by its name where not given.
    A finer raster labels an MS pixel where all its pixels in it are of one class; a polygon labels the MS pixels
    whose centre lies in it. Raises InputError.
    """
    path = Path(path)
    labels = _from_raster(path, grid, classes) if is_raster(path) else _from_polygons(path, grid, classes, column)
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
    return replace(labels, path=path, column=column)


def _from_raster(path: Path, grid: Grid, classes: ClassTable | None) -> Labels:
    with RasterReader(path) as raster:
        if raster.count != 1:
            raise InputError(f"{path} has {raster.count} bands; one is needed; extract it, e.g. with gdal_translate -b")
        found = _match(grid, raster.grid, path)
        values = np.concatenate(
            [
                _coarsen(_whole_numbers(raster.read(rows)[0], raster.nodata, path), found.ratio)
                for rows in _strips(found.pan, found.ratio)
            ]
        )
    notes: tuple[str, ...] = ()
    if found.ms != grid.window:
        notes = (f"{path.name} covers {values.shape[0]}×{values.shape[1]} of the scene's MS pixels",)
    present = [int(value) for value in np.unique(values) if value != 0]
    if classes is None:
        classes = ClassTable.of(present, [str(value) for value in present])
    unknown = sorted(set(present) - set(classes.values))
    if unknown:
        raise InputError(
            f"{path} holds the values {unknown}, which the class table has not (it has {list(classes.values)}); "
            "add them to the table or set them to 0"
        )
    index = np.full(grid.shape, -1, dtype=np.int16)
    index[found.ms.slices] = _index_of(classes)[values]
    return Labels(index, classes, notes)


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


def _whole_numbers(values: NDArray[Any], nodata: float | None, path: Path) -> NDArray[np.uint8]:
    """Values as integers, 0 where there is no label."""
    missing = is_nodata(values, nodata)
    kept = np.where(missing, 0, values)
    if kept.dtype.kind not in "iuf" or not np.array_equal(kept, np.trunc(kept)):
        raise InputError(f"{path} holds values that are not whole numbers; class values from 1 to 255 are needed")
    if kept.min() < 0 or kept.max() > 255:
        raise InputError(
            f"{path} holds values from {kept.min()} to {kept.max()}; class values must lie in 1..255, with 0 or the "
            "file's nodata value where there is no label"
        )
    return kept.astype(np.uint8)


def _coarsen(values: NDArray[np.uint8], ratio: int) -> NDArray[np.uint8]:
    """(h·ratio, w·ratio) → (h, w): the value where all fine pixels agree, otherwise 0."""
    h, w = values.shape[0] // ratio, values.shape[1] // ratio
    blocks = values.reshape(h, ratio, w, ratio)
    first = blocks[:, 0, :, 0]
    agree = (blocks == first[:, None, :, None]).all(axis=(1, 3))
    return np.where(agree, first, 0)


def _index_of(classes: ClassTable) -> NDArray[np.int16]:
    """(256,): class index of every pixel value, −1 for those that are no class."""
    lookup = np.full(256, -1, dtype=np.int16)
    lookup[list(classes.values)] = np.arange(len(classes))
    return lookup


def _from_polygons(path: Path, grid: Grid, classes: ClassTable | None, column: str | None) -> Labels:
    frame, warned = _read_shapes(path)
    frame, left_out = _usable(frame, _class_column(frame, column, path), path)
    frame, reprojected = _on_crs(frame, grid.crs, path)
    notes = warned + left_out + reprojected
    class_of, classes = _class_indices(frame["class"].tolist(), classes, path)
    shapes = frame.geometry.to_numpy()

    shape_at = _burn(shapes, np.arange(len(shapes)), grid)
    claims = np.zeros(grid.shape, dtype=np.int16)
    for k in np.unique(class_of):
        own = np.flatnonzero(class_of == k)
        claims += _burn(shapes[own], own, grid) >= 0
    index = np.where((shape_at >= 0) & (claims == 1), class_of.astype(np.int16)[shape_at], np.int16(-1))
    polygons = np.where(index >= 0, frame.index.to_numpy(np.int32)[shape_at], np.int32(-1))
    contested = int((claims > 1).sum())
    if contested:
        notes += (f"{contested} pixels lie in polygons of different classes and stay unlabelled",)
    idle = len(set(frame.index[class_of >= 0]) - set(np.unique(polygons).tolist()))
    if idle:
        notes += (
            f"{idle} of {len(frame)} shapes of {path.name} label no pixel: "
            "they hold no centre of one, lie elsewhere or under others",
        )
    missed = [classes.names[k] for k in np.unique(class_of[class_of >= 0]) if not (index == k).any()]
    if missed:
        notes += (f"no pixel has its centre in the polygons of {', '.join(missed)} alone",)
    return Labels(index, classes, notes, polygons, contested=contested)


def _read_shapes(path: Path) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """The one layer of shapes in a file, and what the reader warned of."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
            if len(layers) == 1:
                frame = geopandas.read_file(path, layer=layers[0], engine="pyogrio")
    except (DataSourceError, DataLayerError, ShapelyError) as error:
        raise InputError(f"{path} can be read neither as a raster nor as polygons: {_line(error)}") from error
    if len(layers) != 1:
        what = f"{len(layers)} layers of shapes {layers}" if layers else "no layer of shapes"
        raise InputError(f"{path} has {what}; a file with one is needed")
    return frame, tuple(sorted({f"{path.name}: {' '.join(str(warning.message).split())}" for warning in caught}))


def _class_column(frame: geopandas.GeoDataFrame, column: str | None, path: Path) -> str:
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if column is not None:
        if column not in columns:
            raise InputError(f"{path} has no column {column!r}; it has {columns}")
        return column
    by_lower = {name.lower(): name for name in reversed(columns)}
    named = [by_lower[name] for name in _COLUMNS if name in by_lower]
    if named:
        return named[0]
    able = [name for name in columns if frame[name].dtype.kind not in "fMm"]  # neither fractions nor dates
    whole = [name for name in columns if frame[name].dtype.kind == "f" and (frame[name].dropna() % 1 == 0).all()]
    for kind in (able, whole):  # whole numbers come as fractions where one of them is missing
        if len(kind) == 1:
            return kind[0]
        if kind:
            break
    raise InputError(f"{path}: none of the columns {columns} is clearly the class; name it with column=")


def _usable(frame: geopandas.GeoDataFrame, column: str, path: Path) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """The shapes that can label, as columns class and geometry, indexed by their place in the file."""
    notes: tuple[str, ...] = ()
    total = len(frame)
    frame = geopandas.GeoDataFrame({"class": frame[column], "geometry": frame.geometry}, crs=frame.crs)
    empty = frame.geometry.isna() | frame.geometry.is_empty
    nameless = (frame["class"].isna() | (frame["class"].astype(str).str.strip() == "")) & ~empty
    for count, what in ((empty.sum(), "no geometry"), (nameless.sum(), "no class")):
        if count:
            notes += (f"{count} of {len(frame)} shapes of {path.name} left out: {what}",)
    frame = frame[~(empty | nameless)]
    kinds = sorted(set(frame.geom_type) - {"Polygon", "MultiPolygon", "Point", "MultiPoint"})
    if kinds:
        raise InputError(f"{path} holds shapes of type {', '.join(kinds)}; polygons or points are needed")
    broken = ~frame.geometry.is_valid
    if broken.any():
        mended = shapely.make_valid(frame.geometry[broken].to_numpy(), method="structure", keep_collapsed=False)
        frame.loc[broken, "geometry"] = mended
        notes += (f"{broken.sum()} of {len(frame)} shapes of {path.name} had crossing rings and were mended",)
        frame = frame[~frame.geometry.is_empty]
    if frame.empty:
        raise InputError(
            f"{path}: none of its {total} shapes has a geometry and, in the column {column!r}, a class; fill that in"
        )
    return frame, notes


def _on_crs(
    frame: geopandas.GeoDataFrame, crs: str | None, path: Path
) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    if (frame.crs is None) != (crs is None):
        without, with_crs = (path.name, "the scene") if frame.crs is None else ("the scene", path.name)
        raise InputError(f"{with_crs} has a coordinate system and {without} has none; assign the one it is in")
    if crs is None or same_crs(frame.crs.to_wkt(), crs) == crs:
        return frame, ()
    try:
        moved = frame.to_crs(crs)
    except ProjError as error:
        raise InputError(f"{path} cannot be reprojected to the scene's coordinate system: {_line(error)}") from error
    return moved, (f"{path.name} was reprojected from {frame.crs.name} to the scene's coordinate system",)


def _class_indices(keys: Sequence[Any], classes: ClassTable | None, path: Path) -> tuple[NDArray[np.int32], ClassTable]:
    """Class index of each shape (−1 where its class is the number 0), by name or, where the file has numbers, value."""
    names = [" ".join(str(key).split()) for key in keys]
    numbers = all(re.fullmatch(r"-?\d+(\.0*)?", name) for name in names)
    if numbers and (classes is None or not set(names) <= set(classes.names)):
        names = [str(int(name.partition(".")[0])) for name in names]  # 1.0, as number or text, is the class 1
    if classes is None:
        values = sorted({int(name) for name in names} - {0}) if numbers else []
        if (found := len(set(names))) > 255:
            raise InputError(f"{path} holds {found} classes, 255 can be mapped; check which column holds the class")
        classes = ClassTable.of(values, list(map(str, values))) if numbers else ClassTable.numbered(sorted(set(names)))
    known = {name: k for k, name in enumerate(classes.names)}
    if numbers and not set(names) <= set(known):
        known = {"0": -1} | {str(value): k for k, value in enumerate(classes.values)}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"{path} holds the classes {unknown}, which the class table has not (it has {list(classes.names)}, values "
            f"{list(classes.values)}); add them to the table or rename them"
        )
    return np.array([known[name] for name in names], dtype=np.int32), classes


def _burn(shapes: NDArray[Any], numbers: NDArray[Any], grid: Grid) -> NDArray[np.int32]:
    """(h, w): the number of the last shape that holds the pixel's centre (a point: that lies in the pixel), or −1."""
    pairs = zip(shapes, numbers.tolist(), strict=True)
    burnt: NDArray[np.int32] = rasterize(pairs, grid.shape, fill=-1, transform=grid.transform, dtype="int32")
    return burnt


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
