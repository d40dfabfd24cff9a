"""Images as they come: masks, scaled values, chosen bands, a file per band, archives; each against the plain pair."""

import zipfile

import numpy as np
import pytest
import rasterio

from adcdnet.errors import InputError
from adcdnet.geo.grid import Window
from adcdnet.geo.scene import Scene
from conftest import PIXEL

WHOLE = Window(-3, -2, 19, 17)  # of 13 × 11, with a mirrored border


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def read(ms, pan, **how):
    with Scene.open(ms, pan, **how) as scene:
        return scene.read(WHOLE)


@pytest.fixture
def per_band(tiny_pair, write_tif):
    """The MS image of the tiny pair as a file a band, and the pair."""
    ms, pan = tiny_pair(ratio=3)
    with rasterio.open(ms) as dataset:
        bands = dataset.read()
    return [write_tif(f"B{k:02}.tif", band) for k, band in enumerate(bands, 1)], ms, pan


# ---- masks


@pytest.mark.parametrize("ratio", range(1, 9))
def test_a_mask_on_the_ms_grid_hides_both_images_at_any_ratio(tiny_pair, write_tif, ratio):
    ms, pan = tiny_pair(ratio=ratio)
    mask = np.zeros((13, 11), np.uint8)
    mask[4, 6], mask[12, 0] = 1, 200
    with Scene.open(ms, pan, mask=write_tif("mask.tif", mask)) as scene:
        found, plain = scene.read(scene.grid.window), read_plain(ms, pan)
        assert scene.ratio == ratio
        assert scene.paths == (ms, pan, ms.with_name("mask.tif"))
    fine = mask.repeat(ratio, 0).repeat(ratio, 1) != 0
    assert np.array_equal(found.ms_valid, mask == 0)
    assert np.array_equal(found.pan_valid, ~fine)
    assert np.array_equal(found.ms, np.where(mask == 0, plain.ms, 0))
    assert np.array_equal(found.pan, np.where(fine, 0, plain.pan))


def read_plain(ms, pan):
    with Scene.open(ms, pan) as scene:
        return scene.read(scene.grid.window)


def test_a_mask_on_the_pan_grid_hides_every_ms_pixel_it_touches(tiny_pair, write_tif):
    mask = np.zeros((39, 33), np.uint8)
    mask[14, 20] = 1
    with Scene.open(*tiny_pair(ratio=3), mask=write_tif("mask.tif", mask, pixel=PIXEL / 3)) as scene:
        found = scene.read(scene.grid.window)
        shown = scene.overview(5)
    assert np.argwhere(~found.ms_valid).tolist() == [[4, 6]]
    assert np.argwhere(~found.pan_valid).tolist() == [[14, 20]]
    assert shown.ms.shape[1:] == shown.ms_valid.shape


def test_the_nodata_value_of_a_mask_is_a_value(tiny_pair, write_tif):
    mask = np.zeros((13, 11), np.uint8)
    mask[0, 0] = 255
    for nodata, hidden in ((0, 1), (255, 1)):
        path = write_tif("mask.tif", mask, nodata=nodata)
        with Scene.open(*tiny_pair(), mask=path) as scene:
            assert (~scene.read(scene.grid.window).ms_valid).sum() == hidden


def test_a_mask_moves_in_the_mirrored_border_too(tiny_pair, write_tif):
    mask = np.zeros((13, 11), np.uint8)
    mask[0, 0] = 1
    found = read(*tiny_pair(), mask=write_tif("mask.tif", mask))
    assert np.argwhere(~found.ms_valid).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]


@pytest.mark.parametrize(
    ("shape", "how", "says"),
    [
        ((12, 11), {}, r"mask .* \(12×11 pixels\) is neither on the grid of MS \(13×11\) nor on that of PAN"),
        ((13, 11), {"corner": (500_001.0, 5_000_000.0)}, "is neither on the grid"),
        ((13, 11), {"crs": "EPSG:32634"}, "is neither on the grid"),
        ((2, 13, 11), {}, "has 2 bands; one is needed"),
    ],
)
def test_masks_that_do_not_fit(tiny_pair, write_tif, shape, how, says):
    with pytest.raises(InputError, match=says) as caught:
        Scene.open(*tiny_pair(), mask=write_tif("mask.tif", np.zeros(shape, np.uint8), **how))
    assert "\n" not in str(caught.value)


