"""Maps against labels: small cases counted by hand, and what does not fit together."""

import json
import re
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS
from shapely.geometry import Point

from adcdnet.assess.evaluate import evaluate
from adcdnet.cli.evaluate import print_evaluation
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.maps import read_classes, read_map, sieve
from adcdnet.geo.raster import RasterReader, read_band
from adcdnet.geo.raster_writer import write_raster
from adcdnet.mapping.predict import predict
from conftest import CORNER, PIXEL, UTM

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


def test_fine_labels_judge_the_pixels_of_which_they_cover_most(files, write_tif):
    fine = np.array(LABELS, np.uint8).repeat(2, 0).repeat(2, 1)
    whole = evaluate(files[0], write_tif("whole.tif", fine, pixel=PIXEL / 2)).confusion
    fine[0, 0] = 5  # the first pixel is no longer of one class
    mixed = write_tif("fine.tif", fine, pixel=PIXEL / 2)
    assert np.array_equal(evaluate(files[0], mixed).confusion, whole)
    found = evaluate(files[0], mixed, min_share=1)
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
    with pytest.raises(InputError, match=r"\['9'\]"):
        evaluate(files[0], write_tif("other.tif", labels))


# ---- names match names, values match values


@pytest.fixture
def plain(write_tif):
    """The map without its class table, as other software leaves it."""
    return write_tif("plain.tif", np.array(MAP, np.uint8))


@pytest.fixture
def points(tmp_path):
    """points(names or values) -> the labels of the test as points, each class as it is called there."""

    def write(called, file="points.gpkg"):
        places = [(row, col) for row in range(2) for col in range(6) if LABELS[row][col]]
        spots = [Point(CORNER[0] + (col + 0.5) * PIXEL, CORNER[1] - (row + 0.5) * PIXEL) for row, col in places]
        keys = [called[LABELS[row][col]] for row, col in places]
        geopandas.GeoDataFrame({"class": keys}, geometry=spots, crs=UTM).to_file(tmp_path / file)
        return tmp_path / file

    return write


NAMES = {1: "water", 2: "wood", 5: "rock"}
COUNTS = [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]


def test_a_map_without_names_is_judged_by_values_and_not_by_names(files, plain, points):
    assert evaluate(plain, points({1: 1, 2: 2, 5: 5})).confusion.tolist() == COUNTS
    says = (
        r"names its classes \(rock, water, wood\) and the map .*plain\.tif has values without names; say with --classes"
    )
    with pytest.raises(InputError, match=says):
        evaluate(plain, points(NAMES))
    found = evaluate(plain, points(NAMES), classes=TABLE)
    assert (found.confusion.tolist(), found.classes) == (COUNTS, TABLE)
    with pytest.raises(InputError, match=r"holds the classes 0 and the map .* lie in 1\.\.255; say with --classes"):
        evaluate(plain, points({1: 0, 2: 1, 5: 2}))  # another count of the same classes: all would be wrong


def test_a_map_with_names_is_judged_by_names_or_values(files, points):
    for called in (NAMES, {1: 1, 2: 2, 5: 5}):
        assert evaluate(files[0], points(called)).confusion.tolist() == COUNTS
    with pytest.raises(InputError, match=r"holds the classes \['0'\]"):
        evaluate(files[0], points({1: 0, 2: 1, 5: 2}))


def test_codes_that_named_a_class_in_training_judge_its_map(write_tif, tmp_path, points):
    _, grid, _ = read_band(write_tif("grid.tif", np.array(LABELS, np.uint8)))
    numbered = np.select([np.array(MAP) == 1, np.array(MAP) == 2, np.array(MAP) == 5], [1, 2, 3]).astype(np.uint8)
    corine = points({1: 112, 2: 231, 5: 312})
    write_raster(tmp_path / "map.tif", numbered, grid, classes=ClassTable.numbered(["112", "231", "312"]))
    assert evaluate(tmp_path / "map.tif", corine).confusion.tolist() == COUNTS
    table = replace(ClassTable.numbered(["town", "field", "wood"]), codes=(112, 231, 312))
    write_raster(tmp_path / "named.tif", numbered, grid, classes=ClassTable.numbered(["town", "field", "wood"]))
    assert evaluate(tmp_path / "named.tif", corine, classes=table).confusion.tolist() == COUNTS
    nameless = write_tif("nameless.tif", numbered)
    with pytest.raises(InputError, match=r"has the values \[112, 231, 312\].*give a table of the map's own values"):
        evaluate(nameless, corine, classes=table)


