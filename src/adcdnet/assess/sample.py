"""A probability sample of a map: points whose true class a person finds out, so that areas can be signed.

Drawn at random within strata, the classes of the map, so that rare ones get points enough. A GeoPackage holds the
points in a random order with an empty column `class`, and how they were drawn in a table beside them, `sample_design`,
so that whoever fills in the column is not told what the map says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS, Transformer
from scipy import ndimage

from adcdnet.assess.sample_size import UNKNOWN, judged_elsewhere, points_for, smoothed, unknown
from adcdnet.errors import InputError
from adcdnet.files import write_whole
from adcdnet.geo.class_lookup import look_up
from adcdnet.geo.classes import tidy
from adcdnet.geo.grid import Grid
from adcdnet.geo.maps import read_classes, read_map
from adcdnet.geo.origins import require_shapes
from adcdnet.geo.qgis_style import write_choices
from adcdnet.geo.raster import same_crs
from adcdnet.geo.shapes import write_layers

MIN_PER_CLASS = 50  # Olofsson et al. 2014 advise 50 to 100 points for each rare class
_FEWEST = 2  # points that a standard error needs
_DESIGN = "sample_design"


@dataclass(frozen=True)
class Sample:
    """n points in H strata.

    x, y (n,): pixel centres, in the coordinates of the map. stratum (n,): 0..H-1. values (H,): the map's value of each
    stratum, 0 for a single one of the whole map. pixels (H,): how many the map has.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    stratum: NDArray[np.int64]
    values: NDArray[np.int64]
    pixels: NDArray[np.int64]
    crs: str | None = None


