"""Shapes of a file as class indices of pixels: choosing the column of the class and the shapes, burning them in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.features import rasterize
from rasterio.features import shapes as shapes_of

from adcdnet.errors import InputError
from adcdnet.geo.class_lookup import listed, look_up
from adcdnet.geo.classes import ClassTable, tidy
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import same_crs
from adcdnet.geo.shapes import numbered, polygons_of, read_shapes
from adcdnet.geo.shares import Covered, covered_by

_COLUMNS = (  # in order of preference
    *("class", "class_name", "classname", "label", "land_cover", "landcover"),
    *("class_id", "classid", "class_code", "code", "name"),
)
_SHAPES = {"Polygon", "MultiPolygon", "Point", "MultiPoint"}
_FEW = 10  # shapes below which texts that all differ may still be classes
_SIDE = 8  # pixels that a shape without a pixel's centre may span on each axis and still count


@dataclass(frozen=True)
class Burnt:
    """Polygons as pixels of a grid; the fields are those of `Labels` with the same names."""

    index: NDArray[np.int16]
    classes: ClassTable
    notes: tuple[str, ...]
    polygons: NDArray[np.int32]
    contested: int


def burn(
    path: Path,
    grid: Grid,
    classes: ClassTable | None,
    column: str | None,
    layer: str | None = None,
    min_share: float | None = None,
    nameless: str | None = None,
) -> Burnt:
    """The polygons or points of a file on a grid; arguments as of `read_labels`. Raises InputError."""
    frame, notes = read_shapes(path, layer, grid.crs)
    chosen = _class_column(frame, column, path)
    frame, left_out = _usable(frame, chosen, path)
    frame, reprojected = _on_crs(frame, grid.crs, path)
    frame, turned = _on_this_side(frame, grid, path)
    keys = [tidy(str(key)) for key in frame["class"]]
    meant = look_up(keys, classes, path.name, nameless=nameless)
    class_of = np.array([meant.index_of[key] for key in keys], np.int32)
    present = [meant.classes.names[k] for k in np.unique(class_of)]
    said = f"classes of {path.name} stand in its column {chosen!r}: {listed(present)}"
    notes += (*left_out, *reprojected, *turned, said, *meant.notes)
    shapes = frame.geometry.to_numpy()

    if min_share is None:
        burnt, more = _by_centres(shapes, class_of, grid, path)
        notes += more
    else:
        burnt = covered_by(shapes, class_of, grid, min_share)
    index, contested = burnt.index, burnt.contested
    polygons = np.where(index >= 0, frame.index.to_numpy(np.int32)[burnt.number], np.int32(-1))
    if contested:
        notes += (f"{contested} pixels lie in polygons of different classes and stay unlabelled",)
    idle = len(set(frame.index) - set(np.unique(polygons).tolist()))
    if idle:
        little = "are long and hold no centre of one" if min_share is None else f"cover less than {min_share:g} of any"
        notes += (
            f"{idle} of {len(frame)} shapes of {path.name} label no pixel: they lie elsewhere, under others, or "
            f"{little}",
        )
    missed = [meant.classes.names[k] for k in np.unique(class_of) if not (index == k).any()]
    if missed:
        notes += (f"no pixel is labelled by the shapes of {', '.join(missed)} alone",)
    return Burnt(index, meant.classes, notes, polygons, contested)


def _by_centres(
    shapes: NDArray[Any], class_of: NDArray[np.int32], grid: Grid, path: Path
) -> tuple[Covered, tuple[str, ...]]:
    """Pixels whose centre lies in a shape or, of a shape between centres, the one in which most of it lies; notes."""
    notes: tuple[str, ...] = ()
    shape_at, claims = np.full(grid.shape, -1, np.int32), np.zeros(grid.shape, np.int16)
    _claim(shapes, np.arange(len(shapes)), class_of, grid, shape_at, claims)
    small = _between_centres(shapes, np.setdiff1d(np.arange(len(shapes)), shape_at), grid)
    free = [(number, place) for number, place in small if claims[place] == 0]
    if free:
        numbers, (rows, cols) = np.array([n for n, _ in free]), np.array([place for _, place in free]).T
        points = np.full(len(shapes), None)
        points[numbers] = shapely.points(*(grid.transform @ (cols + 0.5, rows + 0.5)))
        _claim(points, numbers, class_of, grid, shape_at, claims)
        notes = (
            f"{len(free)} shapes of {path.name} hold no pixel's centre; each labels the pixel in which most of it lies",
        )
    index = np.where((shape_at >= 0) & (claims == 1), class_of.astype(np.int16)[shape_at], np.int16(-1))
    return Covered(index, shape_at, int((claims > 1).sum())), notes


def outlines(numbers: NDArray[np.int32], grid: Grid) -> dict[int, Any]:
    """The shape of the pixels (h, w) of each number, along their edges; −1 is none."""
    parts: dict[int, list[Any]] = {}
    for outline, number in shapes_of(numbers, mask=numbers >= 0, transform=grid.transform):
        parts.setdefault(int(number), []).append(shapely.geometry.shape(outline))
    return {number: shapely.union_all(own) for number, own in parts.items()}


def _claim(
    shapes: NDArray[Any],
    numbers: NDArray[Any],
    class_of: NDArray[np.int32],
    grid: Grid,
    shape_at: NDArray[np.int32],
    claims: NDArray[np.int16],
) -> None:
    """Write some shapes' numbers into `shape_at` (h, w), the last on top; add to `claims` how many classes want it."""
    own = _numbers_on(shapes[numbers], numbers, grid)
    shape_at[own >= 0] = own[own >= 0]
    for k in np.unique(class_of[numbers]):
        of_class = numbers[class_of[numbers] == k]
        claims += _numbers_on(shapes[of_class], of_class, grid) >= 0


