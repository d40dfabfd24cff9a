"""One pass over a finished map and its probabilities, window by window: areas, judged pixels, and what a page shows.

K classes. A window is held at a time, so that memory grows with what is shown and judged, not with the scene.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, tiles
from adcdnet.geo.raster import RasterReader

_WINDOW = 512  # pixels
_SHOWN_SIDE = 1024  # pixels of the map that a page carries, a side
_SHOWN_VALUES = 3_000_000  # probabilities of all classes that a page carries
_JUDGED = 100_000  # pixels whose probabilities are looked at


@dataclass(frozen=True)
class Judged:
    """Labelled pixels of the part that is judged, or a random choice where there are very many; n of them."""

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float32]  # (n, K)


@dataclass(frozen=True)
class Survey:
    """counts (K,): mapped pixels. index (h, w) uint8: every `step`-th pixel of the map, 0 none, class k as k + 1.

    probabilities (K, h, w) uint8, in 255ths, of the same pixels, or None. trust (2, h, w): dissimilarity and expected
    error of these, nan where there is no class, or None. disagree: the share of shown pixels whose
    most probable class is not the mapped one, nan without probabilities.
    """

    counts: NDArray[np.int64]
    step: int
    index: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    judged: Judged | None
    disagree: float
    trust: NDArray[np.float32] | None = None


def survey(
    map_path: Path,
    probabilities: Path | None,
    grid: Grid,
    classes: ClassTable,
    truth: NDArray[np.integer] | None,
    *,
    trust: Path | None = None,
    judged_by: Path | None = None,
    rng: np.random.Generator,
) -> Survey:
    """truth (H, W): class index of every pixel to judge, −1 elsewhere. judged_by: probabilities to judge in the place
    of the map's. InputError if a file does not fit the scene."""
    step = _step(grid, len(classes))
    shape = -(-grid.height // step), -(-grid.width // step)
    lookup = np.zeros(256, np.uint8)
    lookup[list(classes.values)] = np.arange(1, len(classes) + 1)
    index, counts = np.zeros(shape, np.uint8), np.zeros(len(classes) + 1, np.int64)
    shown = None if probabilities is None else np.zeros((len(classes), *shape), np.uint8)
    layer = None if trust is None else np.full((2, *shape), np.nan, np.float32)
    wanted = None if truth is None else _thinned(truth, rng)
    known, differ = 0, 0
    pixels: list[Judged] = []
    with ExitStack() as files:
        mapped = files.enter_context(RasterReader(map_path))
        _check(mapped, grid, 1)
        soft = None if probabilities is None else files.enter_context(RasterReader(probabilities))
        judging = soft if judged_by is None else files.enter_context(RasterReader(judged_by))
        for raster in (soft, judging):
            if raster is not None:
                _check(raster, grid, len(classes))
        trusted = None if trust is None else files.enter_context(RasterReader(trust))
        for window in tiles(grid.height, grid.width, max(1, _WINDOW // step) * step):
            values = mapped.read(window)[0]
            if values.dtype != np.uint8 or not np.isin(values, (0, *classes.values)).all():
                raise InputError(
                    f"{map_path} holds other values than this run's classes {list(classes.values)}; name a map that "
                    "`adcdnet predict` made with this run"
                )
            index_here = lookup[values]
            counts += np.bincount(index_here.ravel(), minlength=len(counts))
            place = tuple(slice(s.start // step, -(-s.stop // step)) for s in window.slices)
            index[place] = coarse = index_here[::step, ::step]
            p = None if soft is None else soft.read(window)
            if p is not None and shown is not None:
                some = p[:, ::step, ::step]
                shown[:, *place] = np.rint(255 * np.nan_to_num(some))
                there = (coarse > 0) & np.isfinite(some[0])
                known += int(there.sum())
                differ += int((some[:, there].argmax(0) + 1 != coarse[there]).sum())
            if trusted is not None and layer is not None:
                layer[:, *place] = trusted.read(window)[:, ::step, ::step]
            if wanted is not None and truth is not None and judging is not None:
                if p is None or judged_by is not None:
                    p = judging.read(window)
                row, col = np.nonzero(wanted[window.slices] & np.isfinite(p[0]))
                label = truth[window.slices][row, col].astype(np.int64)
                pixels.append(Judged(row + window.row, col + window.col, label, p[:, row, col].T))
    return Survey(counts[1:], step, index, shown, _joined(pixels), differ / known if known else math.nan, layer)


def _step(grid: Grid, classes: int) -> int:
    """Which pixels a page carries: every so manieth of a row and of a column."""
    values = grid.height * grid.width * classes / _SHOWN_VALUES
    return max(1, math.ceil(max(grid.shape) / _SHOWN_SIDE), math.ceil(math.sqrt(values)))


def _thinned(truth: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where to look at probabilities: all labelled pixels, or about _JUDGED of them at random."""
    wanted = truth >= 0
    count = int(wanted.sum())
    if count > _JUDGED:
        wanted[wanted] = rng.random(count, np.float32) < _JUDGED / count
    return wanted


def _joined(pixels: Sequence[Judged]) -> Judged | None:
    if not any(len(some.row) for some in pixels):
        return None
    return Judged(
        np.concatenate([some.row for some in pixels]),
        np.concatenate([some.col for some in pixels]),
        np.concatenate([some.truth for some in pixels]),
        np.concatenate([some.probabilities for some in pixels]),
    )


def _check(raster: RasterReader, grid: Grid, count: int) -> None:
    if raster.grid.shape != grid.shape or raster.grid.transform != grid.transform or raster.count != count:
        raise InputError(
            f"{raster.path} has {raster.count} bands of {raster.grid.height}×{raster.grid.width} pixels, the scene "
            f"asks for {count} of {grid.height}×{grid.width} at its own place; name one that `adcdnet predict` made of "
            "this scene with this run"
        )
