"""Where to label next: places that the model is unsure of, that are unlike all labels, of classes that have few, and
spread out, so that many can be labelled before the next training. Every other place is drawn at random, because places
that are chosen shift the shares of the classes, and where labels are noisy the least sure ones are the noisiest
(docs/evidence/checks.md).

A place is a square of `side` map pixels. The worth of a pixel is

    v = e · (1 + u) / √(share of its mapped class among the labels, over an even share)

e expected error (`predict --trust`), or 1 − p̂ without; u = 1 where the pixel lies outside the area of applicability
and 0 inside, up to 1 between half the threshold and all of it. Places are chosen one after another by the mean worth
of their pixels, each time divided by 1 + how many chosen ones are mapped as the same class, and times 1 − exp(−d²/2L²)
for the distance d to each chosen one, L a quarter of the distance of places that are spread evenly. This is uncertainty
sampling with diversity (Settles 2010, Active Learning Literature Survey, sections 3.1 and 3.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.qgis_style import write_choices
from adcdnet.geo.shapes import write_layers

_FEWEST = 0.002  # share of labels below which a class counts as no rarer
_INSIDE = 0.5  # of the threshold: below it a pixel is not unlike labels at all


@dataclass(frozen=True)
class Place:
    """One square to label: its first row and column, and its worth. reason: why, in words."""

    row: int
    col: int
    worth: float
    reason: str


def suggest(
    probabilities: NDArray[np.float32],
    classes: ClassTable,
    *,
    n: int,
    side: int = 5,
    trust: NDArray[np.float32] | None = None,
    labelled: NDArray[np.int16] | None = None,
    seed: int = 0,
) -> list[Place]:
    """At most n places on the map's grid: chosen ones, the worthiest first, and as many that are drawn at random.

    probabilities (K, H, W): of a map, nan where it has no class. trust (2, H, W): as `write_trust` leaves it. labelled
    (H, W): class index of what is labelled already, −1 elsewhere: no place lies on it. seed: of the draw. InputError
    where no place is left.
    """
    if n < 1 or side < 1:
        raise InputError(f"{n} places of {side} pixels a side cannot be suggested; at least 1 of each is needed")
    height, width = probabilities.shape[1:]
    known = np.isfinite(probabilities[0])
    p = np.where(known, probabilities, 0)
    best = p.argmax(axis=0)
    counts = np.zeros(len(classes))
    free = known.copy()
    if labelled is not None:
        counts = np.bincount(labelled[labelled >= 0], minlength=len(classes)).astype(float)
        free &= labelled < 0
    shares = (
        np.maximum(counts / max(counts.sum(), 1), _FEWEST) * len(classes) if counts.any() else np.ones(len(classes))
    )
    unlike = np.zeros((height, width)) if trust is None else np.nan_to_num(trust[0], nan=0.0)
    outside = np.clip((unlike - _INSIDE) / (1 - _INSIDE), 0, 1)
    error = 1 - p.max(axis=0) if trust is None else np.nan_to_num(trust[1], nan=0.0)
    value = error * (1 + outside) / np.sqrt(shares[best])
    worth = _mean_of_squares(np.where(free, value, 0), side)
    whole = _mean_of_squares(free.astype(float), side) > 1 - 1e-9  # others hold what cannot be labelled
    worth[~whole] = 0
    middle = side // 2
    of_class = best[middle : middle + worth.shape[0], middle : middle + worth.shape[1]]
    spread = np.sqrt(max(1, int(free.sum())) / n) / 4  # a quarter of the distance of places that lie evenly
    row, col = np.mgrid[: worth.shape[0], : worth.shape[1]].astype(np.float32)
    places: list[Place] = []
    left = worth.copy()
    chosen = np.zeros(len(classes), int)
    while len(places) < (n + 1) // 2:
        ranked = left / (1 + chosen[of_class])
        at = np.unravel_index(int(ranked.argmax()), ranked.shape)
        if not ranked[at] > 0:
            break
        r, c = int(at[0]), int(at[1])
        square = slice(r, r + side), slice(c, c + side)
        reason = _reason(p[:, *square], unlike[square], classes, counts)
        places.append(Place(r, c, float(worth[r, c]), reason))
        chosen[of_class[r, c]] += 1
        apart = np.square(row - r) + np.square(col - c)
        left *= 1 - np.exp(-apart / (2 * max(spread, side / 2) ** 2))
        for layer in (left, whole):  # squares do not overlap
            layer[max(0, r - side + 1) : r + side, max(0, c - side + 1) : c + side] = 0
    rng = np.random.default_rng(seed)
    while len(places) < n and whole.any():
        rows, cols = np.nonzero(whole)
        k = int(rng.integers(len(rows)))
        r, c = int(rows[k]), int(cols[k])
        places.append(Place(r, c, float(worth[r, c]), "drawn at random, which keeps the shares of classes true"))
        whole[max(0, r - side + 1) : r + side, max(0, c - side + 1) : c + side] = False
    if not places:
        raise InputError(
            f"no square of {side}×{side} pixels is left to label: the map has a class in none, or all are labelled; "
            "ask for smaller ones with --side"
        )
    return places


def _mean_of_squares(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Means of all squares inside (H, W), by their first pixel; empty where none fits."""
    height, width = (max(0, n - side + 1) for n in values.shape)
    if not height or not width:
        return np.zeros((1, 1))
    means = ndimage.uniform_filter(values, side, mode="constant", origin=-(side // 2))
    return np.asarray(means[:height, :width])


def _reason(
    p: NDArray[np.floating], unlike: NDArray[np.floating], classes: ClassTable, counts: NDArray[np.float64]
) -> str:
    mean = p.mean(axis=(1, 2))
    first, second = np.argsort(-mean)[:2] if len(mean) > 1 else (0, 0)
    words = [f"{classes.names[first]} {mean[first]:.2f} or {classes.names[second]} {mean[second]:.2f}"]
    if unlike.mean() > 1:
        words.append(f"unlike all labels ({unlike.mean():.1f} times the threshold)")
    if counts[first] < counts.mean() / 4:
        words.append(f"few labels of {classes.names[first]} ({int(counts[first])} pixels)")
    return "; ".join(words)


def write_places(places: Sequence[Place], side: int, grid: Grid, classes: ClassTable, out: Path | str) -> None:
    """The squares as polygons in a new GeoPackage with an empty column `class`, and the reason of each; beside it, for
    QGIS, the classes to choose from. InputError."""
    corners = [[grid.transform @ (x, y) for x, y in _corners(place, side)] for place in places]
    frame = geopandas.GeoDataFrame(
        {
            "id": np.arange(1, len(places) + 1),
            "class": [None] * len(places),
            "reason": [place.reason for place in places],
            "worth": [round(place.worth, 5) for place in places],
        },
        geometry=[shapely.Polygon(corner) for corner in corners],
        crs=grid.crs,
    )
    write_layers(Path(out), {"places": frame})
    write_choices(Path(out), classes)


def _corners(place: Place, side: int) -> list[tuple[int, int]]:
    left, top, right, bottom = place.col, place.row, place.col + side, place.row + side
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
