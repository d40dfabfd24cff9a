"""The command line end to end on small files: exit codes, what goes to stdout and stderr, what is left."""

import functools
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import rasterio

import adcdnet as ad
from adcdnet import cli, metrics
from adcdnet.cli.evaluate import print_evaluation
from adcdnet.config import TrainConfig
from adcdnet.demo.run import run_demo
from adcdnet.geo.raster import read_band
from conftest import QUICK

pytestmark = pytest.mark.usefixtures("few_trials")


@pytest.fixture
def quick_config(tmp_path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    return path


def pair_arguments(pair):
    return "--ms", pair.ms, "--pan", pair.pan


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["evaluate"], ["demo"]])
def test_every_command_explains_itself(call, command):
    code, out, err = call(*command, "--help")
    assert code == 0
    assert "Usage:" in out
    assert err == ""
    if command:
        assert f"Example: adcdnet {command[0]}" in out


def test_version(call):
    assert call("--version") == (0, f"adcdnet {version('adcdnet')}\n", "")


def test_train_predict_evaluate(call, labelled_pair, quick_config, tmp_path):
    run, map_, scores = tmp_path / "run", tmp_path / "map.tif", tmp_path / "scores.json"
    labels = "--labels", labelled_pair.labels
    classes = "--classes", labelled_pair.classes
    code, out, err = call(
        "train", *pair_arguments(labelled_pair), *labels, *classes, "--out", run, "--config", quick_config
    )
    assert code == 0
    assert err.startswith("note: the training needs at least ")
    assert err.count("\n") == 1
    assert f"run: {run}" in out
    assert "validation: OA" in out
    record = json.loads((run / "metrics.json").read_text())
    assert f"train {record['labelled_pixels']['train']}" in out

    code, out, err = call(
        "predict", run, *pair_arguments(labelled_pair), "--out", map_, "--probabilities", tmp_path / "p.tif"
    )
    assert (code, err) == (0, "")
    assert f"map: {map_} (5893 MS pixels" in out
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert dataset.descriptions == ("meadow", "rock", "water")

    where = "--split", run / "split.tif", "--part", "test"
    code, out, err = call("evaluate", "--map", map_, *labels, *where, "--json", scores)
    assert (code, err) == (0, "")
    found = json.loads(scores.read_text())
    truth, mapped, part = (read_band(path)[0] for path in (labelled_pair.labels, map_, run / "split.tif"))
    judged = (part == 3) & (truth > 0)
    assert found["oa"] == pytest.approx((truth == mapped)[judged].mean())
    assert np.sum(found["confusion"]) == judged.sum()
    assert [c["name"] for c in found["classes"]] == ["meadow", "rock", "water"]
    assert f"test part: OA {found['oa']:.3f}  AA {found['aa']:.3f}  kappa {found['kappa']:.3f}" in out
    for word in ("precision", "recall", "F1", "IoU", "meadow", "rock", "water"):
        assert word in out
    for row in found["confusion"]:
        for count in row:
            assert f" {count}" in out


TILES = """members = ["adcdnet"]
plain_if_few = false
tiles_from = 1
passes = 0.0
validations = 2
network = {detail = 3, stream = 5, widths = [5, 6], token_dims = [4, 4], hidden = 5}
split = {block = 16, folds = 1}
stage1 = {steps = 3, tiles = 4, targets = 32}
stage2 = {steps = 24, tiles = 4, tile = 16, learning_rate = 0.01}
"""


