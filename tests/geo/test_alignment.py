"""Laying PAN on MS: by whole pixels while reading, and by a resampled copy on a grid that fits."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import Resampling, reproject, transform_bounds

import adcdnet as ad
from adcdnet.config import TrainConfig
from adcdnet.demo.simulate import simulate
from adcdnet.errors import InputError
from adcdnet.geo import alignment
from adcdnet.geo.alignment import align, contrast_left, fix_shift, measured_shift, note_shift
from adcdnet.geo.registration import measure
from adcdnet.geo.scene import Scene
from adcdnet.mapping.journal import fingerprint
from adcdnet.mapping.model import Model
from conftest import CORNER, PIXEL, QUICK, UTM


@pytest.fixture(scope="module")
def ground():
    """MS of 83 × 71 pixels and PAN 8 times finer."""
    return simulate(83, 71, ratio=8, seed=3)


def pan_of(ground, ratio, row=0.0, col=0.0):
    """PAN that needs the correction (row, col), multiples of ratio / 8 of its pixels."""
    finer = 8 // ratio
    moved = np.roll(ground.pan[0].astype(np.float32), (-round(row * finer), -round(col * finer)), (0, 1))
    return moved.reshape(83 * ratio, finer, 71 * ratio, finer).mean((1, 3))


@pytest.fixture
def pair(ground, write_tif):
    """pair(ratio, row, col, **options of PAN's file) -> paths of MS and a PAN that needs the correction (row, col)."""

    def write(ratio=2, row=0.0, col=0.0, **options):
        pan = pan_of(ground, ratio, row, col)
        return write_tif("ms.tif", ground.ms), write_tif("pan.tif", pan, **({"pixel": PIXEL / ratio} | options))

    return write


def contents(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def correction(ms, pan):
    with Scene.open(ms, pan) as scene:
        found = measure(scene.read, *scene.grid.shape)
    return found.row, found.col


# ---- a resampled copy


@pytest.mark.parametrize("resample", ["pan", "ms"])
def test_an_image_that_fits_already_is_copied(pair, tmp_path, resample):
    ms, pan = pair()
    found = align(ms, pan, out=tmp_path / "out.tif", resample=resample)
    original = pan if resample == "pan" else ms
    assert np.array_equal(contents(tmp_path / "out.tif"), contents(original))
    with rasterio.open(tmp_path / "out.tif") as dataset, rasterio.open(original) as source:
        assert dataset.transform == source.transform
        assert dataset.crs == source.crs
        assert dataset.descriptions == source.descriptions
        assert dataset.tags()["ALIGNED"].startswith(f"cubic convolution of {original.name} onto the grid of ")
    assert (found.ratio, found.shift, found.measured) == (2, (0, 0), None)


@pytest.mark.parametrize("shift", [(1, -2), (-3, 0)])
def test_a_whole_shift_moves_pixels_down_and_right(pair, tmp_path, shift):
    ms, pan = pair()
    align(ms, pan, out=tmp_path / "out.tif", shift=shift)
    with Scene.open(ms, pan) as scene:
        scene = scene.with_pan_moved(*shift)
        expected = scene.read(scene.grid.window)
    moved = contents(tmp_path / "out.tif")[0]
    assert np.array_equal(np.isfinite(moved), expected.pan_valid)
    assert np.array_equal(np.nan_to_num(moved), expected.pan[0])


@pytest.mark.parametrize("resample", ["pan", "ms"])
@pytest.mark.parametrize(("ratio", "row", "col"), [(2, 1.5, -0.75), (4, -2.5, 3.0)])
def test_a_measured_fraction_is_mended(pair, tmp_path, resample, ratio, row, col):
    ms, pan = pair(ratio, row, col)
    out = tmp_path / "out.tif"
    found = align(ms, pan, out=out, resample=resample, shift="auto")
    assert found.shift == pytest.approx((row, col), abs=0.06)
    # what MS pixels alias moves the wrong way when they are resampled
    left = 0.1 if resample == "pan" else 0.25
    assert correction(*((ms, out) if resample == "pan" else (out, pan))) == pytest.approx((0, 0), abs=left)


@pytest.mark.parametrize("resample", ["pan", "ms"])
def test_a_ratio_that_is_not_whole_and_edges_that_miss(ground, write_tif, tmp_path, resample):
    pixel = PIXEL / 3.4
    corner = (CORNER[0] - 7.3, CORNER[1] + 5.1)
    fine = pan_of(ground, 8)
    pan = np.zeros((290, 250), np.float32)
    reproject(
        fine,
        pan,
        src_transform=Affine(PIXEL / 8, 0, CORNER[0], 0, -PIXEL / 8, CORNER[1]),
        dst_transform=Affine(pixel, 0, corner[0], 0, -pixel, corner[1]),
        src_crs=UTM,
        dst_crs=UTM,
        resampling=Resampling.average,
    )
    ms, pan = write_tif("ms.tif", ground.ms), write_tif("pan.tif", pan, pixel=pixel, corner=corner, nodata=0)
    with pytest.raises(InputError, match="adcdnet align"):
        Scene.open(ms, pan)
    out = tmp_path / "out.tif"
    found = align(ms, pan, out=out, resample=resample)
    assert found.ratio == 3
    assert correction(*((ms, out) if resample == "pan" else (out, pan))) == pytest.approx((0, 0), abs=0.1)


@pytest.mark.parametrize("resample", ["pan", "ms"])
def test_another_coordinate_system(ground, pair, write_tif, tmp_path, resample):
    ms, pan = pair()
    left, bottom, right, top = transform_bounds(
        UTM, "EPSG:32634", CORNER[0], CORNER[1] - 83 * PIXEL, CORNER[0] + 71 * PIXEL, CORNER[1]
    )
    place = Affine(PIXEL / 2, 0, left, 0, -PIXEL / 2, top)
    turned = np.zeros((round(2 * (top - bottom) / PIXEL), round(2 * (right - left) / PIXEL)), np.float32)
    with rasterio.open(pan) as source:
        options = {"src_transform": source.transform, "src_crs": source.crs, "resampling": Resampling.cubic}
        reproject(source.read(1), turned, dst_transform=place, dst_crs="EPSG:32634", **options)
    pan = write_tif("turned.tif", turned, crs="EPSG:32634", transform=place, pixel=0, nodata=0)
    with pytest.raises(InputError, match="adcdnet align"):
        Scene.open(ms, pan)
    out = tmp_path / "out.tif"
    align(ms, pan, out=out, resample=resample)
    assert correction(*((ms, out) if resample == "pan" else (out, pan))) == pytest.approx((0, 0), abs=0.1)
    if resample == "pan":
        with rasterio.open(out) as dataset:
            assert dataset.shape == (166, 142)  # whole MS, all of which PAN covers
            assert dataset.read_masks(1).mean() > 250


@pytest.mark.parametrize("pixel", [PIXEL / 3.7, PIXEL / 4 * 0.95])  # the second where GDAL begins to widen kernels
def test_the_result_does_not_depend_on_tiles(pair, tmp_path, monkeypatch, pixel):
    ms, pan = pair(4, pixel=pixel)
    copies = []
    for tile in (1000, 61):
        monkeypatch.setattr(alignment, "_TILE", tile)
        align(ms, pan, out=tmp_path / "out.tif", shift=(0.3, -0.6))
        copies.append(contents(tmp_path / "out.tif"))
    assert np.array_equal(np.isnan(copies[0]), np.isnan(copies[1]))
    assert np.nan_to_num(copies[0]) == pytest.approx(np.nan_to_num(copies[1]), rel=1e-4)


@pytest.mark.parametrize(
    ("phase", "scale", "left"),
    [
        (0.0, 1.0, 1.0),
        (0.5, 1.0, 5 * 2**0.5 / 8),  # weights −1 9 9 −1, in sixteenths
        (0.25, 1.0, (0.890625**2 + 0.296875**2) ** 0.5),  # −0.0703125 0.8671875 0.2265625 −0.0234375
        (-0.75, 1.0, (0.890625**2 + 0.296875**2) ** 0.5),
        (0.5, 0.95, 5 * 2**0.5 / 8),  # not yet wider
        (0.0, 0.5, 0.5),  # −1 0 9 16 9 0 −1, in thirty-seconds: neighbours at odd distance cancel out
    ],
)
def test_what_cubic_convolution_leaves_of_a_wave_of_four_pixels(phase, scale, left):
    assert contrast_left(np.array([phase]), scale) == pytest.approx([left])


@pytest.mark.parametrize("pixel", [14.25, 15.1, 13.0])  # of PAN, where 15 m are needed
def test_the_contrast_that_is_told_is_that_of_the_copy(write_tif, tmp_path, pixel):
    n = int(30 * 200 / pixel)
    wave = np.cos(np.pi / 2 * np.arange(n))
    pan = (100 * wave + 0 * wave[:, None]).astype(np.float32)
    ms, pan = write_tif("ms.tif", np.ones((200, 200), np.float32), pixel=30.0), write_tif("pan.tif", pan, pixel=pixel)
    found = align(ms, pan, out=tmp_path / "out.tif")
    copy, at = contents(tmp_path / "out.tif")[0, 200], (np.arange(400) + 0.5) * 15 / pixel - 0.5
    there = np.isfinite(copy)
    amplitude = np.abs(2 * np.mean((copy * np.exp(-0.5j * np.pi * at))[there])) / 100
    assert found.contrast == pytest.approx(amplitude, abs=0.004)
    assert found.notes == ()


def test_rows_and_columns_count_alike_in_the_contrast(pair, tmp_path):
    found = align(*pair(), out=tmp_path / "out.tif", shift=(0.5, 1))
    assert found.contrast == pytest.approx((5 * 2**0.5 / 8 + 1) / 2)


def test_where_no_copy_is_needed_that_is_said(call, pair, tmp_path):
    ms, pan = pair(2, corner=(CORNER[0] + PIXEL / 4, CORNER[1] - PIXEL / 4))
    code, out, err = call("align", "--ms", ms, "--pan", pan, "--out", tmp_path / "out.tif")
    assert code == 0
    assert "details 4 PAN pixels wide keep 88% of their contrast; half a pixel off all over would leave 88%" in out
    assert err.endswith(
        "PAN pixels lie 0.50 rows and 0.50 columns off the MS edges, but MS and PAN fit as they are: `train` and "
        "`predict` take both without a copy\n"
    )
    assert "without a copy" not in " ".join(align(ms, pan, out=tmp_path / "out.tif", shift=(0.2, 0)).notes)


def test_what_the_source_does_not_know_stays_unknown(ground, write_tif, tmp_path):
    pan = pan_of(ground, 2)
    pan[40:60, 30:50] = 0
    ms, pan = write_tif("ms.tif", ground.ms), write_tif("pan.tif", pan, pixel=PIXEL / 2, nodata=0)
    align(ms, pan, out=tmp_path / "out.tif", shift=(0.5, 0))
    unknown = np.isnan(contents(tmp_path / "out.tif")[0])
    assert unknown[42:59, 31:49].all()
    assert not unknown[62:, 2:].any()


def test_images_without_any_place_lie_corner_to_corner(ground, write_tif, tmp_path):
    fine = pan_of(ground, 8)
    pan = np.zeros((299, 256), np.float32)  # 3.6 times as many as in MS
    scale = Affine.scale(fine.shape[1] / 256, fine.shape[0] / 299)
    plane = {"src_crs": UTM, "dst_crs": UTM}
    reproject(fine, pan, src_transform=Affine.identity(), dst_transform=scale, resampling=Resampling.average, **plane)
    ms, pan = write_tif("ms.tif", ground.ms, pixel=0, crs=None), write_tif("pan.tif", pan, pixel=0, crs=None)
    with pytest.raises(InputError, match="adcdnet align"):
        Scene.open(ms, pan)
    found = align(ms, pan, out=tmp_path / "out.tif", shift="auto")
    assert found.ratio == 4
    assert "corner to corner" in " ".join(found.notes)
    with Scene.open(ms, tmp_path / "out.tif") as scene:
        assert scene.grid.shape == (83, 71)
        assert not scene.placed
    with pytest.raises(InputError, match="only PAN can be resampled"):
        align(ms, pan, out=tmp_path / "x.tif", resample="ms")


def test_the_command(call, pair, tmp_path):
    ms, pan = pair(2, 1, 1)
    before = ms.read_bytes(), pan.read_bytes()
    code, out, err = call("align", "--ms", ms, "--pan", pan, "--shift", "auto", "--out", tmp_path / "out.tif")
    assert (code, err) == (0, "")
    assert "correction of PAN: +1.0" in out
    assert f"use it with --ms {ms} --pan {tmp_path / 'out.tif'}" in out
    assert (ms.read_bytes(), pan.read_bytes()) == before
    assert call("align", "--ms", ms, "--pan", pan, "--shift", "1;2", "--out", tmp_path / "x.tif")[0] == 2
    assert call("align", "--ms", ms, "--pan", pan, "--resample", "both", "--out", tmp_path / "x.tif")[0] == 2


# ---- what is refused, with nothing left behind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": None}, "ms.tif has a coordinate system and .*pan.tif has none"),
        ({"corner": (CORNER[0] + 90_000, CORNER[1])}, "have no ground in common"),
        ({"pixel": PIXEL * 3}, "as wide as 0.333 PAN pixels; .* exchange the two"),
        ({"pixel": PIXEL / 40}, "as wide as 40 PAN pixels; .* average PAN"),
    ],
)
def test_pairs_that_cannot_be_aligned(pair, tmp_path, options, message):
    ms, pan = pair(**options)
    with pytest.raises(InputError, match=message) as raised:
        align(ms, pan, out=tmp_path / "out.tif")
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "pan.tif"]


