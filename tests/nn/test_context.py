"""Context statistics and the centre head's statistics against NumPy, one pixel at a time."""

import numpy as np
import pytest
import torch

from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.nn.context import CONTEXT_REACH, _deviation, context_statistics
from adcdnet.nn.heads import CentreHead
from adcdnet.nn.tile_sharing import cells_of


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_statistics_are_those_of_the_windows_around_the_pixel(ratio):
    rng = np.random.default_rng(ratio)
    ms, pan = rng.normal(size=(3, 9, 9)), rng.normal(size=(2, 9 * ratio, 9 * ratio))
    got = context_statistics(torch.from_numpy(ms)[None], torch.from_numpy(pan)[None], ratio)
    assert got.shape == (1, 5 * 3 + 10 * 2, 1, 1)

    def around(x, side):
        reach = side // 2
        return x[
            :, CONTEXT_REACH - reach : CONTEXT_REACH + reach + 1, CONTEXT_REACH - reach : CONTEXT_REACH + reach + 1
        ]

    def fine(side):
        first, last = (CONTEXT_REACH - side // 2) * ratio, (CONTEXT_REACH + side // 2 + 1) * ratio
        return slice(first, last), slice(first, last)

    def deviation(x):
        return np.sqrt(x.var((1, 2)) + 1e-3)

    square = np.zeros_like(pan)
    square[:, :-1] += (pan[:, 1:] - pan[:, :-1]) ** 2
    square[:, :, :-1] += (pan[:, :, 1:] - pan[:, :, :-1]) ** 2
    own = pan[:, *fine(1)]
    expected = [ms[:, 4, 4]]
    for side in (3, 7):
        expected += [around(ms, side).mean((1, 2)), deviation(around(ms, side))]
    expected += [own.mean((1, 2)), deviation(own), own.min((1, 2)), own.max((1, 2)), square[:, *fine(1)].mean((1, 2))]
    for side in (5, 9):
        expected += [pan[:, *fine(side)].mean((1, 2)), deviation(pan[:, *fine(side)])]
    expected.append(square[:, *fine(5)].mean((1, 2)))
    np.testing.assert_allclose(got.flatten().numpy(), np.concatenate(expected), rtol=0, atol=1e-9)


def test_the_centre_head_sees_centre_mean_and_deviation_of_both_sensors():
    config = PatchArchitecture(widths=(2, 3, 3), hidden=5)
    head = CentreHead(config, Layout(ms_bands=2, pan_bands=1, ratio=2, classes=3)).double().eval()
    seen = []
    head.linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    f_ms, f_pan, tap = torch.rand(4, 3, 9, 9).double(), torch.rand(4, 3, 9, 9).double(), torch.rand(4, 2).double()
    head(*(cells_of(f[:, :, 3:6, 3:6]) for f in (f_ms, f_pan)), tap, 2 * tap, torch.rand(4, 20).double())
    expected = [tap, 2 * tap]
    for f in (f_ms, f_pan):
        core = f[:, :, 3:6, 3:6]
        variance = core.var((2, 3), correction=0)
        expected += [f[:, :, 4, 4], core.mean((2, 3)), (variance + 1e-3).sqrt()]
    torch.testing.assert_close(seen[0][:, : 2 * (3 * 3 + 2)], torch.cat(expected, 1), rtol=0, atol=1e-9)


def test_deviations_are_the_nearest_floats_so_that_any_runtime_finds_the_same():
    variance = torch.rand(9999, generator=torch.Generator().manual_seed(5))
    found = _deviation(torch.zeros(9999), variance)
    assert np.array_equal(found.numpy(), np.sqrt(variance.numpy() + np.float32(1e-3)))
