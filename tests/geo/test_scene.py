"""Reading against whole arrays padded by NumPy; what counts as invalid; pairs refused; files written whole or not."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from adcdnet.errors import InputError
from adcdnet.files import HeldFolder
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window, tiles
from adcdnet.geo.raster import read_band, same_crs
from adcdnet.geo.raster_writer import RasterWriter, write_raster
from adcdnet.geo.scene import Scene
from conftest import CORNER, PIXEL, UTM, UTM_SPELT, left_by_a_killed_process, write_tif_file, write_vrt_file

GRID = Grid(47, 61, Affine(20, 0, 500_000, 0, -20, 5_000_000), CRS.from_string(UTM).to_wkt())
CLASSES = ClassTable((1, 2, 5), ("water", "Wald & Wiese", "rock"), ("#0000ff", "#00ff00", "#808080"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scene")


# ---- reading


@st.composite
def placements(draw):
    """A common extent of h × w MS pixels, and on each side what juts out beyond it: whole MS pixels, PAN pixels."""
    ratio = draw(st.integers(1, 8))
    ms_juts = st.tuples(st.integers(1, 3), st.integers(0, ratio - 1))  # PAN ends inside the next MS pixel
    pan_juts = st.tuples(st.just(0), st.integers(0, 2 * ratio))
    sides = [draw(st.one_of(ms_juts, pan_juts)) for _ in range(4)]  # top, left, bottom, right
    return ratio, draw(st.integers(1, 7)), draw(st.integers(1, 7)), sides


@settings(max_examples=60, deadline=None)
@given(
    placement=placements(),
    window=st.builds(Window, st.integers(-25, 15), st.integers(-25, 15), st.integers(1, 20), st.integers(1, 20)),
    repeat_edge=st.booleans(),
    seed=st.integers(0, 99),
)
def test_reading_is_slicing_the_whole_padded_image(folder, placement, window, repeat_edge, seed):
    ratio, h, w, (top, left, bottom, right) = placement
    rng = np.random.default_rng(seed)
    ms = rng.integers(-9, 9, (3, top[0] + h + bottom[0], left[0] + w + right[0])).astype(np.int16)
    pan = rng.random((2, top[1] + h * ratio + bottom[1], left[1] + w * ratio + right[1])).astype(np.float32)
    pan[pan < 0.02] = np.nan
    fine = PIXEL / ratio
    ms_corner = (CORNER[0] - left[0] * PIXEL, CORNER[1] + top[0] * PIXEL)
    pan_corner = (CORNER[0] - left[1] * fine, CORNER[1] + top[1] * fine)
    ms_path = write_tif_file(folder / "ms.tif", ms, corner=ms_corner, nodata=7)
    pan_path = write_tif_file(folder / "pan.tif", pan, corner=pan_corner, pixel=fine)
    with Scene.open(ms_path, pan_path) as scene:
        assert (scene.ratio, scene.grid.shape, scene.ms_bands, scene.pan_bands) == (ratio, (h, w), 3, 2)
        assert scene.grid.transform @ (0, 0) == pytest.approx(CORNER)
        pixels = scene.read(window, repeat_edge=repeat_edge)

    def expected(whole, row, col, height, width, scale):
        inside = whole[:, row : row + height, col : col + width]
        margin = 50 * scale  # further than any window reaches

        def modes(size):
            return "symmetric" if repeat_edge or size == 1 else "reflect"

        padded = np.pad(inside, ((0, 0), (margin, margin), (0, 0)), mode=modes(height))
        padded = np.pad(padded, ((0, 0), (0, 0), (margin, margin)), mode=modes(width))
        rows, cols = window.scale(scale).shift(margin, margin).slices
        return padded[:, rows, cols]

    want_ms = expected(ms, top[0], left[0], h, w, 1)
    want_pan = expected(pan, top[1], left[1], h * ratio, w * ratio, ratio)
    ms_valid, pan_valid = (want_ms != 7).all(axis=0), np.isfinite(want_pan).all(axis=0)
    assert np.array_equal(pixels.ms_valid, ms_valid)
    assert np.array_equal(pixels.pan_valid, pan_valid)
    assert np.array_equal(pixels.ms, np.where(ms_valid, want_ms, 0))
    assert np.array_equal(pixels.pan, np.where(pan_valid, want_pan, 0))
    assert pixels.ms.dtype == pixels.pan.dtype == np.float32


def test_a_pixel_is_valid_when_it_and_all_pan_pixels_on_it_are(write_tif):
    ms = np.ones((2, 2, 3), np.uint8)
    pan = np.ones((4, 6), np.uint8)
    ms[1, 0, 0] = 0  # one band of one MS pixel
    pan[3, 4] = 0  # one PAN pixel, on MS pixel (1, 2)
    paths = write_tif("ms.tif", ms, nodata=0), write_tif("pan.tif", pan, pixel=PIXEL / 2, nodata=0)
    with Scene.open(*paths) as scene:
        valid = scene.read(scene.grid.window).valid
    assert valid.tolist() == [[False, True, True], [True, True, False]]


def test_only_the_part_that_a_window_needs_is_read(write_tif):
    big = np.zeros((3000, 3000), np.uint8)
    paths = [write_tif(f"{name}.tif", big, compress="deflate", tiled=True) for name in ("ms", "pan")]
    with Scene.open(*paths) as scene:
        tracemalloc.start()
        pixels = scene.read(Window(-30, 2980, 60, 60))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert pixels.ms.shape == (1, 60, 60)
    assert peak < 1e6  # bytes; one whole image is 9e6


@pytest.mark.parametrize(
    ("value", "dtype", "nodata"),
    [
        (0, "uint8", 0),
        (-32768, "int16", -32768),
        (65535, "uint16", 65535),
        (np.nan, "float32", np.nan),
        (np.nan, "float32", -9999),
        (np.inf, "float32", None),
        (-np.inf, "float64", None),
        (1e300, "float64", None),  # more than float32 can hold
        (np.finfo(np.float32).min, "float32", float(np.finfo(np.float32).min)),
        (-9999, "int32", -9999),
        (0.1, "float32", 0.1),  # the tag is kept in double precision
    ],
)
def test_what_makes_a_pixel_invalid(write_tif, value, dtype, nodata):
    pan = np.ones((3, 5), dtype)
    pan[1, 2] = value
    paths = write_tif("ms.tif", np.ones((3, 5), np.uint8)), write_tif("pan.tif", pan, nodata=nodata)
    with Scene.open(*paths) as scene:
        pixels = scene.read(scene.grid.window)
    assert np.array_equal(pixels.pan_valid, np.arange(15).reshape(3, 5) != 7)
    assert np.isfinite(pixels.pan).all()


@pytest.mark.parametrize("nodata", ["-9999", "nan", "0.5", "1e40"])
def test_a_nodata_value_that_the_type_cannot_hold_marks_nothing(write_tif, nodata):
    source = write_tif("pan.tif", np.arange(15, dtype=np.uint8).reshape(3, 5))
    with Scene.open(source, write_vrt_file(source, nodata=nodata)) as scene:
        pixels = scene.read(scene.grid.window)
    assert pixels.pan_valid.all()
    assert np.array_equal(pixels.pan, pixels.ms)


def test_an_image_without_any_data_is_all_invalid_and_finite(write_tif):
    empty = write_tif("ms.tif", np.full((3, 5, 7), np.nan, np.float32))
    with Scene.open(empty, write_tif("pan.tif", np.ones((5, 7), np.uint8))) as scene:
        pixels = scene.read(Window(-2, -2, 9, 11))
    assert not pixels.valid.any()
    assert (pixels.ms == 0).all()


def test_a_mask_inside_the_file_counts(write_tif):
    ms, pan = (write_tif(f"{name}.tif", np.ones((5, 7), np.uint8)) for name in ("ms", "pan"))
    mask = np.arange(35).reshape(5, 7) % 4 > 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(pan, "r+") as dataset:
        dataset.write_mask(mask)
    with Scene.open(ms, pan) as scene:
        assert np.array_equal(scene.read(scene.grid.window).pan_valid, mask)


def test_transparency_is_a_mask_and_no_band(write_tif):
    rgba = np.full((4, 5, 7), 9, np.uint8)
    rgba[3] = 255
    rgba[3, 2, 3] = 0
    ms = write_tif("ms.tif", rgba, photometric=None)
    with Scene.open(ms, write_tif("pan.tif", rgba[0])) as scene:
        pixels = scene.read(scene.grid.window)
        assert (scene.ms_bands, scene.notes) == (3, ())
    assert np.array_equal(pixels.ms_valid, np.arange(35).reshape(5, 7) != 17)


def test_a_fourth_band_that_gdal_marked_as_transparency_by_default_stays_a_band(write_tif):
    bands = np.arange(4 * 35, dtype=np.uint8).reshape(4, 5, 7)  # near infrared, say, in band 4
    ms = write_tif("ms.tif", bands, photometric=None)
    with Scene.open(ms, write_tif("pan.tif", bands[0])) as scene:
        pixels = scene.read(scene.grid.window)
        assert "band 4 of ms.tif is marked as transparency but holds data" in scene.notes[0]
    assert np.array_equal(pixels.ms, bands)
    assert pixels.ms_valid.all()


# ---- the pair


def test_a_plain_pair_needs_no_notes(tiny_pair):
    ms, pan = tiny_pair(ratio=4)
    with Scene.open(str(ms), str(pan)) as scene:
        assert (scene.ratio, scene.notes, scene.name) == (4, (), f"{ms.parent.name}/ms.tif")
        assert scene.ms_full == scene.grid


def test_one_coordinate_system_in_two_spellings_is_one(tiny_pair, write_tif):
    ms, _ = tiny_pair()
    pan = write_tif("spelt.tif", np.ones((26, 22), np.uint8), pixel=PIXEL / 2)
    with Scene.open(ms, write_vrt_file(pan, pixel=PIXEL / 2, crs=UTM_SPELT)) as scene:
        assert scene.pan_full.crs == scene.grid.crs == GRID.crs
    other = CRS.from_epsg(32633).to_wkt(version="WKT2_2019")
    assert same_crs(other, GRID.crs) == GRID.crs != other
    assert same_crs(CRS.from_epsg(32634).to_wkt(), GRID.crs) != GRID.crs


def test_no_coordinate_system_on_either_is_noted(write_tif):
    ms = write_tif("ms.tif", np.ones((5, 7), np.uint8), crs=None)
    with Scene.open(ms, write_tif("pan.tif", np.ones((10, 14), np.uint8), pixel=PIXEL / 2, crs=None)) as scene:
        assert (scene.ratio, scene.notes) == (2, ("neither image has a coordinate system",))


def test_two_images_without_any_place_are_laid_corner_to_corner(write_tif):
    ms = write_tif("ms.tif", np.ones((5, 7), np.uint8), pixel=0, crs=None)
    with Scene.open(ms, write_tif("pan.tif", np.ones((15, 21), np.uint8), pixel=0, crs=None)) as scene:
        assert (scene.ratio, scene.grid.shape, scene.placed) == (3, (5, 7), False)
        assert scene.notes == ("neither image says where it lies; taken to cover the same ground, corner to corner",)
    with pytest.raises(InputError, match=r"2\.85714 × 3 PAN pixels"):
        Scene.open(ms, write_tif("odd.tif", np.ones((15, 20), np.uint8), pixel=0, crs=None))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crs": None}, "MS has a coordinate system and PAN has none"),
        ({"crs": "EPSG:32634"}, "WGS 84 / UTM zone 33N and PAN in WGS 84 / UTM zone 34N; .* adcdnet align"),
        ({"corner": (CORNER[0] + 99 * PIXEL, CORNER[1])}, "no ground in common"),
        ({"pixel": PIXEL / 3.7}, "3.7 × 3.7 PAN pixels"),
        ({"pixel": 0, "crs": None}, "ms.tif says where its pixels lie and .*pan.tif does not"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_in_one_line(write_tif, options, said):
    ms = write_tif("ms.tif", np.ones((5, 7), np.uint8))
    pan = write_tif("pan.tif", np.ones((10, 14), np.uint8), **{"pixel": PIXEL / 2} | options)
    with pytest.raises(InputError, match=said) as caught:
        Scene.open(ms, pan)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_rasters_are_refused_in_one_line(write_tif, tmp_path):
    good = write_tif("good.tif", np.ones((5, 7), np.uint8))
    text = tmp_path / "text.tif"
    text.write_text("not a raster\n")
    wave = write_tif("wave.tif", np.ones((5, 7), np.complex64))
    for path, said in (
        (tmp_path / "none.tif", r"none\.tif does not exist"),
        (tmp_path, "is a folder"),
        (text, r"text\.tif cannot be read as a raster"),
        (wave, r"wave\.tif holds complex numbers"),
    ):
        for pair in ((good, path), (path, good)):
            with pytest.raises(InputError, match=said) as caught:
                Scene.open(*pair)
            assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_named_when_it_is_read(write_tif):
    ms = write_tif("ms.tif", np.ones((200, 200), np.uint8))
    pan = write_tif("pan.tif", np.ones((200, 200), np.uint8))
    os.truncate(pan, pan.stat().st_size // 2)
    with (
        Scene.open(ms, pan) as scene,
        pytest.raises(InputError, match=r"pan\.tif cannot be read as a raster") as caught,
    ):
        scene.read(scene.grid.window)
    assert "\n" not in str(caught.value)


# ---- writing


def test_what_is_written_by_tiles_reads_back_exactly(tmp_path):
    path = tmp_path / "map.tif"
    codes = np.random.default_rng(0).choice([0, 1, 2, 5], GRID.shape).astype(np.uint8)
    options = {"classes": CLASSES, "descriptions": ["class"], "tags": {"MODEL": "m"}}
    with RasterWriter(path, GRID, **options) as writer:
        for window in tiles(*GRID.shape, 17):
            writer.write(codes[window.slices], window)
    array, grid, nodata = read_band(path)
    assert np.array_equal(array, codes)
    assert (grid, nodata) == (GRID, 0)
    with rasterio.open(path) as dataset:
        assert dataset.tags()["MODEL"] == "m"
        assert json.loads(dataset.tags()["CLASS_NAMES"]) == {"1": "water", "2": "Wald & Wiese", "5": "rock"}
        assert dataset.descriptions == ("class",)
        assert [dataset.colormap(1)[v] for v in (0, 1, 5)] == [(0, 0, 0, 0), (0, 0, 255, 255), (128, 128, 128, 255)]
        assert (dataset.compression.name, dataset.block_shapes, dataset.overviews(1)) == ("deflate", [(256, 256)], [])
    names = [node.text for node in ElementTree.parse(f"{path}.aux.xml").iter("Category")]
    assert names == [None, "water", "Wald & Wiese", None, None, "rock"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.qml", "map.tif", "map.tif.aux.xml"]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_several_bands_of_any_type_read_back_exactly_and_none_is_transparency(tmp_path, dtype):
    values = (np.random.default_rng(1).random((4, *GRID.shape)) * 99).astype(dtype)
    write_raster(tmp_path / "p.tif", values, GRID, nodata=None)
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert np.array_equal(dataset.read(), values)
        assert [kind.name for kind in dataset.colorinterp] == ["gray"] + ["undefined"] * 3
        assert (dataset.nodata, dataset.dtypes) == (None, (dtype,) * 4)


def test_codes_are_thinned_and_measures_averaged_in_overviews(tmp_path):
    grid = Grid(300, 514, GRID.transform, GRID.crs)
    checks = np.indices(grid.shape).sum(axis=0) % 2 * 4 + 1  # 1 5 1 5 ...: the mean, 3, is no class
    for dtype, found in (("uint8", {1, 5}), ("float32", {3.0})):
        write_raster(tmp_path / "o.tif", checks.astype(dtype), grid)
        with rasterio.open(tmp_path / "o.tif") as dataset:
            assert dataset.overviews(1) == [2, 4]
        with rasterio.open(tmp_path / "o.tif", overview_level=0) as dataset:
            assert dataset.shape == (150, 257)
            assert set(np.unique(dataset.read(1)).tolist()) <= found


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_writer_leaves_nothing_and_an_older_file_alone(tmp_path, error):
    path = tmp_path / "map.tif"
    write_raster(path, np.ones(GRID.shape, np.uint8), GRID, classes=CLASSES)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupted():
        with RasterWriter(path, GRID) as writer:
            writer.write(np.zeros((9, 9), np.uint8), Window(0, 0, 9, 9))
            raise error

    with pytest.raises(error):
        interrupted()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_failure_at_the_last_step_leaves_the_older_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "map.tif"
    write_raster(path, np.ones(GRID.shape, np.uint8), GRID, classes=CLASSES)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"map\.tif cannot be written: No space left on device"):
        write_raster(path, np.zeros(GRID.shape, np.uint8), GRID)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_files_beside_an_older_raster_do_not_describe_the_new_one(tmp_path):
    path = tmp_path / "map.tif"
    write_raster(path, np.ones(GRID.shape, np.uint8), GRID, classes=CLASSES)
    Path(f"{path}.ovr").write_bytes(b"overviews of the older file")
    write_raster(path, np.ones(GRID.shape, np.float32), GRID)
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_an_array_that_does_not_fill_its_window_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not fill"), RasterWriter(tmp_path / "m.tif", GRID) as writer:
        writer.write(np.zeros((9, 8), np.uint8), Window(0, 0, 9, 9))  # GDAL would resample it


def test_places_where_nothing_can_be_written_are_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    places = [tmp_path, tmp_path / "none" / "m.tif", file / "m.tif"]
    if os.geteuid() != 0:  # the superuser may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        places.append(locked / "m.tif")
    for path in places:
        with pytest.raises(InputError, match=r"cannot be written|is a folder") as caught:
            write_raster(path, np.ones(GRID.shape, np.uint8), GRID)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


_FULL_DISK = """
import os, resource, sys
from pathlib import Path
import numpy as np
from affine import Affine
from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, tiles
from adcdnet.geo.raster_writer import RasterWriter

