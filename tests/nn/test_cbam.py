"""CBAM's spatial attention against its formula, on patches and as one matrix on tiles."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from adcdnet.nn import SpatialAttention
from adcdnet.nn.tile_sharing import mask_operator


def test_a_single_bright_cell_by_hand():
    attention = SpatialAttention()
    nn.init.zeros_(attention.conv.weight)
    with torch.no_grad():
        attention.conv.weight[0, 0, 3, 3] = 2  # the mean, at the cell itself
        attention.conv.weight[0, 1, 3, 6] = -1  # the maximum, three cells to the right
    x = torch.zeros(1, 4, 5, 8)
    x[0, :, 2, 4] = torch.tensor([1.0, 0.0, 0.0, -3.0])  # mean -1/2, maximum 1
    mask = attention.mask_of(x.mean(1, keepdim=True), x.amax(1, keepdim=True))
    expected = torch.full((5, 8), 0.5)
    expected[2, 4] = 1 / (1 + torch.e)
    expected[2, 1] = 1 / (1 + torch.e)
    assert_close(mask[0, 0], expected)
    assert_close(attention(x)[0, :, 2, 4], torch.tensor([1 / (1 + torch.e), 0, 0, 0]))  # rectified, as DIA's


@pytest.mark.parametrize(("g", "core"), [(9, 3), (9, 9), (5, 3), (13, 13)])
def test_masks_of_many_patches_are_those_of_each(g, core):
    torch.manual_seed(g)
    attention = SpatialAttention().double()
    pooled = torch.randn(7, 2, g, g, dtype=torch.float64)
    trim = (g - core) // 2
    whole = attention.mask_of(pooled[:, :1], pooled[:, 1:])[..., trim : g - trim, trim : g - trim]
    found = mask_operator(attention, g)(pooled.permute(0, 2, 3, 1).flatten(1), side=core).view(-1, 1, core, core)
    assert_close(found, whole, rtol=0, atol=1e-12)
    weight = attention.conv.weight
    mine, theirs = (torch.autograd.grad(m.square().sum(), weight)[0] for m in (found, whole))
    assert_close(mine, theirs, rtol=0, atol=1e-10)
    assert F.relu(theirs).any()
