"""Ctrl-C, SIGTERM and SIGHUP alike: one line, exit code 130, nothing replaced, and how to go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adcdnet.config import TrainConfig
from adcdnet.files import MODEL_FILE
from conftest import QUICK

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
SAID = "adcdnet: stopped; the same command with --resume goes on from what is finished\n"


@pytest.fixture(scope="module")
def command(labelled_pair, tmp_path_factory):
    """A training of two folds at once, without its --out; it takes some seconds."""
    settings = tmp_path_factory.mktemp("settings") / "settings.toml"
    changes = {"split": {"folds": 2, "block": 14}, "stage2": {"steps": 120}, "passes": 0.0, "validations": 1}
    settings.write_text(TrainConfig.of_profile("patch").replace(QUICK).replace(changes).to_toml())
    files = ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--labels", labelled_pair.labels]
    words = [sys.executable, "-m", "adcdnet.cli", "train", *files, "--config", settings]
    return [*map(str, words), "--jobs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    """The run of that training."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run([*command, "--out", out], check=True, stdout=subprocess.DEVNULL)
    return out


def stopped(command: list[str], out: Path, number: int, *, group: bool) -> tuple[int, str, float]:
    """Exit code, what was said, and seconds until the end, of a training that a signal meets once something is kept.

    group: all processes get it, as from a terminal. It comes twice.
    """
    kept = out.with_name(f".{out.name}.training")
    words = [*command, "--out", str(out)]
    with subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and not list(kept.glob("*.safetensors")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        started = time.monotonic()
        (os.killpg if group else os.kill)(process.pid, number)
        if number != signal.SIGKILL:
            time.sleep(0.02)
            (os.killpg if group else os.kill)(process.pid, number)
        process.wait(timeout=30)
        notes, _, said = process.stderr.read().rpartition("disk\n")  # what the training needs, first
        assert notes.startswith("note: the training needs at least ") or not notes
        return process.returncode, said, time.monotonic() - started


@pytest.mark.parametrize(
    ("name", "group"), [("SIGINT", True), ("SIGTERM", False), ("SIGHUP", True), ("SIGKILL", False)]
)
def test_a_stopped_training_goes_on_to_the_same_model(command, undisturbed, tmp_path, name, group):
    out = tmp_path / "run"
    code, said, seconds = stopped(command, out, getattr(signal, name), group=group)
    if name == "SIGKILL":
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert SAID in said  # after SIGHUP, Python's own helper process that died of it is mourned too
        assert seconds < 8  # 5 on a machine that is not busy
        assert not out.exists()
    subprocess.run([*command, "--out", out, "--resume"], check=True, stdout=subprocess.DEVNULL)
    assert (out / MODEL_FILE).read_bytes() == (undisturbed / MODEL_FILE).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_single_split_stopped_leaves_an_older_run_as_it_was(command, undisturbed, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for path in undisturbed.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    single = [*command, "--folds", "1", "--steps", "100000"]
    code, said, _ = stopped(single, out, signal.SIGTERM, group=False)
    assert (code, said) == (130, SAID)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in undisturbed.iterdir()}


def test_a_signal_that_is_ignored_stays_so():
    """As by nohup."""
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from adcdnet.cli.stop import signals_taken\n"
    )
    code += "with signals_taken():\n    os.kill(os.getpid(), signal.SIGHUP)\n    print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"


def test_a_library_that_is_deaf_to_signals_does_not_keep_the_command():
    code = "import hashlib\nfrom adcdnet.cli import stop\nstop._ENDING = 0.5\n"
    code += "with stop.signals_taken():\n    print('deaf', flush=True)\n"
    code += "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # minutes in C
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "deaf\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    from adcdnet.cli.stop import signals_taken

    with signals_taken():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_stopped_prediction_says_how_to_go_on_if_its_tiles_last(
    call, monkeypatch, quick_run, labelled_pair, tmp_path, resume
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("adcdnet.mapping.predict._write_map", interrupt)
    files = ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--out", tmp_path / "map.tif"]
    code, out, err = call("predict", quick_run.folder, *files, *(["--resume"] if resume else []))
    how = "; the same command goes on from the finished tiles" if resume else ""
    assert (code, out, err) == (130, "", f"adcdnet: stopped{how}\n")


def test_a_folder_of_other_files_is_refused(call, labelled_pair):
    folder = labelled_pair.ms.parent
    before = {path.name for path in folder.iterdir()}
    files = ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--labels", labelled_pair.labels]
    code, _, err = call("train", *files, "--out", folder)
    assert code == 1
    assert "holds files that are no run" in err
    assert err.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == before


def test_what_was_stopped_in_the_comparison_is_a_whole_run(call, labelled_pair, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("adcdnet.benchmark.random_split.compare_random", interrupt)
    settings = tmp_path / "settings.toml"
    settings.write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    files = ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--labels", labelled_pair.labels]
    code, _, err = call("train", *files, "--out", tmp_path / "run", "--config", settings, "--compare-random")
    assert code == 130
    assert f"adcdnet: stopped; the run {tmp_path / 'run'} is whole, only the comparison is missing\n" in err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"]
