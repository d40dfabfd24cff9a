"""Items as one pair on one grid: their files opened and compared, then read tile by tile, the best pixel of several.

An MS pixel and all PAN pixels on it, in all bands, come from one item. A median of several dates is not offered: it
would take MS and PAN of one pixel from different days, and so show what neither of them saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adcdnet.acquire.catalogue import Sensor
from adcdnet.acquire.items import Item, Offset, mask_rule, offset_of
from adcdnet.acquire.remote import RemoteRaster, window_of
from adcdnet.acquire.search import Catalogue
from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Match, Window, match, same_phase, tiles
from adcdnet.geo.image import is_same_grid, size_of
from adcdnet.geo.masks import MaskRule
from adcdnet.geo.raster import is_nodata, same_crs

TILE = 1024  # MS pixels a side that are read at once
_CLEAR = 3  # of `_Seen.use`
_NEAR = 0.01  # of an MS pixel: how far two grids may miss each other and still be one


class Misfit(InputError):
    """An item whose own files do not lie on each other; another item may do."""


def open_asset(catalogue: Catalogue, item: Item, asset: str) -> RemoteRaster:
    """The file of an asset, open. Raises InputError."""
    address = item.address(asset, catalogue.api.alternate)

    def sign(refused: str) -> str:
        return catalogue.signed(address, item.collection, refused=refused)

    return RemoteRaster(address, sign, options=catalogue.api.options, account=catalogue.api.account)


@dataclass(frozen=True)
class Opened:
    """The files of one item, open, and how they lie. mask_fine: on the grid of PAN. rule: what of the mask hides.

    offsets: what is added to each file of MS, then of PAN. notes: what its catalogue says otherwise than its files.
    """

    item: Item
    ms: tuple[RemoteRaster, ...]
    pan: tuple[RemoteRaster, ...]
    mask: RemoteRaster | None
    mask_fine: bool
    rule: MaskRule
    match: Match
    offsets: tuple[Offset, ...]
    notes: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """Of the whole MS."""
        return self.ms[0].grid

    def close(self) -> None:
        for raster in (*self.ms, *self.pan, *([self.mask] if self.mask else [])):
            raster.close()


def open_item(catalogue: Catalogue, item: Item, sensor: Sensor, threads: int) -> Opened:
    """All files of an item. InputError where one cannot be read, or where they do not lie on each other."""
    with ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(open_asset, catalogue, item, asset) for asset in sensor.assets]
        rasters = []
        for future in futures:
            rasters.append(future.result())
            stack.callback(rasters[-1].close)
        ms, pan = tuple(rasters[: len(sensor.ms)]), tuple(rasters[len(sensor.ms) : len(sensor.ms) + len(sensor.pan)])
        mask = rasters[-1] if sensor.mask else None
        for image in (ms, pan):
            for raster in image[1:]:
                if not is_same_grid(raster.grid, image[0].grid, placed=True):
                    raise Misfit(
                        f"item {item.id}: {raster.address} ({size_of(raster.grid)} pixels) is not on the grid of "
                        f"{image[0].address} ({size_of(image[0].grid)}); leave the item out"
                    )
        pan_grid = replace(pan[0].grid, crs=same_crs(pan[0].grid.crs, ms[0].grid.crs))
        try:
            matched = match(ms[0].grid, pan_grid, names=(f"MS of {item.id}", "PAN"), any_phase=True)
        except InputError as error:
            raise Misfit(str(error)) from error
        fine = False
        if mask is not None:
            fits = [is_same_grid(mask.grid, grid, placed=True) for grid in (ms[0].grid, pan[0].grid)]
            if not any(fits) or mask.count != 1:
                raise Misfit(f"item {item.id}: its mask is neither on the grid of MS nor on that of PAN")
            fine = not fits[0]
        offsets = tuple(offset_of(item, asset, sensor.offset) for asset in (*sensor.ms, *sensor.pan))
        lies = [
            note for asset, raster in zip(sensor.assets, rasters, strict=True) for note in _lies(item, asset, raster)
        ]
        stack.pop_all()
    return Opened(item, ms, pan, mask, fine, mask_rule(item, sensor), matched, offsets, tuple(lies[:1]))


def _lies(item: Item, asset: str, raster: RemoteRaster) -> list[str]:
    """Where a catalogue says that a file lies otherwise than it does. The file counts."""
    shape, transform = (item.assets[asset].get(name) for name in ("proj:shape", "proj:transform"))
    wrong = isinstance(shape, Sequence) and list(shape) != list(raster.grid.shape)
    if isinstance(transform, Sequence) and all(isinstance(number, int | float) for number in transform[:6]):
        own = raster.grid.transform
        near = np.isclose(transform[:6], own[:6], rtol=0, atol=own.a / 100) if len(transform) >= 6 else [False]
        wrong |= not all(near)
    if wrong:
        return [f"the catalogue says that {item.id} ({asset}) lies otherwise than its file does; the file counts"]
    return []


class Part(NamedTuple):
    """An item in a plan: its files, and the place of the plan's first MS pixel in its MS."""

    opened: Opened
    row: int
    col: int

    def inside(self, window: Window) -> Window:
        """What of a window of the plan the pair of this item covers, in MS pixels of the plan."""
        there = self.opened.match.ms
        own = window.shift(self.row - there.row, self.col - there.col).within(there.height, there.width)
        return own.shift(there.row - self.row, there.col - self.col)

    def in_ms(self, window: Window) -> Window:
        return window.shift(self.row, self.col)

    def in_pan(self, window: Window) -> Window:
        m = self.opened.match
        return window.shift(self.row - m.ms.row, self.col - m.ms.col).scale(m.ratio).shift(m.pan.row, m.pan.col)


