"""Training over tiles: what it may see, how it draws, and that a run is whole and the same twice."""

import numpy as np
import pytest
import torch

import adcdnet as ad
from adcdnet.benchmark.cell import Cell, compute_together
from adcdnet.benchmark.methods_by_name import settings_of, trained_as
from adcdnet.config import TrainConfig
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Window
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.scene import Pixels
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.nn.architecture import Layout
from adcdnet.nn.tile_adcdnet import TileADCDNet
from adcdnet.report.explain import explain
from adcdnet.split.parts import TEST, TRAIN, VALIDATION, Split
from adcdnet.training.area import TrainingArea
from adcdnet.training.run import train
from adcdnet.training.stages.radius import effective_radius
from adcdnet.training.stages.schedule import schedule_of, suited_to
from adcdnet.training.stages.stage2 import _jittered
from conftest import PIXEL, LabelledPair, write_tif_file

QUICK = {
    "network": {"detail": 3, "stream": 5, "widths": [5, 6], "token_dims": [4, 4], "hidden": 5},
    "members": ["adcdnet"],
    "split": {"block": 16, "folds": 1},
    "stage1": {"steps": 3, "tiles": 4, "targets": 32},
    "stage2": {"steps": 24, "tiles": 4, "tile": 16, "learning_rate": 0.01},
    "plain_if_few": False,
    "tiles_from": 1,
    "passes": 0.0,
    "validations": 3,
}
CONFIG = TrainConfig().replace(QUICK)


def area_of(part, index, *, ratio=2, config=CONFIG, seed=0):
    rng = np.random.default_rng(seed)
    height, width = part.shape
    ms = rng.uniform(1, 9, (3, height, width)).astype(np.float32)
    pan = rng.uniform(1, 9, (1, height * ratio, width * ratio)).astype(np.float32)
    pixels = Pixels(ms, pan, np.ones(part.shape, bool), np.ones(pan.shape[1:], bool))
    step = config.network.targets_per_pixel(ratio)
    labels = Labels(index.repeat(step, 0).repeat(step, 1).astype(np.int16), ClassTable.numbered(["a", "b"]))
    return TrainingArea.of(pixels, labels, Split(part, 8, ()), config=config, ratio=ratio)


def test_guard_and_reach_are_two_things():
    config = TrainConfig()
    assert config.guard == 10  # 8 MS pixels, and the two neighbours that are averaged
    assert config.reach == config.network.reach + 2 > 3 * config.guard
    assert TrainConfig.of_profile("patch").guard == TrainConfig.of_profile("patch").reach == 10


def test_tiles_are_laid_around_rare_classes_more_often():
    """Of 90 and 10 labels, anchors 0.5 draw 1 in 4 (√10 : √90), anchors 0 draw 1 in 10, anchors 1 every other."""
    index = np.full((20, 40), -1)
    index[:9, :10], index[19, 30:40] = 0, 1
    area = area_of(np.full(index.shape, TRAIN, np.uint8), index)
    for anchors, share in ((0.0, 0.1), (0.5, 0.25), (1.0, 0.5)):
        chances = np.diff(area._anchor_chances(anchors), prepend=0)
        of_class = area.label[tuple(area.labelled.T)]
        assert chances[of_class == 1].sum() == pytest.approx(share)
    drawn = area.draw_tiles(np.random.default_rng(0), 2000, 1, labelled=True, augment=False, anchors=0.5)
    assert (drawn.label == 1).mean() == pytest.approx(0.25, abs=0.03)


def test_weights_bring_classes_to_the_shares_that_are_asked_for():
    """Whatever anchors do to what tiles meet, the weighted shares are n^(1 − balance): by counting many tiles."""
    rng = np.random.default_rng(1)
    index = np.where(rng.random((40, 50)) < 0.3, (np.arange(50) > 40).astype(int)[None], -1)
    area = area_of(np.full(index.shape, TRAIN, np.uint8), index)
    for anchors in (0.0, 0.7):
        weight = area.tile_weights(0.25, 5, anchors=anchors)
        label = area.draw_tiles(rng, 3000, 5, labelled=True, augment=False, anchors=anchors).label
        met = np.bincount(label[label >= 0], minlength=2) * weight
        wanted = area.drawn_counts(0.25)
        assert met[1] / met.sum() == pytest.approx(wanted[1] / wanted.sum(), rel=0.12)


