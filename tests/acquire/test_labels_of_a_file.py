"""Labels from a file that the user has: rasters of products that no catalogue holds, and polygons by their tags."""

import hashlib
import json

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import Resampling, reproject
from shapely.geometry import box
from stac_scenes import CORNER, HERE, add_sentinel, caller, read
from stac_site import serving

from adcdnet.acquire.catalogue import find_labels


@pytest.fixture
def site(monkeypatch):
    yield from serving(monkeypatch)


@pytest.fixture
def acquire(call, site, tmp_path):
    """run(labels, *options) with one item there and no pixels eroded."""
    add_sentinel(site, "S2A_T32", "2024-06-15")
    run = caller(call, site, tmp_path)
    return lambda labels, *options: run(
        "--api", site.api, "--labels", labels, *([] if "--erode" in options else ["--erode", 0]), *options
    )


TRUTH = HERE.truth()[5:-5, 5:-5]


def write(path, codes, crs=HERE.crs, transform=HERE.transform, **profile):
    h, w = codes.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=h,
        width=w,
        count=1,
        dtype=codes.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as dataset:
        dataset.write(codes, 1)
    return path


def classes_csv(tmp_path):
    lines = (tmp_path / "out" / "classes.csv").read_text("utf-8").splitlines()
    return [tuple(line.split(",")) for line in lines[1:]]


def test_a_raster_of_a_known_product_has_its_classes(acquire, tmp_path):
    path = write(tmp_path / "nlcd_2021.tif", np.array([11, 41, 82], np.uint8)[HERE.truth()])
    code, _, err = acquire(f"nlcd:{path}")
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "labels.tif")[0], np.array([11, 41, 82])[TRUTH])
    assert classes_csv(tmp_path) == [
        ("11", "open water", "#466b9f"),
        ("41", "deciduous forest", "#68ab5f"),
        ("82", "cultivated crops", "#ab6c28"),
    ]
    sources = (tmp_path / "out" / "SOURCES.md").read_text("utf-8")
    assert "Labels: nlcd, file nlcd_2021.tif. They are a product with errors of its own." in sources
    assert "To cite: U.S. Geological Survey: National Land Cover Database (NLCD)\n" in sources
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert record["label_file"] == {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with rasterio.open(tmp_path / "out" / "labels.tif") as dataset:
        assert dataset.tags()["LABEL_PRODUCT"] == "nlcd"


def test_a_raster_in_another_system_is_laid_on_the_pair(acquire, tmp_path):
    """In the equal-area system of NLCD's kind, of 10 m, turned against the zone."""
    away = Affine(10, 0, 4_360_000, 0, -10, 3_200_000)
    codes = np.zeros((400, 400), np.uint8)
    truth = np.array([11, 41, 82], np.uint8)[HERE.truth()]
    transformer = rasterio.warp.transform(HERE.crs, "EPSG:3035", [CORNER[0] - 600], [CORNER[1] + 600])
    away = Affine(10, 0, transformer[0][0], 0, -10, transformer[1][0])
    reproject(truth, codes, src_transform=HERE.transform, src_crs=HERE.crs, dst_transform=away, dst_crs="EPSG:3035",
              resampling=Resampling.nearest)  # fmt: skip
    path = write(tmp_path / "nlcd.tif", codes, "EPSG:3035", away)
    code, _, err = acquire(f"nlcd:{path}", "--erode", 1)
    assert code == 0, err
    labels = read(tmp_path / "out" / "labels.tif")[0]
    assert (labels > 0).mean() > 0.4
    assert np.array_equal(labels[labels > 0], np.array([11, 41, 82])[TRUTH][labels > 0])


@pytest.mark.parametrize("numbers", [(12, 23, 41), (211, 311, 512)], ids=["values", "codes"])
def test_corine_is_known_by_its_values_and_by_its_codes(acquire, tmp_path, numbers):
    path = write(tmp_path / "clc.tif", np.array(numbers, np.int16)[HERE.truth()], nodata=-128)
    code, _, err = acquire(f"corine:{path}")
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "labels.tif")[0], np.array([12, 23, 41])[TRUTH])
    names = [name for _, name, _ in classes_csv(tmp_path)]
    assert names == ["non-irrigated arable land", "broad-leaved forest", "water bodies"]


