"""Places to label next, by hand: unsure, unlike, rare, spread out, and never where labels are."""

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

from adcdnet.assess.suggest import suggest, write_places
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import read_band
from conftest import CORNER, PIXEL, QUICK, UTM, write_tif_file

TABLE = ClassTable.numbered(["field", "rock", "water"])
SHAPE = (31, 47)


def sure(which=0, p=0.95):
    """Probabilities of a map that is all one class."""
    found = np.full((3, *SHAPE), (1 - p) / 2, np.float32)
    found[which] = p
    return found


def unsure(p, row, col, side=5, pair=(0, 1)):
    """Make a square of a map doubtful between two classes."""
    square = slice(row, row + side), slice(col, col + side)
    p[:, *square] = 0.02
    p[pair[0], *square], p[pair[1], *square] = 0.52, 0.46
    return p


def at(places):
    return [(place.row, place.col) for place in places]


def test_the_least_sure_square_comes_first_and_says_why():
    (place,) = suggest(unsure(sure(), 12, 20), TABLE, n=1)
    assert (place.row, place.col) == (12, 20)
    assert place.worth == pytest.approx(1 - 0.52, abs=1e-4)  # with no labels, classes are as rare as each other
    assert place.reason == "field 0.52 or rock 0.46"


def test_labelled_ground_and_ground_without_a_class_are_left_out():
    p = unsure(unsure(sure(), 12, 20), 3, 30, pair=(0, 2))
    labelled = np.full(SHAPE, -1, np.int16)
    labelled[14, 22] = 0
    labelled[0, 0] = 1
    (place,) = suggest(p, TABLE, n=1, labelled=labelled)
    assert (place.row, place.col) == (3, 30)
    p[:, 5, 32] = np.nan
    (place,) = suggest(p, TABLE, n=1, labelled=labelled)
    square = slice(place.row, place.row + 5), slice(place.col, place.col + 5)
    assert (labelled[square] < 0).all()
    assert np.isfinite(p[0][square]).all()


def test_a_class_with_few_labels_is_worth_more():
    """Two squares as doubtful, one mapped as water, which a hundredth of the labels are: 1 / √0.03."""
    p = unsure(unsure(sure(), 12, 20), 12, 35, pair=(2, 1))
    labelled = np.full(SHAPE, -1, np.int16)
    labelled[0, :40] = 0
    labelled[1:3, :29] = 0
    labelled[3, 0] = 2
    (place,) = suggest(p, TABLE, n=1, labelled=labelled)
    assert (place.row, place.col) == (12, 35)
    assert place.worth == pytest.approx(0.48 / np.sqrt(3 * 1 / 99), rel=1e-3)
    assert "few labels of water (1 pixels)" in place.reason


def test_ground_unlike_all_labels_is_worth_twice():
    p = unsure(unsure(sure(), 12, 10), 12, 35)
    trust = np.stack([np.full(SHAPE, 0.3), 1 - p.max(0)]).astype(np.float32)
    trust[0, 12:17, 35:40] = 1.6
    (place,) = suggest(p, TABLE, n=1, trust=trust)
    assert (place.row, place.col) == (12, 35)
    assert place.worth == pytest.approx(2 * 0.48, rel=1e-3)
    assert "unlike all labels (1.6 times the threshold)" in place.reason


def test_places_are_spread_and_of_several_classes():
    """One large doubtful patch and two small ones of other classes: three chosen places are not all in the first."""
    p = sure()
    for row in range(2, 22, 5):
        for col in range(2, 22, 5):
            unsure(p, row, col)
    unsure(p, 3, 38, pair=(1, 0))
    unsure(p, 24, 38, pair=(2, 1))
    places = suggest(p, TABLE, n=6)[:3]
    in_large = [place for place in places if place.col < 22]
    assert len(in_large) == 1
    assert {(3, 38), (24, 38)} <= set(at(places))
    many = suggest(p, TABLE, n=12)
    corners = np.array(at(many))
    gaps = np.abs(corners[:, None] - corners).max(2) + 99 * np.eye(len(many))
    assert gaps.min() >= 5  # none on another


