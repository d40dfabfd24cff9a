"""Intervals that hold what they promise: coverage where errors come in patches, and resamples checked by hand."""

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import ndimage

from adcdnet.metrics import confusion_matrix, scores
from adcdnet.metrics.intervals import (
    FEWEST_BLOCKS,
    NO_INTERVAL,
    Interval,
    block_bootstrap,
    confusion_by_block,
    paired_bootstrap,
)


def seeded():
    return np.random.default_rng(7)


def random_blocks(blocks: int, classes: int = 3, seed: int = 0):
    """Blocks of unequal size whose maps are right in about 70 %."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, (blocks, classes, classes + 1)) * rng.integers(1, 7, (blocks, 1, 1))
    counts[:, range(classes), range(classes)] *= 6
    return counts


# ---- what is counted


def test_blocks_add_up_to_the_whole_by_hand():
    truth = np.array([[0, 1, 1, -1], [0, 0, 1, 1]])
    mapped = np.array([[0, 0, 1, 0], [-1, 0, 1, 0]])
    block = np.array([[3, 3, 7, 7], [3, 3, 7, 7]])
    found = confusion_by_block(truth, mapped, 2, block)  # of blocks 3 and 7, which are all that hold true pixels
    assert found.tolist() == [[[2, 0, 1], [1, 0, 0]], [[0, 0, 0], [1, 2, 0]]]
    assert np.array_equal(found.sum(0), confusion_matrix(truth, mapped, 2))


def test_blocks_without_labels_do_not_count():
    counts = random_blocks(13)
    more = np.concatenate([np.zeros_like(counts[:4]), counts, np.zeros_like(counts[:2])])
    assert block_bootstrap(more, rng=seeded()) == block_bootstrap(counts, rng=seeded())


# ---- the interval


def test_blocks_that_agree_leave_no_doubt():
    counts = np.repeat(random_blocks(1), 17, axis=0)
    known, found = scores(counts.sum(0)), block_bootstrap(counts, rng=seeded())
    for name in ("oa", "aa", "kappa", "macro_f1"):
        assert getattr(found, name) == pytest.approx((getattr(known, name),) * 2)
    for name in ("precision", "recall", "f1"):
        for k in range(3):
            assert getattr(found, name)[k] == pytest.approx((getattr(known, name)[k],) * 2)


def test_width_is_that_of_students_t_for_blocks_of_one_size():
    rng, ratios = np.random.default_rng(3), []
    for _ in range(40):
        right = rng.binomial(1000, 0.8, 10)
        counts = np.zeros((10, 2, 3), int)
        counts[:, 0, 0], counts[:, 0, 1] = right, 1000 - right
        low, high = block_bootstrap(counts, rng=rng).oa
        half = 2.2622 * right.std(ddof=1) / 1000 / math.sqrt(10)  # Student's t of 9 degrees of freedom
        ratios.append((high - low) / 2 / half)
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)  # 0.82 for plain percentiles


def test_a_block_is_drawn_whole():
    # the same pixels in blocks that are all right or all wrong, and in blocks that are each as good as the mean
    whole, mixed = np.zeros((2, 20, 2, 3), int)
    whole[:10, 0, 0] = whole[10:, 0, 1] = 50
    mixed[:, 0, 0] = mixed[:, 0, 1] = 25
    low, high = block_bootstrap(whole, rng=seeded()).oa
    assert high - low > 0.4
    assert block_bootstrap(mixed, rng=seeded()).oa == (0.5, 0.5)


def test_what_is_always_right_or_never_has_no_interval():
    confusions = np.zeros((12, 3, 4), int)
    confusions[:, 0, 0], confusions[:, 1, 0] = 5, 3  # the first class always found, the second never, the third nowhere
    confusions[::2, 0, 0] = 9
    found = block_bootstrap(confusions, rng=seeded())
    assert found.oa.low < found.oa.high < 1
    assert all(math.isnan(each.low) for each in (*found.recall, found.f1[1]))
    assert found.precision[0].low < found.precision[0].high
    same = paired_bootstrap(confusions, confusions, rng=seeded())  # of two maps it is known that they do not differ
    assert same.recall[:2] == ((0, 0), (0, 0))


def test_too_few_blocks_give_no_interval():
    assert block_bootstrap(random_blocks(FEWEST_BLOCKS - 1), rng=seeded()) is None
    assert block_bootstrap(random_blocks(FEWEST_BLOCKS), rng=seeded()) is not None
    few = random_blocks(FEWEST_BLOCKS - 1)
    assert paired_bootstrap(few, few, rng=seeded()) is None


@pytest.mark.parametrize(("blocks", "known"), [(1, False), (2, False), (6, True)])
def test_a_class_in_few_blocks_has_no_interval_nor_have_means_over_it(blocks, known):
    counts = random_blocks(24)
    counts[blocks:, 2] = 0  # true pixels of class 2 in the first blocks only
    found = block_bootstrap(counts, rng=seeded())
    for interval in (found.recall[2], found.f1[2], found.aa, found.macro_f1):
        assert math.isnan(interval.low) != known
    for interval in (found.oa, found.kappa, found.recall[0], found.f1[1]):
        assert interval.low < interval.high


def test_a_class_that_occurs_nowhere_does_not_spoil_the_means():
    counts = random_blocks(24)
    counts[:, 2] = 0
    found = block_bootstrap(counts, rng=seeded())
    assert math.isnan(found.recall[2].low)
    assert found.aa.low < found.aa.high


def test_one_seed_one_interval():
    counts = random_blocks(15)
    first, again, other = (block_bootstrap(counts, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_higher_level_is_wider():
    counts = random_blocks(15)
    narrow, wide = (block_bootstrap(counts, rng=seeded(), level=level) for level in (0.8, 0.95))
    assert wide.oa.low < narrow.oa.low < narrow.oa.high < wide.oa.high


def test_to_dict_is_strict_json():
    counts = random_blocks(15)
    counts[1:, 2] = 0
    back = json.loads(json.dumps(block_bootstrap(counts, rng=seeded()).to_dict(), allow_nan=False))
    assert set(back) == {"level", "oa", "aa", "kappa", "macro_f1", "precision", "recall", "f1"}
    assert back["aa"] is back["f1"][2] is None
    assert back["oa"][0] < back["oa"][1]
    assert NO_INTERVAL.to_list() is None
    assert Interval(0.5, 0.75).to_list() == [0.5, 0.75]


# ---- two maps


def test_a_map_does_not_differ_from_itself():
    counts = random_blocks(15)
    found = paired_bootstrap(counts, counts, rng=seeded())
    assert found.oa == found.kappa == found.recall[1] == (0, 0)


def test_a_small_gain_everywhere_is_clear_though_the_maps_vary_more():
    rng = np.random.default_rng(5)
    right = rng.integers(40, 95, 20)  # places differ greatly
    a, b = np.zeros((2, 20, 2, 3), int)
    a[:, 0, 0], a[:, 0, 1] = right + 3, 97 - right
    b[:, 0, 0], b[:, 0, 1] = right, 100 - right
    first, second = (block_bootstrap(x, rng=seeded()).oa for x in (a, b))
    assert second.high > first.low
    assert paired_bootstrap(a, b, rng=seeded()).oa == pytest.approx((0.03, 0.03))


def test_maps_judged_on_other_pixels_are_refused():
    a = random_blocks(15)
    b = a.copy()
    b[3, 0, 0] += 1
    with pytest.raises(ValueError, match="same true pixels in every block"):
        paired_bootstrap(a, b, rng=seeded())


# ---- coverage


def patchy_errors(rng: np.random.Generator, side: int, patch: float, accuracy: float):
    """(side, side) bool, true with probability `accuracy`: white noise smoothed over `patch` pixels, thresholded."""
    margin = round(4 * patch)
    field = ndimage.gaussian_filter(rng.standard_normal((side + 2 * margin,) * 2), patch)[
        margin:-margin, margin:-margin
    ]
    return field * 2 * math.sqrt(math.pi) * patch < NormalDist().inv_cdf(accuracy)


@pytest.mark.parametrize("patch", [1.5, 2.5])
def test_intervals_cover_the_true_accuracy_where_errors_come_in_patches(patch):
    rng, trials, block = np.random.default_rng(11), 250, np.kron(np.arange(16).reshape(4, 4), np.ones((28, 28), int))
    truth, held, held_of_pixels = np.zeros_like(block), 0, 0
    for _ in range(trials):
        right = patchy_errors(rng, 4 * 28, patch, accuracy=0.8)
        low, high = block_bootstrap(confusion_by_block(truth, np.where(right, 0, 1), 2, block), rng=rng).oa
        held += low <= 0.8 <= high
        half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / right.size)  # as if pixels were independent
        held_of_pixels += abs(right.mean() - 0.8) <= half
    assert 0.90 <= held / trials <= 0.99
    assert held_of_pixels / trials < 0.5


def test_a_difference_of_equally_good_maps_holds_zero_as_often_as_promised():
    rng, trials, block = np.random.default_rng(12), 250, np.kron(np.arange(16).reshape(4, 4), np.ones((28, 28), int))
    truth, held = np.zeros_like(block), 0
    for _ in range(trials):
        hard = patchy_errors(rng, 4 * 28, 2, accuracy=0.9)  # for both maps
        maps = [np.where(hard & patchy_errors(rng, 4 * 28, 2, accuracy=0.9), 0, 1) for _ in range(2)]
        low, high = paired_bootstrap(*(confusion_by_block(truth, m, 2, block) for m in maps), rng=rng).oa
        held += low <= 0 <= high
    assert 0.90 <= held / trials <= 0.99