def _between_centres(shapes: NDArray[Any], idle: NDArray[Any], grid: Grid) -> list[tuple[int, tuple[int, int]]]:
    """Of the polygons that label nothing, those on the grid that hold no pixel's centre: number, and (row, col) of the
    pixel in which most of each lies."""
    small = []
    for number in idle.tolist():
        shape = shapes[number]
        if shape.area == 0:
            continue
        xs, ys = np.array(shape.bounds)[[0, 2, 0, 2]], np.array(shape.bounds)[[1, 1, 3, 3]]
        cols, rows = (np.floor(v).astype(int) for v in ~grid.transform @ (xs, ys))
        top, left = max(int(rows.min()), 0), max(int(cols.min()), 0)
        bottom, right = min(int(rows.max()) + 1, grid.height), min(int(cols.max()) + 1, grid.width)
        if top >= bottom or left >= right or bottom - top > _SIDE or right - left > _SIDE:
            continue
        row, col = (axis.ravel() for axis in np.mgrid[top:bottom, left:right])
        xs, ys = grid.transform @ (col + 0.5, row + 0.5)
        if shapely.intersects_xy(shape, xs, ys).any():
            continue  # it lies under others
        corners = [grid.transform @ (col + dx, row + dy) for dx, dy in ((0, 0), (1, 0), (1, 1), (0, 1))]
        pixels = shapely.polygons(np.stack([np.stack(xy, axis=-1) for xy in corners], axis=1))
        shares = shapely.area(shapely.intersection(pixels, shape))
        best = int(shares.argmax())
        if shares[best] > 0:
            small.append((number, (int(row[best]), int(col[best]))))
    return small


def _class_column(frame: geopandas.GeoDataFrame, column: str | None, path: Path) -> str:
    """The column of the class: as named; or one called like it; or the only one that could be."""
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if column is not None:
        if column not in columns:
            raise InputError(f"{path} has no column {column!r}; it has {columns}")
        return column
    able = [name for name in columns if not _tells_apart(frame[name])]
    for name in _COLUMNS:
        alike = [own for own in able if own.lower() == name]
        if name in alike or len(alike) == 1:
            return name if name in alike else alike[0]
        if alike:
            able = alike
            break
    whole = [name for name in able if frame[name].dtype.kind == "f" and (frame[name].dropna() % 1 == 0).all()]
    able = [name for name in able if frame[name].dtype.kind not in "fMm"]  # neither fractions nor dates
    for kind in (able, whole):  # whole numbers come as fractions where one of them is missing
        if len(kind) == 1:
            return kind[0]
        if kind:
            break
    raise InputError(f"{path}: none of its columns {columns} is clearly the class; name it with --column")


