"""The fine grid: every PAN pixel a target, in prediction, training and evaluation."""

import json
import re

import numpy as np
import pytest
import torch

from adcdnet.assess.evaluate import evaluate
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Window
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.maps import read_map, sieve
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.mapping import engine
from adcdnet.mapping.engine import logits_of, scene_logits
from adcdnet.mapping.predict import predict
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.report.attention import masks
from adcdnet.report.explain import explain
from adcdnet.report.write import write_report
from adcdnet.split.parts import TEST, TRAIN, Split, add_guard
from adcdnet.training.area import TrainingArea
from adcdnet.training.run import train
from conftest import PIXEL, QUICK, build_model, write_tif_file

NETWORK = {"grid": "fine", "patch": 9}  # 9: half = 4 and halo 4, so 8 MS pixels before and after the target's
FINE = {"smooth": 0, **NETWORK}


def random_pixels(ratio, height=5, width=7, *, border=9):
    """A window of 5 × 7 MS pixels with the halo of the small network, a tenth of either image invalid."""
    rng = np.random.default_rng(ratio)
    h, w = height + 2 * border, width + 2 * border
    ms, pan = rng.uniform(1, 999, (3, h, w)), rng.uniform(1, 999, (2, h * ratio, w * ratio))
    return Pixels(
        ms.astype(np.float32),
        pan.astype(np.float32),
        rng.random((h, w)) > 0.1,
        rng.random((h * ratio, w * ratio)) > 0.1,
    )


def model_at(ratio, **changes):
    return build_model(Layout(ms_bands=3, pan_bands=2, ratio=ratio, classes=3), **{**FINE, **changes})


# ---- the definition, and its twin


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_a_fine_pixel_is_the_middle_of_its_pan_patch_and_lies_in_the_centre_of_its_ms_patch(ratio):
    model, pixels = model_at(ratio), random_pixels(ratio)
    found = logits_of(model, pixels, engine="patch", batch=13)
    shares = np.log(np.float32(model.first_network.drawn_shares))  # log likelihoods have no shares in them
    ms, pan = (torch.from_numpy(x) for x in model.statistics.standardise(*pixels))
    before = 8 * ratio + ratio // 2  # fine pixels of the patch above the target, and left of it
    side = 17 * ratio
    for y, x in [
        (0, 0),
        (0, 7 * ratio - 1),
        (5 * ratio - 1, 1),
        (2 * ratio, 3 * ratio),
        (3 * ratio - 1, 2 * ratio - 1),
    ]:
        row, col = y // ratio + 9, x // ratio + 9  # in MS pixels, halo included
        top, left = y + 9 * ratio - before, x + 9 * ratio - before
        with torch.inference_mode():
            expected = model.network(
                ms[None, :, row - 8 : row + 9, col - 8 : col + 9],
                pan[None, :, top : top + side, left : left + side],
            ).main[0]
        if pixels.ms_valid[row, col] and pixels.pan_valid[y + 9 * ratio, x + 9 * ratio]:
            np.testing.assert_allclose(found[:, y, x], expected.numpy() - shares, rtol=0, atol=1e-4)
        else:
            assert np.isnan(found[:, y, x]).all()


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
@pytest.mark.parametrize("changes", [{}, {"prior": False, "attention": "none", "head": "flatten"}])
def test_dense_gives_what_the_patches_define_in_float64(ratio, changes):
    network = model_at(ratio, **changes).network.double()
    rng = np.random.default_rng(7)
    ms, pan = (torch.from_numpy(rng.normal(size=(b, 23 * r, 25 * r))) for b, r in ((3, 1), (2, ratio)))
    row, col = np.nonzero(rng.random((5 * ratio, 7 * ratio)) > 0.3)
    with torch.inference_mode():
        dense = engine._dense(network, ms, pan, row, col)
        defined = engine._patch_by_patch(network, ms, pan, row, col, 16)
    assert len(dense) == len(row)
    assert (dense - defined).abs().max() < 1e-9
    assert dense.std() > 0.1


def test_at_ratio_1_a_fine_target_is_a_coarse_one():
    fine, pixels = model_at(1), random_pixels(1)
    coarse = model_at(1, grid="coarse")
    inner = Pixels(*(x[..., 1:-1, 1:-1] for x in pixels))  # the fine grid asks for one more MS pixel of halo
    found = [logits_of(model, p, engine="dense") for model, p in ((fine, pixels), (coarse, inner))]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("tile", [13, 29])
