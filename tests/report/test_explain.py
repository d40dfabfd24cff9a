"""Explanation of the DTM heads: exact sums, laws of the convolution, figures counted by hand, files and bad input."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.raster import read_band
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene import Scene
from adcdnet.mapping.model import Model
from adcdnet.mapping.predict import predict
from adcdnet.nn import DeepTemporalMamba, selective_scan
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.report import explain as explain_module
from adcdnet.report.explain import check_outputs, explain, token_evidence, write_explanation
from conftest import PAPER, PIXEL, build_model

LAYOUT = Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3)
TOKENS = ("depth 1", "depth 2", "depth 3", "attended", "prior")


def stirred(layout: Layout = LAYOUT, **changes) -> Model:
    """DTM heads far from their start, where the skip decides alone: shares spread, and answers differ."""
    model = build_model(layout, **changes)
    network, generator = model.network, torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in (*network.dtm.parameters(), *network.branch_decision.parameters()):
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.4)
        heads = given(network, count=9) if network.branch_decision else {}
        for name, (_, _, logits) in heads.items():
            classifier = network.branch_decision[name].classifier
            classifier.weight *= 20
            classifier.bias.copy_(20 * (classifier.bias - logits.mean(0)))
    return model


@pytest.fixture
def tiny_labels(tiny_scene) -> Labels:
    """Classes 0 and 1 in two fields, a part unlabelled, one pixel of them on invalid ground; class 2 has none."""
    index = np.full(tiny_scene.grid.shape, -1, np.int16)
    index[5:14, 8:20] = 0
    index[16:22, 3:30] = 1
    return Labels(index, ClassTable.of([2, 5, 8], ["field", "wood", "lake"]))


def given(network: ADCDNet, *, count: int = 4) -> dict[str, tuple]:
    """The tokens of each sensor's depths and of the prior for random patches, and what its head answers."""
    heard = {}

    def listen(name, tokens):
        depths = list(tokens.unbind(1))
        prior = depths.pop() if network.config.prior else None
        heard[name] = depths, prior

    hooks = [
        head.norm.register_forward_pre_hook(lambda _, inputs, name=name: listen(name, *inputs))
        for name, head in network.dtm.items()
    ]
    side = network.config.before + 1 + network.config.after
    generator = torch.Generator().manual_seed(0)
    dtype = next(network.parameters()).dtype
    sizes = (network.layout.ms_bands, side, side), (1, side * network.layout.ratio, side * network.layout.ratio)
    with torch.no_grad():
        outputs = network(*(torch.randn(count, *s, generator=generator).to(dtype) for s in sizes), branches=True)
    for hook in hooks:
        hook.remove()
    return {name: (*heard[name], getattr(outputs, name)) for name in heard}


# ---- what adds up


@pytest.mark.parametrize("changes", [{}, {"shared_decision": True}, {"prior": False}, {"token": "flatten"}])
@pytest.mark.parametrize("sensor", ["ms", "pan"])
def test_parts_of_the_scan_and_of_the_decision_add_up(changes, sensor):
    network = stirred(**changes).network.double()
    depths, prior, logits = given(network)[sensor]
    head = explain_module._Head(network, sensor).whole
    assert {id(p) for p in network.dtm[sensor].mamba.parameters()} <= {id(p) for p in head.parameters()}  # no copy
    why = head.explain(depths, prior)
    assert_close(why.logits, logits, rtol=0, atol=1e-4)  # a head of its own answers as the branch does
    u, delta, B, C, _ = head.mamba.scan_inputs(head.norm(head.sequence(depths, prior)))
    output = torch.einsum("bje,bje->be", why.matrix[:, -1], why.scan_input) + why.skip[:, -1]
    assert_close(output, selective_scan(u, delta, head.mamba.A, B, C, head.mamba.D)[:, -1], rtol=0, atol=1e-6)
    tokens, bias = token_evidence(head, why, depths, prior)
    positions = winning(why)
    assert tokens.shape == positions.shape == (4, 5 if network.config.prior else 4)
    assert_close(tokens.sum(1) + bias, positions.sum(1), rtol=1e-5, atol=1e-5)
    assert (tokens - positions).abs().max() > 1e-2


