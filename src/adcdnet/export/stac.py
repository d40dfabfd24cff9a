"""A STAC item beside a map: where it lies, of when, which classes it has, and what made it.

Sources: STAC 1.1.0 and its extensions projection 2.0.0, classification 2.0.0, processing 1.2.0 and MLM 1.4.0. The
fields of MLM say which model made the map; the item is of the map, not of the model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import torch

from adcdnet.errors import InputError
from adcdnet.files import as_json, is_address, refuse_overwriting, sha256, write_whole
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import RasterReader
from adcdnet.geo.scene import Scene
from adcdnet.mapping.model import Model

_EXTENSIONS = {"projection": "2.0.0", "classification": "2.0.0", "processing": "1.2.0", "mlm": "1.4.0"}
_GEOTIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
_TAGS = ("TIFFTAG_DATETIME", "ACQUISITION_DATETIME", "ACQUISITION_DATE", "DATETIME", "DATE")  # first that holds a date
_EDGE = 20  # parts of a side of the map: its edge is curved in degrees


def item_of(path: Path) -> Path:
    """The item's file beside a map."""
    return path.with_suffix(".json")


def write_item(
    path: Path,
    model: Model,
    scene: Scene,
    *,
    tau: float,
    prior: Sequence[float] | None,
    soft: Path | None = None,
    file: Path | None = None,
) -> None:
    """Beside a map that is there, of its name with .json. soft: its probabilities. file: of the model.

    InputError where the item cannot be written, or would take the place of an image or of the map.
    """
    refuse_overwriting([item_of(path)], [*scene.paths, path])
    grid = scene.grid_of(model.grid)
    when, said = date_of(scene.paths[0])
    here = item_of(path).resolve().parent
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{n}/v{v}/schema.json" for n, v in _EXTENSIONS.items()],
        "id": path.stem,
        **footprint(grid),
        "properties": {
            "datetime": _zulu(when),
            "created": _zulu(datetime.now(UTC)),
            "description": f"Land-cover map of {scene.name}. The date is {said}.",
            **_projection(grid),
            **_processing(model, scene, tau, prior),
            **_mlm(model),
        },
        "links": [],
        "assets": _assets(path, soft, file, model, here),
    }
    write_whole(item_of(path), as_json(item))


def date_of(image: Path) -> tuple[datetime, str]:
    """When an image was taken, and how that is known: by a tag of it, or else by its file's time of modification."""
    with RasterReader(image) as reader:
        tags = {name.upper(): value for name, value in reader.tags.items()}
    for name in _TAGS:
        if (when := _moment(tags.get(name, ""))) is not None:
            return when, f"that of tag {name} of {image.name}"
    if is_address(image) or not image.exists():
        return datetime.now(UTC), f"that of the prediction, for {image.name} has none"
    return datetime.fromtimestamp(
        image.stat().st_mtime, UTC
    ), f"that of the file {image.name}, which has no date inside"


