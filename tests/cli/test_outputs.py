"""Where results go: names that no file can have, and streams that cannot hold every letter."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from adcdnet.benchmark.tables import benchmark
from adcdnet.demo.run import write_scene
from adcdnet.errors import InputError
from adcdnet.geo.scene import Scene
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.predict import predict

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


# ---- files that a command reads, and those of a run


@pytest.fixture
def desk(quick_run, labelled_pair, tmp_path, monkeypatch):
    """A folder with all that commands read, and a map of it, as the folder that they are called in."""
    shutil.copytree(quick_run.folder, tmp_path / "run")
    for file in (labelled_pair.ms, labelled_pair.pan, labelled_pair.labels, labelled_pair.classes):
        shutil.copy(file, tmp_path)
    (tmp_path / "prior.csv").write_text("value,share\n1,1\n2,1\n4,1\n")
    (tmp_path / "scenes.toml").write_text(
        '[[scene]]\nname = "a"\nms = "ms.tif"\npan = "pan.tif"\n\n[[scene]]\nname = "labels"\nms = "ms.tif"\n'
        'pan = "pan.tif"\nlabels = "labels.tif"\n'
    )
    inputs = json.loads((tmp_path / "run" / "inputs.json").read_text())
    for name in ("ms", "pan", "labels"):
        inputs[name]["path"] = str(tmp_path / f"{name}.tif")
    (tmp_path / "run" / "inputs.json").write_text(json.dumps(inputs))
    with Scene.open(tmp_path / "ms.tif", tmp_path / "pan.tif") as scene:
        predict(quick_run, scene, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif", device="cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


PREDICT = ("predict", "run", "--ms", "ms.tif", "--pan", "pan.tif")
EXPLAIN = ("explain", "run", "--ms", "ms.tif", "--pan", "pan.tif", "--labels", "labels.tif")
WRITE_OVER = [
    (PREDICT, "--out", "run/model.safetensors"),
    (PREDICT, "--out", "run/split.tif"),
    (PREDICT, "--out", "labels.tif"),  # of training
    (PREDICT, "--out", "pan.tif"),
    ((*PREDICT, "--out", "m.tif"), "--probabilities", "run/metrics.json"),
    ((*PREDICT, "--prior", "prior.csv"), "--out", "prior.csv"),
    (("predict", "run/model.safetensors", *PREDICT[2:]), "--out", "run/model.safetensors"),
    (("check", *PREDICT[2:], "--classes", "classes.csv"), "--json", "classes.csv"),
    (("check", *PREDICT[2:]), "--json", "run/metrics.json"),
    (("align", *PREDICT[2:]), "--out", "ms.tif"),
    (("align", *PREDICT[2:]), "--out", "run/folds.tif"),
    (("evaluate", "--map", "map.tif", "--labels", "labels.tif"), "--json", "run/metrics.json"),
    (("evaluate", "--map", "map.tif", "--labels", "labels.tif"), "--json", "map.tif"),
    (EXPLAIN, "--out", "run/history.png"),  # a CSV goes beside it
    ((*EXPLAIN, "--out", "why.png"), "--json", "run/inputs.json"),
    (("doctor",), "--json", "run/metrics.json"),
]


def refuses(call, desk, words, option, named, victim):
    before, there = victim.read_bytes(), sorted(desk.rglob("*"))
    code, _, err = call(*words, option, named)
    assert (code, err.count("\n")) == (1, 1), err
    assert "name another" in err
    assert victim.read_bytes() == before
    assert sorted(desk.rglob("*")) == there


@pytest.mark.parametrize(("words", "option", "victim"), WRITE_OVER)
def test_nothing_that_is_read_is_written(call, desk, words, option, victim):
    if victim == "run/folds.tif":
        shutil.copy(desk / "run" / "split.tif", desk / victim)
    hurt = desk / victim.replace("history.png", "history.csv")
    refuses(call, desk, words, option, desk / victim, hurt)


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize(
    ("words", "option", "victim"),
    [
        (words, option, victim)
        for words, option, victim in WRITE_OVER
        if "/" not in victim or victim == "run/model.safetensors"
    ],
)
def test_nor_by_a_link_to_it(call, desk, words, option, victim, link):
    named = desk / f"link{(desk / victim).suffix}"
    getattr(named, link)(desk / victim)
    refuses(call, desk, words, option, named, desk / victim)


@pytest.mark.parametrize("link", [None, "symlink_to"])
def test_a_run_does_not_replace_what_it_is_trained_with(call, desk, link):
    victim = desk / "run" / "held-out.tif"
    shutil.copy(desk / "labels.tif", victim)
    named = victim
    if link:
        named = desk / "mine.tif"
        named.symlink_to(victim)
    words = ("train", *PREDICT[2:], "--labels", named, "--classes", "classes.csv")
    refuses(call, desk, words, "--out", "run", victim)


@pytest.mark.parametrize("name", ["ms.tif", "labels.tif", "run/model.safetensors"])
def test_a_demo_replaces_no_other_scene_and_no_other_run(call, desk, name):
    folder = desk / "place"
    folder.mkdir()
    victim = folder / name.removeprefix("run/")
    shutil.copy(desk / name, victim)
    refuses(call, desk, ("demo",), "--out", "place", victim)


def test_a_demo_replaces_an_earlier_demo(tmp_path):
    for seed in (1, 2):
        write_scene(tmp_path, seed=seed, size=60, ratio=2)


def test_nor_a_file_of_a_run_by_a_symbolic_link_from_elsewhere(call, desk):
    (desk / "link.json").symlink_to(desk / "run" / "metrics.json")
    refuses(call, desk, ("doctor",), "--json", desk / "link.json", desk / "run" / "metrics.json")


@pytest.mark.parametrize("address", ["file://{}/pan.tif", "/vsizip/{}/a.zip/pan.tif"])
def test_nor_what_an_address_leads_to(call, desk, address):
    with zipfile.ZipFile(desk / "a.zip", "w") as archive:
        archive.write(desk / "pan.tif", "pan.tif")
    words = ("predict", "run", "--ms", "ms.tif", "--pan", address.format(desk))
    victim = desk / ("a.zip" if "zip" in address else "pan.tif")
    refuses(call, desk, words, "--out", victim, victim)


def test_a_map_of_one_scene_is_not_written_over_a_file_of_another(call, desk):
    before = (desk / "labels.tif").read_bytes()
    code, _, err = call("predict", "run", "scenes.toml", "--out", ".")
    assert code == 1
    assert "labels.tif is one of the files that are read" in err
    assert (desk / "labels.tif").read_bytes() == before
    assert not (desk / "a.tif").exists()


def test_what_a_map_would_take_away_beside_it_is_a_file_that_it_writes(call, desk):
    """An overview or mask of an older file of its name."""
    shutil.copy(desk / "labels.tif", desk / "m.tif.msk")
    code, _, err = call(*PREDICT, "--mask", "m.tif.msk", "--out", "m.tif")
    assert (code, "m.tif.msk is one of the files that are read" in err) == (1, True)
    assert (desk / "m.tif.msk").exists()


def test_a_page_and_its_pictures_are_not_written_over_what_they_show(call, desk):
    (desk / "page").mkdir()
    (desk / "page" / "map.png").hardlink_to(desk / "map.tif")
    words = ("report", "run", "--map", "map.tif", "--probabilities", "p.tif")
    code, _, err = call(*words, "--out", "page.html")
    assert (code, err.count("\n")) == (1, 1), err
    assert "page/map.png is one of the files that are read" in err
    assert not (desk / "page.html").exists()


def test_a_table_of_a_benchmark_is_not_written_over_a_file_of_a_scene(desk):
    shutil.copy("classes.csv", "results.csv")
    scene = SceneFiles(name="a", ms="ms.tif", pan="pan.tif", labels="labels.tif", classes="results.csv")
    with pytest.raises(InputError, match=r"results\.csv is one of the files that are read"):
        benchmark([scene], methods=["forest"], reference="forest", out=desk, folds=2)
