"""Labels from rasters on every grid that fits, and from polygons, against small cases worked out by hand."""

import json
import shutil
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
from scipy.io import netcdf_file
from shapely.geometry import GeometryCollection, LineString, MultiPoint, Point, Polygon, box

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Scene
from adcdnet.geo.shares import overlaps
from conftest import CORNER, PIXEL, UTM, UTM_SPELT, write_vrt_file

TABLE = ClassTable((1, 3, 7), ("forest", "rock", "water"), ("#00ff00", "#808080", "#0000ff"))


@pytest.fixture
def scene(tiny_pair):
    """13 × 11 MS pixels, ratio 2."""
    with Scene.open(*tiny_pair(ratio=2)) as opened:
        yield opened


@pytest.fixture
def codes():
    """Values 0, 1, 3 and 7 on the 13 × 11 MS pixels."""
    return np.random.default_rng(5).choice([0, 1, 3, 7], (13, 11)).astype(np.uint8)


def at(row, col):
    """The ground of a corner of MS pixel (row, col)."""
    return CORNER[0] + col * PIXEL, CORNER[1] - row * PIXEL


def block(row, col, height, width):
    """A rectangle in MS pixels of the scene."""
    (left, top), (right, bottom) = at(row, col), at(row + height, col + width)
    return box(left, bottom, right, top)