def test_classes_that_contradict_the_map_are_refused_and_strange_values_noted(files, plain, points):
    other = replace(TABLE, names=("wood", "water", "rock"))
    with pytest.raises(InputError, match="calls its value 1 'water', the class table 'wood'; leave --classes out"):
        evaluate(files[0], points(NAMES), classes=other)
    found = evaluate(plain, points({1: 1, 2: 1, 5: 5}))
    assert found.notes[-1].endswith("the labels or the table count as 'no class': 2 (2 pixels)")


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


# ---- intervals, leakage, areas


def write_scene(folder, shape, *, tags=None, seed=5):
    """Map, labels and split (rows in thirds: train, guard, test) on 30 m pixels; three pixels of four are right."""
    rng = np.random.default_rng(seed)
    grid = Grid(*shape, Affine(30, 0, 500_000, 0, -30, 4_000_000), CRS("EPSG:32617").to_wkt())
    labels = rng.choice([1, 2, 5], shape).astype(np.uint8)
    mapped = np.where(rng.random(shape) < 0.25, rng.choice([1, 2, 5], shape), labels).astype(np.uint8)
    part = np.array([1, 4, 3], np.uint8)[np.arange(shape[0]) * 3 // shape[0]][:, None].repeat(shape[1], 1)
    write_raster(folder / "map.tif", mapped, grid, classes=TABLE)
    write_raster(folder / "labels.tif", labels, grid)
    write_raster(folder / "split.tif", part, grid, tags=tags)
    return mapped, labels, part


def test_intervals_come_from_the_blocks_of_the_split(tmp_path):
    write_scene(tmp_path, (90, 71), tags={"BLOCK": "10", "REACH": "4"})
    files, where = (tmp_path / "map.tif", tmp_path / "labels.tif"), {"split": tmp_path / "split.tif", "part": "test"}
    found = evaluate(*files, **where)
    assert (found.block, found.blocks) == (10, 3 * 7)  # 71 columns are cut into seven
    assert found.intervals.oa.low < found.scores.oa < found.intervals.oa.high
    assert found.to_dict()["intervals"]["oa"] == list(found.intervals.oa)
    assert evaluate(*files, **where).intervals == found.intervals
    asked = evaluate(*files, **where, block=15)
    assert (asked.block, asked.blocks) == (15, 2 * 5)
    assert evaluate(*files, **where, block=30).intervals is None  # two blocks


def test_without_a_split_blocks_are_those_that_a_split_would_have(tmp_path):
    write_scene(tmp_path, (190, 171))
    found = evaluate(tmp_path / "map.tif", tmp_path / "labels.tif")
    assert found.block == round(171 / 4)
    assert found.leakage is None


def test_leakage_comes_from_the_reach_of_the_split(tmp_path):
    for reach, holding, overlapping in (("4", 0, 0), ("20", 0, 10 / 30), ("31", 1 / 30, 1)):
        write_scene(tmp_path, (90, 71), tags={"BLOCK": "10", "REACH": reach})
        found = evaluate(tmp_path / "map.tif", tmp_path / "labels.tif", split=tmp_path / "split.tif", part="test")
        # training ends with row 29, the test part begins with row 60
        assert (found.leakage.holding, found.leakage.overlapping) == pytest.approx((holding, overlapping))
        assert found.to_dict()["leakage"] == {
            "holding": found.leakage.holding,
            "overlapping": found.leakage.overlapping,
        }


def test_a_split_that_does_not_say_its_reach_has_no_leakage_figures(tmp_path):
    write_scene(tmp_path, (90, 71))
    found = evaluate(tmp_path / "map.tif", tmp_path / "labels.tif", split=tmp_path / "split.tif", part="test")
    assert found.leakage is None
    assert found.to_dict()["leakage"] is None


def test_areas_as_mapped(tmp_path):
    mapped, *_ = write_scene(tmp_path, (40, 31))
    found = evaluate(tmp_path / "map.tif", tmp_path / "labels.tif")
    assert not found.of_sample
    for record, value in zip(found.to_dict()["areas"], TABLE.values, strict=True):
        assert record["value"] == value
        assert record["mapped_pixels"] == (mapped == value).sum()
        assert record["mapped_hectares"] == pytest.approx((mapped == value).sum() * 0.09)
        assert "adjusted_hectares" not in record


def test_what_is_printed(tmp_path, capsys):
    mapped, *_ = write_scene(tmp_path, (90, 71), tags={"BLOCK": "10", "REACH": "20"})
    where = {"split": tmp_path / "split.tif", "part": "test"}
    found = evaluate(tmp_path / "map.tif", tmp_path / "labels.tif", **where)
    print_evaluation(found)
    out = capsys.readouterr().out
    (low, high), wood = found.intervals.kappa, found.intervals.recall[1]
    assert f"kappa {found.scores.kappa:.3f} [{low:.2f}, {high:.2f}]" in out
    assert f"[{wood.low:.2f}, {wood.high:.2f}]" in out
    assert "from 21 blocks of 10×10 map pixels" in out
    assert "leakage: 0.0% of these pixels" in out
    assert "33.3% within twice that" in out
    assert "training ground: in sight of the network" in out
    assert re.search(rf"wood +{(mapped == 2).sum() * 0.09:.2f}\n", out)
    assert "only a random sample can adjust them" in out
    print_evaluation(evaluate(tmp_path / "map.tif", tmp_path / "labels.tif", **where, block=30))
    assert "no intervals: the labels lie in 2 blocks of 30×30 map pixels, 10 at least" in capsys.readouterr().out


def test_training_says_what_evaluation_finds(quick_run, labelled_pair, tmp_path):
    with labelled_pair.open() as scene:
        predict(quick_run, scene, out=tmp_path / "map.tif")
    found = evaluate(tmp_path / "map.tif", labelled_pair.labels, split=quick_run.folder / "split.tif", part="test")
    assert found.block == quick_run.model.record.block
    assert found.leakage.to_dict() == quick_run.model.record.leakage
    assert found.leakage.holding == 0


# ---- maps without specks


def test_a_sieved_map_has_no_specks_and_keeps_what_is_invalid(tiny_model, tiny_scene, tmp_path):
    predict(tiny_model, tiny_scene, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif", device="cpu")
    more = {"probabilities": tmp_path / "q.tif", "device": "cpu"}
    predict(tiny_model, tiny_scene, out=tmp_path / "sieved.tif", sieved=5, resume=True, **more)
    (plain, grid), (smooth, own) = (read_map(tmp_path / name) for name in ("map.tif", "sieved.tif"))
    assert own == grid
    assert np.array_equal(smooth == 0, plain == 0)
    assert np.array_equal(smooth, sieve(plain, 5))
    assert not np.array_equal(smooth, plain)
    assert read_classes(tmp_path / "sieved.tif") == tiny_model.classes
    with RasterReader(tmp_path / "p.tif") as soft, RasterReader(tmp_path / "q.tif") as again:
        assert np.array_equal(soft.read(grid.window), again.read(grid.window), equal_nan=True)


def test_sieving_by_hand():
    values = np.array([[1, 1, 1, 0, 2], [1, 2, 1, 0, 1], [1, 1, 1, 0, 1], [5, 0, 0, 0, 1]], np.uint8)
    # the 2 inside goes to 1, the 5 to the 1 above it, the 2 at the right to the 1 below; 0 is no neighbour
    expected = np.array([[1, 1, 1, 0, 1], [1, 1, 1, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1]], np.uint8)
    assert np.array_equal(sieve(values, 3), expected)
    assert np.array_equal(sieve(values, 1), values)
    lonely = np.array([[0, 0, 0], [0, 7, 0], [0, 0, 0]], np.uint8)
    assert np.array_equal(sieve(lonely, 5), lonely)


def test_whether_training_ground_was_in_sight_is_told_from_the_map(tmp_path):
    """A mask that hid the training ground leaves no class there."""
    write_scene(tmp_path, (90, 71), tags={"BLOCK": "10", "REACH": "4"})
    where = {"split": tmp_path / "split.tif", "part": "test"}
    files = tmp_path / "map.tif", tmp_path / "labels.tif"
    assert evaluate(*files, **where).training_ground == "seen"
    with rasterio.open(tmp_path / "split.tif") as split:
        part = split.read(1)
    with rasterio.open(tmp_path / "map.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as written:
        written.write(np.where(part == 1, 0, written.read(1)), 1)
    found = evaluate(*files, **where)
    assert found.training_ground == found.to_dict()["training_ground"] == "hidden"
    assert evaluate(*files).training_ground is None
