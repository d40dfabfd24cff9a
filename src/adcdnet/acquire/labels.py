"""Labels of a pair from a map that somebody else has made: a product with its own errors, not what is on the ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from scipy.ndimage import maximum_filter, minimum_filter

from adcdnet.acquire.area import Area
from adcdnet.acquire.catalogue import LabelProduct
from adcdnet.acquire.items import Item, class_table
from adcdnet.acquire.pair import TILE, open_asset
from adcdnet.acquire.remote import window_of
from adcdnet.acquire.search import Catalogue
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window, tiles
from adcdnet.geo.label_rasters import read_raster
from adcdnet.geo.raster import is_nodata
from adcdnet.geo.raster_writer import RasterWriter
from adcdnet.geo.scene import Scene

_MARGIN = 2  # pixels of the product beyond the pair
_NONE = -1


class NoLabels(InputError):
    """A product has nothing of use here; the pair is good without."""


@dataclass(frozen=True)
class ProductLabels:
    """index (h, w) on the MS grid, −1 unlabelled; its classes; the items it is from, with addresses, none of a file."""

    index: NDArray[np.int16]
    classes: ClassTable
    items: tuple[tuple[Item, str], ...]
    year: str
    notes: tuple[str, ...]


def find_items(
    catalogue: Catalogue, product: LabelProduct, area: Area, day: str, ids: Sequence[str] | None
) -> tuple[list[Item], tuple[str, ...]]:
    """The items of a product over an area, of the year nearest to a day; or those of these names. NoLabels."""
    found, notes = catalogue.search(product.collection, area=None if ids else area, ids=ids)
    found = [item for item in found if product.asset in item.assets] or found[:1]  # some have other products beside it
    if not found:
        raise NoLabels(f"{product.name} has no labels of this area at {catalogue.api.address}; choose another product")
    if ids is not None:
        return sorted(found, key=lambda item: ids.index(item.id)), notes
    years = {item.when[:4] for item in found}
    year = min(years, key=lambda one: (abs(int(one) - int(day[:4])), -int(one)))
    return sorted((item for item in found if item.when[:4] == year), key=lambda item: item.id), notes


def product_labels(
    catalogue: Catalogue, product: LabelProduct, items: Sequence[Item], grid: Grid, folder: Path
) -> ProductLabels:
    """What the product says of each MS pixel: the class that covers at least half of it. Its pixels go to `folder`."""
    index = np.full(grid.shape, _NONE, np.int16)
    of_item = class_table(items[0], product.asset)
    tables = product.tables or (() if of_item is None else (of_item,))
    table: ClassTable | None = None
    used, notes = [], []
    for number, item in enumerate(items):
        raster = open_asset(catalogue, item, product.asset)
        try:
            native, fitting, more = copied(raster, raster.address, grid, folder / f"{number}.tif", tables)
        finally:
            raster.close()
        if native is None:
            continue
        own, classes, said = read_raster(native, grid, fitting, None, None)
        if table is None:
            table = classes
        if classes != table:
            raise InputError(f"the labels of {product.name} name no classes; name them in a TOML file of the product")
        index = np.where(index == _NONE, own, index)
        used.append((item, raster.address))
        notes += [f"{product.name}: {note}" for note in more]
        # what else is said of the copy, such as how its pixels lie, is so for every product
        notes += [note for note in said if note.startswith("values of the class table")]
    if table is None or not used:
        raise NoLabels(f"{product.name} has no labels on the ground of the pair; choose another product")
    year = used[0][0].when[:4]
    return ProductLabels(index, table, tuple(used), year, tuple(dict.fromkeys(notes)))


class _Readable(Protocol):
    """A raster that is open, here or at an address."""

    @property
    def grid(self) -> Grid: ...
    @property
    def count(self) -> int: ...
    @property
    def nodata(self) -> float | None: ...
    def read(self, window: Window) -> NDArray[Any]: ...


def copied(
    raster: _Readable, name: str, grid: Grid, path: Path, tables: Sequence[ClassTable]
) -> tuple[Path | None, ClassTable | None, tuple[str, ...]]:
    """The pixels of a raster over a grid in any system, as a file, or None where there are none; and notes.

    Of several tables the first counts that knows one of the values. Others become no data: products have such as cloud.
    """
    if raster.count != 1:
        raise InputError(f"{name} has {raster.count} bands; labels need one")
    if raster.grid.crs is None:
        raise InputError(f"{name} has no coordinate system; assign the one it is in, e.g. with gdal_edit -a_srs")
    window = window_of(raster.grid, _bounds_on(grid, raster.grid)).grow(_MARGIN).within(*raster.grid.shape)
    if window.height <= 0 or window.width <= 0:
        return None, None, ()
    dtype = raster.read(Window(window.row, window.col, 1, 1)).dtype
    codes = [code for table in tables for code in table.codes or table.values]
    nodata = _without_values(raster.nodata, dtype, zero=0 in codes)
    found: set[float] = set()
    with RasterWriter(path, raster.grid.crop(window), dtype=dtype.name, nodata=nodata) as writer:
        for tile in tiles(window.height, window.width, 2 * TILE):
            values = raster.read(tile.shift(window.row, window.col))
            if tables:
                missing = is_nodata(values, raster.nodata)
                found.update(np.unique(values[~missing]).tolist())
                values = np.where(np.isin(values, codes) & ~missing, values, values.dtype.type(nodata))
            writer.write(values, tile)
    table = next((one for one in tables if found & {*(one.codes or one.values)}), tables[0] if tables else None)
    notes: tuple[str, ...] = ()
    if strange := sorted(found - {*codes, 0}):
        shown = ", ".join(f"{value:g}" for value in strange[:9])
        notes += (f"the values {shown} are no class of it; their pixels stay unlabelled",)
    if table is not None and raster.nodata == 0 and 0 in table.codes:
        name_of_0 = table.names[table.codes.index(0)]
        notes += (
            f"{name} declares 0 as no data, which is its class {name_of_0!r}; these pixels stay unlabelled; if they "
            "are of it, take that declaration away, e.g. with gdal_edit -unsetnodata",
        )
    return path, table, notes


def _without_values(declared: float | None, dtype: np.dtype[Any], *, zero: bool) -> float:
    """What stands for nothing in a copy: as declared, or 0 unless that is a class."""
    if dtype.kind == "f":
        return declared if declared is not None else float("nan") if zero else 0
    limits = np.iinfo(dtype)
    if declared is not None and limits.min <= declared <= limits.max:
        return declared
    return float(limits.max) if zero else 0


def _bounds_on(grid: Grid, other: Grid) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of a grid in another's coordinate system; at ±180°, the part on the other's side."""
    t = grid.transform
    box = (t.c, t.f + grid.height * t.e, t.c + grid.width * t.a, t.f)
    try:
        moved = pyproj.Transformer.from_crs(grid.crs, other.crs, always_xy=True)
        left, bottom, right, top = moved.transform_bounds(*box, densify_pts=21)
    except ProjError as error:
        raise InputError(f"the labels cannot be laid on the pair: {' '.join(str(error).split())}") from error
    if left > right:  # over the antimeridian
        middle = other.transform.c + other.width * other.transform.a / 2
        left, right = (left, 180.0) if middle > 0 else (-180.0, right)
    return left, bottom, right, top


