"""Several scenes as one: no window leaves its scene, statistics and classes are of all, each is divided as asked."""

import json

import numpy as np
import pytest

from adcdnet.config import SplitConfig, TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Window
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.split.parts import GUARD, TEST, TRAIN, VALIDATION, Split
from adcdnet.training.area import TrainingArea
from adcdnet.training.borders import stack
from adcdnet.training.run import train
from adcdnet.training.scenes import LabelledScene, divide, total_leakage, training_area
from conftest import PIXEL, write_tif_file

pytestmark = pytest.mark.usefixtures("few_trials")
CONFIG = TrainConfig.of_profile("patch").replace({"network": {"patch": 9}})  # reach 10
RATIO = 2
SIZES = (23, 31), (37, 19), (11, 41)
CLASSES = ClassTable.numbered(["a", "b", "c"])


def made(height: int, width: int, seed: int) -> tuple[Pixels, Labels, Split]:
    """Noise with invalid pixels, labels of three classes on two thirds, and every part in stripes."""
    rng = np.random.default_rng(seed)
    ms = rng.normal(seed, 1, (5, height, width)).astype(np.float32)
    pan = rng.normal(seed, 2, (1, height * RATIO, width * RATIO)).astype(np.float32)
    valid = rng.random((height, width)) > 0.03
    pixels = Pixels(ms, pan, valid, np.ones(pan.shape[1:], bool))
    index = rng.integers(-1, 3, (height, width)).astype(np.int16)
    part = np.full((height, width), TRAIN, np.uint8)
    part[:, 14:16], part[:, 16:] = VALIDATION, TEST
    return pixels, Labels(index, CLASSES), Split(part, 8, ())


def areas() -> tuple[list[TrainingArea], TrainingArea]:
    scenes = [made(*size, seed) for seed, size in enumerate(SIZES)]
    joined = training_area(*zip(*scenes, strict=True), config=CONFIG, ratio=RATIO)
    single = [TrainingArea.of(*one, config=CONFIG, ratio=RATIO, statistics=joined.statistics) for one in scenes]
    return single, joined


def test_stacked_by_hand():
    upper, lower = np.array([[1, 2]]), np.array([[3], [4]])
    assert stack([upper, lower], gap=1, fill=9).tolist() == [[1, 2], [9, 9], [3, 9], [4, 9]]


def test_every_pixel_sees_what_it_sees_in_its_own_scene():
    single, joined = areas()
    top = 0
    for area in single:
        height, width = area.label.shape
        assert np.array_equal(joined.label[top : top + height, :width], area.label)
        assert np.array_equal(joined.validation_label[top : top + height, :width], area.validation_label)
        for row in range(height):
            for col in range(width):
                for here, there in zip(area.patch(row, col), joined.patch(top + row, col), strict=True):
                    assert np.array_equal(here, there)
        border = area.network.border
        both = (
            area.tile(Window(0, 0, height, width), border=border),
            joined.tile(Window(top, 0, height, width), border=border),
        )
        for here, there in zip(*both, strict=True):
            assert np.array_equal(here, there)
        top += height + 2 * CONFIG.reach
    assert (joined.label >= 0).sum() == sum((area.label >= 0).sum() for area in single)
    assert joined.class_counts.tolist() == np.sum([area.class_counts for area in single], axis=0).tolist()


def test_statistics_are_of_all_train_parts_together():
    scenes = [made(*size, seed) for seed, size in enumerate(SIZES)]
    joined = training_area(*zip(*scenes, strict=True), config=CONFIG, ratio=RATIO)
    band = np.concatenate([p.ms[2][p.ms_valid & (s.part == TRAIN)] for p, _, s in scenes]).astype(float)
    assert joined.statistics.ms_mean[2] == pytest.approx(band.mean())
    assert joined.statistics.ms_deviation[2] == pytest.approx(band.std())
    one = scenes[0]
    train = one[2].part == TRAIN
    by_hand = BandStatistics.measure(one[0].ms, one[0].pan, one[0].ms_valid & train, train.repeat(2, 0).repeat(2, 1))
    assert TrainingArea.of(*one, config=CONFIG, ratio=RATIO).statistics == by_hand


