"""Where results go: names that no file can have, and streams that cannot hold every letter."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

MADE = {  # commands that write a file, as far as the option under test
    "check": ("--ms", "ms.tif", "--pan", "pan.tif"),
    "scenes": (".",),
    "acquire": ("--bbox", "9,50,10,51", "--dates", "2024-06-15"),
    "align": ("--ms", "ms.tif", "--pan", "pan.tif"),
    "predict": ("run", "--ms", "ms.tif", "--pan", "pan.tif"),
    "sample": ("--map", "map.tif", "--n", "9"),
    "evaluate": ("--map", "map.tif", "--labels", "labels.tif"),
    "explain": ("run", "--ms", "ms.tif", "--pan", "pan.tif", "--labels", "labels.tif"),
    "report": ("run",),
    "doctor": (),
}


@pytest.mark.parametrize("name", ["", ".", "/", ".."])
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("check", ("--json",)),
        ("scenes", ("--out",)),
        ("acquire", ("--list",)),
        ("align", ("--out",)),
        ("predict", ("--out",)),
        ("predict", ("--out", "map.tif", "--probabilities")),
        ("sample", ("--out",)),
        ("evaluate", ("--json",)),
        ("explain", ("--out",)),
        ("explain", ("--out", "why.png", "--json")),
        ("report", ("--out",)),
        ("doctor", ("--json",)),
    ],
)
def test_a_folder_is_no_name_of_a_file(call, quick_run, labelled_pair, tmp_path, monkeypatch, command, options, name):
    monkeypatch.chdir(tmp_path)
    files = {"run": quick_run.folder, "ms.tif": labelled_pair.ms, "pan.tif": labelled_pair.pan}
    code, _, err = call(command, *(files.get(word, word) for word in MADE[command]), *options, name)
    assert (code, err.count("\n")) == (1, 1)
    assert f"{name or '.'!r} is a folder; name a file to write".replace("''", "'.'") in err
    assert list(tmp_path.iterdir()) == []


def test_figures_are_written_and_shown_where_the_stream_has_no_arrows(write_tif, tmp_path):
    """As on Windows, where a pipe is in the code page 1252."""
    values = np.ones((13, 11), np.uint8)
    values[5:] = 2
    labels, mapped = write_tif("labels.tif", values), write_tif("map.tif", values)
    call = [sys.executable, "-m", "adcdnet.cli", "evaluate", "--map", mapped, "--labels", labels, "--json", "e.json"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "labels ? map ?" in done.stdout.decode("cp1252")
    assert json.loads((tmp_path / "e.json").read_text("utf-8"))["oa"] == 1
