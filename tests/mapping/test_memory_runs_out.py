"""Where memory runs out in the middle of a map: smaller parts, the same answers, and one note."""

import numpy as np
import pytest
import torch

from adcdnet.mapping import engine
from adcdnet.mapping.engine import scene_logits
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout
from conftest import build_model

LAYOUT = Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3)


@pytest.fixture
def small_memory(monkeypatch):
    """Windows of more than so many MS pixels a side, halo left out, cannot be classified. The sides that were asked for
    are kept."""
    asked, whole = [], engine.logits_of

    def limited(model, pixels, **how):
        side = max(pixels.ms_valid.shape) - 2 * model.reach
        asked.append(side)
        if side > limited.most:
            raise limited.error
        return whole(model, pixels, **how)

    limited.most, limited.error, limited.asked = 10, MemoryError("no more"), asked
    monkeypatch.setattr(engine, "logits_of", limited)
    return limited


def logits(model, scene, tell=None):
    found = np.full((3, *scene.grid.shape), -99, np.float32)
    for window, _, part in scene_logits(model, scene, engine="dense", tile=64, tell=tell):
        found[:, *window.slices] = part
    return found


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_the_same_answers_in_parts(error, tiny_scene, small_memory):
    model, notes = build_model(LAYOUT), []
    small_memory.most = 1000
    expected = logits(model, tiny_scene)
    small_memory.most, small_memory.error = 10, error
    found = logits(model, tiny_scene, notes.append)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 1e-5
    assert max(small_memory.asked[-4:]) <= 10
    assert set(notes) == {engine._IN_PARTS}


def test_another_error_and_too_little_memory_are_not_hidden(tiny_scene, small_memory):
    model = build_model(LAYOUT)
    small_memory.most = 3
    with pytest.raises(MemoryError):
        logits(model, tiny_scene, print)
    small_memory.most, small_memory.error = 10, RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        logits(model, tiny_scene, print)


def test_parts_of_a_map_are_never_worked_on_otherwise(tiny_scene, small_memory):
    with pytest.raises(MemoryError):
        logits(build_model(LAYOUT), tiny_scene)


def test_a_map_says_so_once(tiny_scene, small_memory, tmp_path):
    model = build_model(LAYOUT)
    warnings = predict(model, tiny_scene, out=tmp_path / "map.tif")
    assert (tmp_path / "map.tif").exists()
    assert warnings.count(engine._IN_PARTS) == 1