def test_draws_come_from_all_scenes_and_never_from_between():
    single, joined = areas()
    batch = joined.draw_patches(np.random.default_rng(0), 600, balance=0.0, augment=False)
    one_by_one = [area.draw_patches(np.random.default_rng(1), 6000, balance=0.0, augment=False) for area in single]
    known = {ms.tobytes(): k for k, own in enumerate(one_by_one) for ms in own.ms}
    of_scene = np.bincount([known[ms.tobytes()] for ms in batch.ms], minlength=3) / 600
    expected = np.array([len(area.labelled) for area in single]) / len(joined.labelled)
    assert np.abs(of_scene - expected).max() < 0.07
    tiles = joined.draw_tiles(np.random.default_rng(0), 50, 10, labelled=True, augment=True)
    assert (tiles.label >= 0).any(axis=(1, 2)).all()


def test_no_test_pixel_shows_and_a_scene_that_tests_takes_no_part():
    scenes = [made(*size, seed) for seed, size in enumerate(SIZES)]
    whole = (scenes[1][0], scenes[1][1], Split(np.full(SIZES[1], TEST, np.uint8), 8, ()))
    joined = training_area(*zip(scenes[0], whole, scenes[2], strict=True), config=CONFIG, ratio=RATIO)
    without = training_area(*zip(scenes[0], scenes[2], strict=True), config=CONFIG, ratio=RATIO)
    assert joined.statistics == without.statistics
    assert np.array_equal(joined.ms, without.ms)


def test_leakage_does_not_reach_across_scenes():
    labels = [Labels(np.zeros((5, 9), np.int16), CLASSES)] * 2
    splits = [Split(np.full((5, 9), part, np.uint8), 5, ()) for part in (TRAIN, TEST)]
    found = total_leakage(labels, splits, reach=8)
    assert (found.holding, found.overlapping) == (0, 0)


# ---- dividing


