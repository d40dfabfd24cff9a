"""What nets and servers do to a run: it tries again, goes on later, or says what is wrong; nothing leaks."""

import logging
import time

import numpy as np
import pytest
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile
from stac_scenes import HERE, Ground, add_sentinel, add_worldcover, caller, read
from stac_site import CONFORMS, serving

from adcdnet.acquire import pair, search
from adcdnet.files import HeldFolder


@pytest.fixture
def site(monkeypatch):
    yield from serving(monkeypatch)


@pytest.fixture
def acquire(call, site, tmp_path):
    run = caller(call, site, tmp_path)
    return lambda *options: run(*options, *([] if "--bbox" in options else ["--bbox", LARGE.bbox(5)]))


LARGE = Ground(size=(150, 170))  # what is read at once when a file is opened holds the header, and not all pixels


def add(site):
    add_sentinel(site, "S2A_T32", "2024-06-15", LARGE, compress="none")


def is_right(tmp_path):
    return np.array_equal(read(tmp_path / "out" / "ms.tif")[4], 5015 + 300 * LARGE.truth()[5:-5, 5:-5])


@pytest.mark.parametrize("kind", [429, 500, 503, "cut"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_file_is_read_again_where_the_server_fails_for_a_while(site, acquire, tmp_path, kind, times):
    add(site)
    site.fail("swir16.tif", kind, times=times, method="GET")
    code, _, err = acquire()
    assert code == 0, err
    assert is_right(tmp_path)


def test_a_server_that_stalls_is_not_waited_for(site, acquire, tmp_path):
    add(site)
    site.fail("swir16.tif", "stall", times=1, method="GET", wait=6.0)
    start = time.monotonic()
    code, _, err = acquire()
    assert code == 0, err
    assert is_right(tmp_path)
    assert time.monotonic() - start < 6


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (403, "the server refuses (403); it needs an account, or forbids this file"),
        (404, "there is no such file (404)"),
        (429, "the server asks for fewer requests (429) after 3 tries"),
        (500, "the server fails (500) after 3 tries"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_and_leaves_nothing(site, acquire, tmp_path, kind, why):
    add(site)
    site.fail("swir16.tif", kind)
    code, said, err = acquire()
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert f"/files/S2A_T32/swir16.tif cannot be read: {why}" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_half_a_header_is_not_believed(site, acquire, tmp_path, times):
    """GDAL takes one, and leaves out the coordinate system."""
    add_sentinel(site, "S2A_T32", "2024-06-15")
    site.fail("swir16.tif", "cut", times=times, method="GET")
    code, _, err = acquire("--bbox", HERE.bbox(5))
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "ms.tif")[4], 5015 + 300 * HERE.truth()[5:-5, 5:-5])


def test_what_is_gone_is_asked_for_once(site, acquire):
    add(site)
    site.fail("swir16.tif", 404)
    acquire()
    assert site.asked("swir16.tif") <= 2


def test_a_file_cut_short_is_named(site, acquire, tmp_path):
    add(site)
    whole = site.files["/files/S2A_T32/nir.tif"]
    site.files["/files/S2A_T32/nir.tif"] = whole[: len(whole) * 2 // 3]
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert "/files/S2A_T32/nir.tif cannot be read" in err
    assert "it is damaged, or the net fails" in err
    assert not (tmp_path / "out").exists()


def test_the_same_command_goes_on_from_the_tiles_that_were_read(site, acquire, tmp_path, monkeypatch):
    monkeypatch.setattr(pair, "TILE", 60)  # 140 × 160 pixels are 3 × 3 tiles
    add(site)
    read_tile = pair.read_tile
    count = 0

    def failing(plan, window, pool):
        nonlocal count
        count += 1
        if count == 5:
            site.fail("swir22.tif", 500)
            for raster in plan.parts[0].opened.ms:  # as when a connection ends
                raster.close()
        return read_tile(plan, window, pool)

    monkeypatch.setattr("adcdnet.acquire.store.read_tile", failing)
    code, _, err = acquire()
    assert code == 1
    assert "4 of 9 tiles are kept, and the same command goes on from there" in err
    assert not (tmp_path / "out").exists()
    site.faults.clear()
    count = 100
    assert acquire()[0] == 0
    assert count == 105  # the five that were missing
    assert is_right(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing hidden is left


def test_tiles_of_another_request_are_not_used(site, acquire, tmp_path, monkeypatch):
    add(site)
    site.fail("map.tif", 500)
    add_worldcover(site, LARGE)
    assert acquire("--labels", "worldcover")[0] == 1
    code, _, err = acquire("--bbox", LARGE.bbox(7))
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "ms.tif")[4], 5015 + 300 * LARGE.truth()[7:-7, 7:-7])


def test_a_folder_that_another_process_writes_is_left_alone(site, acquire, tmp_path):
    add(site)
    (tmp_path / ".out.acquire").mkdir()
    held = HeldFolder.hold(tmp_path / ".out.acquire")
    code, _, err = acquire()
    held.release()
    assert (code, err.count("\n")) == (1, 1)
    assert "another process is writing" in err


@pytest.mark.parametrize("kind", [429, 500, 503, "stall"])
def test_an_api_that_fails_for_a_while_is_asked_again(site, acquire, monkeypatch, kind):
    monkeypatch.setattr(search, "_TIMEOUT", (1.0, 0.5))
    add(site)
    site.fail("/stac/search", kind, times=2)
    code, _, err = acquire()
    assert code == 0, err


def test_an_api_is_given_the_time_that_it_asks_for(site, acquire):
    add(site)
    site.retry_after = "1"
    site.fail("/stac/search", 429, times=1)
    start = time.monotonic()
    assert acquire()[0] == 0
    assert time.monotonic() - start > 1


@pytest.mark.parametrize("kind", [401, 403, 404, 429, 500, "cut", "stall"])
@pytest.mark.parametrize("where", ["/stac", "/stac/search"])
def test_an_api_that_fails_is_one_line(site, acquire, monkeypatch, where, kind):
    monkeypatch.setattr(search, "_TIMEOUT", (1.0, 0.1))
    add(site)
    site.fail(where, kind, wait=0.4)
    code, said, err = acquire()
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert f"{site.api} cannot be used" in err


def test_an_address_where_nothing_answers_is_one_line(site, acquire):
    code, _, err = acquire("--api", "http://127.0.0.1:9/stac")
    assert (code, err.count("\n")) == (1, 1)
    assert "http://127.0.0.1:9/stac cannot be used" in err


def test_a_catalogue_that_cannot_be_searched_is_one_line(site, acquire, monkeypatch):
    add(site)
    monkeypatch.setattr("stac_site.CONFORMS", [name for name in CONFORMS if not name.endswith("item-search")])
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert f"{site.api} cannot be used" in err


def test_a_page_that_is_no_catalogue_is_one_line(site, acquire):
    site.files["/files/x"] = b"<html>"
    code, _, err = acquire("--api", f"{site.root}/files/x")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot be used" in err


# Tokens --------------------------------------------------------------------------------------------------------------


def write_signed(site, tmp_path):
    names = 'ms = ["rededge1", "rededge2", "rededge3", "nir08", "swir16"]\npan = ["blue"]\nmask = "scl"'
    path = tmp_path / "signed.toml"
    path.write_text(
        f'name = "s2"\ncollection = "sentinel-2-l2a"\nmetres = [20, 10]\n{names}\n[api]\naddress = "{site.api}"\n'
        f'token = "{site.root}/token/{{collection}}"\ntoken_hosts = ["127.0.0.1"]\n'
    )
    return path


def all_text(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def sensor(site, tmp_path):
    """A file for --sensor, of an API whose files need tokens; one item is there."""
    site.tokens = set()
    add(site)
    return write_signed(site, tmp_path)


def test_files_that_need_a_token_are_read_with_one(site, acquire, tmp_path, sensor):
    code, _, err = acquire("--sensor", sensor)
    assert code == 0, err
    assert is_right(tmp_path)
    assert site.asked("/token/sentinel-2-l2a") == 1


def test_a_token_that_ends_in_mid_read_is_renewed(site, acquire, tmp_path, sensor, monkeypatch):
    read_tile = pair.read_tile

    def later(plan, window, pool):
        site.tokens.clear()  # those that were given end now
        return read_tile(plan, window, pool)

    monkeypatch.setattr("adcdnet.acquire.store.read_tile", later)
    code, _, err = acquire("--sensor", sensor)
    assert code == 0, err
    assert is_right(tmp_path)
    assert site.asked("/token/") == 2  # once anew, for all files


def test_a_token_is_renewed_before_it_ends(site, acquire, tmp_path, sensor, monkeypatch):
    now = time.time()
    monkeypatch.setattr(search.time, "time", lambda: now)
    site.token_life = 3600
    catalogue = search.Catalogue(
        search.Api(address=site.api, token=f"{site.root}/token/{{collection}}", token_hosts=("h",))
    )
    first = catalogue.signed("http://h/x.tif", "c")
    assert catalogue.signed("http://h/x.tif", "c") == first
    now += 3600 - 299
    assert catalogue.signed("http://h/x.tif", "c") != first
    assert catalogue.signed("http://elsewhere/x.tif", "c") == "http://elsewhere/x.tif"  # no token for another host


def test_no_token_is_said_logged_or_kept(site, acquire, tmp_path, sensor, caplog):
    caplog.set_level(logging.WARNING)
    site.fail("nir08.tif", 500, times=2)
    code, said, err = acquire("--sensor", sensor)
    assert code == 0, err
    text = said + err + caplog.text
    site.fail("nir08.tif", 500)
    code, said, err = acquire("--sensor", sensor, "--out", tmp_path / "second")
    assert code == 1
    text += said + err + caplog.text
    assert site.asked("sig=SECRET") > 10  # there were some to leak
    assert "SECRET" not in text
    assert b"SECRET" not in all_text(tmp_path)


def test_files_are_refused_with_any_token(site, acquire, sensor):
    site.fail("/files/", 403)
    code, _, err = acquire("--sensor", sensor)
    assert (code, err.count("\n")) == (1, 1)
    assert "the server refuses (403)" in err


@pytest.mark.parametrize("kind", [403, 429, 500, "stall"])
def test_a_token_server_that_fails_is_one_line(site, acquire, sensor, monkeypatch, kind):
    monkeypatch.setattr(search, "_TIMEOUT", (1.0, 0.1))
    site.fail("/token/", kind, wait=0.4)
    code, _, err = acquire("--sensor", sensor)
    assert (code, err.count("\n")) == (1, 1)
    assert "tokens of " in err


def test_a_file_that_does_not_say_where_it_lies_is_named_without_its_token(site, acquire, tmp_path, sensor):
    """The words of the reader of rasters hold the address as it was opened."""
    points = [
        GroundControlPoint(r, c, 610_000 + 20 * c, 5_740_000 - 20 * r) for r, c in ((0, 0), (0, 50), (50, 0), (50, 50))
    ]
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=75, width=91, count=1, dtype="uint16", gcps=points, crs=LARGE.crs
        ) as dataset:
            dataset.write(np.ones((1, 75, 91), np.uint16))
        site.files["/files/S2A_T32/nir08.tif"] = memory.read()
    code, said, err = acquire("--sensor", sensor)
    assert (code, err.count("\n")) == (1, 1)
    assert "nir08.tif does not say by a transform where it lies" in err
    assert "SECRET" not in said + err


def test_a_bucket_that_its_reader_pays_for(site, acquire, tmp_path, monkeypatch):
    """The server stands for S3: it is asked with a signature and with the word that the reader pays."""
    add(site)
    for item in site.collections["sentinel-2-l2a"]:
        for asset in item["assets"].values():
            name = asset["href"].partition("/files/")[2]
            asset["alternate"] = {"s3": {"href": f"s3://bucket/{name}"}}
            asset["href"] = "https://login.invalid/" + name
            site.files[f"/files/bucket/{name}"] = site.files[f"/files/{name}"]
    (tmp_path / "paid.toml").write_text(
        write_signed(site, tmp_path).read_text().partition("[api]")[0]
        + f'[api]\naddress = "{site.api}"\nalternate = "s3"\nneeds = ["AWS_ACCESS_KEY_ID"]\naccount = "set a key"\n'
        'options = { AWS_REQUEST_PAYER = "requester", AWS_REGION = "us-west-2" }\n'
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    code, _, err = acquire("--sensor", tmp_path / "paid.toml")
    assert (code, err.count("\n")) == (1, 1)
    assert "no account is set for the files of" in err
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "SECRETKEY",
        "AWS_S3_ENDPOINT": f"127.0.0.1:{site.port}/files",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }.items():
        monkeypatch.setenv(name, value)
    code, _, err = acquire("--sensor", tmp_path / "paid.toml")
    assert code == 0, err
    assert is_right(tmp_path)
    paid = [headers for line, headers in zip(site.requests, site.headers, strict=True) if "/files/bucket/" in line]
    assert paid
    assert all(headers.get("x-amz-request-payer") == "requester" for headers in paid)
    assert all("AKID" in headers.get("Authorization", "") for headers in paid)
    assert b"SECRETKEY" not in all_text(tmp_path)