def test_no_tile_shows_test_or_validation_ground():
    part = np.full((48, 30), TRAIN, np.uint8)
    part[:12], part[36:] = TEST, VALIDATION
    area = area_of(part, np.zeros(part.shape, int))
    drawn = area.draw_tiles(np.random.default_rng(0), 200, 16, labelled=True, augment=False)
    assert (drawn.label == -1).any()
    assert not drawn.ms[:, 0][drawn.label == -1].any()
    assert not drawn.pan[:, 0].reshape(200, 16, 2, 16, 2).transpose(0, 1, 3, 2, 4)[drawn.label == -1].any()
    assert drawn.ms[:, 0][drawn.label >= 0].all()


def test_training_ground_can_be_hidden_from_what_is_judged():
    part = np.full((40, 40), TRAIN, np.uint8)
    part[:, 20:] = VALIDATION
    area = area_of(part, np.zeros(part.shape, int))
    window, reach = Window(10, 22, 4, 5), area.network.reach
    shown, hidden = (area.images(window, hide_training=hide) for hide in (False, True))
    edge = 20 - (window.col - reach)  # columns of the window before the validation part
    for ratio, before, after in zip((1, 2), shown, hidden, strict=True):
        assert before[:, :, : edge * ratio].all()
        assert not after[:, :, : edge * ratio].any()
        own = slice(edge * ratio, (edge + 15) * ratio)
        assert np.array_equal(after[:, :, own], before[:, :, own])


def test_labels_of_a_tile_on_the_fine_grid_are_those_of_all_its_pan_pixels():
    config = CONFIG.replace({"network": {"grid": "fine"}})
    index = np.add.outer(np.arange(20), np.arange(24)) % 2
    area = area_of(np.full(index.shape, TRAIN, np.uint8), index, config=config)
    drawn = area.draw_tiles(np.random.default_rng(0), 3, 8, labelled=True, augment=True)
    assert drawn.label.shape == (3, 16, 16)
    assert drawn.pan.shape == (3, 1, 16, 16)
    blocks = drawn.label.reshape(3, 8, 2, 8, 2)
    assert (blocks == blocks[:, :, :1, :, :1]).all()  # labels of MS pixels, spread over their PAN pixels


def test_light_that_differs_leaves_hidden_ground_hidden():
    x = torch.ones(4, 3, 5, 5)
    x[:, :, 2] = 0
    y = _jittered(x, 0.3, np.random.default_rng(0))
    assert not y[:, :, 2].any()
    assert len(torch.unique(y)) == 4 * 3 + 1  # one gain and offset for each band of each sample
    assert torch.equal(_jittered(x, 0.0, np.random.default_rng(0)), x)


def test_the_effective_radius_of_a_network_that_looks_at_its_pixel_alone_is_none():
    """With only the middle weight of every kernel, what counts lies within the pixel and its lattice cell."""
    plain = {"attention": "none", "dtm": False, "prior": False, "context_branch": 0.0, "widths": [5]}
    config = CONFIG.replace({"network": plain})
    area = area_of(np.full((40, 40), TRAIN, np.uint8), np.zeros((40, 40), int), config=config)
    torch.manual_seed(0)
    network = TileADCDNet(config.network, Layout(ms_bands=3, pan_bands=1, ratio=2, classes=2)).eval()
    far = effective_radius(network, area, np.random.default_rng(0))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
                middle = module.weight[:, :, 1, 1].clone()
                module.weight.zero_()
                module.weight[:, :, 1, 1] = middle
    near = effective_radius(network, area, np.random.default_rng(0))
    assert near == 1  # the step from PAN to MS reads one PAN pixel beyond
    assert near < far <= network.config.reach


