"""Single raster files, read. Only this file, `raster_writer` and `image` open rasters."""

from __future__ import annotations

import copy
import ctypes
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio import _base
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Window
from adcdnet.geo.library_data import PROJ_VARIABLES, ignored
from adcdnet.geo.origins import (
    ALLOW_OUTSIDE,
    FORMATS,
    RASTER_DRIVERS,
    address_of,
    archive_of,
    files_behind,
    head_of,
    is_outside_allowed,
    is_vrt,
    parts_of,
)

BLOCK = 256  # pixels: side of a GeoTIFF tile, and the size up to which overviews are not worth having
MOST_BANDS = 1024
_LARGE = 2**34  # values of an image from which its bytes are counted
_DENSEST = 10**5  # values that a byte can hold, of tiles that are all alike or not written
_VISIBLE = 0.05  # pixels by which a rotation may move the ends of an image and still be ignored
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
            values = read_north_up(self._dataset, self._dataset.indexes, window)
        return values

    @contextmanager
    def looked_up(self, grid: Grid) -> Iterator[Self]:
        """The same at the pixel centres of another grid in any coordinate system, as whole numbers; −1 where it is not.

        InputError where the one system cannot be brought to the other.
        """
        with (
            reading(self.path),
            WarpedVRT(
                self._dataset,
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                resampling=Resampling.nearest,
                src_nodata=self.nodata,
                nodata=-1,
                dtype="float64",
            ) as dataset,
        ):
            there = copy.copy(self)
            there._dataset, there.grid, there.nodata = dataset, grid, -1
            yield there

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
            array = read_north_up(dataset, 1)
        return array, grid if placed else replace(grid, transform=UNPLACED), dataset.nodata


def is_raster(path: Path | str) -> bool:
    """Whether something that exists, or that GDAL knows by its address, opens as a raster. Raises InputError if not."""
    path = Path(path)
    address = address_of(path)
    try:
        _open_allowed(address).close()
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
    """`reference` where both WKT strings mean the same system on the ground, whatever their heights; else `crs`."""
    if crs is None or reference is None:
        return crs
    same = CRS.from_wkt(crs) == CRS.from_wkt(reference) or _without_height(crs) == _without_height(reference)
    return reference if same else crs


def _without_height(crs: str) -> CRS:
    try:
        return CRS.from_wkt(pyproj.CRS.from_wkt(crs).to_2d().to_wkt())
    except (CRSError, ProjError):  # a system that one of the two libraries does not know
        return CRS.from_wkt(crs)


def has_system(crs: CRS | None) -> bool:
    """Whether places in it are known on the earth."""
    return crs is not None and bool(crs.is_geographic or crs.is_projected)


def require_proj() -> None:
    """InputError where the PROJ of rasterio knows no coordinate systems: files would be read and written without."""
    try:
        CRS.from_epsg(4326)
    except CRSError as error:
        names = [name for name in PROJ_VARIABLES if name in ignored or name in os.environ]
        mend = f"unset {' and '.join(names)} before Python starts" if names else "see `adcdnet doctor`"
        raise InputError(
            f"the PROJ of rasterio finds no database of coordinate systems, which is needed; {mend}"
        ) from error


