"""The guard between the parts, what training may look at, and that images and labels stay on each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from adcdnet.config import SplitConfig, TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Window
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.split.blocks import split_blocks
from adcdnet.split.parts import GUARD, TEST, TRAIN, UNUSED, VALIDATION, Split, leakage
from adcdnet.training.area import TrainingArea

CONFIG = TrainConfig.of_profile("patch").replace({"network": {"patch": 9}})  # reach 10
PAPER = TrainConfig.of_profile("paper")


def make_labels(index) -> Labels:
    index = np.asarray(index, np.int16)
    return Labels(index, ClassTable.numbered([f"c{k}" for k in range(max(2, int(index.max()) + 1))]))


def striped(height: int, width: int, classes: int, every: int = 5) -> Labels:
    """Every class everywhere."""
    return make_labels((np.arange(height)[:, None] // every + np.arange(width) // every) % classes + np.zeros((1, 1)))


def within(mask, reach: int):
    """Where any true pixel lies in the (2 reach + 1)² window around a pixel, by looking at every window."""
    padded = np.pad(mask, reach)
    return sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1)).any(axis=(2, 3))


# ---- the split


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(20, 70),
    width=st.integers(20, 70),
    reach=st.integers(1, 12),
    classes=st.integers(2, 4),
    every=st.integers(1, 9),
    block=st.one_of(st.none(), st.integers(3, 30)),
    share=st.tuples(st.sampled_from([0.0, 0.15, 0.3]), st.sampled_from([0.1, 0.25, 0.4])),
    seed=st.integers(0, 9999),
)
def test_no_window_holds_a_pixel_of_a_later_part(few_trials, height, width, reach, classes, every, block, share, seed):
    rng = np.random.default_rng(seed)
    index = np.where(rng.random((height, width)) < 0.5, striped(height, width, classes, every).index, -1)
    valid = rng.random((height, width)) < 0.95
    config = SplitConfig(block=block, validation=share[0], test=share[1])
    try:
        split = split_blocks(make_labels(index), valid, reach=reach, config=config, seed=seed)
    except InputError as error:
        assert "training pixel" in str(error) or "labelled pixels on valid" in str(error)  # noqa: PT017
        return
    part = split.part
    later = within(part == TEST, reach)
    assert not (later & ((part == TRAIN) | (part == VALIDATION))).any()
    assert not (within(part == VALIDATION, reach) & (part == TRAIN)).any()
    assert np.array_equal(part == UNUSED, ~valid)
    assert part.max() <= GUARD
    if share[0] == 0:
        assert not (split.part == VALIDATION).any()


def test_a_guard_pixel_is_needed():
    labels, everywhere = striped(61, 47, 3), np.ones((61, 47), bool)
    part = split_blocks(labels, everywhere, reach=3, config=SplitConfig(), seed=0).part
    assert (part == GUARD).any()
    assert within((part == TEST) | (part == VALIDATION), 3)[part == GUARD].all()


def test_one_seed_one_split():
    labels, everywhere, config = striped(61, 47, 3), np.ones((61, 47), bool), SplitConfig(block=9)
    parts = [split_blocks(labels, everywhere, reach=3, config=config, seed=s).part for s in (5, 5, 6)]
    assert np.array_equal(parts[0], parts[1])
    assert not np.array_equal(parts[0], parts[2])


def test_shares_are_near_what_was_asked_for():
    labels, everywhere = striped(211, 173, 3), np.ones((211, 173), bool)
    config = SplitConfig(block=20, validation=0.15, test=0.25)
    part = split_blocks(labels, everywhere, reach=2, config=config, seed=1).part
    for k in range(3):
        of_class = part[labels.index == k]
        assert (of_class == TEST).mean() == pytest.approx(0.25, abs=0.06)
        assert (of_class == VALIDATION).mean() == pytest.approx(0.15, abs=0.06)
        assert (of_class == TRAIN).mean() > 0.35


def test_a_block_is_whole():
    labels, everywhere = striped(60, 60, 2), np.ones((60, 60), bool)
    part = split_blocks(labels, everywhere, reach=2, config=SplitConfig(block=15), seed=0).part
    for row in range(0, 60, 15):
        for col in range(0, 60, 15):
            inside = set(np.unique(part[row : row + 15, col : col + 15])) - {GUARD}
            assert len(inside) == 1


def test_a_class_of_two_pixels_is_refused():
    index = striped(60, 60, 2).index.copy()
    index[3, 3:5] = 2
    with pytest.raises(InputError, match="class 'c2' has 2 labelled pixels on valid ground; at least 5"):
        split_blocks(make_labels(index), np.ones((60, 60), bool), reach=2, config=SplitConfig(), seed=0)


def test_invalid_pixels_do_not_count_as_labels():
    labels, valid = striped(60, 60, 2), np.ones((60, 60), bool)
    valid[labels.index == 1] = False
    with pytest.raises(InputError, match="class 'c1' has 0 labelled pixels"):
        split_blocks(labels, valid, reach=2, config=SplitConfig(), seed=0)


def test_a_scarce_class_means_train_and_test_only():
    index = striped(90, 90, 2).index.copy()
    rng = np.random.default_rng(0)
    index[tuple(rng.integers(90, size=(2, 25)))] = 2
    split = split_blocks(make_labels(index), np.ones((90, 90), bool), reach=2, config=SplitConfig(), seed=0)
    assert not (split.part == VALIDATION).any()
    assert any("'c2' has only" in note and "train and test only" in note for note in split.notes)
    assert {TRAIN, TEST} <= set(np.unique(split.part[index == 2]))


def test_a_class_that_is_missing_in_a_part_is_named():
    index = striped(90, 90, 2).index.copy()
    index[2:9, 2:9] = 2  # one spot
    split = split_blocks(make_labels(index), np.ones((90, 90), bool), reach=2, config=SplitConfig(block=30), seed=0)
    assert (split.part[index == 2] == TRAIN).any()
    assert "not in the test part: c2" in split.notes
    assert "not in the validation part: c2" in split.notes


def test_a_class_that_leaves_nothing_to_train_on_is_refused():
    config = SplitConfig(validation=0, test=0.99)
    with pytest.raises(InputError, match="no training pixel of class 'c0' is left"):
        split_blocks(striped(40, 40, 2), np.ones((40, 40), bool), reach=12, config=config, seed=0)


# ---- what training may look at


def make_pixels(height: int, width: int, ratio: int, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    ms = rng.random((2, height, width), dtype=np.float32) + np.array([10, 20], np.float32)[:, None, None]
    pan = rng.random((1, height * ratio, width * ratio), dtype=np.float32)
    return Pixels(ms, pan, np.ones(ms.shape[1:], bool), np.ones(pan.shape[1:], bool))


def refine(mask, ratio: int):
    return np.kron(mask, np.ones((ratio, ratio), bool))


def poisoned(pixels: Pixels, where, ratio: int, value: float) -> Pixels:
    ms, pan = pixels.ms.copy(), pixels.pan.copy()
    ms[:, where] = value
    pan[:, refine(where, ratio)] = value
    return pixels._replace(ms=ms, pan=pan)


@pytest.fixture(scope="module", params=[CONFIG, PAPER], ids=["default", "paper"])
def config(request):
    return request.param


@pytest.fixture(scope="module")
def labels():
    return striped(64, 71, 3)


@pytest.fixture(scope="module")
def split(labels):
    found = split_blocks(labels, np.ones((64, 71), bool), reach=8, config=SplitConfig(block=12), seed=1)
    assert set(np.unique(found.part)) == {TRAIN, VALIDATION, TEST, GUARD}
    for part in (TEST, VALIDATION):  # or else the mirrored border would not be tried
        rows, cols = np.nonzero(found.part == part)
        assert min(rows.min(), cols.min(), 63 - rows.max(), 70 - cols.max()) == 0
    return found


def drawn(area: TrainingArea):
    """A few of all that training draws; tiles are for networks that share them."""
    if area.network.sharable:
        yield area.draw_tiles(np.random.default_rng(0), 40, 16, labelled=True, augment=True)
        yield area.draw_tiles(np.random.default_rng(0), 40, 16, labelled=False, augment=True)
    yield area.draw_patches(np.random.default_rng(0), 200, balance=0.5, augment=True)
    yield area.draw_patches(np.random.default_rng(0), 200, balance=None, augment=True)


def test_statistics_are_those_of_the_training_part(config, labels, split):
    pixels = make_pixels(64, 71, 4)
    area = TrainingArea.of(pixels, labels, split, config=config, ratio=4)
    train = split.part == TRAIN
    found = area.statistics
    assert found.ms_mean == pytest.approx(pixels.ms[:, train].mean(1), rel=1e-5)
    assert found.ms_deviation == pytest.approx(pixels.ms[:, train].std(1), rel=1e-4)
    assert found.pan_mean == pytest.approx(pixels.pan[:, refine(train, 4)].mean(1), rel=1e-5)
    assert found.pan_deviation == pytest.approx(pixels.pan[:, refine(train, 4)].std(1), rel=1e-4)


def test_test_pixels_leave_no_trace(config, labels, split):
    pixels = make_pixels(64, 71, 4)
    areas = [
        TrainingArea.of(p, labels, split, config=config, ratio=4)
        for p in (pixels, poisoned(pixels, split.part == TEST, 4, 3e7))
    ]
    assert areas[0].statistics == areas[1].statistics
    assert np.array_equal(areas[0].ms, areas[1].ms)
    assert np.array_equal(areas[0].pan, areas[1].pan)


def test_draws_show_neither_validation_nor_test(config, labels, split):
    pixels = make_pixels(64, 71, 4)
    hidden = (split.part == TEST) | (split.part == VALIDATION)
    area = TrainingArea.of(poisoned(pixels, hidden, 4, 1e7), labels, split, config=config, ratio=4)
    assert area.ms.max() > 1e6  # validation pixels are there, for validation
    for batch in drawn(area):
        assert np.abs(batch.ms).max() < 100
        assert np.abs(batch.pan).max() < 100


def test_guard_pixels_are_seen_but_never_targets(config, labels, split):
    pixels = make_pixels(64, 71, 4)
    area = TrainingArea.of(poisoned(pixels, split.part == GUARD, 4, 500.0), labels, split, config=config, ratio=4)
    centre = config.network.before, config.network.before
    seen = False
    for batch in drawn(area):
        seen = seen or np.abs(batch.ms).max() > 100
        if batch.label.shape[1] == 1:
            assert np.abs(batch.ms[:, :, *centre]).max() < 100
        else:
            halo = config.network.before
            inner = np.abs(batch.ms[:, :, halo:-halo, halo:-halo]).max(1)
            assert inner[batch.label >= 0].max() < 100
    assert seen


def test_labels_of_draws_are_those_of_the_train_part(config, labels, split):
    pixels = make_pixels(64, 71, 4)
    pixels.ms_valid[:5] = False
    pixels.pan_valid[100] = False
    area = TrainingArea.of(pixels, labels, split, config=config, ratio=4)
    target = (split.part == TRAIN) & pixels.valid
    assert np.array_equal(area.target, target)
    assert np.array_equal(area.label, np.where(target, labels.index, -1))
    assert np.array_equal(area.validation_label >= 0, (split.part == VALIDATION) & pixels.valid)
    assert area.class_counts.tolist() == [(area.label == k).sum() for k in range(3)]


def test_invalid_values_are_the_training_mean(labels, split):
    pixels = make_pixels(64, 71, 2)
    pixels.ms[:, 30:40], pixels.ms_valid[30:40] = 9e9, False
    area = TrainingArea.of(pixels, labels, split, config=CONFIG, ratio=2)
    reach = CONFIG.reach
    inner = area.ms[:, reach:-reach, reach:-reach]
    assert not inner[:, 30:40].any()
    assert np.abs(inner).max() < 100


def test_classes_are_drawn_in_the_shares_that_balance_asks_for():
    index = np.zeros((60, 60), np.int16)
    index[:6], index[6:8] = 1, 2
    everything = Split(np.full((60, 60), TRAIN, np.uint8), 60, ())
    area = TrainingArea.of(make_pixels(60, 60, 1), make_labels(index), everything, config=CONFIG, ratio=1)
    counts = np.bincount(index.ravel())
    for balance in (0.0, 0.5, 1.0):
        batch = area.draw_patches(np.random.default_rng(2), 3000, balance=balance, augment=False)
        found = np.bincount(batch.label.ravel(), minlength=3) / 3000
        wanted = counts ** (1 - balance)
        assert found == pytest.approx(wanted / wanted.sum(), abs=0.03)


# ---- images and labels stay on each other


def coordinates(height: int, width: int, ratio: int) -> Pixels:
    """Bands that say where a pixel's centre is: row and column, in MS pixels."""

    def grid(scale):
        row, col = ((np.arange(n * scale, dtype=np.float32) + 0.5) / scale for n in (height, width))
        return np.stack(np.meshgrid(row, col, indexing="ij"))

    ms, pan = grid(1), grid(ratio)
    return Pixels(ms, pan, np.ones((height, width), bool), np.ones(pan.shape[1:], bool))


