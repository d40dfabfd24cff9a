"""What a pixel measures on the ground, or why that cannot be said."""

from __future__ import annotations

import math
from typing import NamedTuple

import pyproj
from pyproj.exceptions import CRSError, ProjError

from adcdnet.geo.grid import Grid

_DISTORTION = 0.02  # share by which a projection may misstate areas before they are not worth giving


class PixelArea(NamedTuple):
    """hectares of one pixel; None where they are unknown, and why."""

    hectares: float | None
    unknown: str = ""


def pixel_area(grid: Grid) -> PixelArea:
    """In the units of the grid's coordinate system, which must be a projection that keeps areas within 2 % there."""
    if grid.crs is None:
        return PixelArea(None, "the map has no coordinate system")
    try:
        crs = pyproj.CRS.from_user_input(grid.crs)
    except CRSError:
        return PixelArea(None, "the map's coordinate system cannot be read")
    if crs.is_geographic:
        return PixelArea(None, "the map is in degrees, its pixels differ in size; reproject it")
    metre = crs.axis_info[0].unit_conversion_factor  # metres in one unit
    nominal = abs(grid.transform.determinant) * metre**2
    true = _geodesic(crs, grid, metre)
    if not abs(nominal / true - 1) <= _DISTORTION:
        return PixelArea(
            None, f"{crs.name} shows areas here {nominal / true:.2f} times as large as they are; reproject the map"
        )
    return PixelArea(nominal / 1e4)


def _geodesic(crs: pyproj.CRS, grid: Grid, metre: float) -> float:
    """Square metres of the pixel in the middle of the grid, on the ellipsoid."""
    row, col = grid.height // 2, grid.width // 2
    x, y = zip(*(grid.transform @ (col + c, row + r) for c, r in ((0, 0), (1, 0), (1, 1), (0, 1))), strict=True)
    geod, geographic = crs.get_geod(), crs.geodetic_crs
    if geod is None or geographic is None:  # a local system: its own units are all there is
        return abs(grid.transform.determinant) * metre**2
    try:
        to_degrees = pyproj.Transformer.from_crs(crs, geographic, always_xy=True)
        area, _ = geod.polygon_area_perimeter(*to_degrees.transform(x, y))
    except ProjError:
        return math.nan
    return abs(area)
