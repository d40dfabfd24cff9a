"""Which images a report opens: with the correction of PAN that the run was trained with, and of several scenes one."""

import json
import shutil

import numpy as np
import pytest

import adcdnet as ad
from adcdnet.material import LabelledScene
from adcdnet.page.sources import _pan_shift, read_run
from conftest import QUICK

pytestmark = pytest.mark.usefixtures("few_trials")


def said(scene, rows, cols):
    scene.correct_pan(rows, cols)
    return scene.notes[-1]


def test_the_correction_is_read_from_what_a_scene_says_of_it(tiny_scene):
    one, two = said(tiny_scene, 1, -2), said(tiny_scene, -3, 0)
    assert _pan_shift([], "") == (0, 0)
    assert _pan_shift(["a note", one], "") == (1, -2)
    assert _pan_shift([one, "a note", two], "") == (-2, -2)
    both = [f"here: {one}", f"there: {two}"]
    assert [_pan_shift(both, name) for name in ("here: ", "there: ", "elsewhere: ")] == [(1, -2), (-3, 0), (0, 0)]


@pytest.fixture(scope="module")
def run(labelled_pair, few_trials, tmp_path_factory):
    """Trained on the pair twice, once with PAN moved by 1 row and -2 columns; "there" is all in the test part."""
    folder = tmp_path_factory.mktemp("several") / "run"
    with labelled_pair.open() as here, labelled_pair.open() as there:
        here.correct_pan(1, -2)
        there.correct_pan(0, 0)
        labels = labelled_pair.read_labels(here)
        scenes = [LabelledScene(here, labels, "here"), LabelledScene(there, labels, "there", "test")]
        config = ad.TrainConfig().replace(QUICK).replace({"stage1": {"steps": 1}, "stage2": {"steps": 3}})
        return ad.train(scenes, out=folder, config=config, device="cpu")


def test_each_scene_is_opened_with_its_own_correction(run, labelled_pair):
    with labelled_pair.open() as moved:
        moved.correct_pan(1, -2)
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
    assert read_run(run.folder, {"pan": other}).pan_shift == (1, -2)  # the same file at another place
    with open(other, "ab") as file:
        file.write(b"\0")
    files = read_run(run.folder, {"pan": other})
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
