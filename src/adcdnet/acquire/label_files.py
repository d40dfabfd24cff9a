"""Labels of a pair from a file: a raster of classes, here or at an address, or polygons, as of OpenStreetMap."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
from numpy.typing import NDArray

from adcdnet.acquire.catalogue import LabelFile
from adcdnet.acquire.labels import NoLabels, ProductLabels, copied
from adcdnet.acquire.remote import RemoteRaster
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.label_rasters import read_raster
from adcdnet.geo.polygons import burn
from adcdnet.geo.raster import RasterReader, is_raster
from adcdnet.geo.shapes import holds_points, read_shapes, write_layers

_ANY = "*"
_VALUE_ALONE = "fclass"  # the column of Geofabrik's files: the value of a tag without its key


def file_labels(given: LabelFile, grid: Grid, folder: Path) -> ProductLabels:
    """What a file says of each MS pixel; its pixels, or its shapes by class, go to `folder`.

    A raster gives the class that covers at least half of a pixel, polygons the one in which its centre lies.
    Raises InputError, and NoLabels where the file has nothing on the ground of the pair.
    """
    try:
        index, classes, notes = _read(given, grid, folder)
    except NoLabels:
        raise
    except InputError as error:  # which names options of `train`, and the copy
        said = re.sub(r"with --(column|layer|classes)\b", r"by \1 in a TOML file for --labels", str(error))
        raise InputError(said.replace(f"{folder}{os.sep}", "")) from error
    if not (index >= 0).any():
        raise _nothing(given)
    return ProductLabels(index, classes, (), given.year, notes)


def _nothing(given: LabelFile) -> NoLabels:
    return NoLabels(f"{given.file} has no labels on the ground of the pair; choose another file")


def _read(given: LabelFile, grid: Grid, folder: Path) -> tuple[NDArray[np.int16], ClassTable, tuple[str, ...]]:
    path = Path(given.file)
    if not given.is_remote and (holds_points(path) or not is_raster(path)):
        if given.tags:
            path, notes = _by_tags(given, path, folder)
            burnt = burn(path, grid, given.tables[0], "class")
            return burnt.index, burnt.classes, (*notes, *burnt.notes)
        table = given.tables[-1] if given.tables else None  # polygons hold the codes of a nomenclature
        burnt = burn(path, grid, table, given.column or None, given.layer or None)
        return burnt.index, burnt.classes, burnt.notes
    raster = RemoteRaster(given.file) if given.is_remote else RasterReader(path)
    with closing(raster):
        native, table, said = copied(raster, path.name, grid, folder / f"{path.stem}.tif", given.tables)
    if native is None:
        raise _nothing(given)
    index, classes, more = read_raster(native, grid, table, None, None)
    return index, classes, (*said, *more)


def _by_tags(given: LabelFile, path: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The shapes of a file with the class that their tags make as their column `class`, as a new file; and notes."""
    frame, notes = read_shapes(path, given.layer or None, None)
    keys = {key for tags in given.tags.values() for key in tags}
    if not keys & set(frame.columns) and _VALUE_ALONE not in frame.columns:
        raise InputError(
            f"{path} has none of the columns {', '.join(sorted(keys))} or {_VALUE_ALONE}; it needs the tags as columns"
        )
    named = geopandas.GeoDataFrame({"class": class_of_tags(frame, given.tags)}, geometry=frame.geometry, crs=frame.crs)
    if named["class"].isna().all():
        raise _nothing(given)
    out = folder / f"{path.stem}.gpkg"
    out.unlink(missing_ok=True)
    write_layers(out, {"shapes": named})
    return out, notes


def class_of_tags(
    frame: geopandas.GeoDataFrame, classes: Mapping[str, Mapping[str, Sequence[str]]]
) -> NDArray[np.object_]:
    """For each row the first class of which it has one of the values, by columns; None for none."""
    found, free = np.full(len(frame), None, object), np.ones(len(frame), bool)
    for name, tags in classes.items():
        alone = [value for values in tags.values() for value in values if value != _ANY]
        for key, values in (*tags.items(), (_VALUE_ALONE, alone)):
            if key in frame.columns:
                column = frame[key]
                fits = (column.notna() & ~column.isin(["", "no"])) if _ANY in values else column.isin(list(values))
                found[fits.to_numpy() & free] = name
                free &= ~fits.to_numpy()
    return found
