"""Grids whose edges miss each other by a part of a PAN pixel: cut by whole pixels, read as they are."""

import re

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from adcdnet.errors import InputError
from adcdnet.geo.alignment import fix_shift, note_shift
from adcdnet.geo.grid import Grid, Match, Window, match, same_phase
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Scene
from conftest import CORNER, PIXEL, write_tif_file

UTM33 = 'PROJCS["WGS 84 / UTM zone 33N"]'


def test_landsat_by_hand():
    """Centres meet: 7 MS pixels have 13 PAN pixels, and the last MS pixel lacks one of its two."""
    ms = Grid(7, 7, Affine(30, 0, 378285, 0, -30, 5000010), UTM33)
    pan = Grid(13, 13, Affine(15, 0, 378292.5, 0, -15, 5000002.5), UTM33)
    assert match(ms, pan, any_phase=True) == Match(2, Window(0, 0, 6, 6), Window(0, 0, 12, 12), (0.5, 0.5))
    with pytest.raises(InputError, match=r"miss PAN pixel edges by -0.50 rows and -0.50 columns .* must meet"):
        match(ms, pan)


@pytest.mark.parametrize(
    ("offset", "ms_row", "pan_row", "phase"),
    [
        (0.008, 1, 0, 0),  # edges that nearly meet count as meeting
        (-0.008, 1, 0, 0),
        (0.02, 1, 0, 0.02),
        (-0.02, 1, 0, -0.02),
        (0.5 + 1e-9, 1, 0, 0.5),  # rounding chooses no other pixel
        (0.5 - 1e-9, 1, 0, 0.5),
        (-0.5, 1, 1, 0.5),
        (0.74, 1, 0, 0.74),
        (0.76, 2, 1, -0.24),
        (-1.3, 0, 0, 0.7),
    ],
)
def test_which_pan_pixel_the_first_ms_pixel_begins_with(offset, ms_row, pan_row, phase):
    """PAN begins `offset` of its pixels below the second MS pixel, at ratio 2."""
    ms = Grid(7, 5, Affine(20, 0, 1000, 0, -20, 3000), UTM33)
    second = ms.transform @ Affine.translation(0, 1)
    pan = Grid(40, 20, second @ Affine.scale(0.5) @ Affine.translation(0, offset), UTM33)
    matched = match(ms, pan, any_phase=True)
    assert (matched.ms.row, matched.pan.row) == (ms_row, pan_row)
    assert matched.phase == (pytest.approx(phase, abs=1e-12), 0)


@pytest.mark.parametrize("ratio", [2, 3])
def test_a_phase_that_changes_over_the_image_is_refused(ratio):
    ms = Grid(100, 100, Affine(20, 0, 1000, 0, -20, 3000), UTM33)
    for drift, fits in ((0.08, True), (0.2, False)):
        scale = 1 / (ratio + drift / 100)
        pan = Grid(300, 300, ms.transform @ Affine.translation(-0.25, -0.25) @ Affine.scale(scale), UTM33)
        if fits:
            matched = match(ms, pan, any_phase=True)
            corner = -0.25 * ratio % 1
            assert matched.phase[0] == pytest.approx(corner - drift / 2, abs=0.002)  # as of the middle
        else:
            with pytest.raises(InputError, match="a whole number"):
                match(ms, pan, any_phase=True)


def test_phases_agree_to_a_twentieth_of_a_pixel():
    assert same_phase((0.5, 0.5), (0.55, 0.45))
    assert not same_phase((0.5, 0.5), (0.5, 0.56))
    assert not same_phase((0.44, 0.5), (0.5, 0.5))


