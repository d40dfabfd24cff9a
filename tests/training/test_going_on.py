"""A training that is killed and goes on leaves what an undisturbed one leaves, and replaces nothing before."""

import _thread
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adcdnet.assess.evaluate import evaluate
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.files import HeldFolder
from adcdnet.mapping.model import Model
from adcdnet.report.sources import read_run
from adcdnet.split.parts import check_of_model
from adcdnet.training.checkpoints import Checkpoints, Piece, held_beside
from adcdnet.training.committee import classifiers
from adcdnet.training.folder import require_run_folder, whole_run
from adcdnet.training.needs import needs_of
from adcdnet.training.prepare import prepare
from adcdnet.training.run import train
from adcdnet.training.scenes import LabelledScene
from adcdnet.training.stages import loop
from conftest import QUICK, left_by_a_killed_process

pytestmark = pytest.mark.usefixtures("few_trials")
SEVERAL = {"members": ["adcdnet", "boosting", "perceptron"], "split": {"folds": 2, "block": 14}, "validations": 99}
SAME = {"model.safetensors", "config.toml", "history.csv", "metrics.json", "inputs.json"}


class Killed(BaseException):
    """As a kill: nothing catches it. All that is on disk then is what a kill would leave."""


@pytest.fixture(autouse=True)
def every_step_is_kept(monkeypatch):
    monkeypatch.setattr(loop, "LEAST", -math.inf)
    monkeypatch.setattr(loop, "SHARE", math.inf)
    monkeypatch.setattr(classifiers, "_ROUNDS", 5)
    monkeypatch.setattr(classifiers, "_STEPS", 60)
    monkeypatch.setattr("adcdnet.metrics.intervals._RESAMPLES", 50)
    monkeypatch.setattr("adcdnet.split.folds._TRIALS", 30)


@pytest.fixture(scope="module")
def few(labelled_pair):
    """A training of one fold with two rounds of stage II: few, even labels."""

    def run(out: Path, *, progress=lambda *_: None, resume: bool = False, **changes):
        with labelled_pair.open() as scene:
            labels = labelled_pair.read_labels(scene)
            rng, index = np.random.default_rng(0), np.full_like(labels.index, -1)
            for k in range(3):
                places = np.argwhere(labels.index == k)
                index[tuple(places[rng.permutation(len(places))[:60]].T)] = k
            settings = {"stage2": {"steps": 12, "batch": 64}, "passes": 4.0, "validations": 99, "plain_if_few": False}
            config = TrainConfig.of_profile("patch").replace(QUICK).replace(settings).replace(changes)
            few = replace(labels, index=index)
            return train(scene, few, out=out, config=config, device="cpu", jobs=1, progress=progress, resume=resume)

    return run


@pytest.fixture(scope="module")
def several(labelled_pair):
    """A training of two folds, each of three members, and of two of these on all labels."""

    def run(out: Path, *, progress=lambda *_: None, resume: bool = False, **changes):
        with labelled_pair.open() as scene:
            config = TrainConfig.of_profile("patch").replace(QUICK).replace(SEVERAL).replace(changes)
            labels = labelled_pair.read_labels(scene)
            return train(scene, labels, out=out, config=config, device="cpu", jobs=1, progress=progress, resume=resume)

    return run


def kill_at(call: int):
    """A progress that kills at the call of this number."""
    calls = iter(range(10_000))

    def progress(*_):
        if next(calls) == call:
            raise Killed

    return progress


def kept(out: Path) -> Path:
    return out.with_name(f".{out.name}.training")


def contents(out: Path, names=SAME) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in names}


# ---- the same model after any kill


@pytest.mark.parametrize("kind", ["few", "several"])
def test_a_training_killed_again_and_again_leaves_the_same_run(kind, request, tmp_path):
    training = request.getfixturevalue(kind)
    calls = []
    whole = training(tmp_path / "whole" / "run", progress=lambda *told: calls.append(told))
    looks = len(calls)
    assert looks >= 12
    out = tmp_path / "killed" / "run"
    for last in range(3, 20 * looks, 5):  # what was kept is told again, so that each call needs a few looks more
        try:
            training(out, progress=kill_at(last), resume=True)
            break
        except Killed:
            assert not out.exists()
            assert list(kept(out).glob("*.safetensors"))
    else:
        pytest.fail("it never ends")
    assert contents(out) == contents(whole.folder)
    for raster in whole.folder.glob("*.tif"):
        assert (out / raster.name).read_bytes() == raster.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_what_is_kept_of_a_member_is_that_member(several, tmp_path):
    """Its second training does not learn: all is told at once, and the answers are the same."""
    whole = several(tmp_path / "whole" / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "clear", lambda _: None)
        several(tmp_path / "run")
        patch.setattr("adcdnet.training.committee.folds.train_network", None)
        patch.setattr("adcdnet.training.committee.folds.FITS", dict.fromkeys(classifiers.FITS))
        patch.setattr("adcdnet.training.committee.folds.answer", None)
        calls = []
        again = several(tmp_path / "run", progress=lambda *told: calls.append(told[:3]), resume=True)
    assert contents(again.folder) == contents(whole.folder)
    assert calls[-1] == ("members", 3, 3)  # of two folds and of all labels