path, side, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
grid = Grid(side, side, Affine(1, 0, 0, 0, -1, 0))
noise = np.random.default_rng(0).integers(0, 255, grid.shape).astype(np.uint8)

def write():
    with RasterWriter(path, grid) as writer:
        for window in tiles(*grid.shape, 256):
            writer.write(noise[window.slices], window)

write()
whole = path.read_bytes()
for limit in [0, 1, 99, *range(step, len(whole), step), len(whole) - 1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write()
    except InputError as error:
        assert "map.tif cannot be written: " in str(error) and "\\n" not in str(error), str(error)
    else:
        raise AssertionError(f"no error at {limit} of {len(whole)} bytes")
    assert os.listdir(path.parent) == ["map.tif"] and path.read_bytes() == whole, limit
resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole), resource.RLIM_INFINITY))
write()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as only Linux is known to")
@pytest.mark.parametrize(("side", "step"), [(100, 500), (700, 15_000)])  # without and with overviews
def test_a_full_disk_never_passes_for_a_written_file(tmp_path, side, step):
    """Wherever the disk becomes full, in the pixels, the overviews or the directory, which are written on closing."""
    command = [sys.executable, "-c", _FULL_DISK, tmp_path / "map.tif", str(side), str(step)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


# ---- labels and maps


def test_read_band_wants_one_band(write_tif):
    with pytest.raises(InputError, match="has 2 bands"):
        read_band(write_tif("two.tif", np.ones((2, 5, 7), np.uint8)))


# ---- the real scenes


@pytest.mark.real
@pytest.mark.parametrize(("ratio", "shape"), [(2, (168, 262)), (4, (84, 131))])
def test_landsat_pair(real_data, ratio, shape):
    folder = real_data / f"nc_landsat7_x{ratio}"
    with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
        assert (scene.ratio, scene.grid.shape, scene.ms_bands, scene.pan_bands) == (ratio, shape, 6, 1)
        assert (scene.notes, scene.ms_descriptions[3]) == ((), "B4 nir")
        assert scene.read(scene.grid.window).valid.all()


@pytest.mark.real
def test_sentinel_pair_is_cut_to_its_common_extent(real_data):
    folder = real_data / "rcv_sentinel2"
    with Scene.open(folder / "coarse.tif", folder / "fine.tif") as scene:
        assert (scene.ratio, scene.grid.shape, scene.ms_bands, scene.pan_bands) == (2, (325, 325), 6, 4)
        assert scene.grid.transform @ (0, 0) == (716060, 4428220)
        assert scene.notes == (
            "MS covers 326×325, PAN 651×651 pixels; working on the common extent of 325×325 MS pixels",
        )
        assert scene.read(scene.grid.window).valid.all()


@pytest.mark.real
def test_landsat_pairs_without_coordinate_system(real_data):
    folder = real_data / "landsat7_pairs" / "1"
    with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
        assert (scene.ratio, scene.grid.shape) == (2, (400, 400))
        assert scene.notes == ("neither image has a coordinate system",)


def test_a_finished_file_clears_what_killed_processes_left_of_it(tmp_path):
    ended, running = tmp_path / ".map.tif.x_1.part", HeldFolder.make(tmp_path, ".map.tif.", ".part")
    for name in (".map.tif.x_1.part", ".amap.tif.x.part", ".map.tif.2.x.part", ".mapxtif.x.part"):
        left_by_a_killed_process(tmp_path / name)
    (ended / "raster.tif").write_bytes(b"half")
    (tmp_path / ".map.tif.x.part").mkdir()  # of no lock
    before = {p.name for p in tmp_path.iterdir()}
    assert running.path.name in before
    write_raster(tmp_path / "map.tif", np.ones((3, 5), np.uint8), Grid(3, 5, Affine(10, 0, 0, 0, -10, 0)))
    assert {p.name for p in tmp_path.iterdir()} == before - {ended.name} | {"map.tif"}


def test_a_part_folder_is_held_while_it_is_written(tmp_path):
    with RasterWriter(tmp_path / "map.tif", Grid(3, 5, Affine(10, 0, 0, 0, -10, 0))):
        (part,) = tmp_path.iterdir()
        assert HeldFolder.hold(part) is None


# ---- PAN moved by whole pixels


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (-3, 2), (0, -5)])
def test_pan_moves_by_whole_pixels_and_what_it_leaves_is_invalid(tiny_pair, rows, cols):
    with Scene.open(*tiny_pair()) as scene:
        whole = scene.read(scene.grid.window)
        scene = scene.with_pan_moved(rows, cols)
        moved = scene.read(scene.grid.window)
        tiles = scene.read(Window(-2, -1, 9, 8)), scene.read(scene.grid.window.grow(2))
        small = scene.overview(9)
    expected = np.pad(whole.pan[0], 6, constant_values=0)[6 - rows :, 6 - cols :][:26, :22]
    valid = np.pad(whole.pan_valid, 6)[6 - rows :, 6 - cols :][:26, :22]
    assert np.array_equal(moved.pan[0], expected)
    assert np.array_equal(moved.pan_valid, valid)
    assert np.array_equal(moved.ms, whole.ms)
    # beyond the extent both are mirrored where MS is mirrored, so that they stay on each other
    assert np.array_equal(tiles[0].pan[0, 4:, 2:], expected[:14, :14])
    assert np.array_equal(tiles[0].pan[0, :4, 2:], expected[3::-1, :14])
    assert np.array_equal(tiles[1].pan_valid, np.pad(valid, 4, mode="symmetric"))
    assert max(small.pan.shape) <= 9
    assert scene.pan_shift == (rows, cols)
    assert scene.notes[-1] == f"PAN is read moved by {rows:+d} rows and {cols:+d} columns of its pixels"


