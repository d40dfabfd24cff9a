"""Cloud-optimised GeoTIFF files, written whole: what is written stands beside its target until it has been read back.

Windows come in any order, and overviews last. A cloud-optimised file has its directories and overviews first, so that
a reader far away finds all in one request. So a plain GeoTIFF is written, and GDAL copies it in that order.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.etree import ElementTree
from zlib import crc32

import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.shutil import copy as copy_raster

from adcdnet.errors import InputError
from adcdnet.files import HeldFolder, move_into_place, remove_left, require_file_name
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window
from adcdnet.geo.qgis_style import is_own_style, map_style, xml_text
from adcdnet.geo.raster import BLOCK, has_system, quiet, raster_window, reason, require_proj

_BESIDE = ".aux.xml", ".ovr", ".msk"  # what GDAL reads with a file of the name before them
_NOT_WHOLE = "what was written does not read back whole; the disk is probably full"


class RasterWriter:
    """A cloud-optimised GeoTIFF written in windows that do not overlap: tiled, compressed, with overviews where larger
    than one tile: the commonest class, or the mean of measures.

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
        require_file_name(self.path)
        with self._writing():
            self._folder = HeldFolder.make(self.path.parent, f".{self.path.name}.", ".part")
        self._plain, self._part = (self._folder.path / name for name in ("plain.tif", "raster.tif"))
        try:
            with self._writing(), quiet():
                self._create()
        except BaseException:
            self._discard()
            raise
        return self

    def _create(self) -> None:
        crs = None if self.grid.crs is None else CRS.from_user_input(self.grid.crs)
        if crs is not None and not has_system(crs):
            require_proj()
        self._dataset = rasterio.open(
            self._plain,
            "w",
            driver="GTiff",
            height=self.grid.height,
            width=self.grid.width,
            count=self.count,
            dtype=self.dtype.name,
            nodata=self._nodata,
            crs=crs,
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
            self._dataset.set_band_description(band, xml_text(description))

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
            with self._writing(), quiet():
                self._dataset.close()
                if kind is None:
                    self._finish()
        except InputError:
            if kind is None:
                raise  # otherwise what ended the block says more
        finally:
            self._discard()

    def _finish(self) -> None:
        """Add overviews, put all in order, check that it is on disk, move it into place."""
        try:
            levels = self._build_overviews()
            whole = _overviews_are_whole(self._plain, levels)  # a copy would have what is missing as nodata
            self._put_in_order()
            whole &= _overviews_are_whole(self._part, levels) and self._reads_back()
        except Exception as error:  # a file cut short makes rasterio raise anything, a TypeError included
            raise OSError(errno.ENOSPC, _NOT_WHOLE) from error
        if not whole:
            raise OSError(errno.ENOSPC, _NOT_WHOLE)
        self._check_system()
        aside, styled = (self._part.with_name(f"raster{suffix}") for suffix in (".tif.aux.xml", ".qml"))
        if self._classes is not None:
            aside.write_bytes(_category_names(self._classes))
            styled.write_bytes(map_style(self._classes))
        move_into_place(self._part, self.path)
        # what lies beside an older file of this name would be read as part of the new one
        for suffix in _BESIDE:
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        if aside.exists():
            move_into_place(aside, self.path.with_name(self.path.name + ".aux.xml"))
        style = self.path.with_suffix(".qml")
        if is_own_style(style):
            style.unlink()
        if styled.exists() and not style.exists():
            move_into_place(styled, style)
        self._clear()

    def _clear(self) -> None:
        """Remove what killed processes left of this very file; others may be writing it now."""
        ours = re.compile(rf"\.{re.escape(self.path.name)}\.[^.]+\.part")
        with suppress(OSError):  # a folder may be writable and yet not list what it holds
            remove_left(beside for beside in self.path.parent.iterdir() if ours.fullmatch(beside.name))

    def _build_overviews(self) -> int:
        """Halve until one tile holds all; returns how often."""
        factors = [2**k for k in range(1, 16) if max(self.grid.shape) > BLOCK * 2 ** (k - 1)]
        if factors:
            # whole numbers are codes here: an average of two classes is a third one
            how = Resampling.average if self.dtype.kind == "f" else Resampling.nearest
            if self._classes is not None:
                how = Resampling.mode
            with rasterio.open(self._plain, "r+") as dataset:
                dataset.build_overviews(factors, how)
        return len(factors)

    def _put_in_order(self) -> None:
        """Copy the plain file to a cloud-optimised one, with its overviews."""
        options = {"blocksize": BLOCK, "compress": "deflate", "predictor": "yes", "bigtiff": "if_safer"}
        copy_raster(self._plain, self._part, driver="COG", overviews="force_use_existing", **options)
        self._plain.unlink()

    def _reads_back(self) -> bool:
        """Whether all is on disk. GDAL writes on closing too, and rasterio keeps quiet about a disk full by then."""
        with rasterio.open(self._part) as dataset:
            return all(
                crc32(dataset.read(window=raster_window(window)).data) == checksum
                for window, checksum in self._written.items()
            )

    def _check_system(self) -> None:
        """InputError where the file has lost the coordinate system that it was given."""
        if self.grid.crs is None or not has_system(CRS.from_user_input(self.grid.crs)):
            return
        with rasterio.open(self._part) as dataset:
            kept = has_system(dataset.crs)
        if not kept:
            require_proj()
            raise InputError(
                f"{self.path} would be written without its coordinate system, which a GeoTIFF cannot hold; "
                "give the images one that has an EPSG number, e.g. with gdalwarp -t_srs"
            )

    def _discard(self) -> None:
        self._folder.remove()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RasterioError) as error:
            raise InputError(f"{self.path} cannot be written: {reason(error)}") from error


def _overviews_are_whole(path: Path, levels: int) -> bool:
    """Whether all tiles of so many overviews are there; raises where one is cut short."""
    with rasterio.open(path) as dataset:
        whole = len(dataset.overviews(1)) == levels
    for level in range(levels):
        with rasterio.open(path, overview_level=level) as dataset:
            for (row, col), block in dataset.block_windows(1):
                dataset.read(window=block)  # raises where cut short; a missing tile reads as nodata
                whole &= dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1) is not None
    return whole


def files_written(path: Path) -> list[Path]:
    """The file of a `RasterWriter`, and those beside it that it may write or take away."""
    return [path, *(path.with_name(path.name + suffix) for suffix in _BESIDE)]


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
        ElementTree.SubElement(categories, "Category").text = xml_text(names.get(value, ""))
    return bytes(ElementTree.tostring(root, encoding="utf-8"))