@pytest.fixture(scope="module", params=[1, 2, 3])
def placed_area(request):
    """Everything is train, pixels know their place, the class follows from it."""
    height, width, ratio = 37, 41, request.param
    labels = striped(height, width, 3, every=1)
    everything = Split(np.full((height, width), TRAIN, np.uint8), 40, ())
    return TrainingArea.of(coordinates(height, width, ratio), labels, everything, config=CONFIG, ratio=ratio)


def places(area: TrainingArea, batch):
    """Row and column of every pixel of a batch, of ms and as means over pan cells: (n, 2, h, w) each."""
    s, r = area.statistics, area.ratio
    ms = batch.ms * np.array(s.ms_deviation)[:, None, None] + np.array(s.ms_mean)[:, None, None]
    pan = batch.pan * np.array(s.pan_deviation)[:, None, None] + np.array(s.pan_mean)[:, None, None]
    n, _, h, w = ms.shape
    return ms, pan.reshape(n, 2, h, r, w, r).mean(axis=(3, 5))


def placed(area: TrainingArea, patches):
    """Row and column of the targets (n, 2) of patches of pixels that know their place."""
    where, _ = places(area, patches)
    middle = where.shape[-1] // 2
    return where[:, :, middle, middle]


def orientation(rows_and_cols):
    """How row and column change along both axes from the middle, away from mirrored pixels: one of 8."""
    middle = rows_and_cols.shape[-1] // 2
    here = rows_and_cols[:, middle, middle]
    down, right = rows_and_cols[:, middle + 1, middle] - here, rows_and_cols[:, middle, middle + 1] - here
    return tuple(np.rint([*down, *right]).astype(int).tolist())


