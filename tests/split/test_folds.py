"""Cross-validation: every pixel is tested once, and nothing near it trains."""

import pickle

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from adcdnet.config import SplitConfig
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.split import folds
from adcdnet.split.folds import ClassInOnePlace, block_folds, random_folds
from adcdnet.split.parts import GUARD, TEST, TRAIN, UNUSED, VALIDATION

HEIGHT, WIDTH, REACH = 71, 93, 4


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    monkeypatch.setattr(folds, "_TRIALS", 60)


def patchy(classes: int = 3, seed: int = 0) -> Labels:
    """Classes in random 6 × 6 squares, so that each has many places."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(classes, size=(HEIGHT // 6 + 1, WIDTH // 6 + 1))
    index = squares.repeat(6, 0).repeat(6, 1)[:HEIGHT, :WIDTH].astype(np.int16)
    return Labels(index, ClassTable.numbered([f"c{k}" for k in range(classes)]))


def folded(folds: int = 4, seed: int = 0, strips=None, **config):
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[:5, :9] = False
    settings = SplitConfig(block=12, **config)
    return valid, block_folds(patchy(), valid, reach=REACH, folds=folds, config=settings, seed=seed, strips=strips)


def near(mask, reach: int):
    return sliding_window_view(np.pad(mask, reach), (2 * reach + 1, 2 * reach + 1)).any(axis=(2, 3))


@pytest.mark.parametrize("strips", [None, "rows", "columns"])
def test_every_valid_pixel_is_tested_once(strips):
    valid, splits = folded(strips=strips)
    tested = sum((s.part == TEST).astype(int) for s in splits)
    assert np.array_equal(tested, valid.astype(int))
    assert all((s.part[~valid] == UNUSED).all() for s in splits)


@pytest.mark.parametrize("strips", [None, "rows"])
def test_no_window_of_a_training_or_validation_pixel_holds_a_test_pixel(strips):
    for split in folded(strips=strips)[1]:
        assert not (near(split.part == TEST, REACH) & np.isin(split.part, (TRAIN, VALIDATION))).any()
        assert not (near(split.part == VALIDATION, REACH) & (split.part == TRAIN)).any()
        assert (split.part == GUARD).any()


@pytest.mark.parametrize(("strips", "along"), [("rows", 0), ("columns", 1)])
def test_strips_hold_out_all_ground_from_one_edge_to_the_other_in_order(strips, along):
    lines = [(split.part == TEST).any(1 - along) for split in folded(strips=strips)[1]]
    starts = [int(np.flatnonzero(line).min()) for line in lines]
    ends = [int(np.flatnonzero(line).max()) + 1 for line in lines]
    assert starts == [0, *ends[:-1]]
    assert ends[-1] == (HEIGHT, WIDTH)[along]
    assert np.ptp(np.diff([*starts, ends[-1]])) <= 12 + 1  # patchy labels lie everywhere alike
    for split, line in zip(folded(strips=strips)[1], lines, strict=True):
        inside = np.moveaxis(split.part, along, 0)[line]
        assert np.isin(inside, (TEST, UNUSED)).all()


def test_more_strips_than_lines_of_blocks_are_an_error():
    with pytest.raises(InputError, match="6 rows of blocks make no 7 strips"):
        folded(folds=7, strips="rows")


def test_each_fold_tests_its_share_of_every_class():
    labels = patchy()
    for split in folded(folds=4)[1]:
        for k in range(3):
            share = ((labels.index == k) & (split.part == TEST)).sum() / (labels.index == k).sum()
            assert 0.15 < share < 0.36


def test_without_a_validation_share_none_is_taken():
    assert not any((s.part == VALIDATION).any() for s in folded(validation=0.0)[1])
    assert all((s.part == VALIDATION).any() for s in folded(validation=0.2)[1])


def test_a_seed_gives_the_same_folds_and_another_one_others():
    first, again, other = (folded(seed=s)[1] for s in (0, 0, 1))
    assert all(np.array_equal(a.part, b.part) for a, b in zip(first, again, strict=True))
    assert any((a.part != b.part).any() for a, b in zip(first, other, strict=True))


def test_random_folds_keep_nothing_apart_and_say_so():
    valid = np.ones((HEIGHT, WIDTH), bool)
    splits = random_folds(patchy(), valid, folds=3, seed=0)
    assert np.array_equal(sum((s.part == TEST).astype(int) for s in splits), valid.astype(int))
    for split in splits:
        assert not split.hides_test
        assert set(np.unique(split.part)) == {TRAIN, TEST}
        assert near(split.part == TRAIN, 1)[split.part == TEST].mean() > 0.99
        assert 0.6 < (split.part == TRAIN).mean() < 0.73


def test_too_few_places_for_so_many_folds():
    with pytest.raises(InputError, match="too few for 30 folds"):
        folded(folds=30)


def test_a_class_in_one_place_cannot_be_folded():
    labels = patchy(2)
    labels.index[labels.index == 1] = 0
    labels.index[:6, 20:26] = 1
    with pytest.raises(InputError, match="leaves no training pixel of class 'c1'"):
        block_folds(labels, np.ones((HEIGHT, WIDTH), bool), reach=REACH, folds=4, config=SplitConfig(block=12), seed=0)


def test_what_a_fold_lacks_is_told_from_another_process_too():
    error = pickle.loads(pickle.dumps(ClassInOnePlace("no training pixel of class 'water'", "water")))
    assert (str(error), error.name) == ("no training pixel of class 'water'", "water")