def test_half_of_the_places_are_drawn_at_random():
    p = unsure(sure(), 12, 20)
    labelled = np.full(SHAPE, -1, np.int16)
    labelled[:, 40:] = 0
    first, again, other = (suggest(p, TABLE, n=9, labelled=labelled, seed=seed) for seed in (0, 0, 1))
    drawn = [place for place in first if place.reason.startswith("drawn at random")]
    assert (len(first), len(drawn)) == (9, 4)
    assert at(first) == at(again)
    assert at(first[:5]) == at(other[:5])
    assert at(first[5:]) != at(other[5:])
    for place in drawn:
        assert (labelled[place.row : place.row + 5, place.col : place.col + 5] < 0).all()


def test_fewer_places_where_there_is_no_room_and_none_where_there_is_nothing():
    p = np.full((3, *SHAPE), np.nan, np.float32)
    p[:, 3:9, 4:10] = np.array([0.5, 0.3, 0.2], np.float32)[:, None, None]
    assert 1 <= len(suggest(p, TABLE, n=9)) <= 2
    with pytest.raises(InputError, match="no square of 7×7 pixels is left to label"):
        suggest(p, TABLE, n=1, side=7)
    with pytest.raises(InputError, match="no square of 60×60 pixels"):
        suggest(p, TABLE, n=1, side=60)
    with pytest.raises(InputError, match="at least 1 of each"):
        suggest(p, TABLE, n=0)


def test_places_are_written_as_squares_to_fill_in(tmp_path):
    places = suggest(unsure(sure(), 12, 20), TABLE, n=1)
    grid = Grid(*SHAPE, Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1]), UTM)
    write_places(places, 5, grid, TABLE, tmp_path / "next.gpkg")
    assert 'name="water" value="water"' in (tmp_path / "next.qml").read_text()  # QGIS offers the classes
    frame = geopandas.read_file(tmp_path / "next.gpkg")
    assert frame["class"].isna().all()
    assert frame["reason"].tolist() == ["field 0.52 or rock 0.46"]
    left, top = CORNER[0] + 20 * PIXEL, CORNER[1] - 12 * PIXEL
    assert frame.geometry[0].equals(shapely.box(left, top - 5 * PIXEL, left + 5 * PIXEL, top))


@pytest.mark.usefixtures("few_trials")
def test_the_loop_label_train_suggest_never_proposes_what_is_labelled(labelled_pair, call, tmp_path):
    """Twice around: places of a run are labelled, a training begins from it with both files, and asks again."""
    kept, _, _ = read_band(labelled_pair.labels)
    kept[:, 40:] = 0  # the rest can be suggested
    start = write_tif_file(tmp_path / "labels.tif", kept)
    labels = ["--labels", start]
    where = ["--ms", labelled_pair.ms, "--pan", labelled_pair.pan, "--classes", labelled_pair.classes]
    settings = tmp_path / "settings.toml"
    quick = {**QUICK, "split": {"block": 16, "folds": 3}}
    settings.write_bytes(TrainConfig.of_profile("patch").replace(quick).to_toml().encode())
    names = dict(zip((1, 2, 4), ("meadow", "rock", "water"), strict=True))
    before: list[str] = []
    taken = np.zeros(kept.shape, int)
    for turn in range(2):
        run, out = tmp_path / f"run{turn}", tmp_path / f"next{turn}.gpkg"
        code, _, err = call("train", *where, *labels, "--config", settings, *before, "--jobs", "1", "--out", run)
        assert code == 0, err
        code, _, err = call("suggest", run, "--n", "8", "--side", "3", "--out", out)
        assert code == 0, err
        frame = geopandas.read_file(out)
        assert len(frame) == 8
        corners = [
            (round((CORNER[1] - shape.bounds[3]) / PIXEL), round((shape.bounds[0] - CORNER[0]) / PIXEL))
            for shape in frame.geometry
        ]
        for r, c in corners:
            taken[r : r + 3, c : c + 3] += 1
            assert not kept[r : r + 3, c : c + 3].any()
        frame["class"] = [names[int(labelled_pair.truth[r + 1, c + 1])] for r, c in corners]
        frame.to_file(out, layer="places", driver="GPKG")
        labels += ["--labels", out]
        before = ["--init", run]
    assert taken.max() == 1  # no place was proposed twice, nor beside another where they would overlap
    assert taken.sum() == 2 * 8 * 9