@pytest.mark.parametrize("labelled", [True, False])
def test_tiles_are_flipped_and_turned_as_one(placed_area, labelled):
    batch = placed_area.draw_tiles(np.random.default_rng(3), 120, 10, labelled=labelled, augment=True)
    ms, pan = places(placed_area, batch)
    assert np.allclose(ms, pan, atol=1e-4)  # in the mirrored border too
    inner = np.floor(ms[:, :, 8:-8, 8:-8]).astype(int)
    assert batch.label.shape == (120, 10, 10)
    expected = placed_area.label[inner[:, 0], inner[:, 1]] if labelled else np.zeros_like(batch.label)
    assert np.array_equal(batch.label, expected)
    assert len({orientation(place) for place in ms}) == 8


def test_patches_are_flipped_and_turned_around_their_target(placed_area):
    batch = placed_area.draw_patches(np.random.default_rng(3), 120, balance=0.5, augment=True)
    ms, pan = places(placed_area, batch)
    assert ms.shape[-1] == 17
    assert np.allclose(ms, pan, atol=1e-4)
    row, col = np.floor(ms[:, :, 8, 8]).astype(int).T
    assert np.array_equal(batch.label[:, 0, 0], placed_area.label[row, col])
    inner = (row > 0) & (row < 36) & (col > 0) & (col < 40)
    assert len({orientation(place) for place in ms[inner]}) == 8


