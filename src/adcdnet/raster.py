"""Single GeoTIFF files: read, and written whole. Only this file and `images` open rasters.

What is written stands beside its target until it is finished and has been read back.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.etree import ElementTree
from zlib import crc32

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio import features
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from adcdnet.classes import ClassTable
from adcdnet.errors import InputError
from adcdnet.grid import Grid, Window
from adcdnet.owner import is_gone, owner
from adcdnet.qgis import is_own_style, map_style

BLOCK = 256  # pixels: side of a GeoTIFF tile, and the size up to which overviews are not worth having
UNPLACED = Affine.scale(1, -1)  # given to a raster that does not say where it lies
_NOT_WHOLE = "what was written does not read back whole; the disk is probably full"


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
    """Whether a file that exists opens as a raster. Raises InputError where there is no file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file; name a raster or a file of polygons")
    try:
        with _quiet():
            rasterio.open(path).close()
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


class RasterWriter:
    """A GeoTIFF written in windows that do not overlap: tiled, compressed, with overviews where larger than one tile.

    Everything is written beside the target and moved into place at the end, so that a failure leaves nothing behind
    and an older file as it was. Class names go into a tag and, since a GeoTIFF has no other place for them, into
    <name>.aux.xml, where GDAL looks for them, and with their colours into the style file that QGIS opens with the map;
    one that somebody saved from QGIS stays. Raises InputError where the file cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        grid: Grid,
        *,
        count: int = 1,
        dtype: str = "uint8",
        nodata: float | None = 0,
        classes: ClassTable | None = None,
        descriptions: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.grid, self.count, self.dtype = Path(path), grid, count, np.dtype(dtype)
        self._nodata, self._classes = nodata, classes
        self._descriptions, self._tags = descriptions, dict(tags or {})
        self._written: dict[Window, int] = {}  # checksum of what should be on disk

    def __enter__(self) -> Self:
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder; name a file to write")
        with self._writing():
            self._folder = Path(
                tempfile.mkdtemp(prefix=f".{self.path.name}.{owner()}.", suffix=".part", dir=self.path.parent)
            )
        self._part = self._folder / "raster.tif"
        try:
            with self._writing(), _quiet():
                self._create()
        except BaseException:
            self._discard()
            raise
        return self

    def _create(self) -> None:
        self._dataset = rasterio.open(
            self._part,
            "w",
            driver="GTiff",
            height=self.grid.height,
            width=self.grid.width,
            count=self.count,
            dtype=self.dtype.name,
            nodata=self._nodata,
            crs=None if self.grid.crs is None else CRS.from_user_input(self.grid.crs),
            transform=self.grid.transform,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            compress="deflate",
            predictor=3 if self.dtype.kind == "f" else 2,
            bigtiff="if_safer",
            photometric="minisblack",  # otherwise GDAL takes bands 1-3 for colours and band 4 for transparency
        )
        if self._classes is not None:
            colors = zip(self._classes.values, self._classes.colors, strict=True)
            self._dataset.write_colormap(1, {0: (0, 0, 0, 0), **{v: (*bytes.fromhex(c[1:]), 255) for v, c in colors}})
            names = zip(map(str, self._classes.values), self._classes.names, strict=True)
            self._tags["CLASS_NAMES"] = json.dumps(dict(names), ensure_ascii=False)
        self._dataset.update_tags(**self._tags)
        for band, description in enumerate(self._descriptions or (), 1):
            self._dataset.set_band_description(band, description)

    def write(self, array: ArrayLike, window: Window | None = None) -> None:
        """Write (count, h, w), or (h, w) for a single band, at `window` (default: all of the grid)."""
        window = window or self.grid.window
        values = np.asarray(array)
        if values.ndim == 2:
            values = values[None]
        if values.shape != (self.count, window.height, window.width):
            raise ValueError(f"array {values.shape} does not fill {self.count} bands of {window}")
        values = np.ascontiguousarray(values, dtype=self.dtype)
        with self._writing():
            self._dataset.write(values, window=raster_window(window))
        self._written[window] = crc32(values.data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._writing(), _quiet():
                self._dataset.close()
                if kind is None:
                    self._finish()
        except InputError:
            if kind is None:
                raise  # otherwise what ended the block says more
        finally:
            self._discard()

    def _finish(self) -> None:
        """Add overviews, check that all of it is on disk, move it into place."""
        try:
            whole = self._reads_back(self._build_overviews())
        except Exception as error:  # a file cut short makes rasterio raise anything, a TypeError included
            raise OSError(errno.ENOSPC, _NOT_WHOLE) from error
        if not whole:
            raise OSError(errno.ENOSPC, _NOT_WHOLE)
        aside, styled = (self._part.with_name(f"raster{suffix}") for suffix in (".tif.aux.xml", ".qml"))
        if self._classes is not None:
            aside.write_bytes(_category_names(self._classes))
            styled.write_bytes(map_style(self._classes))
        os.replace(self._part, self.path)
        # what lies beside an older file of this name would be read as part of the new one
        for suffix in (".aux.xml", ".ovr", ".msk"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        if aside.exists():
            os.replace(aside, self.path.with_name(self.path.name + ".aux.xml"))
        style = self.path.with_suffix(".qml")
        if is_own_style(style):
            style.unlink()
        if styled.exists() and not style.exists():
            os.replace(styled, style)
        self._clear()

    def _clear(self) -> None:
        """Remove what killed processes left of this very file; others may be writing it now."""
        ours = re.compile(rf"\.{re.escape(self.path.name)}\.([0-9a-f]{{8}}-\d+)\.[^.]+\.part")
        with suppress(OSError):  # a folder may be writable and yet not list what it holds
            for beside in self.path.parent.iterdir():
                found = ours.fullmatch(beside.name)
                if found and is_gone(found[1]):
                    shutil.rmtree(beside, ignore_errors=True)

    def _build_overviews(self) -> int:
        """Halve until one tile holds all; returns how often."""
        factors = [2**k for k in range(1, 16) if max(self.grid.shape) > BLOCK * 2 ** (k - 1)]
        if factors:
            # whole numbers are codes here: an average of two classes is a third one
            how = Resampling.average if self.dtype.kind == "f" else Resampling.nearest
            with rasterio.open(self._part, "r+") as dataset:
                dataset.build_overviews(factors, how)
        return len(factors)

    def _reads_back(self, levels: int) -> bool:
        """Whether all is on disk. GDAL writes on closing too, and rasterio keeps quiet about a disk full by then."""
        with rasterio.open(self._part) as dataset:
            whole = len(dataset.overviews(1)) == levels and all(
                crc32(dataset.read(window=raster_window(window)).data) == checksum
                for window, checksum in self._written.items()
            )
        for level in range(levels):
            with rasterio.open(self._part, overview_level=level) as dataset:
                for (row, col), block in dataset.block_windows(1):
                    dataset.read(window=block)  # raises where cut short; a missing tile reads as nodata
                    whole &= dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1) is not None
        return whole

    def _discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RasterioError) as error:
            raise InputError(f"{self.path} cannot be written: {reason(error)}") from error


def write_raster(path: Path | str, array: NDArray[Any], grid: Grid, **options: Any) -> None:
    """Write a whole array (h, w) or (count, h, w); options as for `RasterWriter`, dtype as the array's."""
    values = array.astype(np.uint8) if array.dtype == bool else array
    count = 1 if values.ndim == 2 else values.shape[0]
    with RasterWriter(path, grid, count=count, dtype=values.dtype.name, **options) as writer:
        writer.write(values)


