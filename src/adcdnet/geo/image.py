"""One image of a scene: a raster, or several on one grid; its bands, and which of its pixels are valid."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling

from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Window, mirror
from adcdnet.geo.raster import BLOCK, grid_notes, grid_of, is_nodata, open_raster, read_north_up, reading, same_crs

Files = Path | str | Sequence[Path | str]  # one image: a file, or several on one grid


class Image:
    """One raster of a scene: its grid, the bands that hold data, and what marks a pixel as invalid.

    placed: whether the file says where it lies. descriptions, types: of the bands that hold data.
    with_nodata: whether the file's nodata value marks invalid pixels; otherwise it is a value like others.
    codes: values are not amounts, so that none is made of several.
    """

    def __init__(self, path: Path, *, with_nodata: bool = True, codes: bool = False) -> None:
        self.path, self.paths = path, (path,)
        self._coarser = Resampling.nearest if codes else Resampling.average
        self._dataset = open_raster(path)
        try:
            self._describe(with_nodata)
        except BaseException:
            self.close()
            raise

    def _describe(self, with_nodata: bool) -> None:
        dataset = self._dataset
        self.grid, self.placed = grid_of(dataset)
        self.notes = grid_notes(dataset)
        for dtype in dataset.dtypes:
            if dtype.startswith("complex"):
                raise InputError(f"{self.path} holds complex numbers ({dtype}); write their magnitude to a real raster")
        alpha = [
            band for band, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind == ColorInterp.alpha
        ]
        self._alpha = [band for band in alpha if self._is_mask(band)]
        self.bands = [band for band in dataset.indexes if band not in self._alpha]
        if not self.bands:
            raise InputError(f"{self.path} has no band of data; at least one is needed")
        self.descriptions: tuple[str | None, ...] = tuple(dataset.descriptions[band - 1] for band in self.bands)
        self.types: tuple[str, ...] = tuple(dataset.dtypes[band - 1] for band in self.bands)
        self._nodata: list[float | None] = [
            dataset.nodatavals[band - 1] if with_nodata else None for band in self.bands
        ]
        self._scale = [(dataset.scales[band - 1], dataset.offsets[band - 1]) for band in self.bands]
        if set(self._scale) != {(1.0, 0.0)}:
            shown = " and ".join(f"scale {scale:g}, offset {offset:g}" for scale, offset in sorted(set(self._scale)))
            self.notes += (f"values of {self.path.name} are scaled as its tags say ({shown})",)
        flags = dataset.mask_flag_enums[0]
        self._has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    def _is_mask(self, band: int) -> bool:
        """Whether a band marked as transparency is one, which notes say where that is not plain to see.

        GDAL marks the fourth band of every plain uint8 file so, and copies of it in other types: it may hold data.
        """
        side = min(BLOCK, *self._dataset.shape)
        with reading(self.path):
            sample = self._dataset.read(band, out_shape=(side, side))
        if set(np.unique(sample)) <= {0, np.iinfo(sample.dtype).max if sample.dtype.kind in "iu" else 1}:
            return True
        marked = f"band {band} of {self.path.name} is marked as transparency"
        if self._dataset.count == band == 4 and (sample.dtype == np.uint8 or not _is_mostly_highest(sample)):
            self.notes += (f"{marked} but holds data; used as data",)
            return False
        self.notes += (f"{marked}: it is used as a mask, and pixels are valid where it is above 0",)
        return True

    def of_bands(self, positions: Sequence[int]) -> Self:
        """The same open file with the bands at these positions alone, in this order; others cannot hide a pixel."""
        image = copy.copy(self)
        image.bands = [self.bands[k] for k in positions]
        image._nodata = [self._nodata[k] for k in positions]
        image._scale = [self._scale[k] for k in positions]
        image.descriptions = tuple(self.descriptions[k] for k in positions)
        image.types = tuple(self.types[k] for k in positions)
        return image

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
        extent = extent.within(*self.grid.shape)
        return self._read(extent, (max(1, round(extent.height / factor)), max(1, round(extent.width / factor))))

    def _read_padded(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A window that may reach beyond the file."""
        inside = window.within(*self.grid.shape)
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
        shape = shape or (window.height, window.width)
        with reading(self.path):
            out = (len(self.bands), *shape)
            raw = read_north_up(self._dataset, self.bands, window, out_shape=out, resampling=self._coarser)
            valid = np.ones(shape, dtype=bool)
            if self._has_mask:
                valid &= read_north_up(self._dataset, 1, window, mask=True, out_shape=shape) != 0
            for band in self._alpha:
                valid &= read_north_up(self._dataset, band, window, out_shape=shape) > 0
        for of_band, nodata in zip(raw, self._nodata, strict=True):
            valid &= ~is_nodata(of_band, nodata)
        with np.errstate(over="ignore"):
            values: NDArray[np.float32] = raw.astype(np.float32)
            for of_band, (scale, offset) in zip(values, self._scale, strict=True):
                if (scale, offset) != (1.0, 0.0):
                    of_band *= scale
                    of_band += offset
        valid &= np.isfinite(values).all(axis=0)
        values[:, ~valid] = 0
        return values, valid

    def close(self) -> None:
        self._dataset.close()