def sample(
    map_path: Path | str,
    out: Path | str,
    *,
    n: int | None = None,
    error: float | None = None,
    of: int | None = None,
    expected: Path | str | None = None,
    after: Path | str | None = None,
    min_per_class: int | None = None,
    stratified: bool = True,
    pure: bool = False,
    seed: int = 0,
) -> Sample:
    """Draw pixels of a map without replacement and write their centres to a new GeoPackage.

    n: how many; or error: the standard error that the overall accuracy is to have, or with `of` the area of the class
    of this value, as a share of the map. expected: what `evaluate --json` said of such a map; by default 80 % of each
    class are taken to be right. after: a sample of this map whose points are judged: they stay, count, and say what is
    expected.
    Points are shared out in proportion to the classes' areas, but every class gets at least `min_per_class` (50, or an
    equal part of n where that is less) as far as it has so many pixels. stratified False: a simple random sample.
    pure: only pixels whose eight neighbours are of their class; estimates are then of that ground alone.
    Beside it lies, for QGIS, a style file with the classes of the map to choose from, where it names them.
    Raises InputError for what is no map, for more points than it has pixels or too few, and where `out` exists:
    somebody's work may be in it.
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} exists, and classes may have been filled in; name another file, or remove this one")
    if (n is None) == (error is None):
        raise InputError("a number of points or a standard error is needed, one of the two")
    if of is not None and not stratified:
        raise InputError("the area of a class is planned for by strata; leave the simple random sample out")
    mapped, grid = read_map(map_path)
    values = np.where(_like_all_around(mapped), mapped, np.uint8(0)) if pure else mapped
    if not values.any():
        raise InputError(f"{map_path} gives no pixel a class; there is nothing to draw from")
    strata = values if stratified else (values > 0).astype(np.uint8)
    present = np.unique(strata[strata > 0]).astype(np.int64)
    pixels = np.bincount(strata.ravel(), minlength=256)[present]
    stratum_values = present if stratified else np.zeros(1, np.int64)
    first = None if after is None else _judged(Path(after), map_path, mapped, grid)
    had = np.zeros(len(present), np.int64)
    if first is not None:
        if not (np.array_equal(first.drawn.values, stratum_values) and np.array_equal(first.drawn.pixels, pixels)):
            raise InputError(f"{after} was drawn from another map than {map_path}, or in another way; name that map")
        had = np.bincount(first.drawn.stratum, minlength=len(present))
        strata = strata.copy()
        strata[first.pixel] = 0  # no pixel twice
    if n is None:
        assert error is not None
        hits = _hits(np.unique(values[values > 0]), stratified, of, expected, first)
        fewest = _FEWEST * len(present) if min_per_class is None else min_per_class * len(present)
        n = points_for(
            error,
            pixels,
            hits,
            lambda k: np.maximum(allocate(pixels, k, min_per_class), had),
            min(fewest, int(pixels.sum())),
        )
    counts = np.maximum(allocate(pixels, n, min_per_class) - had, 0)
    rng = np.random.default_rng(seed)
    places = [draw_pixels(strata == value, count, rng) for value, count in zip(present, counts, strict=True)]
    order = rng.permutation(int(counts.sum()))  # otherwise the numbers of the points would tell their strata
    row, col = np.concatenate(places, axis=1)[:, order]
    x, y = grid.transform @ (col + 0.5, row + 0.5)
    stratum = np.repeat(np.arange(len(present)), counts)[order]
    keys: list[str | None] = [None] * len(x)
    if first is not None:
        x, y = np.concatenate([first.drawn.x, x]), np.concatenate([first.drawn.y, y])
        stratum, keys = np.concatenate([first.drawn.stratum, stratum]), [*first.keys, *keys]
    drawn = Sample(x, y, stratum, stratum_values, pixels, grid.crs)
    _write(drawn, keys, out)
    table = read_classes(map_path)
    if table is not None:
        write_choices(out, table)
    return drawn


@dataclass(frozen=True)
class _Judged:
    """A sample whose classes have been filled in. keys: their texts, None for none. true, mapped (n,): values of the
    class that a point has and of that which the map gives it, −1 and 0 for none. pixel: its rows and columns."""

    drawn: Sample
    keys: list[str | None]
    true: NDArray[np.int64]
    mapped: NDArray[np.int64]
    pixel: tuple[NDArray[np.int64], NDArray[np.int64]]


def _judged(path: Path, map_path: Path | str, mapped: NDArray[np.uint8], grid: Grid) -> _Judged:
    drawn = read_sample(path)
    if drawn is None:
        raise InputError(f"{path} is no sample that `adcdnet sample` drew; name the file that it wrote")
    pixel = places(drawn, grid, f"the map {map_path}")
    points = pyogrio.read_dataframe(path, layer="points", read_geometry=False)
    if len(points) != len(drawn.x):
        raise InputError(f"{path} has {len(points)} points and {len(drawn.x)} were drawn; none may be added or removed")
    filled = points["class"].notna() & (points["class"].astype(str).str.strip() != "")
    keys = [str(key) if there else None for key, there in zip(points["class"], filled, strict=True)]
    if not any(keys):
        raise InputError(f"{path} has no class at any point; fill in its column 'class' first")
    tidied = [key and tidy(key) for key in keys]
    meant = look_up([key for key in tidied if key], read_classes(map_path), path.name)
    true = np.array([meant.classes.values[meant.index_of[key]] if key else -1 for key in tidied], np.int64)
    return _Judged(drawn, keys, true, mapped[pixel].astype(np.int64), pixel)


def _hits(
    values: NDArray[np.integer], stratified: bool, of: int | None, expected: Path | str | None, first: _Judged | None
) -> NDArray[np.float64]:
    """The expected share of hits in each stratum; values: of the map's classes."""
    if of is not None and of not in values:
        raise InputError(f"the map has no pixel of the value {of}; it has {values.tolist()}")
    if first is not None:
        known = first.true >= 0
        hit = known & (first.true == (first.mapped if of is None else of))
        strata = len(first.drawn.values)
        return smoothed(*(np.bincount(first.drawn.stratum[these], minlength=strata) for these in (hit, known)))
    if expected is None:
        return unknown(values, of) if stratified else np.full(1, UNKNOWN)
    hits, points = judged_elsewhere(expected, values, of)
    return smoothed(hits, points) if stratified else smoothed(hits.sum(keepdims=True), points.sum(keepdims=True))


