"""Labels from a product: on the MS grid, of the year nearest to the images, without edges, thinned and named."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box, mapping
from stac_scenes import HERE, Ground, add_sentinel, add_worldcover, caller, read
from stac_site import serving

from adcdnet.geo.scene_files import read_scenes


@pytest.fixture
def site(monkeypatch):
    yield from serving(monkeypatch)


@pytest.fixture
def acquire(call, site, tmp_path):
    run = caller(call, site, tmp_path)
    return lambda *options: run(*([] if "--labels" in options else ["--labels", "worldcover"]), *options)


TRUTH = np.array([10, 40, 80])[HERE.truth()[5:-5, 5:-5]]


def test_labels_are_the_classes_of_the_product(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site)
    code, said, err = acquire("--erode", 0)
    assert code == 0, err
    labels = read(tmp_path / "out" / "labels.tif")[0]
    assert (labels == TRUTH).mean() > 0.97  # pixels of 10 m in degrees do not fill those of 20 m
    assert "tree cover" in said
    assert "labels are a product, not the truth" in err
    lines = (tmp_path / "out" / "classes.csv").read_text().splitlines()
    assert lines == ["value,name,color", "10,tree cover,#006400", "40,cropland,#f096ff", "80,permanent water,#0064c8"]


def test_edges_of_classes_are_left_out(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site)
    assert acquire("--erode", 2)[0] == 0
    labels = read(tmp_path / "out" / "labels.tif")[0]
    assert (labels[labels > 0] == TRUTH[labels > 0]).all()
    beside = (TRUTH[:, 1:] != TRUTH[:, :-1]).nonzero()
    assert not labels[:, 1:][beside].any()
    assert not labels[:, :-1][beside].any()
    assert not labels[:, 2:][beside[0][beside[1] < 79], beside[1][beside[1] < 79]].any()


def test_labels_are_thinned_to_so_many_of_each_class(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site)
    assert acquire("--per-class", 37)[0] == 0
    labels = read(tmp_path / "out" / "labels.tif")[0]
    assert [int((labels == value).sum()) for value in (10, 40, 80)] == [37, 37, 37]
    assert acquire("--per-class", 37, "--seed", 1, "--out", tmp_path / "other")[0] == 0
    assert not np.array_equal(labels, read(tmp_path / "other" / "labels.tif")[0])


def test_pixels_under_cloud_get_no_label(site, acquire, tmp_path):
    cloud = np.zeros(HERE.size, bool)
    cloud[20:40, 20:50] = True
    add_sentinel(site, "S2A_T32", "2024-06-15", cloud=cloud)
    add_worldcover(site)
    assert acquire("--erode", 0)[0] == 0
    assert not read(tmp_path / "out" / "labels.tif")[0][15:35, 15:45].any()


def test_labels_are_of_the_year_nearest_to_the_images(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    for year in (2020, 2021, 2029):
        add_worldcover(site, year=year, name=f"wc{year}")
    assert acquire()[0] == 0
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [item["id"] for item in record["label_items"]] == ["wc2021-2021"]
    assert "ESA WorldCover project 2021" in (tmp_path / "out" / "SOURCES.md").read_text("utf-8")


def test_the_pair_stays_where_a_product_has_no_labels(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site, Ground((400_000.0, 5_740_000.0)))
    code, _, err = acquire()
    assert code == 0
    assert "written without labels: worldcover has no labels of this area" in err
    (scene,) = read_scenes(tmp_path / "out" / "scenes.toml", labelled=False)
    assert scene.labels is None
    scene.open().close()


def test_the_pair_stays_where_one_class_is_left(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site)
    code, _, err = acquire("--erode", 9)
    assert code == 0
    assert "written without labels: of the labels one class is left at most (none)" in err


def test_any_raster_of_classes_is_described_by_a_toml_file(site, acquire, tmp_path):
    """In the system of the images, of 100 m, with codes above 255 that the item names."""
    add_sentinel(site, "S2A_T32", "2024-06-15")
    rows, cols = np.mgrid[:15, :19]
    codes = np.where(cols < 9, 112, 311).astype(np.int16)
    codes[12:] = 512
    href = site.put("clc/clc.tif", codes, HERE.transform @ Affine.scale(5), HERE.crs, nodata=-1)
    named = [{"value": 112, "name": "urban"}, {"value": 311, "name": "forest"}, {"value": 512, "name": "lake"}]
    site.add(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "clc",
            "collection": "corine",
            "geometry": dict(mapping(box(0, 40, 20, 60))),
            "properties": {"datetime": "2018-01-01T00:00:00Z"},
            "assets": {"data": {"href": href, "classification:classes": named}},
            "links": [],
        }
    )
    (tmp_path / "clc.toml").write_text(f'name = "corine"\napi = "{site.api}"\ncollection = "corine"\nasset = "data"\n')
    code, _, err = acquire("--labels", tmp_path / "clc.toml", "--erode", 0, "--api", site.api)
    assert code == 0, err
    assert rows.shape == codes.shape
    labels = read(tmp_path / "out" / "labels.tif")[0]
    expected = np.searchsorted([112, 311, 512], codes.repeat(5, 0).repeat(5, 1)[:75, :91][5:-5, 5:-5]) + 1
    assert np.array_equal(labels, expected)
    assert (tmp_path / "out" / "classes.csv").read_text().splitlines()[1].startswith("1,urban,#")


def test_items_of_other_products_of_a_collection_are_not_read(site, acquire, tmp_path):
    """The Cropland Data Layer has items of its crops, and others that say only where crops are."""
    add_sentinel(site, "S2A_T32", "2024-06-15")
    for asset in ("cultivated", "cropland"):
        values = np.array([1, 5, 176], np.uint8)[HERE.truth()] if asset == "cropland" else np.full(HERE.size, 2, "u1")
        item = add_worldcover(site, name=asset, year=2024)
        href = site.put(f"{asset}/c.tif", values, HERE.transform, HERE.crs, nodata=0)
        site.collections["esa-worldcover"].remove(item)
        site.add(item | {"collection": "usda-cdl", "assets": {asset: {"href": href}}})
    code, said, err = acquire("--labels", "cdl", "--erode", 0)
    assert code == 0, err
    assert [line.split()[0] for line in said.splitlines()[1:4]] == ["corn", "soybeans", "grassland/pasture"]
    assert np.array_equal(read(tmp_path / "out" / "labels.tif")[0], np.array([1, 5, 176])[HERE.truth()[5:-5, 5:-5]])


def test_labels_on_both_sides_of_the_antimeridian(site, acquire, tmp_path):
    """Two tiles of a product in degrees meet there; together they label the whole pair."""
    ground = Ground((818_000.0, 8_130_600.0), (80, 200), crs="EPSG:32760")
    add_sentinel(site, "fiji", "2024-06-15", ground)
    for name, west in (("west", 179.95), ("east", -180.0)):
        values = np.full((600, 600), 10, np.uint8)
        values[:, ::150] = 40
        values[::7] = 40
        href = site.put(
            f"{name}/map.tif", values, Affine(1 / 12000, 0, west, 0, -1 / 12000, -16.87), "EPSG:4326", nodata=0
        )
        site.add(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "collection": "esa-worldcover",
                "geometry": dict(mapping(box(west, -16.92, west + 0.05, -16.87))),
                "properties": {"datetime": "2021-01-01T00:00:00Z"},
                "assets": {"map": {"href": href}},
                "links": [],
            }
        )
    code, _, err = acquire("--bbox", "179.99,-16.894,-179.985,-16.89", "--erode", 0)
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {item["id"] for item in record["label_items"]} == {"west", "east"}
    labels = read(tmp_path / "out" / "labels.tif")[0]
    assert (labels > 0).mean(axis=0).min() > 0.5  # in every column, that at 180° too


def test_a_file_of_labels_says_whose_they_are(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site)
    assert acquire()[0] == 0
    with rasterio.open(tmp_path / "out" / "labels.tif") as dataset:
        tags = dataset.tags()
    assert tags["LABEL_PRODUCT"] == "worldcover 2021"
    assert tags["LICENCE"] == "CC BY 4.0"


def test_training_and_report_say_that_labels_are_a_product(site, acquire, call, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site)
    assert acquire()[0] == 0
    scenes = tmp_path / "out" / "scenes.toml"
    code, _, err = call("train", scenes, "--quick", "--out", tmp_path / "run")
    assert code == 0, err
    assert (
        "labels are a product, not the truth on the ground (worldcover 2021): scores say how well it is repeated" in err
    )
    code, _, err = call("report", tmp_path / "run")
    assert code == 0, err
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    first = page[page.index("<h2>Summary</h2>") :].partition("</p>")[0]
    assert "every score here says how well it is repeated" in first


def test_values_that_are_no_class_of_a_product_stay_unlabelled(site, acquire, tmp_path):
    """As cloud in some products: one pixel of it does not end a run."""
    add_sentinel(site, "S2A_T32", "2024-06-15")
    item = add_worldcover(site)
    with rasterio.MemoryFile(site.files["/files/wc/map.tif"]) as memory, memory.open() as dataset:
        values, transform = dataset.read(1), dataset.transform
    values[100:104] = 17
    item["assets"]["map"]["href"] = site.put("wc/cloudy.tif", values, transform, "EPSG:4326", nodata=0)
    code, _, err = acquire()
    assert code == 0, err
    assert "worldcover: the values 17 are no class of it; their pixels stay unlabelled" in err
    assert set(np.unique(read(tmp_path / "out" / "labels.tif"))) == {0, 10, 40, 80}
