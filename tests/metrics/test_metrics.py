import json
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from adcdnet.metrics import confusion_matrix, expected_calibration_error, scores

# 100 true pixels of three classes, three of them not mapped
BY_HAND = np.array(
    [
        [40, 5, 3, 2],
        [4, 25, 1, 0],
        [0, 6, 13, 1],
    ]
)


def test_confusion_rows_are_truth_and_the_last_column_is_unmapped():
    truth = np.array([[0, 0, 1], [2, 2, -1]])
    prediction = np.array([[0, 1, -1], [2, 0, 1]])
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, 3), [[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]])


def test_pixels_outside_valid_do_not_count():
    truth, prediction = np.array([0, 1, 1]), np.array([0, 1, 0])
    valid = np.array([True, False, True])
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, 2, valid=valid), [[1, 0, 0], [1, 0, 0]])


def test_matrices_of_parts_add_up():
    rng = np.random.default_rng(3)
    truth, prediction = rng.integers(-1, 5, (2, 61, 47))
    parts = [confusion_matrix(truth[rows], prediction[rows], 5) for rows in (slice(0, 20), slice(20, 61))]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(truth, prediction, 5))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [([0, 1], [0], "one shape"), ([0, 3], [0, 0], "truth holds 0..3"), ([0, 0], [-2, 0], "prediction holds -2..0")],
)
def test_confusion_refuses_what_it_cannot_count(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(truth), np.array(prediction), 3)


def test_scores_by_hand():
    # right 40, 25, 13 of 50, 30, 20 true; 44, 36, 17 mapped
    got = scores(BY_HAND)
    chance = (50 * 44 + 30 * 36 + 20 * 17) / 100**2
    assert chance == pytest.approx(0.362)
    assert got.oa == pytest.approx(0.78)
    assert got.kappa == pytest.approx((0.78 - 0.362) / 0.638)
    assert got.recall == pytest.approx((40 / 50, 25 / 30, 13 / 20))
    assert got.precision == pytest.approx((40 / 44, 25 / 36, 13 / 17))
    assert got.f1 == pytest.approx((80 / 94, 50 / 66, 26 / 37))
    assert got.iou == pytest.approx((40 / 54, 25 / 41, 13 / 24))
    assert got.aa == pytest.approx((0.8 + 25 / 30 + 0.65) / 3)
    assert got.macro_f1 == pytest.approx((80 / 94 + 50 / 66 + 26 / 37) / 3)
    assert (got.support, got.unmapped) == ((50, 30, 20), 3)


def test_leaving_a_right_pixel_unmapped_lowers_all_but_precision():
    silent = BY_HAND.copy()
    silent[0, 0] -= 10
    silent[0, 3] += 10
    before, after = scores(BY_HAND), scores(silent)
    assert after.precision[0] == pytest.approx(30 / 34)
    assert after.precision[1:] == before.precision[1:]
    for name in ("oa", "aa", "kappa", "macro_f1"):
        assert getattr(after, name) < getattr(before, name)
    assert after.recall[0] == pytest.approx(30 / 50)


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 400)
    prediction = np.where(rng.random(400) < 0.6, truth, rng.integers(0, 5, 400))
    got = scores(confusion_matrix(truth, prediction, 5))
    assert got.oa == pytest.approx(reference.accuracy_score(truth, prediction))
    assert got.aa == pytest.approx(reference.balanced_accuracy_score(truth, prediction))
    assert got.kappa == pytest.approx(reference.cohen_kappa_score(truth, prediction))
    assert got.macro_f1 == pytest.approx(reference.f1_score(truth, prediction, average="macro"))
    assert got.iou == pytest.approx(reference.jaccard_score(truth, prediction, average=None))


def test_absent_classes_are_undefined_and_do_not_enter_means():
    # class 1 occurs nowhere, class 2 only in the map
    got = scores(np.array([[6, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert got.aa == pytest.approx(0.75)
    assert got.macro_f1 == pytest.approx(12 / 14)
    assert math.isnan(got.recall[1])
    assert math.isnan(got.recall[2])
    assert math.isnan(got.precision[1])
    assert got.precision[2] == 0
    assert got.iou[2] == 0
    assert math.isnan(got.iou[1])


@pytest.mark.parametrize("confusion", [BY_HAND, np.zeros((3, 4), int), np.array([[7, 0]])])
def test_to_dict_is_strict_json(confusion):
    back = json.loads(json.dumps(scores(confusion).to_dict(), allow_nan=False))
    assert set(back) == {
        "oa", "aa", "kappa", "macro_f1", "precision", "recall", "f1", "iou", "support", "unmapped",
    }  # fmt: skip


def test_nothing_counted_is_null_everywhere():
    got = scores(np.zeros((2, 3), int)).to_dict()
    assert got["oa"] is got["aa"] is got["kappa"] is got["macro_f1"] is None
    assert got["recall"] == got["f1"] == [None, None]
    assert got["support"] == [0, 0]


def test_scores_refuse_a_square_matrix():
    with pytest.raises(ValueError, match=r"\(K, K \+ 1\)"):
        scores(np.eye(3, dtype=int))


def test_calibration_error_by_hand():
    # two bins: (0, 0.5] holds confidences 0.4, 0.5 with one right; (0.5, 1] holds 0.8, 0.9 with both right; -1 is out
    probabilities = np.array([[0.4, 0.3, 0.3], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9], [1, 0, 0]])
    truth = np.array([0, 1, 1, 2, -1])
    expected = 2 / 4 * abs(0.5 - 0.45) + 2 / 4 * abs(1 - 0.85)
    assert expected_calibration_error(probabilities, truth, bins=2) == pytest.approx(expected)


def test_calibration_error_is_small_when_labels_are_drawn_from_the_probabilities():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(3), 20_000)
    truth = (rng.random((20_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    sharpened = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    assert expected_calibration_error(probabilities, truth) < 0.02
    assert expected_calibration_error(sharpened, truth) > 0.1


def test_calibration_error_without_pixels_is_undefined():
    assert math.isnan(expected_calibration_error(np.ones((2, 1)), np.array([-1, -1])))


def test_calibration_error_refuses_unequal_lengths():
    with pytest.raises(ValueError, match=r"\(n, K\)"):
        expected_calibration_error(np.ones((3, 2)), np.zeros(2, int))
