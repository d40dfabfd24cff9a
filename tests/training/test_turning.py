"""Flips and turns of a pair whose PAN lies off the MS edges: only those that keep how PAN lies on MS."""

import itertools

import numpy as np
import pytest

from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.split.parts import TRAIN, Split
from adcdnet.training.area import TrainingArea
from adcdnet.training.turning import Turning, turned

ALL = list(itertools.product(range(4), (0, 1)))
HEIGHT, WIDTH = 37, 41


def area_of(phase, ratio, **network):
    """Bands are row and column of a pixel's centre in MS pixels, PAN's off by the phase; every target is its number."""

    def places(scale, off):
        axes = [
            (np.arange(n * scale, dtype=np.float32) + 0.5 + o) / scale
            for n, o in zip((HEIGHT, WIDTH), off, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    ms, pan = places(1, (0, 0)), places(ratio, phase)
    pixels = Pixels(ms, pan, np.ones(ms.shape[1:], bool), np.ones(pan.shape[1:], bool))
    step = ratio if network.get("grid") == "fine" else 1
    index = np.arange(HEIGHT * step * WIDTH * step).reshape(HEIGHT * step, -1) % 3
    config = TrainConfig.of_profile("patch").replace({"network": {"patch": 9, **network}, "answers": {"smooth": 0}})
    return TrainingArea.of(
        pixels,
        Labels(index.astype(np.int16), ClassTable.numbered(["a", "b", "c"])),
        Split(np.full((HEIGHT, WIDTH), TRAIN, np.uint8), 40, ()),
        config=config,
        ratio=ratio,
        phase=phase,
        statistics=BandStatistics((0.0, 0.0), (1.0, 1.0), (0.0, 0.0), (1.0, 1.0)),
    )


def ways_of(batch, ratio, phase):
    """How each sample was turned, as the signs of two axes and which of them runs down; every sample is held to the
    phase: along both axes PAN lies as far behind its MS pixels as in the scene, in the order of the sample."""
    ways = set()
    for ms, pan in zip(batch.ms, batch.pan, strict=True):
        h, w = ms.shape[1:]
        down, right = (
            ms[:, h // 2 + 1, w // 2] - ms[:, h // 2, w // 2],
            ms[:, h // 2, w // 2 + 1] - ms[:, h // 2, w // 2],
        )
        if abs(down).sum() != 1 or abs(right).sum() != 1 or not (7 < ms[0, h // 2, w // 2] < HEIGHT - 8):
            continue
        if not 7 < ms[1, h // 2, w // 2] < WIDTH - 8:
            continue  # the border is mirrored there
        first = pan[:, h // 2 * ratio, w // 2 * ratio]
        # the middle of an MS pixel to the middle of its first PAN pixel, in MS pixels, as the scene has it
        behind = (0.5 + np.array(phase)) / ratio - 0.5
        np.testing.assert_allclose(first, ms[:, h // 2, w // 2] + down * behind[0] + right * behind[1], atol=1e-4)
        step = pan[:, h // 2 * ratio + ratio, w // 2 * ratio] - first
        np.testing.assert_allclose(step, down, atol=1e-4)
        ways.add(tuple(np.rint([*down, *right]).astype(int).tolist()))
    return ways


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize(
    ("phase", "count"),
    [((0, 0), 8), ((0.5, 0.5), 8), ((0.5, 0), 4), ((0.2, 0.2), 2), ((0, 0.3), 2), ((0.2, -0.2), 1), ((0.25, 0.5), 2)],
)
def test_what_is_drawn_keeps_its_phase_however_it_is_turned(phase, count, ratio, tiles):
    area, rng = area_of(phase, ratio), np.random.default_rng(4)
    if tiles:
        batch = area.draw_tiles(rng, 150, 5, labelled=True, augment=True)
    else:
        batch = area.draw_patches(rng, 150, balance=0.0, augment=True)
    side = batch.ms.shape[2]
    assert batch.pan.shape[2:] == (side * ratio, side * ratio)
    assert len(ways_of(batch, ratio, phase)) == count
    middle = side // 2
    row, col = np.floor(batch.ms[:, :, middle, middle]).astype(int).T
    label = batch.label[:, batch.label.shape[1] // 2, batch.label.shape[2] // 2]
    assert np.array_equal(label, (row * WIDTH + col) % 3)


@pytest.mark.parametrize(("phase", "count"), [((0, 0), 8), ((0.5, 0.5), 2), ((0.5, 0), 2)])
def test_on_the_fine_grid_half_a_pixel_cannot_be_flipped(phase, count):
    """A target is a PAN pixel, which lies on another place of its MS pixel once flipped."""
    turning = Turning(phase, 2)
    assert turning.spare == (0, 0)
    assert len(turning.ways) == count
    area = area_of(phase, 2, grid="fine")
    batch = area.draw_patches(np.random.default_rng(0), 200, balance=0.0, augment=True)
    place = batch.pan[:, :, 17, 17] - np.array(phase) / 2  # the target lies at half + ratio // 2 of its PAN patch
    row, col = np.floor(2 * place + 1e-3).astype(int).T
    assert np.array_equal(batch.label[:, 0, 0], (row * 2 * WIDTH + col) % 3)
    off = batch.pan[:, :, 17, 17] - batch.ms[:, :, 8, 8]
    inside = (batch.ms[:, :, 8, 8] > 1).all(1)
    # ±1/4 MS pixels in the scene, and the phase: never mirrored
    assert set(np.round(off[inside], 2).ravel().tolist()) <= {o + p / 2 for o in (-0.25, 0.25) for p in phase}


def test_eight_ways_are_drawn_as_they_were_before_phases():
    draws = [Turning((0, 0), 1).draw(np.random.default_rng(seed)) for seed in range(5)]
    rngs = [np.random.default_rng(seed) for seed in range(5)]
    assert draws == [(int(rng.integers(4)), int(rng.integers(2))) for rng in rngs]


def test_turned_by_hand():
    x = np.array([[1, 2], [3, 4]])
    assert turned(x, (0, 1)).tolist() == [[2, 1], [4, 3]]
    assert turned(x, (1, 0)).tolist() == [[2, 4], [1, 3]]
    assert turned(x, (1, 1)).tolist() == [[1, 3], [2, 4]]  # transposed: neither axis ends up flipped
    assert sorted(turned(x, way).tolist() for way in ALL) == sorted(
        np.rot90(y, k).tolist() for y in (x, x.T) for k in range(4)
    )
