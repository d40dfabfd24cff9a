"""Fusion of two sensors by hand."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from adcdnet.nn.fusion import fusion_of

MS, PAN = (torch.tensor(v).reshape(1, 2, 1, 1) for v in ([1.0, 4.0], [3.0, -2.0]))


def fused(name: str, weight: list[list[float]]) -> list[float]:
    module = fusion_of(name, 2)
    with torch.no_grad():
        module.conv.weight.copy_(torch.tensor(weight)[..., None, None])
        if module.conv.bias is not None:
            nn.init.zeros_(module.conv.bias)
    return module(MS, PAN).flatten().tolist()


def test_by_hand():
    assert fusion_of("sum", 2)(MS, PAN).flatten().tolist() == [4, 2]
    assert fused("concat", [[1, 0, 2, 0], [0, 1, 0, -1]]) == [1 + 6, 4 + 2]
    g = 1 / (1 + math.exp(-(1 - 3)))  # the first gate sees ms - pan of its channel, the second nothing
    assert fused("gate", [[1, 0, -1, 0], [0, 0, 0, 0]]) == pytest.approx([g * 1 + (1 - g) * 3, 1])


@pytest.mark.parametrize("name", ["sum", "gate", "concat"])
def test_each_cell_for_itself(name):
    torch.manual_seed(0)
    module, (f, g) = fusion_of(name, 3), torch.randn(2, 2, 3, 5, 7)
    assert_close(module(f, g)[:, :, 1:3, 4:], module(f[:, :, 1:3, 4:], g[:, :, 1:3, 4:]))


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="'film'"):
        fusion_of("film", 2)