@pytest.fixture(scope="module")
def runs(labelled_pair: LabelledPair, few_trials, tmp_path_factory):
    made = []
    for name in "ab":
        with labelled_pair.open() as scene:
            folder = tmp_path_factory.mktemp("tiles") / name
            labels = labelled_pair.read_labels(scene)
            made.append(train(scene, labels, out=folder, config=CONFIG, device="cpu"))
    return made


def test_two_runs_with_one_seed_leave_the_same_files(runs):
    for file in ("history.csv", "split.tif", "config.toml"):
        a, b = ((run.folder / file).read_bytes() for run in runs)
        assert a == b, file
    a, b = (run.model.network.state_dict() for run in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_says_how_far_its_network_looks(runs):
    record = runs[0].model.record
    assert 1 <= record.effective_radius <= runs[0].model.network.config.reach
    assert record.sampling == "dense"
    assert record.leakage["holding"] == 0


def test_a_run_learns_and_explains_itself(runs, labelled_pair: LabelledPair, tmp_path):
    with labelled_pair.open() as scene:
        ad.predict(runs[0], scene, out=tmp_path / "map.tif")
        found = ad.evaluate(tmp_path / "map.tif", labelled_pair.labels, split=runs[0].split(), part="test")
        why = explain(runs[0].model, scene, labelled_pair.read_labels(scene))
    assert found.scores.kappa > 0.5
    assert why.heads[1].tokens[:2] == ("pan 1", "pan 2")
    assert np.allclose([head.token_shares[-1].sum() for head in why.heads], 1)


def test_few_labels_are_learnt_by_patches():
    few = suited_to(1000, 4, TrainConfig())
    assert few.network.form == "patch"
    assert (few.network.prior, few.network.dtm, few.network.attention) == (False, False, "none")
    patch = TrainConfig.of_profile("patch")
    parts = {"network": {"prior": False, "dtm": False, "attention": "none"}, "branch_weight": 0.0}
    assert few == patch.replace({"profile": "default", "members": TrainConfig().members, **parts})
    assert suited_to(6000, 4, TrainConfig()) == TrainConfig()
    kept = suited_to(10, 4, TrainConfig().replace({"network": {"sensors": "pan"}, "seed": 4}))
    assert (kept.network.sensors, kept.seed) == ("pan", 4)


def test_networks_over_tiles_draw_tiles_whatever_labels_there_are():
    index = np.full((40, 40), -1)
    index[5, 5:9], index[30, 5:9] = 0, 1
    area = area_of(np.full(index.shape, TRAIN, np.uint8), index)
    assert schedule_of(area, CONFIG).dense


def test_a_benchmark_reads_one_training_in_three_ways(labelled_pair: LabelledPair, tmp_path, few_trials):
    file = tmp_path / "tiles.toml"
    file.write_text(CONFIG.to_toml())
    pair = labelled_pair
    scene = SceneFiles(name="pair", ms=pair.ms, pan=pair.pan, labels=pair.labels, classes=pair.classes)
    cells = [Cell((scene,), f"{file}{how}", 0, 0, 0, 2) for how in ("", "-raw", "-seen")]
    read, raw, seen = compute_together(cells)
    assert [trained_as(cell.method) for cell in cells] == [str(file)] * 3
    assert len({cell.file for cell in cells}) == 3
    sums = [np.sum(result["confusions"]["1.0"]) for result in (read, raw, seen)]
    assert sums[0] == sums[1] == sums[2] > 0
    assert read["calibration_error"] != raw["calibration_error"]  # averaged, and not


def test_names_of_readings():
    assert settings_of("adcdnet-raw", 0) == settings_of("adcdnet-seen", 0) == TrainConfig()
    assert settings_of("forest-alike", 0) is None
    for wrong in ("forest-raw", "adcdnet-alike", "forest-seen"):
        with pytest.raises(ad.InputError, match="not known"):
            settings_of(wrong, 0)


def test_a_label_raster_is_read_on_the_fine_grid(labelled_pair: LabelledPair, few_trials, tmp_path):
    config = CONFIG.replace({"network": {"grid": "fine"}})
    truth = labelled_pair.truth.repeat(2, 0).repeat(2, 1)
    fine = write_tif_file(tmp_path / "fine.tif", truth, pixel=PIXEL / 2)
    with labelled_pair.open() as scene:
        labels = read_labels(fine, scene.fine_grid, classes=ClassTable.read(labelled_pair.classes))
        run = train(scene, labels, out=tmp_path / "run", config=config, device="cpu")
        ad.predict(run, scene, out=tmp_path / "map.tif")
    found = ad.evaluate(tmp_path / "map.tif", fine)
    assert found.scores.kappa > 0.5


def test_settings_of_patches_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "old.toml").write_text("[network]\npatch = 9\n")
    with pytest.raises(ad.InputError, match=r"network\.tile\.patch.*profile = 'patch'"):
        TrainConfig.read(tmp_path / "old.toml")