@dataclass(frozen=True)
class Plan:
    """One pair: grids of MS and PAN, and the items that fill them, the best first."""

    grid: Grid
    pan_grid: Grid
    ratio: int
    parts: tuple[Part, ...]
    nodata: tuple[float, float]  # of MS and PAN
    notes: tuple[str, ...]

    @property
    def tiles(self) -> list[Window]:
        return list(tiles(self.grid.height, self.grid.width, TILE))

    @property
    def mask_fine(self) -> bool:
        return self.parts[0].opened.mask_fine

    @property
    def mask_grid(self) -> Grid:
        return self.pan_grid if self.mask_fine else self.grid


def lay(opened: Sequence[Opened], shape_on: Callable[[str], Any], sensor: Sensor) -> Plan:
    """A plan for an area, `shape_on` a coordinate system. Items that do not fit the first are left out, with a note.

    InputError where the first has no coordinate system, or where nothing of the area is covered.
    """
    first = opened[0]
    if first.grid.crs is None:
        raise InputError(f"item {first.item.id} has no coordinate system, so that no place is known in it")
    bounds = shape_on(first.grid.crs).bounds
    wanted = window_of(first.grid, bounds)
    parts, notes = [], [note for one in opened for note in one.notes]
    for one in opened:
        fit = _fit(first, one)
        if fit is None:
            notes.append(f"{one.item.id} lies on another grid than {first.item.id} and would need resampling; left out")
        else:
            parts.append(Part(one, *fit))
    covers = [part.inside(wanted) for part in parts]
    parts = [part for part, cover in zip(parts, covers, strict=True) if cover.height > 0 and cover.width > 0]
    covers = [cover for cover in covers if cover.height > 0 and cover.width > 0]
    if not parts:
        raise InputError(f"none of the items covers a pixel of the area: {', '.join(one.item.id for one in opened)}")
    row, col = min(c.row for c in covers), min(c.col for c in covers)
    target = Window(row, col, max(c.row + c.height for c in covers) - row, max(c.col + c.width for c in covers) - col)
    if (target.height, target.width) != (wanted.height, wanted.width):
        share = target.height * target.width / (wanted.height * wanted.width)
        notes.append(f"the items cover {share:.0%} of the box around the area in the zone of {first.item.id}")
    ms_nodata, pan_nodata = (
        next((r.nodata for part in parts for r in getattr(part.opened, name) if r.nodata is not None), sensor.nodata)
        for name in ("ms", "pan")
    )
    lead = Part(first, 0, 0)
    return Plan(
        first.grid.crop(target),
        replace(first.pan[0].grid, crs=first.grid.crs).crop(lead.in_pan(target)),
        first.match.ratio,
        tuple(Part(part.opened, part.row + row, part.col + col) for part in parts),
        (float(ms_nodata), float(pan_nodata)),
        tuple(dict.fromkeys(notes)),
    )


def _fit(first: Opened, other: Opened) -> tuple[int, int] | None:
    """Where the first MS pixel of one item lies in the MS of another; None where their pixels do not meet."""
    own, there = first.grid, replace(other.grid, crs=same_crs(other.grid.crs, first.grid.crs))
    same = own.crs == there.crs and np.allclose(
        [own.transform.a, own.transform.e], [there.transform.a, there.transform.e], rtol=1e-9
    )
    alike = first.match.ratio == other.match.ratio and same_phase(first.match.phase, other.match.phase)
    alike &= first.rule == other.rule
    alike &= first.mask_fine == other.mask_fine and [r.count for r in (*first.ms, *first.pan)] == [
        r.count for r in (*other.ms, *other.pan)
    ]
    if not (same and alike):
        return None
    col, row = ~there.transform @ (own.transform.c, own.transform.f)
    if max(abs(col - round(col)), abs(row - round(row))) > _NEAR:
        return None
    return round(row), round(col)


class Tile(NamedTuple):
    """What was read for one tile. below: how many values an offset would have brought to 0 or below."""

    ms: NDArray[Any]
    pan: NDArray[Any]
    mask: NDArray[Any]
    source: NDArray[np.uint16]  # (h, w): the number of the part from 1, 0 none
    below: int


