"""What a user can get wrong is one line that says what came, what was needed and what to do."""

import builtins
import json
import sys

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon, shape
from stac_scenes import HERE, add_landsat, add_sentinel, caller
from stac_site import serving

from adcdnet.acquire.area import Area
from adcdnet.errors import InputError


@pytest.fixture
def site(monkeypatch):
    yield from serving(monkeypatch)


@pytest.fixture
def acquire(call, site, tmp_path):
    return caller(call, site, tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bbox", "10,52,11,51"], "its south (52) must lie below its north (51): W,S,E,N"),
        (["--bbox", "11,51,10,52"], "its west (11) must lie before its east (10): W,S,E,N"),
        (["--bbox", "51,190,52,191"], "latitudes in -90..90, in the order W,S,E,N"),
        (["--bbox", "10,51,11"], "four numbers are needed: W,S,E,N in degrees"),
        (["--dates", "2024-09-30/2024-05-01"], "the first day must not lie behind the last; exchange them"),
        (["--dates", "2024-5"], "two days are needed, such as 2024-05-01/2024-09-30"),
        (["--bbox", "-10,35,40,70"], "GB; take a smaller one, or add --yes"),
        (["--sensor", "spot"], "there is no sensor 'spot'; known are sentinel-2, landsat-8-9, or name a TOML file"),
        (["--labels", "esri"], "there are no labels 'esri'; known are worldcover, io-lulc, cdl, nlcd, corine,"),
        (["--labels", "corine"], "no catalogue that is known has corine; give a file of it: --labels corine:FILE"),
        (["--labels", "nlcd:nlcd.tif"], "nlcd.tif do not exist; name a raster of classes or a file of polygons"),
        (["--labels", "nlcd:https://host/nlcd.tif?key=SECRET"], "an address with ? or a password in it is not kept"),
        (["--api", "nasa"], "there is no API 'nasa'; known are earth-search, planetary-computer, usgs, or give"),
        (["--api", "https://host/stac?key=SECRET"], "an address with ? or a password in it is not kept"),
        (["--api", "ftp://host/stac"], "'ftp://host/stac' is no address"),
        (["--api", "earth-search", "--sensor", "landsat-8-9"], "earth-search has no landsat-8-9 that makes a pair"),
        (["--sensor", "mine.toml"], "sensor mine.toml cannot be read"),
        (["--area", "aoi.geojson"], "aoi.geojson does not exist"),
        (["--again", "manifest.json"], "manifest.json cannot be read as a manifest"),
    ],
)
def test_wrong_options_are_one_line(acquire, site, tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    code, said, err = acquire(*options)
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert says in err
    assert site.requests == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--out", "x", "--list", "y.html"],
        ["--area", "a.geojson", "--bbox", "1,2,3,4"],
        ["--again", "m", "--bbox", "1,2,3,4"],
    ],
)
def test_options_that_exclude_one_another_are_wrong_use(call, options):
    code, _, err = call("acquire", "--dates", "2024-05-01", *options)
    assert code == 2
    assert "Invalid value" in err


def test_a_box_of_which_west_is_above_east_may_cross_the_antimeridian():
    both = [Area.of_bbox(text).box_square_km for text in ("179,-17,-179,-16", "10,-17,12,-16")]
    assert both[0] == pytest.approx(both[1], rel=1e-3)


def test_a_large_area_is_read_when_it_is_confirmed(acquire, site, tmp_path, monkeypatch):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    monkeypatch.setattr("adcdnet.acquire.run.LARGE", 1e-6)
    assert acquire()[0] == 1
    assert site.requests == []
    code, _, err = acquire("--yes")
    assert code == 0, err


def test_polygons_far_apart_count_with_all_between_them(acquire, site, tmp_path):
    square = [[[0, 0], [0.1, 0], [0.1, 0.1], [0, 0.1], [0, 0]]]
    far = [[[x + 5, y + 5] for x, y in square[0]]]
    geometry = {"type": "MultiPolygon", "coordinates": [square, far]}
    (tmp_path / "two.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": geometry}))
    code, _, err = acquire("--area", tmp_path / "two.geojson")
    assert code == 1
    assert "GB; take a smaller one, or add --yes" in err


def test_an_area_of_many_corners_is_sent_as_its_hull():
    around = np.linspace(0, 2 * np.pi, 2000)
    area = Area(Polygon(np.stack([9 + np.cos(around) * (1 + 0.1 * np.sin(99 * around)), 50 + np.sin(around)], axis=1)))
    assert shapely.get_num_coordinates(shape(area.outline)) < 700
    assert shapely.covers(shape(area.outline), area.shape)


def test_an_area_without_polygons_is_refused(tmp_path):
    path = tmp_path / "line.geojson"
    geometry = {"type": "LineString", "coordinates": [[9, 50], [10, 51]]}
    path.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": geometry}))
    with pytest.raises(InputError, match="holds no polygon; draw one"):
        Area.of_file(path)


def test_a_collection_that_is_not_there(acquire, site):
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert "has no collection sentinel-2-c1-l2a, sentinel-2-l2a; name another API or sensor" in err


def test_no_item_in_these_days(acquire, site):
    add_sentinel(site, "S2A_T32", "2023-06-15")
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert "no item over the area from 2024-05-01 to 2024-09-30" in err


def test_items_that_lack_assets_are_named(acquire, site):
    add_sentinel(site, "S2A_T32", "2024-06-15", pan=("blue", "green", "red"))
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert "S2A_T32 and others lack the assets nir" in err


def test_a_broken_item_is_left_out_with_a_note(acquire, site):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    del add_sentinel(site, "broken", "2024-06-16")["geometry"]
    code, _, err = acquire()
    assert code == 0
    assert "1 items of sentinel-2-l2a lack what an item must have; left out" in err


def test_a_folder_with_files_is_not_written_into(acquire, site, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert "out exists and is not empty; name another folder" in err
    assert site.requests == []


def test_files_that_somebody_pays_for_need_an_account(acquire, site, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = acquire("--api", "usgs", "--sensor", "landsat-8-9")
    assert (code, err.count("\n")) == (1, 1)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in err
    assert site.requests == []


def test_without_the_extra_one_line_says_how_to_install_it(acquire, site, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pystac_client"):
            raise ImportError(name)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.startswith("pystac_client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert 'pip install "adcdnet[acquire]"' in err


def test_files_of_this_machine_are_not_read_for_a_catalogue(acquire, site, tmp_path):
    item = add_landsat(site, "LC09", "2024-06-15")
    item["assets"]["pan"]["href"] = "file:///etc/passwd"
    code, _, err = acquire("--sensor", "landsat-8-9", "--bbox", HERE.bbox(30))
    assert (code, err.count("\n")) == (1, 1)
    assert "'file:///etc/passwd' is no address that is read" in err
