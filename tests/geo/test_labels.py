"""Labels from rasters on every grid that fits, and from polygons, against small cases worked out by hand."""

import warnings

import geopandas
import numpy as np
import pytest
from shapely.geometry import LineString, MultiPoint, Point, Polygon, box

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Scene
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


def test_a_coarse_pixel_counts_when_all_fine_pixels_on_it_agree(scene, codes, write_tif):
    fine = codes.repeat(2, axis=0).repeat(2, axis=1)
    fine[7, 4] = 1 if fine[7, 4] != 1 else 3  # one pixel of another class, on MS pixel (3, 2)
    fine[20:22, 6] = 0  # half of MS pixel (10, 3) without a label
    labels = read_labels(write_tif("labels.tif", fine, pixel=PIXEL / 2), scene.grid, classes=TABLE)
    codes[3, 2] = codes[10, 3] = 0
    assert np.array_equal(labels.index, np.select([codes == 1, codes == 3, codes == 7], [0, 1, 2], -1))


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
        (lambda a: a * 2, {}, r"holds the values \[2, 6, 14\], which the class table has not \(it has \[1, 3, 7\]\)"),
        (lambda a: a * 0, {}, "labels no pixel"),
        (lambda a: a * 0 + 9, {"nodata": 9}, "labels no pixel"),
        (lambda a: (a == 3) * np.uint8(3), {}, "only the class 'rock'"),
        (lambda a: a / np.float32(2), {}, "not whole numbers"),
        (lambda a: a * np.int16(100), {}, r"values from 0 to 700; class values must lie in 1\.\.255"),
        (lambda a: a.astype(np.int16) - 1, {}, "values from -1 to 6"),
        (lambda a: a.astype(np.complex64), {}, "not whole numbers"),
        (lambda a: a, {"crs": "EPSG:32634"}, r"labels\.tif in WGS 84 / UTM zone 34N"),
        (lambda a: a, {"crs": None}, r"labels\.tif has none"),
        (lambda a: a, {"corner": at(0.5, 0)}, r"miss labels\.tif pixel edges by -0\.50 rows"),
        (lambda a: a, {"corner": at(50, 0)}, r"MS and labels\.tif have no ground in common"),
        (lambda a: a[::2, ::2], {"pixel": PIXEL * 2}, "smaller than labels.tif pixels"),
        (lambda a: a, {"pixel": PIXEL / 1.5}, "1.5 × 1.5 labels.tif pixels"),
        (lambda a: np.stack([a, a]), {}, "has 2 bands"),
    ],
)
def test_rasters_that_are_no_labels_of_the_scene_are_refused(scene, codes, write_tif, change, options, said):
    with pytest.raises(InputError, match=said) as caught:
        read_labels(write_tif("labels.tif", change(codes), **options), scene.grid, classes=TABLE)
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
    assert labels.notes == ()


def test_names_or_values_of_a_table_may_be_in_the_column(scene, write_shapes):
    by_name = read_labels(write_shapes([FOREST, WATER]), scene.grid, classes=TABLE)
    assert by_name.classes == TABLE
    assert np.array_equal(by_name.index, INDEX + (INDEX == 1))  # water is class 2 of the table
    for numbers in ([1, 7], [1.0, 7.0], ["1", "7"], ["1.0", "7."]):
        rows = list(zip(numbers, (FOREST[1], WATER[1]), strict=True))
        by_value = read_labels(write_shapes(rows), scene.grid, classes=TABLE)
        assert np.array_equal(by_value.index, by_name.index)


def test_numbers_without_a_table_keep_their_value_and_zero_is_no_class(scene, write_shapes):
    for ten, nine, zero in (("10", "9", "0"), (10.0, 9.0, 0.0), ("10.0", "9.00", "0")):
        rows = [(ten, FOREST[1]), (nine, WATER[1]), (zero, block(10, 0, 2, 2))]
        labels = read_labels(write_shapes(rows), scene.grid)
        assert labels.classes == ClassTable.of((9, 10), ("9", "10"))
        assert np.array_equal(labels.index, np.select([INDEX == 0, INDEX == 1], [1, 0], -1))
        assert labels.polygons[10, 0] == -1


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
    with pytest.raises(InputError, match=r"none of the columns \['what', 'also'\] is clearly the class"):
        read_labels(unclear, scene.grid)
    with pytest.raises(InputError, match=r"no column 'none'; it has \['what', 'also'\]"):
        read_labels(unclear, scene.grid, column="none")