# ---- scale and offset


def test_values_are_scaled_as_tags_say_and_nodata_is_not(tiny_pair):
    ms, pan = tiny_pair()
    plain = read(ms, pan)
    with rasterio.open(ms, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.nodata = (0.5,) * 5, (-100.0,) * 5, 0
    with Scene.open(ms, pan) as scene:
        assert np.array_equal(scene.read(WHOLE).ms, plain.ms / 2 - 100)
        assert scene.notes == ("values of ms.tif are scaled as its tags say (scale 0.5, offset -100)",)


# ---- bands


@pytest.mark.parametrize("wanted", [["3", "1"], ["Red", "blue"], ["red", "1"]])
def test_bands_by_number_or_description_in_the_order_wanted(tiny_pair, wanted):
    ms, pan = tiny_pair()
    plain = read(ms, pan)
    with rasterio.open(ms, "r+") as dataset:
        dataset.descriptions = ("blue", "green", "red", "nir", "swir")
    with Scene.open(ms, pan, ms_bands=wanted) as scene:
        assert np.array_equal(scene.read(WHOLE).ms, plain.ms[[2, 0]])
        assert (scene.ms_bands, scene.ms_descriptions) == (2, ("red", "blue"))
        assert scene.chosen == {"ms": wanted}


def test_a_band_that_is_not_chosen_hides_nothing(write_tif, tiny_pair):
    values = np.ones((3, 13, 11), np.uint8)
    values[2, 5, 5] = 0
    found = read(write_tif("three.tif", values, nodata=0), tiny_pair()[1], ms_bands=["1", "2"])
    assert found.ms_valid.all()


@pytest.mark.parametrize("wanted", [["6"], ["0"], ["nir"], ["1", "1"], [""], ["-1"]])
def test_bands_that_are_not_there(tiny_pair, wanted):
    with pytest.raises(InputError, match=r"ms\.tif") as caught:
        Scene.open(*tiny_pair(), ms_bands=wanted)
    assert "\n" not in str(caught.value)


# ---- a file per band


def test_a_file_a_band_is_the_same_image(per_band):
    files, ms, pan = per_band
    assert same(read(files, pan), read(ms, pan))
    with Scene.open(files, [pan]) as scene:
        assert scene.ms_descriptions == ("B01", "B02", "B03", "B04", "B05")
        assert list(scene.files) == [*(f"ms {k}" for k in range(1, 6)), "pan"]
        assert set(scene.paths) == {*files, pan}
        assert same(scene.overview(6), Scene.open(ms, pan).overview(6))


def test_bands_of_several_files_are_chosen_by_number_or_file(per_band):
    files, ms, pan = per_band
    plain = read(ms, pan)
    found = read([files[0], ms, files[4]], pan, ms_bands=["7", "B01", "3"])
    assert np.array_equal(found.ms, plain.ms[[4, 0, 1]])


def test_valid_where_every_file_is(per_band, write_tif):
    files, _, pan = per_band
    other = np.ones((13, 11), np.uint8)
    other[2, 3] = 0
    found = read([files[0], write_tif("other.tif", other, nodata=0)], pan)
    assert np.argwhere(~found.ms_valid).tolist()[-1] == [5, 5]
    assert (found.ms[:, 5, 5] == 0).all()


def test_files_of_one_image_need_one_grid(per_band, write_tif):
    files, _, pan = per_band
    odd = write_tif("odd.tif", np.ones((13, 10), np.uint8))
    with pytest.raises(InputError, match=r"odd.tif \(13×10 pixels\) is not on the grid of .*B01.tif \(13×11\)"):
        Scene.open([files[0], odd], pan)


# ---- what GDAL opens


def test_images_inside_an_archive(tiny_pair, tmp_path):
    ms, pan = tiny_pair()
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.write(ms, "deep/ms.tif")
        archive.write(pan, "pan.tif")
    inside = f"/vsizip/{tmp_path}/both.zip"
    assert same(read(f"{inside}/deep/ms.tif", f"{inside}/pan.tif"), read(ms, pan))
    with pytest.raises(InputError, match="cannot be read as a raster"):
        Scene.open(f"{inside}/none.tif", pan)
