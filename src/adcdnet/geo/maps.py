"""Finished maps, read: their class values, the classes they carry, and small patches given to their neighbours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.features import sieve as sieve_array

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import is_nodata, open_raster, read_band


def read_map(path: Path | str) -> tuple[NDArray[np.uint8], Grid]:
    """The class values (h, w) of a map, 0 where it has none, and its grid. Raises InputError for what is no map."""
    values, grid, nodata = read_band(path)
    kept = np.where(is_nodata(values, nodata), 0, values)
    if kept.dtype.kind not in "iu" or kept.min() < 0 or kept.max() > 255:
        raise InputError(f"{path} is not a map: whole numbers from 0 to 255 are needed, it holds {values.dtype}")
    return kept.astype(np.uint8), grid


def read_classes(path: Path | str) -> ClassTable | None:
    """The class table that a map written here carries, or None. Raises InputError where it cannot be read."""
    with open_raster(Path(path)) as dataset:
        names = dataset.tags().get("CLASS_NAMES")
        if names is None:
            return None
        try:
            colors = dataset.colormap(1)
        except ValueError:
            colors = {}
    try:
        named = {int(value): str(name) for value, name in json.loads(names).items()}
        safe = ClassTable.of(sorted(named), [named[value] for value in sorted(named)])
    except (ValueError, AttributeError, InputError) as error:
        raise InputError(
            f"{path} carries class names that cannot be read ({' '.join(str(error).split())}); "
            "write the map again, or remove its tag CLASS_NAMES"
        ) from error
    shown = (
        "#{:02x}{:02x}{:02x}".format(*colors[v][:3]) if v in colors else c
        for v, c in zip(safe.values, safe.colors, strict=True)
    )
    return replace(safe, colors=tuple(shown))


def sieve(values: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A map (h, w) whose patches of fewer than `size` pixels are given to their largest neighbour; 0 stays as it is.

    Pixels of one patch share an edge. A patch with nothing but 0 around it stays. Memory: some 10 bytes a pixel.
    """
    sieved: NDArray[np.uint8] = sieve_array(values, size, mask=values != 0)
    return sieved
