"""What is kept: a manifest that makes the same files again, and the days to choose among as a table and a page."""

import json

import numpy as np
import pytest
from affine import Affine
from stac_scenes import HERE, add_sentinel, add_worldcover, caller, read
from stac_site import serving


@pytest.fixture
def site(monkeypatch):
    yield from serving(monkeypatch)


@pytest.fixture
def acquire(call, site, tmp_path):
    return caller(call, site, tmp_path)


def half(cols):
    where = np.zeros(HERE.size, bool)
    where[:, cols] = True
    return where


def test_a_manifest_makes_the_same_files_again(site, acquire, tmp_path):
    add_sentinel(site, "first", "2024-06-10", cloud=half(slice(0, 30)))
    add_sentinel(site, "second", "2024-06-20", cloud=half(slice(30, 91)))
    add_worldcover(site)
    assert acquire("--mosaic", 2, "--labels", "worldcover", "--per-class", 50)[0] == 0
    add_sentinel(site, "third", "2024-06-30")  # better, and not what was taken then
    code, _, err = acquire("--again", tmp_path / "out" / "manifest.json", "--out", tmp_path / "again")
    assert code == 0, err
    assert "all files are those of the manifest" in err
    for path in (tmp_path / "out").iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_files_that_have_changed_since_are_named(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    assert acquire()[0] == 0
    site.put("S2A_T32/nir.tif", np.full((150, 182), 7, np.uint16), HERE.transform @ Affine.scale(0.5), HERE.crs)
    code, _, err = acquire("--again", tmp_path / "out" / "manifest.json", "--out", tmp_path / "again")
    assert code == 0, err
    assert "pan.tif differ from the manifest" in err


def test_an_item_that_is_gone_is_named(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    assert acquire()[0] == 0
    site.collections["sentinel-2-l2a"].clear()
    code, _, err = acquire("--again", tmp_path / "out" / "manifest.json", "--out", tmp_path / "again")
    assert (code, err.count("\n")) == (1, 1)
    assert "has no item S2A_T32 any more; search anew" in err


def test_a_manifest_says_where_every_number_is_from(site, acquire, tmp_path):
    new = {"earthsearch:boa_offset_applied": False}
    add_sentinel(site, "S2A_T32", "2024-06-15", raster_bands={"scale": 1e-4, "offset": -0.1}, add=1000, **new)
    assert acquire()[0] == 0
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert record["items"][0]["assets"]["red"] == {
        "address": f"{site.root}/files/S2A_T32/red.tif",
        "offset": -1000,
        "why": "scale 0.0001 and offset -0.1 of the asset",
    }
    assert record["set_to_1"] == 0
    assert record["request"]["sensor"]["collection"] == "sentinel-2-l2a"


def test_an_offset_that_the_numbers_do_not_bear_is_doubted(site, acquire, tmp_path):
    """The item says that it is to be added, and it has been: a known fault of some catalogues."""
    new = {"earthsearch:boa_offset_applied": False}
    add_sentinel(site, "S2A_T32", "2024-06-15", raster_bands={"scale": 1e-4, "offset": -0.2}, **new)
    code, _, err = acquire()
    assert code == 0
    assert "of the values would fall to 0 or below by the offset and were set to 1" in err
    assert read(tmp_path / "out" / "ms.tif").min() == 1  # 0 stands for no data


def test_days_are_listed_the_clearest_first(site, acquire, tmp_path):
    add_sentinel(site, "cloudy", "2024-06-10", cloud=half(slice(0, 46)))
    add_sentinel(site, "clear", "2024-06-20")
    add_sentinel(site, "worse", "2024-07-01", cloud=half(slice(0, 91)))
    code, said, err = acquire("--list", tmp_path / "days.html")
    assert code == 0, err
    rows = [line.split() for line in said.splitlines()]
    assert [row[0] for row in rows[1:4]] == ["2024-06-20", "2024-06-10", "2024-07-01"]
    assert rows[1][1:] == ["1", "100%", "0%", "100%"]
    assert rows[3][1:] == ["1", "100%", "100%", "0%"]
    assert 45 <= int(rows[2][3].rstrip("%")) <= 55
    page = (tmp_path / "days.html").read_text("utf-8")
    assert page.count("<img ") == page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["days.html"]


def test_a_picture_that_cannot_be_read_says_why(site, acquire, tmp_path):
    add_sentinel(site, "S2A_T32", "2024-06-15")
    site.fail("red.tif", 404)
    code, _, _ = acquire("--list", tmp_path / "days.html")
    assert code == 0
    assert "no picture: " in (tmp_path / "days.html").read_text("utf-8")