def test_a_damaged_piece_is_made_anew(few, tmp_path):
    whole = few(tmp_path / "whole" / "run")
    out = tmp_path / "run"
    with pytest.raises(Killed):
        few(out, progress=kill_at(8))
    pieces = sorted(kept(out).glob("*stage2*"))
    assert pieces
    for piece in pieces:
        content = bytearray(piece.read_bytes())
        content[-1] ^= 1  # the last value of a tensor
        piece.write_bytes(content)
    (kept(out) / "fold1-adcdnet-stage1.safetensors").write_bytes(b"\xff")
    few(out, resume=True)
    assert contents(out) == contents(whole.folder)


def test_pieces_are_data_and_come_back_to_the_bit(tmp_path):
    pieces = Checkpoints(tmp_path, "f")
    arrays = {"x": torch.tensor([1.5, float("nan"), -0.0]), "n": torch.tensor(7), "b": torch.zeros(0, dtype=torch.bool)}
    pieces.keep("a", Piece(arrays, {"rng": 2**127 + 1, "third": 1 / 3}))
    found = Checkpoints(tmp_path, "f").find("a")
    assert found.figures == {"rng": 2**127 + 1, "third": 1 / 3}
    for name, array in arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].numpy().tobytes() == array.numpy().tobytes()
    assert Checkpoints(tmp_path, "g").find("a") is None
    assert pieces.find("b") is None
    file = tmp_path / "a.safetensors"
    for place, name in ((-1, "a value"), (file.read_bytes().index(b"third"), "a figure")):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        (tmp_path / "b.safetensors").write_bytes(content)
        assert pieces.find("b") is None, name


# ---- what an earlier training left


@pytest.mark.parametrize("changes", [{"seed": 1}, {"stage2": {"steps": 11}}, {"label_smoothing": 0.0}])
def test_what_is_kept_of_another_training_is_refused(few, tmp_path, changes):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        few(out, progress=kill_at(5))
    pieces = contents(kept(out), {path.name for path in kept(out).glob("*.safetensors")})
    with pytest.raises(InputError, match=r"is of another training: .* leave out --resume to begin anew"):
        few(out, resume=True, **changes)
    assert contents(kept(out), pieces) == pieces


def test_other_labels_images_or_a_model_to_begin_from_make_another_training(several, few, labelled_pair, tmp_path):
    config = TrainConfig.of_profile("patch").replace(QUICK)
    cpu = torch.device("cpu")
    with labelled_pair.open() as scene:
        labels = labelled_pair.read_labels(scene)
        prepared = prepare([LabelledScene(scene, labels)], config, None)
        index = labels.index.copy()
        place = tuple(np.argwhere((index == 1) & (prepared.splits[0][0].part == 1))[0])
        index[place] = 2
        relabelled = prepare([LabelledScene(scene, replace(labels, index=index))], config, None)
        again = prepare([LabelledScene(scene, labels)], config, None)
    pixels = prepared.ground.pixels[0]
    brighter = replace(prepared, ground=replace(prepared.ground, pixels=[pixels._replace(pan=pixels.pan + 1)]))
    model = few(tmp_path / "run").model
    seen = [p.fingerprint(None, cpu) for p in (prepared, relabelled, brighter)]
    seen += [prepared.fingerprint(model, cpu), prepared.fingerprint(None, torch.device("cuda"))]
    assert len(set(seen)) == 5
    assert again.fingerprint(None, cpu) == seen[0]


