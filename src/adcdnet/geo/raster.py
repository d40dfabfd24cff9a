"""Single raster files, read. Only this file, `raster_writer` and `image` open rasters."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio import features
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window

BLOCK = 256  # pixels: side of a GeoTIFF tile, and the size up to which overviews are not worth having
UNPLACED = Affine.scale(1, -1)  # given to a raster that does not say where it lies


class RasterReader:
    """A finished raster on one grid, such as a map or its probabilities, open for reading window by window.

    grid, count, nodata, tags: as in the file. A raster that does not say where it lies is laid like such an MS image.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._dataset = open_raster(self.path)
        grid, placed = grid_of(self._dataset)
        self.grid = grid if placed else replace(grid, transform=UNPLACED)
        self.count, self.nodata = int(self._dataset.count), self._dataset.nodata
        self.tags: dict[str, str] = self._dataset.tags()

    def read(self, window: Window) -> NDArray[Any]:
        """(count, h, w) of a window inside the grid. Raises InputError when the file is damaged."""
        with reading(self.path):
            values: NDArray[Any] = self._dataset.read(window=raster_window(window))
        return values

    def close(self) -> None:
        self._dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_band(path: Path | str) -> tuple[NDArray[Any], Grid, float | None]:
    """The whole of a small single-band raster, such as labels, a split or a map: array (h, w), grid, nodata value.

    A raster that does not say where it lies is laid like an MS image that does not. Raises InputError.
    """
    path = Path(path)
    with open_raster(path) as dataset:
        if dataset.count != 1:
            raise InputError(
                f"{path} has {dataset.count} bands; one is needed; extract it, e.g. with gdal_translate -b"
            )
        grid, placed = grid_of(dataset)
        with reading(path):
            array = dataset.read(1)
        return array, grid if placed else replace(grid, transform=UNPLACED), dataset.nodata


def read_map(path: Path | str) -> tuple[NDArray[np.uint8], Grid]:
    """The class values (h, w) of a map, 0 where it has none, and its grid. Raises InputError for what is no map."""
    values, grid, nodata = read_band(path)
    kept = np.where(is_nodata(values, nodata), 0, values)
    if kept.dtype.kind not in "iu" or kept.min() < 0 or kept.max() > 255:
        raise InputError(f"{path} is not a map: whole numbers from 0 to 255 are needed, it holds {values.dtype}")
    return kept.astype(np.uint8), grid


def read_classes(path: Path | str) -> ClassTable | None:
    """The class table that a map written here carries, or None. Raises InputError where it cannot be read."""
    with open_raster(Path(path)) as dataset:
        names = dataset.tags().get("CLASS_NAMES")
        if names is None:
            return None
        try:
            colors = dataset.colormap(1)
        except ValueError:
            colors = {}
    try:
        named = {int(value): str(name) for value, name in json.loads(names).items()}
        safe = ClassTable.of(sorted(named), [named[value] for value in sorted(named)])
    except (ValueError, AttributeError, InputError) as error:
        raise InputError(
            f"{path} carries class names that cannot be read ({' '.join(str(error).split())}); "
            "write the map again, or remove its tag CLASS_NAMES"
        ) from error
    shown = (
        "#{:02x}{:02x}{:02x}".format(*colors[v][:3]) if v in colors else c
        for v, c in zip(safe.values, safe.colors, strict=True)
    )
    return replace(safe, colors=tuple(shown))


def sieve(values: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A map (h, w) whose patches of fewer than `size` pixels are given to their largest neighbour; 0 stays as it is.

    Pixels of one patch share an edge. A patch with nothing but 0 around it stays. Memory: some 10 bytes a pixel.
    """
    sieved: NDArray[np.uint8] = features.sieve(values, size, mask=values != 0)
    return sieved


def is_raster(path: Path | str) -> bool:
    """Whether something that exists, or that GDAL knows by its address, opens as a raster. Raises InputError if not."""
    path = Path(path)
    address = address_of(path)
    try:
        with quiet():
            rasterio.open(address).close()
    except RasterioError:
        return False
    return True


def is_nodata(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Where values are NaN or the nodata value, which may be one that their type cannot hold."""
    missing: NDArray[np.bool_] = np.isnan(values)
    if nodata is not None:
        with np.errstate(over="ignore"):
            missing |= values == nodata
    return missing


def same_crs(crs: str | None, reference: str | None) -> str | None:
    """`reference` where both WKT strings mean the same coordinate system, otherwise `crs`."""
    if crs is not None and reference is not None and CRS.from_wkt(crs) == CRS.from_wkt(reference):
        return reference
    return crs


def address_of(path: Path) -> str:
    """What GDAL takes for a path: itself, or an address such as /vsizip/..., https://..., file:///... or netcdf:...

    InputError where it is none of these and does not exist.
    """
    text = str(path)
    if local := re.match(r"file:/+(?=.)", text):
        path, text = Path("/" + text[local.end() :]), "/" + text[local.end() :]
    if path.exists():
        return text
    if archive := re.match(r"(/vsi\w+)(/.+)", text):
        if any(place.is_file() for place in (Path(archive[2]), *Path(archive[2]).parents)):
            return f"{archive[1]}/{archive[2]}"  # an archive by its absolute path wants two
        return text
    if re.match(r"(\w+\+)?(https?|ftp|s3|gs|az|oss|hdfs|zip|tar|gzip):/", text):
        return re.sub(r":/(?!/)", "://", text)  # a Path makes one slash of two
    if re.match(r"[A-Za-z]\w+:", text):  # of a driver, such as a variable of a NetCDF file or a database
        return text
    raise InputError(f"{path} does not exist; check the path")


def open_raster(path: Path) -> Any:
    """A raster by its path, or by an address that GDAL knows, such as /vsizip/... or https://..."""
    address = address_of(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a raster file is needed")
    with reading(path), quiet():
        dataset = rasterio.open(address)
    if dataset.count == 0 and dataset.subdatasets:
        names = list(dataset.subdatasets)
        dataset.close()
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise InputError(f"{path} holds {len(names)} rasters; name one of them instead: {shown}")
    return dataset


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning of files that say no place, which the scene's notes say. Not for use in threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RasterioError) as error:
        raise InputError(f"{path} cannot be read as a raster: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The innermost cause in one line: rasterio wraps GDAL's message in one that only says that there is one."""
    while isinstance(error, RasterioError) and error.__cause__ is not None:
        error = error.__cause__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def grid_of(dataset: Any) -> tuple[Grid, bool]:
    """The grid of an open raster, and whether the file says where it lies."""
    try:
        crs = dataset.crs.to_wkt() if dataset.crs else None
    except CRSError as error:
        raise InputError(f"{dataset.name} has a coordinate system that cannot be read: {reason(error)}") from error
    return Grid(dataset.height, dataset.width, dataset.transform, crs), not dataset.transform.is_identity


def raster_window(window: Window) -> RasterWindow:
    return RasterWindow(window.col, window.row, window.width, window.height)