def test_without_augmentation_nothing_is_turned(placed_area):
    batch = placed_area.draw_tiles(np.random.default_rng(3), 30, 10, labelled=True, augment=False)
    assert {orientation(place) for place in places(placed_area, batch)[0]} == {(1, 0, 0, 1)}


def test_a_tile_larger_than_the_scene_is_the_scene(placed_area):
    batch = placed_area.draw_tiles(np.random.default_rng(3), 2, 99, labelled=True, augment=True)
    assert batch.label.shape == (2, 37, 41)
    assert np.array_equal(batch.label[1], placed_area.label)


def test_draws_follow_the_generator(placed_area):
    batches = [
        placed_area.draw_tiles(np.random.default_rng(s), 4, 9, labelled=True, augment=True).ms for s in (1, 1, 2)
    ]
    assert np.array_equal(batches[0], batches[1])
    assert not np.array_equal(batches[0], batches[2])


def test_published_patches_put_the_target_at_7_of_16_and_mirror_without_the_edge():
    height, width = 23, 31
    pixels = make_pixels(height, width, 4)
    everything = Split(np.full((height, width), TRAIN, np.uint8), 40, ())
    area = TrainingArea.of(pixels, striped(height, width, 2), everything, config=PAPER, ratio=4)
    s = area.statistics
    ms = (pixels.ms - np.array(s.ms_mean)[:, None, None]) / np.array(s.ms_deviation)[:, None, None]
    pan = (pixels.pan - s.pan_mean[0]) / s.pan_deviation[0]
    ms = np.pad(ms, ((0, 0), (7, 8), (7, 8)), mode="reflect")
    pan = np.pad(pan, ((0, 0), (28, 32), (28, 32)), mode="reflect")
    for row, col in ((0, 0), (22, 30), (11, 3)):
        found_ms, found_pan = area.patch(row, col)
        assert np.allclose(found_ms, ms[:, row : row + 16, col : col + 16], atol=1e-4)
        assert np.allclose(found_pan, pan[:, row * 4 : row * 4 + 64, col * 4 : col * 4 + 64], atol=1e-4)


