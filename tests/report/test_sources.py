"""Which images a report opens: with the correction of PAN that the run was trained with, and of several scenes one."""

import json
import shlex
import shutil

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

import adcdnet as ad
from adcdnet.report.sources import read_run
from adcdnet.training.scenes import LabelledScene
from conftest import QUICK, UTM

pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture(scope="module")
def run(labelled_pair, few_trials, tmp_path_factory):
    """Trained on the pair twice, once with PAN moved by 1 row and -2 columns; "there" is all in the test part."""
    folder = tmp_path_factory.mktemp("several") / "run"
    with labelled_pair.open() as here, labelled_pair.open() as there:
        here = here.with_pan_moved(1, -2)
        there = there.with_pan_moved(0, 0)
        labels = labelled_pair.read_labels(here)
        scenes = [LabelledScene(here, labels, "here"), LabelledScene(there, labels, "there", "test")]
        config = (
            ad.TrainConfig.of_profile("patch").replace(QUICK).replace({"stage1": {"steps": 1}, "stage2": {"steps": 6}})
        )
        return ad.train(scenes, out=folder, config=config, device="cpu")


def test_each_scene_is_opened_with_its_own_correction(run, labelled_pair):
    with labelled_pair.open() as moved:
        moved = moved.with_pan_moved(1, -2)
        wanted = moved.read(moved.grid.window).pan
        for name, same in (("here", True), ("there", False), (None, True)):  # None: the first
            files = read_run(run.folder, {}, name)
            with files.open() as scene:
                assert files.split == run.folder / f"split-{name or 'here'}.tif"
                assert scene.pan_shift == ((1, -2) if same else (0, 0))
                assert np.array_equal(scene.read(scene.grid.window).pan, wanted) == same


def test_a_scene_that_the_run_does_not_know(run, quick_run):
    with pytest.raises(ad.InputError, match=r"called 'nowhere'; its scenes are here, there; name one of them"):
        read_run(run.folder, {}, "nowhere")
    with pytest.raises(ad.InputError, match="it has one only; leave --scene out"):
        read_run(quick_run.folder, {}, "here")


def test_other_images_are_not_moved_and_bring_no_labels(run, labelled_pair, tmp_path):
    other = shutil.copy(labelled_pair.pan, tmp_path / "pan.tif")
    assert read_run(run.folder, {"pan": [other]}).pan_shift == (1, -2)  # the same file at another place
    assert read_run(run.folder, {"pan": [other, labelled_pair.pan]}).pan_shift == (0, 0)  # it and one more
    with open(other, "ab") as file:
        file.write(b"\0")
    files = read_run(run.folder, {"pan": [other]})
    assert files.pan_shift == (0, 0)
    assert "labels" not in files.sources


def test_the_page_says_which_scene_it_is_of(run):
    page = ad.write_report(run, scene="there")
    assert page == run.folder / "report-there.html"
    text = page.read_text("utf-8")
    assert "this page is of there, --scene names another: here" in text
    assert "All of this scene is in one part." in text
    labelled = json.loads((run.folder / "metrics.json").read_text())["scenes"]["there"]["labelled_pixels"]["test"]
    assert f"{labelled:,}".replace(",", "\u202f") + " for the test" in text


def test_the_correction_of_a_single_scene_is_in_its_record(labelled_pair, tmp_path):
    with labelled_pair.open() as moved:
        moved = moved.with_pan_moved(-1, 2)
        config = (
            ad.TrainConfig.of_profile("patch").replace(QUICK).replace({"stage1": {"steps": 1}, "stage2": {"steps": 6}})
        )
        made = ad.train(moved, labelled_pair.read_labels(moved), out=tmp_path / "run", config=config, device="cpu")
    assert made.model.record.pan_shift == (-1, 2)
    assert read_run(made.folder, {}).pan_shift == (-1, 2)


def split_in_two(path, folder):
    """The first two bands of an image and its others as two files."""
    with rasterio.open(path) as source:
        for name, bands in (("low.tif", [1, 2]), ("high.tif", [3, 4])):
            with rasterio.open(folder / name, "w", **source.profile | {"count": 2}) as part:
                part.write(source.read(bands))
    return folder / "low.tif", folder / "high.tif"


