"""Folds, members and weights: what is judged was not seen, weights say what members are worth, the map is their sum."""

import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import rasterio
import torch
from affine import Affine

from adcdnet.assess.evaluate import evaluate
from adcdnet.config import AnswerConfig, TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Window
from adcdnet.geo.labels import Labels
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.engine import logits_of, scene_logits
from adcdnet.mapping.model import Model, folds_name, held_out_name
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn.architecture import Layout
from adcdnet.split.folds import polygon_folds
from adcdnet.split.parts import TEST, TRAIN, Split, near
from adcdnet.training.committee import classifiers, held_out
from adcdnet.training.committee.cross_fit import cross_fit, members_of, weighed
from adcdnet.training.committee.folds import Ground
from adcdnet.training.committee.weights import fit_weights
from adcdnet.training.run import train
from adcdnet.training.scenes import LabelledScene, folds_of

CHEAP = {"members": ["boosting", "perceptron"], "split": {"folds": 3, "block": 14}}


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "_ROUNDS", 5)
        patch.setattr(classifiers, "_TREES", 5)
        patch.setattr(classifiers, "_STEPS", 60)
        patch.setattr("adcdnet.metrics.intervals._RESAMPLES", 50)
        patch.setattr("adcdnet.split.folds._TRIALS", 30)
        yield


@pytest.fixture(scope="module")
def committee(labelled_pair, small):
    """Ground, settings, splits and what became of them; to be looked at only."""
    return fitted(labelled_pair)


def answers(rng, truth, sharpness):
    """Log posteriors (K, n) that point at the truth as strongly as asked, with noise."""
    return sharpness * np.eye(3)[truth].T + rng.normal(size=(3, truth.size))


def test_weights_favour_who_knows_more_and_leave_out_who_knows_nothing():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=4000)
    z = np.stack([answers(rng, truth, s) for s in (2.0, 1.0, 0.0)])
    weights, temperature = fit_weights(z, truth)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(2 / 3, abs=0.05)  # of independent evidence, by its strength
    assert weights[2] == 0
    # noise of variance 1 and mean s for the truth: log likelihoods are s · z, so v = (2, 1) and T = 1 / 3
    assert temperature == pytest.approx(1 / 3, rel=0.1)


def test_a_member_worth_next_to_nothing_is_left_out_and_the_others_are_weighed_again():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=40_000)
    z = np.stack([answers(rng, truth, s) for s in (2.0, 2.0, 0.05)])  # worth 0.05 of 4.05
    weights, _ = fit_weights(z, truth)
    assert weights[2] == 0
    assert weights[:2].sum() == pytest.approx(1)
    assert fit_weights(z[:2], truth)[0] == pytest.approx(weights[:2])


def test_one_member_gets_the_temperature_that_fits_it():
    rng = np.random.default_rng(1)
    truth = rng.integers(3, size=4000)
    weights, temperature = fit_weights(answers(rng, truth, 2.0)[None] * 3, truth)
    assert weights.tolist() == [1]
    assert temperature == pytest.approx(3 / 2, rel=0.1)


def test_members_that_are_all_wrong_are_weighed_alike():
    truth = np.zeros(50, np.int64)
    z = np.tile(np.array([-5.0, 0, 0])[None, :, None], (2, 1, 50))
    assert fit_weights(z, truth)[0].tolist() == [0.5, 0.5]


def ground_of(pair) -> tuple[Ground, LabelledScene]:
    with pair.open() as scene:
        labels = pair.read_labels(scene)
        pixels = scene.read(scene.grid.window)
        layout = Layout(ms_bands=4, pan_bands=1, ratio=2, classes=3)
        return Ground([pixels], [labels], layout, (0.0, 0.0)), LabelledScene(scene, labels)


def fitted(pair, **changes):
    ground, labelled = ground_of(pair)
    config = TrainConfig.of_profile("patch").replace(CHEAP).replace(changes)
    usable = ground.pixels[0].valid
    splits, notes = folds_of([labelled], [usable], reach=config.guard, config=config.split, seed=0)
    assert not notes
    result = cross_fit(ground, splits, config, torch.device("cpu"), jobs=1, progress=lambda *_: None)
    return ground, config, splits, result


