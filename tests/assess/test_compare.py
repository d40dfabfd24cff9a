"""Two maps compared: transitions by hand, and areas of change that a sample tells where the maps do not."""

import geopandas
import numpy as np
import pyogrio
import pytest
from affine import Affine
from pyproj import CRS

from adcdnet.assess.compare import compare, transitions_of
from adcdnet.assess.sample import places, sample
from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.maps import read_classes, read_map
from adcdnet.geo.raster import same_crs
from adcdnet.geo.raster_writer import write_raster

GRID = Grid(61, 47, Affine(30, 0, 500_000, 0, -30, 4_000_000), CRS("EPSG:32617").to_wkt())
TABLE = ClassTable.of([2, 5, 9], ["meadow", "rock", "water"])


@pytest.fixture
def write_map(tmp_path):
    def write(name, values, grid=GRID, classes=TABLE):
        write_raster(tmp_path / name, values.astype(np.uint8), grid, classes=classes)
        return tmp_path / name

    return write


def test_transitions_by_hand(write_map, tmp_path):
    grid = Grid(2, 4, GRID.transform, GRID.crs)
    first = write_map("a.tif", np.array([[2, 2, 5, 9], [9, 0, 2, 0]]), grid)
    second = write_map("b.tif", np.array([[2, 5, 5, 2], [9, 2, 0, 0]]), grid)
    found = compare(first, second, tmp_path / "change.tif")
    assert found.matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert found.without == 2  # one map has a class there, the other none
    assert found.pixel.hectares == pytest.approx(0.09)
    values, written = read_map(tmp_path / "change.tif")
    assert written.transform == grid.transform
    assert same_crs(written.crs, grid.crs) == grid.crs
    assert values.tolist() == [[1, 2, 5, 7], [9, 0, 0, 0]]
    table = read_classes(tmp_path / "change.tif")
    assert table.names[:4] == ("meadow", "meadow → rock", "meadow → water", "rock → meadow")
    assert [table.colors[k] for k in (0, 4, 8)] == list(TABLE.colors)
    assert len(set(table.colors)) == 9


def test_areas_of_change_come_from_a_sample_and_not_from_the_maps(write_map, tmp_path):
    """A tenth of the meadow truly became rock. Both maps err in a tenth of their pixels and call three times as much
    changed; the sample tells the truth within its standard errors."""
    rng = np.random.default_rng(4)
    before = rng.choice([2, 5, 9], GRID.shape, p=[0.6, 0.3, 0.1])
    after = np.where((before == 2) & (rng.random(GRID.shape) < 0.1), 5, before)
    mapped = [np.where(rng.random(GRID.shape) < 0.1, rng.choice([2, 5, 9], GRID.shape), x) for x in (before, after)]
    first, second = (write_map(name, values) for name, values in zip("ab", mapped, strict=True))
    change = tmp_path / "change.tif"
    found = compare(first, second, change)
    truly = (before != after).mean()
    assert 1 - found.matrix.trace() / found.matrix.sum() > 2 * truly
    drawn = sample(change, tmp_path / "points.gpkg", n=700, seed=1)
    row, col = places(drawn, GRID, "the map")
    pairs = [(a, b) for a in (2, 5, 9) for b in (2, 5, 9)]
    names = dict(zip(pairs, transitions_of(TABLE).names, strict=True))
    points = geopandas.read_file(tmp_path / "points.gpkg", layer="points")
    points["class"] = [names[pair] for pair in zip(before[row, col].tolist(), after[row, col].tolist(), strict=True)]
    pyogrio.write_dataframe(points, tmp_path / "points.gpkg", layer="points", driver="GPKG")
    judged = compare(first, second, change, sample=tmp_path / "points.gpkg")
    assert judged.changed.value == pytest.approx(truly, abs=2.5 * judged.changed.error)
    assert 0.005 < judged.changed.error < 0.03
    became = judged.evaluation.classes.names.index("meadow → rock")
    pixels, error = judged.evaluation.areas.adjusted[became]
    assert pixels == pytest.approx(((before == 2) & (after == 5)).sum(), abs=2.5 * error)
    # the only true change: both estimates are one
    assert judged.changed.value * before.size == pytest.approx(pixels)
    assert judged.changed.error * before.size == pytest.approx(error)
    assert judged.to_dict()["changed_share"]["value"] == judged.changed.value
    # of points that were not drawn by the transitions nothing is said of the sum: their weights are others
    simple = sample(change, tmp_path / "simple.gpkg", n=700, stratified=False)
    row, col = places(simple, GRID, "the map")
    points = geopandas.read_file(tmp_path / "simple.gpkg", layer="points")
    points["class"] = [names[pair] for pair in zip(before[row, col].tolist(), after[row, col].tolist(), strict=True)]
    pyogrio.write_dataframe(points, tmp_path / "simple.gpkg", layer="points", driver="GPKG")
    other = compare(first, second, change, sample=tmp_path / "simple.gpkg")
    assert other.changed is None
    assert other.evaluation.areas.adjusted[became][0] == pytest.approx(pixels, rel=0.5)


def test_what_cannot_be_compared_is_refused_in_one_line(write_map, tmp_path):
    ones = np.full(GRID.shape, 2)
    first = write_map("a.tif", ones)
    moved = Grid(61, 47, GRID.transform @ Affine.translation(0.5, 0), GRID.crs)
    many = ClassTable.numbered([f"c{k}" for k in range(16)])
    points = tmp_path / "points.gpkg"
    frame = geopandas.GeoDataFrame({"class": ["meadow"]}, geometry=geopandas.points_from_xy([500_100], [3_999_900]))
    frame.set_crs("EPSG:32617").to_file(points)
    for second, options, message in (
        (write_map("moved.tif", ones, moved), {}, r"do not lie on each other: 61×47 pixels from \(500000, 4000000\)"),
        (write_map("bare.tif", ones, classes=None), {}, "carries no class names"),
        (
            write_map("other.tif", ones, classes=ClassTable.of([2, 5], ["meadow", "rock"])),
            {},
            "one class table for both",
        ),
        (write_map("empty.tif", ones * 0), {}, "no pixel has a class in both"),
        (first, {"sample": points}, "is no sample that `adcdnet sample` drew"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            compare(first, second, tmp_path / "change.tif", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="16 classes have 256 transitions"):
        transitions_of(many)