def test_other_refusals_leave_nothing_behind(pair, ground, write_tif, tmp_path):
    ms, pan = pair()
    flat = write_tif("flat.tif", np.full((166, 142), 9, np.uint8), pixel=PIXEL / 2)
    turned = write_tif("turned.tif", ground.ms, transform=Affine(9, 3, CORNER[0], 3, -9, CORNER[1]), pixel=0)
    here = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "out.tif"
    for message, arguments in (
        ("one of the files that are read", {"ms": ms, "pan": pan, "out": pan}),
        ("cannot be measured", {"ms": ms, "pan": flat, "out": out, "shift": "auto"}),
        ("two finite numbers", {"ms": ms, "pan": pan, "out": out, "shift": (float("nan"), 0)}),
        ("must be north-up, .* --resample ms", {"ms": turned, "pan": pan, "out": out}),
        ("does not exist", {"ms": tmp_path / "no.tif", "pan": pan, "out": out}),
        ("cannot be written", {"ms": ms, "pan": pan, "out": tmp_path / "no" / "out.tif"}),
    ):
        with pytest.raises(InputError, match=message):
            align(**arguments)
        assert sorted(path.name for path in tmp_path.iterdir()) == here
    align(turned, pan, out=out, resample="ms")
    with Scene.open(out, pan) as scene:
        assert scene.ratio == 2
    assert ad.align is align