def test_published_patches_are_never_flipped():
    everything = Split(np.full((30, 30), TRAIN, np.uint8), 40, ())
    area = TrainingArea.of(coordinates(30, 30, 4), striped(30, 30, 2), everything, config=PAPER, ratio=4)
    batch = area.draw_patches(np.random.default_rng(0), 30, balance=0.0, augment=True)
    ms, _ = places(area, batch)
    inside = [place for place in ms if place.min() > 0.6 and place.max() < 29.4]  # no mirrored border
    assert {orientation(place[:, :16, :16]) for place in inside} == {(1, 0, 0, 1)}


def test_a_tile_carries_its_halo(placed_area):
    ms, pan = placed_area.tile(Window(3, 5, 4, 6), border=placed_area.network.border)
    assert ms.shape == (2, 20, 22)
    assert pan.shape == (2, 20 * placed_area.ratio, 22 * placed_area.ratio)


def test_tiles_meet_clustered_and_scattered_classes_in_the_shares_that_are_stored():
    """One class in squares, one as single pixels: tiles around labels see the first far more often than its share."""
    index = np.full((120, 120), -1, np.int16)
    for row in range(6, 118, 28):
        for col in range(6, 118, 28):
            index[row : row + 10, col : col + 10] = 0
            index[row + 16 : row + 20 : 2, col + 16 : col + 20 : 2] = 1
    labels = Labels(index, ClassTable.numbered(["a", "b"]))
    part = np.full(index.shape, TRAIN, np.uint8)
    area = TrainingArea.of(make_pixels(120, 120, 1), labels, Split(part, 120, ()), config=CONFIG, ratio=1)
    met = np.zeros(2)
    rng = np.random.default_rng(0)
    for _ in range(600):  # the scattered class comes in handfuls, so its count is noisy
        drawn = area.draw_tiles(rng, 16, 16, labelled=True, augment=False).label
        met += np.bincount(drawn[drawn >= 0], minlength=2)
    counts = area.class_counts
    assert met[0] / met[1] > 1.15 * counts[0] / counts[1]  # without weights the shares are wrong
    for balance in (0.0, 0.5, 1.0):
        weighted = met * area.tile_weights(balance, 16)
        stored = area.drawn_counts(balance)
        assert weighted[0] / weighted[1] == pytest.approx(stored[0] / stored[1], rel=0.08)