def test_every_label_is_judged_once_by_members_that_trained_elsewhere(committee):
    ground, config, splits, result = committee
    labelled = (ground.labels[0].index >= 0) & ground.pixels[0].valid
    tested = np.sum([of_fold[0].part == TEST for of_fold in splits], axis=0)
    assert (tested[labelled] == 1).all()
    for of_fold in splits:
        assert not (near(of_fold[0].part == TRAIN, config.guard) & (of_fold[0].part == TEST)).any()
    judgement = result.judgement
    assert judgement is not None
    assert judgement.confusion.sum() == labelled.sum()
    for row, col, p in judgement.answered[0]:
        assert labelled[row, col].mean() > 0.5
        np.testing.assert_allclose(p.sum(0), 1, rtol=1e-5)
    assert {name: matrix.sum() for name, matrix in judgement.alone.items()} == dict.fromkeys(
        ("boosting", "perceptron"), labelled.sum()
    )
    assert scores(judgement.confusion).kappa > 0.6


def test_labels_of_a_fold_do_not_reach_its_own_answers(committee):
    """Every label of the first fold is changed to another class: what is said of that fold stays as it was."""
    ground, config, splits, result = committee
    first = splits[0][0].part == TEST
    index = ground.labels[0].index.copy()
    index[first & (index >= 0)] = (index[first & (index >= 0)] + 1) % 3
    other = replace(ground, labels=[replace(ground.labels[0], index=index)])
    again = cross_fit(other, splits, config, torch.device("cpu"), jobs=1, progress=lambda *_: None)
    one, two = (r.results[0].held_out[0] for r in (result, again))
    assert np.array_equal(one.likelihoods, two.likelihoods)
    assert not np.array_equal(one.truth, two.truth)
    assert not np.array_equal(result.results[1].held_out[0].likelihoods, again.results[1].held_out[0].likelihoods)


def test_pixels_of_a_fold_do_not_reach_its_members(committee):
    ground, config, splits, result = committee
    pixels = ground.pixels[0]
    first = splits[0][0].part == TEST
    ms = np.where(first, 1000 - pixels.ms, pixels.ms).astype(np.float32)
    pan = np.where(first.repeat(2, 0).repeat(2, 1), 1000 - pixels.pan, pixels.pan).astype(np.float32)
    other = replace(ground, pixels=[pixels._replace(ms=ms, pan=pan)])
    again = cross_fit(other, splits, config, torch.device("cpu"), jobs=1, progress=lambda *_: None)
    assert result.results[0].statistics == again.results[0].statistics
    for mine, theirs in zip(result.results[0].members, again.results[0].members, strict=True):
        assert member_bytes(mine) == member_bytes(theirs)
    assert member_bytes(result.results[1].members[0]) != member_bytes(again.results[1].members[0])


def member_bytes(member) -> bytes:
    if hasattr(member.classifier, "arrays"):
        return b"".join(array.tobytes() for array in member.classifier.arrays().values())
    return b"".join(value.numpy().tobytes() for value in member.classifier.state_dict().values())


def test_weights_of_a_fold_come_from_the_others(labelled_pair, monkeypatch):
    """Answers to the first fold that would be worth any weight change nothing of how that fold is judged."""
    seen = []
    real = fit_weights

    def spy(z, truth):
        seen.append(truth.size)
        return real(z, truth)

    monkeypatch.setattr("adcdnet.training.committee.cross_fit.fit_weights", spy)
    _, _, _, result = fitted(labelled_pair)
    counts = [sum((h.truth >= 0).sum() for h in r.held_out) for r in result.results]
    assert seen == [sum(counts), *(sum(counts) - n for n in counts)]


def test_held_out_answers_do_not_depend_on_the_window(committee, labelled_pair, monkeypatch):
    result = committee[3]
    monkeypatch.setattr(held_out, "_WINDOW", 17)
    _, _, _, again = fitted(labelled_pair)
    for one, two in zip(result.results, again.results, strict=True):
        a, b = one.held_out[0], two.held_out[0]
        order = np.lexsort((a.col, a.row)), np.lexsort((b.col, b.row))
        np.testing.assert_allclose(a.likelihoods[..., order[0]], b.likelihoods[..., order[1]], atol=1e-5)


