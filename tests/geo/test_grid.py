"""Grids, windows and mirroring against hand-computed values and numpy.pad; what `match` accepts and refuses."""

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from adcdnet.errors import InputError
from adcdnet.geo.grid import Grid, Window, match, mirror, tiles

MS = Grid(7, 5, Affine(20, 0, 1000, 0, -20, 3000), 'PROJCS["WGS 84 / UTM zone 33N"]')


def fine(ratio: float = 2, rows: float = 0, cols: float = 0, height: int = 14, width: int = 10) -> Grid:
    """A grid `ratio` times finer than MS that begins `rows`, `cols` fine pixels below and right of it."""
    return Grid(height, width, MS.transform @ Affine.scale(1 / ratio) @ Affine.translation(cols, rows), MS.crs)


def test_mirror_by_hand():
    index = np.arange(-5, 8)
    assert mirror(index, 3, repeat_edge=True).tolist() == [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]
    assert mirror(index, 3, repeat_edge=False).tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    assert mirror(index, 1, repeat_edge=False).tolist() == [0] * 13


@given(size=st.integers(1, 9), before=st.integers(0, 30), after=st.integers(0, 30), repeat_edge=st.booleans())
def test_mirror_is_numpy_pad(size, before, after, repeat_edge):
    mode = "symmetric" if repeat_edge or size == 1 else "reflect"
    expected = np.pad(np.arange(size), (before, after), mode=mode)
    assert np.array_equal(mirror(np.arange(-before, size + after), size, repeat_edge=repeat_edge), expected)


@given(size=st.integers(1, 9), ratio=st.integers(1, 8), start=st.integers(-40, 40))
def test_mirrored_fine_pixels_stay_on_their_mirrored_coarse_pixel_when_the_edge_is_repeated(size, ratio, start):
    index = np.arange(start, start + 20)
    coarse = mirror(index, size, repeat_edge=True)
    at_fine = mirror(np.arange(start * ratio, (start + 20) * ratio), size * ratio, repeat_edge=True)
    assert np.array_equal(at_fine // ratio, np.repeat(coarse, ratio))


def test_tiles_cover_every_pixel_once():
    seen = np.zeros((61, 47), dtype=int)
    for window in tiles(61, 47, 17):
        seen[window.slices] += 1
    assert (seen == 1).all()


def test_windows_by_hand():
    assert Window(2, 3, 5, 7).grow(4) == Window(-2, -1, 13, 15)
    assert Window(2, -3, 5, 7).scale(4) == Window(8, -12, 20, 28)
    assert Window(2, 3, 5, 7).shift(-2, 1) == Window(0, 4, 5, 7)


def test_a_crop_and_a_finer_grid_keep_their_place():
    crop = MS.crop(Window(2, 1, 3, 4))
    assert (crop.shape, crop.transform @ (0, 0)) == ((3, 4), (1020, 2960))
    finer = MS.refine(4)
    assert (finer.shape, finer.transform.a, finer.transform @ (20, 28)) == ((28, 20), 5, (1100, 2860))


@pytest.mark.parametrize(
    ("rows", "cols", "height", "width", "ms", "pan"),
    [
        (0, 0, 14, 10, Window(0, 0, 7, 5), Window(0, 0, 14, 10)),  # the same ground
        (1, 1, 14, 10, Window(1, 1, 6, 4), Window(1, 1, 12, 8)),  # PAN begins inside the first MS pixel
        (-1, -3, 14, 10, Window(0, 0, 6, 3), Window(1, 3, 12, 6)),  # PAN begins before MS and ends before it
        (3, 0, 5, 3, Window(2, 0, 2, 1), Window(1, 0, 4, 2)),  # PAN inside MS, on no MS edge
    ],
)
def test_the_common_extent_by_hand(rows, cols, height, width, ms, pan):
    found = match(MS, fine(2, rows, cols, height, width))
    assert (found.ratio, found.ms, found.pan) == (2, ms, pan)


@given(
    ratio=st.integers(1, 8),
    rows=st.integers(-20, 20),
    cols=st.integers(-20, 20),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
)
def test_the_common_extent_is_all_whole_ms_pixels_that_pan_covers(ratio, rows, cols, height, width):
    pan = fine(ratio, rows, cols, height, width)
    row = np.arange(MS.height) * ratio - rows  # first PAN row of every MS row
    col = np.arange(MS.width) * ratio - cols
    covered_rows = np.flatnonzero((row >= 0) & (row + ratio <= height))
    covered_cols = np.flatnonzero((col >= 0) & (col + ratio <= width))
    if covered_rows.size == 0 or covered_cols.size == 0:
        with pytest.raises(InputError, match="no ground in common"):
            match(MS, pan)
        return
    found = match(MS, pan)
    assert found.ratio == ratio
    assert found.ms == Window(covered_rows[0], covered_cols[0], covered_rows.size, covered_cols.size)
    assert found.pan == Window(
        row[covered_rows[0]], col[covered_cols[0]], covered_rows.size * ratio, covered_cols.size * ratio
    )


@pytest.mark.parametrize(
    ("pan", "said"),
    [
        (fine(3.7), "3.7 × 3.7 PAN pixels"),
        (fine(33), "33 × 33 PAN pixels"),
        (fine(0.5), "exchange the two"),
        (fine(2.02), "2.02 × 2.02"),
        (fine(2, rows=0.5), r"miss PAN pixel edges by -0.50 rows and \+0.00 columns"),
        (fine(2, rows=100), "no ground in common"),
        (fine(2, cols=-10), "no ground in common"),
        (replace(fine(), crs=None), "MS has a coordinate system and PAN has none"),
        (
            replace(fine(), crs='PROJCS["WGS 84 / UTM zone 34N"]'),
            "WGS 84 / UTM zone 33N and PAN in WGS 84 / UTM zone 34N",
        ),
        (replace(fine(), transform=fine().transform @ Affine.rotation(10)), "PAN is rotated"),
        (replace(fine(), transform=Affine(10, 0, 1000, 0, 10, 3000)), "PAN is rotated or not north-up"),
        (replace(fine(), transform=Affine(10, 0, 1000, 0, -5, 3000)), "2 × 4 PAN pixels"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_in_one_line(pan, said):
    with pytest.raises(InputError, match=said) as caught:
        match(MS, pan)
    assert "\n" not in str(caught.value)


def test_the_names_in_messages_are_the_callers():
    with pytest.raises(InputError, match=r"MS has a coordinate system and labels\.tif has none"):
        match(MS, replace(fine(), crs=None), names=("MS", "labels.tif"))


def test_the_part_of_a_window_inside_a_grid():
    assert Window(-2, 3, 5, 9).within(20, 10) == Window(0, 3, 3, 7)
    assert Window(4, 4, 2, 2).within(20, 10) == Window(4, 4, 2, 2)
    assert Window(19, 0, 9, 3).within(20, 10) == Window(19, 0, 1, 3)
    assert Window(25, 0, 9, 3).within(20, 10).height <= 0