def test_guessed_targets_are_drawn_as_often_as_labelled_classes_with_classes_by_their_probabilities():
    """Class 0 is likeliest on one half of the ground, class 1 on the other; labels are 9 to 1, drawn 3 to 1."""
    index = np.full((45, 40), -1, np.int16)
    index[40:45, :18], index[40:45, 20:22] = 0, 1
    labels = Labels(index, ClassTable.numbered(["a", "b"]))
    part = np.full(index.shape, TRAIN, np.uint8)
    area = TrainingArea.of(coordinates(45, 40, 1), labels, Split(part, 45, ()), config=CONFIG, ratio=1)
    places = np.argwhere(np.ones((40, 40)))
    sure = places[:, 1] < 20
    probability = np.where(sure[:, None], [0.8, 0.2], [0.4, 0.6]).astype(np.float32)
    guessed = area.guessed(places, probability, 0.5)
    rng = np.random.default_rng(0)
    seen, met, own = np.zeros((2, 2)), 0, 0
    for _ in range(300):
        drawn = area.draw_patches(rng, 20, balance=0.5, augment=True, guessed=guessed, guesses=15)
        where = np.floor(placed(area, drawn)).astype(int)
        new = where[:, 0] < 40
        met, own = met + new.sum(), own + (~new).sum()
        np.add.at(seen, ((where[new, 1] >= 20).astype(int), drawn.label[new, 0, 0]), 1)
        assert np.array_equal(index[tuple(where[~new].T)], drawn.label[~new, 0, 0])
    assert (met, own) == (300 * 15, 300 * 5)
    assert seen[0].sum() / seen[1].sum() == pytest.approx(3.0, rel=0.1)
    assert seen[0, 1] / seen[0].sum() == pytest.approx(0.2, abs=0.02)
    assert seen[1, 1] / seen[1].sum() == pytest.approx(0.6, abs=0.04)


# ---- leakage


@pytest.mark.parametrize("reach", [1, 3, 8])
def test_leakage_by_looking_at_every_window(reach):
    rng = np.random.default_rng(reach)
    part = rng.choice(5, (61, 47), p=[0.5, 0.01, 0.1, 0.3, 0.09]).astype(np.uint8)  # in the order of PART_NAMES
    judged = (part == TEST) & (rng.random(part.shape) < 0.5)
    found = leakage(part, judged, reach=reach)
    assert found.holding == pytest.approx(within(part == TRAIN, reach)[judged].mean())
    windows = within(part == TRAIN, reach)  # ground that any training window covers
    assert found.overlapping == pytest.approx(within(windows, reach)[judged].mean())
    assert 0 < found.holding < found.overlapping


def test_no_test_window_of_a_split_holds_a_training_pixel_but_some_overlap_training_windows():
    labels, everywhere = striped(150, 131, 3), np.ones((150, 131), bool)
    part = split_blocks(labels, everywhere, reach=4, config=SplitConfig(), seed=0).part
    found = leakage(part, part == TEST, reach=4)
    assert found.holding == 0
    assert 0 < found.overlapping < 1
    assert leakage(part, part == TEST, reach=5).holding > 0  # the guard is no wider than it must be


def test_leakage_of_nothing_is_null():
    part = np.full((9, 7), TRAIN, np.uint8)
    assert leakage(part, part == TEST, reach=2).to_dict() == {"holding": None, "overlapping": None}