@pytest.fixture
def write_shapes(tmp_path):
    """write_shapes([(class, geometry), ...]) -> path."""

    def write(rows, file="shapes.gpkg", crs=UTM, column="class", **columns):
        data = {column: [key for key, _ in rows]} | columns
        frame = geopandas.GeoDataFrame(data, geometry=[shape for _, shape in rows], crs=crs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            frame.to_file(tmp_path / file)
        return tmp_path / file

    return write


FOREST, WATER = ("forest", block(0, 0, 4, 5)), ("water", block(6, 2, 3, 7))
INDEX = np.full((13, 11), -1)  # what these two label, in classes 0 and 1
INDEX[0:4, 0:5], INDEX[6:9, 2:9] = 0, 1


def one_line(caught):
    return "\n" not in str(caught.value)


# ---- rasters


def test_a_raster_on_the_ms_grid_gives_the_index_of_each_value(scene, codes, write_tif):
    labels = read_labels(write_tif("labels.tif", codes), scene.grid, classes=TABLE)
    assert np.array_equal(labels.index, np.select([codes == 1, codes == 3, codes == 7], [0, 1, 2], -1))
    assert labels.index.dtype == np.int16
    assert (labels.classes, labels.notes, labels.polygons) == (TABLE, (), None)


def test_the_same_coordinate_system_may_be_spelt_otherwise(scene, codes, write_tif):
    labels = read_labels(write_vrt_file(write_tif("labels.tif", codes), crs=UTM_SPELT), scene.grid, classes=TABLE)
    assert np.array_equal(labels.index >= 0, codes > 0)


def test_without_a_table_the_values_found_are_the_classes(scene, codes, write_tif):
    labels = read_labels(write_tif("labels.tif", codes), scene.grid)
    assert labels.classes == ClassTable.of((1, 3, 7), ("1", "3", "7"))


@pytest.mark.parametrize(("min_share", "labelled"), [(None, (1, 1, 0, 0)), (0.75, (1, 0, 0, 0)), (0.2, (1, 1, 0, 1))])
def test_a_pixel_has_the_class_that_covers_most_of_it(scene, write_tif, min_share, labelled):
    """Fine pixels on four MS pixels: three of class 1; two of it and two unlabelled; two against two; one alone."""
    fine = np.full((26, 22), 3, np.uint8)
    cells = [[[1, 1], [1, 3]], [[1, 1], [0, 0]], [[1, 1], [3, 3]], [[1, 0], [0, 0]]]
    for col, cell in enumerate(cells):
        fine[6:8, 2 * col : 2 * col + 2] = cell
    path = write_tif("labels.tif", fine, pixel=PIXEL / 2)
    labels = read_labels(path, scene.grid, classes=TABLE, min_share=min_share)
    expected = np.ones((13, 11))
    expected[3, :4] = np.array(labelled) - 1
    assert np.array_equal(labels.index, expected)


def test_a_raster_whose_edges_miss_labels_by_the_ground_it_covers(scene, write_tif):
    """0.4 of a pixel further right and down: an MS pixel lies on 0.36, 0.24 and 0.16 of others."""
    codes = np.random.default_rng(3).choice([1, 3, 7], (13, 11)).astype(np.uint8)
    path = write_tif("labels.tif", codes, corner=at(0.4, 0.4))
    labels = read_labels(path, scene.grid, classes=TABLE, min_share=0.5)
    expected = np.full((13, 11), -1)
    for row, col in np.ndindex(13, 11):
        share = dict.fromkeys((1, 3, 7), 0.0)
        for down, right in np.ndindex(2, 2):
            if row >= down and col >= right:
                share[codes[row - down, col - right]] += (0.4 if down else 0.6) * (0.4 if right else 0.6)
        best = max(share, key=share.get)
        if share[best] >= 0.5:
            expected[row, col] = (1, 3, 7).index(best)
    assert (expected >= 0).any()
    assert (expected < 0).any()
    assert np.array_equal(labels.index, expected)
    assert labels.notes[0] == (
        "pixel edges of labels.tif do not meet those of the scene; a pixel is labelled by what covers it"
    )


@pytest.mark.parametrize("ratio", [1.5, 2.5])
def test_a_ratio_that_is_not_whole_will_do(scene, write_tif, ratio):
    size = (int(13 * ratio), int(11 * ratio))
    codes = np.random.default_rng(4).choice([1, 3], size, p=[0.8, 0.2]).astype(np.uint8)
    labels = read_labels(write_tif("labels.tif", codes, pixel=PIXEL / ratio), scene.grid, classes=TABLE)
    fine = codes.repeat(20, axis=0).repeat(20, axis=1)  # an MS pixel is 20 · ratio of these
    side = int(20 * ratio)
    for row, col in np.ndindex(*(n * 20 // side for n in size)):
        cell = fine[row * side : (row + 1) * side, col * side : (col + 1) * side]
        share = (cell == 1).mean()
        assert labels.index[row, col] == (-1 if share == 0.5 else 0 if share > 0.5 else 1)


def test_coarse_labels_label_the_finer_pixels_in_them_and_that_is_said(scene, codes, write_tif):
    path = write_tif("labels.tif", codes)
    labels = read_labels(path, scene.fine_grid, classes=TABLE)
    index = np.select([codes == 1, codes == 3, codes == 7], [0, 1, 2], -1)
    assert np.array_equal(labels.index, index.repeat(2, axis=0).repeat(2, axis=1))
    assert labels.notes == (
        "pixels of labels.tif (12 wide) are larger than those that they label (6); classes end where its pixels end",
    )


def test_labels_in_another_coordinate_system_are_looked_up(scene, write_tif):
    """One class north of a parallel that goes through MS row 6 and another south of it, in degrees."""
    to_degrees = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform
    west, parallel = to_degrees(*at(6.5, -1))
    codes = np.array([[1], [3]], np.uint8)
    wide = {"crs": "EPSG:4326", "pixel": 0.01}
    path = write_tif("labels.tif", codes, corner=(west, parallel + 0.01), **wide)
    labels = read_labels(path, scene.grid, classes=TABLE)
    assert (labels.index[:6] == 0).all()
    assert (labels.index[7:] == 1).all()
    assert labels.notes[0].startswith("labels.tif is in another coordinate system or turned")
    beside = write_tif("west.tif", codes, corner=(west - 0.01, parallel + 0.01), **wide)
    with pytest.raises(InputError, match="labels no pixel of the scene"):
        read_labels(beside, scene.grid, classes=TABLE)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 8])
def test_any_grid_whose_pixels_fill_ms_pixels_will_do(scene, codes, write_tif, ratio):
    fine = codes.repeat(ratio, axis=0).repeat(ratio, axis=1)
    labels = read_labels(write_tif("labels.tif", fine, pixel=PIXEL / ratio), scene.grid, classes=TABLE)
    assert np.array_equal(labels.index, np.select([codes == 1, codes == 3, codes == 7], [0, 1, 2], -1))


def test_a_whole_ms_grid_is_cut_to_the_common_extent_as_the_scene_is(codes, write_tif, tiny_pair):
    ms, _ = tiny_pair()
    pan = write_tif("small.tif", np.ones((19, 17), np.uint8), pixel=PIXEL / 2, corner=at(1.5, 2))
    on_ms, on_pan = write_tif("on_ms.tif", codes), codes.repeat(2, axis=0).repeat(2, axis=1)[3:22, 4:21]
    with Scene.open(ms, pan) as scene:
        assert scene.grid.shape == (9, 8)  # MS pixels (2, 2) to (10, 9)
        labels = read_labels(on_ms, scene.grid, classes=TABLE)
        inside = codes[2:11, 2:10]
        assert np.array_equal(labels.index, np.select([inside == 1, inside == 3, inside == 7], [0, 1, 2], -1))
        fine = read_labels(write_tif("fine.tif", on_pan, pixel=PIXEL / 2, corner=at(1.5, 2)), scene.grid, classes=TABLE)
        assert np.array_equal(fine.index, labels.index)


def test_a_raster_of_a_part_leaves_the_rest_unlabelled_and_says_so(scene, codes, write_tif):
    labels = read_labels(write_tif("part.tif", codes[2:9, 3:7], corner=at(2, 3)), scene.grid, classes=TABLE)
    whole = np.zeros_like(codes)
    whole[2:9, 3:7] = codes[2:9, 3:7]
    assert np.array_equal(labels.index >= 0, whole > 0)
    assert labels.notes == ("part.tif covers 7×4 of the scene's MS pixels",)


def test_images_without_a_place_take_labels_by_their_size(write_tif, codes):
    fine = codes.repeat(2, axis=0).repeat(2, axis=1)
    nowhere = {"pixel": 0, "crs": None}
    ms, pan = write_tif("ms.tif", codes, **nowhere), write_tif("pan.tif", fine, **nowhere)
    with Scene.open(ms, pan) as scene:
        assert np.array_equal(read_labels(ms, scene.grid).index, read_labels(pan, scene.grid).index)
        assert np.array_equal(read_labels(ms, scene.grid).index >= 0, codes > 0)


@pytest.mark.parametrize("shape", [(5, 11), (16, 11), (26, 23)])
def test_labels_without_a_place_must_have_a_size_that_fits(write_tif, shape):
    ms = write_tif("ms.tif", np.ones((13, 11), np.uint8), pixel=0, crs=None)
    pan = write_tif("pan.tif", np.ones((26, 22), np.uint8), pixel=0, crs=None)
    values = np.random.default_rng(0).choice([1, 3], shape).astype(np.uint8)
    labels = write_tif("labels.tif", values, pixel=0, crs=None)
    says = rf"does not say where it lies, and its {shape[0]}×{shape[1]} pixels are no whole multiple of .* 13×11; give"
    with Scene.open(ms, pan) as scene, pytest.raises(InputError, match=says) as caught:
        read_labels(labels, scene.grid)
    assert one_line(caught)


@pytest.mark.parametrize(
    ("dtype", "empty", "nodata"),
    [("uint8", 255, 255), ("int16", -9999, -9999), ("float32", np.nan, None), ("float64", -1e300, -1e300)],
)
def test_the_nodata_value_is_no_label_and_whole_numbers_may_be_floats(scene, codes, write_tif, dtype, empty, nodata):
    values = codes.astype(dtype)
    values[codes == 0] = empty
    values[0, 0] = 0  # 0 is no class, whatever the nodata value
    codes[0, 0] = 0
    labels = read_labels(write_tif("labels.tif", values, nodata=nodata), scene.grid, classes=TABLE)
    assert np.array_equal(labels.index >= 0, codes > 0)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (
            lambda a: a * 2,
            {},
            r"holds the classes \['2', '6', '14'\], which the class table has not \(.* values \[1, 3, 7\]\)",
        ),
        (lambda a: a * 0, {}, "labels no pixel"),
        (lambda a: a * 0 + 9, {"nodata": 9}, "labels no pixel"),
        (lambda a: a / np.float32(2), {}, "not whole numbers"),
        (lambda a: a * np.int16(100), {}, r"holds the classes \['100', '300', '700'\]"),
        (
            lambda a: a.astype(np.int16) - 1,
            {},
            "values from -1 to 6; class values must be whole numbers above 0; declare others as nodata",
        ),
        (lambda a: a.astype(np.complex64), {}, "not whole numbers"),
        (lambda a: a, {"crs": "EPSG:32634"}, "labels no pixel"),
        (lambda a: a, {"crs": None}, r"labels\.tif has none"),
        (lambda a: a, {"corner": at(50, 0)}, r"the scene and labels\.tif have no ground in common"),
        (lambda a: np.stack([a, a]), {}, "has 2 bands"),
    ],
)
def test_rasters_that_are_no_labels_of_the_scene_are_refused(scene, codes, write_tif, change, options, said):
    with pytest.raises(InputError, match=said) as caught:
        read_labels(write_tif("labels.tif", change(codes), **options), scene.grid, classes=TABLE)
    assert one_line(caught)