def winning(why) -> torch.Tensor:
    """Evidence of each scan position for the answer, less the mean over classes (b, l)."""
    relative = why.evidence - why.evidence.mean(-1, keepdim=True)
    return torch.stack([relative[i, :, k] for i, k in enumerate(why.logits.argmax(-1))])


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_convolution_that_only_delays_moves_the_evidence_back_by_as_much(lag):
    network = stirred().network.double()
    depths, prior, _ = given(network)["pan"]
    head = explain_module._Head(network, "pan").whole
    with torch.no_grad():
        head.mamba.conv1d.weight.zero_()
        head.mamba.conv1d.weight[:, 0, 3 - lag] = 1
        head.mamba.conv1d.bias.zero_()
    why = head.explain(depths, prior)
    tokens, bias = token_evidence(head, why, depths, prior)
    positions = winning(why)
    assert not bias.any()
    assert_close(tokens[:, : 5 - lag], positions[:, lag:], rtol=0, atol=1e-12)
    assert not tokens[:, 5 - lag :].any()
    assert positions[:, lag:].abs().max() > 1e-3


def test_token_evidence_is_gradient_times_input_at_fixed_gates():
    network = stirred().network.double()
    depths, prior, _ = given(network)["ms"]
    head = explain_module._Head(network, "ms").whole
    why = head.explain(depths, prior)
    mamba, norm = head.mamba, head.out_norm
    x, z = mamba.in_proj(head.norm(head.sequence(depths, prior))).detach().chunk(2, dim=-1)
    x.requires_grad_()
    c = mamba.conv1d(x.transpose(1, 2))[..., :5].transpose(1, 2)
    u = c * torch.sigmoid(c).detach()
    _, delta, B, C, _ = (v.detach() for v in mamba.scan_inputs(head.norm(head.sequence(depths, prior))))
    y = selective_scan(u, delta, mamba.A, B, C, mamba.D)[:, -1]
    read = mamba.out_proj(y * torch.nn.functional.silu(z[:, -1]))
    spread = (read.var(-1, correction=0, keepdim=True) + norm.eps).sqrt().detach()
    normed = (read - read.mean(-1, keepdim=True)) / spread * norm.weight + norm.bias
    logits = head.classifier(normed * (normed > 0))
    assert_close(logits, why.logits)
    (logits.amax(1) - logits.mean(1)).sum().backward()
    assert_close(token_evidence(head, why, depths, prior)[0], (x.grad * x).sum(-1).detach())


# ---- a scene


