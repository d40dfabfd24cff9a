"""How many points a probability sample needs for a wanted standard error, before any is drawn or after the first.

H strata | W_h share of stratum h in all pixels | n_h points | p_h share of them that are expected to be hits

    error² = Σ W_h² p_h (1 − p_h) / (n_h − 1)

Hits are points that the map has right, for the overall accuracy; or points that truly are of one class, for its area
as a share of the map. Source: Olofsson et al. 2014, Remote Sensing of Environment 148, equations 5, 10 and 13, here for
any allocation. A stratum drawn whole adds no error, as in `areas`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError

UNKNOWN = 0.8  # user's accuracy that is expected where nothing is known


def expected_error(points: NDArray[np.integer], pixels: NDArray[np.integer], hits: NDArray[np.float64]) -> float:
    """Of so many points (H,) in strata of so many pixels (H,), of which such shares (H,) are hits."""
    weight = pixels / pixels.sum()
    variance = hits * (1 - hits) / np.maximum(points - 1, 1)
    return float(np.sqrt((weight**2 * np.where(points >= pixels, 0, variance)).sum()))


def points_for(
    error: float,
    pixels: NDArray[np.integer],
    hits: NDArray[np.float64],
    shared: Callable[[int], NDArray[np.int64]],
    fewest: int,
) -> int:
    """The smallest number of points for which the expected error is no larger.

    shared: deals so many points, at least `fewest`, to the strata. InputError for an error that is none.
    """
    if not 0 < error < 0.5:
        raise InputError(f"a standard error of {error:g} cannot be aimed at; it is a share, above 0 and below 0.5")
    low, high = fewest, int(pixels.sum())
    while low < high:
        middle = (low + high) // 2
        if expected_error(shared(middle), pixels, hits) <= error:
            high = middle
        else:
            low = middle + 1
    return low


def smoothed(hits: NDArray[np.integer], points: NDArray[np.integer]) -> NDArray[np.float64]:
    """Expected share of hits in each stratum (H,), from so many among some points.

    One hit and one miss are added, so that a few points that agree do not promise that all will.
    """
    return np.asarray((hits + 1) / (points + 2))


def unknown(values: NDArray[np.integer], of: int | None) -> NDArray[np.float64]:
    """The same where nothing is known of strata of these mapped values: each class is right by `UNKNOWN`, and mistaken
    for any other alike. of: the value of the class whose area is asked for; None: overall accuracy."""
    if of is None:
        return np.full(len(values), UNKNOWN)
    return np.where(values == of, UNKNOWN, (1 - UNKNOWN) / max(1, len(values) - 1))


def judged_elsewhere(
    path: Path | str, values: NDArray[np.integer], of: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hits and points (H,) of each mapped value, from what `evaluate --json` wrote of this map or one like it.

    InputError where the file is none, or lacks one of the classes.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        known = [int(one["value"]) for one in content["classes"]]
        confusion = np.asarray(content["confusion"], np.int64)
        if confusion.shape != (len(known), len(known) + 1):
            raise ValueError("its confusion matrix has another shape than its classes say")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not what `adcdnet evaluate --json` writes: {error}") from error
    missing = sorted({*values.tolist(), *([] if of is None else [of])} - set(known))
    if missing:
        raise InputError(f"{path} knows nothing of the map's values {missing}; name the evaluation of this map")
    column = [known.index(value) for value in values.tolist()]
    row = column if of is None else known.index(of)
    return confusion[row, column], confusion.sum(axis=0)[column]
