"""Which days can give a pair: how much of the area each covers, and how much of that clouds hide.

The cloud figure of an item is of all its ground. What counts here is the area, so masks are read over it, coarsely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from adcdnet.acquire.area import Area
from adcdnet.acquire.catalogue import Sensor
from adcdnet.acquire.items import Item, mask_rule
from adcdnet.acquire.pair import open_asset
from adcdnet.acquire.remote import RemoteRaster, window_of
from adcdnet.acquire.search import Catalogue, of_day
from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Window
from adcdnet.geo.masks import MaskRule
from adcdnet.geo.raster import is_nodata, same_crs

LOOKED_AT = 12  # days whose masks are read: those of which the catalogue says least cloud
_SIDE = 256  # pixels a side at which an area is looked at
Step = Callable[[str, int, int], None]  # (what is done, how many are done, of how many)


@dataclass(frozen=True)
class Candidate:
    """The items of one day in one coordinate system. covered, clear: shares of the area.

    cloud: share of what is covered that the mask hides; None where there is no mask and nothing is said.
    """

    day: str
    crs: str
    items: tuple[Item, ...]
    covered: float
    clear: float
    cloud: float | None
    grid: Grid  # coarse, over the area


def candidates(
    catalogue: Catalogue, items: Sequence[Item], sensor: Sensor, area: Area, *, threads: int, step: Step
) -> tuple[list[Candidate], tuple[str, ...]]:
    """The best first; and notes. InputError where no file of any day can be read."""
    days = of_day(items)
    order = sorted(days, key=lambda day: (_expected(days[day], area), day))
    notes: list[str] = []
    if len(order) > LOOKED_AT:
        notes.append(f"{len(order)} days have items; the masks of the {LOOKED_AT} with least cloud are looked at")
    found: list[Candidate] = []
    failed: list[InputError] = []
    looked = sorted(order[:LOOKED_AT])
    with ThreadPoolExecutor(threads) as pool:
        for done, day in enumerate(looked):
            step("search", done, len(looked))
            jobs = [(item, pool.submit(open_asset, catalogue, item, sensor.mask or sensor.ms[0])) for item in days[day]]
            opened: list[tuple[Item, RemoteRaster]] = []
            for item, job in jobs:
                try:
                    opened.append((item, job.result()))
                except InputError as error:
                    failed.append(error)
                    notes.append(f"{item.id} left out: {error}")
            try:
                found += _of_zones(day, opened, sensor, area)
            except InputError as error:
                failed.append(error)
                notes.append(f"{day} left out: {error}")
            finally:
                for _, raster in opened:
                    raster.close()
    step("search", len(looked), len(looked))
    if not found and failed:
        raise failed[0]
    return sorted(found, key=lambda one: (-round(one.clear, 4), one.day, one.crs)), tuple(notes)


def _expected(items: Sequence[Item], area: Area) -> float:
    """The share of the area that a day leaves uncovered or under cloud, by what its catalogue says."""
    left = area.shape
    clear = 0.0
    for item in sorted(items, key=lambda item: item.cloud or 0.0):
        own = shapely.intersection(left, item.footprint)
        clear += own.area * (1 - (item.cloud or 0.0) / 100)
        left = shapely.difference(left, item.footprint)
    return 1 - float(clear / area.shape.area)


def _of_zones(day: str, opened: Sequence[tuple[Item, RemoteRaster]], sensor: Sensor, area: Area) -> list[Candidate]:
    """A candidate for each coordinate system that the files of a day are in."""
    systems: list[str] = []
    for _, raster in opened:
        if raster.grid.crs is None:
            raise InputError(f"{raster.address} has no coordinate system, so that no place is known in it")
        if not any(same_crs(raster.grid.crs, known) == known for known in systems):
            systems.append(raster.grid.crs)
    found = []
    for crs in systems:
        own = [(item, raster) for item, raster in opened if same_crs(raster.grid.crs, crs) == crs]
        one = _look(day, crs, own, sensor, area)
        if one.covered > 0:
            found.append(one)
    return found


def _look(day: str, crs: str, opened: Sequence[tuple[Item, RemoteRaster]], sensor: Sensor, area: Area) -> Candidate:
    shape = area.onto(crs)
    grid = coarse_grid(shape.bounds, crs, min(raster.grid.transform.a for _, raster in opened))
    inside = rasterize([shape], grid.shape, fill=0, default_value=1, transform=grid.transform, dtype="uint8") == 1
    if not inside.any():  # smaller than a pixel
        inside[:] = True
    covered, clear = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    used = []
    for item, raster in opened:
        if sensor.mask:
            there, hidden = _masked(raster, grid, mask_rule(item, sensor))
        else:
            there = rasterize([area_of(item, crs)], grid.shape, fill=0, default_value=1, transform=grid.transform) == 1
            hidden = ~there
        if (there & inside).any():
            used.append(item)
        covered |= there
        clear |= there & ~hidden
    n = np.count_nonzero(inside)
    share = np.count_nonzero(covered & inside) / n
    free = np.count_nonzero(clear & inside) / n
    cloud: float | None = 1 - free / share if share else 0.0
    if not sensor.mask:
        said = [item.cloud for item in used if item.cloud is not None]
        cloud = max(said) / 100 if said else None
        free = share * (1 - (cloud or 0.0))
    return Candidate(day, crs, tuple(used), share, free, cloud, grid)


def area_of(item: Item, crs: str) -> Any:
    """The footprint of an item in a coordinate system."""
    return Area(item.footprint).onto(crs)


def coarse_grid(bounds: tuple[float, float, float, float], crs: str, pixel: float) -> Grid:
    """A grid of square pixels over bounds, at most 256 a side and none smaller than `pixel`."""
    left, bottom, right, top = bounds
    size = max(pixel, max(right - left, top - bottom) / _SIDE)
    height, width = max(1, round((top - bottom) / size)), max(1, round((right - left) / size))
    return Grid(height, width, Affine((right - left) / width, 0, left, 0, -(top - bottom) / height, top), crs)


def read_coarsely(raster: RemoteRaster, grid: Grid) -> tuple[NDArray[Any], Window] | None:
    """What a raster in the same system has of a coarse grid (count, h, w), and where; None where they do not meet."""
    place = window_of(raster.grid, _bounds(grid))
    within = place.within(*raster.grid.shape)
    if within.height <= 0 or within.width <= 0:
        return None
    tall, wide = place.height / grid.height, place.width / grid.width
    row, col = round((within.row - place.row) / tall), round((within.col - place.col) / wide)
    stop_row = round((within.row + within.height - place.row) / tall)
    stop_col = round((within.col + within.width - place.col) / wide)
    at = Window(row, col, stop_row - row, stop_col - col)
    if at.height <= 0 or at.width <= 0:
        return None
    return raster.read(within, shape=(at.height, at.width)), at


def _masked(raster: RemoteRaster, grid: Grid, rule: MaskRule) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a mask covers a coarse grid, and where it hides."""
    there, hidden = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    read = read_coarsely(raster, grid)
    if read is not None:
        values, at = read
        there[at.slices] = ~is_nodata(values[0], raster.nodata)
        hidden[at.slices] = rule.hides(values[0])
    return there, hidden


def _bounds(grid: Grid) -> tuple[float, float, float, float]:
    t = grid.transform
    return t.c, t.f + grid.height * t.e, t.c + grid.width * t.a, t.f
