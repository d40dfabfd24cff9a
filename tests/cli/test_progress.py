"""Progress for another program: `--progress json`, before the command or behind it, writes a line of JSON a step."""

import json
import subprocess
import sys

import pytest

from adcdnet.cli import console
from adcdnet.config import TrainConfig
from conftest import QUICK


@pytest.fixture
def training(labelled_pair, few_trials, tmp_path):
    """Words of a training that takes a second."""
    settings = tmp_path / "settings.toml"
    settings.write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    files = ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--labels", labelled_pair.labels]
    return ["train", *files, "--config", settings, "--device", "cpu"]


def steps_in(err):
    return [json.loads(line) for line in err.splitlines() if line.startswith("{")]


def test_every_step_is_a_line_and_notes_stay_words(call, training, labelled_pair, tmp_path):
    code, _, err = call(*training, "--out", tmp_path / "run", "--progress", "json")
    assert code == 0, err
    told = steps_in(err)
    last = {step["stage"]: step for step in told}
    assert {"stage1", "stage2"} <= set(last)
    assert all(step["step"] == step["steps"] > 0 for step in last.values())
    assert any("loss" in name for step in told for name in step)
    assert all(line.startswith(("{", "note: ")) for line in err.splitlines())
    pair = ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--out", tmp_path / "map.tif"]
    code, _, err = call("--progress=json", "predict", tmp_path / "run", *pair)
    assert code == 0, err
    *_, last = steps_in(err)
    assert last == {"stage": "map", "step": 83 * 71, "steps": 83 * 71}


def test_without_it_a_pipe_gets_no_progress(call, training, tmp_path):
    code, _, err = call(*training, "--out", tmp_path / "run")
    assert code == 0, err
    assert steps_in(err) == []


def test_a_figure_that_is_no_number_is_null_and_a_name_is_one_line(capsys):
    console.write_progress("a\nb\x1b[2J", 1, 2, {"loss": float("nan"), "oa": 0.5})
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert json.loads(err) == {"stage": "a\nb\\x1b[2J", "step": 1, "steps": 2, "loss": None, "oa": 0.5}


@pytest.mark.parametrize("words", [["--progress", "bar"], ["--progress"], ["--progress=x"]])
def test_another_word_is_wrong_use(words):
    done = subprocess.run([sys.executable, "-m", "adcdnet.cli", "doctor", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not one of 'bars', 'json'" in " ".join(done.stderr.replace("│", "").split())