def _like_all_around(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where all eight neighbours inside the map have the pixel's value."""
    low, high = (found(values, 3, mode="nearest") for found in (ndimage.minimum_filter, ndimage.maximum_filter))
    return np.asarray(low == high)


def allocate(pixels: NDArray[np.integer], n: int, min_per_class: int | None = None) -> NDArray[np.int64]:
    """Points for each stratum of so many pixels (H,), n in all; see `sample`. InputError where that cannot be."""
    strata = len(pixels)
    if n > pixels.sum():
        raise InputError(f"{n} points are asked for, the map has {pixels.sum()} pixels with a class; ask for fewer")
    fewest = min(MIN_PER_CLASS, n // strata) if min_per_class is None else min_per_class
    if fewest < _FEWEST or fewest * strata > n:
        raise InputError(
            f"{n} points do not give each of {strata} classes at least {max(fewest, _FEWEST)}; "
            f"ask for {max(fewest, _FEWEST) * strata} points or more, or for fewer in each class"
        )
    counts: NDArray[np.int64] = np.minimum(pixels, fewest).astype(np.int64)
    while (left := n - int(counts.sum())) > 0:  # what a full stratum cannot take goes to the others
        wanted = np.where(counts < pixels, n * pixels / pixels.sum() - counts, 0).clip(0)
        if not wanted.any():
            wanted = np.where(counts < pixels, pixels, 0).astype(np.float64)
        more = left * wanted / wanted.sum()
        whole = np.floor(more).astype(np.int64)
        whole[np.argsort(whole - more, kind="stable")[: left - whole.sum()]] += 1
        counts = np.minimum(counts + whole, pixels).astype(np.int64)
    return counts


def draw_pixels(mask: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows and columns (2, count) of true pixels, each with the same chance."""
    in_row = mask.sum(axis=1)
    first = np.concatenate([[0], np.cumsum(in_row)])  # the number of a row's first true pixel
    chosen = rng.choice(first[-1], count, replace=False)
    row = np.searchsorted(first, chosen, side="right") - 1
    col = [np.flatnonzero(mask[r])[number] for r, number in zip(row, chosen - first[row], strict=True)]
    return np.array([row, col], np.int64)


def _write(drawn: Sample, keys: Sequence[str | None], out: Path) -> None:
    n = len(drawn.x)
    points = geopandas.GeoDataFrame(
        {"id": np.arange(1, n + 1), "class": list(keys)}, geometry=shapely.points(drawn.x, drawn.y), crs=drawn.crs
    )
    design = geopandas.GeoDataFrame(  # without shapes, so that it is no layer of a map
        {
            "x": drawn.x,
            "y": drawn.y,
            "stratum": drawn.values[drawn.stratum],
            "stratum_pixels": drawn.pixels[drawn.stratum],
        }
    )
    write_layers(out, {"points": points, _DESIGN: design})


def write_plots(drawn: Sample, out: Path | str) -> None:
    """The points as a table for Collect Earth Online: LON and LAT in degrees (WGS 84), PLOTID as `id` of the points.

    InputError for a map whose place on the earth is not known.
    """
    if drawn.crs is None:
        raise InputError("the map has no coordinate system, so that points have no longitude; leave it out")
    lon, lat = Transformer.from_crs(drawn.crs, "EPSG:4326", always_xy=True).transform(drawn.x, drawn.y)
    rows = [f"{x:.7f},{y:.7f},{k}" for k, (x, y) in enumerate(zip(lon, lat, strict=True), 1)]
    write_whole(Path(out), ("\n".join(["LON,LAT,PLOTID", *rows]) + "\n").encode())


def read_sample(path: Path | str) -> Sample | None:
    """How the points of a file were drawn, or None where it does not say: then they are no probability sample."""
    path = Path(path)
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return None
    require_shapes(path)
    try:
        if _DESIGN not in [name for name, _ in pyogrio.list_layers(path)]:
            return None
        design = pyogrio.read_dataframe(path, layer=_DESIGN, read_geometry=False)
        crs = pyogrio.read_info(path, layer="points")["crs"]
        values, first, stratum = np.unique(design["stratum"].to_numpy(), return_index=True, return_inverse=True)
        pixels = design["stratum_pixels"].to_numpy()[first]
        x, y = (design[name].to_numpy(np.float64) for name in ("x", "y"))
    except (DataSourceError, DataLayerError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} holds a table {_DESIGN} that cannot be read ({' '.join(str(error).split())}); "
            "fill the classes into the file that `adcdnet sample` wrote"
        ) from error
    return Sample(x, y, stratum, values, pixels, crs and CRS.from_user_input(crs).to_wkt())


def places(drawn: Sample, grid: Grid, place: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column (n,) of the pixel of `grid` that each point lies in.

    place: what has that grid, for the InputError where points lie outside it or in another coordinate system.
    """
    if same_crs(drawn.crs, grid.crs) != grid.crs:
        raise InputError(
            f"the sample was drawn from a map in another coordinate system than {place}; evaluate the map it was "
            "drawn from, or one in its coordinate system"
        )
    col, row = (np.floor(v).astype(np.int64) for v in ~grid.transform @ (drawn.x, drawn.y))
    outside = int(((row < 0) | (row >= grid.height) | (col < 0) | (col >= grid.width)).sum())
    if outside:
        raise InputError(
            f"{outside} of {len(row)} points of the sample lie outside {place}; evaluate a map of all the ground "
            "that the sample was drawn from"
        )
    return row, col