def test_a_scene_may_show_one_class_of_a_table(scene, codes, write_tif):
    """The other scenes of a training may have the rest; alone it cannot be learnt from."""
    rock = write_tif("rock.tif", (codes == 3) * np.uint8(3))
    labels = read_labels(rock, scene.grid, classes=TABLE)
    assert np.unique(labels.index).tolist() == [-1, TABLE.values.index(3)]
    with pytest.raises(InputError, match="labels only the class '3' in this scene; two classes at least") as caught:
        read_labels(rock, scene.grid)
    assert one_line(caught)


# ---- polygons


@pytest.mark.parametrize("name", ["shapes.gpkg", "shapes.shp", "shapes.fgb"])
def test_polygons_label_the_pixels_whose_centre_they_hold(scene, write_shapes, name):
    forest = ("forest", block(-0.4, -3, 4.4 + 0.45, 3 + 4.55))  # to (4.45, 4.55): centres up to row 3, column 4
    labels = read_labels(write_shapes([WATER, forest], name), scene.grid)
    assert np.array_equal(labels.index, INDEX)
    assert labels.classes == ClassTable.numbered(["forest", "water"])  # alphabetical, whatever their order
    assert np.array_equal(labels.polygons, np.select([INDEX == 1, INDEX == 0], [0, 1], -1))
    assert labels.polygons.dtype == np.int32
    assert labels.notes == (f"classes of {name} stand in its column 'class': forest, water",)


def test_names_or_values_of_a_table_may_be_in_the_column(scene, write_shapes):
    by_name = read_labels(write_shapes([FOREST, WATER]), scene.grid, classes=TABLE)
    assert by_name.classes == TABLE
    assert np.array_equal(by_name.index, INDEX + (INDEX == 1))  # water is class 2 of the table
    for numbers in ([1, 7], [1.0, 7.0], ["1", "7"], ["1.0", "7."]):
        rows = list(zip(numbers, (FOREST[1], WATER[1]), strict=True))
        by_value = read_labels(write_shapes(rows), scene.grid, classes=TABLE)
        assert np.array_equal(by_value.index, by_name.index)


def test_numbers_without_a_table_keep_their_value(scene, write_shapes):
    for ten, nine in (("10", "9"), (10.0, 9.0), ("10.0", "9.00")):
        labels = read_labels(write_shapes([(ten, FOREST[1]), (nine, WATER[1])]), scene.grid)
        assert labels.classes == ClassTable.of((9, 10), ("9", "10"))
        assert np.array_equal(labels.index, np.select([INDEX == 0, INDEX == 1], [1, 0], -1))


@pytest.mark.parametrize("codes", [(0, 1, 2), (112, 231, 312), (-1, 3, 40000), (0.0, 1.0, 254.0)])
def test_numbers_that_no_map_can_hold_are_classes_named_by_them(scene, write_shapes, codes):
    rows = list(zip((codes[2], codes[1], codes[0]), (FOREST[1], WATER[1], block(10, 0, 2, 2)), strict=True))
    labels = read_labels(write_shapes(rows), scene.grid)
    expected = np.select([INDEX == 0, INDEX == 1], [2, 1], -1)
    expected[10:12, 0:2] = 0
    assert np.array_equal(labels.index, expected)
    names = [str(int(code)) for code in codes]
    assert labels.classes == ClassTable.numbered(names)
    pairs = f"1 for {names[0]}, 2 for {names[1]}, 3 for {names[2]}"
    assert labels.notes[-1] == (
        f"classes of shapes.gpkg that lie outside 1..255 cannot be values of a map, which will have {pairs}"
    )


def test_zero_that_a_table_lacks_is_refused_and_counts_where_it_names_it(scene, write_shapes):
    path = write_shapes([(1, FOREST[1]), (0, WATER[1])])
    with pytest.raises(InputError, match=r"holds the classes \['0'\], which the class table has not"):
        read_labels(path, scene.grid, classes=TABLE)
    named = ClassTable((1, 2), ("0", "1"), ("#00ff00", "#0000ff"))
    coded = ClassTable((1, 2), ("water", "wood"), ("#00ff00", "#0000ff"), codes=(0, 1))
    for table in (named, coded):
        assert np.array_equal(read_labels(path, scene.grid, classes=table).index, np.where(INDEX >= 0, 1 - INDEX, -1))


def test_codes_of_a_raster_are_classes_by_a_table_or_without_one(scene, codes, write_tif):
    corine = np.select([codes == 1, codes == 3, codes == 7], [112, 231, 312]).astype(np.uint16)
    path = write_tif("corine.tif", corine)
    index = np.select([codes == 1, codes == 3, codes == 7], [0, 1, 2], -1)
    labels = read_labels(path, scene.grid)
    assert labels.classes == ClassTable.numbered(["112", "231", "312"])
    assert "1 for 112, 2 for 231, 3 for 312" in labels.notes[-1]
    coded = ClassTable((1, 2, 3), ("town", "field", "wood"), ("#000000",) * 3, codes=(112, 231, 312))
    named = ClassTable((1, 2, 3), ("112", "231", "312"), ("#000000",) * 3)
    for table in (coded, named):
        assert np.array_equal(read_labels(path, scene.grid, classes=table).index, index)
    assert np.array_equal(labels.index, index)


