"""On a GPU the same as on a processor: maps and whole trainings. Skipped where there is none.

Golden values are tested on both by the tests of DIA and of the scan.
"""

import numpy as np
import pytest
import torch

from adcdnet.benchmark import cell as cells
from adcdnet.benchmark.cell import Cell
from adcdnet.config import TrainConfig
from adcdnet.geo.maps import read_map
from adcdnet.geo.scene import Scene
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.engine import logits_of
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout
from adcdnet.training.run import train
from conftest import PIXEL, QUICK, build_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
MUCH = 2**33  # bytes: a process that has used a GPU is resident with more than the default


@pytest.mark.parametrize("changes", [{}, {"head": "flatten"}, {"grid": "fine"}, {"prior": False, "attention": "none"}])
def test_both_engines_and_both_devices_give_the_same_logits(changes, tiny_scene):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), **changes)
    pixels = tiny_scene.read(tiny_scene.grid.window.grow(model.reach))
    expected = logits_of(model, pixels, engine="dense")
    for engine in ("dense", "patch"):
        found = logits_of(model, pixels, engine=engine, device="cuda")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_rounded_answers_are_nearly_the_same(tiny_model, tiny_scene):
    pixels = tiny_scene.read(tiny_scene.grid.window.grow(tiny_model.reach))
    exact, rounded = (
        logits_of(tiny_model, pixels, engine="dense", device="cuda", precision=p) for p in ("float32", "bf16")
    )
    known = ~np.isnan(exact[0])
    assert (exact.argmax(0) == rounded.argmax(0))[known].mean() > 0.9
    assert not np.array_equal(exact, rounded, equal_nan=True)


def test_the_map_is_that_of_the_processor_and_the_network_comes_home(tiny_model, tiny_scene, tmp_path):
    for device in ("cpu", "cuda"):
        predict(tiny_model, tiny_scene, out=tmp_path / f"{device}.tif", device=device, memory=MUCH)
        assert {p.device.type for p in tiny_model.network.parameters()} == {"cpu"}
    one, other = ((tmp_path / f"{device}.tif").read_bytes() for device in ("cpu", "cuda"))
    assert one == other


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling": "patch"},
        {"precision": "bf16"},
        {"network": {"head": "flatten", "token": "flatten"}},
        {"network": {"padding": "zeros", "patch": 8, "head": "flatten"}},
    ],
)
def test_a_training_on_the_gpu_learns_and_maps_anywhere(changes, labelled_pair, few_trials, tmp_path):
    config = (
        TrainConfig.of_profile("patch")
        .replace(QUICK)
        .replace({"stage2": {"steps": 60}, "plain_if_few": False})
        .replace(changes)
    )
    with labelled_pair.open() as scene:
        run = train(scene, labelled_pair.read_labels(scene), out=tmp_path / "run", config=config, device="cuda")
        predict(run, scene, out=tmp_path / "map.tif", device="cpu", memory=MUCH)
    values, _ = read_map(tmp_path / "map.tif")
    assert (values == labelled_pair.truth).mean() > 0.6


@pytest.mark.parametrize("sampling", ["dense", "patch"])
def test_two_trainings_with_one_seed_give_the_same_file(sampling, labelled_pair, few_trials, tmp_path):
    config = TrainConfig.of_profile("patch").replace(QUICK).replace({"sampling": sampling, "plain_if_few": False})
    files = []
    for name in ("one", "two"):
        with labelled_pair.open() as scene:
            labels = labelled_pair.read_labels(scene)
            train(scene, labels, out=tmp_path / name / "run", config=config, device="cuda")
        files.append((tmp_path / name / "run" / "model.safetensors").read_bytes())
    assert files[0] == files[1]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_map_takes_no_more_of_the_gpu_than_it_may(write_tif, tmp_path):
    rng = np.random.default_rng(0)
    ms = write_tif("ms.tif", rng.integers(1, 1000, (5, 600, 600)).astype(np.uint16))
    pan = write_tif("pan.tif", rng.integers(1, 1000, (1200, 1200)).astype(np.uint16), pixel=PIXEL / 2)
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), widths=[32, 64, 64], hidden=64)
    torch.cuda.empty_cache()  # what earlier tests have left
    torch.cuda.reset_peak_memory_stats()
    with Scene.open(ms, pan) as scene:
        predict(model, scene, out=tmp_path / "map.tif", device="cuda", memory=3 * 2**29)
    assert 2**28 < torch.cuda.max_memory_reserved() < 3 * 2**29


def test_a_cell_of_a_benchmark_is_trained_where_it_is_told(labelled_pair, few_trials, tmp_path):
    pair = labelled_pair
    scene = SceneFiles(name="pair", ms=pair.ms, pan=pair.pan, labels=pair.labels, classes=pair.classes)
    torch.cuda.reset_peak_memory_stats()
    found = cells.compute(Cell((scene,), "plain", 0, 0, 0, folds=2, labels_per_class=20, device="cuda"))
    assert found["device"] == "cuda"
    assert torch.cuda.max_memory_allocated() > 2**20
