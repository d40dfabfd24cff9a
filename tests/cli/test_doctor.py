"""`adcdnet doctor`: what it says, what it never says, and what it finds where something is broken."""

import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
from contextlib import closing
from importlib.metadata import version
from types import SimpleNamespace

import psutil
import pyogrio
import pytest
import torch

from adcdnet.assess import doctor, machine
from adcdnet.cli.doctor import devices, lines
from adcdnet.cli.predict import _bytes
from conftest import ROOT

HEADINGS = (
    "versions",
    "platform",
    "devices",
    "GDAL drivers, images",
    "GDAL drivers, polygons",
    "PROJ",
    "memory",
    "threads",
    "disk",
    "environment",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(autouse=True)
def no_other_proj(monkeypatch):
    for name in ("PROJ_DATA", "PROJ_LIB", "GDAL_SKIP", "OGR_SKIP"):
        monkeypatch.delenv(name, raising=False)


def proj_database(folder, **metadata):
    """A proj.db that holds a table of metadata and nothing else."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "proj.db")) as database, database:
        database.execute("CREATE TABLE metadata (key TEXT, value TEXT)")
        database.executemany("INSERT INTO metadata VALUES (?, ?)", metadata.items())
    return folder


def test_the_text_has_every_heading_and_a_verdict(call, tmp_path):
    code, out, _ = call("doctor", "--json", tmp_path / "doctor.json")
    assert code == 0
    assert tuple(re.findall(r"^(\S.*):$", out, re.MULTILINE)) == HEADINGS
    assert re.search(rf"^    torch +{re.escape(version('torch'))}$", out, re.MULTILINE)
    assert re.search(r"^    EPSG:4326 to EPSG:32633, rasterio  right$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "verdict: works"
    found = json.loads((tmp_path / "doctor.json").read_text("utf-8"))
    assert tuple(found)[: len(HEADINGS)] == HEADINGS
    assert found["broken"] is False
    assert found["memory"]["total"] == psutil.virtual_memory().total  # a number, not its text


@pytest.mark.parametrize("variable", ["PROJ_DATA", "PROJ_LIB"])
def test_data_of_another_proj_is_named_and_not_used(tmp_path, variable):
    old = proj_database(tmp_path / "proj", **{"DATABASE.LAYOUT.VERSION.MAJOR": "1", "PROJ.VERSION": "6.3.1"})
    done = subprocess.run(
        [sys.executable, "-m", "adcdnet.cli", "doctor"],
        env={**os.environ, variable: str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"warning: {variable} points to another installation and is not used; unset it" in done.stdout.splitlines()
    assert "proj.db of PROJ 6.3.1, layout 1.?" in done.stdout
    assert done.stdout.splitlines()[-1] == "verdict: works"


def test_proj_of_another_program_is_named(tmp_path):
    data = proj_database(tmp_path / "conda" / "share" / "proj", **{"PROJ.VERSION": "9.0.0"})
    (tmp_path / "conda" / "bin").mkdir()
    path = os.pathsep.join([str(tmp_path / "conda" / "bin"), str(tmp_path / "empty")])
    assert dict(doctor._databases({"PATH": path})) == {f"on the PATH: {data}": "proj.db of PROJ 9.0.0, layout ?.?"}
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "proj.db").write_text("no database, but a long enough text to be one")
    assert "broken (file is not a database)" in doctor._database(tmp_path / "broken")
    assert doctor._database(tmp_path) == "no proj.db there"


def test_a_variable_that_does_no_harm_is_a_warning():
    wrong = []
    doctor._projections({"PROJ_LIB": "elsewhere"}, wrong)
    assert [(finding.broken, "PROJ_LIB" in finding.what) for finding in wrong] == [(False, True)]


def test_the_true_place_is_that_of_the_formula():
    """Krüger's series for the transverse Mercator projection, WGS 84, central meridian 15 degrees east."""
    lon, lat = (math.radians(v) for v in doctor.POINT)
    f = 1 / 298.257223563
    n = f / (2 - f)
    radius = 6_378_137 / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    alpha = (
        n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16,
        13 * n**2 / 48 - 3 * n**3 / 5,
        61 * n**3 / 240,
    )
    e = 2 * math.sqrt(n) / (1 + n)
    t = math.sinh(math.atanh(math.sin(lat)) - e * math.atanh(e * math.sin(lat)))
    east = lon - math.radians(15)
    xi, eta = math.atan2(t, math.cos(east)), math.atanh(math.sin(east) / math.hypot(1, t))
    x = eta + sum(a * math.cos(2 * j * xi) * math.sinh(2 * j * eta) for j, a in enumerate(alpha, 1))
    y = xi + sum(a * math.sin(2 * j * xi) * math.cosh(2 * j * eta) for j, a in enumerate(alpha, 1))
    assert (500_000 + 0.9996 * radius * x, 0.9996 * radius * y) == pytest.approx(doctor.PLACE, rel=0, abs=0.01)


SECRETS = [
    ("GDAL_HTTP_USERPWD", "jane:hunter2"),
    ("GDAL_HTTP_HEADERS", "X-Api: hunter2"),
    ("CPL_VSIL_CURL_SIGNED_URL", "hunter2"),
    ("GDAL_HTTP_PROXY", "http://jane:hunter2@proxy:8080"),
    ("GDAL_DATA", "https://store/gdal?code=hunter2"),
    ("PROJ_NETWORK_ENDPOINT", "https://cdn/4f9d0a77hunter2c1b2e3d"),
    ("VSI_HEADER", "Bearer hunter2"),
    ("OGR_SOMETHING", "bearer hunter2"),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_what_looks_like_a_secret_is_not_shown(name, value):
    assert machine.environment({name: value}) == {name: machine.HIDDEN}


def test_values_that_explain_a_fault_are_shown():
    shown = {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "GDAL_CACHEMAX": "512",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "OMP_NUM_THREADS": "4",
        "PROJ_LIB": r"C:\Program Files\PostgreSQL\16\share\contrib\postgis-3.4\proj",
    }
    assert machine.environment({**shown, "AWS_REGION": "x", "HOME": "y"}) == shown


def test_neither_text_nor_json_holds_a_secret_or_the_home_folder(call, monkeypatch, tmp_path):
    for name, value in SECRETS:
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("GDAL_DRIVER_PATH", str(tmp_path / "drivers"))
    monkeypatch.chdir(tmp_path)
    _, out, err = call("doctor", "--json", "doctor.json")
    written = (tmp_path / "doctor.json").read_text("utf-8")
    for text in (out, err, written):
        assert "hunter2" not in text
        assert str(tmp_path) not in text
    assert json.loads(written)["environment"]["GDAL_DRIVER_PATH"] == f"~{os.sep}drivers"


def test_a_folder_beside_home_is_not_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jo")
    monkeypatch.setenv("USERPROFILE", "/home/jo")
    assert machine.without_home("/home/jo/a:/home/john:/home/jo") == "~/a:/home/john:~"


def cgroup(root, membership, **limits):
    """A file system with the control groups of a process; limits by path below sys/fs/cgroup, with + for /."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(membership)
    for path, value in limits.items():
        file = root.joinpath("sys", "fs", "cgroup", *path.split("+"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return root


def test_memory_limits_of_control_groups(tmp_path):
    v2 = {"a+b+memory.max": "max", "a+memory.max": 3000, "memory.max": 5000}
    assert machine.control_group_limit(cgroup(tmp_path / "2", "0::/a/b\n", **v2)) == 3000
    v1 = {"memory+a+memory.limit_in_bytes": 2**63 - 4096, "memory+memory.limit_in_bytes": 700}
    lines_of_v1 = "4:cpu,cpuacct:/x\n3:memory:/a\n0::/\n"
    assert machine.control_group_limit(cgroup(tmp_path / "1", lines_of_v1, **v1)) == 700
    inside = cgroup(tmp_path / "container", "0::/not/seen/from/here\n", **{"memory.max": 900})
    assert machine.control_group_limit(inside) == 900
    assert machine.control_group_limit(cgroup(tmp_path / "none", "0::/\n", **{"memory.max": "max"})) is None
    only = cgroup(tmp_path / "largest", "3:memory:/\n", **{"memory+memory.limit_in_bytes": 2**63 - 4096})
    assert machine.control_group_limit(only) is None
    assert machine.control_group_limit(tmp_path / "no files at all") is None


def test_little_memory_is_a_warning(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * 2**30, available=2**30))
    health = doctor.examine({})
    assert [finding.what for finding in health.findings] == ["1.0 GB of memory are free"]
    assert not health.broken
    assert "    total                       8.0 GB" in lines(health)


def test_a_library_that_cannot_be_loaded_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    health = doctor.examine(*devices())
    assert health.broken
    text = "\n".join(lines(health))
    assert re.search("^PROBLEM: torch cannot be loaded: .+; python -m pip install .+ torch$", text, re.MULTILINE)
    assert re.search("^PROBLEM: pyogrio cannot be loaded: .+; python -m pip install .+ pyogrio$", text, re.MULTILINE)
    assert "verdict: broken" in text


def test_a_gpu_is_described_and_one_that_cannot_compute_is_a_finding(monkeypatch):
    card = SimpleNamespace(name="Card 7", total_memory=3 * 2**30, major=9, minor=1)
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: card)

    def first_works(n, device):
        if device == "cuda:1":
            raise RuntimeError("no kernel image is available\nCompile with DSA")
        return ones(n)

    monkeypatch.setattr(torch, "ones", first_works)
    facts, findings = devices()
    assert facts["CUDA"] == "2 GPU"
    assert facts["cuda:0"] == "Card 7, 3.0 GB, compute capability 9.1"
    (finding,) = findings
    assert finding.what == "PyTorch cannot compute on cuda:1: no kernel image is available"
    assert "--device cpu" in finding.mend


def test_a_missing_driver_is_a_finding_where_it_is_needed(monkeypatch):
    monkeypatch.setattr(pyogrio, "list_drivers", lambda: {"GeoJSON": "rw"})
    health = doctor.examine({})
    assert health.sections["GDAL drivers, polygons"]["FlatGeobuf"] == "missing"
    assert [finding.what for finding in health.findings] == ["GDAL of pyogrio has no driver GPKG"]


def test_a_folder_for_temporary_files_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert [finding.what.split(":")[0] for finding in doctor.examine({}).findings] == [
        "temporary files cannot be written"
    ]


def test_the_wrong_python_is_a_finding(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    assert next(doctor._about_python()).broken
    monkeypatch.setattr(sys, "version_info", (3, 13, 9))
    assert list(doctor._about_python()) == []


def test_versions_named_are_those_of_the_project():
    needed = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    assert needed <= set(doctor.PACKAGES)
    first, last = doctor.PYTHONS
    assert PROJECT["requires-python"] == f">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"


def test_what_may_be_taken_without_asking_is_half_of_what_is_free_or_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    assert machine.usable_memory(cgroup(tmp_path / "free", "0::/\n", **{"memory.max": "max"})) == 5000
    assert machine.usable_memory(cgroup(tmp_path / "less", "0::/\n", **{"memory.max": 3000})) == 1500
    assert machine.usable_memory(cgroup(tmp_path / "more", "0::/\n", **{"memory.max": 30_000})) == 5000
    monkeypatch.setattr(machine, "control_group_limit", lambda root: 4 * 2**30)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 2**30))
    assert _bytes("auto") == 2 * 2**30