def test_zero_in_a_raster_is_a_class_where_another_nodata_value_is_declared(scene, codes, write_tif):
    labels = read_labels(
        write_tif("labels.tif", np.where(codes == 7, 255, codes).astype(np.uint8), nodata=255), scene.grid
    )
    assert labels.classes == ClassTable.numbered(["0", "1", "3"])
    assert np.array_equal(labels.index, np.select([codes == 0, codes == 1, codes == 3], [0, 1, 2], -1))
    named = read_labels(write_tif("labels.tif", codes, nodata=255), scene.grid, classes=TABLE)
    assert np.array_equal(named.index >= 0, codes > 0)
    assert named.notes == (
        f"{(codes == 0).sum()} pixels of labels.tif have the value 0, which is no class here; they are unlabelled",
    )


def test_numbers_that_are_names_and_values_are_names_and_that_is_said(scene, write_shapes):
    table = ClassTable((1, 2, 3), ("0", "1", "2"), ("#000000",) * 3)
    labels = read_labels(write_shapes([(1, FOREST[1]), (2, WATER[1])]), scene.grid, classes=table)
    assert np.array_equal(labels.index, np.where(INDEX >= 0, INDEX + 1, -1))
    assert labels.notes[-1] == "the numbers in shapes.gpkg are taken for names of classes, not for their values"
    labels = read_labels(write_shapes([(1, FOREST[1]), (3, WATER[1])]), scene.grid, classes=table)
    assert np.array_equal(labels.index, np.where(INDEX >= 0, 2 * INDEX, -1))
    assert labels.notes[-1] == "the numbers in shapes.gpkg are taken for values of classes, not for their names"


def test_names_with_a_point_that_the_table_knows_are_names(scene, write_shapes):
    table = ClassTable((5, 6), ("1.0", "2.0"), ("#00ff00", "#0000ff"))
    labels = read_labels(write_shapes([("2.0", FOREST[1]), ("1.0", WATER[1])]), scene.grid, classes=table)
    assert np.array_equal(labels.index, np.select([INDEX == 0, INDEX == 1], [1, 0], -1))


def test_the_class_column_is_found_by_name_by_kind_or_given(scene, write_shapes):
    rows = [FOREST, WATER]
    for path, column in (
        (write_shapes(rows, "a.gpkg", column="Label", id=[5, 6]), None),
        (write_shapes(rows, "b.gpkg", column="what", area=[0.5, 0.7]), None),
        (write_shapes(rows, "e.gpkg", column="what", area=[5.0, 7.0]), None),
        (write_shapes(rows, "c.gpkg", column="what", name=["x", "y"]), "what"),
    ):
        assert read_labels(path, scene.grid, column=column).classes.names == ("forest", "water")
    numbers = [(1, FOREST[1]), (2, WATER[1]), (None, block(10, 0, 2, 2))]  # read as 1.0, 2.0 and nothing
    found = read_labels(write_shapes(numbers, "f.gpkg", column="what", area=[0.5, 0.7, 0.2]), scene.grid)
    assert found.classes.values == (1, 2)
    unclear = write_shapes(rows, "d.gpkg", column="what", also=["x", "y"])
    with pytest.raises(
        InputError, match=r"none of its columns \['what', 'also'\] is clearly the class; name it with --column"
    ):
        read_labels(unclear, scene.grid)
    both = write_shapes([(1, FOREST[1]), (2, WATER[1])], "g.geojson", column="Class", **{"class": ["a", "b"]})
    assert read_labels(both, scene.grid).classes.names == ("a", "b")  # written exactly so
    alike = write_shapes(rows, "h.geojson", column="Class", CLASS=["x", "y"])
    with pytest.raises(InputError, match="name it with --column"):
        read_labels(alike, scene.grid)
    with pytest.raises(InputError, match=r"no column 'none'; it has \['what', 'also'\]"):
        read_labels(unclear, scene.grid, column="none")


def test_a_column_that_tells_shapes_apart_is_not_taken_for_the_class(scene, write_shapes):
    rows = [(1 + k % 2, block(k, 0, 1, 3)) for k in range(12)]
    fields = [f"Field {k}" for k in range(12)]
    labels = read_labels(write_shapes(rows, "a.gpkg", column="class_id", name=fields), scene.grid)
    assert labels.classes.names == ("1", "2")
    assert labels.notes == ("classes of a.gpkg stand in its column 'class_id': 1, 2",)
    unique = write_shapes([(name, shape) for name, (_, shape) in zip(fields, rows, strict=True)], "b.gpkg")
    with pytest.raises(InputError, match="name it with --column"):
        read_labels(unique, scene.grid)
    assert len(read_labels(unique, scene.grid, column="class").classes) == 12  # whoever names it means it


def test_polygons_in_another_coordinate_system_are_moved_and_that_is_said(scene, write_shapes):
    rows = [(key, shape.buffer(-0.3 * PIXEL)) for key, shape in (FOREST, WATER)]  # keeps edges off the centres
    moved = geopandas.GeoSeries([shape for _, shape in rows], crs=UTM).to_crs("EPSG:4326")
    path = write_shapes(list(zip(("forest", "water"), moved, strict=True)), "shapes.geojson", crs="EPSG:4326")
    labels = read_labels(path, scene.grid)
    assert np.array_equal(labels.index, INDEX)
    assert labels.notes[0] == "shapes.geojson was reprojected from WGS 84 to the scene's coordinate system"


