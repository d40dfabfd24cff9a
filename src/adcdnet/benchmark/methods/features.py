"""Hand-made features of MS pixels, for the methods that do not learn their own.

Per MS pixel: the bands; normalised differences of near infrared with red and with green, where the bands are known;
mean and deviation of each band in 3×3 and 7×7 MS windows. Of each PAN band: mean, deviation, minimum and maximum of the
pixel's own cells; mean and deviation in windows of 4 and 8 MS pixels; gradient energy over its own cells.
No feature looks further than 4 MS pixels, so those of a training pixel know nothing of the test ground.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.errors import InputError
from adcdnet.geo.scene import Pixels


@dataclass(frozen=True)
class BandRoles:
    """Which MS band, counted from 0, is green, red and near infrared; None where that is not known."""

    green: int | None = None
    red: int | None = None
    nir: int | None = None

    @classmethod
    def of_descriptions(cls, descriptions: Sequence[str | None]) -> BandRoles:
        """From the bands' names in their file, such as "B4 nir"; the first band that fits. A red edge is no red."""
        named = [" ".join(re.findall("[a-z]+|[0-9]+", (text or "").lower())) for text in descriptions]
        found: dict[str, int | None] = {}
        for role, pattern in (
            ("green", r"\bgreen\b"),
            ("red", r"\bred\b(?! edge)"),
            ("nir", r"\b(nir|near infra ?red)\b"),
        ):
            found[role] = next((band for band, words in enumerate(named) if re.search(pattern, words)), None)
        return cls(**found)


def features(pixels: Pixels, bands: BandRoles) -> NDArray[np.float32]:
    """(h, w, F) features of every MS pixel, in the order of the top of the file; those of invalid pixels mean nothing.

    Windows are mirrored at the scene's border and take the nearest valid value in place of an invalid one.
    Raises InputError where `bands` names a band that the image does not have.
    """
    for role, band in asdict(bands).items():
        if band is not None and not 0 <= band < len(pixels.ms):
            raise InputError(
                f"band {band} is named as {role}, but the MS image has bands 0 to {len(pixels.ms) - 1}; name one of "
                "these, counted from 0"
            )
    ms, pan = _filled(pixels.ms, pixels.ms_valid), _filled(pixels.pan, pixels.pan_valid)
    height, width = pixels.ms_valid.shape
    ratio = pixels.pan_valid.shape[0] // height
    columns = list(ms)
    for other in (bands.red, bands.green):
        if bands.nir is not None and other is not None:
            columns.append((ms[bands.nir] - ms[other]) / np.maximum(ms[bands.nir] + ms[other], 1e-6))
    for band in ms:
        columns += [*_moments(band, 3), *_moments(band, 7)]
    middle = (slice(ratio // 2, None, ratio),) * 2  # an even window around it lies evenly about the MS pixel
    for band in pan:
        cells = band.reshape(height, ratio, width, ratio)
        columns += [reduce(cells, axis=(1, 3)) for reduce in (np.mean, np.std, np.min, np.max)]
        columns += [x[middle] for side in (4, 8) for x in _moments(band, side * ratio)]
        energy = ndimage.sobel(band, 0) ** 2 + ndimage.sobel(band, 1) ** 2
        columns.append(energy.reshape(cells.shape).mean(axis=(1, 3)))
    return np.stack([column.astype(np.float32) for column in columns], axis=-1)


def _filled(x: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(bands, h, w) with the nearest valid value in each invalid place: a 0 there would be an edge that is not."""
    if valid.all() or not valid.any():
        return x.astype(np.float64)
    row, col = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return x[:, row, col].astype(np.float64)


def _moments(band: NDArray[np.float64], side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation in the window of side × side around each pixel."""
    mean, square = _box_mean(band, side), _box_mean(band * band, side)
    return mean, np.sqrt(np.maximum(square - mean * mean, 0))


def _box_mean(band: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Added up afresh in each window: a running sum would carry rounding from one end of the scene to the other."""
    weights = np.full(side, 1 / side)
    for axis in (0, 1):
        band = ndimage.correlate1d(band, weights, axis, mode="reflect")
    return band