def _tells_apart(values: Any) -> bool:
    """Whether a column names or numbers shapes, not classes: of ten or more most differ."""
    filled = values.dropna()
    return len(filled) >= _FEW and 2 * filled.nunique() > len(filled)


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
    frame, of_other_kinds = _polygons_or_points(frame, total, path)
    notes += of_other_kinds
    broken = ~frame.geometry.is_valid
    if broken.any():
        mended = shapely.make_valid(frame.geometry[broken].to_numpy(), method="structure", keep_collapsed=False)
        frame.loc[broken, "geometry"] = mended
        places = frame.index[broken].to_numpy()
        notes += (f"{numbered(places, total, path.name)} had crossing rings and were mended",)
        frame = frame[~frame.geometry.is_empty]
    if frame.empty:
        raise InputError(
            f"{path}: none of its {total} shapes has a geometry and, in the column {column!r}, a class; fill that in"
        )
    return frame, notes


def _polygons_or_points(
    frame: geopandas.GeoDataFrame, total: int, path: Path
) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """Collections as their polygons, and without what holds no ground. InputError where nothing is left."""
    notes: tuple[str, ...] = ()
    kind = frame.geom_type
    collections = kind == "GeometryCollection"
    if collections.any():
        shapes = [polygons_of(shape) for shape in frame.geometry[collections]]
        frame.loc[collections, "geometry"] = geopandas.GeoSeries(shapes, frame.index[collections], crs=frame.crs)
        kept = frame.index[collections & ~frame.geometry.isna()].to_numpy()
        if len(kept):
            notes += (f"{numbered(kept, total, path.name)} are collections of which the polygons count",)
    other = ~frame.geom_type.isin(_SHAPES)
    if other.any():
        kinds = ", ".join(sorted(set(kind[other])))
        if other.all():
            raise InputError(f"{path} holds shapes of type {kinds}; polygons or points are needed")
        notes += (f"{numbered(frame.index[other].to_numpy(), total, path.name)} left out: {kinds}",)
    return frame[~other], notes


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
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be reprojected to the scene's coordinate system: {reason}") from error
    return moved, (f"{path.name} was reprojected from {frame.crs.name} to the scene's coordinate system",)


def _on_this_side(
    frame: geopandas.GeoDataFrame, grid: Grid, path: Path
) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """Shapes in degrees whose longitudes differ by a whole turn from those of the scene, as at 180°, moved by it."""
    if frame.crs is None or not frame.crs.is_geographic:
        return frame, ()
    west, east = grid.transform.c, grid.transform.c + grid.width * grid.transform.a
    bounds = frame.bounds
    elsewhere = (bounds.maxx < west) | (bounds.minx > east)
    count = 0
    for turn in (360, -360):
        here = elsewhere & (bounds.maxx + turn > west) & (bounds.minx + turn < east)
        frame.loc[here, "geometry"] = frame.geometry[here].translate(turn)
        count += int(here.sum())
    return frame, (f"{count} shapes of {path.name} lie beyond 180°; 360° were added or taken off",) if count else ()


def _numbers_on(shapes: NDArray[Any], numbers: NDArray[Any], grid: Grid) -> NDArray[np.int32]:
    """(h, w): the number of the last shape that holds the pixel's centre (a point: that lies in the pixel), or −1."""
    pairs = zip(shapes, numbers.tolist(), strict=True)
    burnt: NDArray[np.int32] = rasterize(pairs, grid.shape, fill=-1, transform=grid.transform, dtype="int32")
    return burnt