def test_pixels_in_polygons_of_different_classes_stay_unlabelled(scene, write_shapes):
    rows = [FOREST, ("forest", block(2, 3, 2, 4)), ("water", block(3, 4, 3, 6))]
    labels = read_labels(write_shapes(rows), scene.grid)
    expected = np.full((13, 11), -1)
    expected[0:4, 0:5] = expected[2:4, 3:7] = 0
    expected[3:6, 4:10] = 1
    expected[3, 4:7] = -1  # in the first two and in the third
    assert np.array_equal(labels.index, expected)
    assert labels.notes[1:] == ("3 pixels lie in polygons of different classes and stay unlabelled",)
    assert np.array_equal(labels.polygons >= 0, expected >= 0)
    assert (labels.polygons[2, 3], labels.polygons[2, 6], labels.polygons[0, 0]) == (1, 1, 0)


def test_a_class_that_labels_no_pixel_stays_in_the_table_and_is_named(scene, write_shapes):
    labels = read_labels(write_shapes([FOREST, WATER, ("rock", block(11.6, 0, 0.3, 11))]), scene.grid)
    assert labels.classes.names == ("forest", "rock", "water")
    assert labels.notes[1:] == (
        "1 of 3 shapes of shapes.gpkg label no pixel: they lie elsewhere, under others, or are long and hold no centre "
        "of one",
        "no pixel is labelled by the shapes of rock alone",
    )


def test_polygons_between_centres_label_the_pixel_in_which_most_of_them_lies(scene, write_shapes):
    rows = [
        ("forest", block(1.6, 2.55, 0.3, 0.8)),  # 0.45 of a pixel's width in column 2, 0.35 in column 3
        ("water", block(4.7, 5.6, 0.2, 0.3)),
        ("forest", block(4.1, 5.1, 0.1, 0.1)),  # on the same pixel, of another class
        ("water", block(7, 7, 2, 2)),
        ("forest", block(7.6, 7.6, 0.2, 0.2)),  # in the one before, whose centre counts
        ("water", block(20.6, 7.6, 0.2, 0.2)),  # beyond the scene
    ]
    labels = read_labels(write_shapes(rows), scene.grid)
    expected = np.full((13, 11), -1)
    expected[1, 2] = 0
    expected[7:9, 7:9] = 1
    assert np.array_equal(labels.index, expected)
    assert labels.polygons[1, 2] == 0
    assert (
        labels.notes[1]
        == "3 shapes of shapes.gpkg hold no pixel's centre; each labels the pixel in which most of it lies"
    )
    assert labels.contested == 1


def test_a_polygon_whose_only_centre_lies_under_another_labels_nothing(scene, write_shapes):
    """It is not one between centres, though most of it lies in a pixel that nobody labels."""
    most, rest = block(4.6, 2.0, 0.35, 1.2), block(4.45, 3.1, 0.2, 0.5)  # in column 2, and on the centre of column 3
    rows = [("forest", most.union(rest)), ("forest", block(4, 3, 1, 1))]
    labels = read_labels(write_shapes([*rows, ("water", block(8, 8, 1, 1))]), scene.grid)
    expected = np.full((13, 11), -1)
    expected[4, 3], expected[8, 8] = 0, 1
    assert np.array_equal(labels.index, expected)


def test_points_label_the_pixel_they_lie_in(scene, write_shapes):
    rows = [("a", Point(at(2.01, 3.99))), ("b", MultiPoint([at(5.5, 6.5), at(12.99, 0.01)])), ("b", Point(at(20, 20)))]
    labels = read_labels(write_shapes(rows), scene.grid)
    assert np.argwhere(labels.index == 0).tolist() == [[2, 3]]
    assert np.argwhere(labels.index == 1).tolist() == [[5, 6], [12, 0]]


def test_what_cannot_label_is_left_out_or_mended_and_said(scene, write_shapes):
    bow_tie = Polygon([at(10, 0), at(12, 4), at(12, 0), at(10, 4)])  # crosses itself at (11, 2)
    rows = [FOREST, WATER, ("water", None), ("forest", Polygon()), (None, block(0, 8, 2, 2)), (" ", block(0, 8, 2, 2))]
    labels = read_labels(write_shapes([*rows, ("forest", bow_tie)]), scene.grid)
    expected = INDEX.copy()
    expected[10:12, 1:3] = 0  # half a row above and below the crossing the tie is 2 pixels wide
    assert np.array_equal(labels.index, expected)
    assert (labels.polygons[10:12, 1:3] == 6).all()  # its place in the file, what is left out included
    assert labels.notes[:3] == (
        "2 of 7 shapes of shapes.gpkg left out: no geometry",
        "2 of 7 shapes of shapes.gpkg left out: no class",
        "1 of 7 shapes of shapes.gpkg (number 7) had crossing rings and were mended",
    )


def test_polygons_of_a_collection_count_and_lines_are_left_out(scene, write_shapes):
    line = LineString([at(11, 0), at(12, 5)])
    inner = GeometryCollection([WATER[1], line])
    rows = [FOREST, ("water", GeometryCollection([inner, Point(at(0, 0))])), ("forest", line)]
    labels = read_labels(write_shapes([*rows, ("water", GeometryCollection([line]))], "shapes.geojson"), scene.grid)
    assert np.array_equal(labels.index, INDEX)
    assert labels.notes[:2] == (
        "1 of 4 shapes of shapes.geojson (number 2) are collections of which the polygons count",
        "2 of 4 shapes of shapes.geojson (numbers 3, 4) left out: GeometryCollection, LineString",
    )


def test_a_ring_that_does_not_close_is_closed_or_left_out_by_number(scene, tmp_path):
    def feature(key, *rings):
        shape = {"type": "Polygon", "coordinates": [[list(corner) for corner in ring] for ring in rings]}
        return {"type": "Feature", "properties": {"class": key}, "geometry": shape}

    forest, water = (list(shape.exterior.coords) for _, shape in (FOREST, WATER))
    features = [feature("forest", forest), feature("water", water[:-1]), feature("water", [at(11, 0), at(12, 0)])]
    crs = {"type": "name", "properties": {"name": UTM}}
    path = tmp_path / "open.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    labels = read_labels(path, scene.grid)
    assert np.array_equal(labels.index, INDEX)
    said = " | ".join(labels.notes)
    assert "1 of 3 shapes of open.geojson (number 2) had rings that do not close and were closed" in said
    assert "1 of 3 shapes of open.geojson (number 3) had rings that do not close and hold no area" in said


