"""Band statistics and standardising, by hand."""

import numpy as np
import pytest

from adcdnet.geo.band_statistics import BandStatistics

MS = np.array([[[1, 3, 100]], [[5, 5, 100]]], np.float32)  # 2 bands, 1 × 3
PAN = np.array([[[2, 4, 6, 8, 100, 100], [2, 4, 6, 8, 100, 100]]], np.float32)  # 1 band, 2 × 6
MS_WHERE = np.array([[True, True, False]])
PAN_WHERE = np.repeat(np.repeat(MS_WHERE, 2, 0), 2, 1)


@pytest.fixture
def statistics():
    return BandStatistics.measure(MS, PAN, MS_WHERE, PAN_WHERE)


def test_mean_and_deviation_by_hand(statistics):
    assert statistics.ms_mean == (2.0, 5.0)
    assert statistics.ms_deviation == (1.0, 1.0)  # the second band is constant
    assert statistics.pan_mean == (5.0,)
    assert statistics.pan_deviation == pytest.approx((np.sqrt(5),))


def test_standardised_pixels_by_hand(statistics):
    ms, pan = statistics.standardise(MS, PAN, np.array([[True, False, True]]), PAN_WHERE)
    assert ms.dtype == pan.dtype == np.float32
    assert ms.tolist() == [[[-1, 0, 98]], [[0, 0, 95]]]  # 0, the training mean, where invalid
    assert np.allclose(pan[0, 0], [-3 / np.sqrt(5), -1 / np.sqrt(5), 1 / np.sqrt(5), 3 / np.sqrt(5), 0, 0])


def test_large_numbers_that_vary_little_keep_their_variation():
    x = (1e6 + np.arange(7).reshape(1, 1, 7) % 2).astype(np.float32)
    everywhere = np.ones((1, 7), bool)
    found = BandStatistics.measure(x, x, everywhere, everywhere)
    ms, _ = found.standardise(x, x, everywhere, everywhere)
    assert found.ms_deviation[0] == pytest.approx(np.std(np.arange(7) % 2))
    assert ms.std() == pytest.approx(1, abs=1e-5)


def test_distance_counts_training_deviations(statistics):
    other = BandStatistics((5.0, 5.0), (9.0, 9.0), (5 - 2 * np.sqrt(5),), (9.0,))
    assert statistics.distance(other) == pytest.approx([3, 0, 2])
