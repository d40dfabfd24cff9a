"""The ground of a simulated scene: parcels, roads, a river, and what stands on them, as reflectance and height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MS_PIXEL = 4.0  # metres
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
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


# --- where what is ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    classes: NDArray[np.uint8]  # (h, w), as all below: one value per fine pixel
    parcel: NDArray[np.int32]  # 0: road or river
    along: Floats  # metres along the rows of the parcel
    across: Floats  # metres across them
    shade: Floats  # brightness of the parcel, about 1
    dryness: Floats  # of the parcel, 0..1


def lay_out(rng: np.random.Generator, y: Floats, x: Floats) -> _Layout:
    """Parcels, roads and river."""
    reach = float(np.hypot(_extent(y), _extent(x))) / 2 + 40  # every turn and bend of the scene lies within
    turn = rng.uniform(0, np.pi / 2)
    east, south = x[None, :] - x.mean(), y[:, None] - y.mean()
    u = np.float32(np.cos(turn)) * east + np.float32(np.sin(turn)) * south + 5 * noise(rng, y, x, 120) + reach
    v = np.float32(np.cos(turn)) * south - np.float32(np.sin(turn)) * east + 5 * noise(rng, y, x, 120) + reach

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


def noise(rng: np.random.Generator, y: Floats, x: Floats, scale: int) -> Floats:
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


def cover(rng: np.random.Generator, layout: _Layout, y: Floats, x: Floats) -> tuple[Floats, Floats]:
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
    tone *= 1 + _GRAIN[kind] * noise(rng, y, x, 2) + _PATCHES[kind] * noise(rng, y, x, 11)
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
