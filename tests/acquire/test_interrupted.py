"""Runs that are killed, and files that change under them: the next run gives what an undisturbed one would have."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from affine import Affine
from stac_scenes import Ground, add_sentinel, add_worldcover, caller, read
from stac_site import serving

from adcdnet.acquire import pair

WIDE = Ground(size=(150, 170))  # of tiles of 60 pixels 3 × 3
KILLED = """
import os, signal, sys
from adcdnet.acquire import pair, run, store
from adcdnet.cli import main

pair.TILE = 60
module, name, at = {"read": (store, "read_tile", 5), "write": (run, "write_scenes", 1)}[sys.argv.pop(1)]
real, calls = getattr(module, name), 0

def killed(*args, **how):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **how)

setattr(module, name, killed)
main()
"""


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(pair, "TILE", 60)
    yield from serving(monkeypatch)


@pytest.fixture
def acquire(call, site, tmp_path):
    run = caller(call, site, tmp_path)
    return lambda *options: run("--bbox", WIDE.bbox(5), *options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("stage", ["read", "write"])
def test_a_run_that_was_killed_goes_on(site, acquire, tmp_path, stage):
    add_sentinel(site, "S2A_T32", "2024-06-15", WIDE)
    add_worldcover(site, WIDE)
    options = ("--labels", "worldcover", "--per-class", "50")
    place = ("--api", site.api, "--bbox", WIDE.bbox(5), "--dates", "2024-05-01/2024-09-30", "--out", tmp_path / "out")
    command = [sys.executable, "-c", KILLED, stage, "acquire", *place, *options]
    ended = subprocess.run(list(map(str, command)), env=os.environ, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "out").exists()
    before = site.asked("GET /files/S2A_T32/swir22.tif")
    code, _, err = acquire(*options)
    assert code == 0, err
    again = site.asked("GET /files/S2A_T32/swir22.tif") - before
    assert acquire(*options, "--out", tmp_path / "undisturbed")[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert again < site.asked("GET /files/S2A_T32/swir22.tif") - before - again
    assert {path.name for path in tmp_path.iterdir()} == {"out", "undisturbed"}


def interrupting(monkeypatch, what):
    """Before the fifth tile, `what` happens and connections end."""
    real, calls = pair.read_tile, 0

    def read_tile(plan, window, pool):
        nonlocal calls
        calls += 1
        if calls == 5:
            what()
            for raster in plan.parts[0].opened.ms:
                raster.close()
        return real(plan, window, pool)

    monkeypatch.setattr("adcdnet.acquire.store.read_tile", read_tile)


def test_a_file_that_is_changed_while_it_is_read_is_named(site, acquire, tmp_path, monkeypatch):
    add_sentinel(site, "S2A_T32", "2024-06-15", WIDE)
    moved = WIDE.transform @ Affine.translation(3, 0)
    other = np.full(WIDE.size, 7, np.uint16)
    interrupting(monkeypatch, lambda: site.put("S2A_T32/nir08.tif", other, moved, WIDE.crs, nodata=0))
    code, _, err = acquire()
    assert (code, err.count("\n")) == (1, 1)
    assert "/files/S2A_T32/nir08.tif was changed while it was read; run the same command again" in err
    assert not (tmp_path / "out").exists()


def test_tiles_of_an_item_that_was_made_anew_are_not_used(site, acquire, tmp_path, monkeypatch):
    add_sentinel(site, "S2A_T32", "2024-06-15", WIDE, updated="2024-06-16T00:00:00Z")
    interrupting(monkeypatch, lambda: site.fail("swir22.tif", 500))
    assert acquire()[0] == 1
    site.faults.clear()
    site.collections.clear()
    add_sentinel(site, "S2A_T32", "2024-06-15", WIDE, add=7, updated="2024-07-01T00:00:00Z")
    code, _, err = acquire()
    assert code == 0, err
    assert np.array_equal(read(tmp_path / "out" / "ms.tif")[4], 5022 + 300 * WIDE.truth()[5:-5, 5:-5])


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_files_are_read_at_once_than_jobs_allow(site, acquire, jobs):
    add_sentinel(site, "S2A_T32", "2024-06-15", WIDE)
    add_sentinel(site, "S2B_T32", "2024-06-20", WIDE)
    site.delay = 0.05
    assert acquire("--jobs", jobs)[0] == 0
    assert site.most == jobs


def test_each_stage_says_how_far_it_is(site, acquire):
    add_sentinel(site, "S2A_T32", "2024-06-15", WIDE)
    add_worldcover(site, WIDE)
    code, _, err = acquire("--labels", "worldcover", "--progress", "json")
    assert code == 0, err
    steps = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    seen = {stage: [one["step"] for one in steps if one["stage"] == stage] for stage in ("search", "read", "labels")}
    assert seen == {"search": [0, 1], "read": list(range(10)), "labels": [0, 1]}