def test_figures_counted_by_hand(tiny_scene, tiny_labels, tmp_path):
    # what lies around a pixel is of the map, not of the network that is explained
    model = stirred(local_priors=0.0, context_branch=0.0)
    network = model.network
    split = tmp_path / "split.tif"
    parts = np.zeros(tiny_scene.grid.shape, np.uint8)
    parts[:, 7:21] = 3
    write_raster(split, parts, tiny_scene.grid)
    found = explain(model, tiny_scene, tiny_labels, split=split, part="test")

    predict(model, tiny_scene, out=tmp_path / "map.tif", tau=1.0)
    mapped = np.searchsorted([2, 5, 8], read_band(tmp_path / "map.tif")[0])
    valid = tiny_scene.read(tiny_scene.grid.window).valid
    places = [(i, j) for i, j in zip(*np.nonzero(tiny_labels.index >= 0), strict=True) if valid[i, j] and 7 <= j < 21]
    truth = np.array([tiny_labels.index[p] for p in places])
    assert found.pixels.tolist() == [(truth == 0).sum(), (truth == 1).sum(), 0, len(truth)]
    assert found.pixels[0] == 9 * 12 - 1  # one labelled pixel lies in the invalid corner
    answers, sequences = by_patches(model, tiny_scene, places)
    for head in found.heads:
        name = head.sensor.lower()
        answer, sequence = answers[name], sequences[name]
        mean = sequence.mean(0)
        changed = []
        for i in range(5):
            without = sequence.clone()
            without[:, i] = mean[i]
            branch = network.dtm[name]
            out = branch.mamba(branch.norm(without))[:, -1]
            changed.append(to_answer(model, network.branch_decision[name](out)) != answer)
        for k, here in enumerate((truth == 0, truth == 1, truth == 2, truth >= 0)):
            if k == 2:
                assert np.isnan(head.agreement[2])
                assert np.isnan(head.token_shares[2]).all()
                continue
            assert head.agreement[k] == pytest.approx((answer == mapped[tuple(zip(*places, strict=True))])[here].mean())
            assert head.right[k] == pytest.approx((answer == truth)[here].mean())
            assert head.changed[k] == pytest.approx([c[here].mean() for c in changed], abs=2 / here.sum())
        assert 0.05 < head.agreement[3] < 0.95
        assert head.changed[3].max() > 0.05
    mine = mapped[tuple(zip(*places, strict=True))]
    assert found.map_right[3] == pytest.approx((mine == truth).mean())


def to_answer(model: Model, logits: torch.Tensor) -> np.ndarray:
    shift = np.log(model.label_shares) - np.log(model.first_network.drawn_shares)
    return (logits.detach().numpy() + shift).argmax(1)


def by_patches(model: Model, scene: Scene, places: list) -> tuple[dict, dict]:
    """Answers and token sequences of both DTM branches, each pixel from its own patch."""
    network, reach = model.network, model.network.config.before
    pixels = scene.read(scene.grid.window.grow(reach))
    ms, pan = (torch.from_numpy(x) for x in model.statistics.standardise(*pixels))
    side = 2 * reach + 1
    some_ms = torch.stack([ms[:, i : i + side, j : j + side] for i, j in places])
    some_pan = torch.stack([pan[:, 2 * i : 2 * (i + side), 2 * j : 2 * (j + side)] for i, j in places])
    sequences = {}
    hooks = [
        head.norm.register_forward_pre_hook(lambda _, x, name=name: sequences.__setitem__(name, x[0]))
        for name, head in network.dtm.items()
    ]
    with torch.no_grad():
        outputs = network(some_ms, some_pan, branches=True)
    for hook in hooks:
        hook.remove()
    return {name: to_answer(model, getattr(outputs, name)) for name in ("ms", "pan")}, sequences


def test_shares_sum_to_one_and_are_spread(tiny_scene, tiny_labels):
    found = explain(stirred(), tiny_scene, tiny_labels)
    assert [head.sensor for head in found.heads] == ["MS", "PAN"]
    for head in found.heads:
        assert head.tokens == TOKENS
        for shares in (head.token_shares, head.scan_shares):
            assert shares[[0, 1, 3]].sum(1) == pytest.approx(1, abs=1e-6)
            weighted = found.pixels[:2] @ shares[:2] / found.pixels[3]
            assert shares[3] == pytest.approx(weighted)
        assert (head.token_shares[3] > 0.003).all()


