"""Maps against labels: small cases counted by hand, and what does not fit together."""

import json

import numpy as np
import pytest

from adcdnet.classes import ClassTable
from adcdnet.errors import InputError
from adcdnet.evaluation import evaluate
from adcdnet.grid import Grid
from adcdnet.scene import read_band, write_raster
from conftest import CORNER, PIXEL

TABLE = ClassTable((1, 2, 5), ("water", "wood", "rock"), ("#0000ff", "#00ff00", "#808080"))
#            right  right  wrong  unmapped  unlabelled  right
MAP = [[1, 2, 2, 0, 5, 5], [1, 1, 1, 1, 1, 1]]
LABELS = [[1, 2, 1, 5, 0, 5], [0, 0, 1, 2, 0, 0]]
SPLIT = [[3, 3, 3, 3, 3, 1], [0, 0, 2, 2, 4, 4]]


@pytest.fixture
def files(write_tif, tmp_path):
    """Map, labels and split of 2 × 6 pixels; the map carries its class table."""
    labels = write_tif("labels.tif", np.array(LABELS, np.uint8))
    split = write_tif("split.tif", np.array(SPLIT, np.uint8))
    _, grid, _ = read_band(labels)
    write_raster(tmp_path / "map.tif", np.array(MAP, np.uint8), grid, classes=TABLE)
    return tmp_path / "map.tif", labels, split


def test_all_labels_by_hand(files):
    found = evaluate(*files[:2])
    # rows labels, columns map: water, wood, rock, no class
    assert found.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert found.part is None
    assert found.scores.oa == pytest.approx(4 / 7)
    assert found.scores.aa == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert found.scores.unmapped == 1
    assert found.classes == TABLE


@pytest.mark.parametrize(
    ("part", "confusion"),
    [
        ("test", [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
        ("validation", [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]),
        ("train", [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]),
    ],
)
def test_one_part_by_hand(files, part, confusion):
    found = evaluate(*files[:2], split=files[2], part=part)
    assert found.confusion.tolist() == confusion
    assert found.part == part


def test_json_holds_plain_values(files):
    content = json.loads(json.dumps(evaluate(*files[:2], split=files[2], part="validation").to_dict(), allow_nan=False))
    assert content["part"] == "validation"
    assert content["classes"] == [{"value": v, "name": n} for v, n in zip(TABLE.values, TABLE.names, strict=True)]
    assert content["confusion"] == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert content["recall"] == [1, 0, None]  # rock has no pixel there
    assert content["oa"] == 0.5


def test_a_map_without_a_table_is_known_by_its_values(files, write_tif):
    bare = write_tif("bare.tif", np.array(MAP, np.uint8))
    found = evaluate(bare, files[1])
    assert found.classes.names == ("1", "2", "5")
    assert found.confusion.tolist() == evaluate(*files[:2]).confusion.tolist()


def test_fine_labels_judge_whole_pixels(files, write_tif):
    fine = np.array(LABELS, np.uint8).repeat(2, 0).repeat(2, 1)
    fine[0, 0] = 5  # the first pixel is no longer of one class
    found = evaluate(files[0], write_tif("fine.tif", fine, pixel=PIXEL / 2))
    assert found.confusion.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]


def test_the_guard_part_can_be_asked_for_but_may_be_empty(files):
    with pytest.raises(InputError, match="no labelled pixel in the guard part"):
        evaluate(*files[:2], split=files[2], part="guard")


def test_split_and_part_belong_together(files):
    with pytest.raises(InputError, match="--split and --part"):
        evaluate(*files[:2], split=files[2])
    with pytest.raises(InputError, match="--split and --part"):
        evaluate(*files[:2], part="test")
    with pytest.raises(InputError, match="'tests' is not one of unused, train"):
        evaluate(*files[:2], split=files[2], part="tests")


def test_a_split_of_another_place_or_size_is_refused(files, write_tif):
    moved = write_tif("moved.tif", np.array(SPLIT, np.uint8), corner=(CORNER[0] + PIXEL, CORNER[1]))
    small = write_tif("small.tif", np.array(SPLIT, np.uint8)[:, :5])
    for split in (moved, small):
        with pytest.raises(InputError, match="does not lie on the map"):
            evaluate(*files[:2], split=split, part="test")


def test_labels_with_a_class_the_map_does_not_know_are_refused(files, write_tif):
    labels = np.array(LABELS, np.uint8)
    labels[0, 0] = 9
    with pytest.raises(InputError, match=r"\[9\]"):
        evaluate(files[0], write_tif("other.tif", labels))


@pytest.mark.parametrize("value", [1.5, 300.0, -2.0, float("nan")])
def test_what_is_no_map_is_refused(files, write_tif, value):
    with pytest.raises(InputError, match="is not a map"):
        evaluate(write_tif("x.tif", np.full((2, 6), value, np.float32)), files[1])


def test_a_map_in_any_integer_type_and_with_another_nodata_value(files, write_tif):
    values = np.where(np.array(MAP) == 0, -1, np.array(MAP)).astype(np.int16)
    found = evaluate(write_tif("int16.tif", values, nodata=-1), files[1])
    assert found.confusion.tolist() == evaluate(*files[:2]).confusion.tolist()


def test_grid_of_a_scene_without_a_place(write_tif, tmp_path):
    labels = write_tif("labels.tif", np.array(LABELS, np.uint8), pixel=0, crs=None)
    _, grid, _ = read_band(labels)
    assert isinstance(grid, Grid)
    write_raster(tmp_path / "map.tif", np.array(MAP, np.uint8), grid, classes=TABLE)
    assert evaluate(tmp_path / "map.tif", labels).confusion.sum() == 7
