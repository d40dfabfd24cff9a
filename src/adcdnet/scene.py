"""The only file that opens or writes rasters: an MS and a PAN image as one scene, and GeoTIFF files written whole.

Both images keep their own resolution. Windows are in MS pixels of the common extent, the ground both images cover in
whole MS pixels. Any thread may use an open file, one thread at a time: GDAL keeps the place it reads in the dataset.
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
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from xml.etree import ElementTree
from zlib import crc32

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio import features
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from adcdnet.classes import ClassTable
from adcdnet.errors import InputError
from adcdnet.grid import Grid, Window, match, mirror
from adcdnet.owner import is_gone, owner
from adcdnet.qgis import is_own_style, map_style

_BLOCK = 256  # pixels: side of a GeoTIFF tile, and the size up to which overviews are not worth having
Files = Path | str | Sequence[Path | str]  # one image: a file, or several on one grid
UNPLACED = Affine.scale(1, -1)  # given to a raster that does not say where it lies
_NOT_WHOLE = "what was written does not read back whole; the disk is probably full"


class Pixels(NamedTuple):
    """One window of a scene, h × w MS pixels. Where a mask is False, every band of that image is 0."""

    ms: NDArray[np.float32]  # (bands, h, w)
    pan: NDArray[np.float32]  # (bands, h·ratio, w·ratio)
    ms_valid: NDArray[np.bool_]  # (h, w)
    pan_valid: NDArray[np.bool_]  # (h·ratio, w·ratio)

    def inner(self, border: int) -> Pixels:
        """What lies at least so many MS pixels from the edges."""
        if not border:
            return self
        ratio = self.pan_valid.shape[0] // self.ms_valid.shape[0]
        coarse, fine = (slice(border, -border),) * 2, (slice(border * ratio, -border * ratio),) * 2
        return Pixels(self.ms[:, *coarse], self.pan[:, *fine], self.ms_valid[coarse], self.pan_valid[fine])

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(h, w): the MS pixel and all ratio² PAN pixels on it are valid."""
        return self.valid_targets(1)

    def valid_targets(self, step: int) -> NDArray[np.bool_]:
        """(h·step, w·step), step a divisor of ratio: the MS pixel of a target and all PAN pixels on it are valid."""
        h, w = (step * n for n in self.ms_valid.shape)
        whole = self.pan_valid.reshape(h, self.pan_valid.shape[0] // h, w, -1).all(axis=(1, 3))
        return np.logical_and(self.ms_valid.repeat(step, 0).repeat(step, 1), whole)


class Scene:
    """An MS and a PAN raster of the same ground, open for reading; also a context manager.

    grid, ms_full, pan_full: the MS grid of the common extent, and the two whole rasters.
    ratio: PAN pixels per MS pixel and axis. placed: whether the files say where they lie. paths: MS and PAN file, then
    all others that the pixels come from. files: the same by what they are, "ms", "pan", "mask" or "ms 1", "ms 2".
    chosen: the bands asked for, of "ms" and "pan", where they were.
    notes: what a user should know about the pair, one sentence each. pan_shift: rows, columns that PAN is moved by.
    """

    def __init__(self, ms: Image | Stack, pan: Image | Stack) -> None:
        self.ms_full, self.pan_full, notes = place(ms, pan)
        self.notes: tuple[str, ...] = ms.notes + pan.notes + notes
        found = match(self.ms_full, self.pan_full)
        self.ratio, self.placed = found.ratio, ms.placed
        self.grid = self.ms_full.crop(found.ms)
        self.ms_bands, self.pan_bands = len(ms.bands), len(pan.bands)
        self.ms_descriptions, self.pan_descriptions = ms.descriptions, pan.descriptions
        self.ms_types, self.pan_types = ms.types, pan.types
        self.name = f"{ms.path.resolve().parent.name}/{ms.path.name}"
        self.files = {**_named("ms", ms.paths), **_named("pan", pan.paths)}
        self.chosen: dict[str, list[str]] = {}
        self._mask: Image | None = None
        self.pan_shift = (0, 0)
        self._ms, self._pan, self._match = ms, pan, found
        if found.ms != self.ms_full.window or found.pan != self.pan_full.window:
            self.notes += (
                f"MS covers {_size(self.ms_full)}, PAN {_size(self.pan_full)} pixels; "
                f"working on the common extent of {_size(self.grid)} MS pixels",
            )

    @classmethod
    def open(
        cls,
        ms: Files,
        pan: Files,
        *,
        mask: Path | str | None = None,
        ms_bands: Sequence[str] | None = None,
        pan_bands: Sequence[str] | None = None,
    ) -> Scene:
        """Open two co-registered rasters, or several files on one grid in the place of one.

        mask: a raster on the grid of MS or PAN; where it is not 0, neither image is valid. ms_bands, pan_bands: the
        bands to use and their order, each a number from 1 (counted through all files) or its description.
        Raises InputError when a file or the pair cannot be used.
        """
        with ExitStack() as stack:
            ms_image, pan_image = (stack.enter_context(closing(_image(files))) for files in (ms, pan))
            for image, wanted in ((ms_image, ms_bands), (pan_image, pan_bands)):
                if wanted is not None:
                    image.choose(_positions(image, wanted))
            scene = cls(ms_image, pan_image)
            given = {"ms": ms_bands, "pan": pan_bands}
            scene.chosen = {what: list(wanted) for what, wanted in given.items() if wanted is not None}
            if mask is not None:
                scene._mask = stack.enter_context(closing(Image(Path(mask))))
                scene._place_mask(scene._mask)
            stack.pop_all()
        return scene

    @property
    def paths(self) -> tuple[Path, ...]:
        rest = [path for path in self.files.values() if path not in (self._ms.path, self._pan.path)]
        return (self._ms.path, self._pan.path, *rest)

    def _place_mask(self, mask: Image) -> None:
        """Find out which grid a mask is on."""
        if len(mask.bands) != 1:
            raise InputError(f"mask {mask.path} has {len(mask.bands)} bands; one is needed, 0 where pixels are valid")
        mask.ignore_nodata()
        own = replace(mask.grid, crs=same_crs(mask.grid.crs, self.grid.crs))
        fits = [_is_same(own, grid, placed=mask.placed) for grid in (self.ms_full, self.pan_full)]
        if not any(fits):
            raise InputError(
                f"mask {mask.path} ({_size(own)} pixels) is neither on the grid of MS ({_size(self.ms_full)}) nor on "
                f"that of PAN ({_size(self.pan_full)}); warp it to one of them, e.g. with gdalwarp -r near"
            )
        self._mask_is_fine = not fits[0]
        self.files["mask"] = mask.path

    @property
    def fine_grid(self) -> Grid:
        """The PAN grid of the common extent."""
        return self.grid.refine(self.ratio)

    def read(self, window: Window, *, repeat_edge: bool = True) -> Pixels:
        """One window of the common extent, in MS pixels; beyond it the images are mirrored, each at its own resolution.

        repeat_edge: how they are mirrored, see `grid.mirror`. Only what the window needs is read from disk.
        Raises InputError when a file turns out to be damaged.
        """
        ms, ms_valid = self._ms.read(window, self._match.ms, repeat_edge=repeat_edge)
        pan, pan_valid = self._pan.read(window.scale(self.ratio), self._match.pan, repeat_edge=repeat_edge)
        pixels = Pixels(ms, pan, ms_valid, pan_valid)
        if self._mask is not None:
            at, extent = (window.scale(self.ratio), self._match.pan) if self._mask_is_fine else (window, self._match.ms)
            _hide(pixels, *self._mask.read(at, extent, repeat_edge=repeat_edge))
        return pixels

    def correct_pan(self, rows: int, cols: int) -> None:
        """From now on read PAN `rows` of its pixels further down and `cols` further right; the rest is invalid."""
        self.pan_shift = (self.pan_shift[0] + rows, self.pan_shift[1] + cols)
        self._match = replace(self._match, pan=self._match.pan.shift(-rows, -cols))
        self.notes += (f"PAN is read moved by {rows:+d} rows and {cols:+d} columns of its pixels",)

    def overview(self, side: int) -> Pixels:
        """The whole common extent, no more than `side` pixels a side in either image; the two sizes are independent.

        Means of the pixels that fall into one, read at the resolution wanted: memory grows with `side` alone.
        """
        ms, ms_valid = self._ms.overview(self._match.ms, side)
        pan, pan_valid = self._pan.overview(self._match.pan, side)
        pixels = Pixels(ms, pan, ms_valid, pan_valid)
        if self._mask is not None:
            extent = self._match.pan if self._mask_is_fine else self._match.ms
            _hide(pixels, *self._mask.overview(extent, side))
        return pixels

    def close(self) -> None:
        """Close all files."""
        for image in (self._ms, self._pan, self._mask):
            if image is not None:
                image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Image:
    """One raster of a scene: its grid, the bands that hold data, and what marks a pixel as invalid.

    placed: whether the file says where it lies. descriptions, types: of the bands that hold data.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.paths = path, (path,)
        self._dataset = _open(path)
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        dataset = self._dataset
        self.grid, self.placed = _grid(dataset)
        self.notes: tuple[str, ...] = ()
        for dtype in dataset.dtypes:
            if dtype.startswith("complex"):
                raise InputError(f"{self.path} holds complex numbers ({dtype}); write their magnitude to a real raster")
        alpha = [
            band for band, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind == ColorInterp.alpha
        ]
        self._alpha = alpha[0] if alpha and self._is_mask(alpha[0]) else None
        if alpha and self._alpha is None:
            self.notes += (
                f"band {alpha[0]} of {self.path.name} is marked as transparency but holds data; used as data",
            )
        self.bands = [band for band in dataset.indexes if band != self._alpha]
        if not self.bands:
            raise InputError(f"{self.path} has no band of data; at least one is needed")
        self.descriptions: tuple[str | None, ...] = tuple(dataset.descriptions[band - 1] for band in self.bands)
        self.types: tuple[str, ...] = tuple(dataset.dtypes[band - 1] for band in self.bands)
        self._nodata = [dataset.nodatavals[band - 1] for band in self.bands]
        self._scale = [(dataset.scales[band - 1], dataset.offsets[band - 1]) for band in self.bands]
        if set(self._scale) != {(1.0, 0.0)}:
            shown = " and ".join(f"scale {scale:g}, offset {offset:g}" for scale, offset in sorted(set(self._scale)))
            self.notes += (f"values of {self.path.name} are scaled as its tags say ({shown})",)
        flags = dataset.mask_flag_enums[0]
        self._has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    def _is_mask(self, band: int) -> bool:
        """Whether a band marked as transparency is one. GDAL marks the fourth band of every plain uint8 file so."""
        side = min(_BLOCK, *self._dataset.shape)
        with _reading(self.path):
            sample = self._dataset.read(band, out_shape=(side, side))
        return set(np.unique(sample)) <= {0, np.iinfo(sample.dtype).max if sample.dtype.kind in "iu" else 1}

    def choose(self, positions: Sequence[int]) -> None:
        """From now on the bands at these positions are all there are, in this order; others cannot hide a pixel."""
        self.bands, self._nodata, self._scale = (
            [of[k] for k in positions] for of in (self.bands, self._nodata, self._scale)
        )
        self.descriptions = tuple(self.descriptions[k] for k in positions)
        self.types = tuple(self.types[k] for k in positions)

    def ignore_nodata(self) -> None:
        """From now on the nodata value is a value like others."""
        self._nodata = [None] * len(self.bands)

    def read(
        self, window: Window, extent: Window, *, repeat_edge: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values (bands, h, w) and mask (h, w) of a window relative to `extent`, mirrored beyond it.

        The extent may reach beyond the file; nothing is valid there.
        """
        rows = mirror(np.arange(window.row, window.row + window.height), extent.height, repeat_edge=repeat_edge)
        cols = mirror(np.arange(window.col, window.col + window.width), extent.width, repeat_edge=repeat_edge)
        top, left = int(rows.min()), int(cols.min())
        inside = Window(top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left)
        values, valid = self._read_padded(inside.shift(extent.row, extent.col))
        rows, cols = rows - top, cols - left
        return values[:, rows[:, None], cols], valid[rows[:, None], cols]

    def overview(self, extent: Window, side: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values (bands, h, w) and mask (h, w) of an extent; h and w are those of the file or at most `side`."""
        factor = max(1.0, max(extent.height, extent.width) / side)
        extent = _within(extent, self.grid)
        return self._read(extent, (max(1, round(extent.height / factor)), max(1, round(extent.width / factor))))

    def _read_padded(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A window that may reach beyond the file."""
        inside = _within(window, self.grid)
        if inside == window:
            return self._read(window)
        values = np.zeros((len(self.bands), window.height, window.width), np.float32)
        valid = np.zeros((window.height, window.width), bool)
        if inside.height > 0 and inside.width > 0:
            rows, cols = inside.shift(-window.row, -window.col).slices
            values[:, rows, cols], valid[rows, cols] = self._read(inside)
        return values, valid

    def _read(
        self, window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A window inside the file, made coarser to `shape` if there is one."""
        at, shape = _raster_window(window), shape or (window.height, window.width)
        with _reading(self.path):
            raw = self._dataset.read(
                self.bands, window=at, out_shape=(len(self.bands), *shape), resampling=Resampling.average
            )
            valid = np.ones(shape, dtype=bool)
            if self._has_mask:
                valid &= self._dataset.read_masks(1, window=at, out_shape=shape) != 0
            if self._alpha is not None:
                valid &= self._dataset.read(self._alpha, window=at, out_shape=shape) != 0
        for band, nodata in zip(raw, self._nodata, strict=True):
            valid &= ~is_nodata(band, nodata)
        with np.errstate(over="ignore"):
            values: NDArray[np.float32] = raw.astype(np.float32)
            for band, (scale, offset) in zip(values, self._scale, strict=True):
                if (scale, offset) != (1.0, 0.0):
                    band *= scale
                    band += offset
        valid &= np.isfinite(values).all(axis=0)
        values[:, ~valid] = 0
        return values, valid

    def close(self) -> None:
        self._dataset.close()


class Stack:
    """Several files on one grid as one image, their bands one after another; the rest as of an `Image`."""

    def __init__(self, images: Sequence[Image]) -> None:
        first = self._first = images[0]
        for image in images[1:]:
            if not _is_same(image.grid, first.grid, placed=True) or image.placed != first.placed:
                raise InputError(
                    f"{image.path} ({_size(image.grid)} pixels) is not on the grid of {first.path} "
                    f"({_size(first.grid)}); files of one image need one grid; warp it, e.g. with gdalwarp"
                )
        self._images, self._order = list(images), list(range(sum(len(image.bands) for image in images)))
        self.path, self.paths = first.path, tuple(image.path for image in images)
        self.grid, self.placed = first.grid, first.placed
        self.notes = tuple(note for image in images for note in image.notes)

    @property
    def bands(self) -> list[int]:
        """Numbers from 1, counted through all files."""
        return [k + 1 for k in self._order]

    @property
    def descriptions(self) -> tuple[str | None, ...]:
        """A file of one band without a description goes by its name."""
        of_all: list[str | None] = []
        for image in self._images:
            alone = len(image.bands) == 1 and not image.descriptions[0]
            of_all += [image.path.stem] if alone else image.descriptions
        return tuple(of_all[k] for k in self._order)

    @property
    def types(self) -> tuple[str, ...]:
        of_all = [kind for image in self._images for kind in image.types]
        return tuple(of_all[k] for k in self._order)

    def choose(self, positions: Sequence[int]) -> None:
        """As `Image.choose`."""
        kept, start = [], 0
        for image in self._images:
            own = [k for k in positions if start <= k < start + len(image.bands)]
            start += len(image.bands)
            kept += own
            image.choose([k - start + len(image.bands) for k in own])
        self._order = [kept.index(k) for k in positions]

    def read(
        self, window: Window, extent: Window, *, repeat_edge: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As `Image.read`."""
        return self._joined([image.read(window, extent, repeat_edge=repeat_edge) for image in self._used])

    def overview(self, extent: Window, side: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As `Image.overview`."""
        return self._joined([image.overview(extent, side) for image in self._used])

    @property
    def _used(self) -> list[Image]:
        return [image for image in self._images if image.bands]

    def _joined(
        self, parts: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """All bands, valid where every file is."""
        values, valid = np.concatenate([of[0] for of in parts])[self._order], np.all([of[1] for of in parts], axis=0)
        values[:, ~valid] = 0
        return values, valid

    def close(self) -> None:
        for image in self._images:
            image.close()


def _image(files: Files) -> Image | Stack:
    """One file, or several as one image."""
    if isinstance(files, Path | str):
        return Image(Path(files))
    paths = [Path(file) for file in files]
    if len(paths) == 1:
        return Image(paths[0])
    with ExitStack() as stack:
        opened = Stack([stack.enter_context(closing(Image(path))) for path in paths])
        stack.pop_all()
    return opened


def _named(what: str, paths: Sequence[Path]) -> dict[str, Path]:
    """Paths by what they are, numbered where there are several."""
    return {what: paths[0]} if len(paths) == 1 else {f"{what} {k}": path for k, path in enumerate(paths, 1)}


def _positions(image: Image | Stack, wanted: Sequence[str]) -> list[int]:
    """Where the bands asked for stand, by number from 1 or by description in any case of letters."""
    names = [(name or "").lower() for name in image.descriptions]
    found = []
    for band in (text.strip() for text in wanted):
        if band.isdigit() and 1 <= int(band) <= len(names):
            found.append(int(band) - 1)
        elif names.count(band.lower()) == 1 and band:
            found.append(names.index(band.lower()))
        else:
            known = ", ".join(f"{k} {name}".strip() for k, name in enumerate(names, 1))
            raise InputError(f"{image.path} has no single band {band!r}; its bands are {known}; name one of them")
    if not found or len(set(found)) < len(found):
        raise InputError(f"bands of {image.path}: {','.join(wanted)!r} names one twice or none; each is wanted once")
    return found


def _is_same(grid: Grid, other: Grid, *, placed: bool) -> bool:
    """Whether two rasters have the same pixels: by size and, where they are placed, to a hundredth of a pixel."""
    if grid.shape != other.shape:
        return False
    if not placed:
        return True
    apart = (~other.transform @ (grid.transform @ corner) for corner in ((0, 0), (grid.width, grid.height)))
    near = bool(np.allclose(list(apart), [(0, 0), (grid.width, grid.height)], rtol=0, atol=0.01))
    return near and same_crs(grid.crs, other.crs) == other.crs


def _hide(pixels: Pixels, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    """Make invalid what a mask (1, h, w) of the same ground hides: a pixel any of whose mask pixels is not 0."""
    hidden = (values[0] != 0) | ~valid
    for image, mask in ((pixels.ms, pixels.ms_valid), (pixels.pan, pixels.pan_valid)):
        there = _any_within(_any_within(hidden, mask.shape[0], 0), mask.shape[1], 1)
        mask &= ~there
        image[:, there] = 0


def _any_within(hidden: NDArray[np.bool_], size: int, axis: int) -> NDArray[np.bool_]:
    """One axis brought to another size: any of the pixels that fall into a coarser one, the one a finer one lies in."""
    have = hidden.shape[axis]
    if have <= size:
        return np.asarray(hidden.take(np.arange(size) * have // size, axis), bool)
    within: NDArray[np.bool_] = np.logical_or.reduceat(hidden, np.arange(size) * have // size, axis)
    return within


def place(ms: Image | Stack, pan: Image | Stack) -> tuple[Grid, Grid, tuple[str, ...]]:
    """Both grids in one spelling of the coordinate system, and notes; without any place, images lie on each other."""
    if ms.placed != pan.placed:
        with_place, without = (ms, pan) if ms.placed else (pan, ms)
        raise InputError(
            f"{with_place.path} says where its pixels lie and {without.path} does not; both or neither must; "
            f"give {without.path.name} a transform, e.g. with gdal_translate -a_ullr"
        )
    if not ms.placed:
        scale = Affine.scale(ms.grid.width / pan.grid.width, -ms.grid.height / pan.grid.height)
        note = "neither image says where it lies; taken to cover the same ground, corner to corner"
        return replace(ms.grid, transform=UNPLACED), replace(pan.grid, transform=scale), (note,)
    notes: tuple[str, ...] = ()
    if ms.grid.crs is None and pan.grid.crs is None:
        notes = ("neither image has a coordinate system",)
    return ms.grid, replace(pan.grid, crs=same_crs(pan.grid.crs, ms.grid.crs)), notes


class RasterReader:
    """A finished raster on one grid, such as a map or its probabilities, open for reading window by window.

    grid, count, nodata, tags: as in the file. A raster that does not say where it lies is laid like such an MS image.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._dataset = _open(self.path)
        grid, placed = _grid(self._dataset)
        self.grid = grid if placed else replace(grid, transform=UNPLACED)
        self.count, self.nodata = int(self._dataset.count), self._dataset.nodata
        self.tags: dict[str, str] = self._dataset.tags()

    def read(self, window: Window) -> NDArray[Any]:
        """(count, h, w) of a window inside the grid. Raises InputError when the file is damaged."""
        with _reading(self.path):
            values: NDArray[Any] = self._dataset.read(window=_raster_window(window))
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
    with _open(path) as dataset:
        if dataset.count != 1:
            raise InputError(
                f"{path} has {dataset.count} bands; one is needed; extract it, e.g. with gdal_translate -b"
            )
        grid, placed = _grid(dataset)
        with _reading(path):
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
    with _open(Path(path)) as dataset:
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
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
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
            self._dataset.write(values, window=_raster_window(window))
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
        factors = [2**k for k in range(1, 16) if max(self.grid.shape) > _BLOCK * 2 ** (k - 1)]
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
                crc32(dataset.read(window=_raster_window(window)).data) == checksum
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
            raise InputError(f"{self.path} cannot be written: {_reason(error)}") from error


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


def _open(path: Path) -> Any:
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
    with _reading(path), _quiet():
        return rasterio.open(address)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without rasterio's warning of files that say no place, which the scene's notes say. Not for use in threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RasterioError) as error:
        raise InputError(f"{path} cannot be read as a raster: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: rasterio wraps GDAL's message in one that only says that there is one."""
    while isinstance(error, RasterioError) and error.__cause__ is not None:
        error = error.__cause__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def _grid(dataset: Any) -> tuple[Grid, bool]:
    """The grid of an open raster, and whether the file says where it lies."""
    try:
        crs = dataset.crs.to_wkt() if dataset.crs else None
    except CRSError as error:
        raise InputError(f"{dataset.name} has a coordinate system that cannot be read: {_reason(error)}") from error
    return Grid(dataset.height, dataset.width, dataset.transform, crs), not dataset.transform.is_identity


def _within(window: Window, grid: Grid) -> Window:
    """The part of a window inside a grid; of size 0 or less where there is none."""
    row, col = max(0, window.row), max(0, window.col)
    stop_row, stop_col = min(grid.height, window.row + window.height), min(grid.width, window.col + window.width)
    return Window(row, col, stop_row - row, stop_col - col)


def _raster_window(window: Window) -> RasterWindow:
    return RasterWindow(window.col, window.row, window.width, window.height)


def _size(grid: Grid) -> str:
    return f"{grid.height}×{grid.width}"