def test_corine_polygons_hold_codes(acquire, tmp_path):
    west, east = (box(CORNER[0] + x, CORNER[1] - 1500, CORNER[0] + x + 900, CORNER[1]) for x in (0, 900))
    frame = geopandas.GeoDataFrame({"Code_18": ["211", "512"]}, geometry=[west, east], crs=HERE.crs)
    frame.to_file(tmp_path / "clc.gpkg")
    code, _, err = acquire(f"corine:{tmp_path / 'clc.gpkg'}")
    assert code == 0, err
    labels = read(tmp_path / "out" / "labels.tif")[0]
    assert (labels[:, :40] == 12).all()
    assert (labels[:, 40:] == 41).all()


def test_water_of_dynamic_world_is_0_and_a_class(acquire, tmp_path):
    path = write(tmp_path / "dw.tif", np.array([0, 1, 6], np.uint8)[HERE.truth()])
    code, _, err = acquire(f"dynamic-world:{path}")
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "labels.tif")[0], np.array([1, 2, 7])[TRUTH])
    assert [name for _, name, _ in classes_csv(tmp_path)] == ["water", "trees", "built"]


def test_a_class_that_its_file_declares_as_no_data_is_said(acquire, tmp_path):
    path = write(tmp_path / "dw.tif", np.array([0, 1, 6], np.uint8)[HERE.truth()], nodata=0)
    code, _, err = acquire(f"dynamic-world:{path}")
    assert code == 0
    assert "dw.tif declares 0 as no data, which is its class 'water'; these pixels stay unlabelled" in err
    assert [name for _, name, _ in classes_csv(tmp_path)] == ["trees", "built"]


def test_a_raster_at_an_address_is_read_by_its_window(acquire, site, tmp_path):
    codes = np.full((2000, 2000), 82, np.uint8)
    codes[1000:1075, 1000:1091] = np.array([11, 41, 82])[HERE.truth()]
    rng = np.random.default_rng(0)
    codes[1200:] = rng.integers(11, 13, (800, 2000))  # so that the rest is no small file
    address = site.put("nlcd.tif", codes, HERE.transform @ Affine.translation(-1000, -1000), HERE.crs)
    code, _, err = acquire(f"nlcd:{address}")
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "labels.tif")[0], np.array([11, 41, 82])[TRUTH])
    ranges = [line.rpartition("bytes=")[2].split("-") for line in site.requests if "nlcd.tif bytes=" in line]
    assert sum(int(last) - int(first) for first, last in ranges) < len(site.files["/files/nlcd.tif"]) / 2


def test_any_raster_is_described_by_a_toml_file(acquire, tmp_path):
    write(tmp_path / "mine.tif", np.array([3, 500, 7], np.int16)[HERE.truth()])
    (tmp_path / "legend.csv").write_text("value,name,color\n3,reed,#112233\n500,sand,#445566\n")
    (tmp_path / "mine.toml").write_text(
        'name = "habitats"\nfile = "mine.tif"\nclasses = "legend.csv"\nyear = 2019\nlicence = "CC0"\n'
        'citation = "Office of {year}"\n'
    )
    code, _, err = acquire(tmp_path / "mine.toml")
    assert code == 0, err
    assert "the values 7 are no class of it; their pixels stay unlabelled" in err
    assert np.array_equal(read(tmp_path / "out" / "labels.tif")[0], np.array([1, 2, 0])[TRUTH])
    assert classes_csv(tmp_path) == [("1", "reed", "#112233"), ("2", "sand", "#445566")]
    sources = (tmp_path / "out" / "SOURCES.md").read_text("utf-8")
    assert "Licence: CC0" in sources
    assert "To cite: Office of 2019" in sources
    assert "labels are the product habitats of 2019" in (tmp_path / "out" / "scenes.toml").read_text()


