"""The ground that is wanted, in degrees, and the days: read, judged, and laid into a coordinate system.

Longitudes lie in −180..180; an area over the antimeridian is in two parts, one on either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from math import ceil, floor
from pathlib import Path
from typing import Any

import geopandas
import pyproj
import shapely
from pyproj.exceptions import ProjError
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import box, mapping, shape
from shapely.geometry.polygon import orient

from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid
from adcdnet.geo.shapes import polygons_of, read_shapes

_DEGREES = "EPSG:4326"
_STEP = 0.02  # degrees: between points of an edge that is laid into another coordinate system
_FINE = 10_000  # parts of a degree in which a box is said
_CORNERS = 500  # more than that no API needs to be sent
_WIDEST = 180.0  # degrees: a box from east to west that is wider is one whose sides were exchanged


@dataclass(frozen=True)
class Area:
    """shape: polygons in degrees, longitude first."""

    shape: Any

    @classmethod
    def of_bbox(cls, text: str) -> Area:
        """'W,S,E,N' in degrees; W above E crosses the antimeridian. Raises InputError."""
        try:
            west, south, east, north = (float(part) for part in text.split(","))
        except ValueError:
            raise InputError(f"the box is {text!r}; four numbers are needed: W,S,E,N in degrees") from None
        if not (-90 <= south <= 90 and -90 <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
            raise InputError(
                f"the box is {text!r}; longitudes lie in -180..180 and latitudes in -90..90, in the order W,S,E,N"
            )
        if south >= north:
            raise InputError(
                f"the box is {text!r}; its south ({south:g}) must lie below its north ({north:g}): W,S,E,N"
            )
        if west < east:
            return cls(box(west, south, east, north))
        if west == east or east + 360 - west > _WIDEST:
            raise InputError(f"the box is {text!r}; its west ({west:g}) must lie before its east ({east:g}): W,S,E,N")
        return cls(shapely.union_all([box(west, south, 180, north), box(-180, south, east, north)]))

    @classmethod
    def of_file(cls, path: Path) -> Area:
        """All polygons of a file. Raises InputError."""
        frame, _ = read_shapes(path, None, None)
        if frame.crs is None:
            raise InputError(f"{path} has no coordinate system; assign the one it is in, e.g. with ogr2ogr -a_srs")
        try:
            frame = frame.to_crs(_DEGREES)
        except ProjError as error:
            raise InputError(f"{path} cannot be brought to degrees: {' '.join(str(error).split())}") from error
        polygons = [polygons_of(one) if hasattr(one, "geoms") else one for one in frame.geometry.dropna()]
        polygons = [one for one in polygons if one is not None and one.geom_type in ("Polygon", "MultiPolygon")]
        whole = shapely.union_all([shapely.make_valid(one) for one in polygons])
        if whole.area == 0:
            raise InputError(f"{path} holds no polygon; draw one around the ground that is wanted")
        parts = []
        for turn in (-360, 0, 360):  # longitudes beyond ±180 belong to the other side
            moved = shapely.intersection(translate(whole, xoff=turn), box(-180, -90, 180, 90))
            if moved.area > 0:
                parts.append(moved)
        return cls(shapely.union_all(parts))

    @classmethod
    def of_geojson(cls, geometry: dict[str, Any]) -> Area:
        """As `geojson` gives it. Raises InputError."""
        try:
            return cls(shape(geometry))
        except (LookupError, TypeError, ValueError, AttributeError, ShapelyError) as error:
            raise InputError(f"the area is no GeoJSON of polygons: {error!r}") from error

    @property
    def geojson(self) -> dict[str, Any]:
        return dict(mapping(self.shape))

    @property
    def outline(self) -> dict[str, Any]:
        """GeoJSON of the area or, if it has many corners, the convex hulls of its parts east and west of Greenwich."""
        if shapely.get_num_coordinates(self.shape) <= _CORNERS:
            return self.geojson
        halves = [shapely.intersection(self.shape, box(west, -90, west + 180, 90)) for west in (-180, 0)]
        return dict(mapping(shapely.union_all([shapely.convex_hull(half) for half in halves])))

    @property
    def box_square_km(self) -> float:
        """Of the box around the area, which is what is read."""
        west, south, east, north = self.shape.bounds
        if east - west > _WIDEST:  # on either side of the antimeridian
            halves = [shapely.intersection(self.shape, box(west, -90, west + 180, 90)) for west in (-180, 0)]
            west, east = halves[1].bounds[0], halves[0].bounds[2] + 360
        area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(
            orient(shapely.segmentize(box(west, south, east, north), 1))
        )
        return float(area) / 1e6

    def onto(self, crs: str) -> Any:
        """The area in another coordinate system. InputError where it cannot be laid there."""
        dense = shapely.segmentize(self.shape, _STEP)
        moved = geopandas.GeoSeries([dense], crs=_DEGREES).to_crs(crs).iloc[0]
        laid = shapely.make_valid(moved)
        if not laid.area > 0 or not shapely.is_valid_input(laid) or not all(abs(v) < 1e12 for v in laid.bounds):
            raise InputError("the area cannot be laid into the coordinate system of the images; take a smaller one")
        return laid

    def beyond(self, grid: Grid) -> str | None:
        """W,S,E,N, as --bbox takes it, around what of the area lies off a grid; None where that is within a pixel."""
        t, crs = grid.transform, str(grid.crs)
        inside = box(t.c, t.f + grid.height * t.e, t.c + grid.width * t.a, t.f)
        rest = shapely.difference(self.onto(crs), inside.buffer(t.a, join_style="mitre"))
        if rest.is_empty:
            return None
        to_degrees = pyproj.Transformer.from_crs(crs, _DEGREES, always_xy=True)
        west, south, east, north = to_degrees.transform_bounds(*rest.bounds)
        outward = floor(west * _FINE), floor(south * _FINE), ceil(east * _FINE), ceil(north * _FINE)
        return ",".join(f"{edge / _FINE:.4f}" for edge in outward)


@dataclass(frozen=True)
class Days:
    """first, last: both count."""

    first: date
    last: date

    @classmethod
    def of(cls, text: str) -> Days:
        """'2024-05-01/2024-09-30', or one day. Raises InputError."""
        first, _, last = text.partition("/")
        try:
            days = cls(date.fromisoformat(first.strip()), date.fromisoformat((last or first).strip()))
        except ValueError:
            raise InputError(f"the dates are {text!r}; two days are needed, such as 2024-05-01/2024-09-30") from None
        if days.first > days.last:
            raise InputError(f"the dates are {text!r}; the first day must not lie behind the last; exchange them")
        return days

    def __str__(self) -> str:
        return f"{self.first}/{self.last}"

    @property
    def interval(self) -> str:
        """As a STAC API takes it."""
        return f"{self.first}T00:00:00Z/{self.last}T23:59:59Z"
