"""Shapes of a file as class indices of pixels: reading them, choosing the column of the class, burning them in."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
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
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import same_crs

_COLUMNS = ("class", "class_name", "classname", "label", "land_cover", "landcover", "name")  # in order of preference


@dataclass(frozen=True)
class Burnt:
    """Polygons as pixels of a grid; the fields are those of `Labels` with the same names."""

    index: NDArray[np.int16]
    classes: ClassTable
    notes: tuple[str, ...]
    polygons: NDArray[np.int32]
    contested: int


def burn(path: Path, grid: Grid, classes: ClassTable | None, column: str | None) -> Burnt:
    """The polygons or points of a file on a grid; arguments as of `read_labels`. Raises InputError."""
    frame, warned = _read_shapes(path)
    frame, left_out = _usable(frame, _class_column(frame, column, path), path)
    frame, reprojected = _on_crs(frame, grid.crs, path)
    notes = warned + left_out + reprojected
    class_of, classes = _class_indices(frame["class"].tolist(), classes, path)
    shapes = frame.geometry.to_numpy()

    shape_at = _numbers_on(shapes, np.arange(len(shapes)), grid)
    claims = np.zeros(grid.shape, dtype=np.int16)
    for k in np.unique(class_of):
        own = np.flatnonzero(class_of == k)
        claims += _numbers_on(shapes[own], own, grid) >= 0
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
    return Burnt(index, classes, notes, polygons, contested)


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
        if (count := len(set(names))) > 255:
            raise InputError(f"{path} holds {count} classes, 255 can be mapped; check which column holds the class")
        classes = ClassTable.of(values, list(map(str, values))) if numbers else ClassTable.numbered(sorted(set(names)))
    index_of = {name: k for k, name in enumerate(classes.names)}
    if numbers and not set(names) <= set(index_of):
        index_of = {"0": -1} | {str(value): k for k, value in enumerate(classes.values)}
    unknown = sorted(set(names) - set(index_of))
    if unknown:
        raise InputError(
            f"{path} holds the classes {unknown}, which the class table has not (it has {list(classes.names)}, values "
            f"{list(classes.values)}); add them to the table or rename them"
        )
    return np.array([index_of[name] for name in names], dtype=np.int32), classes


def _numbers_on(shapes: NDArray[Any], numbers: NDArray[Any], grid: Grid) -> NDArray[np.int32]:
    """(h, w): the number of the last shape that holds the pixel's centre (a point: that lies in the pixel), or −1."""
    pairs = zip(shapes, numbers.tolist(), strict=True)
    burnt: NDArray[np.int32] = rasterize(pairs, grid.shape, fill=-1, transform=grid.transform, dtype="int32")
    return burnt


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