def test_a_toml_file_of_a_known_product_has_its_classes(tmp_path):
    write(tmp_path / "x.tif", np.full((5, 5), 11, np.uint8))
    (tmp_path / "x.toml").write_text('name = "nlcd"\nfile = "x.tif"\nyear = "2021"\n')
    made = find_labels(str(tmp_path / "x.toml"))
    assert len(made.tables[0]) == 20
    assert made.licence.startswith("public domain")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('file = "x.tif"\n', "it needs name, file"),
        ('name = "a"\nfile = "y.tif"\n', "y.tif do not exist; name a raster of classes"),
        ('name = "a"\nfile = "x.tif"\napi = "usgs"\n', "api: Extra inputs are not permitted"),
        ('name = "a"\nfile = "x.tif"\nclasses = [[1, "a", "#000000"], [2, "a", "#000000"]]\n', "names must differ"),
        ('name = "a"\nfile = "x.tif"\nclasses = [[1, "a", "red"]]\n', "color 'red' is not of the form #rrggbb"),
        ('name = "a"\nfile = "x.tif"\nclasses = "no.csv"\n', "class table"),
    ],
)
def test_a_toml_file_that_cannot_be_meant_is_refused_before_anything_is_read(site, acquire, tmp_path, text, says):
    write(tmp_path / "x.tif", np.full((5, 5), 11, np.uint8))
    (tmp_path / "x.toml").write_text(text)
    code, said, err = acquire(tmp_path / "x.toml")
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert says in err
    assert site.requests == []


def test_a_file_alone_has_its_numbers_as_classes(acquire, tmp_path):
    path = write(tmp_path / "mine.tif", np.array([3, 5, 7], np.uint8)[HERE.truth()])
    assert acquire(path)[0] == 0
    assert [name for _, name, _ in classes_csv(tmp_path)] == ["3", "5", "7"]
    text = (tmp_path / "out" / "SOURCES.md").read_text("utf-8")
    assert "Licence: not said; name it in a TOML file for --labels" in text


# Polygons ------------------------------------------------------------------------------------------------------------


def squares(rows, side=300.0):
    """Shapes in a row from the upper left corner, in degrees, with these columns."""
    shapes = [
        box(CORNER[0] + side * k, CORNER[1] - 1500, CORNER[0] + side * (k + 1), CORNER[1]) for k in range(len(rows))
    ]
    return geopandas.GeoDataFrame(rows, geometry=shapes, crs=HERE.crs).to_crs("EPSG:4326")


@pytest.mark.parametrize("end", ["gpkg", "geojson"])
def test_tags_of_openstreetmap_make_classes(acquire, tmp_path, end):
    rows = [
        {"osm_id": "1", "landuse": "forest", "natural": None, "building": None},
        {"osm_id": "2", "landuse": "residential", "natural": "water", "building": None},
        {"osm_id": "3", "landuse": "military", "natural": None, "building": None},
        {"osm_id": "4", "landuse": None, "natural": None, "building": "yes"},
        {"osm_id": "5", "landuse": None, "natural": None, "building": "no"},
    ]
    squares(rows).to_file(tmp_path / f"osm.{end}")
    code, _, err = acquire(f"osm:{tmp_path / f'osm.{end}'}")
    assert code == 0, err
    labels = read(tmp_path / "out" / "labels.tif")[0]  # begins 5 pixels from the corner; a square is 15 wide
    assert [set(labels[:, k].tolist()) for k in (2, 17, 32, 47, 62)] == [{3}, {1}, {0}, {8}, {0}]
    assert classes_csv(tmp_path) == [
        ("1", "water", "#419bdf"),
        ("3", "trees", "#397d49"),
        ("8", "built-up", "#c4281b"),
    ]
    assert "Open Database License (ODbL) 1.0" in (tmp_path / "out" / "SOURCES.md").read_text("utf-8")
    assert "2 of 5 shapes of osm.gpkg left out: no class" in err


def test_geofabrik_names_values_without_keys(acquire, tmp_path):
    squares([{"fclass": name} for name in ("forest", "farmland", "nature_reserve")]).to_file(tmp_path / "landuse.shp")
    assert acquire(f"osm:{tmp_path / 'landuse.shp'}")[0] == 0
    assert [name for _, name, _ in classes_csv(tmp_path)] == ["trees", "crops"]