def test_polygons_in_another_coordinate_system_are_moved_and_that_is_said(scene, write_shapes):
    rows = [(key, shape.buffer(-0.3 * PIXEL)) for key, shape in (FOREST, WATER)]  # keeps edges off the centres
    moved = geopandas.GeoSeries([shape for _, shape in rows], crs=UTM).to_crs("EPSG:4326")
    path = write_shapes(list(zip(("forest", "water"), moved, strict=True)), "shapes.geojson", crs="EPSG:4326")
    labels = read_labels(path, scene.grid)
    assert np.array_equal(labels.index, INDEX)
    assert labels.notes == ("shapes.geojson was reprojected from WGS 84 to the scene's coordinate system",)


def test_pixels_in_polygons_of_different_classes_stay_unlabelled(scene, write_shapes):
    rows = [FOREST, ("forest", block(2, 3, 2, 4)), ("water", block(3, 4, 3, 6))]
    labels = read_labels(write_shapes(rows), scene.grid)
    expected = np.full((13, 11), -1)
    expected[0:4, 0:5] = expected[2:4, 3:7] = 0
    expected[3:6, 4:10] = 1
    expected[3, 4:7] = -1  # in the first two and in the third
    assert np.array_equal(labels.index, expected)
    assert labels.notes == ("3 pixels lie in polygons of different classes and stay unlabelled",)
    assert np.array_equal(labels.polygons >= 0, expected >= 0)
    assert (labels.polygons[2, 3], labels.polygons[2, 6], labels.polygons[0, 0]) == (1, 1, 0)


def test_a_class_that_holds_no_centre_stays_in_the_table_and_is_named(scene, write_shapes):
    labels = read_labels(write_shapes([FOREST, WATER, ("rock", block(11.6, 5, 0.3, 4))]), scene.grid)
    assert labels.classes.names == ("forest", "rock", "water")
    assert labels.notes == (
        "1 of 3 shapes of shapes.gpkg label no pixel: they hold no centre of one, lie elsewhere or under others",
        "no pixel has its centre in the polygons of rock alone",
    )


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
    assert labels.notes == (
        "2 of 7 shapes of shapes.gpkg left out: no geometry",
        "2 of 7 shapes of shapes.gpkg left out: no class",
        "1 of 3 shapes of shapes.gpkg had crossing rings and were mended",
    )


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([FOREST, WATER], {"crs": None}, r"the scene has a coordinate system and shapes\.gpkg has none"),
        ([FOREST, ("lava", WATER[1])], {}, r"holds the classes \['lava'\], which the class table has not"),
        ([(1, FOREST[1]), (2, WATER[1])], {}, r"holds the classes \['2'\]"),
        ([FOREST, ("water", block(50, 50, 2, 2))], {}, "only the class 'forest'"),
        ([("water", block(50, 50, 2, 2))], {}, "labels no pixel"),
        ([FOREST, ("water", LineString([at(0, 0), at(5, 5)]))], {}, "shapes of type LineString"),
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
    with pytest.raises(InputError, match=r"labels no pixel .* of a finer raster all pixels on one must agree$"):
        read_labels(image, scene.grid)


def test_more_classes_than_a_map_can_hold_are_counted_not_listed(scene, write_shapes):
    many = write_shapes([(f"field {n}", block(0, 0, 1, 1)) for n in range(300)])
    with pytest.raises(InputError, match=r"holds 300 classes, 255 can be mapped; check which column holds the class$"):
        read_labels(many, scene.grid)


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
    two = write_shapes([FOREST], "two.gpkg")
    geopandas.GeoDataFrame({"class": ["water"]}, geometry=[WATER[1]], crs=UTM).to_file(two, layer="second")
    for path, said in (
        (tmp_path / "none.tif", "is not a file"),
        (tmp_path, "is not a file"),
        (tmp_path / "text.txt", "neither as a raster nor as polygons"),
        (tmp_path / "table.csv", "has no layer of shapes"),
        (two, r"has 2 layers of shapes \['two', 'second'\]"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            read_labels(path, scene.grid)
        assert one_line(caught)


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
        labels = read_labels(folder / name, scene.grid, classes=ClassTable.read(folder / "classes.csv"))
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
    assert (counts.sum(), counts.min()) == (217, 5)
    assert (labels.polygons >= 0).sum() == 217
    assert np.unique(labels.polygons[labels.polygons >= 0]).size == 35
    assert labels.notes[0].startswith("10 of 45 shapes of polygons.gpkg label no pixel")
