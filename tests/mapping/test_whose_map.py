"""Which model made a map: its digest stands in the tags, and is compared where a run stands beside the map."""

import shutil
from dataclasses import replace

import pytest
import rasterio

import adcdnet as ad
from adcdnet.files import MODEL_TAG, model_digest
from adcdnet.mapping.model import Model
from adcdnet.mapping.record import RunRecord

pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture(scope="module")
def retrained(labelled_pair, few_trials, tmp_path_factory):
    """A run whose folder still has the map of the training before."""
    folder = tmp_path_factory.mktemp("twice") / "run"
    with labelled_pair.open() as scene:
        before = labelled_pair.train(folder, seed=1)
        ad.predict(before, scene, out=folder / "map.tif", probabilities=folder / "probabilities.tif")
    labelled_pair.train(folder, seed=2)
    return folder


@pytest.mark.parametrize("members", [["adcdnet"], ["perceptron", "boosting", "forest"]])
def test_the_digest_is_that_of_the_file_and_outlives_it(labelled_pair, tmp_path, members):
    run = labelled_pair.train(tmp_path / "run", members=members)
    file = tmp_path / "run" / "model.safetensors"
    assert run.model.digest == model_digest(file) == Model.load(file).digest


def test_another_name_leaves_the_digest_and_other_answers_change_it(tiny_model):
    assert replace(tiny_model, record=RunRecord(name="other")).digest == tiny_model.digest
    for changes in ({"temperature": 2.0}, {"label_shares": (0.2, 0.3, 0.5)}):
        assert replace(tiny_model, **changes).digest != tiny_model.digest


@pytest.mark.parametrize("content", [b"", b"II*\0", b"\xff" * 40, (9).to_bytes(8, "little") + b'{"a": 1} '])
def test_what_is_no_model_file_has_no_digest(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert model_digest(tmp_path / "model.safetensors") == ""
    assert model_digest(tmp_path / "none.safetensors") == ""


def test_map_and_probabilities_say_which_model_made_them(tiny_model, tiny_scene, tmp_path):
    ad.predict(tiny_model, tiny_scene, out=tmp_path / "m.tif", probabilities=tmp_path / "p.tif", device="cpu")
    for name in ("m.tif", "p.tif"):
        with rasterio.open(tmp_path / name) as dataset:
            assert dataset.tags()[MODEL_TAG] == tiny_model.digest


def test_a_report_of_a_retrained_run_does_not_judge_the_old_map(retrained):
    with pytest.raises(ad.InputError, match=r"map.tif was made by another model than .*run holds.* make it anew with"):
        ad.write_report(retrained)


def test_nor_old_probabilities_beside_a_new_map(retrained, labelled_pair, tmp_path):
    folder = shutil.copytree(retrained, tmp_path / "run")
    with labelled_pair.open() as scene:
        ad.predict(folder, scene, out=folder / "map.tif")
    with pytest.raises(ad.InputError, match=r"probabilities.tif was made by another model"):
        ad.write_report(folder)


def test_the_split_of_another_training_is_said_to_be_one(retrained, labelled_pair, tmp_path):
    where = {"split": retrained / "split.tif", "part": "test"}
    found = ad.evaluate(retrained / "map.tif", labelled_pair.labels, **where)
    assert any("made by another model than" in note for note in found.notes)
    with labelled_pair.open() as scene:
        ad.predict(retrained, scene, out=tmp_path / "own.tif")
    own = ad.evaluate(tmp_path / "own.tif", labelled_pair.labels, **where)
    assert not any("another model" in note for note in own.notes)


def test_a_page_says_where_a_map_does_not_name_its_model(quick_run, labelled_pair, tmp_path):
    with labelled_pair.open() as scene:
        ad.predict(quick_run, scene, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    pages = []
    for name in ("told.html", "untold.html"):
        made = ad.write_report(
            quick_run, map_path=tmp_path / "map.tif", probabilities=tmp_path / "p.tif", out=tmp_path / name
        )
        pages.append("map.tif does not say which model made it" in made.read_text("utf-8"))
        with rasterio.open(tmp_path / "map.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
            dataset.update_tags(**{MODEL_TAG: ""})
    assert pages == [False, True]
