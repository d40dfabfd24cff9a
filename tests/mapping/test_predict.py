"""Two engines, one result; the map and probability files; memory bounded by the window."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from adcdnet.errors import InputError
from adcdnet.files import HeldFolder
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.mapping import engine
from adcdnet.mapping.engine import default_engine, logits_of, scene_logits
from adcdnet.mapping.journal import fingerprint
from adcdnet.mapping.local_priors import LocalPriors
from adcdnet.mapping.memory import Sizes
from adcdnet.mapping.model import Run
from adcdnet.mapping.posterior import posterior
from adcdnet.mapping.predict import predict
from adcdnet.mapping.smoothing import looks, smooth
from adcdnet.nn.architecture import Layout
from conftest import PAPER, PIXEL, build_model, left_by_a_killed_process


def whole_logits(model, scene, *, engine="dense", tile=128):
    """(K, H, W), stitched."""
    logits = np.full((len(model.classes), *scene.grid.shape), -99, np.float32)
    for window, _, part in scene_logits(model, scene, engine=engine, tile=tile):
        logits[:, *window.slices] = part
    return logits


def all_valid(scene):
    return scene.read(scene.grid.window).valid


# ---- the engines


@pytest.mark.parametrize("changes", [{}, {"head": "flatten"}, {"backbone": "mobilenetv3", "prior": False}])
def test_dense_gives_what_the_patches_define(tiny_scene, changes):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), **changes)
    dense, defined = (whole_logits(model, tiny_scene, engine=engine) for engine in ("dense", "patch"))
    assert np.array_equal(np.isnan(dense), np.isnan(defined))
    assert np.nanmax(np.abs(dense - defined)) < 1e-4
    assert np.nanstd(dense) > 0.1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    ratio=st.integers(1, 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    valid=st.floats(0.02, 1),
    at_once=st.integers(1, 90),
    changes=st.fixed_dictionaries(
        {
            "backbone": st.sampled_from(["conv", "mobilenetv3"]),
            "head": st.sampled_from(["centre", "flatten"]),
            "grid": st.sampled_from(["coarse", "fine"]),
            "attention": st.sampled_from(["dia", "none"]),
            "prior": st.booleans(),
        }
    ),
    seed=st.integers(0, 99),
)
@example(ratio=2, size=(1, 1), valid=1.0, at_once=1, changes={}, seed=0)
@example(ratio=3, size=(1, 9), valid=0.2, at_once=2, changes={"grid": "fine"}, seed=1)
def test_dense_is_exact_wherever_targets_lie(ratio, size, valid, at_once, changes, seed):
    """Whatever the size of the tile, the portions it is read in, and the pixels that have no answer."""
    layout = Layout(ms_bands=2, pan_bands=1, ratio=ratio, classes=3)
    network = build_model(layout, seed=seed, **changes).network.double()
    config, rng = network.config, np.random.default_rng(seed)
    step, around = config.targets_per_pixel(ratio), 2 * config.reach
    ms, pan = (
        torch.from_numpy(rng.normal(size=(b, *((n + around) * r for n in size)))) for b, r in ((2, 1), (1, ratio))
    )
    row, col = np.nonzero(rng.random([n * step for n in size]) <= valid)
    assume(len(row))
    order = rng.permutation(len(row))
    row, col = row[order], col[order]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(engine, "_AT_ONCE", at_once * 4 * config.widths[-1])
        dense = engine._dense(network, ms, pan, row, col)
        defined = engine._patch_by_patch(network, ms, pan, row, col, 16)
    np.testing.assert_allclose(dense.numpy(), defined.numpy(), rtol=0, atol=1e-9)


def test_logits_are_given_where_the_scene_is_valid(tiny_scene, tiny_model):
    valid = all_valid(tiny_scene)
    assert (~valid).sum() == 6 * 9 + 3  # a corner, and three cells under five pan pixels
    assert np.array_equal(np.isfinite(whole_logits(tiny_model, tiny_scene)).all(0), valid)


@pytest.mark.parametrize("engine", ["dense", "patch"])
@pytest.mark.parametrize("tile", [13, 29])
def test_logits_do_not_depend_on_the_tile_size(tiny_scene, tiny_model, tile, engine):
    whole = whole_logits(tiny_model, tiny_scene)
    found = whole_logits(tiny_model, tiny_scene, tile=tile, engine=engine)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", ["dense", "patch"])
def test_logits_are_averaged_with_those_of_neighbours(tiny_scene, engine):
    layout = Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3)
    raw = whole_logits(build_model(layout, smooth=0), tiny_scene, engine=engine)
    model = build_model(layout, smooth=1.6, likeness=0.4)
    found = whole_logits(model, tiny_scene, engine=engine, tile=13)
    look = looks(*model.statistics.standardise(*tiny_scene.read(tiny_scene.grid.window)), 1, sensors="both")
    inner = (slice(None), slice(2, -2), slice(2, -2))  # beyond the edge of the scene, mirrored pixels count as well
    np.testing.assert_allclose(found[inner], smooth(raw, look, 1.6, 0.4)[inner], rtol=0, atol=1e-4)
    assert np.nanmax(np.abs(found - raw)) > 0.1


def test_a_scene_smaller_than_the_reach_is_mirrored_repeatedly(tiny_pair):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=3, classes=3))
    with Scene.open(*tiny_pair(ratio=3, height=2, width=5)) as scene:
        dense, defined = (whole_logits(model, scene, engine=engine) for engine in ("dense", "patch"))
    assert np.isfinite(dense).all()
    np.testing.assert_allclose(dense, defined, rtol=0, atol=1e-4)


def test_values_of_invalid_pixels_do_not_count(tiny_model):
    rng = np.random.default_rng(0)
    ms = rng.uniform(1, 999, (5, 29, 29)).astype(np.float32)
    pan = rng.uniform(1, 999, (1, 58, 58)).astype(np.float32)
    ms_valid, pan_valid = rng.random((29, 29)) > 0.1, rng.random((58, 58)) > 0.05
    other_ms, other_pan = np.where(ms_valid, ms, 9e9), np.where(pan_valid, pan, -9e9)
    logits = [
        logits_of(tiny_model, Pixels(m.astype(np.float32), p.astype(np.float32), ms_valid, pan_valid), engine="dense")
        for m, p in ((ms, pan), (other_ms, other_pan))
    ]
    assert np.array_equal(*logits, equal_nan=True)
    assert np.isfinite(logits[0]).any()


def test_the_published_network_sees_7_before_and_8_after():
    model = build_model(Layout(ms_bands=4, pan_bands=1, ratio=4, classes=3), **PAPER)
    assert default_engine(model.network) == "patch"
    rng = np.random.default_rng(0)
    ms, pan = rng.uniform(0, 999, (4, 17, 17)).astype(np.float32), rng.uniform(0, 999, (1, 68, 68)).astype(np.float32)
    valid = np.ones((17, 17), bool), np.ones((68, 68), bool)

    def answer(ms, pan):
        return logits_of(model, Pixels(ms, pan, *valid), engine="patch")

    before = answer(ms, pan)
    assert before.shape == (3, 1, 1)
    for offset, seen in ((-8, False), (-7, True), (8, True)):
        for axis in (1, 2):
            changed_ms, changed_pan = ms.copy(), pan.copy()
            row = 8 + offset
            np.moveaxis(changed_ms, axis, 0)[row] += 500
            assert (not np.array_equal(answer(changed_ms, pan), before)) == seen
            np.moveaxis(changed_pan, axis, 0)[4 * row : 4 * row + 4] += 500
            assert (not np.array_equal(answer(ms, changed_pan), before)) == seen


def test_engines_that_cannot_be_used(tiny_scene, tiny_model):
    tied = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), backbone="mobilenetv3", squeeze_excite=True)
    assert default_engine(tied.network) == "patch"
    with pytest.raises(InputError, match="--engine patch"):
        whole_logits(tied, tiny_scene)
    with pytest.raises(ValueError, match="engine is 'fast'"):
        whole_logits(tiny_model, tiny_scene, engine="fast")


# ---- the posterior


def test_posterior_by_hand():
    label_shares, drawn_shares = (0.5, 0.25, 0.25), (0.2, 0.4, 0.4)
    q = np.array([0.2, 0.2, 0.6])
    logits = (np.log(q) + 7).astype(np.float32).reshape(3, 1, 1)
    expected = {
        0: q / [0.2, 0.4, 0.4],
        1: q * [0.5, 0.25, 0.25] / [0.2, 0.4, 0.4],
        0.5: q * np.sqrt([0.5, 0.25, 0.25]) / [0.2, 0.4, 0.4],
    }
    for tau, p in expected.items():
        assert posterior(logits, label_shares, drawn_shares, tau).ravel() == pytest.approx(p / p.sum(), rel=1e-5)
    assert posterior(logits, label_shares, label_shares, 1).ravel() == pytest.approx(q, rel=1e-5)


def test_posterior_of_extreme_logits():
    logits = np.array([[1e4, -1e4], [0, 0], [-1e4, 1e4]], np.float32)
    p = posterior(logits, (0.5, 0.3, 0.2), (0.2, 0.4, 0.4), 1.0)
    assert p.dtype == np.float32
    assert np.isfinite(p).all()
    assert p[:, 0].tolist() == [1, 0, 0]


# ---- the files


@pytest.fixture
def mapped(tiny_scene, tiny_model, tmp_path):
    """Map and probabilities of the tiny scene at tau 0.5."""
    paths = tmp_path / "map.tif", tmp_path / "probabilities.tif"
    warnings = predict(tiny_model, tiny_scene, out=paths[0], probabilities=paths[1], tau=0.5)
    assert warnings == []
    return paths


def test_the_map_is_what_the_logits_say(mapped, tiny_scene, tiny_model):
    logits = whole_logits(tiny_model, tiny_scene)
    shares = tiny_model.label_shares, (1.0, 1.0, 1.0)  # log likelihoods have no shares in them
    valid = all_valid(tiny_scene)
    row, col = np.nonzero(valid)
    local = LocalPriors(logits.shape[1:], 1, *shares, tiny_model.answers.local_priors)
    local.add(logits[:, valid], row, col)
    p = posterior(local.adapt(logits[:, valid], row, col), *shares, 0.5)
    expected = np.zeros(valid.shape, np.uint8)
    expected[valid] = np.array([2, 5, 8])[p.argmax(0)]
    with rasterio.open(mapped[0]) as dataset, rasterio.open(mapped[1]) as soft:
        assert np.array_equal(dataset.read(1), expected)
        assert soft.read()[:, valid] == pytest.approx(p, abs=1e-5)
    assert set(np.unique(expected)) == {0, 2, 5, 8}
    alone = posterior(logits[:, valid], *shares, 0.5)
    assert np.abs(alone - p).max() > 0.01


@pytest.mark.parametrize("tile", [13, 16, 30])
def test_the_map_does_not_depend_on_the_tile_size(tile, mapped, tiny_scene, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.mapping.predict.sizes_of_model", lambda *_, **__: Sizes(tile, 256))
    predict(tiny_model, tiny_scene, out=tmp_path / "m.tif", probabilities=tmp_path / "p.tif", tau=0.5)
    with rasterio.open(mapped[1]) as whole, rasterio.open(tmp_path / "p.tif") as tiled:
        assert tiled.read() == pytest.approx(whole.read(), abs=2e-6, nan_ok=True)


def test_tau_moves_the_map(tiny_scene, tiny_model, tmp_path):
    model = replace(tiny_model, label_shares=(0.01, 0.01, 0.98))
    shares = []
    for tau in (0.0, 2.0):
        predict(model, tiny_scene, out=tmp_path / "map.tif", tau=tau)
        with rasterio.open(tmp_path / "map.tif") as dataset:
            shares.append((dataset.read(1) == 8).mean())
            assert dataset.tags()["ADCDNET_TAU"] == str(tau)
    assert shares[1] > shares[0] + 0.1


def test_the_map_file(mapped, tiny_scene, tiny_model):
    with rasterio.open(mapped[0]) as dataset, rasterio.open(mapped[0].parent / "ms.tif") as ms:
        assert dataset.transform == ms.transform
        assert dataset.crs == ms.crs
        assert (dataset.dtypes, dataset.nodata, dataset.shape) == (("uint8",), 0, ms.shape)
        assert dataset.profile["tiled"]
        assert dataset.compression.name == "deflate"
        for value, color in zip(tiny_model.classes.values, tiny_model.classes.colors, strict=True):
            assert "#{:02x}{:02x}{:02x}".format(*dataset.colormap(1)[value][:3]) == color
        tags = dataset.tags()
        assert json.loads(tags["CLASS_NAMES"]) == {"2": "class 0", "5": "class 1", "8": "class 2"}
        assert tags["ADCDNET_MODEL"] == "tiny"
        assert tags["ADCDNET_VERSION"]


def test_the_probability_file(mapped, tiny_scene):
    valid = all_valid(tiny_scene)
    with rasterio.open(mapped[1]) as dataset, rasterio.open(mapped[0]) as map_:
        p = dataset.read()
        assert dataset.descriptions == ("class 0", "class 1", "class 2")
        assert dataset.dtypes == ("float32",) * 3
        assert np.isnan(dataset.nodata)
        assert np.isnan(p[:, ~valid]).all()
        assert p[:, valid].sum(0) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(np.array([2, 5, 8])[p[:, valid].argmax(0)], map_.read(1)[valid])


def test_a_model_may_be_named_by_its_folder_file_or_run(tiny_scene, tiny_model, tmp_path, mapped):
    tiny_model.save(tmp_path / "model.safetensors")
    run = Run(tmp_path, tiny_model)
    for k, named in enumerate((tmp_path, str(tmp_path / "model.safetensors"), run)):
        predict(named, tiny_scene, out=tmp_path / f"{k}.tif", tau=0.5)
        assert (tmp_path / f"{k}.tif").read_bytes() == mapped[0].read_bytes()


def test_memory_is_bounded_by_the_window(write_tif, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    ms = write_tif("ms.tif", rng.integers(1, 1000, (3, 150, 7)).astype(np.uint16))
    pan = write_tif("pan.tif", rng.integers(1, 1000, (300, 14)).astype(np.uint16), pixel=PIXEL / 2)
    model = build_model(Layout(ms_bands=3, pan_bands=1, ratio=2, classes=3), smooth=0)
    heights = []
    read = Scene.read

    def measured(self, window, **options):
        heights.append(window.height)
        return read(self, window, **options)

    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 64)
    monkeypatch.setattr(Scene, "read", measured)
    with Scene.open(ms, pan) as scene:
        predict(model, scene, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    assert max(heights) <= 64 + 2 * 8
    assert sum(h - 16 for h in heights) == 150


def test_progress_counts_pixels(tiny_scene, tiny_model, tmp_path):
    calls = []
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", progress=lambda _, done, of, __: calls.append((done, of)))
    assert calls[-1] == (29 * 37, 29 * 37)


# ---- what does not fit


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ({"ms_bands": 4}, "the scene has 5 MS bands, the model was trained with 4"),
        ({"pan_bands": 4}, "the scene has 1 PAN bands, the model was trained with 4"),
        ({"ratio": 4}, "the scene has 2 PAN pixels per MS pixel, the model was trained with 4"),
    ],
)
def test_a_scene_of_other_sensors_is_refused(tiny_scene, tmp_path, layout, says):
    model = build_model(Layout(**{"ms_bands": 5, "pan_bands": 1, "ratio": 2, "classes": 3} | layout))
    with pytest.raises(InputError, match=says):
        predict(model, tiny_scene, out=tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


def test_a_scene_far_from_the_training_area_is_warned_of(tiny_scene, tiny_model, write_tif, tmp_path):
    inputs = []
    for name in ("ms", "pan"):
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            pixel = dataset.transform.a
            inputs.append(write_tif(f"{name}5.tif", dataset.read() * np.uint16(5), pixel=pixel, nodata=0))
    with Scene.open(*inputs) as scene:
        warnings = predict(tiny_model, scene, out=tmp_path / "map.tif")
    (warning,) = warnings
    assert "the means of 6 of 6 bands lie over 3 standard deviations from those of the training area" in warning
    statistics = tiny_model.statistics
    bands = zip(range(5), statistics.ms_mean, statistics.ms_deviation, strict=True)
    away = {f"MS band {i + 1}": (scene_mean(inputs[0], i + 1) - mean) / deviation for i, mean, deviation in bands}
    away["PAN band 1"] = (scene_mean(inputs[1]) - statistics.pan_mean[0]) / statistics.pan_deviation[0]
    worst = sorted(away, key=away.get, reverse=True)[:3]
    assert "(" + ", ".join(f"{name} {away[name]:.1f}" for name in worst) + ")" in warning


def scene_mean(path, number=1) -> float:
    """Of a band, where it is not 0."""
    with rasterio.open(path) as dataset:
        band = dataset.read(number).astype(float)
    return band[band != 0].mean()


def test_a_scene_without_a_valid_pixel_leaves_no_file(write_tif, tiny_model, tmp_path):
    nothing = np.zeros((5, 9, 9), np.uint8)
    ms = write_tif("ms.tif", nothing, nodata=0)
    pan = write_tif("pan.tif", np.ones((18, 18), np.uint8), pixel=PIXEL / 2)
    with Scene.open(ms, pan) as scene, pytest.raises(InputError, match="no valid pixel"):
        predict(tiny_model, scene, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


def test_an_interrupted_prediction_leaves_the_older_map(tiny_scene, tiny_model, tmp_path, mapped):
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, tiny_scene, out=mapped[0], probabilities=mapped[1], progress=interrupt)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_probabilities_that_cannot_be_written_leave_no_map(tiny_scene, tiny_model, tmp_path):
    with pytest.raises(InputError, match=r"p\.tif"):
        predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", probabilities=tmp_path / "none" / "p.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


def test_map_and_probabilities_of_one_name_are_refused(tiny_scene, tiny_model, tmp_path):
    with pytest.raises(InputError, match="was named twice"):
        predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", probabilities=str(tmp_path / "map.tif"))
    assert not (tmp_path / "map.tif").exists()


def test_a_stopped_prediction_resumes_to_the_identical_file(tiny_model, tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)
    whole, parts = tmp_path / "whole.tif", tmp_path / "parts.tif"
    predict(tiny_model, tiny_scene, out=whole, probabilities=tmp_path / "pw.tif")

    def stop(what, done, total, figures):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, tiny_scene, out=parts, probabilities=tmp_path / "pp.tif", resume=True, progress=stop)
    assert not parts.exists()
    assert not (tmp_path / "pp.tif").exists()
    kept = list((tmp_path / ".parts.tif.tiles").glob("*.npz"))
    assert kept
    classified = []
    monkeypatch.setattr("adcdnet.mapping.engine.logits_of", lambda *a, **k: classified.append(1) or logits_of(*a, **k))
    predict(tiny_model, tiny_scene, out=parts, probabilities=tmp_path / "pp.tif", resume=True)
    tiles_in_all = -(-tiny_scene.grid.height // 16) * -(-tiny_scene.grid.width // 16)
    assert len(classified) == tiles_in_all - len(kept)
    assert parts.read_bytes() == whole.read_bytes()
    assert (tmp_path / "pp.tif").read_bytes() == (tmp_path / "pw.tif").read_bytes()
    assert not (tmp_path / ".parts.tif.tiles").exists()


def test_tiles_serve_every_tau(tiny_model, tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)
    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", resume=True, tau=0.0, progress=stop)
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", resume=True, tau=1.0)
    predict(tiny_model, tiny_scene, out=tmp_path / "plain.tif", tau=1.0)
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "plain.tif").read_bytes()


def test_nothing_but_the_map_is_left_of_a_call_nor_of_those_that_were_killed(tiny_model, tiny_scene, tmp_path):
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == before
    for name in (".map.tif.x1.tiles", ".other.tif.x1.tiles", ".map.tif.2.tiles"):
        left_by_a_killed_process(tmp_path / name)
    (tmp_path / ".map.tif.2.tiles" / "head.json").write_text("{}")  # kept for a map called map.tif.2
    running = HeldFolder.make(tmp_path, ".map.tif.", ".tiles")
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif")
    left = {path.name for path in tmp_path.iterdir() if path.name.endswith(".tiles")}
    assert left == {running.path.name, ".other.tif.x1.tiles", ".map.tif.2.tiles"}


def test_tiles_of_another_mask_rule_are_not_used_again(tiny_model, tiny_scene, write_tif, tmp_path, monkeypatch):
    """What a mask hides depends on its rule: tiles of one rule in a map of another would be wrong in silence."""
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)
    mask = write_tif("scl.tif", np.arange(29 * 37).reshape(29, 37).astype(np.uint16) % 2 + 3)  # 3 and 4

    def stop(what, done, total, figures):
        raise KeyboardInterrupt

    def mapped(hides, **more):
        with Scene.open(*tiny_scene.paths, mask=mask, mask_values=[hides]) as scene:
            predict(tiny_model, scene, out=tmp_path / "map.tif", **more)
        return read_band(tmp_path / "map.tif")[0]

    with pytest.raises(KeyboardInterrupt):
        mapped(3, resume=True, progress=stop)
    resumed = mapped(4, resume=True)
    assert np.array_equal(resumed, mapped(4))


def test_tiles_of_other_bands_are_refused_and_stay(tiny_model, tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setattr("adcdnet.mapping.memory.LARGEST_TILE", 16)

    def stop(what, done, total, figures):
        raise KeyboardInterrupt

    def mapped(bands, **more):
        ms, pan = tiny_scene.paths
        with Scene.open(ms, pan, ms_bands=bands and bands.split(",")) as scene:
            predict(tiny_model, scene, out=tmp_path / "map.tif", **more)

    with pytest.raises(KeyboardInterrupt):
        mapped("2,1,3,4,5", resume=True, progress=stop)
    kept = {path: path.read_bytes() for path in (tmp_path / ".map.tif.tiles").iterdir()}
    for bands, named in (("1,2,3,4,5", "MS bands 1,2,3,4,5"), (None, "all bands")):
        with pytest.raises(InputError, match=f"made from MS bands 2,1,3,4,5, and {named} are asked for now") as caught:
            mapped(bands, resume=True)
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in (tmp_path / ".map.tif.tiles").iterdir()} == kept
    mapped("2,1,3,4,5", resume=True)
    resumed = (tmp_path / "map.tif").read_bytes()
    mapped("2,1,3,4,5")
    assert (tmp_path / "map.tif").read_bytes() == resumed


def test_a_map_does_not_overwrite_an_image(tiny_scene, tiny_model):
    before = tiny_scene.paths[0].read_bytes()
    with pytest.raises(InputError, match="is one of the files that are read"):
        predict(tiny_model, tiny_scene, out=tiny_scene.paths[0])
    assert tiny_scene.paths[0].read_bytes() == before


def test_tiles_are_not_resumed_when_training_met_the_classes_otherwise(tiny_model, tiny_scene, tmp_path):
    member = tiny_model.first_network
    other = replace(tiny_model, members=(replace(member, drawn_shares=member.drawn_shares[::-1]),))
    assert fingerprint(other, tiny_scene, ()) != fingerprint(tiny_model, tiny_scene, ())
    assert fingerprint(replace(tiny_model), tiny_scene, ()) == fingerprint(tiny_model, tiny_scene, ())


def stop(what, done, total, figures):
    raise KeyboardInterrupt


@pytest.mark.parametrize(("left_by", "stays"), [("this", False), ("gone", False), ("running", True)])
def test_a_call_without_resume_clears_the_tiles_of_one_that_ended(tiny_model, tiny_scene, tmp_path, left_by, stays):
    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", resume=True, progress=stop)
    tiles = tmp_path / ".map.tif.tiles"
    if left_by == "gone":
        left_by_a_killed_process(tiles)
    held = HeldFolder.hold(tiles) if left_by == "running" else None
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif")
    assert tiles.exists() == stays == (held is not None)


def test_tiles_are_held_while_they_are_made(tiny_model, tiny_scene, tmp_path):
    held = []

    def look(*_):
        held.extend(HeldFolder.hold(folder) for folder in tmp_path.glob("*.tiles"))

    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", progress=look)
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", progress=look, resume=True)
    assert held
    assert set(held) == {None}


def test_the_network_is_back_where_it_was(tiny_model, tiny_scene, tmp_path, monkeypatch):
    moved = []
    move = type(tiny_model.network).to
    monkeypatch.setattr(type(tiny_model.network), "to", lambda self, to: moved.append(str(to)) or move(self, to))
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", device="cpu", progress=stop)
    assert moved == ["cpu"] * 4  # to the device for the one tile, and home, twice


def test_the_default_device_is_what_is_there(tiny_model, tiny_scene, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("adcdnet.mapping.predict.pick_device", lambda name: asked.append(name) or torch.device("cpu"))
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif")
    assert asked == ["auto"]
    monkeypatch.undo()
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", device="auto")
    with pytest.raises(InputError, match="'quantum' cannot be used here"):
        predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", device="quantum")


def test_patches_go_through_the_network_in_the_batch_that_fits(tiny_scene, tmp_path, monkeypatch):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), prior=False, smooth=0)
    sizes = []
    forward = type(model.network).forward
    monkeypatch.setattr("adcdnet.mapping.predict.sizes_of_model", lambda *_, **__: Sizes(16, 50))
    monkeypatch.setattr(
        type(model.network), "forward", lambda self, ms, pan: sizes.append(len(ms)) or forward(self, ms, pan)
    )
    predict(model, tiny_scene, out=tmp_path / "map.tif", engine="patch")
    assert max(sizes) == 50
    assert sum(sizes) == all_valid(tiny_scene).sum()
