"""Labels that are likely wrong: by hand, and planted ones found again."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from adcdnet.assess.suspects import confident, patches, suspect, write_suspects
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import Labels
from conftest import CORNER, PIXEL, UTM

TABLE = ClassTable.numbered(["field", "rock", "water"])


def test_confidence_by_hand():
    """Thresholds: field (0.9 + 0.2) / 2 = 0.55, rock (0.7 + 0.5) / 2 = 0.6, water none: nothing is surely it."""
    p = np.array([[0.9, 0.2, 0.3, 0.5], [0.1, 0.7, 0.7, 0.5], [0.0, 0.1, 0.0, 0.0]])
    assert confident(p, np.array([0, 0, 1, 1])).tolist() == [0, 1, 1, -1]
    sure_of_an_absent_class = np.array([[0.1, 0.6], [0.1, 0.4], [0.8, 0.0]])
    assert confident(sure_of_an_absent_class, np.array([0, 0])).tolist() == [-1, 0]


def test_patches_are_joined_by_edges():
    index = np.array([[0, 0, 1], [1, 0, 1], [1, 1, -1], [0, 0, 0]])
    found = patches(index)
    assert found[2, 2] == -1
    assert len({found[0, 0], found[0, 1], found[1, 1]}) == 1
    assert len({found[0, 2], found[1, 2]}) == 1
    assert len(set(found[found >= 0].tolist())) == 4  # of field two, of rock two


@pytest.fixture
def planted():
    """Polygons 0 to 11 in a row, each 3 × 4 pixels; 2 and 7 are labelled rock and are field; noisy answers."""
    rng = np.random.default_rng(2)
    true = np.repeat(np.array([0, 0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1]), 4)[None].repeat(3, 0)
    number = np.repeat(np.arange(12), 4)[None].repeat(3, 0).astype(np.int32)
    given = np.where(np.isin(number, [2, 7]), 1, true)
    logits = 3 * np.eye(3)[true].transpose(2, 0, 1) + rng.normal(0, 0.8, (3, *true.shape))
    p = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    return given.astype(np.int16), number, p


def test_planted_polygons_are_found_and_no_other(planted):
    given, number, p = planted
    found = suspect(Labels(given, TABLE, polygons=number), p)
    assert {one.number for one in found.ranked} == {2, 7}
    assert {(one.label, one.likely, one.pixels) for one in found.ranked} == {(1, 0, 12)}
    first = found.ranked[0]
    mask = number == first.number
    assert first.advantage == pytest.approx((p[0, mask] - p[1, mask]).mean(), abs=1e-6)
    assert first.advantage > found.ranked[1].advantage
    assert number[first.row, first.col] == first.number
    assert (found.judged, found.of_patches) == (12, False)


def test_pixels_without_an_answer_or_a_label_say_nothing(planted):
    given, number, p = planted
    p[:, :, 8:12] = np.nan  # of polygon 2
    given[:, 28:32] = -1  # polygon 7
    found = suspect(Labels(given, TABLE, polygons=number), p)
    assert found.ranked == ()
    assert found.judged == 10


def test_a_raster_is_judged_by_patches(planted, tmp_path):
    """The first four columns, of field, are called rock: a patch of their own beside field."""
    given, number, p = planted
    given = np.where(number == 0, 1, np.where(np.isin(number, [2, 7]), 0, given)).astype(np.int16)
    found = suspect(Labels(given, TABLE), p)
    assert found.of_patches
    assert [(one.label, one.likely, one.pixels) for one in found.ranked] == [(1, 0, 12)]
    grid = Grid(3, 48, Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1]), UTM)
    write_suspects(found, TABLE, grid, tmp_path / "suspects.gpkg")
    frame = geopandas.read_file(tmp_path / "suspects.gpkg")
    assert frame[["rank", "label", "likely", "pixels"]].to_numpy().tolist() == [[1, "rock", "field", 12]]
    assert frame.geometry[0].equals(shapely.box(CORNER[0], CORNER[1] - 3 * PIXEL, CORNER[0] + 4 * PIXEL, CORNER[1]))
    with pytest.raises(InputError, match="is no GeoPackage by its name"):
        write_suspects(found, TABLE, grid, tmp_path / "suspects.shp")


def around(row, col):
    """Cells along the four edges of a field."""
    rows, cols = slice(row, row + 5), slice(col, col + 5)
    return (row - 1, cols), (row + 5, cols), (rows, col - 1), (rows, col + 5)


def test_the_command_finds_a_mislabelled_field_in_a_run(labelled_pair, call, tmp_path):
    """One of the fields, 5 × 5 pixels of meadow, is called rock."""
    with rasterio.open(labelled_pair.labels) as raster:
        profile, values = raster.profile, raster.read(1)
    row, col = next(
        (r, c)
        for r in range(10, 70, 5)
        for c in range(10, 60, 5)
        if (labelled_pair.truth[r : r + 5, c : c + 5] == 1).all()
        and not any((labelled_pair.truth[place] == 2).any() for place in around(r, c))
    )
    values[row : row + 5, col : col + 5][values[row : row + 5, col : col + 5] > 0] = 2
    wrong = tmp_path / "labels.tif"
    with rasterio.open(wrong, "w", **profile) as raster:
        raster.write(values, 1)
    where = ("--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--classes", labelled_pair.classes)
    run = tmp_path / "run"
    code, _, err = call("train", *where, "--labels", wrong, "--members", "boosting", "--folds", "3", "--out", run)
    assert code == 0, err
    code, out, err = call("check", "--run", run, "--out", tmp_path / "s.gpkg", "--json", tmp_path / "s.json")
    assert code == 0, err
    first = json.loads((tmp_path / "s.json").read_text())["suspects"][0]
    assert (first["label"], first["likely"]) == ("rock", "meadow")
    assert row <= first["row"] < row + 5
    assert col <= first["col"] < col + 5
    assert len(geopandas.read_file(tmp_path / "s.gpkg")) == int(out.split(" of ")[-2].split()[-1])
    code, _, err = call("check", "--run", run, "--ms", labelled_pair.ms)
    assert (code, "a run names its own images" in err) == (2, True)


def test_a_run_of_one_split_has_no_answers_to_all_labels(quick_run, call):
    code, _, err = call("check", "--run", quick_run.folder)
    assert code == 1
    assert "it was trained with one split; train with --folds 5" in " ".join(err.split())
