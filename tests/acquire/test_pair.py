"""From a box in degrees to a pair: the native pixels of one day, or the best of several, and nothing resampled."""

import json
import re
import tomllib

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.io import MemoryFile
from rasterio.warp import transform_bounds
from shapely.geometry import box
from stac_scenes import CORNER, HERE, LAND, Ground, add_landsat, add_sentinel, add_worldcover, caller, read
from stac_site import serving

from adcdnet.geo.scene_files import read_scenes


@pytest.fixture
def site(monkeypatch):
    yield from serving(monkeypatch)


@pytest.fixture
def acquire(call, site, tmp_path):
    return caller(call, site, tmp_path)


def opened(tmp_path, **how):
    (scene,) = read_scenes(tmp_path / "out" / "scenes.toml", **how)
    return scene.open()


def read_served(site, name):
    with MemoryFile(site.files[f"/files/{name}"]) as memory, memory.open() as dataset:
        return dataset.read(1)


def cloud(rows, cols, size=HERE.size):
    where = np.zeros(size, bool)
    where[rows, cols] = True
    return where


def test_a_box_becomes_a_labelled_pair_that_trains(site, acquire, call, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    add_worldcover(site)
    code, said, err = acquire("--labels", "worldcover")
    assert code == 0, err
    assert f"next: adcdnet train {tmp_path / 'out' / 'scenes.toml'}" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    wanted = {
        "ms.tif",
        "pan.tif",
        "mask.tif",
        "labels.tif",
        "classes.csv",
        "scenes.toml",
        "SOURCES.md",
        "manifest.json",
    }
    assert names - {"labels.qml", "labels.tif.aux.xml"} == wanted
    assert "CC BY 4.0" in (tmp_path / "out" / "SOURCES.md").read_text("utf-8")
    code, said, err = call("train", tmp_path / "out" / "scenes.toml", "--quick", "--out", tmp_path / "run")
    assert code == 0, err
    assert "OA 1.000" in said  # classes and pixels are made of one another


def test_pixels_are_those_of_the_files_under_the_box(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    assert acquire("--bbox", HERE.bbox(5))[0] == 0
    with opened(tmp_path, labelled=False) as scene:
        assert scene.grid.shape == (75 - 10, 91 - 10)
        assert scene.grid.transform == Affine(20, 0, CORNER[0] + 100, 0, -20, CORNER[1] - 100)
        assert (scene.ratio, scene.phase) == (2, (0, 0))
        assert scene.ms_descriptions == ("rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")
    ms, pan = read(tmp_path / "out" / "ms.tif"), read(tmp_path / "out" / "pan.tif")
    assert (ms.dtype, ms.shape[0], pan.shape[0]) == (np.uint16, 6, 4)
    assert np.array_equal(ms[4], 5000 + 300 * HERE.truth()[5:-5, 5:-5] + 15)
    assert np.array_equal(pan[1], 2000 + 300 * HERE.truth(2)[10:-10, 10:-10] + 15)


def test_the_scene_classification_is_the_mask(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15", cloud=cloud(slice(10, 20), slice(30, 40)))
    assert acquire()[0] == 0
    with opened(tmp_path, labelled=False) as scene:
        assert scene.hidden == pytest.approx(100 / (65 * 81))
        pixels = scene.read(scene.grid.window)
    assert not pixels.valid[5:15, 25:35].any()
    assert pixels.valid.sum() == 65 * 81 - 100


def test_the_day_with_least_cloud_over_the_area_is_taken(site, acquire, tmp_path):
    """Of all its ground the second has less; over the box it is the first."""
    add_sentinel(site, "outside", "2024-06-10", cloud=cloud(slice(None), slice(0, 40)))
    add_sentinel(site, "inside", "2024-06-15", cloud=cloud(slice(40, 50), slice(60, 70)))
    assert acquire("--bbox", Ground((CORNER[0] + 900, CORNER[1]), (75, 46)).bbox(5))[0] == 0
    assert "outside" in (tmp_path / "out" / "SOURCES.md").read_text()


def test_clouds_are_filled_from_further_days_ms_and_pan_alike(site, acquire, tmp_path):
    add_sentinel(site, "first", "2024-06-10", cloud=cloud(slice(20, 30), slice(20, 30)))
    add_sentinel(site, "second", "2024-06-25", cloud=cloud(slice(20, 40), slice(25, 60)))
    assert acquire("--mosaic", 2)[0] == 0
    ms, pan, source = (read(tmp_path / "out" / f"{name}.tif") for name in ("ms", "pan", "source"))
    day_ms = ms[0] - (1000 + 300 * HERE.truth()[5:-5, 5:-5])
    day_pan = pan[0] - (1000 + 300 * HERE.truth(2)[10:-10, 10:-10])
    expected = np.full((65, 81), 10)
    expected[15:25, 15:20] = 25  # hidden on the first day, not on the second; where both are hidden the first stays
    assert np.array_equal(day_ms, expected)
    assert np.array_equal(day_pan, expected.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(source[0] == 2, expected == 25)
    assert read(tmp_path / "out" / "mask.tif")[0, 15:25, 15:25].tolist() == [[4] * 5 + [9] * 5] * 10


@pytest.mark.parametrize("said_by", ["bands", "version"])
def test_offsets_of_two_baselines_meet_in_a_mosaic(site, acquire, tmp_path, said_by):
    """The numbers of the newer one are 1000 higher; its date says nothing, for both days lie behind the change."""
    hidden = cloud(slice(0, 40), slice(None))
    for name, add, version, where in (("old", 0, "03.01", hidden), ("new", 1000, "05.10", ~hidden)):
        bands = {"scale": 1e-4, "offset": -add / 10_000} if said_by == "bands" else None
        known = {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": version}
        add_sentinel(site, name, "2024-06-10", cloud=where, add=add, raster_bands=bands, **known)
    assert acquire()[0] == 0
    ms, pan = read(tmp_path / "out" / "ms.tif"), read(tmp_path / "out" / "pan.tif")
    assert np.array_equal(ms[2], 3000 + 300 * HERE.truth()[5:-5, 5:-5] + 10)
    assert np.array_equal(pan[3], 4000 + 300 * HERE.truth(2)[10:-10, 10:-10] + 10)
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {item["id"]: item["assets"]["red"]["offset"] for item in record["items"]} == {"old": 0, "new": -1000}


def test_tiles_of_one_day_are_joined_on_one_grid(site, acquire, tmp_path):
    """Two tiles that overlap, the second begins 40 MS pixels further east and 10 further south."""
    add_sentinel(site, "west", "2024-06-15")
    east = Ground((CORNER[0] + 800, CORNER[1] - 200), (75, 91))
    add_sentinel(site, "east", "2024-06-15", east)
    whole = Ground(CORNER, (85, 131))
    assert acquire("--bbox", Ground((CORNER[0], CORNER[1] - 200), (65, 131)).bbox(2))[0] == 0
    ms = read(tmp_path / "out" / "ms.tif")
    assert np.array_equal(ms[0], 1000 + 300 * whole.truth()[12:73, 2:129] + 15)


def test_half_of_the_area_is_written_with_a_note(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    _, said, err = acquire("--bbox", Ground((CORNER[0] + 45.5 * 20, CORNER[1]), (75, 91)).bbox())
    assert "covers 5" in err
    assert "of the area" in err
    assert "MS pixels, ratio 2" in said
    assert read(tmp_path / "out" / "ms.tif").shape[2] in (45, 46)


def test_an_area_over_two_zones_lies_in_the_one_that_covers_it_best(site, acquire, tmp_path):
    """12° east is the edge of zones 32 and 33; both tiles reach over it, the western one further."""
    wide = Ground((700_000.0, 5_738_300.0), (90, 450))
    add_sentinel(site, "second32", "2024-06-15", wide)
    narrow = Ground((292_000.0, 5_738_300.0), (90, 120), crs="EPSG:32633")
    add_sentinel(site, "first33", "2024-06-15", narrow)
    code, _, err = acquire("--bbox", "11.98,51.745,12.02,51.755")
    assert code == 0, err
    with opened(tmp_path, labelled=False) as scene:
        assert "zone 32N" in scene.grid.crs
    assert "first33" not in (tmp_path / "out" / "SOURCES.md").read_text()


def test_the_rest_of_an_area_over_two_zones_is_a_second_command(site, acquire, tmp_path):
    """What the first one says is enough: together the two pairs cover the area."""
    add_sentinel(site, "west", "2024-06-15", Ground((703_000.0, 5_738_300.0), (90, 200)))  # to 12.02° east
    add_sentinel(site, "east", "2024-06-15", Ground((292_000.0, 5_738_300.0), (90, 250), crs="EPSG:32633"))
    code, _, err = acquire("--bbox", "11.96,51.745,12.05,51.755")
    assert code == 0, err
    said = re.search(r"run the same command with --bbox (\S+), --dates (\S+) and another --out", err)
    assert said, err
    code, _, err = acquire("--bbox", said[1], "--dates", said[2], "--out", tmp_path / "second")
    assert code == 0, err
    assert "run the same command" not in err
    ground = []
    for name in ("out", "second"):
        with rasterio.open(tmp_path / name / "ms.tif") as dataset:
            ground.append(box(*transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)))
    assert shapely.union_all(ground).covers(box(11.9605, 51.7455, 12.0495, 51.7545))
    used = [(tmp_path / name / "SOURCES.md").read_text() for name in ("out", "second")]
    assert ["- east, " in text for text in used] == ["- west, " not in text for text in used] == [True, False]


@pytest.mark.parametrize("way", ["box", "file"])
def test_an_area_over_the_antimeridian_is_one_piece(site, acquire, tmp_path, way):
    ground = Ground((818_000.0, 8_130_600.0), (80, 200), crs="EPSG:32760")  # Fiji: 180° is at some 820 km east
    add_sentinel(site, "fiji", "2024-06-15", ground)
    place = ("--bbox", "179.99,-16.894,-179.985,-16.89")
    if way == "file":
        ring = [[179.99, -16.894], [180.015, -16.894], [180.015, -16.89], [179.99, -16.89], [179.99, -16.894]]
        content = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        (tmp_path / "aoi.geojson").write_text(json.dumps(content))
        place = ("--area", tmp_path / "aoi.geojson")
    code, _, err = acquire(*place)
    assert code == 0, err
    assert "covers" not in err
    width = read(tmp_path / "out" / "ms.tif").shape[2] * 20
    assert 2600 < width < 2800  # 0.025° at 16.9° south


def test_landsat_keeps_its_phase_and_hides_by_the_names_of_bits(site, acquire, tmp_path):
    qa = np.full(LAND.size, 64)
    qa[20, 20], qa[21, 20], qa[22, 20], qa[23, 20] = 8, 16, 2, 4  # cloud, shadow, dilated; cirrus stays
    add_landsat(site, "LC09_L1TP", "2024-06-15", qa=qa)
    add_landsat(site, "LE07_L1TP", "2024-06-16", platform="LANDSAT_7")
    code, _, err = acquire("--sensor", "landsat-8-9", "--bbox", LAND.bbox(3))
    assert code == 0, err
    with opened(tmp_path, labelled=False) as scene:
        assert (scene.ratio, scene.phase) == (2, (0.5, 0.5))
        assert scene.grid.shape == (61 - 6, 47 - 6)
        pixels = scene.read(scene.grid.window)
    ms, pan = read(tmp_path / "out" / "ms.tif"), read(tmp_path / "out" / "pan.tif")
    assert ms[0, :, 0].tolist() == [1000 + row for row in range(3, 58)]
    # PAN pixel 2r + 1 begins a quarter of an MS pixel below the upper edge of MS pixel r + ½ pan: the first of its two
    assert pan[0, :4, 0].tolist() == [5006, 5007, 5008, 5009]
    assert pan.shape == (1, 110, 82)
    assert not pixels.ms_valid[17:20, 17].any()
    assert pixels.ms_valid[20:, 17].all()
    assert tomllib.loads((tmp_path / "out" / "scenes.toml").read_text())["scene"][0]["mask_bits"] == [0, 1, 3, 4]


def test_any_collection_is_described_by_a_toml_file(site, acquire, tmp_path):
    """One file of four bands as MS, one of 1.5 m as PAN, no mask; PAN begins 3 rows above and 5 columns left of MS."""
    ground = Ground(size=(30, 40), pixel=6.0)
    four = np.stack([ground.truth() * 10 + band for band in range(4)]).astype(np.int16)
    fine = ground.transform @ Affine.scale(0.25) @ Affine.translation(-5, -3)
    wide = np.pad(ground.truth(4).astype(np.uint8) + 1, ((3, 6), (5, 2)), constant_values=99)
    item = add_sentinel(site, "model", "2024-06-15", ground)
    site.collections.clear()
    item["collection"] = "spot"
    item["assets"] = {
        "xs": {"href": site.put("spot/xs.tif", four, ground.transform, ground.crs, nodata=-9)},
        "p": {"href": site.put("spot/p.tif", wide, fine, ground.crs)},
    }
    site.add(item)
    (tmp_path / "spot.toml").write_text(
        f'name = "spot"\napi = "{site.api}"\ncollection = "spot"\nmetres = [6, 1.5]\nms = ["xs"]\npan = ["p"]\n'
    )
    code, _, err = acquire("--sensor", tmp_path / "spot.toml", "--bbox", ground.bbox(2))
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "ms.tif"), four[:, 2:-2, 2:-2])
    assert np.array_equal(read(tmp_path / "out" / "pan.tif")[0], ground.truth(4)[8:-8, 8:-8] + 1)
    with opened(tmp_path, labelled=False) as scene:
        assert (scene.ratio, scene.ms_bands) == (4, 4)


def test_a_pixel_without_a_value_in_one_band_keeps_those_of_the_others(site, acquire, tmp_path):
    """Files often declare no value for nothing, and 0 is one that dark ground has."""
    add_sentinel(site, "S2A_T32", "2024-06-15")
    values = read_served(site, "S2A_T32/nir08.tif")
    values[30, 40] = 0
    site.put("S2A_T32/nir08.tif", values, HERE.transform, HERE.crs)
    assert acquire()[0] == 0
    ms = read(tmp_path / "out" / "ms.tif")
    base = 300 * HERE.truth()[30, 40] + 15
    assert (ms[:, 25, 35] - base).tolist() == [1000, 2000, 3000, -base, 5000, 6000]


def test_a_pixel_without_a_value_is_filled_from_another_day(site, acquire, tmp_path):
    add_sentinel(site, "first", "2024-06-10", cloud=cloud(slice(70, 75), slice(80, 91)))
    add_sentinel(site, "second", "2024-06-25", cloud=cloud(slice(0, 70), slice(80, 91)))
    values = read_served(site, "first/nir08.tif")
    values[30, 40] = 0
    site.put("first/nir08.tif", values, HERE.transform, HERE.crs, nodata=0)
    assert acquire("--mosaic", 2, "--bbox", HERE.bbox())[0] == 0
    assert read(tmp_path / "out" / "source.tif")[0, 30, 39:42].tolist() == [1, 2, 1]


def test_a_catalogue_that_lies_about_a_grid_is_not_believed(site, acquire, tmp_path):
    item = add_sentinel(site, "S2A_T32", "2024-06-15")
    item["properties"] |= {"proj:code": "EPSG:32733"}
    item["assets"]["red"]["proj:transform"] = [10, 0, 1.0, 0, -10, 2.0]
    _, _, err = acquire()
    assert "lies otherwise than its file does; the file counts" in err
    assert np.array_equal(read(tmp_path / "out" / "ms.tif")[0], 1015 + 300 * HERE.truth()[5:-5, 5:-5])


def test_an_item_that_claims_ground_that_its_files_do_not_hold_is_passed_over(site, acquire, tmp_path):
    item = add_sentinel(site, "liar", "2024-06-10", Ground((CORNER[0] + 50_000, CORNER[1])))
    item["geometry"] = add_sentinel(site, "good", "2024-06-15", cloud=cloud(slice(30, 50), slice(30, 50)))["geometry"]
    code, _, err = acquire()
    assert code == 0, err
    assert "good" in (tmp_path / "out" / "SOURCES.md").read_text()
    site.collections["sentinel-2-l2a"].pop()
    code, _, err = acquire("--out", tmp_path / "alone")
    assert (code, err.count("\n")) == (1, 1)
    assert "none of the 1 items covers a pixel of the area; take other dates or a larger area" in err


def test_an_item_whose_bands_lie_on_two_grids_is_left_out(site, acquire, tmp_path):
    add_sentinel(site, "good", "2024-06-15")
    add_sentinel(site, "odd", "2024-06-15")
    moved = HERE.transform @ Affine.translation(3, 0)
    site.put("odd/nir08.tif", np.ones(HERE.size, np.uint16), moved, HERE.crs, nodata=0)
    code, _, err = acquire()
    assert code == 0
    assert "odd/nir08.tif (75×91 pixels) is not on the grid of" in err
    assert "odd" not in (tmp_path / "out" / "SOURCES.md").read_text()


def test_an_item_on_another_lattice_is_not_resampled(site, acquire):
    add_sentinel(site, "a", "2024-06-15", cloud=cloud(slice(0, 40), slice(None)))
    add_sentinel(site, "b", "2024-06-15", Ground((CORNER[0] + 7, CORNER[1])))
    code, _, err = acquire()
    assert code == 0
    assert "b lies on another grid than a and would need resampling; left out" in err