def place_values(height: int, width: int, pixel: float, left: float, top: float) -> np.ndarray:
    """(2, h, w): y and x of every pixel's centre, in metres from the corner of all."""
    y, x = top + (np.arange(height) + 0.5) * pixel, left + (np.arange(width) + 0.5) * pixel
    return np.stack(np.meshgrid(y, x, indexing="ij"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("phase")


@given(
    ratio=st.integers(1, 4),
    phase=st.tuples(*[st.integers(-12, 36)] * 2),  # parts of 48 of a PAN pixel, −0.25 to 0.75
    begins=st.tuples(*[st.integers(-9, 9)] * 2),  # whole PAN pixels
    sizes=st.tuples(*[st.integers(3, 9)] * 2, *[st.integers(6, 40)] * 2),
    window=st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(1, 4)] * 2),
)
def test_every_window_holds_the_pan_pixels_on_its_ground(folder, ratio, phase, begins, sizes, window):
    """Values are places: those of MS and of PAN must lie the phase apart, and nothing else."""
    pixel = PIXEL / ratio
    off = [(0 if abs(p) < 1 else p) / 48 % 1 for p in phase]
    top, left = ((begin + part) * pixel for begin, part in zip(begins, off, strict=True))
    ms = place_values(sizes[0], sizes[1], PIXEL, 0, 0)
    pan = place_values(sizes[2], sizes[3], pixel, left, top)
    paths = (
        write_tif_file(folder / "ms.tif", ms),
        write_tif_file(folder / "pan.tif", pan, pixel=pixel, corner=(CORNER[0] + left, CORNER[1] - top)),
    )
    parts = [part if part < 0.75 else part - 1 for part in off]
    whole = []  # MS rows, then columns, all of whose PAN pixels are there
    for size, pan_size, begin, part in zip(sizes[:2], sizes[2:], begins, off, strict=True):
        first = np.arange(size) * ratio - begin - (part >= 0.75)
        whole.append(np.flatnonzero((first >= 0) & (first + ratio <= pan_size)))
    if not all(len(there) for there in whole):
        with pytest.raises(InputError, match="no ground in common"):
            Scene.open(*paths)
        return
    with Scene.open(*paths) as scene:
        assert scene.grid.shape == tuple(len(there) for there in whole)
        corner = CORNER[0] + PIXEL * whole[1][0], CORNER[1] - PIXEL * whole[0][0]
        assert scene.grid.transform @ (0, 0) == pytest.approx(corner, abs=1e-6)
        assert scene.phase == pytest.approx(parts, abs=6e-4)
        at = Window(*window).within(*scene.grid.shape)
        if at.height <= 0 or at.width <= 0:
            return
        pixels = scene.read(at)
        assert pixels.valid.all()
        for axis, length in enumerate((at.height, at.width)):
            edge = (whole[axis][0] + (at.row, at.col)[axis]) * PIXEL
            places = edge + (np.arange(length * ratio) + 0.5 + parts[axis]) * pixel
            across = pixels.pan[axis][:, 0] if axis == 0 else pixels.pan[axis][0]
            np.testing.assert_allclose(across, places, atol=1e-3)
            across = pixels.ms[axis][:, 0] if axis == 0 else pixels.ms[axis][0]
            np.testing.assert_allclose(across, edge + (np.arange(length) + 0.5) * PIXEL, atol=1e-3)
        x, y = scene.fine_grid.transform @ (at.col * ratio + 0.5, at.row * ratio + 0.5)
        np.testing.assert_allclose((CORNER[1] - y, x - CORNER[0]), pixels.pan[:, 0, 0], atol=1e-3)


