"""A labelled MS + PAN pair from nothing: a small landscape seen by two sensors.

The ground is a function of place in metres, evaluated on the fine (pan) grid: parcels between roads, a river, and on
each parcel what its class is made of - crowns, shrubs, roofs, rows - as materials with a reflectance per band and a
height. The sun shades slopes and casts shadows; a hazy atmosphere and two sensors (blur, sampling, noise, whole
numbers) follow. So one seed shows the same ground at every ratio, as far as the pan grid resolves it.

Classes are made to need both sensors. Forest, orchard and shrubland have much the same colour in MS, and their crowns
are too small for it. Meadow, cropland and bare soil have much the same brightness and grain in PAN, as have water and
pavement; their colours differ.

x, y metres east and south of the scene's corner | u, v the same along and across the parcels, gently bent
Reflectances are round numbers in the range field spectra show, not measurements of any place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adcdnet.demo.landscape import BANDS, CLASSES, MS_PIXEL, cover, lay_out
from adcdnet.demo.sensors import MS_MTF, MS_NOISE, PAN_MTF, PAN_NOISE, PAN_WEIGHTS, light, sense
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import MAX_RATIO, Window, tiles


@dataclass(frozen=True)
class SimulatedScene:
    """A co-registered pair with its truth. Rasters are (band, row, col), label values those of the class table.

    An ms pixel is labelled when all of its pan pixels are of one class, and 0 otherwise.
    """

    ms: NDArray[np.uint16]  # (6, h, w), top-of-atmosphere reflectance × 10,000, never 0
    pan: NDArray[np.uint16]  # (1, h·ratio, w·ratio), likewise
    labels: NDArray[np.uint8]  # (h, w)
    labels_fine: NDArray[np.uint8]  # (h·ratio, w·ratio), no 0
    band_names: tuple[str, ...]
    class_table: ClassTable
    pixel_size: float  # of ms, in metres
    ratio: int


def simulate(height: int, width: int, *, ratio: int = 4, seed: int | Sequence[int] = 0) -> SimulatedScene:
    """A scene of height × width ms pixels of 4 m, pan `ratio` times finer; the same for the same arguments.

    From about 100 × 100 ms pixels on, every class occurs. Takes some 115 bytes of memory per pan pixel; for larger
    scenes see `simulate_tiles`. InputError for sizes below 1, a ratio outside 1..8 or a negative seed.
    """
    _check(height, width, ratio, seed)
    layout_rng, cover_rng, air_rng, ms_rng, pan_rng = np.random.default_rng(seed).spawn(5)
    step = MS_PIXEL / ratio
    y = (np.arange(height * ratio, dtype=np.float32) + 0.5) * step
    x = (np.arange(width * ratio, dtype=np.float32) + 0.5) * step
    layout = lay_out(layout_rng, y, x)
    reflectance, elevation = cover(cover_rng, layout, y, x)
    radiance = light(air_rng, reflectance, elevation, y, x, step)
    pan = np.tensordot(PAN_WEIGHTS, radiance, axes=1)
    return SimulatedScene(
        ms=sense(ms_rng, radiance, MS_MTF, MS_NOISE, ratio),
        pan=sense(pan_rng, pan[None], PAN_MTF, PAN_NOISE, 1),
        labels=_pure(layout.classes, ratio),
        labels_fine=layout.classes,
        band_names=BANDS,
        class_table=ClassTable.numbered(CLASSES),
        pixel_size=MS_PIXEL,
        ratio=ratio,
    )


def simulate_tiles(
    height: int, width: int, *, ratio: int = 4, seed: int = 0, tile: int = 256
) -> Iterator[tuple[Window, SimulatedScene]]:
    """A huge scene as a mosaic of landscapes, one in memory at a time: windows on the ms grid and what fills them.

    Landscapes end at the edges of the `tile` × `tile` windows. Each depends on seed, window and ratio alone, so a
    mosaic may be cut or continued. InputError as for `simulate`.
    """
    _check(height, width, ratio, seed)
    if tile < 1:
        raise InputError(f"tile is {tile}; at least 1 ms pixel is needed; give a larger tile")
    for window in tiles(height, width, tile):
        yield window, simulate(window.height, window.width, ratio=ratio, seed=(seed, window.row, window.col))


def _check(height: int, width: int, ratio: int, seed: int | Sequence[int]) -> None:
    if height < 1 or width < 1:
        raise InputError(f"scene of {height} × {width} ms pixels; at least 1 × 1 is needed; give a larger size")
    if not 1 <= ratio <= MAX_RATIO:
        raise InputError(f"ratio is {ratio}; a whole number from 1 to {MAX_RATIO} is needed; choose one of these")
    if min(np.atleast_1d(seed)) < 0:
        raise InputError(f"seed is {seed}; a whole number from 0 on is needed; leave out the sign")


def _pure(fine: NDArray[np.uint8], ratio: int) -> NDArray[np.uint8]:
    """The class of each coarse pixel, 0 where its fine pixels are of several."""
    blocks = fine.reshape(fine.shape[0] // ratio, ratio, fine.shape[1] // ratio, ratio)
    lowest, highest = blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3))
    return np.where(lowest == highest, lowest, 0).astype(np.uint8)