def test_ground_of_two_classes_stays_unlabelled(acquire, tmp_path):
    frame = squares([{"landuse": "forest"}, {"landuse": "residential"}], side=900.0)
    frame.loc[1, "geometry"] = frame.union_all()
    frame.loc[2] = ["meadow", frame.geometry[1].buffer(0.02).difference(frame.geometry[1])]
    frame.to_file(tmp_path / "osm.gpkg")
    code, _, err = acquire(f"osm:{tmp_path / 'osm.gpkg'}", "--bbox", HERE.bbox(-2))
    assert code == 0, err
    assert "pixels lie in polygons of different classes and stay unlabelled" in err
    assert not (read(tmp_path / "out" / "labels.tif")[0][10:60, 10:40]).any()


def test_polygons_are_eroded_and_thinned(acquire, tmp_path):
    squares([{"class": "a"}, {"class": "b"}], side=900.0).to_file(tmp_path / "mine.gpkg")
    assert acquire(tmp_path / "mine.gpkg", "--erode", 2, "--per-class", 31)[0] == 0
    labels = read(tmp_path / "out" / "labels.tif")[0]
    assert [(labels == value).sum() for value in (1, 2)] == [31, 31]
    assert not labels[:, 38:42].any()  # the edge lies behind column 45 of the ground


def test_the_pair_stays_where_a_file_has_nothing_of_it(acquire, tmp_path):
    squares([{"landuse": "forest"}, {"landuse": "meadow"}]).translate(5).to_frame("geometry").assign(
        landuse=["forest", "meadow"]
    ).to_file(tmp_path / "osm.gpkg")
    write(tmp_path / "far.tif", np.full((9, 9), 11, np.uint8), transform=HERE.transform @ Affine.translation(5000, 0))
    for number, labels in enumerate((f"osm:{tmp_path / 'osm.gpkg'}", f"nlcd:{tmp_path / 'far.tif'}")):
        code, _, err = acquire(labels, "--out", tmp_path / f"out{number}")
        assert code == 0, err
        assert "written without labels: " in err
        assert "has no labels on the ground of the pair; choose another file" in err


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda path: squares([{"a": "x", "b": "y"}, {"a": "z", "b": "w"}]).to_file(path),
            "by column in a TOML file for",
        ),
        (lambda path: path.write_bytes(b"no file of any kind"), "can be read neither as a raster nor as polygons"),
    ],
)
def test_a_file_of_no_use_is_one_line(acquire, tmp_path, make, says):
    make(tmp_path / "mine.gpkg")
    code, _, err = acquire(tmp_path / "mine.gpkg")
    assert code == 1
    assert says in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_file_without_tags_is_no_export_of_openstreetmap(acquire, tmp_path):
    squares([{"class": "a"}, {"class": "b"}]).to_file(tmp_path / "mine.gpkg")
    code, _, err = acquire(f"osm:{tmp_path / 'mine.gpkg'}")
    assert code == 1
    assert "has none of the columns building, landuse, natural, waterway or fclass" in err


def test_a_raster_that_lies_nowhere_is_one_line(acquire, tmp_path):
    write(tmp_path / "x.tif", np.array([11, 41, 82], np.uint8)[HERE.truth()], crs=None)
    code, _, err = acquire(f"nlcd:{tmp_path / 'x.tif'}")
    assert code == 1
    assert "x.tif has no coordinate system; assign the one it is in" in err.splitlines()[-1]


def test_a_raster_of_measurements_is_no_labels(acquire, tmp_path):
    write(tmp_path / "ndvi.tif", np.array([0.1, 0.5, 0.7], np.float32)[HERE.truth()])
    code, _, err = acquire(tmp_path / "ndvi.tif")
    assert code == 1
    assert "ndvi.tif holds values that are not whole numbers" in err.splitlines()[-1]
    assert ".out.acquire" not in err


def test_a_manifest_reads_the_same_file_again(acquire, call, site, tmp_path):
    path = write(tmp_path / "nlcd.tif", np.array([11, 41, 82], np.uint8)[HERE.truth()])
    assert acquire(f"nlcd:{path}", "--per-class", 50)[0] == 0
    again = ("acquire", "--again", tmp_path / "out" / "manifest.json", "--out")
    code, _, err = call(*again, tmp_path / "again")
    assert code == 0, err
    assert "all files are those of the manifest" in err
    write(path, np.array([41, 11, 82], np.uint8)[HERE.truth()])
    code, _, err = call(*again, tmp_path / "changed")
    assert code == 0, err
    assert "labels.tif differ from the manifest" in err
