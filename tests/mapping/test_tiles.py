"""Maps by a network over tiles: the same whatever is read at once, on both grids, with nodata, beyond borders."""

import numpy as np
import pytest
import torch

from adcdnet.benchmark.trained import logits_of_test
from adcdnet.config import AnswerConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.raster import read_band
from adcdnet.mapping import engine
from adcdnet.mapping.engine import scene_logits
from adcdnet.mapping.memory import sizes_within
from adcdnet.mapping.model import Model
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout, TileArchitecture
from adcdnet.nn.tile_adcdnet import TileADCDNet
from adcdnet.report.attention import masks

SMALL = {"detail": 4, "stream": 6, "widths": (6, 8, 10), "token_dims": (6, 8), "hidden": 7}


def tile_model(*, smooth: float = 2.0, **changes) -> Model:
    """For `tiny_scene`, with 3 classes of the values 2, 5 and 8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layout = Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3)
        network = TileADCDNet(TileArchitecture(**SMALL | changes), layout).eval()
        with torch.no_grad():
            network.classifier.weight *= 20
            logits = network(torch.randn(1, 5, 40, 40), torch.randn(1, 1, 80, 80))
            network.classifier.bias -= logits.mean((0, 2, 3))
    statistics = BandStatistics((500.0,) * 5, (280.0,) * 5, (500.0,), (280.0,))
    table, shares = ClassTable.of([2, 5, 8], ["a", "b", "c"]), (0.3, 0.3, 0.4)
    return Model.of_network(network, statistics, table, shares, shares, answers=AnswerConfig(smooth=smooth))


def whole(model, scene, tile, tell=None):
    step = model.network.config.targets_per_pixel(2)
    logits = np.zeros((3, scene.grid.height * step, scene.grid.width * step))
    for window, _, values in scene_logits(model, scene, engine="dense", tile=tile, tell=tell):
        logits[:, *window.scale(step).slices] = values
    return logits


@pytest.mark.parametrize("grid", ["coarse", "fine"])
def test_logits_are_the_same_where_memory_runs_out(tiny_scene, grid, monkeypatch):
    model, notes, classify = tile_model(grid=grid), [], engine.logits_of
    expected = whole(model, tiny_scene, 200)

    def limited(model, pixels, **how):
        if max(pixels.ms_valid.shape) - 2 * model.reach > 13:
            raise MemoryError
        return classify(model, pixels, **how)

    monkeypatch.setattr(engine, "logits_of", limited)
    found = whole(model, tiny_scene, 21, notes.append)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(notes) == 1


@pytest.mark.parametrize("grid", ["coarse", "fine"])
@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_logits_do_not_depend_on_tile_size(tiny_scene, grid, smooth):
    model = tile_model(grid=grid, smooth=smooth)
    expected = whole(model, tiny_scene, 200)
    assert np.isnan(expected[0]).any()  # the invalid corner
    assert np.isfinite(expected[0]).mean() > 0.9
    for tile in (13, 16, 64):
        found = whole(model, tiny_scene, tile)
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", ["coarse", "fine"])
def test_a_map_is_on_the_grid_of_its_targets(tiny_scene, tmp_path, grid):
    model = tile_model(grid=grid)
    predict(model, tiny_scene, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    step = model.network.config.targets_per_pixel(2)
    values = read_band(tmp_path / "map.tif")[0]
    assert values.shape == (29 * step, 37 * step)
    assert set(np.unique(values)) == {0, 2, 5, 8}
    assert not values[: 6 * step, : 9 * step].any()


def test_a_model_file_brings_back_the_same_map(tiny_scene, tmp_path):
    model = tile_model()
    model.save(tmp_path / "model.safetensors")
    again = Model.load(tmp_path / "model.safetensors")
    assert again.network.config == model.network.config
    for name, made in (("a", model), ("b", again)):
        predict(made, tiny_scene, out=tmp_path / f"{name}.tif")
    assert np.array_equal(read_band(tmp_path / "a.tif")[0], read_band(tmp_path / "b.tif")[0])


def test_a_network_over_tiles_has_no_patches(tiny_scene, tmp_path):
    with pytest.raises(InputError, match="whole tiles, not patches"):
        predict(tile_model(), tiny_scene, out=tmp_path / "map.tif", engine="patch")
    assert list(tmp_path.glob("map*")) == []


def test_ground_far_from_a_pixel_does_not_count(tiny_scene, tmp_path):
    """Ground that is hidden changes answers within the reach of it, and none beyond: what the honest reading does."""
    model = tile_model(widths=(6,), smooth=0.0)
    reach = model.network.config.reach
    pixels = tiny_scene.read(tiny_scene.grid.window)
    hidden = np.zeros(pixels.valid.shape, bool)
    hidden[:, :8] = True
    seen, unseen = (logits_of_test(model, pixels, pixels.valid, hidden=h) for h in (np.zeros_like(hidden), hidden))
    changed = np.nanmax(np.abs(seen - unseen), axis=(0, 1)) > 0
    assert reach == model.reach == 11
    assert changed[:9].all()
    assert not changed[8 + reach :].any()


def test_more_memory_gives_larger_tiles_and_too_little_is_refused():
    network = tile_model().network
    small, large = (sizes_within(network, memory, reach=37, used=0, engine="dense").tile for memory in (2**28, 2**31))
    assert 16 <= small < large
    with pytest.raises(InputError, match="smallest that works"):
        sizes_within(network, 2**20, reach=37, used=0, engine="dense")


def test_the_pictures_of_its_masks(tiny_scene):
    pictures = masks(tile_model(), tiny_scene)
    assert sorted(pictures) == ["DIA mask, MS", "DIA mask, PAN", "prior mask, MS", "prior mask, PAN"]
    for picture in pictures.values():
        assert picture.shape == (29, 37)
        assert np.isnan(picture[:6, :9]).all()
        assert np.nanmin(picture) >= 0
        assert np.nanmax(picture) <= 1