def test_a_committee_answers_the_weighted_sum_of_its_members(labelled_pair, tmp_path):
    run = labelled_pair.train(tmp_path / "run", members=["adcdnet", "boosting"], answers={"smooth": 0.0})
    model = run.model
    with labelled_pair.open() as scene:
        window = Window(20, 30, 9, 8)
        pixels = scene.read(window.grow(model.reach))
        together = logits_of(model, pixels, engine="dense", corner=(20, 30))
        parts = []
        for member in model.members:
            alone = replace(model, members=(replace(member, weight=1.0),))
            own = scene.read(window.grow(alone.reach))
            parts.append(member.weight * logits_of(alone, own, engine="dense", corner=(20, 30)))
    assert len(parts) == 2
    np.testing.assert_allclose(together, np.sum(parts, axis=0), atol=1e-5)
    assert sum(member.weight for member in model.members) == pytest.approx(1)


def test_a_committee_maps_the_same_by_any_tile_and_from_its_file(labelled_pair, tmp_path):
    run = labelled_pair.train(tmp_path / "run", **CHEAP)
    model = Model.load(tmp_path / "run")
    assert [m.name for m in model.members] == ["boosting", "perceptron"]
    assert model.members[0].weight + model.members[1].weight == pytest.approx(1)
    with labelled_pair.open() as scene:
        maps = []
        for own, tile in ((run.model, 128), (model, 13), (model, 64)):
            whole = np.full((3, *scene.grid.shape), np.nan, np.float32)
            for window, _, values in scene_logits(own, scene, engine="dense", tile=tile):
                whole[:, *window.slices] = values
            maps.append(whole)
    assert np.isfinite(maps[0]).mean() > 0.9
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)
    np.testing.assert_allclose(maps[2], maps[0], atol=1e-5)


def test_a_run_of_folds_leaves_folds_and_answers_to_held_out_ground(labelled_pair, tmp_path):
    run = labelled_pair.train(tmp_path / "run", **CHEAP)
    record = run.model.record
    folds, _, _ = read_band(tmp_path / "run" / folds_name())
    assert sorted(np.unique(folds[folds > 0])) == [1, 2, 3]
    mapped, _, _ = read_band(tmp_path / "run" / held_out_name())
    with labelled_pair.open() as scene:
        labels = labelled_pair.read_labels(scene)
    index = np.full(9, -1)
    index[list(labels.classes.values)] = range(3)
    confusion = confusion_matrix(np.where(folds > 0, labels.index, -1), index[mapped], 3)
    assert record.cross_validation is not None
    assert confusion.tolist() == record.cross_validation["confusion"]
    assert scores(confusion).kappa == pytest.approx(record.cross_validation["kappa"])
    judged = evaluate(tmp_path / "run" / held_out_name(), labelled_pair.labels)
    assert judged.scores.kappa == pytest.approx(record.cross_validation["kappa"])
    assert (judged.folds, judged.areas) == (3, None)  # a map of labelled ground says nothing of areas
    with rasterio.open(tmp_path / "run" / held_out_name(soft=True)) as dataset:
        p = dataset.read()
    assert np.array_equal(np.isfinite(p[0]), mapped > 0)
    assert np.array_equal(p.argmax(0)[mapped > 0], index[mapped][mapped > 0])
    assert set(record.members) == {"boosting", "perceptron"}
    assert record.leakage["holding"] == 0
    assert not (tmp_path / "run" / "split.tif").exists()
    told = record.applicability
    assert told is not None
    judged_pixels = told["inside"]["pixels"] + told["outside"]["pixels"]
    assert judged_pixels == sum(judged.scores.support)  # few labels: none is left out
    right = sum(told[where]["pixels"] * (told[where]["oa"] or 0) for where in ("inside", "outside"))
    assert right / judged_pixels == pytest.approx(judged.scores.oa)


def test_how_many_folds_run_at_once_changes_nothing(labelled_pair, tmp_path, monkeypatch):
    with labelled_pair.open() as scene:
        labels = labelled_pair.read_labels(scene)
        config = TrainConfig.of_profile("patch").replace({**CHEAP, "members": ["boosting"]})
        # processes of their own know nothing of what this file shortens
        monkeypatch.setattr(classifiers, "_ROUNDS", 100)
        runs = [
            train(scene, labels, out=tmp_path / str(n) / "run", config=config, jobs=n, device="cpu") for n in (1, 2)
        ]
    files = [(run.folder / "held-out-probabilities.tif").read_bytes() for run in runs]
    assert files[0] == files[1]
    one, two = (run.model.members[0] for run in runs)
    assert member_bytes(one) == member_bytes(two)