class Stack:
    """Several files on one grid as one image, their bands one after another; the rest as of an `Image`.

    order: of the bands, counted from 0 through all files; by default as they come.
    """

    def __init__(self, images: Sequence[Image], order: Sequence[int] | None = None) -> None:
        first = images[0]
        for image in images[1:]:
            if not is_same_grid(image.grid, first.grid, placed=True) or image.placed != first.placed:
                raise InputError(
                    f"{image.path} ({size_of(image.grid)} pixels) is not on the grid of {first.path} "
                    f"({size_of(first.grid)}); files of one image need one grid; warp it, e.g. with gdalwarp"
                )
        self._images = list(images)
        self._order = list(range(sum(len(image.bands) for image in images)) if order is None else order)
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

    def of_bands(self, positions: Sequence[int]) -> Stack:
        """As `Image.of_bands`."""
        images, kept, start = [], [], 0
        for image in self._images:
            own = [k for k in positions if start <= k < start + len(image.bands)]
            images.append(image.of_bands([k - start for k in own]))
            kept += own
            start += len(image.bands)
        return Stack(images, [kept.index(k) for k in positions])

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


def open_image(files: Files, bands: Sequence[str] | None = None) -> Image | Stack:
    """One file, or several as one image. bands: those to use and their order, by number from 1 or by description."""
    paths = [Path(files)] if isinstance(files, Path | str) else [Path(file) for file in files]
    with ExitStack() as stack:
        images = [stack.enter_context(closing(Image(path))) for path in paths]
        image = images[0] if len(images) == 1 else Stack(images)
        chosen = image if bands is None else image.of_bands(_find_bands(image, bands))
        stack.pop_all()
    return chosen


def _find_bands(image: Image | Stack, wanted: Sequence[str]) -> list[int]:
    """Where the bands asked for stand, descriptions in any case of letters. InputError for what is no single band."""
    names = [(name or "").lower() for name in image.descriptions]
    positions: list[int] = []
    for band in (text.strip() for text in wanted):
        if band.isdigit() and 1 <= int(band) <= len(names):
            positions.append(int(band) - 1)
        elif names.count(band.lower()) == 1 and band:
            positions.append(names.index(band.lower()))
        else:
            there = ", ".join(f"{k} {name}".strip() for k, name in enumerate(names, 1))
            raise InputError(f"{image.path} has no single band {band!r}; its bands are {there}; name one of them")
    if not positions or len(set(positions)) < len(positions):
        raise InputError(f"bands of {image.path}: {','.join(wanted)!r} names one twice or none; each is wanted once")
    return positions


def _is_mostly_highest(sample: NDArray[Any]) -> bool:
    """Whether half of what is above 0 is as high as anything, as in a mask with soft edges."""
    above = sample[sample > 0]
    return bool(above.size == 0 or (above == above.max()).mean() >= 0.5)


def is_same_grid(grid: Grid, other: Grid, *, placed: bool) -> bool:
    """Whether two rasters have the same pixels: by size and, where they are placed, to a hundredth of a pixel."""
    if grid.shape != other.shape:
        return False
    if not placed:
        return True
    apart = (~other.transform @ (grid.transform @ corner) for corner in ((0, 0), (grid.width, grid.height)))
    near = bool(np.allclose(list(apart), [(0, 0), (grid.width, grid.height)], rtol=0, atol=0.01))
    return near and same_crs(grid.crs, other.crs) == other.crs


def size_of(grid: Grid) -> str:
    return f"{grid.height}×{grid.width}"
