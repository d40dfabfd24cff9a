"""The whole chain from QGIS's own layers on a simulated scene, cancel and go on, and what QGIS then shows."""

import json
import shutil
import subprocess

import geopandas
import numpy as np
import pytest
import rasterio
from in_qgis import HERE, drive, require_qgis, variables, write_adcdnet
from PIL import Image
from rasterio.features import shapes
from shapely.geometry import shape
from test_layers_of_qgis import FOREIGN
from test_plugin_files import tools

from adcdnet.config import TrainConfig
from adcdnet.demo.run import write_scene
from adcdnet.files import MODEL_FILE
from conftest import QUICK, ROOT

pytestmark = pytest.mark.qgis
SIDE = 100  # MS pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A simulated scene, polygons of its labels with names, and settings of short trainings."""
    require_qgis()
    folder = tmp_path_factory.mktemp("chain") / "my scène"
    landscape = write_scene(folder, seed=1, size=SIDE, ratio=4)
    names = landscape.class_table.names
    (folder / "names.json").write_text(json.dumps(names))
    with rasterio.open(folder / "labels.tif") as dataset:
        profile = dataset.profile
        found = [(shape(s), int(v)) for s, v in shapes(landscape.labels, transform=dataset.transform) if v]
    cover = {"id": range(len(found)), "cover": [names[value - 1] for _, value in found]}
    frame = geopandas.GeoDataFrame(cover, geometry=[polygon for polygon, _ in found], crs=profile["crs"])
    frame.to_file(folder / "polygons.gpkg", layer="polygons")
    with rasterio.open(folder / "truth.tif", "w", **profile) as dataset:
        dataset.write(landscape.labels_fine[2::4, 2::4], 1)
    quick = {"split": {"folds": 2, "block": 12}, "members": ["adcdnet", "perceptron"]}
    long = {"split": {"folds": 2, "block": 12}, "stage2": {"steps": 60}, "passes": 0.0, "validations": 10}
    for name, changes in (("quick", quick), ("long", long)):
        settings = TrainConfig.of_profile("patch").replace(QUICK).replace(changes)
        (folder / f"{name}.toml").write_text(settings.to_toml())
    (folder / "foreign.json").write_text(json.dumps(FOREIGN))
    write_adcdnet(folder / "adcdnet")
    return folder


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """What each step returned and said. All of them run with the variables of a foreign GDAL and PROJ set."""
    return drive("drive_chain.py", tmp_path_factory.mktemp("home"), folder, seconds=400)


STEPS = ("check", "align", "train", "map", "uncertain", "sample", "judge", "report", "suggest", "suspects")


@pytest.mark.parametrize("step", STEPS)
def test_every_step_succeeds_whatever_variables_qgis_set(done, step):
    assert done[step]["failed"] is None


def test_neither_torch_nor_the_package_comes_into_qgis(done):
    assert done["modules"] == []


def test_a_wrong_field_gives_the_tools_own_line(done, folder):
    line = f"{folder}/polygons.gpkg has no column 'gone'; it has ['id', 'cover']"
    assert done["wrong_field"]["failed"] == line
    assert done["no_field"]["failed"] == line


def test_wrong_use_gives_one_line_too(done):
    said = "Invalid value for --n: give a number of points or a standard error, one of the two"
    assert done["wrong_use"]["failed"] == said


def test_steps_are_told_while_it_trains_and_maps(done):
    stages = {text.split("  ")[0] for text in done["train"]["text"]}
    assert {"stage1", "stage2"} <= stages
    assert max(done["train"]["bar"]) == 100
    assert any("loss" in text for text in done["train"]["text"])
    assert done["map"]["text"][-1].startswith("map")


def test_what_it_says_is_in_the_log_in_words(done):
    assert any(line.startswith("verdict:") for line in done["check"]["console"])
    assert any("needs at least" in line for line in done["train"]["warning"])
    assert any("whole map, estimated: OA" in line for line in done["judge"]["console"])
    everything = [line for step in STEPS for kind in ("info", "warning", "console") for line in done[step][kind]]
    assert not [line for line in everything if line.startswith(("{", "note: "))]


def test_the_map_is_loaded_with_names_and_colours(done, folder):
    names = sorted(json.loads((folder / "names.json").read_text()))
    shown = done["map"]["layers"]
    assert [label for _, label, _ in shown["Map"]["classes"]] == names
    assert len({colour for _, _, colour in shown["Map"]["classes"]}) == len(names)
    assert set(shown) == {"Map", "Probabilities", "Trust"}
    assert all(layer["valid"] for layer in shown.values())


def test_folds_and_held_out_answers_of_a_run_are_loaded(done):
    assert {"run folds", "run held-out"} <= set(done["train"]["layers"])
    assert done["train"]["layers"]["run held-out"]["renderer"] == "paletted"


def test_a_sample_is_filled_in_from_a_list(done, folder):
    names = sorted(json.loads((folder / "names.json").read_text()))
    assert done["widget"] == ["ValueMap", names]
    classes = done["sample"]["layers"]["Points"]["classes"]
    assert [label for _, label in classes] == [*names, "to fill in"]
    judged = json.loads((folder / "judged.json").read_text())
    assert sum(map(sum, judged["confusion"])) == 40