@pytest.mark.parametrize(
    ("names", "encoding", "read_as"),
    [
        (("Wälder", "Größe"), "latin-1", "cp1252"),
        (("森林", "草地"), "gbk", "gbk"),
        (("forêt", "Seen"), "cp1252", "cp1252"),
    ],
)
def test_text_in_another_encoding_than_claimed_is_read_and_that_is_said(scene, write_shapes, names, encoding, read_as):
    path = write_shapes(list(zip(names, (FOREST[1], WATER[1]), strict=True)), "shapes.geojson")
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    labels = read_labels(path, scene.grid)
    assert set(labels.classes.names) == set(names)
    assert f"text of shapes.geojson is not in the encoding that it claims; read as {read_as}: look" in labels.notes[0]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([FOREST, WATER], {"crs": None}, r"the scene has a coordinate system and shapes\.gpkg has none"),
        ([FOREST, ("lava", WATER[1])], {}, r"holds the classes \['lava'\], which the class table has not"),
        ([(1, FOREST[1]), (2, WATER[1])], {}, r"holds the classes \['2'\]"),
        ([("water", block(50, 50, 2, 2))], {}, "labels no pixel"),
        ([("water", LineString([at(0, 0), at(5, 5)]))], {}, "shapes of type LineString"),
        (
            [("water", None)],
            {},
            "none of its 1 shapes has a geometry and, in the column 'class', a class; fill that in",
        ),
    ],
)
def test_shapes_that_are_no_labels_of_the_scene_are_refused(scene, write_shapes, rows, options, said):
    with pytest.raises(InputError, match=said) as caught:
        read_labels(write_shapes(rows, **options), scene.grid, classes=TABLE)
    assert one_line(caught)


def test_what_labels_nothing_says_why(scene, write_shapes, write_tif):
    both = write_shapes([("forest", block(0, 0, 4, 5)), ("water", block(0, 0, 4, 5))])
    with pytest.raises(InputError, match=r"20 lie in polygons of different classes; let these not overlap$"):
        read_labels(both, scene.grid)
    image = write_tif("image.tif", np.arange(26 * 22).reshape(26, 22).astype(np.uint8) % 250 + 1, pixel=PIXEL / 2)
    with pytest.raises(InputError, match=r"labels no pixel .* and that its values are classes$"):
        read_labels(image, scene.grid)


def test_more_classes_than_a_map_can_hold_are_counted_not_listed(scene, write_shapes):
    many = write_shapes([(f"field {n}", block(0, 0, 1, 1)) for n in range(300)])
    with pytest.raises(InputError, match=r"holds 300 classes, 255 can be mapped; check which column holds the class$"):
        read_labels(many, scene.grid, column="class")


def test_names_of_two_lines_are_one(scene, write_shapes):
    labels = read_labels(write_shapes([("wet\nforest", FOREST[1]), ("water", WATER[1])]), scene.grid)
    assert labels.classes.names == ("water", "wet forest")


def test_polygons_with_a_coordinate_system_need_a_scene_with_one(write_tif, write_shapes, codes):
    ms = write_tif("ms.tif", codes, crs=None)
    with Scene.open(ms, ms) as scene:
        with pytest.raises(InputError, match=r"shapes\.gpkg has a coordinate system and the scene has none"):
            read_labels(write_shapes([FOREST, WATER]), scene.grid)
        labels = read_labels(write_shapes([FOREST, WATER], "plain.gpkg", crs=None), scene.grid)
        assert np.array_equal(labels.index, INDEX)


