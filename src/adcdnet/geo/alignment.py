"""Two ways to lay PAN on MS: moved by whole pixels while it is read, or resampled once onto a grid that fits.

A correction is (row, col) as in `register`: what to add to the place of every PAN pixel, in pixels of the fine grid.
Resampling is cubic convolution (GDAL's, Keys with a = −1/2), the shortest kernel that keeps edges sharp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import reproject, transform, transform_bounds

from adcdnet.errors import InputError
from adcdnet.files import refuse_overwriting
from adcdnet.geo.grid import MAX_RATIO, Grid, Window, match, phase_words, tiles
from adcdnet.geo.image import Image
from adcdnet.geo.raster_writer import RasterWriter, files_written
from adcdnet.geo.registration import Registration, measure
from adcdnet.geo.scene import Scene, place

TOO_UNSURE = 0.5  # PAN pixels: a correction whose 95 % interval reaches further on either side is not applied
_TILE = 512  # pixels of the resampled copy at once
_KERNEL = 4  # pixels on every side that a cubic kernel may want, at the coarser of both resolutions
_WIDENED = 0.95  # new pixels per pixel: below, GDAL's kernels grow
_PLANE = "EPSG:3857"  # any one system, for two images that have none

Resampled = Literal["pan", "ms"]


class Aligned(NamedTuple):
    """What `align` wrote. shift: the correction applied; measured: where it comes from, None for one that was given.

    contrast: the share that resampling leaves of the contrast of details 4 pixels wide, see `contrast_left`.
    """

    path: Path
    grid: Grid
    ratio: int
    shift: tuple[float, float]
    measured: Registration | None
    contrast: float
    notes: tuple[str, ...]


def contrast_left(phase: NDArray[np.float64], scale: float = 1.0) -> NDArray[np.float64]:
    """The share that cubic convolution leaves of the contrast of a wave 4 pixels long (a quarter cycle a pixel).

    phase: how far beyond the middle of a pixel the wave is asked for, in pixels; scale: new pixels per pixel, which
    GDAL widens the kernel for where it is below 0.95.
    """
    wide = 1 / scale if scale < _WIDENED else 1.0
    reach = math.ceil(2 * wide)
    at = np.arange(-reach, reach + 1)
    away = np.abs(at - (phase % 1)[..., None]) / wide
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0.0))
    left: NDArray[np.float64] = np.abs((weights * np.exp(0.5j * np.pi * at)).sum(-1) / weights.sum(-1))
    return left


def measured_shift(read: Callable[..., Any], grid: Grid, *, phase: tuple[float, float] = (0.0, 0.0)) -> Registration:
    """The correction, for use. InputError where it cannot be measured, or not to half a PAN pixel."""
    shift = measure(read, *grid.shape, phase=phase)
    if shift is None:
        raise InputError(
            f"the shift of PAN against MS cannot be measured on {grid.height}×{grid.width} MS pixels: too few valid "
            "ones, or too little that both images show; see `adcdnet check`, or go on without the correction"
        )
    if shift.largest_error > TOO_UNSURE:
        raise InputError(
            f"the shift of PAN against MS is measured as {shift.row:+.1f} rows and {shift.col:+.1f} columns, but only "
            f"to ± {shift.largest_error:.1f} PAN pixels, and ± {TOO_UNSURE} is needed; see `adcdnet check`, or go on "
            "without the correction"
        )
    return shift


def fix_shift(scene: Scene) -> Scene:
    """The scene with the whole pixels of the measured correction applied, which its notes say; of the same open files.

    InputError where it cannot be measured well enough.
    """
    shift = measured_shift(scene.read, scene.grid, phase=scene.phase)
    noted = scene.with_notes(
        f"correction of PAN measured: {shift.row:+.2f} rows and {shift.col:+.2f} columns "
        f"(± {shift.largest_error:.2f}) of its pixels",
        *_drift_note(shift),
    )
    return noted.with_pan_moved(*shift.whole)


def note_shift(scene: Scene) -> Scene:
    """The scene, with a note where its PAN lies a whole pixel or more beside MS, as far as that is sure."""
    shift = measure(scene.read, *scene.grid.shape, phase=scene.phase)
    if shift is None or shift.largest_error > TOO_UNSURE or shift.whole == (0, 0):
        return scene
    return scene.with_notes(
        f"PAN lies beside MS: a correction of {shift.row:+.1f} rows and {shift.col:+.1f} columns of its pixels was "
        "measured; --fix-shift applies it, `adcdnet check` says more"
    )


def align(
    ms: Path | str,
    pan: Path | str,
    *,
    out: Path | str,
    resample: Resampled = "pan",
    shift: tuple[float, float] | Literal["auto"] = (0.0, 0.0),
) -> Aligned:
    """Write a copy of one image on a grid that fits the other's, which stays as it is; float32, nan where unknown.

    resample: which one. shift: the correction to apply to PAN, in pixels of the finer grid; "auto" measures it.
    Neither original is touched. InputError where a file cannot be used, the two have no ground in common, a ratio
    that is nearest is not from 1 to 8, the one that stays is not north-up, or the shift cannot be measured.
    """
    out = Path(out)
    refuse_overwriting(files_written(out), (Path(ms), Path(pan)))
    with ExitStack() as stack:
        ms_image = Image(Path(ms))
        stack.callback(ms_image.close)
        pan_image = Image(Path(pan))
        stack.callback(pan_image.close)
        ms_grid, pan_grid, notes = place(ms_image, pan_image)
        pair = _Pair(ms_image, pan_image, ms_grid, pan_grid, resample)
        measured = measured_shift(pair.read, pair.coarse) if shift == "auto" else None
        row, col = (measured.row, measured.col) if measured else (float(shift[0]), float(shift[1]))
        if not math.isfinite(row + col):
            raise InputError(f"shift is {row}, {col}; two finite numbers are needed, in pixels of the finer grid")
        pair.write(out, row, col)
        contrast = pair.contrast(row, col)
    notes = (*ms_image.notes, *pan_image.notes, *notes, *(_drift_note(measured) if measured else ()))
    if row == col == 0:
        notes += _needless_note(ms_grid, pan_grid)
    return Aligned(out, pair.target, pair.ratio, (row, col), measured, contrast, notes)


def _drift_note(shift: Registration) -> tuple[str, ...]:
    if shift.largest_drift <= TOO_UNSURE:
        return ()
    return (
        f"the correction changes by up to {shift.largest_drift:.1f} PAN pixels from the middle of the scene to its "
        "corners, which no single shift can mend",
    )


def _needless_note(ms: Grid, pan: Grid) -> tuple[str, ...]:
    """Where the originals can be used as they are, which costs nothing."""
    try:
        matched = match(ms, pan, any_phase=True)
    except InputError:  # what `align` is for
        return ()
    off = f"PAN pixels lie {phase_words(matched.phase)} off the MS edges, but " if any(matched.phase) else ""
    return (f"{off}MS and PAN fit as they are: `train` and `predict` take both without a copy",)


class _Pair:
    """Two images, one of which is resampled. coarse, target: the MS grid of the ground both cover, and the copy's."""

    def __init__(self, ms: Image, pan: Image, ms_grid: Grid, pan_grid: Grid, resample: Resampled) -> None:
        if (ms_grid.crs is None) != (pan_grid.crs is None):
            with_crs, without = (pan, ms) if ms_grid.crs is None else (ms, pan)
            raise InputError(
                f"{with_crs.path} has a coordinate system and {without.path} has none; both or neither must; "
                f"assign it to {without.path.name}, e.g. with gdal_edit -a_srs"
            )
        if resample == "ms" and not ms.placed:
            raise InputError(
                f"neither {ms.path.name} nor {pan.path.name} says where it lies, so only PAN can be resampled onto the "
                "other; use --resample pan, or give both a transform, e.g. with gdal_translate -a_ullr"
            )
        self.resample = resample
        self.moved, self.kept = (pan, ms) if resample == "pan" else (ms, pan)
        self.source, kept = (pan_grid, ms_grid) if resample == "pan" else (ms_grid, pan_grid)
        if not kept.is_north_up:
            both = not self.source.is_north_up
            other = "" if both else f"use --resample {'ms' if resample == 'pan' else 'pan'}, or "
            raise InputError(
                f"{self.kept.path} stays as it is and must be north-up, but it is rotated; {other}"
                f"warp {'both' if both else 'it'} to a north-up grid first, e.g. with gdalwarp"
            )
        exact = _pixels_across(kept, self.source)
        exact = exact if resample == "pan" else 1 / exact
        self.ratio = round(exact)
        if not 1 <= self.ratio <= MAX_RATIO:
            raise InputError(
                f"one MS pixel is as wide as {exact:.3g} PAN pixels; about 1 to {MAX_RATIO} are needed; "
                f"{'exchange the two' if exact < 1 else 'average PAN to larger pixels first, e.g. with gdalwarp -tr'}"
            )
        whole = kept if resample == "pan" else _coarsen(kept, self.ratio)
        self.window = _common(whole, self.source)
        if self.window.height <= 0 or self.window.width <= 0:
            raise InputError(
                f"{ms.path} and {pan.path} have no ground in common; check that both are of the same place and say so"
            )
        self.coarse = whole.crop(self.window)
        self.target = self.coarse.refine(self.ratio) if resample == "pan" else self.coarse
        self.scales = _scales(self.target, self.source)

    def read(self, window: Window) -> tuple[Any, Any, Any, Any]:
        """ms, pan and their masks in a window of the coarse grid, the moved image without any shift."""
        scale = self.ratio if self.resample == "ms" else 1
        at = window.shift(self.window.row, self.window.col).scale(scale)
        kept = self.kept.read(at, self.kept.grid.window, repeat_edge=True)
        resampled = self._resample(window.scale(self.ratio if self.resample == "pan" else 1), 0, 0)
        valid = np.isfinite(resampled).all(axis=0)
        moved = np.where(valid, resampled, np.float32(0)), valid
        (ms, ms_valid), (pan, pan_valid) = (kept, moved) if self.resample == "pan" else (moved, kept)
        return ms, pan, ms_valid, pan_valid

    def write(self, out: Path, row: float, col: float) -> None:
        """The resampled copy, PAN corrected by (row, col) against MS."""
        placed = self.target if self.kept.placed else replace(self.target, transform=Affine.identity())
        text = f"cubic convolution of {self.moved.path.name} onto the grid of {self.kept.path.name}, ratio {self.ratio}"
        names = [name or "" for name in self.moved.descriptions]
        with RasterWriter(
            out,
            placed,
            count=len(self.moved.bands),
            dtype="float32",
            nodata=math.nan,
            descriptions=names if any(names) else None,
            tags={"ALIGNED": f"{text}, PAN corrected by {row:+.3f} rows and {col:+.3f} columns"},
        ) as writer:
            seen = False
            for window in tiles(*self.target.shape, _TILE):
                values = self._resample(window, row, col)
                seen = seen or bool(np.isfinite(values).any())
                writer.write(values, window)
            if not seen:
                raise InputError(
                    f"a copy of {self.moved.path.name} with PAN corrected by {row:g} rows and {col:g} columns would be "
                    "empty: give a smaller --shift, and check its nodata value"
                )

    def contrast(self, row: float, col: float) -> float:
        """As `contrast_left`, the mean over the pixels of a row and of a column in the middle of the copy."""
        asked = self._asked(row, col)
        middles = [np.arange(n) + 0.5 for n in asked.shape]
        rows, _ = _on(self.source, asked, middles[0], np.full(asked.height, asked.width / 2))
        _, cols = _on(self.source, asked, np.full(asked.width, asked.height / 2), middles[1])
        left = (contrast_left(at - 0.5, scale) for at, scale in zip((rows, cols), self.scales, strict=True))
        return float(np.mean([along.mean() for along in left]))

    def _asked(self, row: float, col: float) -> Grid:
        """Where in the source a copy's pixels come from, PAN corrected by (row, col)."""
        if self.resample == "pan":  # the corrected image shows at a place what the file has `row`, `col` before it
            row, col = -row, -col
        else:  # to move PAN is to move MS the other way
            row, col = row / self.ratio, col / self.ratio
        return replace(self.target, transform=self.target.transform @ Affine.translation(col, row))

    def _resample(self, window: Window, row: float, col: float) -> NDArray[np.float32]:
        """(bands, h, w) of a window of the target, nan where the source says nothing."""
        here = self._asked(row, col).crop(window)
        resampled = np.full((len(self.moved.bands), *here.shape), np.nan, np.float32)
        needed = _covered(here, self.source)
        if needed.height <= 0 or needed.width <= 0:
            return resampled
        values, valid = self.moved.read(needed, self.source.window, repeat_edge=True)
        values[:, ~valid] = np.nan
        reproject(
            values,
            resampled,
            src_transform=self.source.crop(needed).transform,
            src_crs=self.source.crs or _PLANE,
            src_nodata=math.nan,
            dst_transform=here.transform,
            dst_crs=here.crs or _PLANE,
            dst_nodata=math.nan,
            resampling=Resampling.cubic,
            tolerance=0,  # exact, so that the result does not depend on where tiles end
            XSCALE=repr(self.scales[1]),  # which GDAL otherwise guesses, for each tile anew
            YSCALE=repr(self.scales[0]),
        )
        return resampled


