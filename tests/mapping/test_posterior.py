"""The temperature of a model's probabilities: what it leaves alone, and that it is found again where it is known."""

import math

import numpy as np
import pytest

from adcdnet.mapping.posterior import fit_temperature, posterior

LABELLED, DRAWN = (0.7, 0.2, 0.1), (0.4, 0.35, 0.25)


def test_at_temperature_two_odds_are_square_roots():
    logits = np.log([[4.0], [1.0], [1.0]])
    p = posterior(logits, (0.5, 0.25, 0.25), (0.5, 0.25, 0.25), 1.0, 2.0)
    assert p[:, 0] == pytest.approx([0.5, 0.25, 0.25])  # 4 : 1 : 1 becomes 2 : 1 : 1


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_no_temperature_changes_the_winner(tau, temperature):
    logits = np.random.default_rng(3).normal(0, 2, (3, 7, 11))
    plain = posterior(logits, LABELLED, DRAWN, tau)
    tempered = posterior(logits, LABELLED, DRAWN, tau, temperature)
    assert np.array_equal(plain.argmax(0), tempered.argmax(0))
    assert np.allclose(tempered.sum(0), 1)
    flatter = tempered.max(0) < plain.max(0)
    assert flatter.all() if temperature > 1 else not flatter.any()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    rng = np.random.default_rng(5)
    z = rng.normal(0, 2, (4, 40_000))
    meant = np.exp(z) / np.exp(z).sum(0)
    truth = (rng.random(meant.shape[1]) > meant.cumsum(0)).sum(0)  # drawn as `meant` says
    said = np.exp(z * temperature) / np.exp(z * temperature).sum(0)  # too sure by that much
    assert fit_temperature(said, truth) == pytest.approx(temperature, rel=0.04)


def test_pixels_that_are_all_right_do_not_make_probabilities_certain():
    p = np.tile(np.array([[0.8], [0.2]]), (1, 9))
    assert fit_temperature(p, np.zeros(9, int)) >= 0.1
    assert math.isfinite(fit_temperature(np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([1, 0])))