@pytest.fixture
def write_scene(tmp_path):
    """write_scene(name, height, width, classes=(1, 2, 3), ...) -> a LabelledScene, open, 4 bands at ratio 2."""

    def write(name, height, width, *, classes=(1, 2, 3), bands=4, corner=(0, 0), names=None, crs="EPSG:32633", **how):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(len(name))
        values = np.array(classes, np.uint8)[rng.integers(len(classes), size=(height // 4 + 1, width // 4 + 1))]
        labels = values.repeat(4, 0).repeat(4, 1)[:height, :width]
        ms = (labels * 100 + rng.integers(1, 50, (bands, height, width))).astype(np.uint16)
        pan = rng.integers(1, 900, (height * 2, width * 2)).astype(np.uint16)
        corner = (corner[0] + 500_000, corner[1] + 5_000_000)
        place = {"corner": corner, "crs": crs}
        write_tif_file(folder / "ms.tif", ms, **place)
        write_tif_file(folder / "pan.tif", pan, pixel=PIXEL / 2, **place)
        write_tif_file(folder / "labels.tif", labels, **place)
        scene = Scene.open(folder / "ms.tif", folder / "pan.tif")
        if names:
            scene.ms_descriptions = names
        table = how.pop("table", CLASSES)
        return LabelledScene(scene, read_labels(folder / "labels.tif", scene.grid, classes=table), name, **how)

    return write


def all_valid(scenes):
    return [np.ones(one.scene.grid.shape, bool) for one in scenes]


def test_scenes_are_divided_each_or_held_out_whole(write_scene):
    scenes = [write_scene("a", 50, 60), write_scene("b", 33, 21, part="test", corner=(9e4, 0), crs="EPSG:32634")]
    splits, notes = divide(scenes, all_valid(scenes), reach=3, config=SplitConfig(), seed=0)
    assert {TRAIN, VALIDATION, TEST, GUARD} == set(np.unique(splits[0].part))
    assert (splits[1].part == TEST).all()
    assert notes == ()


def test_a_class_may_be_missing_in_a_scene_but_not_in_all(write_scene):
    scenes = [write_scene("a", 50, 60, classes=(1, 2)), write_scene("b", 50, 43, classes=(2, 3), corner=(9e4, 0))]
    splits, _ = divide(scenes, all_valid(scenes), reach=3, config=SplitConfig(), seed=0)
    for one, split, present in zip(scenes, splits, ([0, 1], [1, 2]), strict=True):
        assert set(np.unique(split.part)) >= {TRAIN, TEST}
        index = one.labels.index
        assert np.unique(index[split.part == TRAIN]).tolist() == present
    held = [scenes[0], LabelledScene(scenes[1].scene, scenes[1].labels, "b", "test")]
    with pytest.raises(InputError, match="no training pixel of class 'c' in any scene"):
        divide(held, all_valid(held), reach=3, config=SplitConfig(), seed=0)


def test_overlapping_scenes_are_named(write_scene):
    scenes = [write_scene("a", 50, 60), write_scene("b", 50, 43, corner=(40 * PIXEL, 0), part="test")]
    _, notes = divide(scenes, all_valid(scenes), reach=3, config=SplitConfig(), seed=0)
    assert notes[0].startswith("scenes 'a' and 'b' overlap")


# ---- training


def quick(labelled_pair, **changes):
    from adcdnet.config import TrainConfig
    from conftest import QUICK

    return (
        TrainConfig.of_profile("patch")
        .replace(QUICK)
        .replace({"stage1": {"steps": 1}, "stage2": {"steps": 2}, **changes})
    )


def test_two_scenes_train_one_model(write_scene, labelled_pair, tmp_path):
    scenes = [
        write_scene("a", 61, 70),
        write_scene("b", 47, 59, corner=(9e4, 0), crs="EPSG:32634"),
        write_scene("c", 20, 23, corner=(-9e4, 0), part="test"),
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "split.tif").write_bytes(b"of an older run")
    run = train(scenes, out=tmp_path / "run", config=quick(labelled_pair), device="cpu")
    assert {p.name for p in run.folder.glob("split*.tif")} == {"split-a.tif", "split-b.tif", "split-c.tif"}
    record = json.loads((run.folder / "metrics.json").read_text())
    assert record["scene"] == "a, b, c"
    assert record["scenes"]["c"]["labelled_pixels"]["test"] == 20 * 23
    total = sum(record["scenes"][name]["labelled_pixels"]["test"] for name in "abc")
    assert record["labelled_pixels"]["test"] == total
    assert record["leakage"]["holding"] == 0
    part, grid, _ = read_band(run.folder / "split-b.tif")
    assert part.shape == (47, 59)
    assert grid.crs == scenes[1].scene.grid.crs
    recorded = json.loads((run.folder / "inputs.json").read_text())
    assert {"a: ms", "b: pan", "c: labels"} <= set(recorded)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"bands": 5}, "scene 'b' has 5 MS bands, scene 'a' has 4"),
        ({"table": None}, "name one class table for all scenes"),
        ({"names": ("nir", "red", "green", "blue")}, "one order is needed"),
    ],
)
def test_scenes_that_do_not_go_together(write_scene, labelled_pair, tmp_path, other, says):
    scenes = [write_scene("a", 40, 30, names=("blue", "green", "red", "nir")), write_scene("b", 40, 30, **other)]
    with pytest.raises(InputError, match=says) as caught:
        train(scenes, out=tmp_path / "run", config=quick(labelled_pair), device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_given_must_be_scenes_with_labels(write_scene, tmp_path):
    one = write_scene("a", 40, 30)
    for wrong in ((one.scene, None), ([one], one.labels), ([], None)):
        with pytest.raises(InputError, match="labels"):
            train(*wrong, out=tmp_path / "run")
