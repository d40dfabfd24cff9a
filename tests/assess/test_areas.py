"""Estimators against the examples their authors published, against formulas written out, and in simulation."""

import math

import numpy as np
import pytest

from adcdnet.assess.areas import estimate


def in_own_strata(matrix):
    """Points by map class (rows) and true class, where the strata are the map's classes -> (H, K + 1, K)."""
    matrix = np.asarray(matrix)
    n = np.zeros((len(matrix), len(matrix) + 1, len(matrix)), int)
    for h, row in enumerate(matrix):
        n[h, h] = row
    return n


def values(estimates):
    return [e.value for e in estimates]


def errors(estimates):
    return [e.error for e in estimates]


# Olofsson et al. 2014, table 8: deforestation, forest gain, stable forest, stable non-forest; 30 m pixels
OLOFSSON = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
OLOFSSON_PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])


def test_published_example_of_olofsson_and_others():
    found = estimate(in_own_strata(OLOFSSON), OLOFSSON_PIXELS)
    hectares = OLOFSSON_PIXELS.sum() * 0.09
    assert [round(a * hectares) for a in values(found.area)] == [21_158, 11_686, 285_770, 581_386]
    assert [round(1.96 * e * hectares) for e in errors(found.area)] == [6_158, 3_756, 15_510, 16_282]
    assert (round(found.oa.value, 3), round(1.96 * found.oa.error, 3)) == (0.947, 0.018)
    assert [round(u, 2) for u in values(found.precision)] == [0.88, 0.73, 0.93, 0.96]
    assert [round(1.96 * e, 2) for e in errors(found.precision)] == [0.07, 0.10, 0.04, 0.02]
    assert [round(p, 2) for p in values(found.recall)] == [0.75, 0.85, 0.93, 0.96]
    assert [round(1.96 * e, 2) for e in errors(found.recall)] == [0.21, 0.25, 0.03, 0.02]


def test_published_example_of_stehman_with_strata_that_are_not_the_classes_of_the_map():
    # table 2 of Stehman 2014: ten points in each of the strata A to D; map class and true class of every point
    mapped = ["ABCD".index(c) for c in "AAAAAAABBB" + "ABBBBBBBBB" + "BBCCCCCCBB" + "DDDDDDDDDD"]
    true = ["ABCD".index(c) for c in "AAAAACBABC" + "ABBBBBAABB" + "CCCCCDDBBA" + "DDDDDDDCCB"]
    n = np.zeros((4, 5, 4), int)
    np.add.at(n, (np.repeat(range(4), 10), mapped, true), 1)
    found = estimate(n, np.array([40_000, 30_000, 20_000, 10_000]))
    published = [  # pages 4932 to 4936
        (found.area[0], 0.35, 0.082),
        (found.area[2], 0.20, 0.064),
        (found.oa, 0.63, 0.085),
        (found.precision[1], 0.574, 0.125),
        (found.recall[1], 0.794, 0.117),
    ]
    for got, value, error in published:
        assert (round(got.value, 3), round(got.error, 3)) == (value, error)
    assert found.matrix[2, 1] == pytest.approx(0.08)  # mapped B, truly C


def test_one_stratum_is_a_simple_random_sample():
    n = np.array([[[40, 6], [3, 25], [4, 2]]])  # map rows, the last one no class; true columns
    found = estimate(n, np.array([5000]))

    def of_shares(part, whole):
        p = part / whole
        return p, math.sqrt(p * (1 - p) / (80 - 1))

    assert found.oa == pytest.approx(of_shares(65, 80))
    assert found.area[0] == pytest.approx(of_shares(47, 80))
    # a ratio of two counts: the share of 46 points, whose number is random too
    p = 40 / 46
    assert found.precision[0].value == pytest.approx(p)
    assert found.precision[0].error == pytest.approx(math.sqrt(p * (1 - p) * 80 / 79 / 46))
    assert found.recall[1].value == pytest.approx(25 / 33)
    assert found.matrix == pytest.approx(np.array([[40, 3, 4], [6, 25, 2]]) / 80)


def test_a_map_without_errors_has_the_mapped_areas_and_no_doubt():
    found = estimate(in_own_strata(np.diag([5, 7, 4])), np.array([100, 700, 200]))
    assert values(found.area) == pytest.approx([0.1, 0.7, 0.2])
    assert errors(found.area) == errors(found.recall) == errors(found.precision) == [0, 0, 0]
    assert found.oa == (1, 0)


def test_what_the_sample_does_not_hold_is_undefined():
    found = estimate(in_own_strata([[5, 0, 0], [2, 6, 0], [3, 1, 0]]), np.array([100, 700, 200]))
    assert math.isnan(found.recall[2].value)
    assert math.isnan(found.recall[2].error)
    assert found.precision[2] == (0, 0)
    assert found.area[2] == (0, 0)


@pytest.mark.parametrize(
    ("n", "pixels", "message"),
    [
        (np.ones((3, 3, 3), int), [1, 1, 1], r"\(H, K \+ 1, K\)"),
        (np.ones((3, 4, 3), int), [1, 1], r"pixels \(2,\)"),
        (np.array([[[1, 0], [0, 0], [0, 0]], [[4, 0], [0, 2], [0, 0]]]), [9, 9], r"two points or more.*\[1, 6\]"),
    ],
)
def test_what_cannot_be_estimated_is_refused(n, pixels, message):
    with pytest.raises(ValueError, match=message):
        estimate(n, np.array(pixels))


def test_estimates_are_right_on_average_and_their_errors_tell_how_far_they_stray():
    # 90,000 pixels of three classes; the map takes much of the rare class 2 for class 1
    rng = np.random.default_rng(4)
    true = rng.choice(3, 90_000, p=[0.55, 0.4, 0.05])
    confused = np.array([[0.9, 0.1, 0], [0.08, 0.9, 0.02], [0, 0.4, 0.6]])
    mapped = (rng.random((true.size, 1)) > confused[true].cumsum(1)).sum(1)
    pixels, truth = np.bincount(mapped, minlength=3), np.bincount(true, minlength=3) / true.size
    places = [np.flatnonzero(mapped == h) for h in range(3)]
    found = []
    for _ in range(400):
        n = np.zeros((3, 4, 3), int)
        for h in range(3):
            n[h, h] = np.bincount(true[rng.choice(places[h], 60, replace=False)], minlength=3)
        found.append(estimate(n, pixels))
    area, error = (np.array([f(e.area) for e in found]) for f in (values, errors))
    assert area.mean(0) == pytest.approx(truth, rel=0.03)
    assert abs(pixels[2] / true.size - truth[2]) > 0.1 * truth[2]  # what the map alone would have said
    covered = (np.abs(area - truth) <= 1.96 * error).mean(0)
    assert ((covered > 0.9) & (covered < 0.99)).all()
    assert error.mean(0) == pytest.approx(area.std(0), rel=0.15)
    right = (mapped == true).mean()
    assert 0.9 < np.mean([abs(e.oa.value - right) <= 1.96 * e.oa.error for e in found]) < 0.99