def test_a_network_over_tiles_is_what_a_settings_file_without_a_profile_asks_for(call, labelled_pair, tmp_path):
    """From training to report; what each command says of the ground that was in sight is what the map shows."""
    run, pair, config = tmp_path / "run", pair_arguments(labelled_pair), tmp_path / "tiles.toml"
    config.write_text(TILES)
    labels = "--labels", labelled_pair.labels, "--classes", labelled_pair.classes
    code, out, err = call("train", *pair, *labels, "--out", run, "--config", config)
    assert code == 0, err
    assert TrainConfig.read(run / "config.toml").network.form == "tile"
    predict = "predict", run, *pair
    code, _, err = call(*predict, "--out", tmp_path / "no.tif", "--engine", "patch")
    assert code == 1
    assert err.startswith("adcdnet: this network classifies whole tiles")
    assert err.count("\n") == 1
    assert not (tmp_path / "no.tif").exists()
    maps = {"seen": ["--engine", "dense"], "hidden": ["--mask", run / "split.tif", "--mask-values", "1"]}
    split = read_band(run / "split.tif")[0]
    for sight, more in maps.items():
        map_ = run / f"{sight}.tif"
        code, _, err = call(*predict, "--out", map_, *more)
        assert (code, err) == (0, "")
        assert (read_band(map_)[0][split == 1] != 0).any() == (sight == "seen")
        where = "--split", run / "split.tif", "--part", "test"
        code, out, err = call("evaluate", "--map", map_, *labels[:2], *where, "--json", tmp_path / "scores.json")
        assert (code, err) == (0, "")
        found = json.loads((tmp_path / "scores.json").read_text())
        assert found["training_ground"] == sight
        assert ("hidden from the network" in out, "in sight of the network" in out) == (
            sight == "hidden",
            sight == "seen",
        )
        assert found["leakage"]["holding"] == 0
        assert found["oa"] > 0.5  # of three classes that differ in colour


@pytest.fixture(scope="module")
def tile_run(labelled_pair, few_trials, tmp_path_factory) -> Path:
    """The folder of a run of a network over tiles, with a map; to be looked at only."""
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "tiles.toml").write_text(TILES)
    with labelled_pair.open() as scene:
        labels, config = labelled_pair.read_labels(scene), TrainConfig.read(folder / "tiles.toml")
        run = ad.train(scene, labels, out=folder / "run", config=config, device="cpu")
        ad.predict(run, scene, out=run.folder / "map.tif", probabilities=run.folder / "probabilities.tif")
    return run.folder


def test_a_network_over_tiles_is_explained(call, tile_run, labelled_pair, tmp_path):
    labels = "--labels", labelled_pair.labels, "--classes", labelled_pair.classes
    code, _, err = call("explain", tile_run, *pair_arguments(labelled_pair), *labels, "--out", tmp_path / "why.svg")
    assert (code, err) == (0, "")
    assert (tmp_path / "why.svg").stat().st_size > 10_000
    why = (tmp_path / "why.csv").read_text()
    for token in ("ms 1", "ms 2", "pan 1", "pan 2", "attended", "level 1", "level 2", "prior"):
        assert token in why


def test_a_report_on_a_network_over_tiles(call, tile_run, labelled_pair, tmp_path):
    code, _, err = call("report", tile_run, "--out", tmp_path / "report.html")
    assert (code, err) == (0, "")
    page = (tmp_path / "report.html").read_text("utf-8")
    record = json.loads((tile_run / "metrics.json").read_text())
    assert f"95 % of what an answer depends on lies within {record['effective_radius']} MS pixels of it" in page
    assert "were in sight of the network while it made this map" in page
    assert "with a guard band of 10 MS pixels between the parts" in page


def test_profiles_by_their_names(call, labelled_pair, tmp_path):
    """Of few labels too, where steps are asked for: what is trained is what the name says."""
    labels = "--labels", labelled_pair.labels, "--classes", labelled_pair.classes
    for profile, form in (("patch", "patch"), ("plain", "patch")):  # of ratio 2
        run = tmp_path / profile
        arguments = *pair_arguments(labelled_pair), *labels, "--out", run, "--steps", 2, "--profile", profile
        code, _, err = call("train", *arguments, "--no-stage1", "--folds", 1, "--members", "adcdnet")
        assert code == 0, err
        written = TrainConfig.read(run / "config.toml")
        assert (written.profile, written.network.form) == (profile, form)


