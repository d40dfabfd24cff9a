"""Samples that are what they say: drawn with equal chances in each stratum, and judged as they were drawn."""

import json
import math

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from adcdnet.assess.areas import estimate
from adcdnet.assess.evaluate import evaluate
from adcdnet.assess.sample import allocate, draw_pixels, places, read_sample, sample, write_plots
from adcdnet.assess.sample_size import expected_error, points_for, smoothed, unknown
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.maps import read_map
from adcdnet.geo.raster import UNPLACED
from adcdnet.geo.raster_writer import write_raster

GRID = Grid(61, 47, Affine(30, 0, 500_000, 0, -30, 4_000_000), CRS("EPSG:32617").to_wkt())
TABLE = ClassTable.of([2, 5, 9], ["meadow", "rock", "water"])

READ = "classes of points.gpkg stand in its column 'class': meadow, rock, water"


def make_map(seed: int = 0):
    """(61, 47): a tenth without a class, the rest meadow, rock and a little water."""
    return np.random.default_rng(seed).choice([0, 2, 5, 9], GRID.shape, p=[0.1, 0.6, 0.27, 0.03]).astype(np.uint8)


@pytest.fixture
def map_path(tmp_path):
    write_raster(tmp_path / "map.tif", make_map(), GRID, classes=TABLE)
    return tmp_path / "map.tif"


def fill(path, classes):
    """Write classes (n,) into the points, None for none, as a person would in a GIS."""
    points = geopandas.read_file(path, layer="points")
    points["class"] = classes
    pyogrio.write_dataframe(points, path, layer="points", driver="GPKG")


def truth_at(drawn, truth, grid=GRID):
    """Names of the true classes of all points."""
    row, col = places(drawn, grid, "the map")
    return np.array([{2: "meadow", 5: "rock", 9: "water"}[v] for v in truth[row, col]], object)


# ---- how many points


@pytest.mark.parametrize(
    ("pixels", "n", "fewest", "counts"),
    [
        ([700, 200, 100], 100, 2, [70, 20, 10]),
        ([7000, 2000, 900, 100], 500, None, [307, 93, 50, 50]),  # 250 and 50 above the least share the 300 left
        ([7000, 2000, 1000], 60, None, [20, 20, 20]),
        ([7000, 2000, 30], 500, 50, [364, 106, 30]),  # all of a class that has fewer pixels than asked for
        ([5, 6, 2], 13, 2, [5, 6, 2]),
    ],
)
def test_points_by_hand(pixels, n, fewest, counts):
    assert allocate(np.array(pixels), n, fewest).tolist() == counts


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    pixels=st.lists(st.integers(1, 5000), min_size=1, max_size=9),
    n=st.integers(2, 3000),
    fewest=st.one_of(st.none(), st.integers(2, 60)),
)
def test_all_points_are_shared_out_and_no_class_gets_more_than_it_has(pixels, n, fewest):
    pixels = np.array(pixels)
    try:
        counts = allocate(pixels, n, fewest)
    except InputError:
        least = 2 if fewest is None else fewest
        assert n > pixels.sum() or n < least * len(pixels)
        return
    assert counts.sum() == n
    assert (counts <= pixels).all()
    assert (counts >= np.minimum(pixels, fewest or min(50, n // len(pixels)))).all()
    order = np.argsort(pixels, kind="stable")
    assert (np.diff(counts[order]) >= -1).all()  # a larger class gets no fewer, but for rounding


@pytest.mark.parametrize(
    ("n", "fewest", "message"),
    [
        (1001, None, "1001 points are asked for, the map has 1000 pixels"),
        (5, None, "5 points do not give each of 3 classes at least 2; ask for 6 points"),
        (100, 40, "100 points do not give each of 3 classes at least 40; ask for 120 points or more"),
    ],
)
def test_numbers_that_cannot_be(n, fewest, message):
    with pytest.raises(InputError, match=message):
        allocate(np.array([700, 200, 100]), n, fewest)


# ---- the draw


def test_points_are_different_pixel_centres_of_their_stratum(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=200, min_per_class=30)
    row, col = places(drawn, GRID, "the map")
    assert len(set(zip(row.tolist(), col.tolist(), strict=True))) == 200
    assert np.array_equal(make_map()[row, col], drawn.values[drawn.stratum])
    assert np.array_equal(drawn.x, 500_000 + 30 * (col + 0.5))
    assert np.array_equal(drawn.y, 4_000_000 - 30 * (row + 0.5))
    assert drawn.pixels.tolist() == [(make_map() == v).sum() for v in (2, 5, 9)]


def test_every_true_pixel_has_the_same_chance():
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]], bool)
    rng, hits = np.random.default_rng(6), np.zeros(mask.shape)
    for _ in range(600):
        row, col = draw_pixels(mask, 2, rng)
        assert (row[0], col[0]) != (row[1], col[1])
        hits[row, col] += 1
    assert hits[~mask].sum() == 0
    assert np.abs(hits[mask] - 600 * 2 / 5).max() < 45  # the standard deviation is 12


