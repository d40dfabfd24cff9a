"""One seed, one result; what training never sees; how it ends, and what it leaves."""

import copy
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Scene
from adcdnet.mapping.engine import logits_of
from adcdnet.mapping.model import Model
from adcdnet.mapping.predict import predict
from adcdnet.mapping.progress import silent
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
from adcdnet.split.blocks import split_blocks
from adcdnet.split.parts import TEST, TRAIN, VALIDATION
from adcdnet.training.area import TrainingArea
from adcdnet.training.run import train
from adcdnet.training.stages import context
from adcdnet.training.stages.context import labelled_statistics, train_context
from adcdnet.training.stages.loop import History, build_network, repeatable
from adcdnet.training.stages.schedule import DENSE_FROM, schedule_of, suited_to, within_passes
from adcdnet.training.stages.stage1 import train_prior
from adcdnet.training.stages.stage2 import Supervision, losses_of, train_round, train_stage2
from adcdnet.training.stages.validate import validate
from conftest import PIXEL, QUICK

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("few_trials")
FILES = {"config.toml", "history.csv", "inputs.json", "metrics.json", "model.safetensors", "split.tif", "timing.json"}


def history(run) -> list[dict[str, str]]:
    with (run.folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_weights(a: Model, b: Model) -> bool:
    theirs = b.network.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.network.state_dict().items())


# ---- one seed, one result


def test_one_seed_gives_the_same_files_to_the_byte(labelled_pair, quick_run, tmp_path):
    torch.manual_seed(77)  # what happened before does not count
    np.random.seed(77)  # noqa: NPY002
    run = labelled_pair.train(tmp_path / "run")
    for name in FILES - {"timing.json"}:
        assert (run.folder / name).read_bytes() == (quick_run.folder / name).read_bytes(), name
    maps = []
    for k, one in enumerate((run, quick_run)):
        with labelled_pair.open() as scene:
            predict(one, scene, out=tmp_path / f"{k}.tif")
        maps.append((tmp_path / f"{k}.tif").read_bytes())
    assert maps[0] == maps[1]


def test_one_seed_in_patch_sampling(labelled_pair, tmp_path):
    a, b = (labelled_pair.train(tmp_path / name, sampling="patch", seed=4) for name in "ab")
    assert same_weights(a.model, b.model)
    assert history(a) == history(b)


def test_another_seed_gives_other_weights(labelled_pair, quick_run, tmp_path):
    other = labelled_pair.train(tmp_path / "run", seed=1)
    assert not same_weights(quick_run.model, other.model)
    assert history(quick_run) != history(other)