def _coarsen(grid: Grid, ratio: int) -> Grid:
    """The grid `ratio` times coarser; what is left at the lower and right edge is cut off."""
    return Grid(grid.height // ratio, grid.width // ratio, grid.transform @ Affine.scale(ratio), grid.crs)


def _pixels_across(grid: Grid, other: Grid) -> float:
    """How many pixels of `other` lie side by side on one pixel of `grid`, in the middle of `other`."""
    row, col = other.height / 2, other.width / 2
    corners = [other.transform @ (x, y) for x, y in ((col, row), (col + 1, row), (col, row + 1))]
    x, y = _transformed(other, grid, *zip(*corners, strict=True))
    area = abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]))
    return math.sqrt(abs(grid.transform.determinant) / area)


def _scales(grid: Grid, source: Grid) -> tuple[float, float]:
    """How many pixels of `grid` lie along one row's height and one column's width of `source`, in its middle."""
    row, col = grid.height / 2, grid.width / 2
    rows, cols = _on(source, grid, np.array([row, row, row + 1]), np.array([col, col + 1, col]))
    per_row, per_col = (math.hypot(along[1] - along[0], along[2] - along[0]) for along in (rows, cols))
    return round(1 / per_row, 6), round(1 / per_col, 6)  # equal pixels give equal figures, whatever their size