def read_tile(plan: Plan, window: Window, pool: ThreadPoolExecutor) -> Tile:
    """One window of the plan: each MS pixel from the first of the items that are of most use there, see `_Seen`."""
    first = plan.parts[0].opened
    h, w, r = window.height, window.width, plan.ratio
    kinds = [
        np.result_type(*(raster.dtype for part in plan.parts for raster in getattr(part.opened, name)))
        for name in ("ms", "pan")
    ]
    ms = np.full((sum(x.count for x in first.ms), h, w), plan.nodata[0], kinds[0])
    pan = np.full((sum(x.count for x in first.pan), h * r, w * r), plan.nodata[1], kinds[1])
    side = r if plan.mask_fine else 1
    mask = np.zeros((h * side, w * side), first.mask.dtype if first.mask else "uint8")
    source, use = np.zeros((h, w), np.uint16), np.zeros((h, w), np.uint8)
    below = 0
    for number, part in enumerate(plan.parts, 1):
        inside = part.inside(window)
        if use.min() == _CLEAR or inside.height <= 0 or inside.width <= 0:
            continue
        own = inside.shift(-window.row, -window.col)
        seen = _read_part(part, inside, plan.nodata, pool)
        take: NDArray[np.bool_] = seen.use > use[own.slices]
        fine, of_mask = own.scale(r).slices, own.scale(side).slices
        ms[:, *own.slices] = np.where(take, seen.ms, ms[:, *own.slices])
        pan[:, *fine] = np.where(_repeat(take, r), seen.pan, pan[:, *fine])
        if seen.mask is not None:
            mask[of_mask] = np.where(_repeat(take, side), seen.mask, mask[of_mask])
        source[own.slices] = np.where(take, np.uint16(number), source[own.slices])
        use[own.slices] = np.maximum(use[own.slices], seen.use)
        below += seen.below
    return Tile(ms, pan, mask, source, below)


class _Seen(NamedTuple):
    """What an item has of a window. use (h, w): 0 nothing, 1 some values, 2 all values of MS and PAN, 3 not hidden too.

    What lacks a value is still taken where nothing better is: files often declare no value for "nothing" and use 0.
    """

    ms: NDArray[Any]
    pan: NDArray[Any]
    mask: NDArray[Any] | None
    use: NDArray[np.uint8]
    below: int


def _read_part(part: Part, window: Window, nodata: tuple[float, float], pool: ThreadPoolExecutor) -> _Seen:
    opened = part.opened
    at = {"ms": part.in_ms(window), "pan": part.in_pan(window)}
    jobs = [pool.submit(raster.read, at[name]) for name in ("ms", "pan") for raster in getattr(opened, name)]
    of_mask = None
    if opened.mask is not None:
        of_mask = pool.submit(opened.mask.read, at["pan" if opened.mask_fine else "ms"])
    read = [job.result() for job in jobs]
    below, images = 0, []
    valid, some = np.ones((window.height, window.width), bool), np.zeros((window.height, window.width), bool)
    for name, empty in zip(("ms", "pan"), nodata, strict=True):
        rasters = getattr(opened, name)
        start = 0 if name == "ms" else len(opened.ms)
        parts = []
        for k, raster in enumerate(rasters):
            values, missing, low = _added(read[start + k], raster.nodata, empty, opened.offsets[start + k].value)
            below += low
            valid &= ~_any_in(missing, window)
            some |= _any_in(~missing, window)
            parts.append(values)
        images.append(np.concatenate(parts))
    mask = None if of_mask is None else of_mask.result()[0]
    use = some.astype(np.uint8) + valid
    if mask is None:
        use += valid
    else:
        use += valid & ~_any_in(opened.rule.hides(mask), window)
    return _Seen(images[0], images[1], mask, use, below)


def _added(
    values: NDArray[Any], nodata: float | None, empty: float, offset: int
) -> tuple[NDArray[Any], NDArray[np.bool_], int]:
    """Values with an offset, `empty` where there are none; where that is; how many were kept from falling to 0."""
    missing = is_nodata(values, empty if nodata is None else nodata)
    low = 0
    if offset:
        moved = (values if values.dtype.kind == "f" else values.astype(np.int64)) + offset
        if values.dtype.kind == "u":
            low = int(((moved < 1) & ~missing).sum())
            moved = np.clip(moved, 1, np.iinfo(values.dtype).max)  # 0 stands for no data
        values = moved.astype(values.dtype)
    return np.where(missing, values.dtype.type(empty), values), missing, low


def _any_in(flags: NDArray[np.bool_], window: Window) -> NDArray[np.bool_]:
    """Flags (..., h, w), or on a grid a whole number of times finer, as of MS pixels (h, w): true where any is."""
    h, w = window.height, window.width
    found: NDArray[np.bool_] = np.any(
        flags.reshape(-1, h, flags.shape[-2] // h, w, flags.shape[-1] // w), axis=(0, 2, 4)
    )
    return found


def _repeat(flags: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    return flags.repeat(times, 0).repeat(times, 1)
