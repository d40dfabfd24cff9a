"""Splits by polygons and as given: nothing is cut in two parts, the guard is kept, what does not fit is said."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from adcdnet.config import SplitConfig
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import Labels
from adcdnet.split.parts import GUARD, TEST, TRAIN, UNUSED, VALIDATION, add_guard, leakage
from adcdnet.split.polygons import _losses, split_given, split_polygons, split_random
from conftest import PIXEL, write_tif_file

CLASSES = ClassTable.numbered(["a", "b", "c"])
GRID = Grid(61, 73, Affine(PIXEL, 0, 500_000, 0, -PIXEL, 5_000_000), None)


def fields(height: int = 61, width: int = 73, *, side: int = 9, every: int = 12) -> Labels:
    """Squares of one class each, `every` pixels apart."""
    index, polygons = np.full((height, width), -1, np.int16), np.full((height, width), -1, np.int32)
    for k, (row, col) in enumerate(
        (r, c) for r in range(1, height - side, every) for c in range(2, width - side, every)
    ):
        at = slice(row, row + side), slice(col, col + side)
        index[at], polygons[at] = k % 3, 7 * k  # numbers of a file have gaps
    return Labels(index, CLASSES, polygons=polygons)


@pytest.mark.parametrize("seed", range(5))
def test_a_polygon_is_never_in_two_parts_and_the_guard_is_kept(seed):
    labels = fields()
    valid = np.random.default_rng(seed).random(labels.index.shape) > 0.02
    part = split_polygons(labels, valid, reach=4, config=SplitConfig(), seed=seed).part
    assert {TRAIN, VALIDATION, TEST} <= set(np.unique(part))
    for polygon in np.unique(labels.polygons[labels.polygons >= 0]):
        parts = set(np.unique(part[(labels.polygons == polygon) & valid])) - {GUARD}
        assert len(parts) <= 1, polygon
    assert leakage(part, part == TEST, reach=4).holding == 0
    assert leakage(part, part == VALIDATION, reach=4).holding == 0
    assert (part[~valid] == UNUSED).all()
    only_labels = np.isin(part, (VALIDATION, TEST))
    assert (labels.index[only_labels] >= 0).all()  # the ground between polygons trains or guards


def test_every_class_is_in_every_part_and_shares_are_near():
    labels = fields(121, 130)
    part = split_polygons(labels, np.ones((121, 130), bool), reach=2, config=SplitConfig(), seed=0).part
    for k in range(3):
        shares = np.bincount(part[labels.index == k], minlength=5) / (labels.index == k).sum()
        assert abs(shares[TEST] - 0.25) < 0.06
        assert abs(shares[VALIDATION] - 0.15) < 0.06


def test_one_seed_one_split():
    labels, valid = fields(), np.ones((61, 73), bool)
    parts = [split_polygons(labels, valid, reach=3, config=SplitConfig(), seed=s).part for s in (1, 1, 2)]
    assert np.array_equal(parts[0], parts[1])
    assert not np.array_equal(parts[0], parts[2])


def test_a_class_of_one_polygon_trains():
    labels = fields()
    index = np.where(labels.polygons == 14, 2, np.where(labels.index == 2, 1, labels.index)).astype(np.int16)
    labels = Labels(index, CLASSES, polygons=labels.polygons)
    split = split_polygons(labels, np.ones((61, 73), bool), reach=2, config=SplitConfig(), seed=0)
    assert (split.part[labels.polygons == 14] == TRAIN).any()
    assert "not in the test part: c" in split.notes
    few = np.where(index == 2, np.where(np.cumsum(index == 2).reshape(index.shape) <= 29, 2, -1), index)
    labels = Labels(few.astype(np.int16), CLASSES, polygons=labels.polygons)
    split = split_polygons(labels, np.ones((61, 73), bool), reach=2, config=SplitConfig(), seed=0)
    assert split.notes[0] == "class 'c' has only 29 labelled pixels: split into train and test only"


def test_random_pixels_keep_the_shares_of_every_class_and_leak():
    labels = fields(121, 130)
    valid = np.ones((121, 130), bool)
    valid[:, :3] = False
    splits = [split_random(labels, valid, reach=4, config=SplitConfig(), seed=s) for s in (1, 1, 2)]
    part = splits[0].part
    for k in range(3):
        own = (labels.index == k) & valid
        counts = np.bincount(part[own], minlength=5)
        assert counts[[TEST, VALIDATION]].tolist() == [round(0.25 * own.sum()), round(0.15 * own.sum())]
        assert counts[TRAIN] == own.sum() - counts[TEST] - counts[VALIDATION]
    assert (part[~valid] == UNUSED).all()
    assert (part[(labels.index < 0) & valid] == TRAIN).all()
    assert leakage(part, part == TEST, reach=4).holding == 1
    assert np.array_equal(part, splits[1].part)
    assert not np.array_equal(part, splits[2].part)
    assert not splits[0].hides_test


def test_five_labels_of_a_class_dealt_by_hand():
    index = np.full((7, 9), -1, np.int16)
    index[0, :5], index[6, :9] = 0, 1
    labels = Labels(index, ClassTable.numbered(["a", "b"]))
    split = split_random(labels, np.ones((7, 9), bool), reach=2, config=SplitConfig(), seed=0)
    part = split.part
    assert split.notes[0] == "class 'a' has only 5 labelled pixels: split into train and test only"
    assert [(part[index == 0] == n).sum() for n in (TRAIN, VALIDATION, TEST)] == [4, 0, 1]  # too few to validate
    assert [(part[index == 1] == n).sum() for n in (TRAIN, VALIDATION, TEST)] == [7, 0, 2]


def test_pixels_that_the_guard_takes_by_hand():
    number = np.full((3, 8), -1)
    number[:, 0], number[:, 3], number[1, 7] = 0, 1, 2
    assert _losses(number, 3, 2).tolist() == np.zeros((3, 3)).tolist()
    assert _losses(number, 3, 3).tolist() == [[0, 3, 0], [3, 0, 0], [0, 0, 0]]
    assert _losses(number, 3, 4).tolist() == [[0, 3, 0], [3, 0, 3], [0, 1, 0]]


def test_a_raster_has_no_polygons():
    labels = Labels(fields().index, CLASSES)
    with pytest.raises(InputError, match="labels are a raster"):
        split_polygons(labels, np.ones((61, 73), bool), reach=2, config=SplitConfig(), seed=0)


# ---- as given


def write(tmp_path: Path, part, **how) -> Path:
    return write_tif_file(tmp_path / "mine.tif", part, crs=None, **how)


def halves() -> np.ndarray:
    part = np.full((61, 73), TRAIN, np.uint8)
    part[:, 40:], part[:5] = TEST, UNUSED
    return part


def test_a_given_split_is_kept_but_for_its_guard(tmp_path):
    labels, valid = fields(), np.ones((61, 73), bool)
    split = split_given(write(tmp_path, halves()), GRID, labels, valid, reach=3)
    assert (split.part[5:, 37:40] == GUARD).all()
    assert np.array_equal(split.part[5:, :37], halves()[5:, :37])
    assert (split.part[5:, 40:] == TEST).all()
    assert (split.part[:5] == UNUSED).all()
    assert split.notes == ("168 MS pixels of mine.tif lay within 3 of a later part and became guard",)
    kept = add_guard(halves(), valid, 3)
    kept[:5] = UNUSED
    again = split_given(write(tmp_path, kept), GRID, labels, valid, reach=3)
    assert np.array_equal(again.part, kept)
    assert again.notes == ()


@pytest.mark.parametrize(
    ("part", "how", "says"),
    [
        (halves()[:60], {}, "covers 60×73 MS pixels"),
        (np.full((61, 73), 5, np.uint8), {}, "known are 0 unused, 1 train"),
        (np.full((61, 73), TEST, np.uint8), {}, "no training pixel of class 'a'"),
        (halves(), {"corner": (500_003.0, 5_000_000.0)}, "must meet"),
    ],
)
def test_a_split_that_does_not_fit(tmp_path, part, how, says):
    with pytest.raises(InputError, match=says) as caught:
        split_given(write(tmp_path, part, **how), GRID, fields(), np.ones((61, 73), bool), reach=3)
    assert "\n" not in str(caught.value)