def _moment(text: str) -> datetime | None:
    """Of '2020:06:23 10:15:30', as TIFF has it, or of an ISO date; in UTC where no zone is named."""
    tidy = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip())
    try:
        when = datetime.fromisoformat(tidy)
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def footprint(grid: Grid) -> dict[str, Any]:
    """geometry and bbox in degrees; null and none where the map does not say where it lies."""
    if grid.crs is None:
        return {"geometry": None}
    part = np.linspace(0, 1, _EDGE + 1)[:-1]
    nought, one = np.zeros(_EDGE), np.ones(_EDGE)
    col = np.concatenate([nought, part, one, 1 - part]) * grid.width  # down first: a ring runs against the clock
    row = np.concatenate([part, one, 1 - part, nought]) * grid.height
    t = grid.transform
    x, y = t.c + t.a * col + t.b * row, t.f + t.d * col + t.e * row
    try:
        lon, lat = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y)
    except pyproj.exceptions.ProjError as error:
        raise InputError(f"the map's place cannot be told in degrees: {error}; leave out --stac") from error
    if not np.isfinite([*lon, *lat]).all():
        return {"geometry": None}
    ring = [[round(float(a), 7), round(float(b), 7)] for a, b in zip(lon, lat, strict=True)]
    bbox = [min(p[0] for p in ring), min(p[1] for p in ring), max(p[0] for p in ring), max(p[1] for p in ring)]
    return {"geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, "bbox": bbox}


def _projection(grid: Grid) -> dict[str, Any]:
    place = {"proj:shape": list(grid.shape), "proj:transform": list(grid.transform)[:6]}
    if grid.crs is None:
        return {"proj:code": None, **place}
    crs = pyproj.CRS.from_user_input(grid.crs)
    code = crs.to_authority()
    named = {"proj:code": ":".join(code)} if code else {"proj:code": None, "proj:wkt2": crs.to_wkt()}
    return {**named, **place}


def _processing(model: Model, scene: Scene, tau: float, prior: Sequence[float] | None) -> dict[str, Any]:
    images = ", ".join(f"{what} {path.name}" for what, path in scene.files.items())
    shares = "class shares as labelled" if prior is None else "given class shares"
    lineage = (
        f"adcdnet predict: {images}; model {model.record.name or 'not named'} (sha256 {model.digest}), trained on "
        f"{model.record.scene or 'a scene that is not named'}; tau {tau:g}, {shares}"
    )
    return {
        "processing:lineage": lineage,
        "processing:software": {"adcdnet": version("adcdnet"), "torch": torch.__version__},
        "processing:datetime": _zulu(datetime.now(UTC)),
    }


def _mlm(model: Model) -> dict[str, Any]:
    layout, record = model.layout, model.record
    inputs = [
        {
            "name": name,
            "bands": [band or f"{name} {k}" for k, band in enumerate(bands or (None,) * count, 1)],
            "input": {"shape": [-1, count, -1, -1], "dim_order": ["batch", "channel", "height", "width"], **_FLOATS},
        }
        for name, bands, count in (
            ("MS", record.ms_bands, layout.ms_bands),
            ("PAN", record.pan_bands, layout.pan_bands),
        )
    ]
    output = {
        "name": "probabilities",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, layout.classes, -1, -1],
            "dim_order": ["batch", "class", "height", "width"],
            **_FLOATS,
        },
        "classification:classes": classes_of(model.classes),
    }
    return {
        "mlm:name": record.name or "adcdnet",
        "mlm:architecture": "ADCD-Net" if model.networks else "committee",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": torch.__version__,
        "mlm:total_parameters": sum(member.parameters for member in model.members),
        "mlm:input": inputs,
        "mlm:output": [output],
    }


_FLOATS = {"data_type": "float32"}


def classes_of(classes: ClassTable) -> list[dict[str, Any]]:
    """As the classification extension has them: a name of letters, digits, - and _, beside the title as it is."""
    rows = zip(classes.values, _names(classes.names), classes.names, classes.colors, strict=True)
    return [
        {"value": value, "name": name, "title": title, "color_hint": color[1:].upper()}
        for value, name, title, color in rows
    ]


def _names(titles: Iterable[str]) -> list[str]:
    names: list[str] = []
    for number, title in enumerate(titles, 1):
        name = re.sub(r"[^0-9A-Za-z_-]+", "-", title).strip("-")
        names.append(name if name and name not in names else f"{name or 'class'}-{number}")
    return names


def _assets(path: Path, soft: Path | None, file: Path | None, model: Model, here: Path) -> dict[str, Any]:
    assets: dict[str, Any] = {
        "map": {
            "href": _from(path, here),
            "type": _GEOTIFF,
            "title": "Class values",
            "roles": ["data", "classification"],
            "data_type": "uint8",
            "nodata": 0,
            "classification:classes": classes_of(model.classes),
        }
    }
    if soft is not None:
        assets["probabilities"] = {
            "href": _from(Path(soft), here),
            "type": _GEOTIFF,
            "title": "Probability of each class",
            "roles": ["data", "probability"],
            "data_type": "float32",
            "nodata": "nan",
            "bands": [{"name": name} for name in model.classes.names],
        }
    if file is not None:
        assets["model"] = {
            "href": _from(file, here),
            "type": "application/octet-stream",
            "title": "The model that made the map",
            "roles": ["mlm:model"],
            "mlm:artifact_type": "safetensors",
            "description": f"SHA-256 of the file: {sha256(file)}",
        }
    return assets


def _from(file: Path, folder: Path) -> str:
    """Relative, so that a folder may be moved; absolute where another drive holds the file."""
    try:
        return "./" + Path(os.path.relpath(file.resolve(), folder)).as_posix()
    except ValueError:
        return file.resolve().as_uri()


def _zulu(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
