"""The methods we compare with: what they may look at, that they learn, and that they are what they are said to be."""

import numpy as np
import pytest

from adcdnet.baselines import BandRoles
from adcdnet.baselines.features import features
from adcdnet.errors import InputError
from adcdnet.scene import Pixels


def all_valid(ms, pan) -> Pixels:
    ms, pan = np.asarray(ms, np.float32), np.asarray(pan, np.float32)
    return Pixels(ms, pan, np.ones(ms.shape[1:], bool), np.ones(pan.shape[1:], bool))


# ---- features


def test_bands_are_found_by_their_names():
    assert BandRoles.of_descriptions(("B1 blue", "B2 green", "B3 red", "B4 nir")) == BandRoles(1, 2, 3)
    names = ("Green", "Red-Edge", "red edge 2", "RED", "SWIR1", "near-infrared", "nir")
    assert BandRoles.of_descriptions(names) == BandRoles(green=0, red=3, nir=5)
    assert BandRoles.of_descriptions((None, "", "infrared", "coloured")) == BandRoles(None, None, None)


def test_features_by_hand():
    ms = np.full((3, 5, 7), 2.0)
    ms[1] = 6  # near infrared; green and red are 2
    ms[0, 2, 3] = 11  # one bright pixel of the first band
    pan = np.ones((1, 10, 14))
    pan[0, 4:6, 6:8] = [[1, 3], [5, 7]]
    found = features(all_valid(ms, pan), BandRoles(green=2, red=2, nir=1))
    assert found.shape == (5, 7, 3 + 2 + 3 * 4 + 9)
    at = found[2, 3]
    assert at[:5] == pytest.approx([11, 6, 2, 0.5, 0.5])
    assert at[5] == pytest.approx(3)  # (8 · 2 + 11) / 9
    assert at[6] == pytest.approx(np.sqrt((8 * 4 + 121) / 9 - 9))
    assert at[17:21] == pytest.approx([4, np.sqrt(5), 1, 7])  # mean, deviation, minimum, maximum of 1 3 5 7
    window = np.ones(64)
    window[:4] = [1, 3, 5, 7]  # 4 MS pixels a side at ratio 2 are 8 × 8 PAN pixels
    assert at[21:23] == pytest.approx([window.mean(), window.std()])
    assert found[1, 3, 25] > 0  # the gradient is felt beside the bright cells
    assert found[0, 0, 25] == 0


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_features_turn_with_the_scene(ratio):
    rng = np.random.default_rng(ratio)
    ms, pan = rng.random((2, 9, 13)), rng.random((1, 9 * ratio, 13 * ratio))
    upright = features(all_valid(ms, pan), BandRoles())
    turned = features(all_valid(ms[:, ::-1, ::-1], pan[:, ::-1, ::-1]), BandRoles())
    if ratio == 1:  # an even window of PAN pixels cannot lie evenly about one of them
        upright, turned = (np.delete(x, slice(14, 18), -1) for x in (upright, turned))
    assert np.allclose(turned[::-1, ::-1], upright, atol=1e-5)


def test_features_look_4_pixels_far():
    rng = np.random.default_rng(0)
    ms, pan = rng.random((2, 21, 23)), rng.random((1, 42, 46))
    before = features(all_valid(ms, pan), BandRoles(0, 0, 1))
    ms[:, 10, 11], pan[:, 20:22, 22:24] = 9, 9
    changed = np.argwhere((features(all_valid(ms, pan), BandRoles(0, 0, 1)) != before).any(-1)) - (10, 11)
    assert np.abs(changed).max() == 4


def test_invalid_pixels_make_no_edges():
    flat = all_valid(np.full((2, 9, 11), 5.0), np.full((1, 18, 22), 7.0))
    expected = features(flat, BandRoles(0, 0, 1))
    flat.ms_valid[3:5, 4] = flat.pan_valid[6:9, 8:11] = False
    flat.ms[:, ~flat.ms_valid] = flat.pan[:, ~flat.pan_valid] = 0
    assert np.array_equal(features(flat, BandRoles(0, 0, 1)), expected)


def test_a_band_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="band 2 is named as nir, but the MS image has bands 0 to 1; name one"):
        features(all_valid(np.ones((2, 5, 7)), np.ones((1, 5, 7))), BandRoles(nir=2))