def test_a_fusion_is_of_networks_over_patches_alone(tmp_path):
    (tmp_path / "tiles.toml").write_text("seed = 1\n")
    with pytest.raises(ad.InputError, match="no sum to exchange"):
        settings_of(f"gate-fusion+{tmp_path / 'tiles.toml'}", 0)


def test_a_network_that_looks_beyond_the_guard_band_says_so(
    labelled_pair: LabelledPair, few_trials, tmp_path, monkeypatch
):
    monkeypatch.setattr("adcdnet.training.stages.train.effective_radius", lambda *_: 99)
    with labelled_pair.open() as scene:
        config = CONFIG.replace({"stage1": {"steps": 1}, "stage2": {"steps": 2}})
        run = train(scene, labelled_pair.read_labels(scene), out=tmp_path / "run", config=config, device="cpu")
    assert run.model.record.effective_radius == 99
    assert "the network looks 99 MS pixels far, more than the guard band of 10" in run.model.record.notes


@pytest.mark.parametrize("only", ["ms", "pan"])
def test_the_effective_radius_of_a_network_of_one_sensor(only):
    config = CONFIG.replace({"network": {"sensors": only}})
    area = area_of(np.full((40, 40), TRAIN, np.uint8), np.zeros((40, 40), int), config=config)
    torch.manual_seed(0)
    network = TileADCDNet(config.network, Layout(ms_bands=3, pan_bands=1, ratio=2, classes=2)).eval()
    assert 1 <= effective_radius(network, area, np.random.default_rng(0)) <= network.config.reach


@pytest.mark.parametrize("profile", ["default", "plain"])
def test_below_a_ratio_of_four_patches_take_the_place_of_tiles(profile):
    config = TrainConfig.of_profile(profile)
    assert suited_to(10_000, 4, config) == config
    over_patches = suited_to(10_000, 2, config)
    parts = ("attention", "dtm", "prior")
    assert over_patches.network.form == "patch"
    assert [getattr(over_patches.network, part) for part in parts] == [getattr(config.network, part) for part in parts]
    patch = TrainConfig.of_profile("patch")
    expected = {"profile": profile, "members": config.members, "branch_weight": config.branch_weight}
    assert over_patches == patch.replace(
        {**expected, "network": {part: getattr(config.network, part) for part in parts}}
    )
    asked = config.replace({"tiles_from": 1})
    assert suited_to(10_000, 1, asked) == asked


def test_the_guard_band_is_that_of_what_is_trained_in_the_end(labelled_pair: LabelledPair, few_trials, tmp_path):
    """Settings over tiles ask for a narrow guard band; patches, which take their place, see further."""
    changes = {"tiles_from": 4, "stage1": {"steps": 1}, "stage2": {"steps": 2}}
    config = TrainConfig().replace({**QUICK, **changes}).replace({"network": {"guard": 0}, "split": {"block": 24}})
    with labelled_pair.open() as scene:
        run = train(scene, labelled_pair.read_labels(scene), out=tmp_path / "run", config=config, device="cpu")
    assert run.model.network.config.form == "patch"
    assert run.model.record.leakage["holding"] == 0