def test_the_file_does_not_tell_what_the_map_says(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=300)
    points = geopandas.read_file(tmp_path / "points.gpkg", layer="points")
    assert list(points.columns) == ["id", "class", "geometry"]
    assert points["class"].isna().all()
    assert '<field name="class">' in (tmp_path / "points.qml").read_text()  # QGIS offers the classes
    assert points["id"].tolist() == list(range(1, 301))
    changes = (np.diff(drawn.stratum) != 0).mean()  # in strata one after the other there would be two changes
    assert changes > 0.3
    assert [kind for name, kind in pyogrio.list_layers(tmp_path / "points.gpkg") if name != "points"] == [None]


@pytest.mark.parametrize("crs", ["EPSG:32617", None])
def test_the_design_is_read_back(tmp_path, crs):
    grid = Grid(*GRID.shape, GRID.transform if crs else UNPLACED, crs)
    write_raster(tmp_path / "map.tif", make_map(), grid)
    drawn = sample(tmp_path / "map.tif", tmp_path / "points.gpkg", n=120)
    back = read_sample(tmp_path / "points.gpkg")
    for name in ("x", "y", "stratum", "values", "pixels"):
        assert np.array_equal(getattr(back, name), getattr(drawn, name)), name
    places(back, read_map(tmp_path / "map.tif")[1], "the map")


def test_one_seed_one_sample(map_path, tmp_path):
    first, again, other = (
        sample(map_path, tmp_path / f"{k}.gpkg", n=99, seed=seed) for k, seed in enumerate((3, 3, 4))
    )
    assert np.array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)


# ---- judged as it was drawn


