"""What a random-pixel split would have claimed: both scores are those of evaluated maps, and only one model stays."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from adcdnet.assess.evaluate import evaluate
from adcdnet.benchmark import random_split as claims
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.labels import read_labels
from adcdnet.mapping.predict import predict
from adcdnet.split.parts import TEST
from adcdnet.training.scenes import LabelledScene
from conftest import QUICK

pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture
def arguments(labelled_pair, tmp_path):
    (tmp_path / "quick.toml").write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    pair = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--labels", labelled_pair.labels
    return "train", *pair, "--classes", labelled_pair.classes, "--config", tmp_path / "quick.toml", "--steps", 4


def test_both_claims_are_the_scores_of_maps_by_their_own_split(call, arguments, labelled_pair, tmp_path):
    code, out, err = call(*arguments, "--out", tmp_path / "run", "--compare-random")
    assert code == 0, err
    assert err.startswith("note: the training needs at least ")
    assert {path.name for path in tmp_path.iterdir()} == {"quick.toml", "run"}
    assert call(*arguments, "--out", tmp_path / "random", "--split", "random")[0] == 0
    both = json.loads((tmp_path / "run" / "metrics.json").read_text())["random_split"]
    for folder, known in (("run", both["own"]), ("random", both["random"])):
        run = tmp_path / folder
        for tau in (1.0, 0.5):
            with labelled_pair.open() as scene:
                predict(run, scene, out=tmp_path / "map.tif", tau=tau)
            found = evaluate(tmp_path / "map.tif", labelled_pair.labels, split=run / "split.tif", part="test")
            for name in ("oa", "aa", "kappa"):
                assert known[f"tau {tau:g}"][name] == pytest.approx(getattr(found.scores, name), nan_ok=True)
                assert f"{getattr(found.scores, name):.3f}" in out
        assert known["pixels"] == found.confusion.sum()
        assert known["leakage"] == found.leakage.to_dict()
    assert both["own"]["leakage"]["holding"] == 0
    assert both["random"]["leakage"] == {"holding": 1, "overlapping": 1}
    assert "would have claimed an OA" in out


def test_the_honest_run_is_the_same_with_and_without(call, arguments, tmp_path):
    for name, more in (("a", ["--compare-random"]), ("b", [])):
        assert call(*arguments, "--out", tmp_path / name / "run", *more)[0] == 0
    for file in ("model.safetensors", "split.tif", "config.toml", "history.csv"):
        assert (tmp_path / "a" / "run" / file).read_bytes() == (tmp_path / "b" / "run" / file).read_bytes(), file


def test_a_split_by_random_pixels_says_what_it_is(call, arguments, tmp_path):
    code, out, err = call(*arguments, "--out", tmp_path / "run", "--split", "random")
    assert code == 0, err
    assert err.startswith("note: the training needs at least ")
    assert "random pixels: 100% of the test pixels have a training pixel in their window; that says how" in out
    code, _, err = call(*arguments, "--out", tmp_path / "run", "--split", "random", "--compare-random")
    assert code == 2
    assert "random pixels already" in err


def test_a_scene_held_out_is_dealt_with_the_others(labelled_pair, tmp_path):
    """The whole second scene tests; by random pixels a quarter of each class of both does."""
    config = TrainConfig.of_profile("patch").replace(QUICK)
    with labelled_pair.open() as one, labelled_pair.open() as two:
        labels = labelled_pair.read_labels(one)
        scenes = [LabelledScene(one, labels, "one"), LabelledScene(two, labels, "two", "test")]
        run = claims.train(scenes, out=tmp_path / "run", config=config, device="cpu")
        own, random = claims.compare_random(run, scenes, device="cpu")
    with rasterio.open(labelled_pair.labels) as dataset:
        index = dataset.read(1)
    index[:4, :6] = 0  # the invalid corner
    counts = np.bincount(index.ravel())[[1, 2, 4]]
    with rasterio.open(run.folder / "split-one.tif") as dataset:
        tested_one = ((dataset.read(1) == TEST) & (labels.index >= 0)).sum()
    assert own.pixels - tested_one == run.model.record.scenes["two"]["labelled_pixels"]["test"]
    assert random.pixels == 2 * sum(round(0.25 * n) for n in counts)


def test_a_run_without_a_tested_pixel_has_nothing_to_compare(labelled_pair, tmp_path):
    config = TrainConfig.of_profile("patch").replace(QUICK).replace({"split": {"test": 0.0}})
    with labelled_pair.open() as scene:
        scenes = [LabelledScene(scene, labelled_pair.read_labels(scene))]
        run = claims.train(scenes, out=tmp_path / "run", config=config, device="cpu")
        with pytest.raises(InputError, match="holds no labelled pixel"):
            claims.compare_random(run, scenes, device="cpu")


def test_pixels_of_the_fine_grid(labelled_pair, write_tif, tmp_path):
    fine = write_tif("fine.tif", labelled_pair.truth.repeat(2, 0).repeat(2, 1), pixel=6.0)
    config = TrainConfig.of_profile("patch").replace(QUICK).replace({"network": {"grid": "fine"}})
    with labelled_pair.open() as scene:
        scenes = [LabelledScene(scene, read_labels(fine, scene.fine_grid))]
        run = claims.train(scenes, out=tmp_path / "run", config=config, device="cpu")
        own, random = claims.compare_random(run, [replace(one) for one in scenes], device="cpu")
    assert own.pixels == run.model.record.labelled_pixels["test"]
    assert random.pixels % 4 == 0