def test_files_that_are_neither_raster_nor_polygons_are_refused(scene, write_shapes, tmp_path):
    (tmp_path / "text.txt").write_text("no labels\n")
    (tmp_path / "table.csv").write_text("class,x\nforest,1\n")
    (tmp_path / "empty").mkdir()
    two = write_shapes([FOREST], "two.gpkg")
    geopandas.GeoDataFrame({"class": ["water"]}, geometry=[WATER[1]], crs=UTM).to_file(two, layer="second")
    for path, said in (
        (tmp_path / "none.tif", "does not exist; check the path"),
        (tmp_path / "empty", "can be read neither as a raster nor as polygons"),
        (tmp_path / "text.txt", "neither as a raster nor as polygons"),
        (tmp_path / "table.csv", "has no layer of shapes"),
        (two, "has 2 layers of shapes: 'two', 'second'; name one of them with --layer$"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            read_labels(path, scene.grid)
        assert one_line(caught)


def test_a_layer_of_several_is_read_by_its_name(scene, write_shapes):
    path = write_shapes([("forest", WATER[1]), ("water", FOREST[1])], "two.gpkg")
    geopandas.GeoDataFrame({"class": ["forest", "water"]}, geometry=[FOREST[1], WATER[1]], crs=UTM).to_file(
        path, layer="second"
    )
    labels = read_labels(path, scene.grid, layer="second")
    assert np.array_equal(labels.index, INDEX)
    assert labels.layer == "second"
    with pytest.raises(InputError, match=r"has no layer 'third' of shapes; it has 'two', 'second'; name one of them"):
        read_labels(path, scene.grid, layer="third")


def test_whatever_gdal_opens_is_opened(scene, write_shapes, tmp_path):
    rows = [FOREST, WATER]
    folder = tmp_path / "folder"
    folder.mkdir()
    for part in write_shapes(rows, "shapes.shp").parent.glob("shapes.*"):
        part.rename(folder / part.name)
    archive = Path(shutil.make_archive(str(tmp_path / "shapes"), "zip", folder))
    geodatabase = write_shapes(rows, "shapes.gdb")
    geopackage = write_shapes(rows)
    assert geodatabase.is_dir()
    for path in (folder, archive, f"/vsizip/{archive}/shapes.shp", geodatabase, geopackage.as_uri()):
        assert np.array_equal(read_labels(path, scene.grid).index, INDEX), path


def test_variables_of_a_file_with_several_are_listed(scene, tmp_path):
    path = tmp_path / "cube.nc"
    with netcdf_file(path, "w") as cube:
        for name, size in (("y", 13), ("x", 11)):
            cube.createDimension(name, size)
        for name in ("labels", "sure"):
            cube.createVariable(name, "i2", ("y", "x"))[:] = 1
    with pytest.raises(
        InputError, match=r"holds 2 rasters; name one of them instead: netcdf:.*:labels, .*:sure$"
    ) as caught:
        read_labels(path, scene.grid)
    assert one_line(caught)


@pytest.mark.parametrize("header", ["x,y,class", "Class;X;Y", "lat,lon,class", "Longitude\tLatitude\tclass"])
def test_points_of_a_table_label_their_pixels(scene, tmp_path, header):
    separator = next(c for c in ";\t," if c in header)
    columns = header.split(separator)
    globe = geopandas.GeoSeries([Point(at(2.5, 3.5)), Point(at(6.5, 1.5))], crs=UTM)
    places = globe if "x" in header.lower().split(separator) else globe.to_crs("EPSG:4326")
    lines = [header]
    for name, place in zip(("forest", "water"), places, strict=True):
        of = {"x": place.x, "y": place.y, "lon": place.x, "lat": place.y, "longitude": place.x, "latitude": place.y}
        lines.append(separator.join(str((of | {"class": name})[column.lower()]) for column in columns))
    lines.append(separator.join("forest" if column.lower() == "class" else "" for column in columns))
    (tmp_path / "points.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    labels = read_labels(tmp_path / "points.csv", scene.grid)
    assert np.argwhere(labels.index == 0).tolist() == [[2, 3]]
    assert np.argwhere(labels.index == 1).tolist() == [[6, 1]]
    assert "points.csv is a table of points; its columns" in labels.notes[0]
    assert "1 of 3 shapes of points.csv left out: no geometry" in labels.notes


def test_a_file_without_shapes_is_said_to_be_empty(scene, tmp_path):
    (tmp_path / "empty.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (tmp_path / "empty.csv").write_text("x,y,class\n")
    for name, said in (("empty.geojson", "holds no shapes"), ("empty.csv", "holds no points")):
        with pytest.raises(InputError, match=said):
            read_labels(tmp_path / name, scene.grid)


def test_one_name_in_two_forms_is_one_class(scene, write_shapes):
    rows = [("W\u00e4lder", FOREST[1]), ("Wa\u0308lder\u200b", block(10, 0, 2, 2)), ("Se\x07e", WATER[1])]
    labels = read_labels(write_shapes(rows), scene.grid)
    assert labels.classes.names == ("Se e", "W\u00e4lder")
    assert labels.index[10, 0] == labels.index[0, 0] == 1


def test_a_coordinate_system_that_is_undefined_is_none(scene, write_shapes):
    undefined = (
        'ENGCRS["Undefined Cartesian SRS",EDATUM["Unknown engineering datum"],CS[Cartesian,2],AXIS["x",unspecified],'
    )
    undefined += 'AXIS["y",unspecified],LENGTHUNIT["metre",1]]'
    with pytest.raises(InputError, match=r"the scene has a coordinate system and shapes\.gpkg has none; assign"):
        read_labels(write_shapes([FOREST, WATER], crs=undefined), scene.grid)


def test_a_ring_of_two_points_is_refused_by_name(scene, tmp_path):
    path = tmp_path / "ring.geojson"
    path.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"class": "a"}, "geometry": '
        '{"type": "Polygon", "coordinates": [[[15, 45], [15.1, 45]]]}}]}'
    )
    with pytest.raises(InputError, match=r"ring\.geojson") as caught:
        read_labels(path, scene.grid)
    assert one_line(caught)


# ---- the real scenes

NORTH_CAROLINA = {
    2: {"developed": 12793, "herbaceous": 4129, "shrubland": 1487, "forest": 15803, "water": 423},
    4: {"developed": 2221, "herbaceous": 633, "shrubland": 94, "forest": 2773, "water": 48},
}


@pytest.mark.real
@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("name", ["labels.tif", "labels_fine.tif"])
def test_north_carolina_has_the_same_labels_on_both_grids(real_data, ratio, name):
    folder = real_data / f"nc_landsat7_x{ratio}"
    with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
        table = ClassTable.read(folder / "classes.csv")
        labels = read_labels(folder / name, scene.grid, classes=table, min_share=1)
        other = read_labels(folder / "labels.tif", scene.grid, classes=labels.classes)
    counts = np.bincount(labels.index[labels.index >= 0], minlength=5).tolist()
    assert dict(zip(labels.classes.names, counts, strict=True)) == NORTH_CAROLINA[ratio]
    assert np.array_equal(labels.index, other.index)


@pytest.mark.real
def test_red_clover_valley_polygons(real_data):
    folder = real_data / "rcv_sentinel2"
    with Scene.open(folder / "coarse.tif", folder / "fine.tif") as scene:
        labels = read_labels(folder / "polygons.gpkg", scene.grid)
    assert labels.classes.names == ("forest", "hydric", "mesic", "rocky", "water", "willow", "xeric")
    counts = np.bincount(labels.index[labels.index >= 0], minlength=7)
    assert (counts.sum(), counts.min()) == (227, 6)
    assert (labels.polygons >= 0).sum() == 227
    assert np.unique(labels.polygons[labels.polygons >= 0]).size == 45
    assert labels.notes[1].startswith("10 shapes of polygons.gpkg hold no pixel's centre")


# ---- shares of pixels, and several files


def test_a_class_labels_the_pixels_that_its_polygons_cover_enough_of(scene, write_shapes):
    """Of MS pixel (0, 0) forest covers 0.6, of (0, 1) two polygons of it 0.3 and 0.25, of (0, 2) 0.4 and water 0.5."""
    rows = [
        ("forest", block(0, 0, 0.6, 1)),
        ("forest", block(0, 1, 0.3, 1)),
        ("forest", block(0.5, 1, 0.25, 1)),
        ("forest", block(0, 2, 0.4, 1)),
        ("water", block(0.5, 2, 0.5, 1)),
        ("water", block(4, 4, 2, 2)),
        ("forest", block(8, 4, 2, 2)),
    ]
    path = write_shapes(rows)

    def labelled(min_share):
        labels = read_labels(path, scene.grid, min_share=min_share)
        return labels.index[0, :4].tolist(), labels.polygons[0, :4].tolist()

    assert labelled(0.5) == ([0, 0, 1, -1], [0, 1, 4, -1])
    assert labelled(0.56) == ([0, -1, -1, -1], [0, -1, -1, -1])
    assert labelled(0.05) == ([0, 0, 1, -1], [0, 1, 4, -1])
    assert read_labels(path, scene.grid, min_share=1).notes[-1] == (
        "5 of 7 shapes of shapes.gpkg label no pixel: they lie elsewhere, under others, or cover less than 1 of any"
    )


def test_a_pixel_on_which_polygons_of_two_classes_lie_on_each_other_is_contested(scene, write_shapes):
    rows = [FOREST, WATER, ("water", block(0, 0, 1, 1)), ("forest", block(1, 1, 1, 1))]
    labels = read_labels(write_shapes(rows), scene.grid, min_share=0.5)
    expected = INDEX.copy()
    expected[0, 0] = -1
    assert np.array_equal(labels.index, expected)
    assert labels.contested == 1


@pytest.mark.parametrize("min_share", [0.01, 0.5, 1])
def test_points_cover_the_pixel_they_lie_in(scene, write_shapes, min_share):
    rows = [("a", Point(at(2.01, 3.99))), ("b", MultiPoint([at(5.5, 6.5), at(12.99, 0.01)])), ("b", Point(at(20, 20)))]
    labels = read_labels(write_shapes(rows), scene.grid, min_share=min_share)
    assert np.argwhere(labels.index == 0).tolist() == [[2, 3]]
    assert np.argwhere(labels.index == 1).tolist() == [[5, 6], [12, 0]]


@pytest.mark.parametrize("min_share", [0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(scene, write_shapes, min_share):
    with pytest.raises(InputError, match="it must lie above 0 and at most at 1"):
        read_labels(write_shapes([FOREST, WATER]), scene.grid, min_share=min_share)


def test_overlaps_are_the_shares_that_lie_on_each_other():
    """Pixels of 1.5 others that begin 0.5 before them: [−0.5, 1), [1, 2.5), [2.5, 4), of which there are three."""
    assert np.allclose(
        overlaps(-0.5, 1.5, 3, 3).toarray(), np.array([[1, 0, 0], [0, 1, 0.5], [0, 0, 0.5]]) / 1.5, atol=1e-6
    )
    assert np.array_equal(overlaps(0.004, 0.999, 4, 4).toarray(), np.eye(4))  # edges that meet but for rounding


def test_several_files_label_together_and_differ_in_silence_nowhere(scene, write_shapes, write_tif):
    first = write_shapes([FOREST, WATER], "2019.gpkg")
    later = write_shapes([("water", block(2, 0, 3, 2)), ("lava", block(10, 0, 2, 3)), WATER], "2020.gpkg")
    labels = read_labels([first, later], scene.grid)
    expected = np.where(INDEX == 1, 2, INDEX)  # forest, lava, water
    expected[2:4, 0:2] = -1  # forest in one year, water in the next
    expected[4, 0:2] = 2
    expected[10:12, 0:3] = 1
    assert labels.classes == ClassTable.numbered(["forest", "lava", "water"])
    assert np.array_equal(labels.index, expected)
    assert labels.notes[-1] == "4 pixels that 2019.gpkg, 2020.gpkg label differently stay unlabelled"
    assert labels.paths == (first, later)
    numbers = [np.unique(labels.polygons[expected == k]).tolist() for k in range(3)]
    assert numbers == [[0], [3], [2, 4]]  # the polygons of the second file come after those of the first
    codes = np.where(expected == 1, 3, 0).astype(np.uint8)  # rock, of TABLE
    with_raster = read_labels([first, write_tif("labels.tif", codes)], scene.grid, classes=TABLE)
    assert with_raster.polygons is None
    assert np.array_equal(with_raster.index, np.select([INDEX == 0, INDEX == 1, expected == 1], [0, 2, 1], -1))


def test_numbers_of_several_files_are_one_table_and_do_not_mix_with_names(scene, write_shapes):
    numbers = write_shapes([(1, FOREST[1]), (7, WATER[1])], "numbers.gpkg")
    more = write_shapes([(3, block(10, 0, 2, 3)), (7, WATER[1])], "more.gpkg")
    together = read_labels([numbers, more], scene.grid)
    assert together.classes == ClassTable.of((1, 3, 7), ("1", "3", "7"))
    assert together.index[11, 0] == 1
    names = write_shapes([FOREST, WATER], "names.gpkg")
    with pytest.raises(InputError, match=r"^names\.gpkg names its classes and numbers\.gpkg has numbers; say"):
        read_labels([numbers, names], scene.grid)
    with pytest.raises(InputError, match="no file of labels is named"):
        read_labels([], scene.grid)


def test_shapes_beyond_180_degrees_label_a_scene_that_reaches_there(write_tif, write_shapes):
    """MS from 179.9° to 180.12° east; the second polygon is given in western longitudes."""
    degrees = {"crs": "EPSG:4326", "corner": (179.9, 10.0)}
    ms = write_tif("ms.tif", np.ones((13, 11), np.uint8), pixel=0.02, **degrees)
    pan = write_tif("pan.tif", np.ones((26, 22), np.uint8), pixel=0.01, **degrees)
    rows = [("forest", box(179.9, 9.92, 180.0, 10.0)), ("water", box(-179.94, 9.82, -179.88, 9.88))]
    path = write_shapes(rows, crs="EPSG:4326")
    expected = np.full((13, 11), -1)
    expected[0:4, 0:5], expected[6:9, 8:11] = 0, 1
    with Scene.open(ms, pan) as scene:
        labels = read_labels(path, scene.grid)
    assert np.array_equal(labels.index, expected)
    assert labels.notes[0] == "1 shapes of shapes.gpkg lie beyond 180°; 360° were added or taken off"
