"""The measured correction of PAN against truths made by hand and by the simulator."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from adcdnet.demo.simulate import simulate
from adcdnet.geo.grid import Window
from adcdnet.geo.registration import Registration, Shift, combine, measure, shift_between


@functools.cache
def fine_pair(height, width, ratio, seed):
    """MS and a PAN `ratio` times finer; both float32."""
    scene = simulate(height, width, ratio=ratio, seed=seed)
    return scene.ms.astype(np.float32), scene.pan.astype(np.float32)


def shifted_pair(height, width, ratio, row, col, *, finer=2, seed=0):
    """A pair whose PAN needs the correction (row, col), whole multiples of 1 / finer PAN pixels."""
    ms, pan = fine_pair(height, width, ratio * finer, seed)
    moved = np.roll(pan, (-round(row * finer), -round(col * finer)), (1, 2))
    return ms, moved.reshape(1, height * ratio, finer, width * ratio, finer).mean((2, 4))


def reader(ms, pan):
    ratio = pan.shape[1] // ms.shape[1]

    def read(window):
        fine = window.scale(ratio)
        valid = np.ones((window.height, window.width), bool)
        pan_valid = np.ones((fine.height, fine.width), bool)
        return ms[:, *window.slices], pan[:, *fine.slices], valid, pan_valid

    return read


@pytest.mark.parametrize(("ratio", "row", "col"), [(1, 2, -3), (2, -5, 1), (3, 4, 7), (8, -17, 0)])
def test_a_whole_shift_of_white_noise_is_found(ratio, row, col):
    ground = np.random.default_rng(ratio).normal(size=(47 * ratio, 51 * ratio)).astype(np.float32)
    ms = ground.reshape(47, ratio, 51, ratio).mean((1, 3))[None]
    found = shift_between(ms, np.roll(ground, (-row, -col), (0, 1))[None])
    assert (found.row, found.col) == pytest.approx((row, col), abs=0.01 * ratio + 0.01)
    assert found.fit > 0.99 > 0.2 > found.fit_as_given


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (1, 1), (-3, 3), (2.5, -1.5), (-0.5, 3), (1.5, -2.5)])
def test_simulated_shifts_are_found_to_a_tenth_of_a_pixel(ratio, row, col):
    found = measure(reader(*shifted_pair(113, 97, ratio, row, col)), 113, 97)
    assert (found.row, found.col) == pytest.approx((row, col), abs=0.05)
    assert (found.phase_row, found.phase_col) == pytest.approx((row, col), abs=0.35)
    assert found.whole == (round(found.row), round(found.col))


def test_half_the_ratio_finer_ground_tells_halves_from_quarters():
    found = measure(reader(*shifted_pair(113, 97, 2, 0.25, -0.75, finer=4)), 113, 97)
    assert (found.row, found.col) == pytest.approx((0.25, -0.75), abs=0.05)


def test_errors_are_neither_vain_nor_timid():
    off = []
    for seed in range(8):
        found = measure(reader(*shifted_pair(67, 71, 2, 1, -0.5, seed=seed)), 67, 71)
        off += [(found.row - 1) / found.errors[0], (found.col + 0.5) / found.errors[1]]
    assert 0.15 < np.sqrt(np.mean(np.square(off))) < 1.6


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_truth_lies_within_two_standard_errors_as_often_as_it_should(ratio):
    """30 landscapes and shifts in quarters of a PAN pixel, two figures each: 95 % of 60 are 57."""
    rng, off, errors = np.random.default_rng(30), [], []
    for seed in range(30):
        shift = rng.integers(-12, 13, 2) / 4
        found = measure(reader(*shifted_pair(53, 61, ratio, *shift, finer=4, seed=seed)), 53, 61)
        off += list(np.array([found.row, found.col]) - shift)
        errors += list(found.errors)
    within = np.abs(off) <= 2 * np.array(errors)
    assert within.sum() >= 57
    assert np.sqrt(np.mean(np.square(np.divide(off, errors)))) > 0.3
    assert np.abs(off).max() < 0.05


def test_at_one_resolution_a_quarter_of_a_pixel_is_not_pulled_to_whole_ones():
    off = []
    for seed in range(4):
        found = measure(reader(*shifted_pair(67, 71, 1, 0.25, -0.25, finer=4, seed=seed)), 67, 71)
        off.append((found.row - 0.25, found.col + 0.25))
    assert np.abs(np.mean(off, axis=0)).max() < 0.01  # 0.05 without smoothing


@pytest.mark.parametrize(("degrees", "stretch"), [(0.2, 1.0), (0.0, 1.004)])
def test_rotation_and_stretch_show_as_drift(degrees, stretch):
    ms, pan = shifted_pair(173, 151, 2, 0, 0)
    size, turn = np.array(pan.shape[1:]), np.deg2rad(degrees)
    lying = stretch * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = (size - 1) / 2
    turned = ndimage.affine_transform(pan[0], lying, middle - lying @ middle, mode="nearest")[None]
    found = measure(reader(ms, turned.astype(np.float32)), 173, 151)
    # the pixel at x shows the ground of lying (x − middle) + middle
    assert np.array(found.drift) == pytest.approx((lying - np.eye(2)) * size / 2, abs=0.08)
    assert (found.row, found.col) == pytest.approx((0, 0), abs=0.05)
    assert np.abs(np.array(found.drift)).max() > 8 * np.array(found.drift_errors).max()


@pytest.mark.parametrize("ratio", [1, 2])
def test_invalid_pixels_have_no_say(ratio):
    ms, pan = shifted_pair(61, 67, ratio, 1, 0)
    ms_valid, pan_valid = np.ones(ms.shape[1:], bool), np.ones(pan.shape[1:], bool)
    ms_valid[20:31, 9:17] = False
    pan_valid[45 * ratio : 53 * ratio, 30 * ratio : 40 * ratio] = False
    results = []
    for garbage in (0.0, 1e6):
        ms_with, pan_with = np.where(ms_valid, ms, garbage), np.where(pan_valid, pan, -garbage)
        results.append(shift_between(ms_with, pan_with, ms_valid, pan_valid))
    assert results[0] == results[1]
    assert (results[0].row, results[0].col) == pytest.approx((1, 0), abs=0.1)
    assert shift_between(ms, pan) != results[0]
    assert results[0].fit == pytest.approx(shift_between(ms, pan).fit, abs=0.01)


def test_gain_offset_and_collinear_bands_change_nothing():
    ms, pan = shifted_pair(53, 59, 3, -1, 2)
    plain = shift_between(ms, pan)
    more = np.concatenate([3 * ms[::-1] + 70, ms[:1] - ms[2:3], np.full_like(ms[:1], 8)])
    same = shift_between(more, 900 - pan / 4)
    assert (same.row, same.col, same.fit) == pytest.approx((plain.row, plain.col, plain.fit), abs=2e-3)


def test_all_pan_bands_count_and_constant_ones_do_not():
    ms, pan = shifted_pair(53, 59, 2, 1, 1)
    noise = np.random.default_rng(0).normal(size=pan.shape).astype(np.float32)
    alone, with_constant = shift_between(ms, pan), shift_between(ms, np.concatenate([np.zeros_like(pan), pan]))
    assert with_constant == alone
    both = shift_between(ms, np.concatenate([noise, pan]))
    assert (both.row, both.col) == pytest.approx((1, 1), abs=0.15)
    assert both.fit == pytest.approx(alone.fit / 2, abs=0.02)


def test_nothing_is_measured_where_there_is_nothing_to_see():
    ms, pan = shifted_pair(53, 59, 2, 0, 0)
    noise = np.random.default_rng(1).normal(size=pan.shape).astype(np.float32)
    assert shift_between(ms, np.full_like(pan, 7)) is None
    assert shift_between(np.full_like(ms, 7), pan) is None
    assert shift_between(ms, noise) is None
    assert shift_between(ms, pan, np.zeros(ms.shape[1:], bool)) is None
    assert shift_between(ms[:, :31, :31], pan[:, :62, :62]) is None  # 19 × 19 inside the margin
    assert shift_between(ms[:, :32, :32], pan[:, :64, :64]) is not None
    assert measure(reader(ms[:, :12], pan[:, :24]), 12, 59) is None


def test_a_shift_out_of_reach_is_not_measured():
    ms, pan = shifted_pair(83, 71, 2, 11, 0)  # 5.5 MS pixels
    found = shift_between(ms, pan)
    assert found is None or max(found.errors) > 0.2


def test_images_of_different_places_give_an_error_that_says_so():
    found = measure(reader(fine_pair(161, 133, 2, 0)[0], fine_pair(161, 133, 2, 5)[1]), 161, 133)
    assert found is None or found.largest_error > 1


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no whole multiple"):
        shift_between(np.zeros((2, 40, 40), np.float32), np.zeros((1, 80, 90), np.float32))


# ---- many windows


def shift(row, col=0.0, error=0.1):
    return Shift(row, col, (error, error), 0.9, 0.8, row, col)


def nine(shifts):
    places = [Window(row, col, 20, 20) for row in (0, 40, 80) for col in (0, 40, 80)]
    return combine(list(zip(places, shifts, strict=True)), 100, 100)


def test_equal_windows_are_averaged():
    found = combine(
        [(Window(0, 0, 9, 9), shift(1.0)), (Window(0, 9, 9, 9), shift(1.1)), (Window(9, 0, 9, 9), None)], 18, 18
    )
    assert found.row == pytest.approx(1.05)
    assert found.errors == pytest.approx((0.1 / np.sqrt(2),) * 2)  # they agree better than their errors promise
    assert found.largest_error == pytest.approx(0.2 / np.sqrt(2))
    assert found.drift is None
    assert found.windows[2][1] is None


def test_a_sure_window_counts_more():
    found = combine([(Window(0, 0, 9, 9), shift(1.0, error=0.1)), (Window(0, 9, 9, 9), shift(1.05, error=0.2))], 9, 18)
    assert found.row == pytest.approx((4 * 1.0 + 1.05) / 5)


def test_windows_that_disagree_widen_the_error():
    found = combine([(Window(0, 9 * k, 9, 9), shift(value)) for k, value in enumerate((1, 2))], 9, 18)
    assert found.errors[0] == pytest.approx(0.5)  # of the mean of 1 and 2: sqrt(1/2) / sqrt(2)


def test_drift_is_the_gain_from_the_middle_to_the_edge():
    places = [(y, x) for y in (-0.8, 0, 0.8) for x in (-0.8, 0, 0.8)]
    found = nine([shift(1 + 0.5 * y - 0.25 * x, 2 + x) for y, x in places])
    assert (found.row, found.col) == pytest.approx((1, 2))
    assert np.array(found.drift) == pytest.approx(np.array([[0.5, -0.25], [0, 1]]))


def test_the_largest_drift_counts_what_stands_out():
    places = [(y, x) for y in (-0.8, 0, 0.8) for x in (-0.8, 0, 0.8)]
    found = nine([shift(0.5 * y - 0.25 * x, 0.002 * x, error=0.01) for y, x in places])
    assert found.largest_drift == pytest.approx(0.75)
    assert nine([shift(1.0)] * 9).largest_drift == 0
    assert combine([(Window(0, 0, 9, 9), shift(1.0))], 9, 9).largest_drift == 0


def test_one_wild_window_of_nine_hardly_matters():
    found = nine([shift(1.0)] * 4 + [shift(9.0)] + [shift(1.0)] * 4)
    assert found.row == pytest.approx(1, abs=0.06)


def test_no_window_no_correction():
    assert combine([(Window(0, 0, 9, 9), None)], 9, 9) is None


def test_figures_are_plain_values():
    found = nine([shift(1.0)] * 8 + [None])
    assert isinstance(found, Registration)
    known = found.to_dict()
    assert known["windows"][8] == ({"row": 80, "col": 80, "height": 20, "width": 20}, None)
    assert known["windows"][0][1]["row"] == 1.0