def noisy(seed: int = 1):
    """A truth that differs from the map in a fifth of its pixels."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(GRID.shape) < 0.2, rng.choice([2, 5, 9], GRID.shape), np.maximum(make_map(), 2))


def test_a_filled_sample_gives_the_stratified_estimates(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=200)
    names = truth_at(drawn, noisy())
    fill(tmp_path / "points.gpkg", names)
    found = evaluate(map_path, tmp_path / "points.gpkg")
    n = np.zeros((3, 4, 3), int)
    for h, name in zip(drawn.stratum, names, strict=True):
        n[h, h, TABLE.names.index(name)] += 1
    by_hand = estimate(n, drawn.pixels)
    assert found.of_sample
    assert found.notes == (READ,)
    assert found.confusion.tolist() == n.sum(0).T.tolist()
    assert found.scores.oa == pytest.approx(by_hand.oa.value)
    assert found.scores.precision == pytest.approx([u.value for u in by_hand.precision])
    assert found.scores.recall == pytest.approx([p.value for p in by_hand.recall])
    assert found.scores.support == tuple(n.sum((0, 1)).tolist())
    half = 1.96 * by_hand.oa.error
    assert found.intervals.oa == pytest.approx((by_hand.oa.value - half, by_hand.oa.value + half), abs=1e-5)
    records = found.to_dict()["areas"]
    for k, record in enumerate(records):
        assert record["mapped_pixels"] == drawn.pixels[k]
        assert record["mapped_hectares"] == pytest.approx(drawn.pixels[k] * 0.09)
        assert record["adjusted_hectares"] == pytest.approx(by_hand.area[k].value * drawn.pixels.sum() * 0.09)
        assert record["adjusted_hectares_error"] == pytest.approx(by_hand.area[k].error * drawn.pixels.sum() * 0.09)
    # equal parts of the points go to unequal classes: the share of right points is no accuracy of the map
    assert found.scores.oa != pytest.approx(np.trace(found.confusion) / 200, abs=0.005)


def test_a_sample_of_all_pixels_knows_all(tmp_path):
    grid = Grid(9, 7, GRID.transform, GRID.crs)
    mapped, truth = make_map()[:9, :7], noisy()[:9, :7]
    write_raster(tmp_path / "map.tif", mapped, grid, classes=TABLE)
    drawn = sample(tmp_path / "map.tif", tmp_path / "points.gpkg", n=int((mapped > 0).sum()), min_per_class=2)
    fill(tmp_path / "points.gpkg", truth_at(drawn, truth, grid))
    found = evaluate(tmp_path / "map.tif", tmp_path / "points.gpkg")
    assert found.scores.oa == pytest.approx((mapped == truth)[mapped > 0].mean())
    for (pixels, error), value in zip(found.areas.adjusted, TABLE.values, strict=True):
        assert pixels == pytest.approx((truth[mapped > 0] == value).sum())
        assert error == 0


def test_a_simple_random_sample(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=300, stratified=False)
    assert (drawn.values.tolist(), drawn.pixels.tolist()) == ([0], [(make_map() > 0).sum()])
    names = truth_at(drawn, noisy())
    fill(tmp_path / "points.gpkg", names)
    found = evaluate(map_path, tmp_path / "points.gpkg")
    share = (names == "rock").mean()
    pixels, error = found.areas.adjusted[1]
    assert pixels == pytest.approx(share * drawn.pixels[0])
    assert error == pytest.approx(math.sqrt(share * (1 - share) / 299) * drawn.pixels[0])
    assert found.scores.oa == pytest.approx(np.trace(found.confusion) / 300)
    assert found.notes == (READ,)


def test_points_without_a_class_are_left_out_and_said_to_be(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=200)
    names = truth_at(drawn, noisy())
    names[::10] = None
    fill(tmp_path / "points.gpkg", names)
    found = evaluate(map_path, tmp_path / "points.gpkg")
    assert found.confusion.sum() == 180
    assert any("180 points with a class stand for the 20 without one" in note for note in found.notes)


def test_a_class_that_few_points_are_of_is_named(map_path, tmp_path):
    """Water is drawn whole and known; outside it, three points of it are too few to say how much hides there."""
    drawn = sample(map_path, tmp_path / "p.gpkg", n=400, min_per_class=100)
    names = truth_at(drawn, make_map())
    strange = np.flatnonzero(names == "meadow")[:3]
    names[strange] = "water"
    fill(tmp_path / "p.gpkg", names)
    _, note = evaluate(map_path, tmp_path / "p.gpkg").notes
    assert "turned out to be of water (3): intervals" in note
    names[np.flatnonzero(names == "meadow")[:7]] = "water"
    fill(tmp_path / "p.gpkg", names)
    assert evaluate(map_path, tmp_path / "p.gpkg").notes == (READ.replace("points", "p"),)


def test_another_map_of_the_same_ground_may_be_judged_by_it(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=400)
    fill(tmp_path / "points.gpkg", truth_at(drawn, noisy()))
    perfect = np.where(make_map() > 0, noisy(), 0).astype(np.uint8)
    write_raster(tmp_path / "perfect.tif", perfect, GRID, classes=TABLE)
    found = evaluate(tmp_path / "perfect.tif", tmp_path / "points.gpkg")
    assert found.scores.oa == pytest.approx(1)
    assert any("not the map that the sample was drawn from" in note for note in found.notes)
    first = evaluate(map_path, tmp_path / "points.gpkg")
    assert np.array(found.areas.adjusted) == pytest.approx(np.array(first.areas.adjusted))  # the ground is the same


# ---- what does not fit


@pytest.fixture
def filled(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=150)
    fill(tmp_path / "points.gpkg", truth_at(drawn, noisy()))
    return map_path, tmp_path / "points.gpkg", drawn


def test_moved_or_added_points_are_refused(filled):
    map_path, path, drawn = filled
    row, col = places(drawn, GRID, "the map")
    free = np.argwhere(~np.isin(np.arange(61 * 47).reshape(61, 47), row * 47 + col))[:2]
    points = geopandas.read_file(path, layer="points")
    points.loc[[0, 1], "geometry"] = [
        shapely.Point(500_000 + 30 * (c + 0.5), 4_000_000 - 30 * (r + 0.5)) for r, c in free
    ]
    pyogrio.write_dataframe(points, path, layer="points", driver="GPKG")
    with pytest.raises(InputError, match="a class at 2 pixels that were not drawn"):
        evaluate(map_path, path)


def test_a_stratum_hardly_filled_in_is_refused(filled):
    map_path, path, drawn = filled
    names = truth_at(drawn, noisy())
    names[np.flatnonzero(drawn.stratum == 1)[1:]] = None
    fill(path, names)
    with pytest.raises(InputError, match=r"map's value is \[5\] fewer than two have a class"):
        evaluate(map_path, path)


def test_a_sample_and_a_split_do_not_go_together(filled, tmp_path):
    map_path, path, _ = filled
    write_raster(tmp_path / "split.tif", np.full(GRID.shape, 3, np.uint8), GRID)
    with pytest.raises(InputError, match="probability sample, which judges the whole map"):
        evaluate(map_path, path, split=tmp_path / "split.tif", part="test")


def test_a_map_of_other_ground_or_in_other_coordinates_is_refused(filled, tmp_path):
    _, path, _ = filled
    write_raster(tmp_path / "half.tif", make_map()[:30], Grid(30, 47, GRID.transform, GRID.crs), classes=TABLE)
    with pytest.raises(InputError, match=r"points of the sample lie outside the map .*half\.tif"):
        evaluate(tmp_path / "half.tif", path)
    place = Affine(30, 0, 0, 0, -30, 4_000_000)
    write_raster(tmp_path / "zone.tif", make_map(), Grid(61, 47, place, "EPSG:32618"), classes=TABLE)
    with pytest.raises(InputError, match="labels no pixel of the scene"):
        evaluate(tmp_path / "zone.tif", path)


def test_points_copied_to_another_file_are_ordinary_labels(filled, tmp_path):
    map_path, path, _ = filled
    geopandas.read_file(path, layer="points").to_file(tmp_path / "copy.gpkg")
    assert read_sample(tmp_path / "copy.gpkg") is None
    found = evaluate(map_path, tmp_path / "copy.gpkg")
    assert not found.of_sample
    assert found.areas.adjusted is None


def test_a_damaged_design_is_refused(filled):
    _, path, _ = filled
    design = geopandas.GeoDataFrame({"x": [1.0], "stratum": [2]})
    pyogrio.write_dataframe(design, path, layer="sample_design", driver="GPKG")
    with pytest.raises(InputError, match="holds a table sample_design that cannot be read"):
        read_sample(path)


def test_work_is_never_overwritten(filled):
    map_path, path, _ = filled
    before = path.read_bytes()
    with pytest.raises(InputError, match="classes may have been filled in"):
        sample(map_path, path, n=150)
    assert path.read_bytes() == before


def test_what_cannot_be_drawn_from_or_written_leaves_nothing(map_path, tmp_path):
    write_raster(tmp_path / "empty.tif", np.zeros(GRID.shape, np.uint8), GRID)
    there = set(tmp_path.iterdir())
    for source, out, message in (
        (map_path, tmp_path / "points.shp", "is no GeoPackage by its name"),
        (map_path, tmp_path / "none" / "points.gpkg", "cannot be written: No such file or directory"),
        (tmp_path / "empty.tif", tmp_path / "points.gpkg", "gives no pixel a class"),
        (tmp_path / "missing.tif", tmp_path / "points.gpkg", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            sample(source, out, n=50)
    assert set(tmp_path.iterdir()) == there


# ---- the command


def test_sample_and_evaluate_as_commands(call, map_path, tmp_path):
    points = tmp_path / "points.gpkg"
    code, out, err = call("sample", "--map", map_path, "--n", 200, "--out", points)
    assert (code, err) == (0, "")
    drawn = read_sample(points)
    for name, pixels, count in zip(TABLE.names, drawn.pixels, np.bincount(drawn.stratum), strict=True):
        row = next(line.split() for line in out.splitlines() if line.startswith(name))
        assert (row[1], row[3]) == (str(pixels), str(count))
    code, _, err = call("evaluate", "--map", map_path, "--labels", points)
    assert code == 1
    assert "none of its 200 shapes has a geometry and, in the column 'class', a class; fill that in" in err
    fill(points, truth_at(drawn, noisy()))
    code, out, err = call("evaluate", "--map", map_path, "--labels", points)
    assert (code, err) == (0, f"note: {READ}\n")
    found = evaluate(map_path, points)
    low, high = found.intervals.oa
    assert f"whole map, estimated: OA {found.scores.oa:.3f} [{low:.2f}, {high:.2f}]" in out
    for name, (pixels, error) in zip(TABLE.names, found.areas.adjusted, strict=True):
        row = [line.split() for line in out.splitlines() if line.startswith(name)][-1]
        assert row[2:] == [f"{pixels * 0.09:.2f}", f"{error * 0.09:.2f}"]
    assert "a probability sample of 200 points" in out


# ---- how many points


def test_the_expected_error_by_hand():
    """Three strata, the third drawn whole: 0.6² · 0.16 / 99 + 0.3² · 0.25 / 49."""
    pixels, points = np.array([6000, 3000, 1000]), np.array([100, 50, 1000])
    hits = np.array([0.8, 0.5, 0.9])
    assert expected_error(points, pixels, hits) == pytest.approx(math.sqrt(0.36 * 0.16 / 99 + 0.09 * 0.25 / 49))


def test_the_smallest_number_that_serves_is_taken():
    """Of one stratum: 0.16 / (n − 1) is at most 0.02² from n = 401 on."""
    pixels = np.array([10_000])
    assert points_for(0.02, pixels, np.array([0.8]), lambda n: np.array([n]), 2) == 401
    assert points_for(0.4, pixels, np.array([0.8]), lambda n: np.array([n]), 2) == 2
    for error in (0, 0.5, -0.1, float("nan")):
        with pytest.raises(InputError, match="cannot be aimed at"):
            points_for(error, pixels, np.array([0.8]), lambda n: np.array([n]), 2)


def test_what_is_expected_by_hand():
    assert smoothed(np.array([0, 9, 30]), np.array([0, 10, 30])).tolist() == [0.5, 10 / 12, 31 / 32]
    values = np.array([2, 5, 9])
    assert unknown(values, None).tolist() == [0.8] * 3
    assert unknown(values, 5) == pytest.approx([0.1, 0.8, 0.1])


def test_a_sample_for_an_error_has_it(map_path, tmp_path):
    """Estimates of many samples of the size that was found scatter by no more than was asked for."""
    truth, spread = noisy(), []
    right = (truth == make_map())[make_map() > 0].mean()
    expected = tmp_path / "evaluation.json"
    confusion = [[((truth == k) & (make_map() == j)).sum() for j in (2, 5, 9)] + [0] for k in (2, 5, 9)]
    expected.write_text(
        json.dumps({"classes": [{"value": v} for v in (2, 5, 9)], "confusion": np.array(confusion).tolist()})
    )
    for seed in range(60):
        file = tmp_path / f"{seed}.gpkg"
        drawn = sample(map_path, file, error=0.025, expected=expected, seed=seed)
        n = np.zeros((3, 4, 3), int)
        for h, name in zip(drawn.stratum, truth_at(drawn, truth), strict=True):
            n[h, h, TABLE.names.index(name)] += 1
        spread.append(estimate(n, drawn.pixels).oa.value)
    assert 100 < len(drawn.x) < 300
    assert np.mean(spread) == pytest.approx(right, abs=0.01)
    assert 0.018 < np.std(spread) < 0.028


def test_more_points_are_drawn_after_the_first(map_path, tmp_path):
    first = sample(map_path, tmp_path / "first.gpkg", n=160)
    names = truth_at(first, noisy())
    names[5] = None
    fill(tmp_path / "first.gpkg", names)
    both = sample(map_path, tmp_path / "both.gpkg", error=0.02, after=tmp_path / "first.gpkg")
    assert len(both.x) > 200
    assert np.array_equal(both.x[:160], first.x)
    points = geopandas.read_file(tmp_path / "both.gpkg", layer="points")
    assert [None if k is np.nan else k for k in points["class"][:160]] == [None if n is None else n for n in names]
    assert points["class"][160:].isna().all()
    assert len(set(zip(both.x, both.y, strict=True))) == len(both.x)
    # what the first points say of each stratum, and the number that follows
    row, col = places(first, GRID, "the map")
    known = np.array([name is not None for name in names])
    hit = known & (noisy()[row, col] == make_map()[row, col])
    hits = smoothed(*(np.bincount(first.stratum[these], minlength=3) for these in (hit, known)))
    counts = np.bincount(both.stratum, minlength=3)
    assert expected_error(counts, both.pixels, hits) <= 0.02
    assert expected_error(np.maximum(allocate(both.pixels, len(both.x) - 2), 2), both.pixels, hits) > 0.0199
    fill(tmp_path / "both.gpkg", truth_at(both, noisy()))
    assert evaluate(map_path, tmp_path / "both.gpkg").confusion.sum() == len(both.x)


def test_points_for_the_area_of_a_class(map_path, tmp_path):
    """Water is three hundredths of the map: 0.1 of the meadow may be water, which decides how many points it takes."""
    drawn = sample(map_path, tmp_path / "points.gpkg", error=0.02, of=9)
    counts, hits = np.bincount(drawn.stratum, minlength=3), unknown(np.array([2, 5, 9]), 9)
    assert expected_error(counts, drawn.pixels, hits) <= 0.02
    assert expected_error(allocate(drawn.pixels, len(drawn.x) - 3), drawn.pixels, hits) > 0.0195
    with pytest.raises(InputError, match="the map has no pixel of the value 7"):
        sample(map_path, tmp_path / "none.gpkg", error=0.02, of=7)


def test_pure_points_lie_in_ground_of_one_class(tmp_path):
    values = np.full(GRID.shape, 2, np.uint8)
    values[10:25, 5:30] = 5
    values[40, 40] = 5  # nothing around it is of its class
    write_raster(tmp_path / "map.tif", values, GRID, classes=TABLE)
    drawn = sample(tmp_path / "map.tif", tmp_path / "points.gpkg", n=200, pure=True)
    row, col = places(drawn, GRID, "the map")
    for r, c in zip(row, col, strict=True):
        assert len(np.unique(values[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2])) == 1
    assert drawn.pixels[1] == 13 * 23


def test_plots_for_collect_earth_online_lie_where_the_points_do(map_path, tmp_path):
    drawn = sample(map_path, tmp_path / "points.gpkg", n=120)
    write_plots(drawn, tmp_path / "plots.csv")
    head, first, *rest = (tmp_path / "plots.csv").read_text().splitlines()
    assert (head, len(rest)) == ("LON,LAT,PLOTID", 119)
    lon, lat, number = map(float, first.split(","))
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32617", always_xy=True).transform(lon, lat)
    assert (x, y) == pytest.approx((drawn.x[0], drawn.y[0]), abs=0.05)
    assert number == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a number of points or a standard error is needed"),
        ({"n": 100, "error": 0.1}, "one of the two"),
        ({"error": 0.05, "of": 2, "stratified": False}, "planned for by strata"),
        ({"error": 0.05, "expected": "map.tif"}, "is not what `adcdnet evaluate --json` writes"),
        ({"n": 200, "after": "map.tif"}, "is no sample that `adcdnet sample` drew"),
        ({"n": 200, "after": "empty.gpkg"}, "has no class at any point"),
        ({"n": 200, "after": "filled.gpkg", "pure": True}, "was drawn from another map than .*, or in another way"),
    ],
)
def test_plans_that_cannot_be(map_path, tmp_path, options, message):
    sample(map_path, tmp_path / "empty.gpkg", n=120)
    filled = sample(map_path, tmp_path / "filled.gpkg", n=120)
    fill(tmp_path / "filled.gpkg", truth_at(filled, noisy()))
    options = {key: tmp_path / value if isinstance(value, str) else value for key, value in options.items()}
    with pytest.raises(InputError, match=message) as caught:
        sample(map_path, tmp_path / "out.gpkg", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.gpkg").exists()
