"""What is kept of a run beside its rasters: the request, the manifest that repeats it, licences and lines to cite.

None of it holds a token: addresses are without their queries, and a catalogue's own address may have none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcdnet.acquire.catalogue import LabelFile, LabelProduct, Sensor
from adcdnet.acquire.items import Item
from adcdnet.acquire.labels import ProductLabels
from adcdnet.acquire.pair import Opened, Plan
from adcdnet.errors import InputError, one_line
from adcdnet.files import sha256

MANIFEST = "manifest.json"


class Request(BaseModel):
    """What is wanted. area: GeoJSON in degrees. mosaic: days at most that one pair is made of. Labels: see `labels`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    area: dict[str, Any]
    days: str
    sensor: Sensor
    labels: LabelProduct | LabelFile | None = None
    mosaic: int = Field(1, ge=1)
    erode: int = Field(1, ge=0)
    per_class: int | None = Field(None, ge=1)
    seed: int = 0


class Again(NamedTuple):
    """A manifest, read. ids, label_ids: items by name, in their order. files: digests by name."""

    request: Request
    ids: tuple[str, ...]
    label_ids: tuple[str, ...]
    files: dict[str, str]


def read_manifest(path: Path) -> Again:
    """InputError where a file is no manifest."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        request = Request.model_validate(content["request"])
        ids, label_ids = (tuple(str(item["id"]) for item in content[name]) for name in ("items", "label_items"))
        return Again(request, ids, label_ids, dict(content["files"]))
    except ValidationError as error:
        raise InputError(f"manifest {path}: {one_line(error)}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a manifest of `adcdnet acquire`: {error!r}") from error


def manifest(
    request: Request,
    plan: Plan,
    labels: ProductLabels | None,
    digests: dict[str, str],
    set_to_1: int,
    notes: Sequence[str],
) -> dict[str, Any]:
    """All that `read_manifest` and a reader need. digests: of the files beside it. set_to_1: see `pair.Tile`."""
    return {
        "adcdnet": version("adcdnet"),
        "request": request.model_dump(mode="json"),
        "items": [_item_record(request.sensor, part.opened) for part in plan.parts],
        "label_items": [
            {"id": item.id, "collection": item.collection, "address": address}
            for item, address in (labels.items if labels else ())
        ],
        "label_file": _label_file(request.labels) if labels else None,
        "grid": {
            "crs": plan.grid.crs,
            "transform": list(plan.grid.transform)[:6],
            "size": list(plan.grid.shape),
            "ratio": plan.ratio,
        },
        "set_to_1": set_to_1,
        "files": digests,
        "notes": list(notes),
    }


def _item_record(sensor: Sensor, opened: Opened) -> dict[str, Any]:
    names = (*sensor.ms, *sensor.pan)
    assets: dict[str, Any] = {
        name: {"address": raster.address, "offset": offset.value, "why": offset.why}
        for name, raster, offset in zip(names, (*opened.ms, *opened.pan), opened.offsets, strict=True)
    }
    if opened.mask is not None:
        assets[sensor.mask] = {"address": opened.mask.address, "hides": str(opened.rule)}
    return {"id": opened.item.id, "collection": opened.item.collection, "datetime": opened.item.when, "assets": assets}


def _label_file(given: LabelProduct | LabelFile | None) -> dict[str, Any] | None:
    """sha256: None of what is no single file here."""
    if not isinstance(given, LabelFile):
        return None
    path = Path(given.file)
    return {"name": path.name, "sha256": sha256(path) if not given.is_remote and path.is_file() else None}


def remarks(request: Request, items: Sequence[Item], labels: ProductLabels | None) -> list[str]:
    days = ", ".join(dict.fromkeys(item.day for item in items))
    said = [f"{request.sensor.name} of {days}, from {request.sensor.collection}; see SOURCES.md and {MANIFEST}"]
    if labels is not None and request.labels is not None:
        of_year = f" of {labels.year}" if labels.year else ""
        said.append(f"labels are the product {request.labels.name}{of_year}, not the truth on the ground")
    return said


def sources(request: Request, items: Sequence[Item], labels: ProductLabels | None) -> str:
    """Licences and lines to cite, as Markdown."""
    sensor = request.sensor
    years = ", ".join(sorted({item.when[:4] for item in items}))
    lines = ["# Sources", "", f"Images: {sensor.name}, collection {sensor.collection} at {sensor.api.address}", ""]
    lines += [f"- {item.id}, {item.when}" for item in items]
    lines += _terms(sensor.licence, sensor.citation, years)
    if labels is not None and request.labels is not None:
        product = request.labels
        of_file = isinstance(product, LabelFile)
        place = (
            f"file {Path(product.file).name}" if isinstance(product, LabelFile) else f"collection {product.collection}"
        )
        lines += ["", f"Labels: {product.name}, {place}. They are a product with errors of its own.", ""]
        lines += [f"- {item.id}, {item.when}" for item, _ in labels.items]
        lines += _terms(product.licence, product.citation, labels.year, of_file=of_file)
    return "\n".join(lines) + "\n"


def cited(citation: str, year: str) -> str:
    """A line to cite, with its year where one is known."""
    return citation.replace("{year}", year) if year else citation.replace(", {year}", "").replace("{year}", "no year")


def _terms(licence: str, citation: str, year: str, *, of_file: bool = False) -> list[str]:
    unknown = "not said; name it in a TOML file for --labels" if of_file else "see the catalogue"
    return ["", f"Licence: {licence or unknown}", "", f"To cite: {cited(citation, year) or unknown}"]
