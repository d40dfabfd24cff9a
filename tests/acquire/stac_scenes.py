"""Small scenes on the server of `stac_site`: what Earth Search, USGS and a land-cover product would have of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import box, mapping
from stac_site import Site

ZONE = "EPSG:32632"
CORNER = (610_000.0, 5_740_000.0)  # of the first MS pixel
MS = ("rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")
PAN = ("blue", "green", "red", "nir")


def footprint(transform: Affine, shape: tuple[int, int], crs: str) -> dict[str, Any]:
    """GeoJSON in degrees of a grid; in two parts over the antimeridian."""
    left, top = transform @ (0, 0)
    right, bottom = transform @ (shape[1], shape[0])
    moved = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    west, south, east, north = moved.transform_bounds(left, bottom, right, top)
    if west > east:
        return dict(mapping(box(west, south, 180, north).union(box(-180, south, east, north))))
    return dict(mapping(box(west, south, east, north)))


def class_at(row: NDArray[Any], col: NDArray[Any]) -> NDArray[Any]:
    """One of three classes for each MS pixel, counted from the origin of the zone: squares of 8 pixels."""
    r, c = row // 8, col // 8
    return (r * 7 + c * 13 + (r * c) % 5) % 3


@dataclass(frozen=True)
class Ground:
    """Where a scene lies: the upper left corner and the size of MS, in MS pixels of `pixel` metres."""

    corner: tuple[float, float] = CORNER
    size: tuple[int, int] = (75, 91)
    pixel: float = 20.0
    crs: str = ZONE

    @property
    def transform(self) -> Affine:
        return Affine(self.pixel, 0, self.corner[0], 0, -self.pixel, self.corner[1])

    def truth(self, step: int = 1) -> NDArray[np.int64]:
        """The class of each pixel, of MS or `step` times finer."""
        row = round(-self.corner[1] / self.pixel) * step + np.arange(self.size[0] * step)
        col = round(self.corner[0] / self.pixel) * step + np.arange(self.size[1] * step)
        return class_at(row[:, None] // step, col[None, :] // step)

    def bbox(self, margin: int = 0) -> str:
        """For --bbox: the middle of the ground, `margin` MS pixels inside its edges (outside, if negative)."""
        left, top = self.transform @ (margin, margin)
        right, bottom = self.transform @ (self.size[1] - margin, self.size[0] - margin)
        moved = pyproj.Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        corners = [moved.transform(x, y) for x in (left, right) for y in (bottom, top)]
        west, east = sorted(lon for lon, _ in corners)[1:3]
        south, north = sorted(lat for _, lat in corners)[1:3]
        return f"{west:.7f},{south:.7f},{east:.7f},{north:.7f}"


HERE = Ground()


def add_sentinel(
    site: Site,
    name: str,
    day: str,
    ground: Ground = HERE,
    *,
    cloud: NDArray[Any] | None = None,
    add: int = 0,
    collection: str = "sentinel-2-l2a",
    raster_bands: dict[str, float] | None = None,
    ms: tuple[str, ...] = MS,
    pan: tuple[str, ...] = PAN,
    scl_name: str = "scl",
    compress: str = "deflate",
    **properties: Any,
) -> dict[str, Any]:
    """An item as Earth Search has it. Values are 1000·(band + 1) + 300·class + day of the month, plus `add`.

    cloud: where (h, w) SCL is 9; otherwise 4. raster_bands: scale and offset of every band.
    """
    date = int(day[-2:])
    extra = {"raster:bands": [raster_bands]} if raster_bands else {}
    assets: dict[str, Any] = {}
    for names, step in ((ms, 1), (pan, 2)):
        transform = ground.transform @ Affine.scale(1 / step)
        for band, asset in enumerate(names):
            values = (1000 * (band + 1) + 300 * ground.truth(step) + date + add).astype(np.uint16)
            href = site.put(f"{name}/{asset}.tif", values, transform, ground.crs, nodata=0, compress=compress)
            assets[asset] = {"href": href, "type": "image/tiff; application=geotiff", **extra}
    scl = np.full(ground.size, 4, np.uint8)
    if cloud is not None:
        scl[cloud] = 9
    assets[scl_name] = {"href": site.put(f"{name}/SCL.tif", scl, ground.transform, ground.crs, nodata=0)}
    share = 0.0 if cloud is None else 100 * float(cloud.mean())
    return site.add(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": collection,
            "geometry": footprint(ground.transform, ground.size, ground.crs),
            "properties": {
                "datetime": f"{day}T10:20:31Z",
                "eo:cloud_cover": share,
                "earthsearch:boa_offset_applied": True,
                **properties,
            },
            "assets": assets,
            "links": [],
        }
    )


def add_worldcover(site: Site, ground: Ground = HERE, *, year: int = 2021, name: str = "wc") -> dict[str, Any]:
    """A product in degrees, 10 m pixels, whose classes 10, 40 and 80 are those of the ground; half a degree around."""
    moved = pyproj.Transformer.from_crs(ground.crs, "EPSG:4326", always_xy=True)
    left, top = ground.transform @ (-20, -20)
    right, bottom = ground.transform @ (ground.size[1] + 20, ground.size[0] + 20)
    west, south, east, north = moved.transform_bounds(left, bottom, right, top)
    side = 1 / 12000
    height, width = int((north - south) / side), int((east - west) / side)
    transform = Affine(side, 0, west, 0, -side, north)
    lon, lat = transform @ tuple(v + 0.5 for v in np.meshgrid(np.arange(width), np.arange(height)))
    back = pyproj.Transformer.from_crs("EPSG:4326", ground.crs, always_xy=True)
    x, y = back.transform(lon, lat)
    row, col = np.floor(-y / ground.pixel).astype(int), np.floor(x / ground.pixel).astype(int)
    values = np.array([10, 40, 80], np.uint8)[class_at(row, col)]
    href = site.put(f"{name}/map.tif", values, transform, "EPSG:4326", nodata=0)
    return site.add(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"{name}-{year}",
            "collection": "esa-worldcover",
            "geometry": dict(mapping(box(west, south, east, north))),
            "properties": {"datetime": None, "start_datetime": f"{year}-01-01T00:00:00Z"},
            "assets": {"map": {"href": href}},
            "links": [],
        }
    )


OLI = ("blue", "green", "red", "nir08", "swir16", "swir22")
FLAGS = ("fill", "dilated", "cirrus", "cloud", "cloud_shadow", "snow", "clear", "water")  # of QA_PIXEL, from bit 0
LAND = Ground(size=(61, 47), pixel=30.0)


def add_landsat(
    site: Site, name: str, day: str, ground: Ground = LAND, *, qa: NDArray[Any] | None = None, **properties: Any
) -> dict[str, Any]:
    """An item of Level 1 as USGS has it: PAN has 2n − 1 pixels, whose centres are those of MS and between them.

    Values of MS are 1000·(band + 1) + MS row, of PAN 5000 + PAN row. qa: QA_PIXEL (h, w), with bit 6 where clear.
    """
    h, w = ground.size
    assets: dict[str, Any] = {}
    for band, asset in enumerate(OLI):
        values = (1000 * (band + 1) + np.arange(h)[:, None] + np.zeros((h, w))).astype(np.uint16)
        assets[asset] = {"href": site.put(f"{name}/{asset}.TIF", values, ground.transform, ground.crs, nodata=0)}
    fine = ground.transform @ Affine.translation(0.25, 0.25) @ Affine.scale(0.5)
    pan = (5000 + np.arange(2 * h - 1)[:, None] + np.zeros((2 * h - 1, 2 * w - 1))).astype(np.uint16)
    assets["pan"] = {"href": site.put(f"{name}/pan.TIF", pan, fine, ground.crs, nodata=0)}
    flags = np.full((h, w), 64, np.uint16) if qa is None else qa.astype(np.uint16)
    fields = [{"name": flag, "offset": bit, "length": 1} for bit, flag in enumerate(FLAGS)]
    href = site.put(f"{name}/QA_PIXEL.TIF", flags, ground.transform, ground.crs, nodata=1)
    assets["qa_pixel"] = {"href": href, "classification:bitfields": fields}
    kept = {"platform": "LANDSAT_9", "landsat:correction": "L1TP", "eo:cloud_cover": 3.0, **properties}
    return site.add(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": "landsat-c2l1",
            "geometry": footprint(ground.transform, ground.size, ground.crs),
            "properties": {"datetime": f"{day}T10:01:02Z", **kept},
            "assets": assets,
            "links": [],
        }
    )


Call = Callable[..., tuple[int, str, str]]


def caller(call: Call, site: Site, folder: Path) -> Call:
    """run(*options) -> exit code, stdout, stderr of `adcdnet acquire`; some options have values unless given."""

    def run(*options: object) -> tuple[int, str, str]:
        words = list(map(str, options))
        given = {
            "--api": site.api,
            "--out": folder / "out",
            "--dates": "2024-05-01/2024-09-30",
            "--labels": "none",
            "--bbox": Ground().bbox(5),
        }
        for other, names in (
            ("--area", ["--bbox"]),
            ("--list", ["--out"]),
            ("--again", ["--bbox", "--dates", "--api"]),
        ):
            if other in words:
                given = {name: value for name, value in given.items() if name not in names}
        if any(word.endswith(".toml") for word in words):  # which names its API
            del given["--api"]
        more = [word for name, value in given.items() if name not in words for word in (name, value)]
        return call("acquire", *words, *more)

    return run


def read(path: Path) -> NDArray[Any]:
    """(bands, h, w)"""
    with rasterio.open(path) as dataset:
        return dataset.read()
