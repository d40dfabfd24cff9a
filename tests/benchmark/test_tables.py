"""The tables: every labelled pixel counts once, what is kept is not computed again, and what is wrong is one line."""

import csv
import json
import math
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tomli_w
import torch

from adcdnet.benchmark import cell as cells
from adcdnet.benchmark import methods_by_name, pool, trained
from adcdnet.benchmark import tables as benchmarks
from adcdnet.benchmark.cell import Cell
from adcdnet.benchmark.methods_by_name import (
    ABLATIONS,
    ABLATIONS_OF_PAPER,
    ABLATIONS_OF_PATCH,
    OTHER_PROFILES,
    rules_of,
    settings_of,
)
from adcdnet.benchmark.tables import benchmark, markdown
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.local_priors import LocalPriors
from adcdnet.mapping.posterior import posterior
from adcdnet.mapping.smoothing import looks, smooth
from adcdnet.split import folds
from adcdnet.training import workers
from conftest import QUICK

PATCH = {"profile": "patch", **QUICK}


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    monkeypatch.setattr(folds, "_TRIALS", 12)


@pytest.fixture
def here(monkeypatch):
    """Cells are computed in this process: (cell, folder) of each that was."""
    computed = []

    def run(todo, out, *, jobs, elsewhere, progress):
        for cell in todo:
            if not pool._is_kept(cell, out):
                computed.append(cell)
                pool._compute([cell], out)

    monkeypatch.setattr(benchmarks, "run_cells", run)
    return computed


@pytest.fixture
def scene(labelled_pair) -> SceneFiles:
    pair = labelled_pair
    return SceneFiles(name="pair", ms=pair.ms, pan=pair.pan, labels=pair.labels, classes=pair.classes)


@pytest.fixture
def quick(tmp_path) -> str:
    path = tmp_path / "quick.toml"
    path.write_text(tomli_w.dumps(PATCH))
    return str(path)


@pytest.fixture
def other(tmp_path) -> str:
    path = tmp_path / "other.toml"
    path.write_text(tomli_w.dumps({**PATCH, "stage2": {"steps": 80, "tiles": 4, "tile": 16, "learning_rate": 0.01}}))
    return str(path)


def test_a_table_counts_every_labelled_pixel_once_and_keeps_its_cells(
    scene, quick, other, here, tmp_path, labelled_pair
):
    out = tmp_path / "out"
    rows = benchmark([scene], methods=[quick, other], reference=other, out=out, folds=2)
    assert len(here) == 4
    assert [(r.method, r.tau) for r in rows] == [(m, t) for t in (0.0, 0.5, 1.0) for m in ("quick", "other")]
    labelled = 0
    for fold in (0, 1):
        kept = json.loads((out / replace(here[0], fold=fold).file).read_text())
        confusions = np.asarray(kept["confusions"]["1.0"])
        assert confusions[:, :, -1].sum() == 0  # every test pixel has a class
        labelled += confusions.sum()
    with labelled_pair.open() as opened:
        index = labelled_pair.read_labels(opened).index
        valid = opened.read(opened.grid.window).valid
    assert labelled == ((index >= 0) & valid).sum()
    ours, reference = rows[4], rows[5]
    assert reference.difference is None
    assert reference.mean["oa"] > 0.8  # the classes differ in colour
    for name in ("oa", "aa", "kappa", "macro_f1"):
        assert ours.difference[name] == pytest.approx(ours.mean[name] - reference.mean[name])
    assert math.isnan(ours.deviation["oa"])  # one seed
    table = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert float(table[5]["oa"]) == pytest.approx(reference.mean["oa"], abs=1e-5)
    assert f"| other | 2 | {reference.mean['oa']:.3f} |" in (out / "results.md").read_text()
    assert (out / "results.png").read_bytes()[:4] == b"\x89PNG"
    assert table[5]["versions"] == f"adcdnet {version('adcdnet')}, torch {torch.__version__}"
    assert table[4]["scene_hash"] == table[5]["scene_hash"] != ""
    assert table[4]["settings_hash"] != table[5]["settings_hash"]
    assert f"Settings: quick `{table[4]['settings_hash']}`, other `" in (out / "results.md").read_text()
    before = (out / "results.csv").read_bytes()
    benchmark([scene], methods=[quick, other], reference=other, out=out, folds=2)
    assert len(here) == 4
    assert (out / "results.csv").read_bytes() == before