def test_progress_says_of_which_fold_it_is(labelled_pair, tmp_path):
    calls = []
    config = TrainConfig.of_profile("patch").replace(CHEAP)
    with labelled_pair.open() as scene:
        labels = labelled_pair.read_labels(scene)
        tell = lambda *told: calls.append(told)  # noqa: E731
        train(scene, labels, out=tmp_path / "run", config=config, jobs=1, progress=tell, device="cpu")
    folds = [told[3].get("fold") for told in calls if told[0] == "members"]
    assert folds == [1, 1, 2, 2, 3, 3, None, None]  # the last trains on all labels
    assert {told[3].get("folds") for told in calls} == {3, None}


def test_fewer_folds_where_the_ground_allows_no_more(labelled_pair):
    ground, labelled = ground_of(labelled_pair)
    config = TrainConfig().replace({"split": {"folds": 20, "block": 14}}).split
    splits, notes = folds_of([labelled], [ground.pixels[0].valid], reach=6, config=config, seed=0)
    assert 1 < len(splits) < 20
    assert notes[0].startswith(f"{len(splits)} folds: ")


def test_a_class_in_one_place_only_trains_in_every_fold_and_is_judged_in_none(labelled_pair):
    ground, labelled = ground_of(labelled_pair)
    index = np.where(ground.labels[0].index == 2, -1, ground.labels[0].index)
    index[30:36, 30:36] = 2
    labelled = replace(labelled, labels=replace(labelled.labels, index=index))
    config = TrainConfig().replace({"split": {"block": 14}}).split
    splits, notes = folds_of([labelled], [ground.pixels[0].valid], reach=6, config=config, seed=0)
    assert len(splits) > 2
    assert notes[-1].startswith("in one place only, so trained in every fold and judged in none: water;")
    for of_fold in splits:
        part = of_fold[0].part
        assert (part[index == 2] == TRAIN).all()
        assert set(index[part == TRAIN]) >= {0, 1, 2}
        assert set(index[part == TEST]) >= {0, 1}
        assert not (near(part == TRAIN, 6) & (part == TEST)).any()


def test_where_all_classes_but_one_lie_in_one_place_there_is_a_single_split():
    index = np.zeros((80, 80), np.int16)
    index[8:12, 8:12], index[60:64, 60:64] = 1, 2
    splits, notes = folds_of(*of_scenes(index), reach=8, config=TrainConfig().split, seed=0)
    assert len(splits) == 1
    assert notes[-1].startswith("one training in place of folds: fold ")


def polygons_of(shape=(60, 60), each=4):
    """Three classes of `each` polygons of 4 × 4 pixels, 10 apart."""
    index, number = np.full(shape, -1, np.int16), np.full(shape, -1)
    for n in range(3 * each):
        row, col = divmod(n, 5)
        place = np.s_[row * 11 : row * 11 + 4, col * 11 : col * 11 + 4]
        index[place], number[place] = n % 3, n
    return Labels(index, ClassTable.of([1, 2, 3], ["a", "b", "c"]), polygons=number)


def test_polygons_are_dealt_whole_and_evenly():
    labels = polygons_of()
    splits = polygon_folds(labels, np.ones((60, 60), bool), reach=3, folds=4, seed=0)
    tested = np.sum([split.part == TEST for split in splits], axis=0)
    assert np.array_equal(tested, labels.index >= 0)
    for split in splits:
        of_test = {
            (int(n), int(k))
            for n, k in zip(labels.polygons[split.part == TEST], labels.index[split.part == TEST], strict=True)
        }
        assert sorted(k for _, k in of_test) == [0, 1, 2]  # one polygon of each class
        assert not (near(split.part == TRAIN, 3) & (split.part == TEST)).any()


def test_more_folds_than_polygons_of_a_class_are_refused():
    with pytest.raises(InputError, match="class 'a' has 4 polygons, too few for 5 folds"):
        polygon_folds(polygons_of(), np.ones((60, 60), bool), reach=3, folds=5, seed=0)


