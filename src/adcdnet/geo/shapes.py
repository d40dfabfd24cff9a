"""Shapes as files hold them: layers, encodings, broken rings, and points in a table."""

from __future__ import annotations

import csv
import os
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from shapely.errors import ShapelyError

from adcdnet.errors import InputError
from adcdnet.geo.classes import read_table
from adcdnet.geo.origins import address_of, require_shapes

_TABLES = (".csv", ".tsv", ".txt")
_ON_GROUND = (("x", "y"), ("easting", "northing"), ("e", "n"), ("x_coord", "y_coord"), ("xcoord", "ycoord"))
_ON_GLOBE = (("lon", "lat"), ("long", "lat"), ("lng", "lat"), ("longitude", "latitude"))


def holds_points(path: Path) -> bool:
    """Whether a file is a table of points by its name and header: GDAL takes one with columns x and y for a raster."""
    return _coordinates(path) is not None


def read_shapes(path: Path, layer: str | None, crs: str | None) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """The shapes of a file, or of one layer of it, and what a user should know of how they were read.

    crs: of coordinates x and y in a table, which does not name any. Raises InputError.
    """
    axes = _coordinates(path)
    frame, notes = _read_layer(path, layer) if axes is None else _read_points(path, axes, crs)
    if frame.empty:
        raise InputError(f"{path} holds no shapes; draw some, or name another file or layer")
    if frame.crs is not None and frame.crs.name.lower().startswith("undefined"):  # what a GeoPackage says for none
        frame = frame.set_crs(None, allow_override=True)
    return frame, notes


def write_layers(out: Path, layers: Mapping[str, geopandas.GeoDataFrame]) -> None:
    """Tables of shapes, or without any, as a new GeoPackage that stands there whole or not at all. InputError."""
    if out.suffix.lower() != ".gpkg":
        raise InputError(f"{out} is no GeoPackage by its name; name a file .gpkg")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
            part = Path(folder) / out.name
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided")  # that of the map is not known
                for name, frame in layers.items():
                    pyogrio.write_dataframe(frame, part, layer=name, driver="GPKG")
            os.replace(part, out)
    except (OSError, DataSourceError, DataLayerError) as error:
        reason = (
            os.strerror(error.errno) if isinstance(error, OSError) and error.errno else " ".join(str(error).split())
        )
        raise InputError(f"{out} cannot be written: {reason}") from error


def polygons_of(shape: Any) -> Any:
    """The polygons of a collection as one shape, or None where it holds none."""
    parts = [part for part in _leaves(shape) if part.geom_type == "Polygon"]
    return shapely.union_all(parts) if parts else None


def _leaves(shape: Any) -> list[Any]:
    return [leaf for part in shape.geoms for leaf in _leaves(part)] if hasattr(shape, "geoms") else [shape]


