"""Shares of the classes around a pixel: by hand, and what they do not depend on."""

import numpy as np
import pytest

from adcdnet.mapping.local_priors import LocalPriors

LABELLED, DRAWN = (0.5, 0.3, 0.2), (0.4, 0.3, 0.3)


def targets(shape, seed=0):
    """Logits (3, n) of all targets of a grid, with their rows and columns, in an order of their own."""
    rng = np.random.default_rng(seed)
    row, col = (part.ravel() for part in np.indices(shape))
    order = rng.permutation(row.size)
    return rng.normal(0, 2, (3, row.size)), row[order], col[order]


def test_one_square_by_hand():
    logits = np.log([[0.9] * 60, [0.1] * 60])  # classes labelled and drawn alike: the posterior itself
    row, col = np.arange(60) // 10, np.arange(60) % 10
    local = LocalPriors((16, 16), 1, (0.5, 0.5), (0.5, 0.5), 0.5)
    local.add(logits, row, col)
    added = local.adapt(logits, row, col) - logits
    # 60 pixels as found and 100 as labelled: shares (54 + 50, 6 + 50) / 160; half of the logarithm of twice that
    assert added[0] == pytest.approx(0.5 * np.log(2 * 104 / 160), abs=2e-3)
    assert added[1] == pytest.approx(0.5 * np.log(2 * 56 / 160), abs=2e-3)


def test_who_knows_nothing_changes_nothing():
    row, col = np.arange(5000) // 80, np.arange(5000) % 80
    ignorant = np.repeat(np.log(DRAWN)[:, None], 5000, 1)  # all that training has taught it is what it drew
    local = LocalPriors((80, 80), 1, LABELLED, DRAWN, 1.0)
    local.add(ignorant, row, col)
    assert local.adapt(ignorant, row, col) == pytest.approx(ignorant, abs=1e-6)


def test_where_a_class_lies_it_is_expected_and_far_from_there_it_is_not():
    row, col = (part.ravel() for part in np.indices((40, 640)))
    logits = np.zeros((3, row.size))
    logits[0, col < 320], logits[2, col >= 320] = 3, 3
    local = LocalPriors((40, 640), 1, LABELLED, DRAWN, 0.75)
    local.add(logits, row, col)
    added = (local.adapt(logits, row, col) - logits).reshape(3, 40, 640)
    assert (added[0, :, :200] > 0.2).all()
    assert (added[2, :, :200] < -0.5).all()
    assert (added[2, :, -200:] > 0.5).all()
    assert (np.diff(added[2, 20, 200:440]) > -1e-4).all()  # from one side to the other without a step back
    assert np.abs(np.diff(added[2, 20])).max() < 0.05
    alone = LocalPriors((40, 640), 1, LABELLED, DRAWN, 0.75)  # what lies beyond does not matter at the far end
    near = col < 200
    alone.add(logits[:, near], row[near], col[near])
    end = col < 40
    assert alone.adapt(logits[:, end], row[end], col[end]) == pytest.approx(
        local.adapt(logits[:, end], row[end], col[end]), abs=0.02
    )


def test_the_order_and_the_parts_of_adding_do_not_matter():
    logits, row, col = targets((61, 47))
    whole = LocalPriors((61, 47), 1, LABELLED, DRAWN, 0.75)
    whole.add(logits, row, col)
    parts = LocalPriors((61, 47), 1, LABELLED, DRAWN, 0.75)
    for some in np.array_split(np.arange(row.size)[::-1], 7):
        parts.add(logits[:, some], row[some], col[some])
        parts.adapt(logits[:, some], row[some], col[some])  # in between: what is added later counts all the same
    assert parts.adapt(logits, row, col) == pytest.approx(whole.adapt(logits, row, col), abs=1e-6)


def test_fine_targets_are_as_coarse_ones():
    logits, row, col = targets((50, 37))
    coarse = LocalPriors((50, 37), 1, LABELLED, DRAWN, 0.75)
    coarse.add(np.repeat(logits, 9, 1), row.repeat(9), col.repeat(9))
    fine = LocalPriors((150, 111), 3, LABELLED, DRAWN, 0.75)
    for k in range(9):
        fine.add(logits, 3 * row + k // 3, 3 * col + k % 3)
    in_the_middle = fine.adapt(logits, 3 * row + 1, 3 * col + 1)
    assert in_the_middle == pytest.approx(coarse.adapt(logits, row, col), abs=1e-6)


def test_without_weight_logits_stay():
    logits, row, col = targets((20, 30))
    local = LocalPriors((20, 30), 1, LABELLED, DRAWN, 0.0)
    local.add(logits, row, col)
    assert np.array_equal(local.adapt(logits, row, col), logits.astype(np.float32))