# ---- whole pixels while reading


def test_whole_pixels_of_the_correction_are_applied_and_said(pair):
    with Scene.open(*pair(2, 2.5, -1)) as scene:
        found, scene = measured_shift(scene.read, scene.grid), fix_shift(scene)
        again = measure(scene.read, *scene.grid.shape)
        assert scene.pan_shift == found.whole
        assert found.whole in ((2, -1), (3, -1))
        assert (again.row, again.col) == pytest.approx((2.5 - found.whole[0], 0), abs=0.06)
        assert "correction of PAN measured: +2.5" in scene.notes[-2]
        assert "PAN is read moved by" in scene.notes[-1]


def test_a_correction_that_is_not_sure_enough_is_refused(ground, write_tif):
    other = simulate(83, 71, ratio=2, seed=44).pan
    paths = write_tif("ms.tif", ground.ms), write_tif("pan.tif", other, pixel=PIXEL / 2)
    with Scene.open(*paths) as scene:
        with pytest.raises(InputError, match=r"cannot be measured|only to ±") as raised:
            fix_shift(scene)
        assert scene.pan_shift == (0, 0)
    assert "\n" not in str(raised.value)


def test_rotation_is_said(pair, ground, write_tif):
    fine = pan_of(ground, 4)
    turned = np.zeros_like(fine)
    lying = Affine.translation(142, 166) @ Affine.rotation(0.5) @ Affine.translation(-142, -166)
    reproject(
        fine, turned, src_transform=Affine.scale(1, 1), dst_transform=lying, src_crs=UTM, dst_crs=UTM, resampling=2
    )
    with Scene.open(pair()[0], write_tif("turned.tif", turned, pixel=PIXEL / 4, nodata=0)) as scene:
        scene = fix_shift(scene)
        assert any("no single shift can mend" in note for note in scene.notes)


