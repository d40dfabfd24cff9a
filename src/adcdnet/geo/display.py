"""Bands and class maps as pictures to look at: values from 0 to 1."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from adcdnet.geo.classes import ClassTable

UNMAPPED = (0.85, 0.85, 0.85)  # of a map, where there is no class


def display_range(bands: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(bands, 2): the 2nd and 98th percentile of each band over valid pixels, 0 and 1 where there are none."""
    ranges = [np.percentile(band[valid], (2, 98)) if valid.any() else (0.0, 1.0) for band in bands]
    return np.asarray(ranges, np.float64)


def stretch(
    bands: NDArray[np.floating], valid: NDArray[np.bool_], ranges: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Bands (1 or 3, h, w) for display: the ends of each band's range (by default its own) become 0 and 1."""
    shown = np.zeros(bands.shape, np.float32)
    for band, (low, high), out in zip(
        bands, display_range(bands, valid) if ranges is None else ranges, shown, strict=True
    ):
        out[:] = np.where(valid, np.clip((band - low) / max(high - low, 1e-12), 0, 1), 1)
    return shown


def colour(index: NDArray[np.integer], classes: ClassTable) -> NDArray[np.float32]:
    """Class indices (h, w), −1 none -> RGB (h, w, 3)."""
    palette = np.asarray([*(to_rgb(c) for c in classes.colors), UNMAPPED], np.float32)
    return np.asarray(palette[np.where(index < 0, len(classes), index)], np.float32)
