"""Averages with like neighbours: by hand, against a plain loop, and what they leave alone."""

from math import ceil

import numpy as np
import pytest

from adcdnet.mapping.posterior import posterior
from adcdnet.mapping.smoothing import looks, smooth

LABELLED, DRAWN = (0.7, 0.2, 0.1), (0.4, 0.35, 0.25)
HALF = (2 * np.log(2)) ** -0.5  # a Gaussian of this deviation is a half at 1


def alike(logits):
    return np.zeros((1, *logits.shape[1:]), np.float32)


def test_where_all_looks_alike_by_hand():
    logits = np.zeros((2, 3, 4))
    logits[0, 1, 1] = 16
    logits[:, 0, 3] = np.nan
    # a neighbour weighs half of the pixel itself, at a corner a quarter
    found = smooth(logits, alike(logits), HALF, 0.2)
    assert found[0, 1] == pytest.approx([8 / 3, 4, 8 / 3.75, 0])  # of 16: 0.5 of 3, 1 of 4, 0.5 of 4 less a corner
    assert found[0, 0, 2] == pytest.approx(16 * 0.25 / 2.5)  # its right neighbour is missing: 3 - 0.5
    assert np.array_equal(np.isnan(found), np.isnan(logits))
    assert (found[1][~np.isnan(found[1])] == 0).all()
    assert np.array_equal(smooth(logits, alike(logits), 0, 0.2), logits.astype(np.float32), equal_nan=True)


def test_who_looks_different_counts_less_by_hand():
    logits = np.array([[[0.0, 12.0]]])
    look = np.array([[[0.0, 0.3]], [[5.0, 5.1]]])  # mean squared difference (0.09 + 0.01) / 2
    likeness = HALF * 0.05**0.5  # so the look halves the weight, and the distance halves it again
    assert smooth(logits, look, HALF, likeness)[0, 0] == pytest.approx([12 * 0.25 / 1.25, 12 / 1.25])
    assert smooth(logits, look, HALF, 0)[0, 0] == pytest.approx([12 * 0.5 / 1.5, 12 / 1.5])  # looks do not matter


def plainly(logits, look, deviation, likeness):
    found = np.full(logits.shape, np.nan)
    height, width = logits.shape[1:]
    far = ceil(deviation)
    for r, c in np.argwhere(~np.isnan(logits[0])):
        total, weights = 0, 0
        for y in range(max(0, r - far), min(height, r + far + 1)):
            for x in range(max(0, c - far), min(width, c + far + 1)):
                if not np.isnan(logits[0, y, x]):
                    unlike = ((look[:, r, c] - look[:, y, x]) ** 2).mean()
                    weight = np.exp(-((r - y) ** 2 + (c - x) ** 2) / (2 * deviation**2) - unlike / (2 * likeness**2))
                    total, weights = total + weight * logits[:, y, x], weights + weight
        found[:, r, c] = total / weights
    return found


@pytest.mark.parametrize("shape", [(9, 7), (1, 1), (1, 12), (3, 2), (2, 8)])
@pytest.mark.parametrize("deviation", [0.5, 1.5, 2.0, 3.7])
def test_as_a_plain_loop_says(shape, deviation):
    rng = np.random.default_rng(4)
    logits, look = rng.normal(0, 3, (3, *shape)), rng.normal(0, 0.3, (4, *shape))
    logits[:, rng.random(shape) < 0.2] = np.nan
    found = smooth(logits, look, deviation, 0.2)
    np.testing.assert_allclose(found, plainly(logits, look, deviation, 0.2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_averaged_logits_answer_as_averaged_log_posteriors(tau):
    logits = np.random.default_rng(8).normal(0, 3, (3, 6, 7)) + np.random.default_rng(9).normal(0, 9, (6, 7))
    look = np.random.default_rng(10).normal(0, 0.2, (2, 6, 7))
    before = posterior(smooth(logits, look, 2, 0.2), LABELLED, DRAWN, tau, 1.7)
    averaged = smooth(np.log(posterior(logits, LABELLED, DRAWN, tau, 1.7)), look, 2, 0.2)
    after = np.exp(averaged) / np.exp(averaged).sum(0)
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-5)


def test_targets_are_compared_by_their_ms_pixel_and_the_pan_on_them():
    ms, pan = np.arange(12.0).reshape(2, 2, 3), np.arange(96.0).reshape(1, 8, 12)
    coarse = looks(ms, pan, 1, sensors="both")
    assert np.array_equal(coarse[:2], ms)
    assert coarse[2, 1, 2] == pan[0, 4:, 8:].mean()
    fine = looks(ms, pan, 4, sensors="both")
    assert fine[:, 5, 10].tolist() == [*ms[:, 1, 2], pan[0, 5, 10]]
    assert looks(ms, pan, 2, sensors="pan")[0, 3, 5] == pan[0, 6:8, 10:].mean()
    assert np.array_equal(looks(ms, pan, 1, sensors="ms"), ms)
