"""What an item says of its numbers: the offset, once; the bits of a mask and the classes, by name."""

import pytest

from adcdnet.acquire.catalogue import OffsetRule, find_sensors
from adcdnet.acquire.items import Item, class_table, mask_rule, offset_of, without_query
from adcdnet.errors import InputError

RULE = OffsetRule(
    applied="earthsearch:boa_offset_applied", baseline="s2:processing_baseline", since="04.00", value=-1000
)
SQUARE = {"type": "Polygon", "coordinates": [[[9, 50], [10, 50], [10, 51], [9, 51], [9, 50]]]}
DECLARED = {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]}


def item(asset=None, when="2024-06-15T10:00:00Z", **properties):
    given = {
        "id": "i",
        "collection": "c",
        "geometry": SQUARE,
        "assets": {"red": {"href": "http://h/r.tif", **(asset or {})}},
    }
    return Item.of({**given, "properties": {"datetime": when, **properties}})


@pytest.mark.parametrize(
    ("asset", "properties", "value"),
    [
        (DECLARED, {}, -1000),
        ({"raster:bands": [{"scale": 0.0001, "offset": 0}]}, {}, 0),
        ({"bands": [{"raster:scale": 0.0001, "raster:offset": -0.1}]}, {}, -1000),  # STAC 1.1
        ({"raster:scale": 0.0001, "raster:offset": -0.1}, {}, -1000),
        (DECLARED, {"earthsearch:boa_offset_applied": True}, 0),  # declared and added: not twice
        (DECLARED, {"earthsearch:boa_offset_applied": False}, -1000),
        (DECLARED, {"s2:processing_baseline": "02.14"}, -1000),  # its own tags count more
        ({}, {"s2:processing_baseline": "05.11"}, -1000),
        ({}, {"s2:processing_baseline": "04.00"}, -1000),
        ({}, {"s2:processing_baseline": "03.01"}, 0),
    ],
)
@pytest.mark.parametrize("when", ["2019-01-01T00:00:00Z", "2024-06-15T10:00:00Z"])
def test_an_offset_is_what_the_asset_says_whatever_the_date(asset, properties, value, when):
    assert offset_of(item(asset, when, **properties), "red", RULE).value == value


def test_values_stay_where_a_sensor_has_no_rule():
    assert offset_of(item(DECLARED), "red", None).value == 0


def test_an_offset_that_nothing_tells_is_not_guessed():
    with pytest.raises(InputError, match="does not say whether an offset is to be added to 'red'"):
        offset_of(item(), "red", RULE)


def test_an_offset_must_be_whole():
    with pytest.raises(InputError, match="no whole number"):
        offset_of(item({"raster:bands": [{"scale": 0.3, "offset": -0.1}]}), "red", RULE)


def landsat(fields):
    given = {"qa_pixel": {"href": "http://h/q.tif", "classification:bitfields": fields}}
    properties = {"datetime": "2024-06-15T10:00:00Z"}
    return Item.of({"id": "i", "collection": "c", "geometry": SQUARE, "assets": given, "properties": properties})


def test_bits_are_known_by_name_not_by_place():
    (sensor,) = find_sensors("landsat-8-9", None)
    fields = [
        {"name": "cloud", "offset": 5, "length": 1},
        {"name": "cloud_confidence", "offset": 8, "length": 2},
        {"name": "shadow", "offset": 9, "length": 1},
        {"name": "snow", "offset": 1, "length": 1},
    ]
    assert mask_rule(landsat(fields), sensor).bits == (5, 9)


def test_bits_without_names_are_those_of_the_sensor():
    (sensor,) = find_sensors("landsat-8-9", None)
    assert mask_rule(landsat(None), sensor).bits == (0, 1, 3, 4)


def test_bits_of_other_names_are_refused():
    (sensor,) = find_sensors("landsat-8-9", None)
    with pytest.raises(InputError, match="are named water; none is one of fill"):
        mask_rule(landsat([{"name": "water", "offset": 7, "length": 1}]), sensor)


def test_classes_of_an_item_are_named_and_codes_above_255_numbered():
    classes = [{"value": 112, "name": "urban"}, {"value": 311, "name": "forest"}, {"value": 0, "name": "no data"}]
    table = class_table(item({"classification:classes": classes}), "red")
    assert (table.values, table.names, table.codes) == ((1, 2), ("urban", "forest"), (112, 311))


@pytest.mark.parametrize(
    "change",
    [{"geometry": None}, {"properties": {}}, {"assets": {"red": {}}}, {"assets": None}, {"id": None}, {"geometry": {}}],
)
def test_what_is_no_item_is_none(change):
    whole = {"id": "i", "collection": "c", "geometry": SQUARE, "assets": {}, "properties": {"datetime": "2024-06-15"}}
    assert Item.of(whole) is not None
    assert Item.of({**whole, **change}) is None


def test_addresses_are_kept_without_what_may_be_secret():
    assert without_query("https://me:pw@host:8080/a/b.tif?sig=x#y") == "https://host:8080/a/b.tif"


def test_an_empty_rule_applies_what_an_asset_declares_and_asks_for_nothing_else():
    assert offset_of(item(DECLARED), "red", OffsetRule()).value == -1000
    with pytest.raises(InputError, match=r"looked for raster:bands and nothing else"):
        offset_of(item(), "red", OffsetRule())
