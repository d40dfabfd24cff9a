"""The fine grid: every PAN pixel a target, in prediction, training and evaluation."""

import numpy as np
import pytest
import torch

from adcdnet import inference
from adcdnet.inference import logits_of
from adcdnet.model import Layout
from adcdnet.scene import Pixels
from conftest import build_model

FINE = {"grid": "fine", "patch": 9}  # 9: half = 4 and halo 4, so 8 MS pixels before and after the target's


def random_pixels(ratio, height=5, width=7, *, border=9):
    """A window of 5 × 7 MS pixels with the halo of the small network, a tenth of either image invalid."""
    rng = np.random.default_rng(ratio)
    h, w = height + 2 * border, width + 2 * border
    ms, pan = rng.uniform(1, 999, (3, h, w)), rng.uniform(1, 999, (2, h * ratio, w * ratio))
    return Pixels(
        ms.astype(np.float32),
        pan.astype(np.float32),
        rng.random((h, w)) > 0.1,
        rng.random((h * ratio, w * ratio)) > 0.1,
    )


def model_at(ratio, **changes):
    return build_model(Layout(ms_bands=3, pan_bands=2, ratio=ratio, classes=3), **{**FINE, **changes})


# ---- the definition, and its twin


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_a_fine_pixel_is_the_middle_of_its_pan_patch_and_lies_in_the_centre_of_its_ms_patch(ratio):
    model, pixels = model_at(ratio), random_pixels(ratio)
    found = logits_of(model, pixels, engine="patch", batch=13)
    ms, pan = (torch.from_numpy(x) for x in model.statistics.standardise(*pixels))
    before = 8 * ratio + ratio // 2  # fine pixels of the patch above the target, and left of it
    side = 17 * ratio
    for y, x in [
        (0, 0),
        (0, 7 * ratio - 1),
        (5 * ratio - 1, 1),
        (2 * ratio, 3 * ratio),
        (3 * ratio - 1, 2 * ratio - 1),
    ]:
        row, col = y // ratio + 9, x // ratio + 9  # in MS pixels, halo included
        top, left = y + 9 * ratio - before, x + 9 * ratio - before
        with torch.inference_mode():
            expected = model.network(
                ms[None, :, row - 8 : row + 9, col - 8 : col + 9],
                pan[None, :, top : top + side, left : left + side],
            ).main[0]
        if pixels.ms_valid[row, col] and pixels.pan_valid[y + 9 * ratio, x + 9 * ratio]:
            np.testing.assert_allclose(found[:, y, x], expected, rtol=0, atol=1e-4)
        else:
            assert np.isnan(found[:, y, x]).all()


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
@pytest.mark.parametrize("changes", [{}, {"prior": False, "dia": False, "head": "flatten"}])
def test_dense_gives_what_the_patches_define_in_float64(ratio, changes):
    network = model_at(ratio, **changes).network.double()
    rng = np.random.default_rng(7)
    ms, pan = (torch.from_numpy(rng.normal(size=(b, 23 * r, 25 * r))) for b, r in ((3, 1), (2, ratio)))
    row, col = np.nonzero(rng.random((5 * ratio, 7 * ratio)) > 0.3)
    with torch.inference_mode():
        dense = inference._dense(network, ms, pan, row, col)
        defined = inference._patch_by_patch(network, ms, pan, row, col, 16)
    assert len(dense) == len(row)
    assert (dense - defined).abs().max() < 1e-9
    assert dense.std() > 0.1