def landsat_like(write_tif, ground):
    """A pair of shared centres from ground at a quarter of an MS pixel (4·h, 4·w): h × w and 2h − 1 × 2w − 1 pixels."""
    h, w = (n // 4 for n in ground.shape)
    ms = ground.reshape(h, 4, w, 4).mean((1, 3))
    pan = ground[1:-1, 1:-1].reshape(2 * h - 1, 2, 2 * w - 1, 2).mean((1, 3))
    corner = (CORNER[0] + PIXEL / 4, CORNER[1] - PIXEL / 4)
    fine = write_tif("pan.tif", pan.astype(np.float32), pixel=PIXEL / 2, corner=corner)
    return write_tif("ms.tif", ms.astype(np.float32)), fine


def test_a_landsat_pair_needs_no_correction_and_one_that_is_shifted_gets_its_own(write_tif):
    rng = np.random.default_rng(5)
    ground = np.kron(rng.normal(size=(80, 76)), np.ones((3, 3)))[:236, :224] + rng.normal(0, 0.1, (236, 224))
    with Scene.open(*landsat_like(write_tif, ground)) as scene:
        assert (scene.phase, scene.grid.shape) == ((0.5, 0.5), (58, 55))
        assert fix_shift(scene).pan_shift == (0, 0)
        assert fix_shift(scene.with_pan_moved(-1, 2)).pan_shift == (0, 0)
        assert re.search(r"measured: [+-]0\.0\d rows and [+-]0\.0\d columns", fix_shift(scene).notes[-2])
        assert note_shift(scene) is scene
        assert "a correction of -1.0 rows and +2.0 columns" in note_shift(scene.with_pan_moved(1, -2)).notes[-1]


def test_labels_on_the_pan_grid_label_both_grids(write_tif, tmp_path):
    rng = np.random.default_rng(6)
    paths = landsat_like(write_tif, rng.normal(size=(80, 64)))
    codes = rng.integers(1, 3, (39, 31)).astype(np.uint8)
    corner = (CORNER[0] + PIXEL / 4, CORNER[1] - PIXEL / 4)
    labels = write_tif("labels.tif", codes, pixel=PIXEL / 2, corner=corner)
    with Scene.open(*paths) as scene:
        assert np.array_equal(read_labels(labels, scene.fine_grid).index, codes[:38, :30].astype(int) - 1)
        # an MS pixel lies on one PAN pixel whole, on four by half and on four by a quarter
        on_ms = read_labels(labels, scene.grid, min_share=0.6).index
        for row, col in np.ndindex(*scene.grid.shape):
            weights = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])[row == 0 :, col == 0 :] / 4
            cell = codes[max(2 * row - 1, 0) : 2 * row + 2, max(2 * col - 1, 0) : 2 * col + 2]
            shares = [(weights * (cell == code)).sum() for code in (1, 2)]
            assert on_ms[row, col] == (np.argmax(shares) if max(shares) >= 0.6 else -1)


@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize(("phase", "ratio"), [((0.5, 0.5), 2), ((0.3, -0.2), 3), ((0.0, 0.6), 1), ((-0.2, 0.0), 4)])
def test_a_mask_hides_all_that_its_pixels_touch(write_tif, fine, phase, ratio):
    """By the places of pixels: one is hidden where its ground and that of a masked pixel overlap."""
    rng, pixel, shape = np.random.default_rng(ratio), PIXEL / ratio, (11, 9)
    corner = (CORNER[0] + phase[1] * pixel, CORNER[1] - phase[0] * pixel)
    at_pan = {"pixel": pixel, "corner": corner}
    sizes = {True: (shape[0] * ratio, shape[1] * ratio), False: shape}
    clouds = rng.random(sizes[fine]) < 0.05
    ms = write_tif("ms.tif", np.ones(shape, np.uint8))
    pan = write_tif("pan.tif", np.ones(sizes[True], np.uint8), **at_pan)
    mask = write_tif("mask.tif", clouds.astype(np.uint8), **(at_pan if fine else {}))

    def spans(on_pan, axis):  # in MS pixels
        start = np.arange(sizes[on_pan][axis])
        return ((start + phase[axis]) / ratio, (start + 1 + phase[axis]) / ratio) if on_pan else (start, start + 1)

    with Scene.open(ms, pan, mask=mask) as scene:
        assert scene.grid.shape == shape
        whole = scene.read(scene.grid.window)
        for on_pan, valid in ((False, whole.ms_valid), (True, whole.pan_valid)):
            touch = []
            for axis in (0, 1):
                (first, last), (begin, end) = spans(on_pan, axis), spans(fine, axis)
                touch.append(np.minimum(last[:, None], end) - np.maximum(first[:, None], begin) > 1e-6)
            expected = ~(touch[0].astype(int) @ clouds.astype(int) @ touch[1].T.astype(int) > 0)
            assert np.array_equal(valid, expected)
        assert not whole.pan[0][~whole.pan_valid].any()
        assert not whole.ms[0][~whole.ms_valid].any()
        part = scene.read(Window(-2, 3, 8, 9))  # a window of it, mirrored at two edges
        rows, cols = [1, 0, 0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8, 8, 7, 6]
        assert np.array_equal(part.ms_valid, whole.ms_valid[np.ix_(rows, cols)])
        inside = whole.pan_valid[: 6 * ratio, 3 * ratio :]
        assert np.array_equal(part.pan_valid[2 * ratio :, : 6 * ratio], inside)