def test_options_of_train_reach_the_settings(call, labelled_pair, quick_config, tmp_path):
    more = "--config", quick_config, "--seed", 5, "--steps", 2, "--no-stage1"
    labels = "--labels", labelled_pair.labels
    code, _, err = call("train", *pair_arguments(labelled_pair), *labels, "--out", tmp_path / "run", *more)
    assert code == 0, err
    changes = {"seed": 5, "stage2": {"steps": 2}, "passes": 0.0, "network": {"prior": False}}
    assert TrainConfig.read(tmp_path / "run" / "config.toml") == TrainConfig.of_profile("patch").replace(QUICK).replace(
        changes
    )
    assert ad.Model.load(tmp_path / "run").classes.names == ("1", "2", "4")  # no table was given


def test_both_engines_and_tau(call, quick_run, labelled_pair, tmp_path):
    maps = []
    for more in ((), ("--engine", "patch"), ("--engine", "dense", "--tau", "0")):
        code, _, err = call(
            "predict", quick_run.folder, *pair_arguments(labelled_pair), "--out", tmp_path / "m.tif", *more
        )
        assert code == 0, err
        with rasterio.open(tmp_path / "m.tif") as dataset:
            maps.append((dataset.read(1), dataset.tags()["ADCDNET_TAU"]))
    assert (maps[0][0] == maps[1][0]).mean() > 0.999  # equal up to ties
    assert [tau for _, tau in maps] == ["1.0", "1.0", "0.0"]


def test_classes_are_expected_as_the_user_says(call, quick_run, labelled_pair, tmp_path):
    def mapped(*more):
        code, _, err = call(
            "predict", quick_run.folder, *pair_arguments(labelled_pair), "--out", tmp_path / "m.tif", *more
        )
        assert code == 0, err
        return read_band(tmp_path / "m.tif")[0]

    shares = tmp_path / "shares.csv"
    shares.write_text("value,share\n1,7\n4,7\n2,7\n")
    assert np.array_equal(mapped("--prior", "balanced"), mapped("--prior", shares))
    mapped("--prior", "balanced", "--probabilities", tmp_path / "balanced.tif")
    mapped("--probabilities", tmp_path / "labelled.tif")  # shares that differ by a little
    with rasterio.open(tmp_path / "balanced.tif") as one, rasterio.open(tmp_path / "labelled.tif") as other:
        assert not np.array_equal(one.read(), other.read())
    shares.write_text("value,share\n1,1e-9\n4,50\n2,50\n")  # half of the second and the third each
    assert (mapped() == 1).any()
    assert not (mapped("--prior", shares) == 1).any()
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert dataset.tags()["ADCDNET_PRIOR"].split()[1:] == ["0.5", "0.5"]
    shares.write_text("value,share\n1,50\n2,50\n")
    code, _, err = call(
        "predict", quick_run.folder, *pair_arguments(labelled_pair), "--out", tmp_path / "n.tif", "--prior", shares
    )
    assert code == 1
    assert "shares.csv name [1, 2], needed is one share above 0 for each of [1, 2, 4]" in err
    assert not (tmp_path / "n.tif").exists()


def test_the_python_interface_gives_the_same_map(call, quick_run, labelled_pair, tmp_path):
    assert call("predict", quick_run.folder, *pair_arguments(labelled_pair), "--out", tmp_path / "a.tif")[0] == 0
    with ad.Scene.open(labelled_pair.ms, labelled_pair.pan) as scene:
        assert ad.predict(quick_run, scene, out=tmp_path / "b.tif") == []
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_debug_shows_where_an_error_comes_from(monkeypatch, tmp_path):
    arguments = ["evaluate", "--map", str(tmp_path / "none.tif"), "--labels", "x"]
    for place in (0, len(arguments)):
        monkeypatch.setattr(sys, "argv", ["adcdnet", *arguments[:place], "--debug", *arguments[place:]])
        with pytest.raises(ad.InputError, match="does not exist"):
            cli.main()