def _category_names(classes: ClassTable) -> bytes:
    """GDAL's sidecar file with the names of values 0, 1, 2, ... of band 1."""
    names = dict(zip(classes.values, classes.names, strict=True))
    root = ElementTree.Element("PAMDataset")
    categories = ElementTree.SubElement(ElementTree.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for value in range(classes.values[-1] + 1):
        ElementTree.SubElement(categories, "Category").text = names.get(value, "")
    return bytes(ElementTree.tostring(root, encoding="utf-8"))


def open_raster(path: Path) -> Any:
    """A raster by its path, or by an address that GDAL knows, such as /vsizip/... or https://..."""
    address = re.sub(r"(?<=\w\w):/(?!/)", "://", str(path))  # a Path makes one slash of two
    archive = re.match(r"(/vsi\w+)(/.+)", address)
    if archive and any(place.is_file() for place in (Path(archive[2]), *Path(archive[2]).parents)):
        address = f"{archive[1]}/{archive[2]}"  # an archive by its absolute path wants two
    elif address == str(path) and not address.startswith("/vsi"):
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if path.is_dir():
            raise InputError(f"{path} is a folder; a raster file is needed")
    with reading(path), _quiet():
        return rasterio.open(address)


@contextmanager
def _quiet() -> Iterator[None]:
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