def test_training_leaves_the_global_generator_alone(labelled_pair, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    labelled_pair.train(tmp_path / "run", network={"prior": False})
    assert torch.equal(torch.rand(3), expected)


# ---- what training never sees


def poison(monkeypatch, where, value):
    """From now on every reading of the scene gives `value` at these pixels, in both images."""
    read = Scene.read

    def poisoned(self, window, **options):
        assert window == self.grid.window
        pixels = read(self, window, **options)
        pixels.ms[:, where] = value
        pixels.pan[:, np.kron(where, np.ones((self.ratio, self.ratio), bool))] = value
        return pixels

    monkeypatch.setattr(Scene, "read", poisoned)


def test_the_test_part_has_no_influence(labelled_pair, quick_run, tmp_path, monkeypatch):
    part = read_band(quick_run.folder / "split.tif")[0]
    assert {TEST, VALIDATION} <= set(np.unique(part))
    poison(monkeypatch, part == TEST, 30_000)
    other = labelled_pair.train(tmp_path / "run")
    for name in FILES - {"timing.json"}:
        assert (quick_run.folder / name).read_bytes() == (other.folder / name).read_bytes(), name


def test_the_validation_part_moves_no_weight(labelled_pair, tmp_path, monkeypatch):
    run = labelled_pair.train(tmp_path / "a", validations=1)  # one look, at the end
    part = read_band(run.folder / "split.tif")[0]
    poison(monkeypatch, part == VALIDATION, 30_000)
    other = labelled_pair.train(tmp_path / "b", validations=1)
    assert same_weights(run.model, other.model)


def test_the_training_part_counts(labelled_pair, quick_run, tmp_path, monkeypatch):
    part = read_band(quick_run.folder / "split.tif")[0]
    where = (part == 1) & (np.arange(part.size).reshape(part.shape) % 7 == 0)
    poison(monkeypatch, where, 3000)
    assert not same_weights(quick_run.model, labelled_pair.train(tmp_path / "run").model)


# ---- the two stages


def test_stage_2_leaves_the_prior_as_stage_1_made_it(labelled_pair, tmp_path, monkeypatch):
    made = {}

    def watched(prior, *rest):
        fresh = {name: value.clone() for name, value in prior.state_dict().items()}
        rank = train_prior(prior, *rest)
        made.update({name: value.clone() for name, value in prior.state_dict().items()})
        assert not torch.equal(fresh["ms.backbone.units.0.conv.weight"], made["ms.backbone.units.0.conv.weight"])
        assert not any(p.requires_grad for p in prior.parameters())
        return rank

    monkeypatch.setattr("adcdnet.training.stages.train.train_prior", watched)
    run = labelled_pair.train(tmp_path / "run")
    prior = run.model.network.prior.state_dict()
    assert set(prior) == set(made)
    for name, value in prior.items():
        assert torch.equal(value, made[name]), name
    assert (run.model.network.prior.deviation > 0).all()
    assert not torch.equal(run.model.network.prior.mean, torch.zeros(2, 6))  # measured


def test_raw_masks_are_not_measured(labelled_pair, tmp_path):
    run = labelled_pair.train(tmp_path / "run", network={"prior_mask": "raw"})
    assert torch.equal(run.model.network.prior.mean, torch.zeros(2, 6))
    assert torch.equal(run.model.network.prior.deviation, torch.ones(2, 6))


def test_without_stage_1_there_is_no_prior(labelled_pair, tmp_path):
    run = labelled_pair.train(tmp_path / "run", network={"prior": False})
    assert run.model.network.prior is None
    assert {row["stage"] for row in history(run)} == {"context", "stage2"}


def test_the_context_branch_learns_before_stage_2_which_leaves_it_alone(labelled_pair, tmp_path, monkeypatch):
    fresh, made = {}, {}

    def watched(network, branch, *rest):
        fresh.update({name: value.clone() for name, value in network.state_dict().items()})
        train_context(network, branch, *rest)
        made.update({name: value.clone() for name, value in network.state_dict().items()})
        assert not any(p.requires_grad for p in branch.parameters())

    monkeypatch.setattr("adcdnet.training.stages.train.train_context", watched)
    run = labelled_pair.train(tmp_path / "run")
    changed = {name for name, value in made.items() if not torch.equal(value, fresh[name])}
    assert changed == {f"context_branch.{name}" for name in run.model.network.context_branch.state_dict()}
    for name in changed:
        assert torch.equal(run.model.network.state_dict()[name], made[name]), name


def test_the_context_branch_leaves_the_shares_of_the_classes_to_the_main_branch(labelled_pair, monkeypatch):
    """Of labels that have nothing to do with the images it learns how often the classes come, and does not say so."""
    read = type(labelled_pair).read_labels
    monkeypatch.setattr(
        type(labelled_pair),
        "read_labels",
        lambda self, scene: replace(
            read(self, scene),
            index=np.random.default_rng(0).choice(3, p=[0.8, 0.15, 0.05], size=self.truth.shape).astype(np.int16),
        ),
    )
    network, learning = begun(labelled_pair, stage2={"steps": 100, "batch": 64})
    branch, area, schedule = network.context_branch, learning.area, learning.schedule
    train_context(network, branch, area, learning.config, schedule, np.random.default_rng(2), History())
    with torch.no_grad():
        said = branch(labelled_statistics(network, area, np.random.default_rng(0), CPU)[0]).mean(0)
    expected = torch.tensor(schedule.drawn_shares).log()
    assert expected.max() - expected.min() > 1.5
    assert said.max() - said.min() < 0.5


@pytest.mark.parametrize("grid", ["coarse", "fine"])
def test_the_context_branch_learns_from_labelled_pixels_what_a_patch_shows(labelled_pair, monkeypatch, grid):
    """Its statistics and truths are those of the labelled training pixels, in whatever order; of very many, of some."""
    network, learning = begun(labelled_pair, network={"grid": grid, "sensors": "pan"})
    area = learning.area
    monkeypatch.setattr(context, "MOST_PIXELS", 50)
    assert len(labelled_statistics(network, area, np.random.default_rng(0), CPU)[1]) == 50
    monkeypatch.undo()
    statistics, truth = labelled_statistics(network, area, np.random.default_rng(0), CPU)
    places = area.labelled
    assert len(truth) == len(places) > 1000
    some = places[:: len(places) // 40]
    ms, pan = (torch.from_numpy(np.stack(x)) for x in zip(*(area.patch(r, c) for r, c in some), strict=True))
    expected = network.context_statistics(ms, pan, border=network.config.before).flatten(1)
    for values, (r, c) in zip(expected, some, strict=True):
        k = (statistics - values).abs().sum(1).argmin()
        torch.testing.assert_close(statistics[k], values, rtol=1e-4, atol=1e-4)
        assert truth[k] == area.label[r, c]


def test_every_weight_of_stage_2_moves(labelled_pair, tmp_path, monkeypatch):
    started = {}

    def watched(network, supervision):
        started.update({name: p.detach().clone() for name, p in network.trained_parameters()})
        return train_stage2(network, supervision)

    monkeypatch.setattr("adcdnet.training.stages.train.train_stage2", watched)
    network = labelled_pair.train(tmp_path / "run", stage2={"weight_decay": 0}).model.network
    still = [name for name, p in network.trained_parameters() if torch.equal(p, started[name])]
    assert not still


def test_a_collapse_ends_the_run(labelled_pair, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.training.stages.stage1.effective_rank", lambda _: 1.2)
    with pytest.raises(InputError, match=r"stage I collapsed: after 1 steps .* effective rank 1.20 of 6; raise"):
        labelled_pair.train(tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_constant_image_is_a_collapse(labelled_pair, write_tif, tmp_path):
    flat = write_tif("flat.tif", np.ones((166, 142), np.uint8), pixel=PIXEL / 2)
    with pytest.raises(InputError, match=r"stage I collapsed: .* effective rank 0.00"):
        replace(labelled_pair, pan=flat).train(tmp_path / "run")


# ---- how it ends


def test_the_model_is_the_end_whatever_validation_said_before(labelled_pair, tmp_path, monkeypatch):
    looks = []

    def validated(network, *rest):
        """Half right, all right, then half right for ever."""
        right = [0, 1] if len(looks) == 1 else [0, 0]
        looks.append({name: value.clone() for name, value in network.state_dict().items()})
        confusion = confusion_matrix(np.repeat([0, 1], 20), np.repeat(right, 20), 3)
        return replace(validate(network, *rest), scores=scores(confusion))

    monkeypatch.setattr("adcdnet.training.stages.stage2.validate", validated)
    run = labelled_pair.train(tmp_path / "run", stage2={"steps": 10}, validations=5)
    assert len(looks) == 5
    assert float(history(run)[-1]["validation_kappa"]) == 0
    for name, value in run.model.network.state_dict().items():
        assert torch.equal(value, looks[4][name]), name
    assert not torch.equal(looks[1]["decision.classifier.weight"], looks[4]["decision.classifier.weight"])


def test_it_learns(labelled_pair, tmp_path):
    run = labelled_pair.train(tmp_path / "run", stage2={"steps": 80, "learning_rate": 0.01}, network={"prior": False})
    with labelled_pair.open() as scene:
        predict(run, scene, out=tmp_path / "map.tif")
    test = read_band(run.folder / "split.tif")[0] == TEST
    mapped = read_band(tmp_path / "map.tif")[0]
    assert (mapped == labelled_pair.truth)[test].mean() > 0.9
    assert run.model.record.validation["kappa"] > 0.85


def test_few_labels_are_not_passed_over_for_ever():
    config = TrainConfig.of_profile("patch").replace(
        {"stage2": {"steps": 600, "targets": 128}}
    )  # of patches; 300 of tiles

    def steps(labelled, labels_per_tile, config=config):
        return within_passes(config, config.stage2, labelled, labels_per_tile).steps

    assert steps(250, 50.0) == 118  # ceil(60 · 250 / 128)
    assert steps(150, 4.0) == 282  # 32 pixels a step: ceil(60 · 150 / 32)
    assert steps(20_000, 50.0) == 300
    assert steps(250, None) == 235  # ceil(60 · 250 / 64)
    assert steps(20_000, None) == 600
    assert steps(250, None, config.replace({"passes": 0.0})) == 600


def test_tiles_are_taken_where_labels_lie_close_and_are_not_few(labelled_pair):
    with labelled_pair.open() as scene:
        labels, pixels = labelled_pair.read_labels(scene), scene.read(scene.grid.window)

    def sampling(passes, kept=1.0, asked="auto"):
        stage = {"steps": 50, "batch": 32, "targets": 64}
        config = (
            TrainConfig.of_profile("patch")
            .replace(QUICK)
            .replace({"stage2": stage, "passes": passes, "sampling": asked})
        )
        some = np.where(np.random.default_rng(0).random(labels.index.shape) < kept, labels.index, -1)
        sparse = replace(labels, index=some.astype(np.int16))
        split = split_blocks(sparse, pixels.valid, reach=config.reach, config=config.split, seed=0)
        area = TrainingArea.of(pixels, sparse, split, config=config, ratio=2)
        schedule = schedule_of(area, config)
        assert (schedule.labels_per_tile > DENSE_FROM) == (kept == 1.0)
        return "dense" if schedule.dense else "patch", schedule.stage2.steps, len(area.labelled)

    taken, steps, labelled = sampling(0.0)
    assert (taken, steps) == ("dense", 25)
    assert sampling(25 * 64 / labelled)[:2] == ("dense", 25)  # just enough for all steps of tiles
    assert sampling(24 * 64 / labelled)[:2] == ("patch", 48)  # too few: smaller steps
    assert sampling(24 * 64 / labelled, asked="dense")[:2] == ("dense", 24)
    assert sampling(0.0, kept=0.02)[:2] == ("patch", 50)  # few labels a tile


def begun(labelled_pair, **changes) -> tuple[ADCDNet, Supervision]:
    """A network at its start, and how stage II would teach it."""
    config = TrainConfig.of_profile("patch").replace(QUICK).replace(changes)
    with labelled_pair.open() as scene:
        labels, pixels = labelled_pair.read_labels(scene), scene.read(scene.grid.window)
    split = split_blocks(labels, pixels.valid, reach=config.reach, config=config.split, seed=0)
    step = config.network.targets_per_pixel(2)
    labels = replace(labels, index=labels.index.repeat(step, 0).repeat(step, 1))
    area = TrainingArea.of(pixels, labels, split, config=config, ratio=2)
    network = build_network(config, Layout(ms_bands=4, pan_bands=1, ratio=2, classes=3), CPU)
    rng, schedule = np.random.default_rng(1), schedule_of(area, config)
    return network, Supervision(area=area, config=config, schedule=schedule, rng=rng, history=History())


@pytest.mark.parametrize("sampling", ["patch", "dense"])
def test_mixed_samples_have_mixed_labels(labelled_pair, monkeypatch, sampling):
    network, learning = begun(labelled_pair, sampling=sampling, stage2={"batch": 9, "tiles": 3}, class_balance=0.0)
    calls, drawn, area = [], [], learning.area
    network.eval()
    name = "forward" if sampling == "patch" else "on_tile"
    run, draw = getattr(network, name), getattr(area, "draw_patches" if sampling == "patch" else "draw_tiles")
    monkeypatch.setattr(network, name, lambda *a, **k: calls.append((a, run(*a, **k))) or calls[-1][1])
    monkeypatch.setitem(vars(area), draw.__name__, lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])

    class Generator(np.random.Generator):  # draws evenly, but known
        def random(self, *a, **k):
            return 0.3 if not (a or k) else super().random(*a, **k)

        def permutation(self, x, **k):
            return (
                np.roll(np.arange(x), 1) if isinstance(x, int) and x == len(drawn[0].label) else super().permutation(x)
            )

    losses = losses_of(network, replace(learning, rng=Generator(np.random.PCG64(3))), mixed=True)
    (seen, outputs), (sample,) = calls[0], drawn
    for given, image in zip(seen[:2], (sample.ms, sample.pan), strict=True):
        np.testing.assert_allclose(given, 0.3 * image + 0.7 * np.roll(image, 1, 0), rtol=1e-5, atol=1e-6)
    own, other = (torch.from_numpy(x.copy()) for x in (sample.label, np.roll(sample.label, 1, 0)))
    own, other = (x.flatten() if sampling == "patch" else x[seen[2]] for x in (own, other))
    for loss, logits in zip(losses, outputs, strict=True):
        p = torch.log_softmax(logits, 1) * (1 - learning.config.label_smoothing)
        p += torch.log_softmax(logits, 1).mean(1, keepdim=True) * learning.config.label_smoothing
        expected = 0.0
        for share, truth in ((0.3, own[: len(p)]), (0.7, other[: len(p)])):
            known = truth >= 0
            weight = torch.tensor((1.0, 1.0, 1.0) if sampling == "patch" else learning.schedule.class_weight)[
                truth[known]
            ]
            expected = expected - share * (weight * p[known, truth[known]]).sum() / weight.sum()
        torch.testing.assert_close(loss, expected)
    assert sampling == "patch" or (other < 0).any()  # a tile is mixed with one that is not labelled everywhere


def test_the_last_steps_mix_nothing(labelled_pair, tmp_path, monkeypatch):
    flags = []
    monkeypatch.setattr(
        "adcdnet.training.stages.stage2.losses_of",
        lambda *a, mixed, **k: flags.append(mixed) or losses_of(*a, mixed=mixed, **k),
    )
    labelled_pair.train(tmp_path / "run", stage2={"steps": 10}, mixup=0.6)
    assert flags == [True, True, True, False, False]
    flags.clear()
    labelled_pair.train(tmp_path / "other", stage2={"steps": 10}, mixup=0.0)
    assert not any(flags)


def few_labels(labelled_pair, tmp_path, name="few", counts=(60, 60, 60), progress=silent, **changes):
    """A training on so many labels a class, what its second round drew, and the weights that each round began with."""
    drawn, starts = [], []
    draw = TrainingArea.draw_patches

    def watched(self, rng, count, **k):
        if k.get("guesses"):
            drawn.append((self, k["guessed"], k["guesses"], count))
        return draw(self, rng, count, **k)

    def begin(network, *a, **k):
        starts.append(copy.deepcopy(network.state_dict()))
        return train_round(network, *a, **k)

    with pytest.MonkeyPatch.context() as patch, labelled_pair.open() as scene:
        patch.setattr(TrainingArea, "draw_patches", watched)
        patch.setattr("adcdnet.training.stages.stage2.train_round", begin)
        labels = labelled_pair.read_labels(scene)
        rng = np.random.default_rng(0)
        index = np.full_like(labels.index, -1)
        for k, count in enumerate(counts):
            places = np.argwhere(labels.index == k)
            chosen = places[rng.permutation(len(places))[:count]]
            index[tuple(chosen.T)] = k
        settings = {"stage2": {"steps": 6, "batch": 64}, "passes": 1.0, "split": {"validation": 0.0}}
        config = TrainConfig.of_profile("patch").replace(QUICK).replace(settings).replace(changes)
        run = train(scene, replace(labels, index=index), out=tmp_path / name, config=config, progress=progress)
    return run, drawn, starts


def test_few_labels_are_learnt_again_with_what_the_first_round_says_of_the_rest(labelled_pair, tmp_path):
    run, drawn, starts = few_labels(labelled_pair, tmp_path)
    first, second = starts
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)  # the second starts where the first did
    part = read_band(run.folder / "split.tif")[0]
    area, guessed, guesses, count = drawn[0]
    assert (guesses, count) == (48, 64)
    assert len(drawn) == run.model.record.steps < 6
    on = tuple(guessed.places.T)
    assert (part[on] == TRAIN).all()
    assert (area.label[on] < 0).all()
    assert run.model.record.self_trained == len(guessed.places) == ((part == TRAIN) & (area.label < 0)).sum()
    np.testing.assert_allclose(guessed.probability.sum(1), 1, rtol=1e-5)
    steps = [int(row["step"]) for row in history(run) if row["stage"] == "stage2"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 2 * run.model.record.steps


@pytest.mark.parametrize(
    "changes",
    [{"self_training": 0.0}, {"passes": 0.0}, {"passes": 60.0}, {"sampling": "dense"}, {"counts": (90, 70, 20)}],
)
def test_a_second_round_is_for_few_even_labels_drawn_one_by_one_and_can_be_switched_off(
    labelled_pair, tmp_path, changes
):
    run, drawn, starts = few_labels(labelled_pair, tmp_path, **changes)
    assert (len(drawn), len(starts)) == (0, 1)
    assert run.model.record.self_trained is None


def test_few_labels_are_trained_without_the_parts_of_the_paper(labelled_pair, tmp_path):
    run = few_labels(labelled_pair, tmp_path)[0]
    off = {"network": {"attention": "none", "dtm": False, "prior": False}, "branch_weight": 0.0}
    assert same_weights(run.model, few_labels(labelled_pair, tmp_path, name="plain", **off)[0].model)
    written = TrainConfig.read(run.folder / "config.toml")
    assert written.model_dump() == TrainConfig.model_validate(run.model.record.settings).model_dump()
    assert written == written.for_few_labels()
    assert not [row for row in history(run) if row["stage"] == "stage1"]
    assert sum("without prior, DIA and DTM" in note for note in run.model.record.notes) == 1


@pytest.mark.parametrize("changes", [{"plain_if_few": False}, {"passes": 0.0}])
def test_the_parts_of_the_paper_stay_where_labels_are_many_or_settings_ask_for_them(labelled_pair, tmp_path, changes):
    run = few_labels(labelled_pair, tmp_path, **changes)[0]
    assert run.model.network.prior is not None
    assert run.model.network.dtm
    assert run.model.network.config.attention == "dia"
    assert not [note for note in run.model.record.notes if "without prior" in note]


@pytest.mark.parametrize("profile", ["default", "patch"])
def test_labels_are_few_by_their_passes_alone(profile):
    """Where steps are asked for whatever labels there are, as by `train --steps`, nothing says that these are few."""
    config = TrainConfig.of_profile(profile)
    assert suited_to(1000, 4, config) == config.for_few_labels() != config
    for changes in ({"passes": 0.0}, {"plain_if_few": False}):
        asked = config.replace(changes)
        assert suited_to(1000, 4, asked) == asked


def test_of_very_much_ground_without_labels_some_windows_are_enough(labelled_pair, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.training.stages.stage2.MOST_UNLABELLED", 300)
    monkeypatch.setattr("adcdnet.training.stages.stage2.WINDOW", 16)
    places = few_labels(labelled_pair, tmp_path)[1][0][1].places
    assert 300 <= len(places) < 300 + 16 * 16
    window = places // 16
    assert len(np.unique(window, axis=0)) < 10
    again = few_labels(labelled_pair, tmp_path, name="again")[1][0][1].places
    assert np.array_equal(places, again)


def test_the_first_round_teaches_what_its_map_would_say(labelled_pair, tmp_path):
    """Softmax of the logits that a model of one round has in a map, with the shares in which training met the classes
    in them, where their windows lie in the train part.
    """
    run, drawn, _ = few_labels(labelled_pair, tmp_path)
    model = few_labels(labelled_pair, tmp_path, name="alone", self_training=0.0)[0].model
    with labelled_pair.open() as scene:
        pixels = scene.read(scene.grid.window.grow(model.reach), repeat_edge=True)
        likelihoods = logits_of(model, pixels, engine="dense")
    drawn_shares = np.float32(model.first_network.drawn_shares)[:, None, None]
    expected = torch.softmax(torch.from_numpy(likelihoods + np.log(drawn_shares)), 0).numpy()
    guessed = drawn[0][1]
    part = read_band(run.folder / "split.tif")[0]
    asked = np.zeros(part.shape, bool)
    asked[tuple(guessed.places.T)] = True
    inside = ndimage.minimum_filter(part == TRAIN, 2 * model.reach + 1, mode="nearest")
    averaged = 2 * model.answers.margin + 1  # only neighbours that are asked as well count
    inside &= ndimage.minimum_filter(asked, averaged, mode="constant")
    row, col = guessed.places[inside[tuple(guessed.places.T)]].T
    found = np.full(expected.shape, np.nan)
    found[:, *guessed.places.T] = guessed.probability.T
    assert len(row) > 20
    np.testing.assert_allclose(found[:, row, col], expected[:, row, col], atol=1e-5)


# ---- the ways to run it


@pytest.mark.parametrize(
    "changes",
    [
        {"split": {"validation": 0.0}},
        {"precision": "bf16"},
        {"sampling": "patch"},
        {"sampling": "patch", "network": {"backbone": "mobilenetv3", "squeeze_excite": True}, "validations": 1},
        {"average": 0.0, "augment": False, "label_smoothing": 0.0, "class_balance": 0.0, "spread": 0.0},
        {"branch_weight": 0.0, "network": {"dtm": False, "attention": "none"}},
        {"network": {"head": "flatten", "sensors": "pan"}},
        {"stage1": {"steps": 1}, "stage2": {"steps": 1}},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_settings_that_must_work(labelled_pair, tmp_path, changes):
    run = labelled_pair.train(tmp_path / "run", **changes)
    losses = [float(row["loss"]) for row in history(run)]
    assert np.isfinite(losses).all()
    assert (run.model.record.validation is not None) == (changes.get("split") is None)
    if run.model.network.config.sharable:  # patch by patch takes seconds
        with labelled_pair.open() as scene:
            predict(run.folder, scene, out=tmp_path / "map.tif")
        assert set(np.unique(read_band(tmp_path / "map.tif")[0])) <= {0, 1, 2, 4}


def test_bf16_changes_the_numbers_little(labelled_pair, tmp_path):
    first = [
        next(float(row["loss"]) for row in history(run) if row["stage"] == "stage2")
        for run in (
            labelled_pair.train(tmp_path / p, precision=p, network={"prior": False}) for p in ("float32", "bf16")
        )
    ]
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], rel=0.02)


# ---- what it leaves


def test_the_run_folder(labelled_pair, quick_run):
    run = quick_run
    assert {p.name for p in run.folder.iterdir()} == FILES
    assert TrainConfig.read(run.folder / "config.toml") == TrainConfig.of_profile("patch").replace(QUICK)
    part, grid, nodata = read_band(run.folder / "split.tif")
    with labelled_pair.open() as scene:
        assert (grid.shape, grid.transform) == (scene.grid.shape, scene.grid.transform)
        labels = labelled_pair.read_labels(scene)
    assert nodata == 0
    assert not part[:4, :6].any()
    record = json.loads((run.folder / "metrics.json").read_text())
    for number, name in enumerate(("unused", "train", "validation", "test", "guard")):
        assert record["labelled_pixels"][name] == ((part == number) & (labels.index >= 0)).sum()
    assert set(json.loads((run.folder / "timing.json").read_text())) == {
        "stage1",
        "context",
        "stage2",
        "answers",
        "total",
        "peak_memory_bytes",
    }
    rows = history(run)
    assert [(row["stage"], row["step"]) for row in rows] == [
        *(("stage1", str(k)) for k in (1, 2, 3)),
        *(("context", str(k)) for k in (12, 24, 36)),
        *(("stage2", str(k)) for k in (2, 4, 6)),
    ]
    assert all(float(row["effective_rank"]) > 1.5 for row in rows[:3])
    assert all(row["validation_kappa"] for row in rows[6:])


def test_the_model_knows_its_shares(labelled_pair, quick_run):
    model = quick_run.model
    part = read_band(quick_run.folder / "split.tif")[0]
    labels = read_band(labelled_pair.labels)[0]
    counts = np.array([((labels == value) & (part == 1)).sum() for value in (1, 2, 4)])
    assert model.label_shares == pytest.approx(counts / counts.sum())
    assert model.first_network.drawn_shares == pytest.approx(counts**0.75 / (counts**0.75).sum())
    assert model.classes.names == ("meadow", "rock", "water")


def test_progress_is_told(labelled_pair, tmp_path):
    calls = []
    labelled_pair.train(tmp_path / "run", progress=lambda *call: calls.append(call))
    assert [call[:3] for call in calls] == [
        *(("stage1", k, 3) for k in (1, 2, 3)),
        *(("context", k, 36) for k in (12, 24, 36)),
        *(("stage2", k, 6) for k in (2, 4, 6)),
    ]
    assert "effective_rank" in calls[0][3]
    assert "validation_kappa" in calls[-1][3]


# ---- refusals


def test_the_published_network_needs_ratio_4(labelled_pair, tmp_path):
    config = TrainConfig.of_profile("paper")
    with labelled_pair.open() as scene, pytest.raises(InputError, match=r"has 2 PAN pixels .* needs 4"):
        train(scene, labelled_pair.read_labels(scene), out=tmp_path / "run", config=config)


def test_labels_of_another_scene_are_not_read_past(labelled_pair, tmp_path):
    with labelled_pair.open() as scene:
        labels = labelled_pair.read_labels(scene)
        labels = replace(labels, index=np.full_like(labels.index, -1))
        with pytest.raises(InputError, match="no labelled pixel lies on valid ground"):
            train(scene, labels, out=tmp_path / "run")


def test_on_a_gpu_what_is_not_repeatable_is_switched_off_and_on_again(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")

    def fail(device):
        with repeatable(torch.device(device)):
            raise KeyError(torch.are_deterministic_algorithms_enabled())

    for device, switched in (("cuda", "True"), ("cpu", "False")):
        with pytest.raises(KeyError, match=switched):
            fail(device)
        assert not torch.are_deterministic_algorithms_enabled()
