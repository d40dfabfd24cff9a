"""The catalogues that are known, against the shapes of their items, written from their public specifications."""

import re
from importlib.resources import files
from urllib.parse import urlsplit

import pytest

from adcdnet.acquire.catalogue import _presets, find_api, find_labels, find_sensors
from adcdnet.acquire.items import Item, mask_rule, offset_of
from adcdnet.acquire.remote import _path

TEXT = files("adcdnet.acquire").joinpath("catalogues.toml").read_text("utf-8")
SQUARE = {"type": "Polygon", "coordinates": [[[9, 50], [10, 50], [10, 51], [9, 51], [9, 50]]]}


def band(href, offset=None, **more):
    bands = (
        {}
        if offset is None
        else {"raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": offset}]}
    )
    return {
        "href": href,
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        **bands,
        **more,
    }


def earth_search():
    """sentinel-2-c1-l2a of Earth Search v1."""
    root = (
        "https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/sentinel-2-c1-l2a/32/U/PC/2024/6/S2A_T32UPC"
    )
    names = {
        **{"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "rededge1": "B05", "rededge2": "B06"},
        **{"rededge3": "B07", "nir08": "B8A", "swir16": "B11", "swir22": "B12"},
    }
    assets = {name: band(f"{root}/{code}.tif", -0.1) for name, code in names.items()}
    assets |= {"scl": band(f"{root}/SCL.tif"), "thumbnail": {"href": f"{root}/L2A_PVI.jpg", "roles": ["thumbnail"]}}
    properties = {
        "datetime": "2024-06-15T10:37:36.023000Z",
        "platform": "sentinel-2a",
        "eo:cloud_cover": 3.41,
        "s2:processing_baseline": "05.10",
        "proj:code": "EPSG:32632",
        "earthsearch:payload_id": "roda-sentinel-2-c1-l2a",
    }
    return item("S2A_T32UPC_20240615T103629_L2A", "sentinel-2-c1-l2a", properties, assets)


def planetary_computer():
    """sentinel-2-l2a of the Planetary Computer: no scale or offset in the assets."""
    root = (
        "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/32/U/PC/2024/06/15/S2A_MSIL2A.SAFE/GRANULE/IMG_DATA"
    )
    codes = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL")
    assets = {code: band(f"{root}/T32UPC_{code}.tif", **{"proj:shape": [10980, 10980]}) for code in codes}
    properties = {"datetime": "2024-06-15T10:36:29.024000Z", "eo:cloud_cover": 3.4, "s2:processing_baseline": "05.10"}
    return item("S2A_MSIL2A_20240615T103629_R008_T32UPC", "sentinel-2-l2a", properties, assets)


def usgs():
    """landsat-c2l1 of USGS: an address that wants a login, and another one in a bucket that the reader pays for."""
    path = "collection02/level-1/standard/oli-tirs/2024/194/025/LC09_L1TP_194025_20240615_20240615_02_T1"
    codes = {"blue": 2, "green": 3, "red": 4, "nir08": 5, "swir16": 6, "swir22": 7, "pan": 8}
    files_ = {name: f"{path}_B{code}.TIF" for name, code in codes.items()} | {"qa_pixel": f"{path}_QA_PIXEL.TIF"}
    assets = {
        name: {
            "href": f"https://landsatlook.usgs.gov/data/{file}",
            "alternate": {"s3": {"href": f"s3://usgs-landsat/{file}", "storage:requester_pays": True}},
        }
        for name, file in files_.items()
    }
    names = ["fill", "dilated", "cirrus", "cloud", "shadow", "snow", "clear", "water"]
    fields = [{"name": name, "offset": bit, "length": 1} for bit, name in enumerate(names)]
    assets["qa_pixel"]["classification:bitfields"] = [*fields, {"name": "cloud_confidence", "offset": 8, "length": 2}]
    properties = {"datetime": "2024-06-15T10:10:24.5Z", "platform": "LANDSAT_9", "landsat:correction": "L1TP"}
    return item("LC09_L1TP_194025_20240615_20240615_02_T1", "landsat-c2l1", properties, assets)


def item(name, collection, properties, assets):
    given = {"id": name, "collection": collection, "geometry": SQUARE, "properties": properties, "assets": assets}
    return Item.of({**given, "type": "Feature", "stac_version": "1.0.0", "links": []})


def of_labels(name, collection, year, asset, path, **more):
    """Products on the Planetary Computer have a range of days in the place of one."""
    properties = {
        "datetime": None,
        "start_datetime": f"{year}-01-01T00:00:00Z",
        "end_datetime": f"{year}-12-31T23:59:59Z",
        **more,
    }
    assets = {
        asset: band(f"https://ai4edataeuwest.blob.core.windows.net/{path}.tif"),
        "tilejson": {"href": "https://h/t"},
    }
    return item(name, collection, properties, assets)


LABELS = {
    "worldcover": of_labels(
        "ESA_WorldCover_10m_2021_v200_N51E009",
        "esa-worldcover",
        2021,
        "map",
        "esa-worldcover/v200/2021/map/ESA_WorldCover_10m_2021_v200_N51E009_Map",
        **{"esa_worldcover:product_version": "2.0.0"},
    ),
    "io-lulc": of_labels(
        "32U-2023", "io-lulc-annual-v02", 2023, "data", "io-lulc/io-annual-lulc-v02/32U_20230101-20240101"
    ),
    "cdl": of_labels(
        "usda_cdl_cropland_2021_-106095_1807575",
        "usda-cdl",
        2021,
        "cropland",
        "usda-cdl/2021_30m_cdls_-106095_1807575_15000",
        **{"usda_cdl:type": "cropland"},
    ),
}


@pytest.mark.parametrize(("name", "item"), LABELS.items())
def test_items_of_labels_have_what_their_product_names(name, item):
    product = find_labels(name)
    assert (product.collection, product.asset) == (item.collection, next(iter(item.assets)))
    assert item.when[:4] in ("2021", "2023")
    host = urlsplit(item.address(product.asset, product.api.alternate)).hostname
    assert any(host.endswith(f".{own}") for own in product.api.token_hosts)


SHAPES = [
    ("sentinel-2", "earth-search", earth_search()),
    ("sentinel-2", "planetary-computer", planetary_computer()),
    ("landsat-8-9", "usgs", usgs()),
]


@pytest.mark.parametrize(("sensor", "api", "item"), SHAPES)
def test_items_have_what_their_sensor_names(sensor, api, item):
    ways = find_sensors(sensor, find_api(api))
    way = next(way for way in ways if way.collection == item.collection)
    assert set(way.assets) <= set(item.assets)
    assert item.has(way.where)
    addresses = [item.address(asset, way.api.alternate) for asset in way.assets]
    assert len(set(addresses)) == len(way.assets)
    assert all(_path(address).startswith("/vsi") for address in addresses)
    expected = -1000 if sensor == "sentinel-2" else 0
    assert {offset_of(item, asset, way.offset).value for asset in (*way.ms, *way.pan)} == {expected}


def test_landsat_is_read_where_it_is_paid_for_and_hidden_by_named_bits():
    (way,) = find_sensors("landsat-8-9", find_api("usgs"))
    assert _path(usgs().address("pan", way.api.alternate)).startswith("/vsis3/usgs-landsat/collection02/level-1/")
    assert way.api.options["AWS_REQUEST_PAYER"] == "requester"
    assert mask_rule(usgs(), way).bits == (0, 1, 3, 4)


def test_landsat_7_is_not_landsat_8_or_9():
    (way,) = find_sensors("landsat-8-9", None)
    other = item("LE07", "landsat-c2l1", {**usgs().properties, "platform": "LANDSAT_7"}, usgs().assets)
    assert not other.has(way.where)


def test_tokens_go_to_the_storage_of_their_catalogue_alone():
    api = find_api("planetary-computer")
    hosts = {urlsplit(planetary_computer().address(asset, "")).hostname for asset in ("B02", "SCL")}
    assert all(host.endswith(f".{api.token_hosts[0]}") for host in hosts)


def test_every_address_stands_once():
    addresses = re.findall(r'"(https?://[^"]+)"', TEXT)
    assert len(addresses) == len(set(addresses)) == 4
    source = "".join(
        file.read_text("utf-8") for file in files("adcdnet.acquire").iterdir() if file.name.endswith(".py")
    )
    assert not [address for address in addresses if address in source]


@pytest.mark.parametrize("given", _presets()["labels"], ids=lambda given: given["name"])
def test_label_products_name_classes_licence_and_citation(given, tmp_path):
    (tmp_path / "labels.tif").touch()
    product = find_labels(f"{given['name']}:{tmp_path / 'labels.tif'}")
    assert len(product.tables[0]) == len(given["classes"])
    assert product.licence
    assert "{year}" in product.citation


@pytest.mark.parametrize("given", _presets()["sensor"], ids=lambda given: f"{given['api']} {given['collection']}")
def test_sensors_name_licence_and_citation(given):
    ways = find_sensors(given["name"], find_api(given["api"]))
    way = next(way for way in ways if way.collection == given["collection"])
    assert way.metres[0] > way.metres[1]
    assert way.licence
    assert "{year}" in way.citation