def test_the_line_that_predict_ends_with_makes_the_report(call, labelled_pair, tmp_path):
    low, high = split_in_two(labelled_pair.ms, tmp_path)
    with rasterio.open(labelled_pair.ms) as source:
        mask = np.zeros(source.shape, np.uint8)
        mask[20:30, 40:44] = 1
        with rasterio.open(tmp_path / "a mask.tif", "w", **source.profile | {"count": 1, "dtype": "uint8"}) as file:
            file.write(mask, 1)
    (tmp_path / "quick.toml").write_text(ad.TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    run, chosen = tmp_path / "run", ("--ms-bands", "4,1")
    pair = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan
    named = "--labels", labelled_pair.labels, "--classes", labelled_pair.classes, "--config", tmp_path / "quick.toml"
    assert call("train", *pair, *named, *chosen, "--out", run)[0] == 0
    maps = "--out", tmp_path / "map.tif", "--probabilities", tmp_path / "p.tif"
    stack = "--ms", low, "--ms", high, "--pan", labelled_pair.pan, "--mask", tmp_path / "a mask.tif"
    code, out, err = call("predict", run, *stack, *chosen, *maps)
    assert (code, err) == (0, "")
    line = shlex.split(out.strip().splitlines()[-1].removeprefix("report of it: "))
    code, out, err = call(*line[1:])
    assert (code, err) == (0, "")
    text = (run / "report.html").read_text("utf-8")
    mapped = 83 * 71 - 24 - mask.sum()
    assert f"3 classes on {mapped:,} MS pixels".replace(",", "\u202f") in text
    assert "low.tif is not the file that the run was trained with" in text
    assert "(2 bands, 83 × 71 pixels" in text


def test_labels_of_a_layer_by_codes_are_read_again_for_the_page(labelled_pair, call, tmp_path):
    """CORINE's codes in one layer of two, named by a class table: model, inputs.json and page keep what they mean."""
    corner = [tuple(labelled_pair.open().grid.transform @ at) for at in ((0, 0), (1, 1))]
    (left, top), (right, bottom) = corner
    boxes = {value: [] for value in (1, 2, 4)}
    for (row, col), value in np.ndenumerate(labelled_pair.truth):
        x, y = left + col * (right - left), top + row * (bottom - top)
        boxes[int(value)].append(shapely.box(x, y + bottom - top, x + right - left, y))
    codes = {1: 231, 2: 332, 4: 512}
    frame = geopandas.GeoDataFrame(
        {"code": [codes[value] for value in boxes]}, geometry=[shapely.union_all(of) for of in boxes.values()], crs=UTM
    )
    labels, table = tmp_path / "labels.gpkg", tmp_path / "codes.csv"
    frame.to_file(labels, layer="train")
    frame.assign(code=1).to_file(labels, layer="other")
    table.write_text("value,name\n231,meadow\n332,rock\n512,water\n")
    config = tmp_path / "quick.toml"
    config.write_text(ad.TrainConfig.of_profile("patch").replace(QUICK).replace({"stage2": {"steps": 3}}).to_toml())
    where = ("--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--labels", labels, "--classes", table)
    code, _, err = call("train", *where, "--config", config, "--no-stage1", "--out", tmp_path / "run")
    assert code == 1
    assert "has 2 layers of shapes: 'train', 'other'; name one of them with --layer" in err
    code, _, err = call(
        "train", *where, "--layer", "train", "--config", config, "--no-stage1", "--out", tmp_path / "run"
    )
    assert code == 0, err
    assert "1 for 231 meadow, 2 for 332 rock, 3 for 512 water" in err
    files = read_run(tmp_path / "run", {})
    assert files.reading == {"layer": "train"}
    assert (files.model.classes.names, files.model.classes.codes) == (("meadow", "rock", "water"), (231, 332, 512))
    code, _, err = call("report", tmp_path / "run")
    assert code == 0, err


def test_each_scene_keeps_how_its_labels_were_read(labelled_pair, tmp_path):
    """One scene has labels of two files, of which one is cut in half, and the other those of one file."""
    with rasterio.open(labelled_pair.labels) as raster:
        profile, values = raster.profile, raster.read(1)
    halves = []
    for name, cut in (("west", np.s_[:, 20:]), ("east", np.s_[:, :20])):
        half = values.copy()
        half[cut] = 0
        halves.append(tmp_path / f"{name}.tif")
        with rasterio.open(halves[-1], "w", **profile) as raster:
            raster.write(half, 1)
    with labelled_pair.open() as here, labelled_pair.open() as there:
        whole = labelled_pair.read_labels(here)
        both = ad.read_labels(halves, there.grid, classes=whole.classes, min_share=0.9)
        assert np.array_equal(both.index, whole.index)
        config = ad.TrainConfig.of_profile("patch").replace(QUICK).replace({"stage2": {"steps": 3}})
        scenes = [LabelledScene(here, whole, "here"), LabelledScene(there, both, "there", "test")]
        run = ad.train(scenes, out=tmp_path / "run", config=config, device="cpu")
    of_here, of_there = (read_run(run.folder, {}, name) for name in ("here", "there"))
    assert (of_here.labels, of_here.reading) == ([labelled_pair.labels], {})
    assert (of_there.labels, of_there.reading) == (halves, {"min_share": 0.9})
    assert read_run(run.folder, {"labels": [halves[0]]}, "there").reading == {}  # other labels, read otherwise