def valid_pixels(scene: Scene) -> NDArray[np.bool_]:
    """(h, w): MS pixels that both images and the mask leave."""
    valid = np.zeros(scene.grid.shape, bool)
    for window in tiles(*scene.grid.shape, TILE):
        valid[window.slices] = scene.read(window).valid
    return valid


def thinned(
    labels: ProductLabels, valid: NDArray[np.bool_], *, erode: int, per_class: int | None, seed: int
) -> tuple[NDArray[np.int16], ClassTable]:
    """Labels without pixels that lie within `erode` of another class or are not valid, at most so many of each class.

    The classes that are left are numbered anew. InputError where fewer than two are left.
    """
    index = labels.index.copy()
    if erode:
        side = 2 * erode + 1
        index[minimum_filter(index, side, mode="nearest") != maximum_filter(index, side, mode="nearest")] = _NONE
    index[~valid] = _NONE
    rng = np.random.default_rng(seed)
    for k in range(len(labels.classes)):
        places = np.flatnonzero(index == k)
        if per_class is not None and len(places) > per_class:
            index.ravel()[rng.permutation(places)[per_class:]] = _NONE
    kept = [k for k in range(len(labels.classes)) if (index == k).any()]
    if len(kept) < 2:
        names = ", ".join(labels.classes.names[k] for k in kept) or "none"
        raise NoLabels(f"of the labels one class is left at most ({names}); take a larger area, or --erode 0")
    new = np.full(len(labels.classes) + 1, _NONE, np.int16)
    new[kept] = np.arange(len(kept))
    table = labels.classes
    codes = tuple(table.codes[k] for k in kept) if table.codes else ()
    left = ClassTable(
        tuple(table.values[k] for k in kept),
        tuple(table.names[k] for k in kept),
        tuple(table.colors[k] for k in kept),
        codes,
    )
    return new[index], left


def write_labels(path: Path, index: NDArray[np.int16], classes: ClassTable, grid: Grid, tags: dict[str, str]) -> None:
    """As values of the class table, 0 unlabelled."""
    values = np.append(np.array(classes.values, np.uint8), np.uint8(0))[index]
    with RasterWriter(path, grid, classes=replace(classes, codes=()), tags=tags) as writer:
        writer.write(values)