def test_settings_that_have_moved_are_not_computed_again(scene, quick, here, tmp_path):
    before = benchmark([scene], methods=[quick], reference=quick, out=tmp_path / "out", folds=2)
    moved = tmp_path / "elsewhere" / "quick.toml"
    moved.parent.mkdir()
    Path(quick).rename(moved)
    after = benchmark([scene], methods=[str(moved)], reference=str(moved), out=tmp_path / "out", folds=2)
    assert len(here) == 2
    assert [row.mean for row in after] == [row.mean for row in before]


@pytest.mark.parametrize("names", [("a/m.toml", "b/m.toml"), ("forest", "forest.toml"), ("mlp", "mlp")])
def test_two_methods_of_one_name_are_refused(scene, names, tmp_path):
    with pytest.raises(InputError, match=r"two methods go by the name '(m|forest|mlp)'") as caught:
        benchmark([scene], methods=names, reference=names[0], out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_hashes_of_a_scene_and_of_settings_change_with_them(scene, quick, other, tmp_path):
    before = cells.scenes_hash([scene])
    copy = tmp_path / "labels.tif"
    copy.write_bytes(scene.labels.read_bytes())
    assert cells.scenes_hash([scene.model_copy(update={"labels": copy})]) == before
    copy.write_bytes(copy.read_bytes() + b" ")
    assert cells.scenes_hash([scene.model_copy(update={"labels": copy})]) != before
    assert len({methods_by_name.settings_hash(method) for method in (quick, other, "adcdnet", "forest")}) == 4
    assert methods_by_name.settings_hash("forest") == methods_by_name.settings_hash(
        "mlp-alike"
    )  # both are under the common rules


def test_changed_settings_are_computed_again(scene, quick, here, tmp_path):
    cell = Cell((scene,), quick, 0, 0, 0, folds=2)
    before = cell.fingerprint()
    changed = {**PATCH, "label_smoothing": 0.1}
    (tmp_path / "quick.toml").write_text(tomli_w.dumps(changed))
    assert cell.fingerprint() != before


def test_baselines_outlive_changes_of_how_the_network_is_trained(scene, monkeypatch):
    cell = Cell((scene,), "forest", 0, 0, 0, folds=2)
    before, rules = cell.fingerprint(), methods_by_name.GROUND_RULES
    for changes, same in (
        ({"stage2": {"steps": 7}, "network": {"hidden": 32}}, True),
        ({"class_balance": 0.5}, False),
        ({"answers": {"likeness": 0.1}}, False),
        ({"network": {"patch": 17}}, False),
        ({"split": {"validation": 0.2}}, False),
    ):
        monkeypatch.setattr(methods_by_name, "GROUND_RULES", rules.replace(changes))
        assert (cell.fingerprint() == before) is same, changes


def test_few_labels_are_drawn_per_class_and_validate_nothing(scene, quick):
    found = cells.compute(Cell((scene,), quick, 0, 1, 0, folds=2, labels_per_class=7))
    assert found["training_pixels"] == [7, 7, 7]
    everything = cells.compute(Cell((scene,), quick, 0, 1, 0, folds=2))
    assert min(everything["training_pixels"]) > 100
    assert found["parameters"] < everything["parameters"]  # without prior, DIA and DTM, as `train` does it


def test_seeds_repeat(scene, quick):
    first, again, other = (cells.compute(Cell((scene,), quick, 0, 0, seed, folds=2)) for seed in (0, 0, 1))
    assert first["confusions"] == again["confusions"]
    assert first["confusions"] != other["confusions"]


def test_strips_run_from_north_to_south_and_in_the_second_repeat_from_west_to_east(scene, monkeypatch):
    asked = []

    def folds(*_, strips, **__):
        asked.append(strips)
        raise InputError("seen enough")

    monkeypatch.setattr(cells, "block_folds", folds)
    for repeat in (0, 1):
        with pytest.raises(InputError, match="seen enough"):
            cells.compute(Cell((scene,), "forest", repeat, 0, 0, 2, protocol="strips"))
    assert asked == ["rows", "columns"]


def test_the_random_protocol_leaks_and_says_so(scene, quick):
    blocks, pixels = (cells.compute(Cell((scene,), quick, 0, 0, 0, 2, protocol=p)) for p in ("blocks", "random"))
    assert pixels["leakage"]["overlapping"] == 1.0
    assert blocks["leakage"]["holding"] == 0.0


def test_means_and_deviations_are_over_repeats_and_seeds(scene):
    def cell(seed, fold, right, wrong):
        counts = [[[right, wrong, 0], [0, 10, 0]]] * 12
        return {
            **{"scene": "s", "protocol": "blocks", "labels_per_class": None, "method": "m", "repeat": 0, "seed": seed},
            **{"fold": fold, "confusions": {"1.0": counts}, "calibration_error": {"1.0": 0.1}, "training_seconds": 1},
            **{"pixels_per_second": 1, "parameters": 5, "peak_memory_bytes": 1, "leakage": {"overlapping": None}},
            **{"versions": {"adcdnet": "1", "torch": str(fold)}},
        }

    ours = [cell(0, 0, 10, 0), cell(0, 1, 6, 4), cell(1, 0, 10, 0), cell(1, 1, 10, 0)]
    theirs = [cell(seed, fold, 10, 0) for seed in (0, 1) for fold in (0, 1)]
    row = benchmarks._row(ours, theirs, 1.0, is_reference=False, hashes=("a", "b"))
    # seed 0: 36 of 40 pixels right in every place, seed 1 all
    assert row.mean["oa"] == pytest.approx((0.9 + 1) / 2)
    assert row.deviation["oa"] == pytest.approx(0.1 / math.sqrt(2))
    assert row.difference["oa"] == pytest.approx(-0.05)
    assert row.versions == "adcdnet 1, torch 0, torch 1"  # all that took part


def test_a_baseline_answers_as_the_network_does_where_its_name_says_so(scene, monkeypatch):
    given = []

    class Noise:
        drawn_shares, parameters = (0.5, 0.3, 0.2), 0

        def __init__(self, area):
            self.area = area

        def logits(self, pixels, where):
            drawn = np.random.default_rng(0).normal(0, 1, (3, *where.shape)).astype(np.float32)
            seen = looks(*self.area.statistics.standardise(*pixels), 1, sensors="both")
            given.append((np.where(where, drawn, np.nan), seen, self.area.class_counts / self.area.class_counts.sum()))
            return given[-1][0].copy()

    monkeypatch.setitem(trained.METHODS, "noise", lambda area, *_, **__: Noise(area))
    with scene.open() as opened:
        labelled = scene.read_labels(opened.grid).index >= 0
    answers, counted = TrainConfig.of_profile("patch").answers, []
    for name, deviation, weight in (("noise", 0.0, 0.0), ("noise-alike", answers.smooth, answers.local_priors)):
        counts = np.array(cells.compute(Cell((scene,), name, 0, 0, 0, 2))["confusions"]["1.0"]).sum((0, 1))
        drawn, look, shares = given[-1]
        known = ~np.isnan(drawn[0])  # the test ground, labelled or not
        assert (known & ~labelled).any()
        logits = smooth(drawn, look, deviation, answers.likeness)[:, known]
        local = LocalPriors(known.shape, 1, shares, Noise.drawn_shares, weight)
        local.add(logits, *np.nonzero(known))
        mapped = posterior(local.adapt(logits, *np.nonzero(known)), shares, Noise.drawn_shares, tau=1.0).argmax(0)
        counted.append(counts.tolist())
        assert counted[-1] == [*np.bincount(mapped[labelled[known]], minlength=3), 0]  # none without an answer
    assert counted[0] != counted[1]


def test_a_baseline_is_trained_once_for_both_ways_of_reading_it(scene, tmp_path, monkeypatch):
    fits = []
    fit = trained.METHODS["mlp"]
    monkeypatch.setitem(trained.METHODS, "mlp", lambda *a, **k: fits.append(1) or fit(*a, **k, steps=30))

    @contextmanager
    def here(function, calls, **_):  # in this very process
        futures = [Future() for _ in calls]
        for future, call in zip(futures, calls, strict=True):
            future.set_result(function(*call))
        yield futures

    monkeypatch.setattr(pool, "at_work", here)
    todo = [Cell((scene,), method, 0, fold, 0, folds=2) for fold in (0, 1) for method in ("mlp", "mlp-alike")]
    told = []
    pool.run_cells(todo, tmp_path, progress=lambda _, done, of, __: told.append((done, of)))
    assert len(fits) == 2
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for cell in todo:
        kept = json.loads((tmp_path / cell.file).read_text())
        alone = cells.compute(cell)
        assert (kept["method"], kept["fingerprint"]) == (cell.method, cell.fingerprint())
        assert kept["confusions"] == alone["confusions"]
    pool.run_cells(todo, tmp_path)
    assert len(fits) == 6  # four alone, and none again


def test_a_network_is_trained_where_it_is_told_and_its_cell_is_another_one(scene, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "pick_device", lambda name: torch.device("cuda" if name == "auto" else name))
    seen = []

    def stop(todo, *_, **__):
        seen.extend((cell.method, cell.device) for cell in todo)
        raise InterruptedError

    monkeypatch.setattr(benchmarks, "run_cells", stop)
    for device in ("auto", "cpu"):
        with pytest.raises(InterruptedError):
            benchmark([scene], methods=[quick, "forest"], reference="forest", out=tmp_path, folds=2, device=device)
    assert set(seen[:4]) == {(quick, "cuda"), ("forest", "cpu")}
    assert set(seen[4:]) == {(quick, "cpu"), ("forest", "cpu")}
    here, there = (Cell((scene,), quick, 0, 0, 0, 2, device=device) for device in ("cpu", "cuda"))
    assert here.fingerprint() != there.fingerprint()


def test_an_exchanged_part_is_trained_under_the_settings_of_a_file(scene, tmp_path):
    file = tmp_path / "whole.toml"
    file.write_text(TrainConfig.of_profile("patch").replace({**QUICK, "plain_if_few": False}).to_toml())
    methods = str(file), f"cbam+{file}"
    dia, cbam = (cells.compute(Cell((scene,), method, 0, 0, 0, 2))["parameters"] for method in methods)
    sensors = 4 if TrainConfig.read(file).network.prior else 2
    assert cbam - dia == sensors * (98 - 59)


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(scene, quick, tmp_path):
    with pytest.raises(InputError, match="'quantum' cannot be used here"):
        benchmark([scene], methods=[quick], reference=quick, out=tmp_path / "out", device="quantum")
    assert not (tmp_path / "out").exists()


def test_every_named_method_has_settings_that_differ():
    default = TrainConfig().model_dump()
    del (
        default["members"],
        default["local_priors_tried"],
        default["split"]["folds"],
    )  # a network trained by itself knows nothing of these
    for name in ABLATIONS:
        assert (rules_of(name, 0) == default) == (name == "adcdnet"), name
    assert OTHER_PROFILES == ("plain", "patch", "paper", "paper-code")
    for name in OTHER_PROFILES:
        assert settings_of(name, 3) == TrainConfig.of_profile(name).replace({"seed": 3})
    for profile, variants in (("patch", ABLATIONS_OF_PATCH), ("paper", ABLATIONS_OF_PAPER)):
        assert len({json.dumps(rules_of(name, 0)) for name in (profile, *variants)}) == 1 + len(variants)
        assert all(settings_of(name, 0).profile == profile for name in variants)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"methods": ["tree"], "reference": "tree"}, "method 'tree' is not known; choose from adcdnet, "),
        ({"reference": "boosting"}, "reference 'boosting' is not among the methods"),
        ({"folds": 1}, "1 folds leave nothing"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(scene, tmp_path, changes, complaint):
    arguments = {"methods": ["mlp"], "reference": "mlp", "out": tmp_path / "out", **changes}
    with pytest.raises(InputError, match=complaint):
        benchmark([scene], **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("own", [{"part": "test"}, {"split": "split.tif"}])
def test_a_scene_with_a_division_of_its_own_is_refused(scene, tmp_path, own):
    with pytest.raises(
        InputError, match=f"'pair' has a {next(iter(own))} of its own, and folds would divide it otherwise"
    ) as caught:
        benchmark([scene.model_copy(update=own)], methods=["mlp"], reference="mlp", out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_killed_training_is_one_line(scene, quick, tmp_path, monkeypatch):
    def killed(self, *_):
        future = Future()
        future.set_exception(BrokenProcessPool("killed"))
        return future

    monkeypatch.setattr(workers.ProcessPoolExecutor, "submit", killed)
    with pytest.raises(InputError, match="call again with fewer --jobs"):
        benchmark([scene], methods=[quick], reference=quick, out=tmp_path, folds=2)


def test_a_cell_in_a_process_of_its_own(scene, quick, tmp_path):
    rows = benchmark([scene], methods=[quick], reference=quick, out=tmp_path, folds=2, jobs=2)
    assert rows[0].trainings == 2
    assert "### pair, all labels, blocks, tau 0.5" in markdown(rows, reference="quick")


def test_a_training_ends_where_the_benchmark_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text("""
import time
from adcdnet.training.workers import at_work

def train():
    print("training", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with at_work(train, [()], jobs=1, begin=int, arguments=()) as results:
        results[0].result()
""")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline().split() == [b"training"]
        parent.kill()
        assert parent.communicate(timeout=60)[0] == b""  # whoever trains holds it open


def test_a_committee_is_cross_fitted_without_the_ground_that_tests(scene, monkeypatch):
    """Its cell tests the pixels of every other method; what trains never sees them, and answers are of its members."""
    monkeypatch.setattr("adcdnet.training.committee.classifiers._ROUNDS", 5)
    seen = []
    real = trained.cross_fit

    def spy(ground, splits, *rest, **more):
        seen.append((ground, splits))
        return real(ground, splits, *rest, **more)

    monkeypatch.setattr(trained, "cross_fit", spy)
    monkeypatch.setitem(
        methods_by_name.COMMITTEES,
        "committee-of-boosting",
        {"members": ["boosting"], "split": {"folds": 2, "block": 12}},
    )
    cell = Cell((scene,), "committee-of-boosting", 0, 0, 0, folds=2)
    found, other = cells.compute(cell), cells.compute(replace(cell, method="boosting"))
    tested = [np.asarray(each["confusions"]["1.0"]).sum(2) for each in (found, other)]
    assert np.array_equal(*tested)
    ground, splits = seen[0]
    assert len(splits) == 2
    unseen = ~ground.pixels[0].valid
    assert ground.labels[0].index[unseen].max() == -1
    assert unseen.sum() > tested[0].sum()  # the test ground, its guard band and the invalid corner
    assert all((of_fold[0].part[unseen] == 0).all() for of_fold in splits)
    confusion = np.asarray(found["confusions"]["1.0"]).sum(0)
    assert np.trace(confusion) / confusion.sum() > 0.8  # the classes differ in colour


@pytest.fixture
def three(labelled_pair, tmp_path) -> tuple[SceneFiles, ...]:
    """The same ground three times, with a name and labels of its own each."""
    pair = labelled_pair
    with rasterio.open(pair.labels) as source:
        labels, profile = source.read(1), source.profile
    scenes = []
    for k, name in enumerate("abc"):
        path = tmp_path / f"{name}.tif"
        own = labels.copy()
        own[:, : 10 * k] = 0  # fewer each
        with rasterio.open(path, "w", **profile) as file:
            file.write(own, 1)
        scenes.append(SceneFiles(name=name, ms=pair.ms, pan=pair.pan, labels=path, classes=pair.classes))
    return tuple(scenes)


def labels_of(scene: SceneFiles) -> np.ndarray:
    """Class indices of the valid pixels, −1 elsewhere."""
    with scene.open() as opened:
        valid = opened.read(opened.grid.window).valid
        return np.where(valid, scene.read_labels(opened.grid).index, -1)


def test_whole_scenes_are_tested_in_turn_by_what_learnt_from_the_others(three, here, tmp_path):
    rows = benchmark(three, methods=["boosting"], reference="boosting", out=tmp_path, folds=5, protocol="scenes")
    cells_kept = [json.loads((tmp_path / cell.file).read_text()) for cell in here]
    assert len(cells_kept) == 3  # no more folds than scenes
    assert {r.scene for r in rows} == {"a-to-c"}
    counts = [int((labels_of(scene) >= 0).sum()) for scene in three]
    tested = [int(np.asarray(kept["confusions"]["1.0"]).sum()) for kept in cells_kept]
    assert sorted(tested) == sorted(counts)
    for kept, own in zip(cells_kept, tested, strict=True):
        assert sum(kept["training_pixels"]) in [n for n in counts if n != own]  # another one validates
        assert kept["leakage"]["holding"] == 0.0


def test_scenes_that_say_what_tests_are_tested_once(three, here, tmp_path):
    a, b, c = three
    given = (
        a.model_copy(update={"part": "train"}),
        b.model_copy(update={"part": "test"}),
        c.model_copy(update={"part": "train"}),
    )
    rows = benchmark(given, methods=["boosting"], reference="boosting", out=tmp_path, protocol="given")
    assert len(here) == 1
    kept = json.loads((tmp_path / here[0].file).read_text())
    truth = labels_of(b)
    assert np.asarray(kept["confusions"]["1.0"]).sum((0, 2)).tolist() == np.bincount(truth[truth >= 0]).tolist()
    assert sum(kept["training_pixels"]) == sum(int((labels_of(scene) >= 0).sum()) for scene in (a, c))
    assert rows[-1].mean["oa"] > 0.8  # the same ground, of which it saw the colours


def test_a_network_and_a_committee_learn_from_several_scenes(three, quick, monkeypatch):
    monkeypatch.setattr("adcdnet.training.committee.classifiers._ROUNDS", 5)
    monkeypatch.setitem(
        methods_by_name.COMMITTEES, "committee-of-boosting", {"members": ["boosting"], "split": {"folds": 2}}
    )
    found = [cells.compute(Cell(three, method, 0, 0, 0, 3, "scenes")) for method in (quick, "committee-of-boosting")]
    tested = [np.asarray(each["confusions"]["1.0"]).sum(2) for each in found]
    assert np.array_equal(*tested)
    for each in found:
        confusion = np.asarray(each["confusions"]["1.0"]).sum(0)
        assert np.trace(confusion) / confusion.sum() > 0.7


def test_few_labels_are_drawn_over_all_scenes_that_train(three):
    found = cells.compute(Cell(three, "mlp", 0, 0, 0, 3, "scenes", labels_per_class=7))
    assert found["training_pixels"] == [7, 7, 7]


@pytest.mark.parametrize(
    ("scenes", "protocol", "complaint"),
    [
        (1, "scenes", "one scene cannot be trained on and tested; name two or more"),
        (3, "given", "no scene has a part or a split that says what is tested; give them"),
    ],
)
def test_scenes_that_a_protocol_cannot_test_are_refused(three, tmp_path, scenes, protocol, complaint):
    with pytest.raises(InputError, match=complaint):
        benchmark(three[:scenes], methods=["mlp"], reference="mlp", out=tmp_path / "out", protocol=protocol)
    assert not (tmp_path / "out").exists()