def open_raster(path: Path) -> Any:
    """A raster by its path, or by an address that GDAL knows, such as /vsizip/... or https://..."""
    address = address_of(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a raster file is needed")
    try:
        dataset = _open_allowed(address)
    except (OSError, RasterioError) as error:
        hint = "" if is_outside_allowed() else f"; {FORMATS} are read, and with {ALLOW_OUTSIDE}=1 all that GDAL knows"
        raise InputError(f"{path} cannot be read as a raster: {reason(error)}{hint}") from error
    try:
        _require_content(dataset, address)
    except BaseException:
        dataset.close()
        raise
    if dataset.count == 0 and dataset.subdatasets:
        names = list(dataset.subdatasets)
        dataset.close()
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise InputError(f"{path} holds {len(names)} rasters; name one of them instead: {shown}")
    return dataset


def _require_content(dataset: Any, address: str) -> None:
    """InputError for an image of far more bands or pixels than there can be in so few bytes."""
    if dataset.count > MOST_BANDS:
        raise InputError(
            f"{address} has {dataset.count} bands, {MOST_BANDS} at most are read; extract some with gdal_translate -b"
        )
    values, place = dataset.count * dataset.height * dataset.width, archive_of(address) or Path(address)
    if values <= _LARGE or not place.is_file():
        return
    held = sum(part.stat().st_size for part in parts_of(place).rasters if part.is_file())
    if values > held * _DENSEST:
        raise InputError(
            f"{address} claims {dataset.height}×{dataset.width} pixels and holds {held} bytes, too few for an image of "
            "that size; it is damaged or empty: write it again"
        )


def _open_allowed(address: str) -> Any:
    """As rasterio opens it, where nothing that it names lies elsewhere. RasterioError, and InputError where it does."""
    if is_outside_allowed():
        with quiet():
            return rasterio.open(address)
    local = Path(address).is_file()
    for part in parts_of(Path(address)).rasters[1:] if local else ():
        _require_raster(part, Path(address))
    # a VRT in an archive or on the net cannot be looked at
    return _open_by(address, RASTER_DRIVERS if local else RASTER_DRIVERS[1:])


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open_by(address: str, drivers: Sequence[str]) -> Any:
    """By one of these drivers alone, which `rasterio.open` cannot. InputError where it names overviews elsewhere."""
    with quiet():
        dataset = DatasetReader(address, driver=list(drivers))
    if "OVERVIEW_FILE" in dataset.tags(ns="OVERVIEWS"):
        dataset.close()
        raise InputError(
            f"{address} names a file of overviews, which may be any; take that out of its metadata, or set "
            f"{ALLOW_OUTSIDE}=1 if you trust it"
        )
    return dataset


def _require_raster(part: Path, of: Path) -> None:
    """InputError for a source, overview or mask that GDAL, which may try all its drivers here, may take otherwise."""
    try:
        text = not is_vrt(part) and head_of(part).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"[")
        if part.exists() and (text or not part.is_file()):
            raise RasterioError("it is a text")
        if part.exists():
            _open_by(str(part), RASTER_DRIVERS).close()
    except RasterioError as error:
        raise InputError(
            f"{of} is read with {part}, which is no plain raster ({reason(error)}); take it away, or set "
            f"{ALLOW_OUTSIDE}=1 if you trust it"
        ) from error


def files_of(path: Path) -> list[Path]:
    """All local files that a raster is read from: sources of a VRT, sidecars, the archive that it lies in.

    InputError where some of it lies on the net.
    """
    with open_raster(path) as dataset:
        return files_behind(address_of(path), dataset.files)


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def headers_of(address: str) -> dict[str, str]:
    """What an object store says of an object such as /vsis3/bucket/ms.tif or s3://bucket/ms.tif, by small names.

    GDAL asks, with the rights that it reads with. Nothing is said of what is not there, nor on Windows.
    """
    gdal = ctypes.CDLL(_base.__file__)  # rasterio has no name for this call; its own library leads to GDAL's
    if not hasattr(gdal, "VSIGetFileMetadata"):
        return {}
    gdal.VSIGetFileMetadata.restype = ctypes.POINTER(ctypes.c_char_p)
    found = gdal.VSIGetFileMetadata(re.sub(r"^(\w+)://", r"/vsi\1/", address).encode(), b"HEADERS", None)
    lines = [line.decode("latin-1").partition("=") for line in takewhile(bool, found or ())]
    gdal.CSLDestroy(found)
    return {name.lower(): value for name, _, value in lines}


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
    """The grid of an open raster as `read_north_up` reads it, and whether the file says where it lies.

    InputError where it says so in another way than by a transform.
    """
    _require_rectified(dataset)
    try:
        crs = dataset.crs.to_wkt() if dataset.crs else None
    except CRSError as error:
        require_proj()
        raise InputError(f"{dataset.name} has a coordinate system that cannot be read: {reason(error)}") from error
    if not has_system(dataset.crs):  # which is also what is left of any system without a database of them
        require_proj()
    height, width, t = dataset.height, dataset.width, dataset.transform
    if _is_upright(dataset):
        flipped = Affine(t.a, 0, t.c, 0, t.e, t.f)
        if t.e > 0:
            flipped = flipped @ Affine.translation(0, height) @ Affine.scale(1, -1)
        if t.a < 0:
            flipped = flipped @ Affine.translation(width, 0) @ Affine.scale(-1, 1)
        t = flipped
    return Grid(height, width, t, crs), not dataset.transform.is_identity


