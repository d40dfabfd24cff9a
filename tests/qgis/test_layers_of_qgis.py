"""What adcdnet is called with for layers as they are in QGIS: the words, the files that are written, the variables."""

import json
import subprocess
import sys
from itertools import pairwise

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from in_qgis import HERE, PYTHON, drive, require_qgis, variables, write_program
from test_plugin_files import tools

from adcdnet.geo.classes import ClassTable
from adcdnet.geo.qgis_style import write_choices
from adcdnet.geo.shapes import write_layers
from conftest import CORNER, PIXEL, write_tif_file

pytestmark = pytest.mark.qgis
FOREIGN = {  # what QGIS sets for itself on one system or another
    "PYTHONHOME": "/foreign/python",
    "PYTHONPATH": "/foreign/site-packages",
    "GDAL_DRIVER_PATH": "/foreign/gdal",
    "GDAL_DATA": "/foreign/gdal",
    "PROJ_LIB": "/foreign/proj",
    "PROJ_DATA": "/foreign/proj",
    "LD_LIBRARY_PATH": "/foreign/lib",
    "QT_PLUGIN_PATH": "/foreign/qt",
    "QT_QPA_PLATFORM_PLUGIN_PATH": "/foreign/qt",
}


def square(row, col, side=3):
    x, y = CORNER[0] + col * PIXEL, CORNER[1] - row * PIXEL
    return shapely.box(x, y - side * PIXEL, x + side * PIXEL, y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files with blanks and other letters in their names, in a folder with the same."""
    folder = tmp_path_factory.mktemp("layers") / "Grüße, 数据"
    folder.mkdir()
    rng = np.random.default_rng(3)
    ms = rng.integers(1, 999, (4, 13, 11)).astype(np.uint16)
    write_tif_file(folder / "ms bänd.tif", ms)
    write_tif_file(folder / "pan.tif", rng.integers(1, 999, (26, 22)).astype(np.uint16), pixel=PIXEL / 2)
    write_tif_file(folder / "labels.tif", np.full((13, 11), 2, np.uint8))
    write_tif_file(folder / "lat lon.tif", ms, crs="EPSG:4326", corner=(15, 45), pixel=1e-4)
    with rasterio.open(folder / "raster.gpkg", "w", driver="GPKG", width=11, height=13, count=1, dtype="uint8",
                       transform=rasterio.open(folder / "labels.tif").transform, crs="EPSG:32633",
                       RASTER_TABLE="first") as dataset:  # fmt: skip
        dataset.write(np.ones((1, 13, 11), np.uint8))
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{k}"><SimpleSource><SourceFilename relativeToVRT="1">{name}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for k, (name, band) in enumerate((("ms bänd.tif", 2), ("labels.tif", 1)), 1)
    )
    place = f"<GeoTransform>{CORNER[0]}, {PIXEL}, 0, {CORNER[1]}, 0, -{PIXEL}</GeoTransform><SRS>EPSG:32633</SRS>"
    (folder / "of two files.vrt").write_text(
        f'<VRTDataset rasterXSize="11" rasterYSize="13">{place}{bands}</VRTDataset>'
    )
    kinds = {"kind": ["meadow", "rock", "water"], "id": [1, 2, 3]}
    fields = geopandas.GeoDataFrame(kinds, geometry=[square(0, 0), square(4, 0), square(8, 5)], crs="EPSG:32633")
    fields.to_file(folder / "fields.gpkg", layer="fields")
    fields[:1].to_file(folder / "two.gpkg", layer="first")
    fields[1:].to_file(folder / "two.gpkg", layer="second")
    points = geopandas.GeoDataFrame({"class": ["rock", None]}, geometry=fields.centroid[:2], crs="EPSG:32633")
    points.to_file(folder / "points.gpkg", layer="points")
    design = geopandas.GeoDataFrame({"stratum": [1]}, geometry=[None]).drop(columns="geometry")
    pyogrio.write_dataframe(design, folder / "points.gpkg", layer="sample_design", append=True)
    (folder / "c.toml").write_text("")
    (folder / "foreign.json").write_text(json.dumps(FOREIGN))
    write_program(folder / "adcdnet", sys.executable, HERE / "fake_adcdnet.py", folder / "calls.jsonl")
    return folder


@pytest.fixture(scope="module")
def said(folder, tmp_path_factory):
    """Of each case the words of the call, or the error."""
    return drive("drive_layers.py", tmp_path_factory.mktemp("home"), folder)


@pytest.fixture
def pair(folder):
    return ["--ms", f"{folder}/ms bänd.tif", "--pan", f"{folder}/pan.tif"]


def option(words, name):
    return [value for key, value in pairwise(words) if key == name]


def copied(folder, said, case, name):
    """What was written of a layer, and that it is what the call names."""
    path = folder / f"{name}-labels.gpkg"
    assert option(said[case], "--labels") == [str(path)]
    return geopandas.read_file(path)


def test_a_file_that_is_taken_whole_is_named_as_it_is(said, folder, pair):
    words = ["check", *pair, "--labels", f"{folder}/fields.gpkg", "--column", "kind", "--progress", "json"]
    assert said["plain"] == words
    assert said["by_path"] == words


def test_one_of_several_layers_of_a_file_is_named(said, folder):
    assert option(said["of_two"], "--labels") == [f"{folder}/two.gpkg"]
    assert option(said["of_two"], "--layer") == ["second"]


def test_beside_other_labels_it_is_copied_for_there_is_one_name_of_a_layer(said, folder):
    first, *more = option(said["of_two_and_more"], "--labels")
    assert more == [f"{folder}/fields.gpkg", f"{folder}/labels.tif"]
    assert first != f"{folder}/two.gpkg"
    assert "--layer" not in said["of_two_and_more"]


def test_only_selected_features_go_where_only_they_are_wanted(said, folder):
    assert list(copied(folder, said, "selected", "run one")["kind"]) == ["rock"]
    assert option(said["whole_though_selected"], "--labels") == [f"{folder}/fields.gpkg"]


def test_a_filter_of_the_layer_counts(said, folder):
    assert list(copied(folder, said, "subset", "run two")["kind"]) == ["rock"]


def test_a_scratch_layer_is_written_in_its_own_coordinate_system(said, folder):
    written = copied(folder, said, "scratch", "run three")
    assert list(written["kind"]) == ["meadow"]
    assert written.crs == "EPSG:4326"


def test_a_coordinate_system_that_was_set_in_qgis_counts(said, folder):
    assert copied(folder, said, "moved", "run six").crs == "EPSG:32634"


def test_edits_that_are_not_saved_count_as_they_are_seen(said, folder):
    assert list(copied(folder, said, "edited", "run four")["kind"]) == ["water", "rock", "water"]


def test_fields_that_only_qgis_has_are_written(said, folder):
    assert copied(folder, said, "virtual", "run five")["virtual"][0] == "all of meadow"


def test_bands_are_a_choice_in_its_order(said):
    assert option(said["bands"], "--ms-bands") == ["3,1"]


def test_rasters_of_several_files_and_in_a_database(said, folder):
    assert option(said["vrt"], "--ms") == [f"{folder}/of two files.vrt"]
    assert option(said["table"], "--ms") == [f"GPKG:{folder}/raster.gpkg:first"]


def test_options_at_their_defaults_are_left_out(said, folder, pair):
    words = ["train", *pair, "--labels", f"{folder}/fields.gpkg", "--out", f"{folder}/r", "--progress", "json"]
    assert said["defaults"] == words
    assert said["demo"] == ["demo", "--out", f"{folder}/demo", "--size", "120", "--progress", "json"]


@pytest.mark.parametrize("tool", tools.TOOLS, ids=lambda tool: tool.name)
def test_parameters_begin_with_the_defaults_of_the_command_line(said, tool):
    shown = said["defaults_shown"][tool.name]
    for name, option in tool.options().items():
        if name != "out":
            assert shown[name.upper().replace("_PATH", "")] == option.get(
                "default", False if option["kind"] == "flag" else None
            )


def test_options_of_all_kinds(said, folder):
    words = said["all_kinds"]
    assert {"--no-stage1", "--quick"} <= set(words)
    given = {name: option(words, f"--{name}") for name in ("profile", "seed", "min-share", "members", "config")}
    assert given == {
        "profile": ["plain"],
        "seed": ["0"],
        "min-share": ["0.25"],
        "members": ["adcdnet,boosting"],
        "config": [f"{folder}/c.toml"],
    }


def test_an_extent_cuts_ms_in_whole_pixels_of_its_own(said, folder):
    assert option(said["extent"], "--ms") == [f"{folder}/m-ms.tif"]
    assert said["extent"][1] == str(folder)
    x, y = CORNER
    assert said["cut"] == [x, x + 4 * PIXEL, y - 5 * PIXEL, y, 4]  # 10 to 40 m east, 10 to 50 m south, pixels of 12 m
    assert said["elsewhere"] == f"the extent does not meet {folder}/ms bänd.tif; choose one that does"


def test_a_sample_is_taken_as_it_is_or_not_at_all(said, folder):
    assert option(said["sample"], "--labels") == [f"{folder}/points.gpkg"]
    assert "--layer" not in said["sample"]
    assert option(said["report"], "--sample") == [f"{folder}/points.gpkg"]
    for case in ("sample_edited", "report_edited"):
        assert said[case].startswith("points.gpkg is a sample; save its edits, and take it whole")


def test_nothing_that_qgis_set_for_itself_reaches_the_process(said):
    assert not set(FOREIGN) & set(said["variables"]) - {"PYTHONPATH"}
    assert "/foreign" not in json.dumps(said["variables"])
    assert said["variables"]["PYTHONUTF8"] == "1"


def test_the_program_of_the_setting_else_of_the_path(said, folder):
    assert "gone, the program of the settings, cannot be started; run 'Make an environment" in said["lost"]
    assert said["on_path"] == [*said["demo"][:3], "--progress", "json"]
    assert said["nowhere"].startswith("the program adcdnet was not found; run 'Make an environment for adcdnet'")


def test_what_is_no_file_is_refused(said):
    assert said["no_file"] == "gone is no file; save it with Export → Save As, and take the copy"


def test_classes_can_be_chosen_for_the_points_of_a_sample(tmp_path):
    """Layers of a file with several are looked up by the name of the file."""
    require_qgis()
    names = ("<fields> & \"x\" 'y'", "水体 – 湖")
    shapes = geopandas.GeoDataFrame({"class": [None]}, geometry=[shapely.Point(0, 0)], crs="EPSG:32633")
    write_layers(tmp_path / "points.gpkg", {"points": shapes, "sample_design": geopandas.GeoDataFrame({"x": [0.0]})})
    write_choices(tmp_path / "points.gpkg", ClassTable.of([1, 2], names))
    code = (
        "import json\n"
        "from qgis.core import QgsApplication, QgsVectorLayer\n"
        "app = QgsApplication([], False); app.initQgis()\n"
        f"layer = QgsVectorLayer({str(tmp_path / 'points.gpkg')!r} + '|layername=points', 'points', 'ogr')\n"
        "setup = layer.editorWidgetSetup(layer.fields().indexOf('class'))\n"
        "print(json.dumps([setup.type(), setup.config()]))"
    )
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True, env=variables(tmp_path))
    assert json.loads(done.stdout.splitlines()[-1]) == ["ValueMap", {"map": [{name: name} for name in names]}]
