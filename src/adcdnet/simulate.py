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
from scipy import ndimage

from adcdnet.classes import ClassTable
from adcdnet.errors import InputError
from adcdnet.grid import MAX_RATIO, Window, tiles

Floats = NDArray[np.float32]

MS_PIXEL = 4.0  # metres
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
PAN_WEIGHTS: Floats = np.array([0.10, 0.25, 0.30, 0.35, 0, 0], np.float32)  # response of the pan sensor to each band
CLASSES = ("water", "forest", "orchard", "shrubland", "meadow", "cropland", "bare soil", "settlement", "paved")
WATER, FOREST, ORCHARD, SHRUBLAND, MEADOW, CROPLAND, SOIL, SETTLEMENT, PAVED = range(1, 10)

# classes of 27 neighbouring parcels; river and roads add to water and paved
_DECK = np.repeat(
    [WATER, FOREST, ORCHARD, SHRUBLAND, MEADOW, CROPLAND, SOIL, SETTLEMENT, PAVED], [1, 4, 3, 3, 4, 5, 3, 3, 1]
)

# reflectance per band; the first nine are the ground of the nine classes
_MATERIALS: Floats = np.array(
    [
        [0.065, 0.090, 0.085, 0.055, 0.015, 0.010],  # muddy water
        [0.045, 0.085, 0.065, 0.330, 0.240, 0.130],  # forest floor
        [0.045, 0.085, 0.065, 0.330, 0.240, 0.130],  # mown grass between orchard trees
        [0.040, 0.078, 0.062, 0.290, 0.210, 0.115],  # grass between shrubs
        [0.040, 0.090, 0.060, 0.380, 0.240, 0.120],  # meadow
        [0.035, 0.080, 0.045, 0.430, 0.190, 0.085],  # crop
        [0.080, 0.120, 0.160, 0.240, 0.310, 0.270],  # soil
        [0.080, 0.120, 0.160, 0.240, 0.310, 0.270],  # yards
        [0.070, 0.080, 0.083, 0.090, 0.110, 0.105],  # asphalt
        [0.035, 0.075, 0.045, 0.420, 0.220, 0.105],  # leaves
        [0.085, 0.135, 0.220, 0.320, 0.400, 0.350],  # tiled roof
        [0.160, 0.185, 0.210, 0.270, 0.330, 0.290],  # slate or concrete roof
    ],
    np.float32,
)
_LEAVES, _TILES, _SLATE = 9, 10, 11
_DRY_GRASS: Floats = np.array([0.080, 0.120, 0.150, 0.290, 0.320, 0.220], np.float32)
# by class: how far parcels dry out (share of dry grass), and how much brightness varies from metre to metre, in
# patches, and by the rows of a field
_DRYNESS: Floats = np.array([0, 0.35, 0.35, 0.35, 0.35, 0.25, 0, 0, 0], np.float32)
_GRAIN: Floats = np.array([0.03, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.03], np.float32)
_PATCHES: Floats = np.array([0.03, 0.08, 0.10, 0.10, 0.09, 0.09, 0.12, 0.05, 0.03], np.float32)
_STRIPES: Floats = np.array([0, 0, 0, 0, 0.05, 0.05, 0.05, 0, 0], np.float32)

_SUN_AZIMUTH, _SUN_ELEVATION = np.deg2rad([150.0, 48.0])
_SKYLIGHT: Floats = np.array([0.40, 0.32, 0.27, 0.20, 0.14, 0.11], np.float32)  # what of the light is left in a shadow
_HAZE: Floats = np.array([0.030, 0.018, 0.010, 0.005, 0.002, 0.001], np.float32)  # reflectance of the air itself

