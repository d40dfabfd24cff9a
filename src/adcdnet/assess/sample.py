"""A probability sample of a map: points whose true class a person finds out, so that areas can be signed.

Drawn at random within strata, the classes of the map, so that rare ones get points enough. A GeoPackage holds the
points in a random order with an empty column `class`, and how they were drawn in a table beside them, `sample_design`,
so that whoever fills in the column is not told what the map says.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS

from adcdnet.errors import InputError
from adcdnet.files import move_into_place
from adcdnet.geo.grid import Grid
from adcdnet.geo.origins import require_shapes
from adcdnet.geo.raster import read_map, same_crs

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
    n: int,
    min_per_class: int | None = None,
    stratified: bool = True,
    seed: int = 0,
) -> Sample:
    """Draw n pixels of a map without replacement and write their centres to a new GeoPackage.

    Points are shared out in proportion to the classes' areas, but every class gets at least `min_per_class` (50, or an
    equal part of n where that is less) as far as it has so many pixels. stratified False: a simple random sample.
    Raises InputError for what is no map, for more points than it has pixels or too few, and where `out` exists:
    somebody's work may be in it.
    """
    out = Path(out)
    if out.suffix.lower() != ".gpkg":
        raise InputError(f"{out} is no GeoPackage by its name, which alone holds points and design; name a file .gpkg")
    if out.exists():
        raise InputError(f"{out} exists, and classes may have been filled in; name another file, or remove this one")
    values, grid = read_map(map_path)
    if not values.any():
        raise InputError(f"{map_path} gives no pixel a class; there is nothing to draw from")
    strata = values if stratified else (values > 0).astype(np.uint8)
    present = np.unique(strata[strata > 0]).astype(np.int64)
    pixels = np.bincount(strata.ravel(), minlength=256)[present]
    counts = allocate(pixels, n, min_per_class)
    rng = np.random.default_rng(seed)
    places = [draw_pixels(strata == value, count, rng) for value, count in zip(present, counts, strict=True)]
    order = rng.permutation(n)  # otherwise the numbers of the points would tell their strata
    row, col = np.concatenate(places, axis=1)[:, order]
    x, y = grid.transform @ (col + 0.5, row + 0.5)
    stratum = np.repeat(np.arange(len(present)), counts)[order]
    drawn = Sample(x, y, stratum, present if stratified else np.zeros(1, np.int64), pixels, grid.crs)
    _write(drawn, out)
    return drawn


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


def _write(drawn: Sample, out: Path) -> None:
    n = len(drawn.x)
    points = geopandas.GeoDataFrame(
        {"id": np.arange(1, n + 1), "class": [None] * n}, geometry=shapely.points(drawn.x, drawn.y), crs=drawn.crs
    )
    design = geopandas.GeoDataFrame(  # without shapes, so that it is no layer of a map
        {
            "x": drawn.x,
            "y": drawn.y,
            "stratum": drawn.values[drawn.stratum],
            "stratum_pixels": drawn.pixels[drawn.stratum],
        }
    )
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
            part = Path(folder) / out.name
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided")  # the map has none
                pyogrio.write_dataframe(points, part, layer="points", driver="GPKG")
            pyogrio.write_dataframe(design, part, layer=_DESIGN, driver="GPKG")
            move_into_place(part, out)
    except (OSError, DataSourceError, DataLayerError) as error:
        reason = (
            os.strerror(error.errno) if isinstance(error, OSError) and error.errno else " ".join(str(error).split())
        )
        raise InputError(f"{out} cannot be written: {reason}") from error


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
