"""How much of a pixel each class covers, of polygons and of the pixels of another raster, and which class it then has.

A pixel has the class that covers most of it, if that covers at least a wanted share of it and no other as much.
n pieces of pixels that one polygon covers | K classes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas
import numpy as np
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from adcdnet.geo.grid import Grid

_FLAT = "EPSG:3857"  # any plane: exactextract compares systems, and pixels have none
_ROUNDING = 1e-4  # of a pixel: shares are sums of single precision
_MEET = 0.01  # of a pixel of the other raster: how far edges may miss each other and still count as meeting


@dataclass(frozen=True)
class Covered:
    """index (h, w): class of a pixel, −1 none. number (h, w): the shape that covers most of it, of that class; −1.

    contested: how many pixels are covered by shapes of different classes that lie on each other.
    """

    index: NDArray[np.int16]
    number: NDArray[np.int32]
    contested: int


def covered_by(shapes: NDArray[Any], class_of: NDArray[np.int32], grid: Grid, least: float) -> Covered:
    """Pixels of a grid that shapes in its coordinate system cover by a share of at least `least`.

    class_of: class index of each shape. A point covers the pixel that it lies in. Contested pixels have no class.
    """
    index, number = np.full(grid.shape, -1, np.int16), np.full(grid.shape, -1, np.int32)
    pixel, shape, share = _pieces(shapes, grid)
    if not len(pixel):
        return Covered(index, number, 0)
    classes = int(class_of.max()) + 1
    pairs, at = np.unique(pixel * classes + class_of[shape], return_inverse=True)
    of_pair = np.minimum(np.bincount(at, share), 1)  # shapes of one class may lie on each other
    by_share = np.lexsort((share, at))
    largest = shape[by_share[np.cumsum(np.bincount(at)) - 1]]  # of each pair, the shape that covers most
    order = np.lexsort((of_pair, pairs // classes))
    place, first = np.unique((pairs // classes)[order], return_index=True)
    last = np.append(first[1:], len(order)) - 1
    best = order[last]
    second = np.where(last > first, of_pair[order[last - 1]], 0)
    overlap = of_pair[best] + second > 1 + _ROUNDING
    wanted = (of_pair[best] >= least - _ROUNDING) & (of_pair[best] > second + _ROUNDING) & ~overlap
    index.ravel()[place[wanted]] = pairs[best[wanted]] % classes
    number.ravel()[place[wanted]] = largest[best[wanted]]
    return Covered(index, number, int(overlap.sum()))


def _pieces(shapes: NDArray[Any], grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Of each piece the flat index of its pixel, the shape's number, and the share of the pixel (n,)."""
    inverse = ~grid.transform

    def on_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        col, row = inverse @ (xy[:, 0], xy[:, 1])
        return np.stack((col, -row), axis=1)

    flat = shapely.transform(shapes, on_pixels)
    points = shapely.get_dimensions(flat) == 0
    flat[points] = [_pixels_of(shape) for shape in flat[points]]
    frame = geopandas.GeoDataFrame({"shape": np.arange(len(flat))}, geometry=flat, crs=_FLAT)
    h, w = grid.shape
    pixels = NumPyRasterSource(np.broadcast_to(np.uint8(0), (h, w)), 0, -h, w, 0, srs_wkt=frame.crs.to_wkt())
    found = exact_extract(pixels, frame, ["cell_id", "coverage"], include_cols=["shape"], output="pandas")
    counts = [len(cells) for cells in found["cell_id"]]
    pixel, share = (np.concatenate([np.zeros(0), *found[name]]) for name in ("cell_id", "coverage"))
    return pixel.astype(np.int64), np.repeat(found["shape"].to_numpy(np.int64), counts), share


def _pixels_of(points: Any) -> Any:
    """The pixels that points lie in, as a shape."""
    col, row = np.floor(shapely.get_coordinates(points)).T
    return shapely.union_all(shapely.box(col, row, col + 1, row + 1))


def overlaps(first: float, size: float, count: int, others: int) -> csr_matrix:
    """(count, others): the share of each of `count` pixels in a row that each of some others covers.

    In pixels of those others, the first begins at `first` and each is `size` long.
    """
    edge = first + size * np.arange(count + 1)
    edge = np.where(np.abs(edge - edge.round()) <= _MEET, edge.round(), edge)
    begin, end = edge[:-1, None], edge[1:, None]
    other = np.floor(begin).astype(int) + np.arange(int(np.ceil(size)) + 2)
    share = np.clip(np.minimum(other + 1, end) - np.maximum(other, begin), 0, None) / (end - begin)
    row, k = np.nonzero((share > 0) & (other >= 0) & (other < others))
    return csr_matrix((share[row, k].astype(np.float32), (row, other[row, k])), shape=(count, others))


def majority(
    values: NDArray[np.int32], rows: csr_matrix, cols: csr_matrix, least: float, *, none: int
) -> NDArray[np.int32]:
    """(h, w) values of pixels, of those of another raster (H, W) that cover a share of at least `least`; else `none`.

    rows (h, H) and cols (w, W): as of `overlaps`.
    """
    best = np.full((rows.shape[0], cols.shape[0]), none, np.int32)
    most, second = np.zeros((2, *best.shape), np.float32)
    for value in np.unique(values[values != none]):
        share = (cols @ (rows @ (values == value).astype(np.float32)).T).T
        leads = share > most
        second = np.where(leads, most, np.maximum(second, share))
        best[leads], most[leads] = value, share[leads]
    best[(most < least - _ROUNDING) | (most <= second + _ROUNDING)] = none
    return best
