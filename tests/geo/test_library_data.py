"""Data of PROJ and GDAL that another installation has named in the environment."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import CRSError

from adcdnet.errors import InputError
from adcdnet.geo import library_data, raster
from adcdnet.geo.grid import Grid
from adcdnet.geo.library_data import ignore_foreign_data, own_folders, proj_layout
from adcdnet.geo.raster import read_band
from adcdnet.geo.raster_writer import write_raster
from conftest import UTM


@pytest.fixture(autouse=True)
def nothing_ignored(monkeypatch):
    monkeypatch.setattr(library_data, "ignored", {})


def proj_folder(folder, major, minor):
    """A proj.db that holds the version of its layout and nothing else, as far as PROJ looks at first."""
    folder.mkdir()
    layout = {"DATABASE.LAYOUT.VERSION.MAJOR": str(major), "DATABASE.LAYOUT.VERSION.MINOR": str(minor)}
    with closing(sqlite3.connect(folder / "proj.db")) as database, database:
        database.execute("CREATE TABLE metadata (key TEXT, value TEXT)")
        database.executemany("INSERT INTO metadata VALUES (?, ?)", layout.items())
    return folder


def needed():
    return max(layout for layout in map(proj_layout, own_folders("proj")) if layout)


@pytest.mark.parametrize("name", ["PROJ_DATA", "PROJ_LIB"])
@pytest.mark.parametrize(
    ("majors", "minors", "kept"), [(0, -1, False), (0, 0, True), (0, 1, True), (-1, 9, False), (1, 0, False)]
)
def test_a_database_is_used_where_proj_could_use_it(tmp_path, caplog, name, majors, minors, kept):
    major, minor = needed()
    folder = proj_folder(tmp_path / "proj", major + majors, minor + minors)
    variables = {name: str(folder), "OTHER": "x"}
    ignore_foreign_data(variables)
    assert (name in variables) is kept
    assert variables["OTHER"] == "x"
    assert len(caplog.messages) == (not kept)
    if not kept:
        assert f"note: {name}={folder} is not used" in caplog.text
        assert library_data.ignored == {name: str(folder)}


def test_the_first_database_of_several_folders_counts(tmp_path):
    (tmp_path / "grids").mkdir()
    folders = [tmp_path / "grids", own_folders("proj")[0], proj_folder(tmp_path / "old", 1, 0)]
    for order, kept in ((folders, True), (folders[::-1], False), (folders[:1], False)):
        variables = {"PROJ_DATA": os.pathsep.join(map(str, order))}
        ignore_foreign_data(variables)
        assert bool(variables) is kept


def test_gdal_data_of_others_are_not_used_and_own_ones_are(tmp_path):
    for folder, kept in ((own_folders("gdal")[0], True), (tmp_path, False)):
        variables = {"GDAL_DATA": str(folder)}
        ignore_foreign_data(variables)
        assert bool(variables) is kept


def run(code, **variables):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=False
    )


def test_an_old_proj_does_no_harm_and_is_said_once(tmp_path):
    old = str(proj_folder(tmp_path / "proj", 1, 0))
    code = "import adcdnet, subprocess, sys; from rasterio.crs import CRS; print(CRS.from_epsg(32633).is_projected)\n"
    code += "subprocess.run([sys.executable, '-c', 'import adcdnet'])"
    done = run(code, PROJ_DATA=old, PROJ_LIB=old)
    assert done.stdout.splitlines() == ["True"]
    assert [line.split("=")[0] for line in done.stderr.splitlines()] == ["note: PROJ_DATA", "note: PROJ_LIB"]


def test_a_proj_that_is_set_later_is_named_before_anything_is_read(tmp_path, write_tif):
    file = write_tif("values.tif", np.ones((3, 4), np.uint8), crs="EPSG:3358")  # no UTM zone, which GDAL knows itself
    old = proj_folder(tmp_path / "proj", 1, 0)
    code = f"import adcdnet, os; os.environ['PROJ_DATA'] = {str(old)!r}\n"
    code += f"from adcdnet.geo.raster import read_band; read_band({str(file)!r})"
    last = run(code).stderr.splitlines()[-1]
    assert "finds no database of coordinate systems, which is needed; unset PROJ_DATA before Python starts" in last


@pytest.fixture
def no_database(monkeypatch):
    def fail(_):
        raise CRSError("no database")

    monkeypatch.setattr(raster, "CRS", SimpleNamespace(from_epsg=fail))


LOCAL = 'LOCAL_CS["what is left",UNIT["metre",1]]'


def test_without_a_database_no_file_is_written_that_lacks_its_system(tmp_path, no_database):
    grid = Grid(3, 4, Affine(2, 0, 0, 0, -2, 0), LOCAL)
    with pytest.raises(InputError, match="finds no database of coordinate systems") as caught:
        write_raster(tmp_path / "map.tif", np.ones((3, 4), np.uint8), grid)
    assert "see `adcdnet doctor`" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_local_systems_stay_usable(tmp_path):
    grid = Grid(3, 4, Affine(2, 0, 0, 0, -2, 0), LOCAL)
    write_raster(tmp_path / "map.tif", np.ones((3, 4), np.uint8), grid)
    assert "what is left" in str(read_band(tmp_path / "map.tif")[1].crs)


def test_a_file_that_lost_its_system_is_refused(tmp_path, monkeypatch):
    """What GDAL writes is held against what it was given."""
    grid = Grid(3, 4, Affine(2, 0, 0, 0, -2, 0), UTM)
    really = rasterio.open
    monkeypatch.setattr(
        rasterio,
        "open",
        lambda *a, **options: really(*a, **(options | {"crs": None} if options.get("driver") else options)),
    )
    with pytest.raises(InputError, match="would be written without its coordinate system"):
        write_raster(tmp_path / "map.tif", np.ones((3, 4), np.uint8), grid)
    assert list(tmp_path.iterdir()) == []
