"""Rasters that lie otherwise than north-up, or say so otherwise than by a transform; and bands that are masks."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from adcdnet.errors import InputError
from adcdnet.geo.alignment import align
from adcdnet.geo.grid import Window
from adcdnet.geo.raster import RasterReader, read_band
from adcdnet.geo.scene import Scene
from conftest import CORNER, PIXEL, UTM

WINDOW = Window(-2, 3, 9, 12)  # of 13 × 11, over two edges


def rewritten(path, change, name):
    """A copy whose bands and transform `change(bands, transform)` gives."""
    with rasterio.open(path) as dataset:
        bands, transform = change(dataset.read(), dataset.transform)
    copy = path.with_name(name)
    count, height, width = bands.shape
    shape = {"height": height, "width": width, "count": count, "dtype": bands.dtype, "photometric": "minisblack"}
    with rasterio.open(copy, "w", driver="GTiff", crs=UTM, transform=transform, nodata=0, **shape) as dataset:
        dataset.write(bands)
    return copy


def south_up(bands, t):
    return bands[:, ::-1], t @ Affine.translation(0, bands.shape[1]) @ Affine.scale(1, -1)


def east_to_west(bands, t):
    return bands[:, :, ::-1], t @ Affine.translation(bands.shape[2], 0) @ Affine.scale(-1, 1)


def both_ways(bands, t):
    return east_to_west(*south_up(bands, t))


def as_it_is(bands, t):
    return bands, t


# ---- flipped


@pytest.mark.parametrize("change", [south_up, east_to_west, both_ways])
def test_flipped_images_read_like_the_image_itself(tiny_pair, change):
    ms, pan = tiny_pair()
    plain = [rewritten(path, as_it_is, f"plain_{path.name}") for path in (ms, pan)]
    flipped = [rewritten(path, change, f"flipped_{path.name}") for path in (ms, pan)]
    for pair in (flipped, [flipped[0], plain[1]]):
        with Scene.open(*plain) as scene, Scene.open(*pair) as other:
            assert other.grid == scene.grid
            for mine, right in zip(other.read(WINDOW), scene.read(WINDOW), strict=True):
                assert np.array_equal(mine, right)
            assert np.allclose(other.overview(40).ms, scene.overview(40).ms)
            assert "flipped_ms.tif is stored" in other.notes[0]
            assert "flipped while it is read" in other.notes[0]
            assert scene.notes == ()


@pytest.mark.parametrize("change", [south_up, both_ways])
def test_flipped_labels_and_maps_read_like_they_lie(write_tif, change):
    path = write_tif("labels.tif", np.arange(35, dtype=np.uint8).reshape(5, 7))
    copy = rewritten(path, change, "flipped.tif")
    values, grid, _ = read_band(path)
    mine, own, _ = read_band(copy)
    assert np.array_equal(mine, values)
    assert own == grid
    with RasterReader(copy) as reader:
        assert np.array_equal(reader.read(Window(1, 2, 3, 4))[0], values[1:4, 2:6])


def test_flipped_masks_hide_where_they_lie(tiny_pair, write_tif):
    mask = np.zeros((13, 11), np.uint8)
    mask[2, 3] = 1
    copy = rewritten(write_tif("mask.tif", mask), south_up, "flipped.tif")
    with Scene.open(*tiny_pair(), mask=copy) as scene:
        assert np.argwhere(~scene.read(scene.grid.window).ms_valid).tolist() == [[2, 3]]


# ---- rotated


def test_a_rotation_that_moves_no_pixel_is_ignored_and_a_larger_one_is_not(tiny_pair):
    ms, pan = tiny_pair()

    def rotated(by):
        return lambda bands, t: (bands, Affine(t.a, by * t.a / bands.shape[1], t.c, 0, t.e, t.f))

    with Scene.open(rewritten(ms, rotated(0.02), "a_little.tif"), pan) as scene:
        assert scene.grid.transform == Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1])
        assert scene.notes == ("a_little.tif is rotated by 0.02 pixels over the whole image, which is ignored",)
    with pytest.raises(InputError, match=r"MS is rotated .* with adcdnet align --resample ms"):
        Scene.open(rewritten(ms, rotated(0.2), "much.tif"), pan)


def test_advice_for_rotated_images_leads_out(tiny_pair, tmp_path):
    turned = [
        rewritten(path, lambda bands, t: (bands, t @ Affine.rotation(9)), f"turned_{path.name}") for path in tiny_pair()
    ]
    with pytest.raises(InputError, match=r"MS is rotated .* with gdalwarp, both of them"):
        Scene.open(*turned)
    for which in ("pan", "ms"):
        with pytest.raises(InputError, match="but it is rotated; warp both") as caught:
            align(*turned, out=tmp_path / "out.tif", resample=which)
        assert "--resample" not in str(caught.value)


# ---- points and formulas in the place of a transform


def unplaced(write_tif, name, **options):
    return write_tif(name, np.ones((5, 7), np.uint8), pixel=0, **({"crs": None} | options))


@pytest.mark.parametrize("crs", [UTM, CRS()])
def test_ground_control_points_are_to_be_rectified_first(write_tif, crs):
    points = [GroundControlPoint(row, col, 500_000 + 12 * col, 5e6 - 12 * row) for row in (0, 5) for col in (0, 7)]
    ms = unplaced(write_tif, "ms.tif", gcps=points, crs=crs)
    pan = unplaced(write_tif, "pan.tif")
    where = "" if crs else "-t_srs EPSG:… "
    says = rf"ms.tif has 4 ground control points and no geotransform.*gdalwarp -r cubic {where}ms.tif ms_rectified.tif$"
    with pytest.raises(InputError, match=says):
        Scene.open(ms, pan)
    with pytest.raises(InputError, match=says):
        Scene.open(pan, pan, mask=ms)
    with pytest.raises(InputError, match=says):
        read_band(ms)


def test_rpcs_are_to_be_rectified_first(write_tif):
    ones = [1.0] * 20
    rpcs = RPC(0.0, 1.0, 49.0, 1.0, ones, ones, 3.0, 3.0, 15.0, 1.0, ones, ones, 3.0, 3.0)
    ms, pan = unplaced(write_tif, "ms.tif", rpcs=rpcs), unplaced(write_tif, "pan.tif")
    with pytest.raises(InputError, match=r"ms.tif has RPCs .*gdalwarp -rpc .*ms_rectified.tif$"):
        Scene.open(ms, pan)


def test_images_that_say_nothing_stay_usable(write_tif):
    with Scene.open(unplaced(write_tif, "ms.tif"), unplaced(write_tif, "pan.tif")) as scene:
        assert "neither image says where it lies" in scene.notes[0]


def test_points_beside_a_transform_do_no_harm(tiny_pair):
    ms, pan = tiny_pair()
    with rasterio.open(ms, "r+") as dataset:
        dataset.update_tags(ns="RPC", LINE_OFF="1")
    with Scene.open(ms, pan) as scene:
        assert scene.placed


# ---- heights


@pytest.mark.parametrize("with_height", ["ms", "pan", "mask"])
def test_a_height_in_the_coordinate_system_does_no_harm(write_tif, with_height):
    files = {
        name: write_tif(f"{name}.tif", np.ones((5, 7), np.uint8), crs=f"{UTM}+5773" if name == with_height else UTM)
        for name in ("ms", "pan", "mask")
    }
    with Scene.open(**files) as scene:
        assert scene.notes == ()


def test_another_zone_is_another_system_with_a_height_too(write_tif):
    ms = write_tif("ms.tif", np.ones((5, 7), np.uint8))
    pan = write_tif("pan.tif", np.ones((5, 7), np.uint8), crs="EPSG:32634+5773")
    with pytest.raises(InputError, match="one coordinate system is needed"):
        Scene.open(ms, pan)


# ---- transparency


def with_alpha(write_tif, alpha, bands=7, dtype=np.uint16):
    """An image of so many bands, the last of them marked as transparency; and that as the mask it should be."""
    image = np.full((bands, 5, 7), 9, dtype)
    image[-1] = alpha
    path = write_tif("ms.tif", image)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [*[ColorInterp.gray] * (bands - 1), ColorInterp.alpha]
    return path


HARD, SOFT = np.full((5, 7), 255), np.full((5, 7), 65535)
HARD[2, 3] = 0
SOFT[1, 2], SOFT[2, 3] = 32767, 0


@pytest.mark.parametrize("alpha", [HARD, SOFT])
@pytest.mark.parametrize("bands", [2, 4, 5, 7])
@pytest.mark.parametrize("dtype", [np.uint32, np.float32, np.int32])
def test_transparency_of_any_type_and_largest_value_is_a_mask(write_tif, alpha, bands, dtype):
    ms = with_alpha(write_tif, alpha, bands, dtype)
    with Scene.open(ms, write_tif("pan.tif", np.ones((5, 7), np.uint8))) as scene:
        assert scene.ms_bands == bands - 1
        assert np.argwhere(~scene.read(scene.grid.window).ms_valid).tolist() == [[2, 3]]
        assert any(f"band {bands} of ms.tif is marked as transparency: it is used as a mask" in n for n in scene.notes)


def test_a_copy_of_a_file_whose_fourth_band_holds_data_keeps_it_with_a_word(write_tif):
    """What a change of type makes of the plain uint8 files that GDAL marks so."""
    near_infrared = np.arange(35).reshape(5, 7) * 100
    ms = with_alpha(write_tif, near_infrared, bands=4)
    with Scene.open(ms, write_tif("pan.tif", np.ones((5, 7), np.uint8))) as scene:
        assert scene.ms_bands == 4
        assert "is marked as transparency but holds data; used as data" in scene.notes[0]