_DN = 10_000  # digital number of reflectance 1
_MS_MTF, _PAN_MTF = 0.45, 0.35  # of the optics, at the Nyquist frequency; the pixel's own area comes on top
_MS_NOISE, _PAN_NOISE = (4.0, 0.06), (8.0, 0.20)  # read noise in DN, and variance per DN of signal


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
    layout = _lay_out(layout_rng, y, x)
    reflectance, elevation = _cover(cover_rng, layout, y, x)
    radiance = _light(air_rng, reflectance, elevation, y, x, step)
    pan = np.tensordot(PAN_WEIGHTS, radiance, axes=1)
    return SimulatedScene(
        ms=_sense(ms_rng, radiance, _MS_MTF, _MS_NOISE, ratio),
        pan=_sense(pan_rng, pan[None], _PAN_MTF, _PAN_NOISE, 1),
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


# --- where what is ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    classes: NDArray[np.uint8]  # (h, w), as all below: one value per fine pixel
    parcel: NDArray[np.int32]  # 0: road or river
    along: Floats  # metres along the rows of the parcel
    across: Floats  # metres across them
    shade: Floats  # brightness of the parcel, about 1
    dryness: Floats  # of the parcel, 0..1


def _lay_out(rng: np.random.Generator, y: Floats, x: Floats) -> _Layout:
    """Parcels, roads and river."""
    reach = float(np.hypot(_extent(y), _extent(x))) / 2 + 40  # every turn and bend of the scene lies within
    turn = rng.uniform(0, np.pi / 2)
    east, south = x[None, :] - x.mean(), y[:, None] - y.mean()
    u = np.float32(np.cos(turn)) * east + np.float32(np.sin(turn)) * south + 5 * _noise(rng, y, x, 120) + reach
    v = np.float32(np.cos(turn)) * south - np.float32(np.sin(turn)) * east + 5 * _noise(rng, y, x, 120) + reach

    parcels = _split(rng, int(2 * reach) + 1)  # (n, 4)
    index = np.zeros((int(2 * reach) + 1,) * 2, np.int32)  # parcel by whole metre of u, v
    for number, (u0, u1, v0, v1) in enumerate(parcels, start=1):
        index[u0:u1, v0:v1] = number
    last = len(index) - 1
    parcel = index[np.clip(u, 0, last).astype(np.int32), np.clip(v, 0, last).astype(np.int32)]

    # neighbours in the list are neighbours on the ground, so each deal spreads all classes over a small area
    deals = [rng.permutation(_DECK) for _ in range(-(-len(parcels) // len(_DECK)))]
    parcel_class = np.concatenate([[PAVED], *deals])[: len(parcels) + 1].astype(np.uint8)
    classes = parcel_class[parcel]

    u0, u1, v0, v1 = np.vstack([[0, 1, 0, 1], parcels]).T.astype(np.float32)
    from_centre = np.hypot(
        (2 * u - (u0 + u1)[parcel]) / (u1 - u0)[parcel], (2 * v - (v0 + v1)[parcel]) / (v1 - v0)[parcel]
    )
    classes[(classes == WATER) & (from_centre > 0.95)] = MEADOW  # ponds are round
    middle = reach + 25 * np.sin(u / 60 + rng.uniform(0, 2 * np.pi)) + rng.uniform(-40, 40)
    river = (np.abs(v - middle) < 9 + 2 * np.sin(u / 37)) & (parcel > 0)  # roads bridge it
    classes[river], parcel[river] = WATER, 0

    lengthwise = np.where(u1 - u0 > v1 - v0, 0, np.pi / 2) + rng.normal(0, 0.04, len(u0))
    cos, sin = np.cos(lengthwise).astype(np.float32)[parcel], np.sin(lengthwise).astype(np.float32)[parcel]
    return _Layout(
        classes=classes,
        parcel=parcel,
        along=cos * u + sin * v,
        across=cos * v - sin * u,
        shade=np.exp(rng.normal(0, 0.12, len(u0))).astype(np.float32)[parcel],
        dryness=rng.random(len(u0), np.float32)[parcel],
    )


def _split(rng: np.random.Generator, side: int) -> NDArray[np.int32]:
    """A square of whole metres cut into rectangles (n, 4) of u0, u1, v0, v1; large cuts leave room for a road."""
    leaves, stack = [], [(0, side, 0, side)]
    while stack:
        u0, u1, v0, v1 = stack.pop()
        long = max(u1 - u0, v1 - v0)
        if long < rng.uniform(50, 85):
            leaves.append((u0, u1, v0, v1))
            continue
        half_road = 4 if long > 200 else 0
        cut = round(long * rng.uniform(0.38, 0.62))
        if u1 - u0 == long:
            stack += [(u0, u0 + cut - half_road, v0, v1), (u0 + cut + half_road, u1, v0, v1)]
        else:
            stack += [(u0, u1, v0, v0 + cut - half_road), (u0, u1, v0 + cut + half_road, v1)]
    return np.array(leaves, np.int32)


def _extent(centres: Floats) -> int:
    """Metres that pixels with these centres cover from 0 on; whole, and so free of the pixels' own size."""
    return round(float(centres[0] + centres[-1]))


def _noise(rng: np.random.Generator, y: Floats, x: Floats, scale: int) -> Floats:
    """Smooth random surface (len(y), len(x)) of standard deviation near 1, with hills `scale` metres wide."""
    rows, cols = _spline(y, scale), _spline(x, scale)
    hills = rng.standard_normal((rows.shape[1], cols.shape[1]), np.float32)
    # 151 / 315 is the mean sum of squared spline weights along one axis; two axes, under a root
    surface: Floats = np.linalg.multi_dot([rows, hills, cols.T]) / np.float32(151 / 315)
    return surface


def _spline(centres: Floats, scale: int) -> Floats:
    """Weights (n, knots) of the cubic B-spline with a knot every `scale` metres."""
    knots = np.arange(-1, _extent(centres) // scale + 3, dtype=np.float32)
    distance = np.abs(centres[:, None] / np.float32(scale) - knots)
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6
    weights: Floats = np.where(distance < 1, near, far).astype(np.float32)
    return weights


# --- what it is made of ----------------------------------------------------------------------------------------------


def _cover(rng: np.random.Generator, layout: _Layout, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Reflectance (6, h, w) and height in metres (h, w)."""
    material = layout.classes - 1
    elevation = np.zeros(material.shape, np.float32)
    tone = layout.shade.copy()
    dice = rng.random((4096, 6)).astype(np.float32)
    for wooded, trees in _TREES.items():
        here = layout.classes == wooded
        crown, crown_tone = _crowns(dice, layout.along[here], layout.across[here], layout.parcel[here], trees)
        material[here] = np.where(crown > 0, _LEAVES, material[here])
        elevation[here] = crown
        tone[here] *= crown_tone
    here = layout.classes == SETTLEMENT
    roof, tiled, roof_tone = _roofs(dice, layout.along[here], layout.across[here], layout.parcel[here])
    material[here] = np.where(roof > 0, np.where(tiled, _TILES, _SLATE), material[here])
    elevation[here] = roof
    tone[here] *= roof_tone

    kind = layout.classes - 1
    tone *= 1 + _GRAIN[kind] * _noise(rng, y, x, 2) + _PATCHES[kind] * _noise(rng, y, x, 11)
    tone *= 1 + _STRIPES[kind] * layout.dryness * np.sin(layout.across * np.float32(2 * np.pi / 3))
    dry = (_DRYNESS[kind] * layout.dryness)[None]
    fresh = np.moveaxis(_MATERIALS[material], -1, 0)
    return np.maximum(tone, 0.3) * (fresh + dry * (_DRY_GRASS[:, None, None] - fresh)), elevation


@dataclass(frozen=True)
class _Trees:
    spacing: float  # metres between stems
    jitter: float  # 0 a strict grid, 1 anywhere in its cell
    radius: tuple[float, float]  # metres, smallest and largest crown
    trunk: float  # metres below the crown
    share: float  # of stems that stand


_TREES = {
    FOREST: _Trees(4.2, 0.9, (1.8, 2.9), 3.5, 0.97),
    ORCHARD: _Trees(4.6, 0.1, (1.5, 1.9), 1.2, 0.96),
    SHRUBLAND: _Trees(3.0, 1.0, (0.8, 1.7), 0.2, 0.75),
}


def _crowns(
    dice: Floats, along: Floats, across: Floats, parcel: NDArray[np.int32], trees: _Trees
) -> tuple[Floats, Floats]:
    """Height of the highest crown over each place (0: none), and its brightness; all arrays (n)."""
    top, tone = np.zeros_like(along), np.ones_like(along)
    row, col = np.floor(across / trees.spacing), np.floor(along / trees.spacing)
    smallest, largest = trees.radius
    for d_row in (-1, 0, 1):
        for d_col in (-1, 0, 1):
            throw = _throw(dice, row + d_row, col + d_col, parcel)  # (n, 6)
            d_across = across - (row + d_row + 0.5 + trees.jitter * (throw[:, 0] - 0.5)) * trees.spacing
            d_along = along - (col + d_col + 0.5 + trees.jitter * (throw[:, 1] - 0.5)) * trees.spacing
            radius = smallest + (largest - smallest) * throw[:, 2]
            dome = radius**2 - d_across**2 - d_along**2
            crown = trees.trunk + np.sqrt(np.maximum(dome, 0))
            higher = (dome > 0) & (throw[:, 3] < trees.share) & (crown > top)
            top[higher] = crown[higher]
            tone[higher] = 0.85 + 0.3 * throw[higher, 4]
    return top, tone


def _roofs(
    dice: Floats, along: Floats, across: Floats, parcel: NDArray[np.int32]
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Height of the roof over each place (0: none), whether it is tiled, and its brightness; all arrays (n)."""
    depth, front = 7.0, 8.0  # metres from house to house
    row, col = np.floor(across / depth), np.floor(along / front)
    throw = _throw(dice, row, col, parcel)
    off_ridge = np.abs(across - (row + 0.5) * depth)
    off_middle = np.abs(along - (col + 0.5) * front)
    built = (off_ridge < 1.9 + 0.8 * throw[:, 0]) & (off_middle < 2.3 + throw[:, 1]) & (throw[:, 2] < 0.92)
    roof = 3 + 2 * throw[:, 3] - 0.5 * off_ridge
    tone = np.where(built, 0.8 + 0.4 * throw[:, 4], 1).astype(np.float32)
    return np.where(built, roof, 0).astype(np.float32), throw[:, 5] < 0.6, tone


def _throw(dice: Floats, row: Floats, col: Floats, parcel: NDArray[np.int32]) -> Floats:
    """Six random numbers of [0, 1) for each cell of a parcel, the same wherever the cell is asked for."""
    mixed = row.astype(np.int64) * 0x9E3779B1 + col.astype(np.int64) * 0x85EBCA77 + parcel.astype(np.int64) * 0xC2B2AE3D
    mixed = (mixed ^ (mixed >> 15)) * 0x27D4EB2F
    throw: Floats = dice[(mixed ^ (mixed >> 13)) % len(dice)]
    return throw


# --- how it is lit and seen ------------------------------------------------------------------------------------------


def _light(
    rng: np.random.Generator, reflectance: Floats, elevation: Floats, y: Floats, x: Floats, step: float
) -> Floats:
    """What arrives at the sensor, as reflectance (6, h, w): sun, shadow, skylight and haze."""
    sun = _sunshine(elevation, step) * (1 + 0.03 * _noise(rng, y, x, 400))
    haze = 1 + 0.15 * _noise(rng, y, x, 300)
    radiance = np.empty_like(reflectance)
    for band, (sky, air) in enumerate(zip(_SKYLIGHT, _HAZE, strict=True)):
        radiance[band] = reflectance[band] * (sky + (1 - sky) * sun) * (1 - 2 * air) + air * haze
    return radiance


def _sunshine(elevation: Floats, step: float) -> Floats:
    """Direct sunlight on each pixel: 1 on level open ground, 0 in shadow."""
    to_sun_row, to_sun_col = -np.cos(_SUN_AZIMUTH), np.sin(_SUN_AZIMUTH)  # rows grow southwards
    slope_row, slope_col = _slope(elevation, 0, step), _slope(elevation, 1, step)
    facing = 1 - (slope_row * to_sun_row + slope_col * to_sun_col) / np.tan(_SUN_ELEVATION)
    sunshine: Floats = np.maximum(facing, 0) / np.sqrt(1 + slope_row**2 + slope_col**2)
    highest, distance = float(elevation.max()), step
    while (drop := distance * np.tan(_SUN_ELEVATION)) < highest:
        d_row, d_col = round(distance / step * to_sun_row), round(distance / step * to_sun_col)
        sunshine[_moved(elevation, d_row, d_col) - drop > elevation] = 0
        distance += step
    return sunshine


def _slope(elevation: Floats, axis: int, step: float) -> Floats:
    """Rise per metre along one axis; steps of roofs and crowns against the ground are no slopes, so it is bounded."""
    rise: Floats = ndimage.correlate1d(elevation, [-1, 0, 1], axis, mode="nearest")
    slope: Floats = np.clip(rise / np.float32(2 * step), -1.2, 1.2)
    return slope


def _moved(elevation: Floats, d_row: int, d_col: int) -> Floats:
    """The elevation (d_row, d_col) away from each pixel; level ground beyond the edge."""
    height, width = elevation.shape
    moved = np.zeros_like(elevation)
    if abs(d_row) < height and abs(d_col) < width:
        here = slice(max(0, -d_row), height - max(0, d_row)), slice(max(0, -d_col), width - max(0, d_col))
        there = slice(max(0, d_row), height - max(0, -d_row)), slice(max(0, d_col), width - max(0, -d_col))
        moved[here] = elevation[there]
    return moved


def _sense(
    rng: np.random.Generator, radiance: Floats, mtf: float, noise: tuple[float, float], ratio: int
) -> NDArray[np.uint16]:
    """Digital numbers (bands, h / ratio, w / ratio) of a sensor whose pixels are `ratio` fine pixels wide.

    The optics' point spread is a Gaussian of MTF exp(-2 π² σ² f²), σ and 1 / f in sensor pixels.
    """
    sigma = np.sqrt(-2 * np.log(mtf)) / np.pi * ratio  # at f = 1/2, in fine pixels
    bands, height, width = radiance.shape
    read, per_signal = noise
    numbers = np.empty((bands, height // ratio, width // ratio), np.uint16)
    for band in range(bands):
        sharp = ndimage.gaussian_filter(radiance[band], sigma, mode="nearest")
        signal = _DN * sharp.reshape(height // ratio, ratio, width // ratio, ratio).mean(axis=(1, 3))
        noisy = signal + rng.standard_normal(signal.shape) * np.sqrt(read**2 + per_signal * signal)
        numbers[band] = np.clip(np.rint(noisy), 1, 65535)  # 0 stays free for "no data"
    return numbers
