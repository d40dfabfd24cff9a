"""How far PAN lies beside MS: the correction that lays one on the other, measured in windows all over a scene.

A correction (row, col) is what to add to the place of every PAN pixel, in PAN pixels, down and right positive.
In one window the correction s is sought at which MS explains PAN best:

m MS bands at the n usable pixels, centred      p(s) PAN moved by s and averaged over each MS pixel, likewise
R²(s) share of p(s) that a linear fit of m explains, mean over the PAN bands

R² is tried out on whole PAN pixels, then climbed with a paraboloid through nine trials around the best (between whole
pixels p comes from cubic splines). The second opinion is the slope of the phase between the spectra of p(0) and
of its fit, over low frequencies (Stone et al., doi:10.1109/36.957286), which uses neither R² nor any resampling.
Over the scene, t + D·place is fitted to the windows' corrections, robustly: t the correction in the middle, D what
rotation and stretch add from there to the edges.

At ratio 1 both images are smoothed first: p(s) between whole pixels is then interpolated from PAN's own aliases, which
no more fit those of MS there, and the correction would be pulled to whole pixels, alike in all windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from adcdnet.geo.grid import Window

REACH = 4  # MS pixels: the largest correction that is looked for, rows and columns alike
_MARGIN = REACH + 2  # MS pixels around a window that trials and splines read
_SIDE, _PER_AXIS = 96, 5  # MS pixels of the largest window, and how many windows go into a row or column of them
_FEWEST = 400  # usable MS pixels below which a window says nothing
_LEAST_FIT = 0.1  # R² below which MS does not explain PAN at all
_CORRELATED = 4  # neighbouring residuals that count as one, for the error of a window
_SMOOTH = 1.0  # pixels: Gaussian by which images at ratio 1 are smoothed; 4π of its square then count as one
_LOW = 0.25  # cycles per MS pixel: frequencies above it are aliased in one image or the other

Floats = NDArray[np.float64]
Read = Callable[[Window], tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Shift:
    """The correction of PAN in one window, in PAN pixels.

    errors: standard errors of row and col. fit, fit_as_given: R² after the correction and without it.
    phase_row, phase_col: the second opinion.
    """

    row: float
    col: float
    errors: tuple[float, float]
    fit: float
    fit_as_given: float
    phase_row: float
    phase_col: float


@dataclass(frozen=True)
class Registration:
    """The correction of PAN in the middle of a scene, in PAN pixels, and how it changes over it.

    errors, drift_errors: standard errors. drift (2, 2): what (row, col) gain from the middle to the lower edge (first
    column) and to the right edge (second one); None where the windows are too few to tell. fit, fit_as_given: mean R².
    windows: places in MS pixels, with the correction found there or None where there is too little to see.
    """

    row: float
    col: float
    errors: tuple[float, float]
    drift: tuple[tuple[float, float], tuple[float, float]] | None
    drift_errors: tuple[tuple[float, float], tuple[float, float]] | None
    phase_row: float
    phase_col: float
    fit: float
    fit_as_given: float
    windows: tuple[tuple[Window, Shift | None], ...]

    @property
    def largest_error(self) -> float:
        """Half of the wider 95 % interval of row and col, PAN pixels."""
        return 2 * max(self.errors)

    @property
    def largest_drift(self) -> float:
        """What the correction gains from the middle to a corner, by the drifts that stand out; 0 if none is known."""
        if self.drift is None:
            return 0.0
        drift, errors = np.abs(self.drift), np.array(self.drift_errors)
        return float(np.where(drift > 3 * errors, drift, 0).sum(axis=1).max())

    @property
    def whole(self) -> tuple[int, int]:
        """The correction in whole PAN pixels."""
        return round(self.row), round(self.col)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def measure(read: Read, height: int, width: int, *, phase: tuple[float, float] = (0.0, 0.0)) -> Registration | None:
    """The correction over a scene of height × width MS pixels, from up to 25 windows; None where none can be measured.

    read(window) gives ms (B, h, w), pan (P, h·ratio, w·ratio) and the masks of both, as `Scene.read` does. phase: how
    far PAN lies off the MS edges there by the files' own word, which needs no correction.
    """
    windows = [(window, shift_between(*read(window.grow(_MARGIN)), phase=phase)) for window in _windows(height, width)]
    return combine(windows, height, width)


def _windows(height: int, width: int) -> list[Window]:
    """Up to 5 × 5 windows, spread over what lies at least the margin from the edges."""
    rows, cols = (_spread(size) for size in (height, width))
    return [Window(row, col, h, w) for row, h in rows for col, w in cols]


def _spread(size: int) -> list[tuple[int, int]]:
    """(first, length) of windows along one axis; longer ones rather than many where there is little room."""
    inner = size - 2 * _MARGIN
    count = min(_PER_AXIS, max(1, inner // 24))
    length = min(_SIDE, inner // count)
    gap = (inner - count * length) / max(1, count - 1)
    return [(_MARGIN + round(k * (length + gap)), length) for k in range(count)] if length > 0 else []


def shift_between(
    ms: NDArray[np.float32],
    pan: NDArray[np.float32],
    ms_valid: NDArray[np.bool_] | None = None,
    pan_valid: NDArray[np.bool_] | None = None,
    *,
    phase: tuple[float, float] = (0.0, 0.0),
) -> Shift | None:
    """The correction that lays pan (P, h·ratio, w·ratio) on ms (B, h, w); masks (h, w) and (h·ratio, w·ratio).

    phase: where pan is meant to lie, in its pixels below and right of ms; the correction is what lacks to that.

    The six outermost MS pixels serve as margin only. None where too few pixels are valid, where there is nothing to
    see, or where the best trial lies at the edge of what was tried. ValueError if the sizes do not fit.
    """
    height, width = ms.shape[1:]
    ratio = pan.shape[1] // height
    if pan.shape[1:] != (height * ratio, width * ratio):
        raise ValueError(f"pan {pan.shape} is no whole multiple of ms {ms.shape}")
    ms_valid = np.ones((height, width), bool) if ms_valid is None else ms_valid
    pan_valid = np.ones(pan.shape[1:], bool) if pan_valid is None else pan_valid
    if ratio == 1:
        (ms, ms_valid), (pan, pan_valid) = _smoothed(ms, ms_valid), _smoothed(pan, pan_valid)
    blocks = pan_valid.reshape(height, ratio, width, ratio).all(axis=(1, 3))
    near = ndimage.minimum_filter(blocks, 2 * REACH + 3)  # whatever a trial looks at is valid
    inner = (slice(_MARGIN, -_MARGIN),) * 2
    usable = (ms_valid & near)[inner]
    if usable.sum() < _FEWEST:
        return None
    return _Trials(ms[:, *inner], pan, pan_valid, usable, ratio, phase).best()


def _smoothed(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Bands (n, h, w) by a Gaussian, and where it met valid pixels only, up to three deviations off."""
    clean = np.where(valid, values, 0).astype(np.float64)
    smooth = ndimage.gaussian_filter(clean, (0, _SMOOTH, _SMOOTH), truncate=3).astype(np.float32)
    return smooth, ndimage.minimum_filter(valid, 2 * round(3 * _SMOOTH) + 1)