def _on(source: Grid, grid: Grid, rows: NDArray[Any], cols: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and columns of `source` at those of `grid`; whole numbers are edges of pixels."""
    t, back = grid.transform, ~source.transform
    x, y = map(np.asarray, _transformed(grid, source, t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f))
    return back.d * x + back.e * y + back.f, back.a * x + back.b * y + back.c


def _transformed(source: Grid, target: Grid, x: Any, y: Any) -> tuple[list[float], list[float]]:
    """Points of one coordinate system in that of another grid."""
    if source.crs == target.crs:
        return list(x), list(y)
    try:
        moved = transform(source.crs, target.crs, x, y)
    except (CRSError, RasterioError) as error:
        raise InputError(
            f"one image cannot be brought to the coordinate system of the other: {' '.join(str(error).split())}; "
            "check what systems they name"
        ) from error
    return moved[0], moved[1]


def _common(grid: Grid, other: Grid) -> Window:
    """The pixels of a north-up grid that `other` reaches."""
    return _covered(other, grid, margin=0)


def _covered(grid: Grid, source: Grid, margin: int | None = None) -> Window:
    """The pixels of `source` on the ground of `grid`, with what the kernel wants around them."""
    x, y = zip(*(grid.transform @ corner for corner in _corners(grid)), strict=True)
    left, bottom, right, top = min(x), min(y), max(x), max(y)
    if grid.crs != source.crs:
        left, bottom, right, top = transform_bounds(grid.crs, source.crs, left, bottom, right, top)
    inverse = ~source.transform
    cols, rows = zip(
        *(inverse @ corner for corner in ((left, top), (right, top), (left, bottom), (right, bottom))), strict=True
    )
    if margin is None:
        scale = max(1.0, (max(rows) - min(rows)) / grid.height, (max(cols) - min(cols)) / grid.width)
        margin = math.ceil(_KERNEL * scale)
    row, col = max(0, math.floor(min(rows) + 1e-6) - margin), max(0, math.floor(min(cols) + 1e-6) - margin)
    stop_row = min(source.height, math.ceil(max(rows) - 1e-6) + margin)
    stop_col = min(source.width, math.ceil(max(cols) - 1e-6) + margin)
    return Window(row, col, stop_row - row, stop_col - col)


def _corners(grid: Grid) -> tuple[tuple[int, int], ...]:
    return (0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)