def test_a_shift_of_a_pixel_is_noted_where_it_is_not_fixed(pair):
    for row, col, noted in ((0.25, 0, False), (1, 0, True), (0, -2.25, True)):
        with Scene.open(*pair(2, row, col)) as scene:
            scene = note_shift(scene)
            assert scene.pan_shift == (0, 0)
            assert any("--fix-shift" in note for note in scene.notes) == noted


@pytest.mark.usefixtures("few_trials")
def test_train_and_predict_with_fix_shift(call, ground, pair, write_tif, tmp_path):
    ms, pan = pair(2, 1, -2)
    labels = write_tif("labels.tif", np.where(ground.labels > 4, 2, 1).astype(np.uint8))
    (tmp_path / "quick.toml").write_text(TrainConfig.of_profile("patch").replace(QUICK).to_toml())
    images = "--ms", ms, "--pan", pan
    run, note = tmp_path / "run", "PAN is read moved by +1 rows and -2 columns of its pixels"
    options = "--labels", labels, "--out", run, "--config", tmp_path / "quick.toml", "--no-stage1", "--fix-shift"
    code, _, err = call("train", *images, *options)
    assert code == 0, err
    assert note in err
    assert note in Model.load(run).record.notes
    maps = []
    for more in ((), ("--fix-shift",)):
        code, _, err = call("predict", run, *images, "--out", tmp_path / "map.tif", *more)
        assert code == 0, err
        assert (note in err) == bool(more)
        maps.append(contents(tmp_path / "map.tif")[0])
    assert not np.array_equal(*maps)
    assert (maps[1][0] == 0).all()  # one PAN row is unknown there
    assert (maps[1][1:, :-1] > 0).all()
    assert (maps[1][:, -1] == 0).all()


def test_tiles_kept_without_the_correction_are_not_used_with_it(tiny_model, tiny_scene):
    before = fingerprint(tiny_model, tiny_scene, ())
    tiny_scene = tiny_scene.with_pan_moved(0, 1)
    assert fingerprint(tiny_model, tiny_scene, ()) != before
    tiny_scene = tiny_scene.with_pan_moved(0, -1)
    assert fingerprint(tiny_model, tiny_scene, ()) == before
