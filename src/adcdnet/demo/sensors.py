"""Light and sensors of a simulated scene: sun, shadows, haze, blur, sampling and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.demo.landscape import Floats, noise

PAN_WEIGHTS: Floats = np.array([0.10, 0.25, 0.30, 0.35, 0, 0], np.float32)  # response of the pan sensor to each band

_SUN_AZIMUTH, _SUN_ELEVATION = np.deg2rad([150.0, 48.0])
_SKYLIGHT: Floats = np.array([0.40, 0.32, 0.27, 0.20, 0.14, 0.11], np.float32)  # what of the light is left in a shadow
_HAZE: Floats = np.array([0.030, 0.018, 0.010, 0.005, 0.002, 0.001], np.float32)  # reflectance of the air itself

_DN = 10_000  # digital number of reflectance 1
MS_MTF, PAN_MTF = 0.45, 0.35  # of the optics, at the Nyquist frequency; the pixel's own area comes on top
MS_NOISE, PAN_NOISE = (4.0, 0.06), (8.0, 0.20)  # read noise in DN, and variance per DN of signal


# --- how it is lit and seen ------------------------------------------------------------------------------------------


def light(
    rng: np.random.Generator, reflectance: Floats, elevation: Floats, y: Floats, x: Floats, step: float
) -> Floats:
    """What arrives at the sensor, as reflectance (6, h, w): sun, shadow, skylight and haze."""
    sun = _sunshine(elevation, step) * (1 + 0.03 * noise(rng, y, x, 400))
    haze = 1 + 0.15 * noise(rng, y, x, 300)
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


def sense(
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
