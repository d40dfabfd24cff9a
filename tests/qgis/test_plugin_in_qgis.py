"""The archive as QGIS installs it, an environment that the plugin makes, and files that open in QGIS without it."""

import re
import shutil
import subprocess
import sys
from zipfile import ZipFile

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from in_qgis import drive, require_qgis, variables, write_adcdnet, write_program
from PIL import Image
from test_plugin_files import build_qgis_plugin, tools

import adcdnet as ad
from adcdnet.assess.sample import sample
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import read_band
from adcdnet.geo.raster_writer import write_raster
from conftest import CORNER, PIXEL, UTM

pytestmark = [pytest.mark.qgis, pytest.mark.usefixtures("few_trials")]


@pytest.fixture(scope="module")
def qgis_process(tmp_path_factory):
    """qgis_process(words) -> what it prints, with the plugin's archive installed in a new profile, and adcdnet on the
    PATH."""
    require_qgis()
    # Debian 12 starts it by a script that gives it an option of qgis, which it refuses
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("no qgis_process here; install it, e.g. with apt-get install qgis")
    home = tmp_path_factory.mktemp("home")
    build_qgis_plugin.build(home / "plugin.zip")
    with ZipFile(home / "plugin.zip") as archive:
        archive.extractall(home / "profiles" / "default" / "python" / "plugins")
    write_adcdnet(home / "adcdnet")

    def run(*words):
        env = variables(home) | {"QGIS_CUSTOM_CONFIG_PATH": str(home), "PATH": f"{home}:/usr/bin:/bin"}
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, env=env, timeout=100)
        return done.stdout + done.stderr

    run("plugins", "enable", "adcdnet_provider")
    return run


def test_the_archive_installs_and_lists_its_algorithms(qgis_process):
    listed = qgis_process("list")
    own = {tool.name for tool in tools.TOOLS} | {"uncertain", "doctor", "environment"}
    assert set(re.findall(r"\badcdnet:(\w+)", listed)) == own


def test_help_of_parameters_is_that_of_the_command_line(qgis_process):
    shown = qgis_process("help", "adcdnet:map")
    options = tools.COMMANDS["predict"]["options"]
    assert options["trust"]["help"] in shown
    assert tools.COMMANDS["predict"]["help"][0] in shown


def test_an_algorithm_runs_by_qgis_process(qgis_process, labelled_pair):
    words = [f"MS={labelled_pair.ms}", f"PAN={labelled_pair.pan}", f"MORE_LABELS={labelled_pair.labels}"]
    said = qgis_process("run", "adcdnet:check", "--", *words)
    assert "verdict:" in said
    assert "ERROR" not in said


def wheel_of_a_small_adcdnet(folder):
    """A wheel with a program adcdnet that says 'verdict: works' and needs nothing."""
    path = folder / "adcdnet-9.9-py3-none-any.whl"
    info = "adcdnet-9.9.dist-info"
    with ZipFile(path, "w") as archive:
        archive.writestr("small.py", "def main():\n    print('verdict: works')\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: adcdnet\nVersion: 9.9\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nadcdnet = small:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the plugin says of environments: made, made again in the same folder, in a folder of other files, failed."""
    folder = tmp_path_factory.mktemp("environment")
    wheel_of_a_small_adcdnet(folder)
    (folder / "other").mkdir()
    (folder / "other" / "letter.txt").write_text("mine")
    (folder / "python").symlink_to(sys._base_executable)
    write_program(folder / "unwell", "sh", "-c", "echo checking; echo PROBLEM: no torch; exit 1")
    return folder, drive("drive_environment.py", tmp_path_factory.mktemp("home"), folder)


def test_an_environment_of_its_own_is_made_and_then_used(made):
    folder, said = made
    program = str(folder / "own" / "bin" / "adcdnet")
    assert said["made"]["failed"] is None
    assert said["made"]["results"]["PROGRAM"] == program
    assert "verdict: works" in said["made"]["console"]
    assert said["used"] == program
    assert said["again"]["failed"] is None


def test_a_folder_of_other_files_is_left_alone(made):
    folder, said = made
    assert said["other"]["failed"] == f"{folder}/other holds other files; choose a new or empty folder"
    assert [path.name for path in (folder / "other").iterdir()] == ["letter.txt"]


def test_an_environment_that_failed_is_taken_away_and_the_line_says_why(made):
    folder, said = made
    assert "nothing.whl" in said["failed"]["failed"]
    assert not (folder / "failing").exists()


def test_a_broken_installation_is_told_in_its_own_line(made):
    assert made[1]["unwell"]["failed"] == "no torch"


@pytest.fixture(scope="module")
def alone(quick_run, labelled_pair, tmp_path_factory):
    """A map, its probabilities, a large map and a sample: the folder, and how QGIS opens them."""
    folder = tmp_path_factory.mktemp("alone")
    with labelled_pair.open() as scene:
        ad.predict(quick_run.folder, scene, out=folder / "map.tif", probabilities=folder / "probabilities.tif")
    grid = Grid(700, 600, Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1]), UTM)
    write_raster(folder / "large.tif", np.ones((700, 600), np.uint8), grid, classes=ClassTable.numbered(["a"]))
    rasterio.shutil.copy(folder / "large.tif", folder / "cog.tif", driver="COG")
    shutil.copy(folder / "large.qml", folder / "cog.qml")
    sample(folder / "map.tif", folder / "points.gpkg", n=20)
    return folder, drive("drive_alone.py", tmp_path_factory.mktemp("home"), folder, folder / "drawn.png")


def test_a_map_opens_with_its_names_and_colours(alone):
    _, said = alone
    assert said["map"]["classes"] == [[1, "meadow", "#00ff00"], [2, "rock", "#808080"], [4, "water", "#0000ff"]]
    assert said["map"]["crs"] == UTM
    assert said["map"]["nodata"] == 0


def test_it_is_drawn_in_these_colours_and_not_where_it_has_no_class(alone):
    folder, said = alone
    values = read_band(folder / "map.tif")[0]
    drawn = np.asarray(Image.open(folder / "drawn.png").convert("RGB"))[1::2, 1::2]
    colours = {value: tuple(bytes.fromhex(colour[1:])) for value, _, colour in said["map"]["classes"]}
    colours[0] = (255, 255, 255)
    assert (values == 0).any()
    wanted = np.array([[colours[v] for v in row] for row in values.tolist()])
    assert (np.abs(drawn.astype(int) - wanted) <= 2).all(-1).mean() > 0.99


def test_bands_of_probabilities_have_the_names_of_classes(alone):
    _, said = alone
    assert [name.split(": ")[1] for name in said["probabilities"]["bands"]] == ["meadow", "rock", "water"]


@pytest.mark.parametrize("name", ["large", "cog"])
def test_a_large_map_has_overviews_that_qgis_finds_and_its_names(alone, name):
    _, said = alone
    assert said[name]["pyramids"][0]
    assert [label for _, label, _ in said[name]["classes"]] == ["a"]


def test_a_sample_opens_with_its_empty_field(alone):
    _, said = alone
    assert said["points"]["count"] == 20
    assert "class" in said["points"]["fields"]
    assert said["points"]["crs"] == UTM
