"""Which catalogues, sensors and label products are known: those of catalogues.toml, and those of a user's own TOML.

All are values that say which collection and assets to read. None of them holds a secret: a manifest keeps them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
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
        if parts.query or parts.username or parts.password:
            raise ValueError("an address with ? or a password in it is not kept; leave these out")
        return address.rstrip("/")


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


class LabelProduct(_Record):
    """A raster of classes. classes: value, name and colour of each; without them the item's own or the numbers."""

    name: str
    api: ApiField
    collection: str
    asset: str
    classes: tuple[tuple[int, str, str], ...] = ()
    licence: str = ""
    citation: str = ""

    @property
    def table(self) -> ClassTable | None:
        if not self.classes:
            return None
        values, names, colors = zip(*sorted(self.classes), strict=True)
        return ClassTable(values, names, colors)


@cache
def _presets() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(files("adcdnet.acquire").joinpath("catalogues.toml").read_text("utf-8"))


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
        sensor = _read(Path(text), Sensor, "sensor")
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


def find_labels(text: str) -> LabelProduct | None:
    """A product by its name or by a TOML file; None for 'none'. Raises InputError."""
    if text == "none":
        return None
    if text.endswith(".toml"):
        return _read(Path(text), LabelProduct, "labels")
    for given in _presets()["labels"]:
        if given["name"] == text:
            return LabelProduct(**given)
    raise InputError(f"there are no labels {text!r}; known are {_names('labels')} and none, or name a TOML file")


def _names(kind: str) -> str:
    return ", ".join(dict.fromkeys(given["name"] for given in _presets()[kind]))


def _read(path: Path, kind: type[R], what: str) -> R:
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from error
    except ValidationError as error:
        needed: Sequence[str] = [name for name, field in kind.model_fields.items() if field.is_required()]
        raise InputError(f"{what} {path}: {one_line(error)}; it needs {', '.join(needed)}") from error