def test_pan_moved_into_the_extent_comes_from_the_file(write_tif):
    pan = np.arange(1, 14 * 14 + 1, dtype=np.uint16).reshape(14, 14)
    corner = (CORNER[0] - PIXEL, CORNER[1] + PIXEL)  # two PAN pixels more than MS on every side
    paths = write_tif("ms.tif", np.ones((5, 5), np.uint8)), write_tif("pan.tif", pan, pixel=PIXEL / 2, corner=corner)
    with Scene.open(*paths) as scene:
        scene = scene.with_pan_moved(1, 0)
        scene = scene.with_pan_moved(0, -2)
        pixels = scene.read(scene.grid.window)
    assert np.array_equal(pixels.pan[0], pan[1:11, 4:14])
    assert pixels.pan_valid.all()
    assert scene.pan_shift == (1, -2)


def test_scenes_made_from_one_leave_it_as_it_was_and_share_its_files(tiny_pair, write_tif):
    hidden = np.zeros((13, 11), np.uint8)
    hidden[4, 5] = 1
    scene = Scene.open(*tiny_pair(), mask=write_tif("mask.tif", hidden), ms_bands=["2", "1"])
    before = scene.read(scene.grid.window)
    moved = scene.with_notes("why").with_pan_moved(3, 0)
    assert (scene.pan_shift, scene.notes, moved.pan_shift, moved.notes[0]) == ((0, 0), (), (3, 0), "why")
    assert all(np.array_equal(*pair) for pair in zip(scene.read(scene.grid.window), before, strict=True))
    assert moved.chosen == scene.chosen == {"ms": ["2", "1"]}
    assert not moved.read(moved.grid.window).ms_valid[4, 5]
    moved.close()
    scene.close()
    for closed in (scene, moved):
        with pytest.raises(InputError):
            closed.read(closed.grid.window)
