"""Which catalogues, sensors and label products are known: those of catalogues.toml, and those of a user's own TOML.

All are values that say which collection and assets to read. None of them holds a secret: a manifest keeps them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from adcdnet.errors import InputError, one_line
from adcdnet.geo.classes import ClassTable

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=_Record)


class Api(_Record):
    """A STAC API. token: where tokens for its files come from, with {collection}; token_hosts: whose files need them.

    alternate: which of an asset's other addresses to read. options: GDAL's, set for every read. needs: variables of
    which one must be set; account: what to say where none is.
    """

    name: str = ""
    address: str
    token: str = ""
    token_hosts: tuple[str, ...] = ()
    alternate: str = ""
    options: dict[str, str] = {}
    needs: tuple[str, ...] = ()
    account: str = ""

    @field_validator("address")
    @classmethod
    def _is_plain(cls, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{address!r} is no address; one such as https://host/stac is needed")
        return _without_secrets(address).rstrip("/")


def _without_secrets(address: str) -> str:
    """The address, which may hold nothing that a manifest must not. ValueError."""
    parts = urlsplit(address)
    if parts.query or parts.username or parts.password:
        raise ValueError("an address with ? or a password in it is not kept; leave these out")
    return address


def _api(given: Any) -> Any:
    return find_api(given) if isinstance(given, str) else given


ApiField = Annotated[Api, BeforeValidator(_api)]


class OffsetRule(_Record):
    """How a sensor says which number is to be added to its values. applied: property that says that it has been.

    baseline: property with the version of the processing, from `since` on of which `value` is to be added.
    """

    applied: str = ""
    baseline: str = ""
    since: str = ""
    value: int = 0


class Sensor(_Record):
    """Which assets of a collection are MS, PAN and mask. metres: about the sides of a pixel of MS and of PAN.

    mask_values, mask_bits, mask_flags: what of the mask hides; flags by their names in the item. nodata: where a file
    declares none. offset: None leaves values as they are. where: properties that an item must have, each one of a list.
    """

    name: str
    api: ApiField
    collection: str
    metres: tuple[float, float]
    ms: Names
    pan: Names
    mask: str = ""
    mask_values: tuple[int, ...] = ()
    mask_bits: tuple[int, ...] = ()
    mask_flags: tuple[str, ...] = ()
    nodata: float = 0
    offset: OffsetRule | None = None
    where: dict[str, tuple[str, ...]] = {}
    licence: str = ""
    citation: str = ""

    @property
    def assets(self) -> tuple[str, ...]:
        return (*self.ms, *self.pan, *([self.mask] if self.mask else []))


Row = tuple[int, str, str] | tuple[int, str, str, int]  # value, name, colour; and a code that some files have instead


class _Labels(_Record):
    """Labels that somebody else made. classes: without them those that the file or the item names, or its numbers."""

    name: str
    classes: tuple[Row, ...] = ()
    licence: str = ""
    citation: str = ""  # {year} stands for the year

    @field_validator("classes")
    @classmethod
    def _make_a_table(cls, classes: tuple[Row, ...]) -> tuple[Row, ...]:
        try:
            _tables(classes)
        except InputError as error:
            raise ValueError(str(error)) from error
        return classes

    @property
    def tables(self) -> tuple[ClassTable, ...]:
        """Of the values and, where there are such, of the codes; none without classes."""
        return _tables(self.classes)


def _tables(classes: Sequence[Row]) -> tuple[ClassTable, ...]:
    rows = sorted(classes)
    if not rows:
        return ()
    values, names, colors = zip(*(row[:3] for row in rows), strict=True)
    codes = tuple(row[3] for row in rows if len(row) == 4)
    if all(1 <= value <= 255 for value in values):
        table = ClassTable(values, names, colors)
    else:
        table = ClassTable(tuple(range(1, len(rows) + 1)), names, colors, values)
    return (table, replace(table, codes=codes)) if codes else (table,)


class LabelProduct(_Labels):
    """A raster of classes in a catalogue."""

    api: ApiField
    collection: str
    asset: str


class LabelFile(_Labels):
    """A file of classes: a raster, here or at an address, or polygons. column, layer: of polygons.

    tags: of each class, by its name, values of columns that make it, "*" for any; a column alone may hold the class.
    """

    file: str
    column: str = ""
    layer: str = ""
    year: str = ""
    tags: dict[str, dict[str, tuple[str, ...]]] = {}

    @field_validator("file")
    @classmethod
    def _holds_no_secret(cls, file: str) -> str:
        return _without_secrets(file) if "://" in file else file

    @field_validator("year", mode="before")
    @classmethod
    def _is_text(cls, year: Any) -> Any:
        return str(year) if isinstance(year, int) else year

    @property
    def is_remote(self) -> bool:
        return "://" in self.file


@cache
def _presets() -> dict[str, list[dict[str, Any]]]:
    texts = [files("adcdnet.acquire").joinpath(name).read_text("utf-8") for name in ("catalogues.toml", "labels.toml")]
    return tomllib.loads("\n".join(texts))


def find_api(text: str) -> Api:
    """A preset by its name, or any API by its address. Raises InputError."""
    presets = [Api(**given) for given in _presets()["api"]]
    for api in presets:
        if text == api.name or text.rstrip("/") == api.address:
            return api
    if "://" not in text:
        names = ", ".join(api.name for api in presets)
        raise InputError(f"there is no API {text!r}; known are {names}, or give an address such as https://host/stac")
    try:
        return Api(address=text)
    except ValidationError as error:
        raise InputError(f"API: {one_line(error)}") from error


def find_sensors(text: str, api: Api | None) -> list[Sensor]:
    """The ways to a sensor, by its name or by a TOML file; the likeliest first. api: in place of the sensor's own.

    At a preset API only the ways through it; at any other one all ways, for its assets may be named as in any of them.
    """
    if text.endswith(".toml"):
        sensor = _made(_content(Path(text), "sensor"), Path(text), Sensor, "sensor")
        return [sensor if api is None else sensor.model_copy(update={"api": api})]
    there = [Sensor(**given) for given in _presets()["sensor"] if given["name"] == text]
    if not there:
        raise InputError(f"there is no sensor {text!r}; known are {_names('sensor')}, or name a TOML file")
    if api is None:
        return [sensor for sensor in there if sensor.api == there[0].api]
    if not api.name:
        return [sensor.model_copy(update={"api": api}) for sensor in there]
    ways = [sensor for sensor in there if sensor.api == api]
    if not ways:
        others = ", ".join(dict.fromkeys(sensor.api.name for sensor in there))
        raise InputError(f"{api.name} has no {text} that makes a pair; take --api {others}, or name a TOML file")
    return ways


def find_labels(text: str) -> LabelProduct | LabelFile | None:
    """A product by its name, a file by NAME:FILE or FILE, either by a TOML file; None for 'none'. Raises InputError."""
    if text == "none":
        return None
    if text.endswith(".toml"):
        return _labels_of_toml(Path(text))
    name, _, file = text.partition(":")
    preset = _label_preset(name)
    if preset and file:
        return _label_file({**_without_catalogue(preset), "file": file}, Path())
    if "api" in preset:
        return LabelProduct(**preset)
    if preset:
        raise InputError(f"no catalogue that is known has {name}; give a file of it: --labels {name}:FILE")
    if "://" in text or Path(text).exists():
        return _label_file({"name": Path(text).stem, "file": text}, Path())
    raise InputError(
        f"there are no labels {text!r}; known are {_names('labels')} and none; or name a file, NAME:FILE or a TOML file"
    )


def _label_preset(name: str) -> dict[str, Any]:
    return next((given for given in _presets()["labels"] if given["name"] == name), {})


def _without_catalogue(preset: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in preset.items() if key not in ("api", "collection", "asset")}


def _labels_of_toml(path: Path) -> LabelProduct | LabelFile:
    content = _content(path, "labels")
    if isinstance(content.get("classes"), str):
        table = ClassTable.read(path.parent / content["classes"])
        content["classes"] = list(zip(table.codes or table.values, table.names, table.colors, strict=True))
    if "file" in content:
        return _label_file({**_without_catalogue(_label_preset(str(content.get("name")))), **content}, path)
    return _made(content, path, LabelProduct, "labels")


def _label_file(given: dict[str, Any], toml: Path) -> LabelFile:
    """A file that is there; a relative path is that from the TOML file. InputError."""
    made = _made(given, toml, LabelFile, "labels")
    if made.is_remote:
        return made
    path = Path(os.path.abspath(toml.parent / made.file))
    if not path.exists():
        raise InputError(f"labels {path} do not exist; name a raster of classes or a file of polygons")
    return made.model_copy(update={"file": str(path)})


def _names(kind: str) -> str:
    return ", ".join(dict.fromkeys(given["name"] for given in _presets()[kind]))


def _content(path: Path, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from error


def _made(content: dict[str, Any], path: Path, kind: type[R], what: str) -> R:
    try:
        made = kind.model_validate(content)
    except ValidationError as error:
        needed: Sequence[str] = [name for name, field in kind.model_fields.items() if field.is_required()]
        raise InputError(f"{what} {path}: {one_line(error)}; it needs {', '.join(needed)}") from error
    return made
