"""An MS and a PAN image as one scene.

Both images keep their own resolution. Windows are in MS pixels of the common extent, the ground both images cover in
whole MS pixels. Any thread may use an open scene, one thread at a time: GDAL keeps the place it reads in the dataset.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Window, match, mirror, phase_words, tiles
from adcdnet.geo.image import Files, Image, Stack, is_same_grid, open_image, size_of
from adcdnet.geo.masks import BIT_TYPES, PLAIN, MaskRule
from adcdnet.geo.raster import UNPLACED, same_crs

_SAMPLE = 512  # pixels a side that say how much a mask hides
MUCH_HIDDEN = 0.5  # share of hidden pixels that deserves a word


class Pixels(NamedTuple):
    """One window of a scene, h × w MS pixels. Where a mask is False, every band of that image is 0."""

    ms: NDArray[np.float32]  # (bands, h, w)
    pan: NDArray[np.float32]  # (bands, h·ratio, w·ratio)
    ms_valid: NDArray[np.bool_]  # (h, w)
    pan_valid: NDArray[np.bool_]  # (h·ratio, w·ratio)

    def inner(self, border: int) -> Pixels:
        """What lies at least so many MS pixels from the edges."""
        height, width = self.ms_valid.shape
        return self.part(Window(border, border, height - 2 * border, width - 2 * border))

    def part(self, window: Window) -> Pixels:
        """A window of it, in MS pixels from its own corner."""
        ratio = self.pan_valid.shape[0] // self.ms_valid.shape[0]
        coarse, fine = window.slices, window.scale(ratio).slices
        return Pixels(self.ms[:, *coarse], self.pan[:, *fine], self.ms_valid[coarse], self.pan_valid[fine])

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(h, w): the MS pixel and all ratio² PAN pixels on it are valid."""
        return self.valid_targets(1)

    def valid_targets(self, step: int) -> NDArray[np.bool_]:
        """(h·step, w·step), step a divisor of ratio: the MS pixel of a target and all PAN pixels on it are valid."""
        h, w = (step * n for n in self.ms_valid.shape)
        own = self.pan_valid.reshape(h, self.pan_valid.shape[0] // h, w, -1)
        whole = np.all(np.all(own, axis=1), axis=2)  # faster than both at once
        return np.logical_and(self.ms_valid.repeat(step, 0).repeat(step, 1), whole)


class _Mask(NamedTuple):
    """Where neither image is valid. fine: on the grid of PAN, not of MS. rule: which of its values hide."""

    image: Image
    fine: bool
    rule: MaskRule


class Scene:
    """An MS and a PAN raster of the same ground, open for reading; also a context manager.

    grid, ms_full, pan_full: the MS grid of the common extent, and the two whole rasters.
    fine_grid: the PAN grid of the common extent, as PAN lies. phase: how far that lies off the MS grid, see `grid`.
    ratio: PAN pixels per MS pixel and axis. placed: whether the files say where they lie. paths: MS and PAN file, then
    all others that the pixels come from. files: the same by what they are, "ms", "pan", "mask" or "ms 1", "ms 2".
    chosen: the bands asked for, of "ms" and "pan", where they were. mask_rule: what of the mask hides; hidden: the
    share of the common extent that it hides, about.
    notes: what a user should know about the pair, one sentence each. pan_shift: rows, columns that PAN is moved by.

    `with_notes` and `with_pan_moved` make scenes of the same open files: closing one of them closes all.
    """

    def __init__(
        self,
        ms: Image | Stack,
        pan: Image | Stack,
        mask: Image | None = None,
        *,
        mask_rule: MaskRule = PLAIN,
        chosen: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.ms_full, self.pan_full, notes = place(ms, pan)
        matched = match(self.ms_full, self.pan_full, any_phase=True)
        self.ratio, self.placed = matched.ratio, ms.placed
        self.grid, self.phase = self.ms_full.crop(matched.ms), matched.phase
        self.fine_grid = self.pan_full.crop(matched.pan) if any(self.phase) else self.grid.refine(self.ratio)
        if any(self.phase):
            notes += (f"PAN pixels lie {phase_words(self.phase)} off the MS edges; used as they are",)
        if matched.ms != self.ms_full.window or matched.pan != self.pan_full.window:
            notes += (
                f"MS covers {size_of(self.ms_full)}, PAN {size_of(self.pan_full)} pixels; "
                f"working on the common extent of {size_of(self.grid)} MS pixels",
            )
        self.notes = ms.notes + pan.notes + notes
        self.ms_bands, self.pan_bands = len(ms.bands), len(pan.bands)
        self.ms_descriptions, self.pan_descriptions = ms.descriptions, pan.descriptions
        self.ms_types, self.pan_types = ms.types, pan.types
        self.name = f"{ms.path.resolve().parent.name}/{ms.path.name}"
        self.files = {**named("ms", ms.paths), **named("pan", pan.paths), **({"mask": mask.path} if mask else {})}
        self.chosen = {image: list(bands) for image, bands in (chosen or {}).items()}
        self.pan_shift = (0, 0)
        self._ms, self._pan, self._match = ms, pan, matched
        self.mask_rule, self.hidden = mask_rule, 0.0
        self._mask = None if mask is None else _Mask(mask, self._is_fine(mask), mask_rule)
        if self._mask is not None:
            self.hidden = self._share_hidden(self._mask)

    @classmethod
    def open(
        cls,
        ms: Files,
        pan: Files,
        *,
        mask: Path | str | None = None,
        mask_values: Sequence[int] | None = None,
        mask_bits: Sequence[int] | None = None,
        ms_bands: Sequence[str] | None = None,
        pan_bands: Sequence[str] | None = None,
    ) -> Scene:
        """Open two co-registered rasters, or several files on one grid in the place of one.

        mask: a raster on the grid of MS or PAN; where it is not 0, neither image is valid. mask_values, mask_bits: hide
        only where it has one of these values, or any of these bits (0 is the lowest). ms_bands, pan_bands: the bands
        to use and their order, each a number from 1 (counted through all files) or its description.
        Raises InputError when a file or the pair cannot be used, or the mask hides everything.
        """
        rule = MaskRule.of(mask_values, mask_bits)
        if mask is None and not rule.is_plain:
            raise InputError(f"{rule} of a mask are named, and no mask; name the file of the mask, or leave them out")
        given = {"ms": ms_bands, "pan": pan_bands}
        with ExitStack() as stack:
            ms_image, pan_image = (
                stack.enter_context(closing(open_image(files, bands)))
                for files, bands in ((ms, ms_bands), (pan, pan_bands))
            )
            mask_image = None
            if mask is not None:
                mask_image = stack.enter_context(closing(Image(Path(mask), with_nodata=False, codes=not rule.is_plain)))
            chosen = {image: bands for image, bands in given.items() if bands is not None}
            scene = cls(ms_image, pan_image, mask_image, mask_rule=rule, chosen=chosen)
            stack.pop_all()
        return scene

    @property
    def paths(self) -> tuple[Path, ...]:
        rest = [path for path in self.files.values() if path not in (self._ms.path, self._pan.path)]
        return (self._ms.path, self._pan.path, *rest)

    def _is_fine(self, mask: Image) -> bool:
        """Whether a mask is on the grid of PAN and not on that of MS. InputError where it is on neither."""
        if len(mask.bands) != 1:
            raise InputError(f"mask {mask.path} has {len(mask.bands)} bands; one is needed, 0 where pixels are valid")
        own = replace(mask.grid, crs=same_crs(mask.grid.crs, self.grid.crs))
        fits = [is_same_grid(own, grid, placed=mask.placed) for grid in (self.ms_full, self.pan_full)]
        if not any(fits):
            raise InputError(
                f"mask {mask.path} ({size_of(own)} pixels) is neither on the grid of MS ({size_of(self.ms_full)}) "
                f"nor on that of PAN ({size_of(self.pan_full)}); warp it to one of them, e.g. with gdalwarp -r near"
            )
        if self.mask_rule.bits and mask.types[0] not in BIT_TYPES:
            raise InputError(
                f"mask {mask.path} holds {mask.types[0]}; bits need {', '.join(BIT_TYPES)}: copy it to one"
            )
        return not fits[0]

    def grid_of(self, targets: str) -> Grid:
        """That of MS for "coarse" targets, that of PAN for "fine" ones."""
        return self.fine_grid if targets == "fine" else self.grid

    def _share_hidden(self, mask: _Mask) -> float:
        """About how much of the common extent a mask hides. InputError where it hides all."""
        extent = self._match.pan if mask.fine else self._match.ms
        values, valid = mask.image.overview(extent, _SAMPLE)
        hidden = mask.rule.hides(values[0]) | ~valid
        if hidden.all():  # and so are the pixels in between, or not
            windows = tiles(extent.height, extent.width, _SAMPLE)
            parts = (mask.image.read(window, extent, repeat_edge=True) for window in windows)
            if all((mask.rule.hides(part[0]) | ~inside).all() for part, inside in parts):
                raise InputError(
                    f"mask {mask.image.path} hides every pixel: {mask.rule} hides, and it holds {_some(values)}; "
                    "name those that hide with --mask-values or --mask-bits, or leave it out"
                )
        share = float(hidden.mean())
        if share > MUCH_HIDDEN:
            self.notes += (
                f"mask {mask.image.path.name} hides {share:.0%} of the scene ({mask.rule}; it holds {_some(values)}); "
                "if that is not meant, name what hides with --mask-values or --mask-bits",
            )
        return share

    def read(self, window: Window, *, repeat_edge: bool = True) -> Pixels:
        """One window of the common extent, in MS pixels; beyond it the images are mirrored, each at its own resolution.

        repeat_edge: how they are mirrored, see `grid.mirror`. Only what the window needs is read from disk.
        Raises InputError when a file turns out to be damaged.
        """
        ms, ms_valid = self._ms.read(window, self._match.ms, repeat_edge=repeat_edge)
        pan, pan_valid = self._pan.read(window.scale(self.ratio), self._match.pan, repeat_edge=repeat_edge)
        pixels = Pixels(ms, pan, ms_valid, pan_valid)
        if self._mask is not None:
            fine = self._mask.fine
            if any(self.phase):
                self._hide_touched(pixels, self._mask, window, repeat_edge=repeat_edge)
                return pixels
            at, extent = (window.scale(self.ratio), self._match.pan) if fine else (window, self._match.ms)
            _hide(pixels, self._mask.rule, *self._mask.image.read(at, extent, repeat_edge=repeat_edge))
        return pixels

    def _hide_touched(self, pixels: Pixels, mask: _Mask, window: Window, *, repeat_edge: bool) -> None:
        """As `_hide`, where edges do not meet: a mask pixel lies on parts of more pixels, and hides all of them."""
        extent, margin = (self._match.pan, self.ratio) if mask.fine else (self._match.ms, 1)
        axes = [
            _touching(first, n, size, self.ratio, phase, fine=mask.fine, repeat_edge=repeat_edge)
            for first, n, size, phase in zip(
                (window.row, window.col), (window.height, window.width), self.grid.shape, self.phase, strict=True
            )
        ]
        (top, bottom), (left, right) = ((min(map(np.min, all_of)), max(map(np.max, all_of)) + 1) for all_of in axes)
        box = Window(int(top), int(left), int(bottom - top), int(right - left))
        values, valid = mask.image.read(box.shift(margin, margin), extent.grow(margin), repeat_edge=repeat_edge)
        hidden = np.zeros((box.height, box.width), bool)  # beyond the mask's file nothing is
        there = box.shift(extent.row, extent.col).within(*mask.image.grid.shape)
        own = there.shift(-extent.row - box.row, -extent.col - box.col).slices
        hidden[own] = (mask.rule.hides(values[0]) | ~valid)[own]
        for number, (image, seen) in enumerate(((pixels.ms, pixels.ms_valid), (pixels.pan, pixels.pan_valid))):
            rows, cols = (
                [at - first for at in all_of[number]] for all_of, first in zip(axes, (top, left), strict=True)
            )
            tall = np.logical_or.reduce([hidden[at] for at in rows])
            covered = np.logical_or.reduce([tall[:, at] for at in cols])
            seen &= ~covered
            image[:, covered] = 0

    def with_notes(self, *notes: str) -> Self:
        """The same scene, of which more is to be said."""
        scene = copy.copy(self)
        scene.notes = self.notes + notes
        return scene

    def with_pan_moved(self, rows: int, cols: int) -> Self:
        """The scene with PAN read `rows` of its pixels further down and `cols` further right; the rest is invalid."""
        scene = self.with_notes(f"PAN is read moved by {rows:+d} rows and {cols:+d} columns of its pixels")
        scene.pan_shift = (self.pan_shift[0] + rows, self.pan_shift[1] + cols)
        scene._match = replace(self._match, pan=self._match.pan.shift(-rows, -cols))
        return scene

    def overview(self, side: int) -> Pixels:
        """The whole common extent, no more than `side` pixels a side in either image; the two sizes are independent.

        Means of the pixels that fall into one, read at the resolution wanted: memory grows with `side` alone.
        """
        ms, ms_valid = self._ms.overview(self._match.ms, side)
        pan, pan_valid = self._pan.overview(self._match.pan, side)
        pixels = Pixels(ms, pan, ms_valid, pan_valid)
        if self._mask is not None:
            extent = self._match.pan if self._mask.fine else self._match.ms
            _hide(pixels, self._mask.rule, *self._mask.image.overview(extent, side))
        return pixels

    def close(self) -> None:
        """Close all files, also for scenes that were made from this one or that it was made from."""
        for image in (self._ms, self._pan, self._mask and self._mask.image):
            if image is not None:
                image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _some(values: NDArray[np.float32]) -> str:
    """The first few different values."""
    different = np.unique(values[np.isfinite(values)])
    return ", ".join(f"{value:g}" for value in different[:9]) + (", ..." if len(different) > 9 else "")


def named(what: str, paths: Sequence[Path]) -> dict[str, Path]:
    """Paths by what they are, numbered where there are several."""
    return {what: paths[0]} if len(paths) == 1 else {f"{what} {k}": path for k, path in enumerate(paths, 1)}


def _hide(pixels: Pixels, rule: MaskRule, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    """Make invalid what a mask (1, h, w) of the same ground hides: a pixel any of whose mask pixels hides."""
    hidden = rule.hides(values[0]) | ~valid
    for image, mask in ((pixels.ms, pixels.ms_valid), (pixels.pan, pixels.pan_valid)):
        there = _any_within(_any_within(hidden, mask.shape[0], 0), mask.shape[1], 1)
        mask &= ~there
        image[:, there] = 0


def _touching(
    first: int, count: int, size: int, ratio: int, phase: float, *, fine: bool, repeat_edge: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Along one axis the mask pixels that touch each MS pixel of a window (k, count), and each PAN pixel of it
    (k', count·ratio), in pixels of the mask from the common extent on. fine: the mask is on the grid of PAN."""
    ms = mirror(np.arange(first, first + count), size, repeat_edge=repeat_edge)
    pan = mirror(np.arange(first * ratio, (first + count) * ratio), size * ratio, repeat_edge=repeat_edge)
    if fine:
        return ms * ratio + np.arange(-(phase > 0), ratio + (phase < 0))[:, None], pan[None]
    begins = np.floor((pan + phase) / ratio), np.ceil((pan + 1 + phase) / ratio) - 1
    return ms[None], np.stack(begins).astype(np.int64)


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
