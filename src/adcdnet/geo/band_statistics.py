"""Mean and standard deviation of every band over the training area, which standardise all a model ever sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BandStatistics:
    """One value per band, in the units of the files."""

    ms_mean: tuple[float, ...]
    ms_deviation: tuple[float, ...]
    pan_mean: tuple[float, ...]
    pan_deviation: tuple[float, ...]

    @classmethod
    def measure(
        cls,
        ms: NDArray[np.float32],
        pan: NDArray[np.float32],
        ms_where: NDArray[np.bool_],
        pan_where: NDArray[np.bool_],
    ) -> BandStatistics:
        """Of ms (B, h, w) where ms_where (h, w) holds, and pan likewise. A constant band gets deviation 1."""
        return cls(*_moments(ms, ms_where), *_moments(pan, pan_where))

    def standardise(
        self,
        ms: NDArray[np.float32],
        pan: NDArray[np.float32],
        ms_valid: NDArray[np.bool_],
        pan_valid: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(x - mean) / deviation per band; 0, the training mean, where invalid."""
        return (
            _standardise(ms, self.ms_mean, self.ms_deviation, ms_valid),
            _standardise(pan, self.pan_mean, self.pan_deviation, pan_valid),
        )

    def distance(self, other: BandStatistics) -> list[float]:
        """How far the band means of another area lie from these, in these deviations; ms bands first."""
        mine = zip(self.ms_mean + self.pan_mean, self.ms_deviation + self.pan_deviation, strict=True)
        return [
            abs(theirs - mean) / deviation
            for (mean, deviation), theirs in zip(mine, other.ms_mean + other.pan_mean, strict=True)
        ]


def _moments(x: NDArray[np.float32], where: NDArray[np.bool_]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    values = x[:, where].astype(np.float64)
    mean, deviation = values.mean(1), values.std(1)
    return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def _standardise(
    x: NDArray[np.float32], mean: tuple[float, ...], deviation: tuple[float, ...], valid: NDArray[np.bool_]
) -> NDArray[np.float32]:
    centre = np.asarray(mean, np.float64)[:, None, None]
    scaled = (x - centre) / np.asarray(deviation, np.float64)[:, None, None]
    return np.where(valid, scaled, 0).astype(np.float32)
