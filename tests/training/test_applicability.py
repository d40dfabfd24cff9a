"""The area of applicability by hand, and on ground that was made to lie outside it."""

import numpy as np
import pytest

from adcdnet.mapping.applicability import Applicability, signs
from adcdnet.training.applicability import REFERENCE, HeldPixels, judged_by_folds, measured


def made(n=400, seed=0, wrong=0.2):
    """Two statistics of which the first tells two classes apart, four folds, and answers that err and know it."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=n)
    x = np.stack([4 * truth - 2 + rng.normal(0, 0.5, n), rng.normal(0, 3, n)], axis=1).astype(np.float32)
    p = np.where(truth == 0, 0.9, 0.1)
    flipped = rng.random(n) < wrong
    p = np.where(flipped, np.where(truth == 0, 0.4, 0.6), p)
    return x, truth, rng.integers(4, size=n), np.stack([p, 1 - p]).astype(np.float32)


def test_dissimilarity_by_hand():
    """Two labelled pixels 4 apart on their scale: d̄ = 4. A pixel 1 and 3 from them has 1 / 4."""
    area = Applicability(
        np.array([2.0, 0.0], np.float32),
        np.array([[0.0, 0.0], [4.0, 0.0]], np.float32),
        np.array([0, 1]),
        4.0,
        0.5,
        (0.0, 0.0, 0.0, 0.0),
    )
    features = np.array([[0.5, 99], [3.0, -7], [2.0, 0]], np.float32)  # at 1, 6 and 4 on the scale
    assert area.dissimilarity(features) == pytest.approx([1 / 4, 2 / 4, 0])
    assert area.dissimilarity(features, fold=np.array([0, 0, 1])) == pytest.approx([3 / 4, 2 / 4, 4 / 4])


def test_the_expected_error_by_hand():
    one = np.ones(1, np.float32)
    area = Applicability(one, one[None], np.zeros(1, int), 1.0, 0.5, (0.3, 1.0, -2.0, 0.5))
    p = np.array([[0.8], [0.2]], np.float32)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    logit = 0.3 + np.log(2.0) - 2 * np.log(4) + 0.5 * entropy
    assert signs(np.array([2.0]), p)[0] == pytest.approx([np.log(2), np.log(4), entropy], abs=1e-5)
    assert area.expected_error(one, p) == pytest.approx([1 / (1 + np.exp(-logit))], abs=1e-5)


def test_what_is_measured_of_labels():
    x, truth, fold, p = made()
    area = measured(x, truth, fold, p, np.random.default_rng(0))
    weight = area.scale * x.std(axis=0)  # √η²: of the first statistic nearly 1, of the second nearly 0
    assert weight[0] > 0.95
    assert weight[1] < 0.15
    assert len(area.reference) == 400
    z = (x * area.scale).astype(float)
    apart = np.sqrt(np.square(z[:, None] - z).sum(2))
    assert area.unit == pytest.approx(apart.sum() / (400 * 399), rel=1e-4)
    nearest = np.where(fold[:, None] == fold, np.inf, apart).min(1) / area.unit
    low, high = np.percentile(nearest, (25, 75))
    assert area.threshold == pytest.approx(nearest[nearest <= high + 1.5 * (high - low)].max(), rel=0.02)
    # ground like that of training lies inside, other ground outside
    more, *_ = made(seed=1)
    assert (area.dissimilarity(more) <= area.threshold).mean() > 0.8
    assert (area.dissimilarity(more + np.float32([8, 0])) > area.threshold).all()


def test_the_expected_error_is_the_share_that_errs():
    x, truth, fold, p = made(4000)
    area = measured(x, truth, fold, p, np.random.default_rng(0))
    more, their_truth, _, theirs = made(4000, seed=1)
    error = area.expected_error(area.dissimilarity(more), theirs)
    wrong = theirs.argmax(0) != their_truth
    assert error.mean() == pytest.approx(wrong.mean(), abs=0.02)
    assert error[wrong].mean() > 0.9  # 0.6 for a class is always wrong here
    assert error[~wrong].mean() < 0.05


def test_many_labels_are_thinned_and_rare_classes_stay():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [5000, 2000, 40])
    x = rng.normal(size=(len(truth), 3)).astype(np.float32) + truth[:, None].astype(np.float32)
    p = np.full((3, len(truth)), 1 / 3, np.float32)
    area = measured(x, truth, rng.integers(5, size=len(truth)), p, rng)
    assert len(area.reference) == REFERENCE
    of_rare = (x[truth == 2] * area.scale).astype(np.float32)
    assert all(np.isclose(area.reference, row).all(1).any() for row in of_rare)


@pytest.mark.parametrize("all_right", [True, False])
def test_answers_that_agree_leave_a_share(all_right):
    x, truth, fold, _ = made(100)
    p = np.stack([(truth == 0) == all_right, (truth == 1) == all_right]).astype(np.float32)
    area = measured(x, truth, fold, p, np.random.default_rng(0))
    error = area.expected_error(area.dissimilarity(x), p)
    assert error == pytest.approx(np.full(100, 1 / 102 if all_right else 101 / 102), abs=1e-4)


def test_labels_of_one_fold_cannot_be_compared():
    x, truth, _, p = made(50)
    assert measured(x, truth, np.zeros(50, int), p, np.random.default_rng(0)) is None


def test_arrays_make_it_again_and_damaged_ones_do_not():
    area = measured(*made(), np.random.default_rng(0))
    again = Applicability.of_arrays(area.arrays())
    x, _, _, p = made(seed=3)
    assert np.array_equal(again.dissimilarity(x), area.dissimilarity(x))
    assert np.array_equal(again.expected_error(x[:, 0], p), area.expected_error(x[:, 0], p))
    for change in (
        {"scale": area.scale[:1]},
        {"fold": area.fold[1:]},
        {"reference": area.reference[:0], "fold": area.fold[:0]},
        {"numbers": np.zeros(5)},
        {"numbers": np.array([1, -1, 0, 0, 0, 0.0])},
        {"numbers": np.array([1, 1, np.nan, 0, 0, 0])},
        {"scale": area.scale * np.float32(np.inf)},
    ):
        with pytest.raises(ValueError, match="its area of applicability"):
            Applicability.of_arrays(area.arrays() | change)


def held(n=3000, seed=0, far=()):
    """As `made`, in 60 blocks of ground; pixels of the folds `far` lie 8 further along the first statistic and err."""
    x, truth, fold, p = made(n, seed)
    moved = np.isin(fold, far)
    x[moved] += np.float32([8, 0])
    p = np.where(moved, 1 - np.stack([truth == 0, truth == 1]) * 0.8 - 0.1, p).astype(np.float32)
    return HeldPixels(x, truth, fold, p, np.random.default_rng(seed).integers(60, size=n))


def test_a_fold_unlike_the_others_lies_outside_and_its_errors_are_counted_there():
    """Of four folds one lies far off and is all wrong; others err in a fifth of their pixels."""
    told = judged_by_folds(held(far=[3]), np.random.default_rng(0))
    inside, outside = told["inside"], told["outside"]
    assert inside["oa"] == pytest.approx(0.8, abs=0.03)
    assert outside["oa"] < 0.1
    assert inside["pixels"] + outside["pixels"] == 3000
    low, high = inside["interval"]
    assert low < inside["oa"] < high
    assert high - low < 0.1


def test_the_expected_error_of_a_fold_is_fitted_to_the_others():
    """All answers are 0.9 sure: of one fold all are wrong, of the others all are right, and expect it to be so too."""
    x, truth, fold, p = made(3000, wrong=0)
    spoilt = fold == 3
    p = np.where(spoilt, 1 - p, p)
    told = judged_by_folds(HeldPixels(x, truth, fold, p, np.arange(3000) % 60), np.random.default_rng(0))
    first, *_, last = told["reliability"]
    assert first["expected"] < 0.01  # no error had been seen
    assert first["wrong"] == 1
    assert last["expected"] > 0.2
    assert last["wrong"] == 0
    assert [bin["pixels"] for bin in told["reliability"]] == [300] * 10


def test_two_folds_leave_no_two_others():
    pixels = held()
    assert judged_by_folds(pixels.some(pixels.fold < 2), np.random.default_rng(0)) is None
