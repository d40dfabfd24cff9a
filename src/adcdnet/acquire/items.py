"""One item of a catalogue, as values: where its files are, when it was taken, and what it says of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape

from adcdnet.acquire.catalogue import OffsetRule, Sensor
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.masks import MaskRule


@dataclass(frozen=True)
class Item:
    """when: ISO time of the middle, or of the beginning. cloud: percent of all of it, None where it is not said."""

    id: str
    collection: str
    when: str
    footprint: Any  # polygons in degrees
    properties: Mapping[str, Any]
    assets: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Item | None:
        """From what an API sent; None where it lacks what an item must have."""
        try:
            properties = dict(given["properties"])
            footprint = shape(given["geometry"])
            assets = {str(name): dict(asset) for name, asset in given["assets"].items()}
            when = properties.get("datetime") or properties["start_datetime"]
            if (
                footprint.is_empty
                or given["id"] is None
                or not all(isinstance(asset.get("href"), str) for asset in assets.values())
            ):
                return None
            return cls(
                str(given["id"]), str(given["collection"]), str(when), shapely.make_valid(footprint), properties, assets
            )
        except (KeyError, TypeError, ValueError, AttributeError, ShapelyError):
            return None

    @property
    def day(self) -> str:
        return self.when[:10]

    @property
    def cloud(self) -> float | None:
        value = self.properties.get("eo:cloud_cover")
        return float(value) if isinstance(value, int | float) else None

    def has(self, where: Mapping[str, Sequence[str]]) -> bool:
        """Whether each of these properties is one of its values, in any case of letters."""
        return all(
            str(self.properties.get(name, "")).casefold() in {value.casefold() for value in values}
            for name, values in where.items()
        )

    def address(self, asset: str, alternate: str) -> str:
        """Of an asset's file, or of its other copy of this name. InputError where the item has no such asset."""
        if asset not in self.assets:
            raise InputError(f"item {self.id} has no asset {asset!r}; it has {', '.join(self.assets)}")
        found = self.assets[asset]
        others = found.get("alternate")
        other = others.get(alternate) if alternate and isinstance(others, Mapping) else None
        return str(other["href"]) if isinstance(other, Mapping) and "href" in other else str(found["href"])


def without_query(address: str) -> str:
    """An address without what may be a secret in it: the part behind ?, and names and passwords."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Offset(NamedTuple):
    """value: what is to be added to the numbers of a file, in these numbers. why: what says so."""

    value: int
    why: str


def offset_of(item: Item, asset: str, rule: OffsetRule | None) -> Offset:
    """What is to be added to an asset's numbers, by its own tags. The date of an item decides nothing.

    In this order: a flag that it has been added; scale and offset of the asset; the version of the processing.
    InputError where none of them is there, or where the offset is no whole number.
    """
    if rule is None:
        return Offset(0, "values are kept as they are")
    if rule.applied and item.properties.get(rule.applied) is True:
        return Offset(0, f"{rule.applied} is true")
    declared = _declared(item.assets[asset])
    if declared is not None:
        scale, offset = declared
        number = offset / scale if scale else float("nan")
        if not abs(number - round(number)) < 0.01:
            raise InputError(
                f"item {item.id}: asset {asset!r} declares scale {scale:g} and offset {offset:g}, no whole number"
            )
        return Offset(round(number), f"scale {scale:g} and offset {offset:g} of the asset")
    version = item.properties.get(rule.baseline) if rule.baseline else None
    if version is None:
        raise InputError(
            f"item {item.id} does not say whether an offset is to be added to {asset!r} (looked for raster:bands and "
            f"{rule.baseline or 'nothing else'}); name another collection"
        )
    return Offset(rule.value if _parts(version) >= _parts(rule.since) else 0, f"{rule.baseline} is {version}")


def _parts(version: object) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in str(version).split("."))


def _declared(asset: Mapping[str, Any]) -> tuple[float, float] | None:
    """Scale and offset that an asset says, in one of the ways of STAC 1.0 and 1.1."""
    bands = [of for key in ("raster:bands", "bands") for of in asset.get(key) or () if isinstance(of, Mapping)]
    for holder, prefix in [*((band, "") for band in bands), *((band, "raster:") for band in bands), (asset, "raster:")]:
        scale, offset = holder.get(f"{prefix}scale"), holder.get(f"{prefix}offset")
        if isinstance(scale, int | float) and isinstance(offset, int | float):
            return float(scale), float(offset)
    return None


def mask_rule(item: Item, sensor: Sensor) -> MaskRule:
    """What of the mask hides: bits by the names that the item gives them, otherwise as the sensor says."""
    asset = item.assets.get(sensor.mask, {})
    fields = asset.get("classification:bitfields")
    if sensor.mask_flags and isinstance(fields, Sequence):
        named = {str(field.get("name")): field for field in fields if isinstance(field, Mapping)}
        bits = [
            int(named[flag]["offset"])
            for flag in sensor.mask_flags
            if flag in named and named[flag].get("length", 1) == 1 and isinstance(named[flag].get("offset"), int)
        ]
        if bits:
            return MaskRule.of(sensor.mask_values, sorted(set(bits)))
        raise InputError(
            f"item {item.id}: the bits of {sensor.mask!r} are named {', '.join(named)}; none is one of "
            f"{', '.join(sensor.mask_flags)}"
        )
    return MaskRule.of(sensor.mask_values, sensor.mask_bits)


def class_table(item: Item, asset: str) -> ClassTable | None:
    """The classes that an item names for an asset, without those of no data; None where it names none."""
    found = item.assets[asset].get("classification:classes") or ()
    named: dict[int, str] = {}
    for one in found:
        if isinstance(one, Mapping) and isinstance(one.get("value"), int) and one["value"] != 0:
            named[one["value"]] = str(one.get("name") or one.get("title") or one.get("description") or one["value"])
    values = sorted(named)
    if not values:
        return None
    names = [named[value] for value in values]
    if values[0] >= 1 and values[-1] <= 255:
        return ClassTable.of(values, names)
    table = ClassTable.numbered(names)
    return ClassTable(table.values, table.names, table.colors, tuple(values))