def test_a_plain_network_and_its_like_are_one_member():
    config = TrainConfig.of_profile("plain").replace({"members": ["plain", "adcdnet", "forest"]})
    assert members_of(config) == ["adcdnet", "forest"]
    assert members_of(TrainConfig().replace({"members": ["plain", "adcdnet"]})) == ["plain", "adcdnet"]


def test_trees_know_no_pan_grid():
    config = TrainConfig().replace({"network": {"grid": "fine"}})
    assert members_of(config) == ["plain"]
    with pytest.raises(InputError, match="which map MS pixels only"):
        members_of(config.replace({"members": ["forest"]}))


def test_unknown_members_are_refused_with_those_that_there_are():
    with pytest.raises(InputError, match=r"adcdnet.*perceptron"):
        TrainConfig().replace({"members": ["oracle"]})


def test_neighbours_and_local_priors_count_in_held_out_answers(labelled_pair):
    result = fitted(labelled_pair, answers={"smooth": 0.0, "local_priors": 0.0})[3]
    smoothed = fitted(labelled_pair, answers={"smooth": 2.0, "local_priors": 0.0})[3]
    a, b = result.results[0].held_out[0], smoothed.results[0].held_out[0]
    assert a.row.size <= b.row.size
    assert np.std(b.likelihoods) < np.std(a.likelihoods)
    one = b.probabilities(np.array([0.5, 0.5]), 1.0, AnswerConfig(local_priors=0.0))
    other = b.probabilities(np.array([0.5, 0.5]), 1.0, AnswerConfig(local_priors=0.75))
    assert np.abs(one - other).max() > 0.01


def held_of(truth, likelihood) -> held_out.HeldOut:
    """One member's answers to a scene of two classes. truth (h, w); likelihood (h, w): of class 1 over class 0."""
    row, col = np.indices(truth.shape).reshape(2, -1)
    both = np.stack([np.zeros(truth.size), likelihood.ravel()]).astype(np.float32)[None]
    return held_out.HeldOut(truth.shape, 1, row, col, truth.ravel().astype(np.int64), both, (0.5, 0.5))


def test_held_out_answers_decide_whether_local_priors_count():
    rng = np.random.default_rng(0)
    choices = [AnswerConfig(local_priors=weight) for weight in (0.0, 0.75)]
    classes = np.repeat([[0, 1]], 96, axis=0).repeat(64, axis=1)  # the west is of class 0, the east of class 1
    weak = (2.0 * classes - 1) + rng.normal(0, 2, classes.shape)
    assert weighed([held_of(classes, weak)], choices).answers.local_priors == 0.75
    # labelled are the few of class 1 in the west and of class 0 in the east: what lies around misleads
    few = rng.random(classes.shape) < 0.02
    truth = np.where(few, 1 - classes, -1)
    strong = np.where(few, 1 - 2.0 * classes, 4 * (2.0 * classes - 1)) + rng.normal(0, 0.5, classes.shape)
    assert weighed([held_of(truth, strong)], choices).answers.local_priors == 0.0


def test_training_ground_is_hidden_from_networks_while_they_answer(labelled_pair):
    """A network sees its training ground's mean in the place of it: other pixels there change nothing."""
    ground, _ = ground_of(labelled_pair)
    part = np.full(ground.pixels[0].valid.shape, TRAIN, np.uint8)
    part[30:50, 20:40] = TEST
    split = Split(part, 10, ())
    config = TrainConfig.of_profile("patch").replace({**CHEAP, "members": ["perceptron"]})
    result = cross_fit(ground, [[split], [split]], config, torch.device("cpu"), jobs=1, progress=lambda *_: None)
    members, pixels = result.results[0].members, ground.pixels[0]
    noise = np.where(part == TRAIN, 777, pixels.ms).astype(np.float32)
    said = [
        held_out.answer(
            members,
            Pixels(ms, pixels.pan, pixels.ms_valid, pixels.pan_valid),
            ground.labels[0],
            split,
            TEST,
            answers=AnswerConfig(),
            statistics=result.results[0].statistics,
            label_shares=(1 / 3,) * 3,
            device=torch.device("cpu"),
        ).likelihoods
        for ms in (pixels.ms, noise)
    ]
    assert said[0].shape[2] > 100
    assert np.array_equal(said[0], said[1])