def test_suggested_places_are_filled_in_from_a_list_also_when_they_are_opened_again(done):
    assert done["again"]["widget"] == "ValueMap"


def test_the_report_is_a_link(done, folder):
    assert done["report"]["results"]["OUT"] == str(folder / "run" / "report.html")
    assert f"Report: {(folder / 'run' / 'report.html').as_uri()}" in done["report"]["info"]


def test_uncertain_ground_is_what_probabilities_say(done, folder):
    with rasterio.open(folder / "probabilities.tif") as dataset:
        largest = dataset.read().max(0)
        pixel = dataset.transform.a**2
    found = geopandas.read_file(folder / "unsure.gpkg")
    assert found.area.sum() == pytest.approx((largest < 0.6).sum() * pixel)
    assert done["uncertain"]["layers"]["Uncertain ground"]["renderer"] == "singleSymbol"


def test_qgis_draws_the_map_in_its_colours_and_hatches_uncertain_ground(done, folder):
    """480 × 480 screen pixels for 100 × 100 of the map: the middle of each is its colour, or a line of the hatching."""
    colours = {value: colour for value, _, colour in done["map"]["layers"]["Map"]["classes"]}
    drawn = np.asarray(Image.open(folder / "rendered.png").convert("RGB"))
    with rasterio.open(folder / "map.tif") as dataset:
        values = dataset.read(1)
    with rasterio.open(folder / "probabilities.tif") as dataset:
        sure = dataset.read().max(0) >= 0.6
    middle = (np.arange(SIDE) + 0.5) * 480 / SIDE
    seen = drawn[np.ix_(middle.astype(int), middle.astype(int))]
    wanted = np.array([[tuple(bytes.fromhex(colours[v][1:])) for v in row] for row in values])
    alike = (np.abs(seen.astype(int) - wanted) <= 2).all(-1)
    assert alike[sure].mean() > 0.97
    assert alike[~sure].mean() < 0.9


@pytest.fixture(scope="module")
def window(done, folder, tmp_path_factory):
    """What was seen in QGIS's window, on a virtual screen: the plugin in its profile, dialogs run by their button."""
    qgis = shutil.which("qgis.bin") or shutil.which("qgis")
    if qgis is None or shutil.which("xvfb-run") is None:
        pytest.skip("no window of QGIS here; install it, e.g. with apt-get install qgis xvfb xauth")
    home = tmp_path_factory.mktemp("home")
    profile = home / "profiles" / "default"
    shutil.copytree(ROOT / "qgis_plugin", profile / "python" / "plugins")
    (profile / "QGIS").mkdir()
    enabled = "[PythonPlugins]\nadcdnet_provider=true\nprocessing=true\n[qgis]\ncheckVersion=false\n"
    (profile / "QGIS" / "QGIS3.ini").write_text(enabled)
    words = ["xvfb-run", "-a", "-s", "-screen 0 1400x1000x24", qgis, "--profiles-path", home, "--nologo"]
    env = variables(home) | {"ADCDNET_FOLDER": str(folder), "PATH": "/usr/bin:/bin"}
    del env["QT_QPA_PLATFORM"]
    script = HERE / "drive_window.py"
    subprocess.run([*words, "--noversioncheck", "--code", script], env=env, timeout=150, check=False)
    return json.loads((folder / "window.json").read_text())


def test_the_plugin_offers_to_make_an_environment_where_there_is_none(window):
    assert "traceback" not in window, window["traceback"]
    assert window["offered"] == ["The program adcdnet was not found."]


def test_every_algorithm_has_a_dialog(window):
    assert set(window["dialogs"]) == {tool.name for tool in tools.TOOLS} | {"uncertain", "doctor", "environment"}


def test_layers_are_loaded_from_a_dialog_with_their_styles(window):
    shown = window["layers"]
    assert {name: shown[name] for name in ("Map", "Points", "Uncertain ground")} == {
        "Map": "paletted",
        "Points": "categorizedSymbol",
        "Uncertain ground": "singleSymbol",
    }


def test_the_form_of_a_point_lists_the_classes(window, folder):
    names = sorted(json.loads((folder / "names.json").read_text()))
    assert [*names, "(NULL)"] in [sorted(listed[:-1]) + listed[-1:] for listed in window["lists"]]


def test_it_leaves_nothing_when_it_is_unloaded(window):
    assert window["unloaded"]
    assert window["gone"]


@pytest.fixture(scope="module")
def cancelled(folder, tmp_path_factory):
    """A training that was stopped in its second stage, and then the same with 'Resume'."""
    return drive("drive_cancel.py", tmp_path_factory.mktemp("home"), folder)


def test_a_cancelled_training_ends_with_the_word_how_to_go_on(cancelled):
    expected = "stopped; the same with 'Resume' ticked, and the same output, goes on from what is finished"
    assert cancelled["stopped"]["failed"] == expected


def test_it_leaves_no_process_and_no_run(cancelled):
    assert len(cancelled["started"]) == 1
    assert cancelled["running"] == []
    assert set(cancelled["left"]) <= {".stopped.training"}


def test_with_resume_it_goes_on_to_its_end(cancelled, folder):
    assert cancelled["again"]["failed"] is None
    assert (folder / "stopped" / MODEL_FILE).exists()
    assert cancelled["whole"] == ["stopped"]
