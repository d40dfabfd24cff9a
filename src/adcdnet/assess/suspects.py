"""Labels that are likely wrong, by what members that did not learn them say: confident learning, polygon by polygon.

p_k (K,) held-out probabilities of a pixel | i its label
t_k mean p_k of the pixels labelled k: how sure answers are of that class

    a pixel is confidently of class j = argmax {p_k : p_k ≥ t_k}, where there is such a class

A polygon is suspect if more of its pixels are confidently of another class than of its own. Suspects are ranked by how
much likelier the class that they are taken for is than their label, on the mean of their pixels.
Source: Northcutt, Jiang and Chuang 2021, Journal of Artificial Intelligence Research 70, section 3.1. Deviation: they
rank single samples; pixels of one polygon carry one label, that of a person, and are judged together. Where labels are
a raster, patches of one class are the polygons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import Labels
from adcdnet.geo.polygons import outlines
from adcdnet.geo.shapes import write_layers


@dataclass(frozen=True)
class Suspect:
    """A polygon whose label is likely wrong. number: of the polygon, counted from 0; of a patch of a raster, from 0.

    row, col: a pixel in its middle. label, likely: class indices. pixels: that were answered. confident: the share of
    them that is confidently of that other class. advantage: mean of p_likely − p_label, from −1 to 1.
    """

    number: int
    row: int
    col: int
    label: int
    likely: int
    pixels: int
    confident: float
    advantage: float


@dataclass(frozen=True)
class Suspicion:
    """ranked: the suspects, the likeliest first. unit (H, W): number of the polygon or patch a labelled pixel lies in.

    judged: how many polygons had any answer. of_patches: whether they are patches of a raster.
    """

    ranked: tuple[Suspect, ...]
    unit: NDArray[np.int32]
    judged: int
    of_patches: bool


def suspect(labels: Labels, probabilities: NDArray[np.float32]) -> Suspicion:
    """probabilities (K, H, W): of labelled pixels by members that did not train there; nan elsewhere."""
    known = (labels.index >= 0) & np.isfinite(probabilities).all(axis=0)
    unit = labels.polygons if labels.polygons is not None else patches(labels.index)
    row, col = np.nonzero(known)
    p, given, number = probabilities[:, row, col], labels.index[row, col].astype(np.int64), unit[row, col]
    sure = confident(p, given)
    ranked = []
    numbers, place = np.unique(number, return_inverse=True)
    order = np.argsort(place, kind="stable")
    for k, these in enumerate(np.split(order, np.cumsum(np.bincount(place))[:-1])):
        label = int(given[these[0]])  # one for all of them
        votes = np.bincount(sure[these][sure[these] >= 0], minlength=len(p))
        likely = int(np.where(np.arange(len(p)) == label, -1, votes).argmax())
        if votes[likely] <= votes[label]:
            continue
        share = float(votes[likely] / len(these))
        advantage = float((p[likely, these] - p[label, these]).mean())
        middle = these[np.hypot(row[these] - row[these].mean(), col[these] - col[these].mean()).argmin()]
        at = int(row[middle]), int(col[middle])
        ranked.append(Suspect(int(numbers[k]), *at, label, likely, len(these), share, advantage))
    ranked.sort(key=lambda one: (-one.advantage, one.number))
    return Suspicion(tuple(ranked), unit, len(numbers), labels.polygons is None)


def confident(p: NDArray[np.floating], given: NDArray[np.integer]) -> NDArray[np.int64]:
    """The class that each sample (n,) is confidently of, −1 none; p (K, n), given (n,) class indices."""
    classes = len(p)
    counts = np.bincount(given, minlength=classes)
    of_own = np.bincount(given, weights=p[given, np.arange(len(given))], minlength=classes)
    least = np.where(counts > 0, of_own / np.maximum(counts, 1), np.inf)  # nothing is confidently of an absent class
    sure = np.where(p >= least[:, None], p, -1.0)
    return np.where(sure.max(axis=0) >= 0, sure.argmax(axis=0), -1)


def patches(index: NDArray[np.integer]) -> NDArray[np.int32]:
    """(H, W): number of the patch of one class that a labelled pixel lies in, by edges; −1 without a label."""
    unit, before = np.full(index.shape, -1, np.int32), 0
    for k in np.unique(index[index >= 0]):
        found, count = ndimage.label(index == k)
        unit[found > 0] = found[found > 0] + before - 1
        before += count
    return unit


def write_suspects(found: Suspicion, classes: ClassTable, grid: Grid, out: Path | str) -> None:
    """The suspects as polygons in a new GeoPackage, in their order: label, likely class, and how sure that is.

    InputError where the file cannot be written.
    """
    shapes = outlines(np.where(np.isin(found.unit, [one.number for one in found.ranked]), found.unit, -1), grid)
    rows: dict[str, Sequence[object]] = {
        "rank": list(range(1, len(found.ranked) + 1)),
        "number": [one.number + 1 for one in found.ranked],
        "label": [classes.names[one.label] for one in found.ranked],
        "likely": [classes.names[one.likely] for one in found.ranked],
        "pixels": [one.pixels for one in found.ranked],
        "share": [round(one.confident, 4) for one in found.ranked],
        "advantage": [round(one.advantage, 4) for one in found.ranked],
    }
    frame = geopandas.GeoDataFrame(rows, geometry=[shapes[one.number] for one in found.ranked], crs=grid.crs)
    write_layers(Path(out), {"suspects": frame})