def test_without_resume_all_begins_anew(few, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        few(out, progress=kill_at(5))
    calls = []
    few(out, progress=lambda *told: calls.append(told[:2]))
    assert calls[0] == ("stage1", 1)
    assert not kept(out).exists()


def test_two_trainings_into_one_run_are_told_of_each_other(few, tmp_path):
    out = tmp_path / "run"
    said = []

    def meanwhile(*_):
        with pytest.raises(InputError, match="another training works on") as error:
            few(out, resume=True)
        said.append(str(error.value))
        raise Killed

    with pytest.raises(Killed):
        few(out, progress=meanwhile)
    assert f"process {os.getpid()} on " in said[0]
    assert "\n" not in said[0]
    few(out, resume=True)


def test_nothing_stays_where_nothing_was_finished(tmp_path):
    with pytest.raises(Killed), held_beside(tmp_path / "runs" / "run"):
        raise Killed
    assert not list(tmp_path.iterdir())


# ---- an older run


def test_an_older_run_stays_whole_until_the_new_one_is(few, tmp_path):
    out = tmp_path / "run"
    few(out)
    before = contents(out, {path.name for path in out.iterdir()})
    for call in (0, 4, 10):
        with pytest.raises(Killed):
            few(out, progress=kill_at(call), seed=1)
        assert contents(out, {path.name for path in out.iterdir()}) == before
    few(out, seed=1, resume=True)
    assert contents(out, {"model.safetensors"}) != before["model.safetensors"]


def killed_between_moves(monkeypatch, moves: int):
    """The process ends after so many files of a run are in place."""
    count = iter(range(100))
    move = Path.replace

    def replace_or_die(self, target):
        if self.parent.parent.name.endswith(".part") and target.parent != self.parent and next(count) == moves:
            raise Killed
        return move(self, target)

    monkeypatch.setattr(Path, "replace", replace_or_die)


@pytest.mark.parametrize("moves", [0, 1, 3, 6])
def test_files_of_two_trainings_are_not_read_as_one_run(few, labelled_pair, tmp_path, monkeypatch, moves):
    out = tmp_path / "run"
    few(out)
    before = contents(out, {path.name for path in out.iterdir()})
    with monkeypatch.context() as patch:
        killed_between_moves(patch, moves)
        with pytest.raises(Killed):
            few(out, label_smoothing=0.0)
    assert (out / "model.safetensors").read_bytes() == before["model.safetensors"]
    Model.load(out)
    if moves == 0:
        assert contents(out, before) == before
        check_of_model(out / "split.tif")
    else:
        with pytest.raises(InputError, match="of two trainings"):
            read_run(out, {})
        with pytest.raises(InputError, match="of two trainings"):
            evaluate(labelled_pair.labels, labelled_pair.labels, split=out / "split.tif", part="test")
    calls = []
    few(out, label_smoothing=0.0, progress=lambda *told: calls.append(told), resume=True)
    assert [call[0] for call in calls] == ["stage1", "context", "stage2"]  # as they were kept
    check_of_model(out / "split.tif")
    assert (out / "model.safetensors").read_bytes() != before["model.safetensors"]


def test_ctrl_c_between_two_moves_waits_for_the_last(tmp_path, monkeypatch):
    move = Path.replace

    def interrupted(self, target):
        if self.name == "split.tif":
            _thread.interrupt_main()
        return move(self, target)

    names = {"split.tif", "model.safetensors", "metrics.json"}

    def write():
        with whole_run(tmp_path / "run") as part:
            for name in names:
                (part / name).write_text("")

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert {path.name for path in (tmp_path / "run").iterdir()} == names


def test_what_killed_runs_left_inside_goes_with_the_next_start(tmp_path):
    left = left_by_a_killed_process(tmp_path / ".x.part")
    held = HeldFolder.make(tmp_path, ".", ".part")
    with whole_run(tmp_path):
        assert not left.exists()
        assert held.path.exists()
    held.remove()


def test_a_folder_of_other_files_is_no_place_for_a_run(tmp_path):
    require_run_folder(tmp_path / "new")
    require_run_folder(tmp_path)
    (tmp_path / ".hidden").write_text("")
    require_run_folder(tmp_path)
    (tmp_path / "split.tif").write_text("mine")
    with pytest.raises(InputError, match=r"holds files that are no run, such as .*; name a new or an empty folder"):
        require_run_folder(tmp_path)
    (tmp_path / ".x.part").mkdir()  # of a run that was killed as it ended
    require_run_folder(tmp_path)
    (tmp_path / ".x.part").rmdir()
    (tmp_path / "model.safetensors").write_text("")
    require_run_folder(tmp_path)


def test_a_raster_that_was_copied_beside_another_model_is_known(few, tmp_path):
    one, two = few(tmp_path / "one"), few(tmp_path / "two", seed=1)
    check_of_model(one.split())
    shutil.copy(one.split(), two.split())
    with pytest.raises(InputError, match="of two trainings"):
        check_of_model(two.split())
    shutil.copy(one.split(), tmp_path / "split.tif")
    check_of_model(tmp_path / "split.tif")  # beside no model


# ---- what a training needs


def test_what_is_needed_grows_with_images_labels_and_processes(labelled_pair):
    with labelled_pair.open() as scene:
        one = LabelledScene(scene, labelled_pair.read_labels(scene))
    config = TrainConfig().replace({"members": ["adcdnet", "boosting"]})
    images = 4 * 83 * 71 * (4 + 4)
    alone = needs_of([one], config.replace({"split": {"folds": 1}}), 3)
    assert (alone.processes, alone.memory) == (1, 350 * 2**20 + 2 * images)
    assert alone.disk == 4 * (one.labels.index >= 0).sum() * 3 * (1 + 2)
    three = needs_of([one, one], config, 3)
    assert (three.processes, three.memory) == (3, 4 * 350 * 2**20 + 7 * 2 * images)
    assert three.disk == 2 * alone.disk
    assert needs_of([one], config, 99).processes == 5


def test_a_disk_that_is_too_full_is_refused_before_any_work(few, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: (10**12, 10**12 - 1000, 1000))
    with pytest.raises(InputError, match=r"has 0.0 GB free, the training needs .* GB at least; make room, or choose"):
        few(tmp_path / "runs" / "run")
    assert not list(tmp_path.iterdir())