def of_scenes(*indices) -> tuple[list[LabelledScene], list[np.ndarray]]:
    """Scenes without images, whose labels are these."""
    table = ClassTable.of([1, 2, 3], ["a", "b", "c"])
    scenes = [
        LabelledScene(
            SimpleNamespace(placed=False, grid=SimpleNamespace(transform=Affine.identity(), **size(i))),
            Labels(i, table),
            n,
        )
        for n, i in zip("pqrs", indices, strict=False)
    ]
    return scenes, [np.ones(i.shape, bool) for i in indices]


def size(index) -> dict[str, int]:
    return {"height": index.shape[0], "width": index.shape[1], "crs": None}


def test_three_scenes_are_folds_and_two_are_divided():
    rng = np.random.default_rng(0)
    three = [rng.integers(3, size=(80, 80)).astype(np.int16) for _ in range(3)]
    config = TrainConfig().split
    splits, notes = folds_of(*of_scenes(*three), reach=4, config=config, seed=0)
    assert notes == ("3 folds: there are 3 scenes, each wholly in one fold",)
    tested = [[bool((split.part == TEST).all()) for split in of_fold] for of_fold in splits]
    assert np.array_equal(np.sum(tested, axis=0), [1, 1, 1])  # each scene wholly, in one fold
    splits, notes = folds_of(*of_scenes(*three[:2]), reach=4, config=config, seed=0)
    assert (len(splits), notes) == (5, ())
    assert all((split.part == TRAIN).any() and (split.part == TEST).any() for split in splits[0])


def test_scenes_are_divided_where_one_alone_has_a_class():
    rng = np.random.default_rng(0)
    three = [rng.integers(2, size=(80, 80)).astype(np.int16) for _ in range(3)]
    three[0][rng.random((80, 80)) < 0.3] = 2
    splits, notes = folds_of(*of_scenes(*three), reach=4, config=TrainConfig().split, seed=0)
    assert len(splits) == 5
    assert notes[0].startswith("5 folds, each of all scenes: class 'c' lies in one of 2 folds of scenes only")


def test_a_killed_fold_ends_all_in_one_line(labelled_pair, tmp_path):
    out = tmp_path / "runs" / "run"
    command = [sys.executable, "-m", "adcdnet.cli", "train", "--ms", labelled_pair.ms, "--pan", labelled_pair.pan]
    command += [
        "--labels",
        labelled_pair.labels,
        "--out",
        out,
        "--members",
        "plain",
        "--steps",
        "100000",
        "--jobs",
        "2",
    ]
    with subprocess.Popen(list(map(str, command)), start_new_session=True, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and len(working(process.pid)) < 2:
            time.sleep(0.5)
        assert len(working(process.pid)) == 2
        working(process.pid)[0].kill()
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "train with fewer --jobs, and with --resume to go on" in said
    assert "Traceback" not in said
    assert not out.exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(p.info["cmdline"] or ())]


def working(pid: int) -> list[psutil.Process]:
    """Processes of folds that have computed for some seconds."""
    try:
        children = psutil.Process(pid).children()
        return [p for p in children if "spawn_main" in " ".join(p.cmdline()) and p.cpu_times().user > 4]
    except psutil.Error:
        return []


def test_without_held_out_ground_the_first_member_answers_alone(labelled_pair, tmp_path):
    run = labelled_pair.train(
        tmp_path / "run", members=["perceptron", "boosting"], split={"folds": 1, "validation": 0.0, "block": 14}
    )
    assert [(member.name, member.weight) for member in run.model.members] == [("perceptron", 1.0)]
    assert "no ground is held out to weigh members by: perceptron answers alone" in run.model.record.notes
    assert run.model.temperature == 1


def test_blocks_are_smaller_where_usual_ones_leave_a_class_in_one_place():
    index = np.random.default_rng(0).integers(2, size=(160, 160)).astype(np.int16)
    index[:36, :36] = 2  # within one block of 40, and in several of 20
    splits, notes = folds_of(*of_scenes(index), reach=4, config=TrainConfig().split, seed=0)
    assert (len(splits) > 1, splits[0][0].block < 40) == (True, True), notes
    for of_fold in splits:
        assert set(index[of_fold[0].part == TRAIN]) == {0, 1, 2}