def test_it_depends_neither_on_tiles_nor_on_their_sharing(tiny_scene, tiny_labels, monkeypatch):
    model = stirred()
    whole = explain(model, tiny_scene, tiny_labels)
    monkeypatch.setattr(explain_module, "_TILE", 13)
    monkeypatch.setattr(explain_module, "_MATRICES", 1)  # 16 pixels at once
    monkeypatch.setattr(explain_module, "_KEPT", 1)  # tokens are forgotten, the network is asked twice
    steps = []
    tiled = explain(model, tiny_scene, tiny_labels, progress=lambda _, *step: steps.append(step[:2]))
    assert steps == [(k + 1, len(steps)) for k in range(len(steps))]
    monkeypatch.undo()
    monkeypatch.setattr(explain_module, "_TILE", 13)
    once = []
    explain(model, tiny_scene, tiny_labels, progress=lambda _, *step: once.append(step[:2]))
    assert once == [(k + 1, len(steps) // 2) for k in range(len(steps) // 2)]
    monkeypatch.setattr(PatchArchitecture, "sharable", False)
    alone = explain(model, tiny_scene, tiny_labels)
    for other in (tiled, alone):
        for mine, theirs in zip(other.heads, whole.heads, strict=True):
            np.testing.assert_allclose(mine.token_shares, theirs.token_shares, atol=1e-4)
            np.testing.assert_allclose(mine.scan_shares, theirs.scan_shares, atol=1e-4)
            np.testing.assert_allclose(mine.agreement, theirs.agreement, atol=0.01)
            np.testing.assert_allclose(mine.changed, theirs.changed, atol=0.01)


def test_the_network_is_left_as_it_was(tiny_scene, tiny_labels):
    model = stirred()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    explain(model, tiny_scene, tiny_labels)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    for head in model.network.dtm.values():
        assert isinstance(head, DeepTemporalMamba)
        assert not head._forward_pre_hooks
        assert head.classifier is None


def test_the_published_network_is_explained_by_patches(write_tif):
    rng = np.random.default_rng(0)
    ms = write_tif("ms.tif", rng.integers(1, 999, (4, 19, 23)).astype(np.uint16))
    pan = write_tif("pan.tif", rng.integers(1, 999, (76, 92)).astype(np.uint16), pixel=PIXEL / 4)
    model = stirred(Layout(ms_bands=4, pan_bands=1, ratio=4, classes=3), **PAPER)
    labels = Labels((np.arange(19 * 23).reshape(19, 23) % 5 - 2).astype(np.int16), model.classes)
    with Scene.open(ms, pan) as scene:
        found = explain(model, scene, labels)
    assert found.pixels[3] == (labels.index >= 0).sum()
    for head in found.heads:
        assert head.tokens == TOKENS
        assert head.token_shares.sum(1) == pytest.approx(1, abs=1e-6)


def test_a_silenced_sensor_and_a_missing_prior_are_not_explained(tiny_scene, tiny_labels):
    (head,) = explain(stirred(sensors="pan", prior=False), tiny_scene, tiny_labels).heads
    assert head.sensor == "PAN"
    assert head.tokens == TOKENS[:4]


# ---- the files


def test_files_say_whose_decision_they_explain(tiny_scene, tiny_labels, tmp_path):
    found = explain(stirred(), tiny_scene, tiny_labels)
    write_explanation(found, tmp_path / "why.svg", title="tiny")
    write_explanation(found, tmp_path / "again.SVG", title="tiny")
    write_explanation(found, tmp_path / "why.png", title="tiny")
    svg = (tmp_path / "why.svg").read_text()
    assert (tmp_path / "again.SVG").read_text() == svg
    for words in ("decisions of the DTM heads", "map is made by the main head", "field", "lake (0 px)", "attended"):
        assert words in svg
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "why.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = [f"{what} {t}" for what in ("share of", "scan at", "changed without") for t in TOKENS]
    columns = ["explains", "head", "class", "pixels", *parts, "agrees with map", "head right", "map right"]
    assert list(rows[0]) == columns
    assert [(row["head"], row["class"]) for row in rows] == [
        (sensor, name) for sensor in ("MS", "PAN") for name in ("field", "wood", "lake", "all")
    ]
    for row in rows:
        assert "the map is made by the main head" in row["explains"]
        if row["class"] == "lake":
            assert (row["pixels"], row["share of prior"], row["agrees with map"]) == ("0", "", "")
        else:
            assert sum(float(row[f"share of {t}"]) for t in TOKENS) == pytest.approx(1, abs=1e-5)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["rows"][0]["share of depth 1"] == float(rows[0]["share of depth 1"])


def test_the_command(call, quick_run, labelled_pair, tmp_path):
    assert "Example: adcdnet explain" in call("explain", "--help")[1]
    pair = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--labels", labelled_pair.labels
    where = "--split", quick_run.folder / "split.tif", "--part", "test"
    files = "--out", tmp_path / "why.png", "--json", tmp_path / "why.json"
    code, out, err = call("explain", quick_run.folder, *pair, *where, *files)
    assert (code, err) == (0, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["why.csv", "why.json", "why.png"]
    rows = json.loads((tmp_path / "why.json").read_text())["rows"]
    with labelled_pair.open() as scene:
        found = explain(
            quick_run.model,
            scene,
            read_labels(labelled_pair.labels, scene.grid, classes=quick_run.model.classes),
            split=where[1],
            part="test",
        )
    assert rows == found.rows()
    assert "the map is made by the main head" in out
    for row in rows:
        assert f"{row['share of attended']:.3f}" in out
        assert row["class"] in out


# ---- what does not fit


def refused(model: Model, scene: Scene, labels: Labels, **where) -> str:
    with pytest.raises(InputError) as error:
        explain(model, scene, labels, **where)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_network_without_heads_has_nothing_to_explain(tiny_scene, tiny_labels):
    assert "no DTM heads, so there is no decision of theirs to explain; train with --members" in refused(
        stirred(dtm=False), tiny_scene, tiny_labels
    )


def test_other_bands_and_other_classes_are_refused(tiny_scene, tiny_labels):
    assert "5 MS bands" in refused(stirred(replace(LAYOUT, ms_bands=4)), tiny_scene, tiny_labels)
    other = replace(tiny_labels, classes=ClassTable.of([1, 2, 3], ["a", "b", "c"]))
    assert "has the values [1, 2, 3], the model was trained with [2, 5, 8]" in refused(stirred(), tiny_scene, other)


def test_splits_that_do_not_serve_are_refused(tiny_scene, tiny_labels, tmp_path, write_tif, tiny_model):
    split = write_tif("split.tif", np.full(tiny_scene.grid.shape, 3, np.uint8))
    small = write_tif("small.tif", np.full((29, 36), 3, np.uint8))
    assert "--split and --part" in refused(tiny_model, tiny_scene, tiny_labels, split=split)
    assert "'exam' is not one of" in refused(tiny_model, tiny_scene, tiny_labels, split=split, part="exam")
    assert "29×36 against 29×37" in refused(tiny_model, tiny_scene, tiny_labels, split=small, part="test")
    nothing = refused(tiny_model, tiny_scene, tiny_labels, split=split, part="train")
    assert "no labelled pixel on valid ground in the train part" in nothing


def test_outputs_are_checked_before_any_work(call, tmp_path):
    images = [tmp_path / name for name in ("ms.tif", "points.csv")]
    for path in images:
        path.write_text("kept")
    (tmp_path / "folder.png").mkdir()
    for out, says in (
        ("why.pdf", "must end in .png or .svg"),
        ("none/why.png", "is a folder or lies in none"),
        ("folder.png", "is a folder"),
        ("points.png", "points.csv is one of the files that are read"),
    ):
        where = "--ms", images[0], "--pan", images[0], "--labels", images[1]
        code, printed, err = call("explain", tmp_path / "run", *where, "--out", tmp_path / out)
        assert (code, printed) == (1, "")
        assert says in err
        assert err.count("\n") == 1
    with pytest.raises(InputError, match="named twice"):
        check_outputs([tmp_path / "a.png", tmp_path / "a.csv", tmp_path / "a.csv"], [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "ms.tif", "points.csv"]
    assert images[1].read_text() == "kept"