def grid_notes(dataset: Any) -> tuple[str, ...]:
    """What is to be said of how a file lies, where its grid is not just as it is in the file."""
    t, name, notes = dataset.transform, Path(dataset.name).name, []
    if _is_upright(dataset):
        if t.e > 0 or t.a < 0:
            ways = " and ".join(way for way, is_so in (("south-up", t.e > 0), ("east to west", t.a < 0)) if is_so)
            notes.append(f"{name} is stored {ways}; it is flipped while it is read, its values stay as they are")
        if t.b != 0 or t.d != 0:
            notes.append(f"{name} is rotated by {_skew(dataset):.1g} pixels over the whole image, which is ignored")
    return tuple(notes)


def read_north_up(
    dataset: Any, bands: int | Sequence[int], window: Window | None = None, *, mask: bool = False, **how: Any
) -> NDArray[Any]:
    """Bands of a window of `grid_of(dataset)`, by default of all of it; or, with `mask`, their masks.

    how: as for rasterio's read. A file that is stored south-up or east to west is flipped.
    """
    rows = cols = 1
    if _is_upright(dataset):
        rows, cols = (-1 if dataset.transform.e > 0 else 1), (-1 if dataset.transform.a < 0 else 1)
    if window is not None:
        row = window.row if rows == 1 else dataset.height - window.row - window.height
        col = window.col if cols == 1 else dataset.width - window.col - window.width
        how["window"] = RasterWindow(col, row, window.width, window.height)
    values: NDArray[Any] = (dataset.read_masks if mask else dataset.read)(bands, **how)
    return values if rows == cols == 1 else values[..., ::rows, ::cols]


def _is_upright(dataset: Any) -> bool:
    """Whether rows run north or south and columns east or west, but for a rotation that moves no pixel visibly."""
    t = dataset.transform
    return not t.is_identity and t.a != 0 and t.e != 0 and _skew(dataset) < _VISIBLE


def _skew(dataset: Any) -> float:
    """By how many pixels a rotation moves the ends of a row or column."""
    t = dataset.transform
    return float(max(abs(t.b) * dataset.height / abs(t.a), abs(t.d) * dataset.width / abs(t.e)))


def _require_rectified(dataset: Any) -> None:
    """InputError where points or formulas say where a raster lies, and no transform does."""
    if not dataset.transform.is_identity:
        return
    points, system = dataset.gcps
    onto = "" if points and system else "-t_srs EPSG:… "
    for is_so, what, how in (
        (bool(points), f"{len(points)} ground control points", "-r cubic"),
        (dataset.rpcs is not None, "RPCs (rational polynomials of the sensor)", "-rpc -to RPC_DEM=dem.tif -r cubic"),
        (bool(dataset.tags(ns="GEOLOCATION")), "geolocation arrays", "-geoloc -r near"),
    ):
        if is_so:
            path = Path(dataset.name)
            raise InputError(
                f"{path} has {what} and no geotransform, which is needed; rectify it first, with "
                f"gdalwarp {how} {onto}{path.name} {path.stem}_rectified.tif"
            )


def raster_window(window: Window) -> RasterWindow:
    return RasterWindow(window.col, window.row, window.width, window.height)