def test_a_process_of_its_own_is_quiet_where_there_is_no_terminal(quick_run, labelled_pair, tmp_path):
    command = [
        sys.executable,
        "-m",
        "adcdnet.cli",
        "predict",
        quick_run.folder,
        *pair_arguments(labelled_pair),
        "--out",
    ]
    done = subprocess.run([*command, tmp_path / "map.tif"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("map: ")


def test_ctrl_c_ends_without_a_traceback(call, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("adcdnet.assess.evaluate.evaluate", interrupt)
    code, out, err = call("evaluate", "--map", "a", "--labels", "b")
    assert (code, out, err) == (130, "", "adcdnet: stopped\n")


def test_a_confusion_matrix_is_printed_whole(capsys):
    counts = np.random.default_rng(0).integers(10_000, 99_999, (12, 13))
    classes = ad.ClassTable.numbered([f"[class] {k} of a long name" for k in range(12)])
    print_evaluation(ad.Evaluation(classes, counts, metrics.scores(counts), "test", ()))
    out = capsys.readouterr().out
    rows = [line.split()[-13:] for line in out.splitlines()[-12:]]
    assert np.array_equal(np.array(rows, int), counts)
    for name in classes.names:
        assert out.count(name) == 2


def test_notes_go_to_stderr(call, labelled_pair, quick_run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "adcdnet.cluster.scenes.predict", lambda *_, **__: ["the scene lies far from what was trained on"]
    )
    code, out, err = call("predict", quick_run.folder, *pair_arguments(labelled_pair), "--out", tmp_path / "m.tif")
    assert code == 0
    assert err == "note: the scene lies far from what was trained on\n"
    assert not any(line.startswith("note") for line in out.splitlines())


def test_demo_leaves_what_it_promises(call, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "adcdnet.demo.run.run_demo",
        functools.partial(
            run_demo,
            config=TrainConfig.of_profile("patch").replace(QUICK).replace({"split": {"folds": 2}}),
            jobs=1,
        ),
    )
    code, out, err = call("demo", "--out", tmp_path / "demo", "--size", 120, "--ratio", 2, "--seed", 1)
    assert (code, err) == (0, "")
    left = {p.name for p in (tmp_path / "demo").iterdir()}
    run = {"config.toml", "history.csv", "metrics.json", "model.safetensors", "folds.tif", "timing.json"}
    assert run | {"figure.png", "map.tif", "ms.tif", "pan.tif", "labels.tif"} <= left
    content = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert set(content["oa"]) == {"MS + PAN", "MS alone", "PAN alone"}
    assert content["held_out"]["oa"] == content["oa"]["MS + PAN"]
    best = max(content["oa"]["MS alone"], content["oa"]["PAN alone"])
    verdict = "beats" if content["oa"]["MS + PAN"] > best else "does NOT beat"
    assert f"MS + PAN {verdict} MS alone and PAN alone" in out
    assert (tmp_path / "demo" / "figure.png").read_bytes().startswith(b"\x89PNG")
    for row in content["held_out"]["confusion"]:
        for count in row:
            assert f" {count}" in out
    for name in ("water", "forest", "bare soil", "settlement"):
        assert name in out


@pytest.mark.parametrize(
    ("library", "name", "value"), [("torch", "GOMP_SPINCOUNT", "1000"), ("rasterio", "GDAL_CACHEMAX", "128")]
)
@pytest.mark.parametrize("given", [None, "7"])
def test_a_library_is_told_its_limits_before_it_is_loaded_by_the_api_too(library, name, value, given):
    watch = f"""
import os, sys

class Watch:
    def find_spec(self, name, *_):
        if name == {library!r}:
            print(os.environ.get({name!r}))

sys.meta_path.insert(0, Watch())
import adcdnet
adcdnet.predict
"""
    environment = {k: v for k, v in os.environ.items() if k != name} | ({name: given} if given else {})
    said = subprocess.run([sys.executable, "-c", watch], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [given or value]
