"""Two maps of the same ground: what became what, as mapped, and from a random sample the areas that truly changed.

Subtracting two maps adds up their mistakes: two maps of 90 % accuracy may call a fifth of the ground changed where
nothing has. So areas of change are estimated from points drawn in the strata of a change map (Olofsson et al. 2014,
Remote Sensing of Environment 148), by `sample` and `evaluate` as for any map.

K classes | a transition (i, j): class i in the first map, class j in the second; i = j is no change
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.assess.areas import Estimate, estimate
from adcdnet.assess.evaluate import Evaluation, evaluate
from adcdnet.assess.sample import read_sample
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.maps import read_classes, read_map
from adcdnet.geo.pixel_area import PixelArea, pixel_area
from adcdnet.geo.raster import same_crs
from adcdnet.geo.raster_writer import write_raster

ARROW = " → "
_MOST = 15  # classes whose transitions a map can hold: 15² of 255 values


@dataclass(frozen=True)
class Comparison:
    """matrix (K, K): pixels of the first map's class (rows) and the second's (columns), where both have one.

    without: pixels to which one of the maps gives no class. evaluation: of the change map by a sample, whose areas are
    of transitions; changed: the share of the ground that truly changed. None without a sample;
    changed also where this was not drawn by the strata of this change map.
    """

    classes: ClassTable
    matrix: NDArray[np.int64]
    without: int
    pixel: PixelArea
    evaluation: Evaluation | None = None
    changed: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "classes": [{"value": v, "name": n} for v, n in zip(self.classes.values, self.classes.names, strict=True)],
            "matrix": self.matrix.tolist(),
            "without_class": self.without,
            "pixel_hectares": self.pixel.hectares,
            "changed_share": None if self.changed is None else self.changed._asdict(),
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
        }


def compare(first: Path | str, second: Path | str, out: Path | str, *, sample: Path | str | None = None) -> Comparison:
    """Compare two maps and write the change map, whose classes are their transitions, to `out`.

    sample: points that `sample` drew from that change map, its column `class` filled in with names of transitions.
    InputError for maps of other ground or grids, without class names, with other classes, or with more than 15.
    """
    before, grid = read_map(first)
    after, other = read_map(second)
    if (grid.shape, grid.transform, grid.crs) != (other.shape, other.transform, same_crs(other.crs, grid.crs)):
        raise InputError(
            f"{first} and {second} do not lie on each other: {_place(grid)} against {_place(other)}; predict both "
            "from images on one grid, or warp one, e.g. with gdalwarp -r near"
        )
    classes = _classes_of_both(first, second)
    table = transitions_of(classes)
    index = np.full(256, -1, np.int16)
    index[list(classes.values)] = np.arange(len(classes))
    i, j = index[before], index[after]
    known = (i >= 0) & (j >= 0)
    number = np.where(known, i * len(classes) + j, 0)
    matrix = np.bincount(number[known], minlength=len(classes) ** 2).reshape(len(classes), -1)
    if not known.any():
        raise InputError(f"no pixel has a class in both {first} and {second}; there is nothing to compare")
    write_raster(out, np.where(known, np.asarray(table.values)[number], 0).astype(np.uint8), grid, classes=table)
    found = Comparison(classes, matrix, int((~known & ((before > 0) | (after > 0))).sum()), pixel_area(grid))
    if sample is None:
        return found
    evaluation, drawn = evaluate(out, sample), read_sample(sample)
    if drawn is None:
        raise InputError(f"{sample} is no sample that `adcdnet sample` drew; draw one from {out} and fill it in")
    mapped = matrix.ravel()[matrix.ravel() > 0]
    of_this_map = np.array_equal(drawn.pixels, mapped)  # not of another, of pure pixels, or of the map as one stratum
    return replace(found, evaluation=evaluation, changed=_changed(evaluation, matrix) if of_this_map else None)


def transitions_of(classes: ClassTable) -> ClassTable:
    """A class for each transition: K where nothing changes, called as the class is, and 'i → j'. InputError if K > 15.

    Values go row by row through the matrix, from 1.
    """
    if len(classes) > _MOST:
        raise InputError(
            f"{len(classes)} classes have {len(classes) ** 2} transitions, of which a map can hold 255; "
            f"join classes until there are {_MOST} at most"
        )
    names = [a if a == b else f"{a}{ARROW}{b}" for a in classes.names for b in classes.names]
    table = ClassTable.numbered(names)
    free = cycle(color for color in dict.fromkeys(table.colors) if color not in classes.colors)
    same = dict(zip(classes.names, classes.colors, strict=True))
    return ClassTable(table.values, table.names, tuple(same.get(name) or next(free) for name in names))


def _classes_of_both(first: Path | str, second: Path | str) -> ClassTable:
    tables = [read_classes(path) for path in (first, second)]
    for path, table in zip((first, second), tables, strict=True):
        if table is None:
            raise InputError(f"{path} carries no class names, which are needed; compare maps that `predict` wrote")
    mine, theirs = tables
    assert mine is not None
    assert theirs is not None
    if (mine.values, mine.names) != (theirs.values, theirs.names):
        shown = [", ".join(f"{v} {n}" for v, n in zip(t.values, t.names, strict=True)) for t in (mine, theirs)]
        raise InputError(
            f"{first} has the classes {shown[0]}, and {second} {shown[1]}; one class table for both is needed"
        )
    return mine


def _changed(evaluation: Evaluation, matrix: NDArray[np.int64]) -> Estimate:
    """The share that changed, from the confusion of points in strata that are the classes of the change map."""
    strata = evaluation.confusion.sum(axis=0)[:-1] > 0
    pixels = matrix.ravel()
    moved = ~np.eye(len(matrix), dtype=bool).ravel()
    counts = np.zeros((int(strata.sum()), 3, 2), np.int64)  # stratum, mapped (unchanged, changed, none), true
    for h, k in enumerate(np.flatnonzero(strata)):
        mapped = int(moved[k])
        counts[h, mapped] = [evaluation.confusion[~moved, k].sum(), evaluation.confusion[moved, k].sum()]
    return estimate(counts, pixels[strata]).area[1]


def _place(grid: Grid) -> str:
    return f"{grid.height}×{grid.width} pixels from ({grid.transform.c:.10g}, {grid.transform.f:.10g})"