def test_fine_logits_do_not_depend_on_the_tile_size_and_are_given_where_own_pixels_are_valid(tiny_scene, tile):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), **FINE)

    def whole(size):
        logits = np.zeros((3, 58, 74), np.float32)
        for window, _, part in scene_logits(model, tiny_scene, engine="dense", tile=size):
            logits[:, *window.scale(2).slices] = part
        return logits

    expected = whole(64)
    assert np.isnan(expected).any(0).sum() == 6 * 9 * 4 + 5  # a corner of MS, and five PAN pixels
    np.testing.assert_allclose(whole(tile), expected, rtol=0, atol=1e-4)


# ---- training


def numbered_area(ratio, *, part=None, height=33, width=38):
    """MS pixels whose values are their numbers, as are those of PAN; every label is PAN's number modulo 3."""
    ms = np.arange(height * width, dtype=np.float32).reshape(1, height, width)
    pan = np.arange(ms.size * ratio**2, dtype=np.float32).reshape(1, height * ratio, width * ratio)
    pixels = Pixels(ms, pan, np.ones(ms.shape[1:], bool), np.ones(pan.shape[1:], bool))
    labels = Labels((pan[0] % 3).astype(np.int16), ClassTable.numbered(["a", "b", "c"]))
    split = Split(np.full((height, width), TRAIN, np.uint8) if part is None else part, 8, (), hides_test=False)
    as_is = BandStatistics((0.0,), (1.0,), (0.0,), (1.0,))
    config = TrainConfig.of_profile("patch").replace(
        {"network": {"patch": 9, "grid": "fine"}, "answers": {"smooth": 0}}
    )
    return TrainingArea.of(pixels, labels, split, config=config, ratio=ratio, statistics=as_is)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
