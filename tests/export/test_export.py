"""Models handed on: what the graph says against what `predict` says, and the folder around it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from adcdnet.config import AnswerConfig
from adcdnet.errors import InputError
from adcdnet.export import write
from adcdnet.export.card import card
from adcdnet.export.graph import Graph
from adcdnet.export.trees import TreeOperations
from adcdnet.export.write import export_model, facts_of
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import tiles
from adcdnet.geo.raster import RasterReader, read_band
from adcdnet.mapping.members import Member, feature_count_of
from adcdnet.mapping.model import Model
from adcdnet.mapping.predict import predict
from adcdnet.mapping.trees import Trees
from adcdnet.nn.architecture import Layout, TileArchitecture
from adcdnet.nn.context import ContextBranch
from adcdnet.nn.tile_adcdnet import TileADCDNet
from adcdnet.training.committee.classifiers import fit_boosting, fit_forest
from conftest import build_model

pytestmark = pytest.mark.slow

LAYOUT = Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3)
SMALL = {"detail": 4, "stream": 6, "widths": (6, 8, 10), "token_dims": (6, 8), "hidden": 7}
STATISTICS = BandStatistics((500.0,) * 5, (280.0,) * 5, (500.0,), (280.0,))
OTHERS = BandStatistics((490.0,) * 5, (270.0,) * 5, (510.0,), (290.0,))  # of another fold


def tile_network(**changes) -> TileADCDNet:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = TileADCDNet(TileArchitecture(**SMALL | changes), LAYOUT).eval()
        with torch.no_grad():
            network.classifier.weight *= 20
            logits = network(torch.randn(1, 5, 40, 40), torch.randn(1, 1, 80, 80))
            network.classifier.bias -= logits.mean((0, 2, 3))
    return network


def trees(kind: str, sensors: str = "both") -> Trees:
    rng = np.random.default_rng(4)
    features = feature_count_of(sensors, 5, 1)
    x, y = rng.normal(size=(300, features)).astype(np.float32), rng.integers(3, size=300)
    return {"forest": fit_forest, "boosting": fit_boosting}[kind](x, y, np.ones(300), 0)


def member(classifier, statistics=STATISTICS, *, weight=0.5, sensors="both") -> Member:
    shares = (0.2, 0.3, 0.5)
    return Member(
        name=type(classifier).__name__,
        classifier=classifier,
        statistics=statistics,
        drawn_shares=shares,
        weight=weight,
        sensors=sensors,
    )


def committee(*members: Member, **answers) -> Model:
    table = ClassTable.of([2, 5, 8], ["a", "b|c", "d, e"])
    answers = AnswerConfig(**{"smooth": 2.0} | answers)
    return Model(members, LAYOUT, STATISTICS, table, (0.3, 0.3, 0.4), temperature=1.3, answers=answers)


def whole_committee(**answers) -> Model:
    """A member of every kind."""
    perceptron = ContextBranch(feature_count_of("both", 5, 1), 3).eval()
    return committee(
        member(tile_network()),
        member(tile_network(widths=(6,), attention="none"), OTHERS, weight=0.3),
        member(trees("boosting"), OTHERS, weight=0.4),
        member(trees("forest", "ms"), weight=0.2, sensors="ms"),
        member(perceptron, weight=0.3),
        **answers,
    )


def predicted(model: Model, scene, folder: Path, **how) -> np.ndarray:
    """Probabilities (K, h, w) by `predict`."""
    predict(model, scene, out=folder / "map.tif", probabilities=folder / "p.tif", **how)
    with RasterReader(folder / "p.tif") as reader:
        return reader.read(reader.grid.window)


def by_tiles(run, scene, model: Model, *, halo: int, size: int) -> np.ndarray:
    """Probabilities of a scene by a graph, tile by tile, the outermost ones smaller."""
    step = model.step
    found = np.zeros((3, scene.grid.height * step, scene.grid.width * step), np.float32)
    for window in tiles(*scene.grid.shape, size):
        pixels = scene.read(window.grow(halo), repeat_edge=model.repeat_edge)
        ms, pan = pixels.ms.copy(), pixels.pan.copy()
        ms[:, ~pixels.ms_valid], pan[:, ~pixels.pan_valid] = np.nan, np.nan
        found[:, *window.scale(step).slices] = run(ms[None], pan[None])[0]
    return found


def eager(graph: Graph):
    def run(ms, pan):
        with torch.inference_mode():
            return graph(torch.from_numpy(ms), torch.from_numpy(pan)).numpy()

    return run


def runner(folder: Path, format: str):
    """What a caller without adcdnet has."""
    if format == "onnx":
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        return lambda ms, pan: session.run(None, {"ms": ms, "pan": pan})[0]
    return eager(torch.export.load(folder / "model.pt2").module())


def assert_agrees(found, expected, atol=1e-4):
    given = ~np.isnan(expected[0])
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert given.any()
    assert not given.all()  # the invalid corner
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    assert (found.argmax(0) == expected.argmax(0))[given].mean() >= 0.9999


@pytest.mark.parametrize("kind", ["committee", "fine", "patch", "fine-patch", "trees", "rough", "local"])
def test_the_graph_says_what_predict_says(tiny_scene, tmp_path, kind):
    how = {}
    if kind == "committee":
        model, how = whole_committee(), {"tau": 0.5, "prior": (0.5, 0.2, 0.3)}
    elif kind == "fine":
        model = committee(member(tile_network(grid="fine")))
    elif kind == "patch":
        model = build_model(LAYOUT, patch=9, local_priors=0.0)
    elif kind == "fine-patch":
        model = build_model(LAYOUT, patch=9, grid="fine", local_priors=0.0)
    elif kind == "trees":
        model = committee(member(trees("forest")), member(trees("boosting", "pan"), sensors="pan"))
    elif kind == "rough":  # nothing is averaged
        model = committee(member(tile_network(sensors="pan", context_branch=0.0), sensors="pan"), smooth=0.0)
    else:
        model = committee(member(tile_network(prior=False, dtm=False)), likeness=0.0)
    expected = predicted(model, tiny_scene, tmp_path, **how)
    graph = Graph(model, **how)
    for size in (8, 64):
        assert_agrees(by_tiles(eager(graph), tiny_scene, model, halo=graph.halo, size=size), expected, 1e-5)


@pytest.mark.parametrize("kind", ["forest", "boosting"])
@pytest.mark.parametrize("format", ["eager", "onnx", "pt2"])
def test_a_value_on_a_threshold_goes_where_predict_sends_it(tmp_path, kind, format):
    """Rows hold the threshold of a node in the column that it compares, or one of the two numbers next to it."""
    known = trees(kind)
    nodes = np.flatnonzero(known.feature >= 0)[::9]
    x = np.repeat(np.random.default_rng(6).normal(size=(len(nodes), known.inputs)).astype(np.float32), 3, axis=0)
    on = known.threshold[nodes]
    beside = np.stack([np.nextafter(on, np.float32(-np.inf)), on, np.nextafter(on, np.float32(np.inf))], axis=1)
    x[np.arange(len(x)), np.repeat(known.feature[nodes], 3)] = beside.ravel()
    operations, rows = TreeOperations(known).eval(), torch.export.Dim("rows", min=2)
    if format == "eager":
        found = operations(torch.from_numpy(x)).numpy()
    elif format == "pt2":
        program = torch.export.export(operations, (torch.from_numpy(x),), dynamic_shapes=({0: rows},))
        found = program.module()(torch.from_numpy(x)).numpy()
    else:
        file, how = tmp_path / "trees.onnx", {"dynamo": True, "verbose": False, "external_data": False}
        with write._quiet():
            torch.onnx.export(operations, (torch.from_numpy(x),), file, input_names=["x"], **how)
        (found,) = onnxruntime.InferenceSession(file).run(None, {"x": x})
    np.testing.assert_allclose(found, known.logits(x), rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=["onnx", "pt2"])
def handed(request, tmp_path_factory):
    """A model and the folder that it was handed on in."""
    members = member(tile_network(widths=(6, 8), dtm=False)), member(trees("boosting"), OTHERS)
    model = committee(*members, smooth=1.0, local_priors=0.5)  # tracing many neighbours is slow
    folder = tmp_path_factory.mktemp("handed") / "on"
    left_out = export_model(model, folder, format=request.param, tau=0.7, licence="cc-by-4.0")
    return model, folder, request.param, left_out


def test_a_bare_session_says_what_predict_says(handed, tiny_scene, tmp_path):
    """The session knows nothing but the file; tiles of 20 and those that are left at the edges."""
    model, folder, format, _ = handed
    alone = replace(model, answers=model.answers.model_copy(update={"local_priors": 0.0}))
    expected = predicted(alone, tiny_scene, tmp_path, tau=0.7)
    halo = json.loads((folder / "config.json").read_text())["halo"]
    assert_agrees(by_tiles(runner(folder, format), tiny_scene, model, halo=halo, size=20), expected)


def test_any_number_of_tiles_of_any_size(handed):
    model, folder, format, _ = handed
    graph, run, rng = Graph(model, tau=0.7), runner(folder, format), np.random.default_rng(5)
    for count, height, width in ((1, 1, 1), (3, 1, 1), (2, 1, 7), (1, 12, 1), (1, 4, 4), (1, 33, 17)):
        rows, cols = height + 2 * graph.halo, width + 2 * graph.halo
        ms = rng.uniform(0, 999, (count, 5, rows, cols)).astype(np.float32)
        pan = rng.uniform(0, 999, (count, 1, 2 * rows, 2 * cols)).astype(np.float32)
        found = run(ms, pan)
        assert found.shape == (count, 3, height, width)
        np.testing.assert_allclose(found, eager(graph)(ms, pan), rtol=0, atol=1e-4)


def test_the_lines_of_the_card_make_the_map(handed, tiny_scene, tmp_path, monkeypatch):
    model, folder, _, _ = handed
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", card, re.DOTALL)
    assert len(code.splitlines()) <= 16
    pixels = tiny_scene.read(tiny_scene.grid.window)
    ms, pan = pixels.ms.copy(), pixels.pan.copy()
    ms[:, ~pixels.ms_valid], pan[:, ~pixels.pan_valid] = np.nan, np.nan
    for name in ("config.json", f"model.{handed[2]}"):
        (tmp_path / name).symlink_to(folder / name)
    np.save(tmp_path / "ms.npy", ms)
    np.save(tmp_path / "pan.npy", pan)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    alone = replace(model, answers=model.answers.model_copy(update={"local_priors": 0.0}))
    predict(alone, tiny_scene, out=tmp_path / "map.tif", tau=0.7)
    assert np.array_equal(np.load("map.npy"), read_band(tmp_path / "map.tif")[0])


def test_the_folder_is_what_a_hub_takes(handed):
    hub = pytest.importorskip("huggingface_hub")
    _, folder, format, _ = handed
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "classes.csv", "model.safetensors", f"model.{format}"}
    data = hub.ModelCard.load(folder / "README.md").data
    assert (data.license, data.library_name) == ("cc-by-4.0", "adcdnet")
    assert format in data.tags
    assert ClassTable.read(folder / "classes.csv").names == ("a", "b|c", "d, e")


def test_the_weights_beside_the_graph_are_the_same_model(handed):
    model, folder, _, _ = handed
    assert Model.load(folder).digest == model.digest


def test_what_is_left_out_is_said(handed):
    _, folder, _, left_out = handed
    assert left_out == ["local class priors (weight 0.5) are not in the graph: they need a whole scene"]
    assert f"- Left out: {left_out[0]}." in (folder / "README.md").read_text(encoding="utf-8")


def test_the_graph_carries_the_class_table(handed):
    _, folder, format, _ = handed
    if format == "onnx":
        said = onnxruntime.InferenceSession(folder / "model.onnx").get_modelmeta().custom_metadata_map["adcdnet"]
    else:
        files = {"adcdnet.json": ""}
        torch.export.load(folder / "model.pt2", extra_files=files)
        said = files["adcdnet.json"]
    assert json.loads(said) == json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert json.loads(said)["classes"]["5"]["name"] == "b|c"


def test_metrics_stand_in_the_card_with_their_intervals(quick_run):
    model = quick_run.model
    text = card(model, facts_of(model, Graph(model), tau=1.0, prior=None, format="onnx"), [], licence="mit", name="x")
    seen = model.record.validation
    assert f"| Overall accuracy | {seen['oa']:.3f} |" in text
    hub = pytest.importorskip("huggingface_hub")
    (result, *_) = hub.ModelCard(text).data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", round(seen["oa"], 4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("full", r"is not empty, it holds notes.txt; name a new or an empty folder"),
        ("format", r"format is 'tflite'; onnx or pt2 are written"),
        ("missing", r'format onnx needs onnxscript; install it with pip install "adcdnet\[export\]", or write pt2'),
        ("file", r"is no folder for a model"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch, wrong, message):
    model, out, format = committee(member(trees("boosting"))), tmp_path / "out", "onnx"
    if wrong == "full":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    elif wrong == "format":
        format = "tflite"
    elif wrong == "missing":
        monkeypatch.setattr(write, "find_spec", lambda name: None if name == "onnxscript" else name)
    else:
        out.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(write, "program_of", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match=message) as error:
        export_model(model, out, format=format)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr(write, "program_of", fails)
    with pytest.raises(RuntimeError):
        export_model(committee(member(trees("boosting"))), tmp_path / "new" / "out", format="pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_command_hands_on_a_run(call, quick_run, tmp_path, monkeypatch):
    """With the operating point that was asked for; the graph itself is tested above."""
    seen = {}

    def instead(model, out, **how):
        seen.update(how)
        out.mkdir()
        (out / "model.pt2").write_bytes(b"graph")
        return ["left out"]

    monkeypatch.setattr(write, "export_model", instead)
    options = "--format", "pt2", "--tau", "0.5", "--prior", "balanced", "--license", "mit"
    code, printed, said = call("export", quick_run.folder, "--out", tmp_path / "on", *options)
    assert code == 0, said
    assert seen == {"format": "pt2", "tau": 0.5, "prior": (1 / 3,) * 3, "licence": "mit"}
    assert "note: left out" in said
    assert "model.pt2" in printed


def test_a_format_that_is_not_known_is_refused_by_the_command(call, quick_run, tmp_path):
    code, _, said = call("export", quick_run.folder, "--out", tmp_path / "on", "--format", "tflite")
    assert code == 2
    assert "tflite" in said
    assert not (tmp_path / "on").exists()