def _read_layer(path: Path, layer: str | None) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    require_shapes(path)
    address = address_of(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layers = [str(name) for name, kind in pyogrio.list_layers(address) if kind is not None]
            name = _choose(layers, layer, path)
            frame, notes = _decoded(address, name, path)
    except (DataSourceError, DataLayerError, ShapelyError) as error:
        what = "is a folder that" if path.is_dir() else ""
        reason = " ".join(str(error).split())
        raise InputError(f"{path} {what}can be read neither as a raster nor as polygons: {reason}") from error
    warned = {f"{path.name}: {' '.join(str(warning.message).split())}" for warning in caught}
    return frame, (*sorted(warned), *notes)


def _choose(layers: Sequence[str], wanted: str | None, path: Path) -> str:
    shown = ", ".join(map(repr, layers))
    if not layers:
        raise InputError(f"{path} has no layer of shapes; a file of polygons or points is needed")
    if wanted is not None and wanted not in layers:
        raise InputError(f"{path} has no layer {wanted!r} of shapes; it has {shown}; name one of them with --layer")
    if wanted is None and len(layers) > 1:
        raise InputError(f"{path} has {len(layers)} layers of shapes: {shown}; name one of them with --layer")
    return layers[0] if wanted is None else wanted


def _decoded(address: str, layer: str, path: Path) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """A layer whose texts are in the encoding that the file claims or, with a note, in one that fits."""
    try:
        return _mended(address, layer, path, None)
    except UnicodeDecodeError:
        pass
    for encoding in ("cp1252", "gbk", "iso-8859-1"):
        try:
            frame, notes = _mended(address, layer, path, encoding)
        except UnicodeError:
            continue
        if encoding == "cp1252" and _looks_chinese(frame):
            continue
        claim = "is not in the encoding that it claims"
        return frame, (*notes, f"text of {path.name} {claim}; read as {encoding}: look whether names are right")
    raise InputError(f"{path} holds text in no encoding that is understood; save it again in UTF-8")


def _looks_chinese(frame: geopandas.GeoDataFrame) -> bool:
    """Whether texts read as cp1252 are GB 2312: pairs of bytes beyond ASCII that are no part of a Latin word."""
    names = [str(name) for name in frame.columns]
    texts = {str(text) for name in names if frame[name].dtype.kind in "OUT" for text in frame[name].dropna().unique()}
    strange = [text for text in {*texts, *names} if not text.isascii()]
    try:
        read = [text.encode("cp1252").decode("gb2312") for text in strange]
    except UnicodeError:
        return False
    return bool(read) and not any(re.search(r"[A-Za-z][^\x00-\x7f]|[^\x00-\x7f][A-Za-z]", text) for text in read)


def _mended(
    address: str, layer: str, path: Path, encoding: str | None
) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """A layer; shapes whose rings do not close are closed, or left without geometry, and named by number."""

    def read(on_invalid: str) -> geopandas.GeoDataFrame:
        return pyogrio.read_dataframe(address, layer=layer, encoding=encoding, on_invalid=on_invalid)

    try:
        frame = read("raise")
        broken = np.zeros(len(frame), bool)
    except ShapelyError:
        frame, without = read("fix"), read("ignore")
        broken = (without.geometry.isna() & ~frame.geometry.isna()).to_numpy()
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise InputError(f"{path} has no shapes in its layer {layer!r}; a file of polygons or points is needed")
    if not broken.any():
        return frame, ()
    shapes = frame.geometry.to_numpy()
    flat = broken & (shapely.area(shapely.make_valid(shapes)) == 0)
    frame.loc[flat, frame.geometry.name] = None
    notes = [
        f"{numbered(np.flatnonzero(which), len(frame), path.name)} had rings that do not close and {end}"
        for which, end in ((broken & ~flat, "were closed"), (flat, "hold no area; left out"))
        if which.any()
    ]
    return frame, tuple(notes)


def numbered(positions: Sequence[int] | Any, total: int, name: str) -> str:
    """'2 of 28 shapes of labels.gpkg (numbers 4, 7)', counted from 1."""
    shown = ", ".join(str(position + 1) for position in positions[:10]) + (", ..." if len(positions) > 10 else "")
    return f"{len(positions)} of {total} shapes of {name} (number{'s' * (len(positions) > 1)} {shown})"


def _coordinates(path: Path) -> tuple[str, str] | None:
    """The columns of x and y in a table of text, None where it has none or is no such table."""
    if path.suffix.lower() not in _TABLES or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            head = file.readline(10_000).replace(b"\0", b"").decode("latin-1").strip().lower()
    except OSError:
        return None
    columns = {name.strip("\"' \xef\xbb\xbf\xff\xfe") for name in re.split("[,;\t]", head)}
    return next((pair for pair in (*_ON_GROUND, *_ON_GLOBE) if columns.issuperset(pair)), None)


def _read_points(path: Path, axes: tuple[str, str], crs: str | None) -> tuple[geopandas.GeoDataFrame, tuple[str, ...]]:
    """The points of a table; a place that is no number leaves its point without geometry."""
    try:
        rows = read_table(path)
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table of points: {error}") from error
    if not rows:
        raise InputError(f"{path} holds no points; a row for each is needed")
    x, y = (np.array([_number(row[axis]) for row in rows]) for axis in axes)
    points = np.where(np.isfinite(x) & np.isfinite(y), shapely.points(x, y), None)
    globe = axes in _ON_GLOBE
    where = "longitude and latitude (WGS 84)" if globe else "the scene's coordinate system"
    note = f"{path.name} is a table of points; its columns {axes[0]} and {axes[1]} are taken for {where}"
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in axes}
    return geopandas.GeoDataFrame(columns, geometry=points, crs="EPSG:4326" if globe and crs is not None else crs), (
        note,
    )


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")