@pytest.mark.parametrize("tiles", [True, False])
def test_labels_ms_and_pan_stay_on_each_other_however_a_draw_is_turned(ratio, tiles):
    area, rng = numbered_area(ratio), np.random.default_rng(1)
    if tiles:
        batch = area.draw_tiles(rng, 60, 5, labelled=True, augment=True)
    else:
        batch = area.draw_patches(rng, 200, balance=0.5, augment=True)
    side = batch.label.shape[1]
    assert batch.ms.shape[2:] == (side + 16, side + 16)
    assert batch.pan.shape[2:] == (ratio * (side + 16), ratio * (side + 16))
    ms = batch.ms[:, 0, 8 : 8 + side, 8 : 8 + side].astype(int)
    first = 8 * ratio + ratio // 2
    pan = batch.pan[:, 0, first::ratio, first::ratio][:, :side, :side].astype(int)
    row, col = np.divmod(pan, 38 * ratio)
    assert np.array_equal(batch.label, pan % 3)
    assert np.array_equal(ms, row // ratio * 38 + col // ratio)
    assert len({(r, c) for r, c in zip((row % ratio).flat, (col % ratio).flat, strict=True)}) == ratio**2
    before = pan[:, 0, 0] - batch.pan[:, 0, first - 1, first].astype(int)
    assert set(before.tolist()) - {0} == {1, -1, 38 * ratio, -38 * ratio}  # every way round; 0 where mirrored


def test_several_scenes_keep_their_labels_where_they_are():
    area = TrainingArea.joined([numbered_area(2), numbered_area(2, height=21, width=30)])
    assert area.class_counts.sum() == 4 * (33 * 38 + 21 * 30)
    batch = area.draw_patches(np.random.default_rng(3), 300, balance=0.5, augment=True)
    ms, pan = batch.ms[:, 0, 8, 8].astype(int), batch.pan[:, 0, 17, 17].astype(int)
    assert np.array_equal(batch.label[:, 0, 0], pan % 3)
    in_first, in_second = (pan // (2 * w) // 2 * w + pan % (2 * w) // 2 == ms for w in (38, 30))
    assert (in_first | in_second).all()
    assert min(in_first.sum(), in_second.sum()) > 60


def test_what_is_looked_at_for_a_target_is_cut_as_prediction_cuts_it():
    area = numbered_area(4)
    for row, col in [(0, 0), (50, 61), (131, 151)]:
        ms, pan = area.patch(row, col)
        assert ms[0, 8, 8] == row // 4 * 38 + col // 4
        assert pan[0, 34, 34] == row * 152 + col
        tile_ms, tile_pan = area.tile(Window(row // 4, col // 4, 1, 1), (row % 4, col % 4), border=area.network.border)
        assert np.array_equal(tile_ms, ms)
        assert np.array_equal(tile_pan, pan)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_the_guard_keeps_test_ground_out_of_the_windows_of_training_targets(ratio):
    network = PatchArchitecture(patch=9, grid="fine")
    assert network.reach == 9
    blocks = np.full((33, 38), TRAIN, np.uint8)
    blocks[12:20, 15:22] = TEST
    part = add_guard(blocks, np.ones(blocks.shape, bool), network.reach)
    area = numbered_area(ratio, part=part)
    nearest = area.labelled[(area.labelled[:, 0] < 3 * ratio) & (area.labelled[:, 1] // ratio == 18)]
    assert len(nearest) == 3 * ratio * ratio
    lowest = -1
    for row, col in nearest:
        _, pan = area.patch(int(row), int(col))
        seen = np.divmod(pan[0].astype(int), 38 * ratio)
        assert not (part[seen[0] // ratio, seen[1] // ratio] == TEST).any()
        lowest = max(lowest, seen[0].max() // ratio)
    assert lowest == 11 if ratio > 2 else lowest in (10, 11)  # no MS pixel of guard more than is needed


def test_an_ms_pixel_counts_for_the_rarest_class_in_it():
    index = np.array([[0, 0, 1, 1, -1, 2], [0, 2, 1, -1, -1, -1], [0, 1, -1, -1, 0, 0], [0, 0, -1, -1, 1, 1]], np.int16)
    polygons = np.arange(24, dtype=np.int32).reshape(4, 6)
    coarse = Labels(index, ClassTable.numbered(["a", "b", "c"]), polygons=polygons).coarsen(2)
    assert coarse.index.tolist() == [[2, 1, 2], [1, -1, 1]]
    assert coarse.polygons.tolist() == [[7, 2, 5], [13, 14, 22]]


# ---- as a user has it


@pytest.fixture(scope="module")
def checkered(tmp_path_factory):
    """Two classes at random that only the PAN pixel itself tells apart, on 60 × 52 MS pixels at ratio 2: the files."""
    folder, rng = tmp_path_factory.mktemp("checkered"), np.random.default_rng(60)
    truth = rng.integers(1, 3, (120, 104))
    ms = rng.integers(400, 600, (3, 60, 52)).astype(np.uint16)
    pan = (300 * truth + rng.integers(0, 100, truth.shape)).astype(np.uint16)
    write_tif_file(folder / "ms.tif", ms)
    write_tif_file(folder / "pan.tif", pan, pixel=PIXEL / 2)
    write_tif_file(folder / "labels.tif", truth.astype(np.uint8), pixel=PIXEL / 2)
    return folder


def test_a_class_that_one_pan_pixel_tells_is_mapped_on_the_pan_grid(checkered, tmp_path, few_trials):
    changes = {
        "network": NETWORK,
        "answers": {"smooth": 0},
        "stage1": {"steps": 2},
        "stage2": {"steps": 160, "tile": 8, "learning_rate": 0.01},
    }
    config = TrainConfig.of_profile("patch").replace(QUICK).replace(changes)
    with Scene.open(checkered / "ms.tif", checkered / "pan.tif") as scene:
        labels = read_labels(checkered / "labels.tif", scene.fine_grid)
        run = train(scene, labels, out=tmp_path / "run", config=config, device="cpu")
        predict(tmp_path / "run", scene, out=tmp_path / "map.tif", device="cpu")
        predict(run, scene, out=tmp_path / "defined.tif", engine="patch", sieved=2, device="cpu")
        fine_grid = scene.fine_grid
    values, grid = read_map(tmp_path / "map.tif")
    assert (grid.shape, grid.transform) == (fine_grid.shape, fine_grid.transform) == ((120, 104), grid.transform)
    assert run.model.record.labelled_pixels["train"] == (run.model.record.labelled_pixels["train"] // 4) * 4
    found = evaluate(tmp_path / "map.tif", checkered / "labels.tif", split=tmp_path / "run" / "split.tif", part="test")
    assert found.scores.oa > 0.95  # a pixel aside, or turned away from, says nothing: 0.5
    assert found.confusion.sum() == run.model.record.labelled_pixels["test"]
    assert found.block == 2 * run.model.record.block
    assert found.leakage.holding == 0
    sieved, _ = read_map(tmp_path / "defined.tif")
    assert np.array_equal(sieved, sieve(values, 2))


def test_predict_counts_the_pixels_of_the_map(call, tiny_scene, tmp_path):
    """29 × 37 MS pixels at ratio 2."""
    for grid, said in (("coarse", "1073 MS pixels"), ("fine", "4292 PAN pixels")):
        layout = Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3)
        build_model(layout, **{**FINE, "grid": grid}).save(tmp_path / "model.safetensors")
        ms, pan = tiny_scene.paths
        code, out, _ = call(
            "predict", tmp_path / "model.safetensors", "--ms", ms, "--pan", pan, "--out", tmp_path / "map.tif"
        )
        assert code == 0
        assert f"map.tif ({said} in" in out


def test_the_published_network_has_no_fine_grid():
    with pytest.raises(InputError, match="grid 'fine' needs padding 'valid'"):
        TrainConfig.of_profile("paper").replace({"network": {"grid": "fine"}})


def test_explain_is_for_the_ms_grid(tiny_scene):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=2, classes=3), **FINE)
    labels = Labels(np.zeros((29, 37), np.int16), model.classes)
    with pytest.raises(InputError, match=r"maps PAN pixels, .* --grid coarse$"):
        explain(model, tiny_scene, labels)


def test_a_report_counts_and_judges_pan_pixels(checkered, tmp_path, few_trials):
    config = (
        TrainConfig.of_profile("patch")
        .replace(QUICK)
        .replace({"network": NETWORK, "answers": {"smooth": 0}, "stage2": {"tile": 8}})
    )
    with Scene.open(checkered / "ms.tif", checkered / "pan.tif") as scene:
        run = train(scene, read_labels(checkered / "labels.tif", scene.fine_grid), out=tmp_path / "run", config=config)
        predict(run, scene, out=run.folder / "map.tif", probabilities=run.folder / "probabilities.tif")
    text = write_report(run).read_text("utf-8")
    found = evaluate(run.folder / "map.tif", checkered / "labels.tif", split=run.folder / "split.tif", part="test")
    assert f"{found.scores.oa:.1%} are mapped right: overall accuracy {found.scores.oa:.3f}" in text
    assert "2 classes on 12\u202f480 PAN pixels (44.93 ha)" in text  # 120 × 104, of 6 m
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert [data[name] for name in ("height", "width", "step", "place")] == [120, 104, 1, [500_000, 5_000_000, 6, -6]]
    assert "they are explained for MS pixels only" in text
    assert text.count("DIA mask") == 4  # each in words and to those who cannot see it
    part, _, _ = read_band(run.folder / "split.tif")
    shown = [(int(row), int(col)) for row, col in re.findall(r"<small>row (\d+), column (\d+)", text)]
    assert shown
    assert all(part[row // 2, col // 2] == TEST for row, col in shown)


@pytest.mark.parametrize("ratio", [2, 3])
def test_masks_are_those_of_the_pan_pixel_in_the_middle(ratio, tiny_pair):
    model = build_model(Layout(ms_bands=5, pan_bands=1, ratio=ratio, classes=3), **FINE)
    with Scene.open(*tiny_pair(ratio, height=29, width=37)) as scene:
        found = masks(model, scene)["DIA mask, PAN"]
        pixels = scene.read(Window(17, 30, 1, 1).grow(9))
    _, pan = model.statistics.standardise(*pixels)
    first = (
        9 * ratio + ratio // 2 - (8 * ratio + ratio // 2)
    )  # as of the patch whose target is (ratio // 2, ratio // 2)
    patch = torch.from_numpy(pan[None, :, first:, first:][:, :, : 17 * ratio, : 17 * ratio])
    encoder = model.network.sensors.pan
    with torch.inference_mode():
        cells = encoder.backbone(patch)[-1]
        mask = encoder.attention.mask_of(cells.mean(1, keepdim=True), cells.amax(1, keepdim=True))
    assert found[17, 30] == pytest.approx(mask[0, 0, mask.shape[2] // 2, mask.shape[3] // 2].item(), abs=1e-5)