class _Trials:
    """One window, its usable pixels and what to try out on them."""

    def __init__(
        self,
        ms: NDArray[np.float32],
        pan: NDArray[np.float32],
        pan_valid: NDArray[np.bool_],
        usable: NDArray[np.bool_],
        ratio: int,
        phase: tuple[float, float],
    ) -> None:
        self.usable, self.ratio, self.phase = usable, ratio, phase
        bands = ms[:, usable].T.astype(np.float64)  # (n, B)
        bands -= bands.mean(0)
        deviation = bands.std(0)
        left, size, _ = np.linalg.svd(bands[:, deviation > 0] / deviation[deviation > 0], full_matrices=False)
        self.basis: Floats = left[:, size > 1e-5 * size.max(initial=0)]  # (n, rank), orthonormal
        self.means = [mean for band in pan if (mean := _block_means(band, pan_valid, ratio)) is not None]
        self.splines = [ndimage.spline_filter(mean) for mean in self.means]

    def best(self) -> Shift | None:
        if not self.splines or not self.basis.shape[1]:
            return None
        step = max(1, self.ratio // 2)
        reach = REACH * self.ratio
        lattice = [(row, col) for row in range(-reach, reach + 1, step) for col in range(-reach, reach + 1, step)]
        fits = np.array([self.fit(*self._at_whole(row, col)) for row, col in lattice])
        row, col = lattice[int(fits.argmax())]
        if max(abs(row), abs(col)) == reach or fits.max() < _LEAST_FIT:
            return None
        climbed = self._climb(float(row), float(col))
        if climbed is None:
            return None
        (row_s, col_s), curvature = climbed
        fit = self.fit(*self._at(row_s, col_s))
        # least squares: covariance = 2 σ² (Hessian of the sum of squares)⁻¹, both over the variance of p
        alike = _CORRELATED if self.ratio > 1 else 4 * np.pi * _SMOOTH**2
        covariance = 2 * (1 - fit) / (self.usable.sum() / alike) * np.linalg.inv(curvature)
        phase_row, phase_col = self._by_phase(row_s, col_s)
        errors = np.sqrt(np.diag(covariance)).tolist()
        rows, cols = self.phase
        as_given = self.fit(*(self._at(rows, cols) if any(self.phase) else self._at_whole(0, 0)))
        return Shift(
            row_s - rows, col_s - cols, (errors[0], errors[1]), fit, as_given, phase_row - rows, phase_col - cols
        )

    def _at_whole(self, row: int, col: int) -> list[Floats]:
        """p(s) per PAN band, as maps (h, w); s in whole pixels."""
        first = _MARGIN * self.ratio
        (h, w), r = self.usable.shape, self.ratio
        top, left = first - row, first - col
        return [mean[top : top + h * r : r, left : left + w * r : r] for mean in self.means]

    def _at(self, row: float, col: float) -> list[Floats]:
        """p(s) per PAN band, as maps (h, w)."""
        first = _MARGIN * self.ratio
        scale, offset = (self.ratio, self.ratio), (first - row, first - col)
        return [
            ndimage.affine_transform(spline, scale, offset, self.usable.shape, prefilter=False)
            for spline in self.splines
        ]

    def fit(self, *moved: Floats) -> float:
        """R², mean over the PAN bands; 0 for one that is constant here."""
        shares = []
        for values in moved:
            p = values[self.usable]
            p = p - p.mean()
            power = p @ p
            shares.append(float(np.sum((p @ self.basis) ** 2) / power) if power > 0 else 0.0)
        return float(np.mean(shares))

    def _climb(self, row: float, col: float) -> tuple[tuple[float, float], Floats] | None:
        """The top of R², and the Hessian of 1 − R² there; None where there is no top."""
        reach = max(0.5, self.ratio / 4)  # PAN pixels between trials
        steps = np.array([(i, j) for i in (-1.0, 0.0, 1.0) for j in (-1.0, 0.0, 1.0)])
        y, x = steps.T
        paraboloid = np.linalg.pinv(np.stack([np.ones(9), y, x, y * y / 2, y * x, x * x / 2], axis=1))
        at = start = np.array([row, col])
        for _ in range(12):
            trials = np.array([1 - self.fit(*self._at(*(at + reach * step))) for step in steps])
            _, down_row, down_col, rr, rc, cc = paraboloid @ trials
            curvature = np.array([[rr, rc], [rc, cc]])
            if np.linalg.eigvalsh(curvature)[0] <= 0:
                return None
            move = np.clip(-np.linalg.solve(curvature, [down_row, down_col]), -1, 1) * reach
            at = at + move
            if np.abs(at - start).max() > self.ratio + 1:  # splines are read in the margin only
                return None
            if np.abs(move).max() < 0.005:
                break
        return (float(at[0]), float(at[1])), curvature / reach**2

    def _by_phase(self, row: float, col: float) -> tuple[float, float]:
        """The correction from the phase between p(0) and the fit of it, of the PAN band that MS explains best."""
        best = int(np.argmax([self.fit(moved) for moved in self._at(row, col)]))
        p = self._at(row, col)[best][self.usable]
        fitted, given = np.zeros((2, *self.usable.shape))
        fitted[self.usable] = self.basis @ ((p - p.mean()) @ self.basis)
        values = self._at_whole(0, 0)[best]
        given[self.usable] = values[self.usable] - values[self.usable].mean()
        taper = np.outer(*(np.hanning(size + 2)[1:-1] for size in self.usable.shape))
        cross = fft.fft2(given * taper) * np.conj(fft.fft2(fitted * taper))
        slope = np.array(_slope(cross)) * self.ratio
        return float(slope[0]), float(slope[1])


def _block_means(band: NDArray[np.float32], valid: NDArray[np.bool_], ratio: int) -> Floats | None:
    """Mean over the ratio × ratio pixels that begin at each pixel; None for a constant band."""
    values = band.astype(np.float64)
    low, high = values[valid].min(), values[valid].max()
    if low == high:
        return None
    values = np.where(valid, values, values[valid].mean())  # a cliff would ring through the splines
    origin = -(ratio // 2)
    means: Floats = ndimage.uniform_filter(values, ratio, mode="nearest", origin=origin)
    return means


def _slope(cross: NDArray[np.complex128]) -> tuple[float, float]:
    """(row, col) in samples: the s of a cross spectrum |C| exp(2πi f·s), weighted by |C|, over low frequencies."""
    rows, cols = (fft.fftfreq(size) for size in cross.shape)
    low = np.hypot(rows[:, None], cols) <= _LOW
    f = np.stack(np.meshgrid(rows, cols, indexing="ij"))[:, low]  # (2, frequencies)
    weight = np.abs(cross[low])
    correlation = np.real(fft.ifft2(np.where(low, cross / np.maximum(np.abs(cross), 1e-300), 0)))
    peak = np.unravel_index(int(correlation.argmax()), cross.shape)
    at = -np.array([p if p <= size // 2 else p - size for p, size in zip(peak, cross.shape, strict=True)], float)
    for _ in range(5):
        rest = np.angle(cross[low] * np.exp(-2j * np.pi * (at @ f)))
        weighted = f * weight
        at = at + np.linalg.solve(2 * np.pi * (weighted @ f.T), weighted @ rest)
    return float(at[0]), float(at[1])


def combine(windows: list[tuple[Window, Shift | None]], height: int, width: int) -> Registration | None:
    """One correction from those of single windows; None where no window has one."""
    measured = [(window, shift) for window, shift in windows if shift is not None]
    if not measured:
        return None
    shifts = [shift for _, shift in measured]
    y, x = np.array([_place(window, height, width) for window, _ in measured]).T
    design = np.stack([np.ones_like(y), y, x], axis=1)
    spread_out = len(measured) >= 4 and np.linalg.matrix_rank(design) == 3
    if not spread_out:
        design = design[:, :1]
    coefficients = [
        _robust_fit(
            design, np.array([(s.row, s.col)[axis] for s in shifts]), np.array([s.errors[axis] for s in shifts])
        )
        for axis in (0, 1)
    ]
    (row, row_error), (col, col_error) = coefficients
    return Registration(
        row=float(row[0]),
        col=float(col[0]),
        errors=(float(row_error[0]), float(col_error[0])),
        drift=((float(row[1]), float(row[2])), (float(col[1]), float(col[2]))) if spread_out else None,
        drift_errors=(
            ((float(row_error[1]), float(row_error[2])), (float(col_error[1]), float(col_error[2])))
            if spread_out
            else None
        ),
        phase_row=float(np.median([s.phase_row for s in shifts])),
        phase_col=float(np.median([s.phase_col for s in shifts])),
        fit=float(np.mean([s.fit for s in shifts])),
        fit_as_given=float(np.mean([s.fit_as_given for s in shifts])),
        windows=tuple(windows),
    )


def _place(window: Window, height: int, width: int) -> tuple[float, float]:
    """The middle of a window, from −1 (upper, left edge of the scene) to 1."""
    return (2 * window.row + window.height) / height - 1, (2 * window.col + window.width) / width - 1


def _robust_fit(design: Floats, values: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Coefficients (k) and their standard errors (k), by Huber's weights; the scatter of the values counts too."""
    certain = 1 / errors**2
    huber = np.ones_like(values)
    for _ in range(20):
        weight = certain * huber
        normal = design.T @ (weight[:, None] * design)
        coefficients = np.asarray(np.linalg.solve(normal, design.T @ (weight * values)), np.float64)
        off = np.abs(values - design @ coefficients) / errors
        scale = max(1.0, float(np.median(off)) / 0.6745)
        huber = np.minimum(1, 1.345 * scale / np.maximum(off, 1e-12))
    freedom = len(values) - len(coefficients)
    scatter = max(1.0, float((huber * off**2).sum()) / freedom) if freedom else 1.0
    deviation: Floats = np.sqrt(scatter * np.diag(np.linalg.inv(normal)))
    return coefficients, deviation
