"""What reads a DTM's tokens in Mamba's place: by hand, and the contract that Mamba has too."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from adcdnet.nn import DeepTemporalMamba
from adcdnet.nn.readers import Recurrent, SelfAttention, reader_of

NAMES = ("mamba", "gru", "attention")


def make(name: str, d_model: int = 6, d_out: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return reader_of(name, d_model, d_out, d_state=3, d_conv=4, expand=1)


@pytest.mark.parametrize("name", NAMES)
def test_an_output_depends_on_its_own_and_earlier_tokens_alone(name):
    reader, x = make(name), torch.randn(2, 4, 6)
    y = reader(x)
    assert y.shape == (2, 4, 5)
    for t in range(4):
        moved = (reader(x + (torch.arange(4) == t)[:, None]) - y).abs().amax((0, 2))
        assert not moved[:t].any()
        assert (moved[t:] > 1e-4).all()


def test_attention_by_hand():
    reader = SelfAttention(2, 2)  # two heads of one number each
    with torch.no_grad():
        reader.in_proj.weight.copy_(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0], [0, 1], [1, 0]]))
        reader.out_proj.weight.copy_(torch.eye(2))
    x = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    # head 1: q = x_1, k = x_1, v = x_2; head 2: its keys are 0, so it takes the mean of v = x_1
    weight = 1 / (1 + math.exp(3 * 1 - 3 * 3))  # of the second token, for the second
    expected = torch.tensor([[[1 + 2, 2 + 1], [3 + 2 + weight * (5 - 2), 5 + (1 + 3) / 2]]])
    assert_close(reader(x), expected)


def test_attention_has_two_heads():
    with pytest.raises(ValueError, match="7 numbers"):
        SelfAttention(7, 5)


def test_a_gru_step_by_hand():
    reader, x = Recurrent(1, 1), torch.tensor([[[2.0], [-1.0]]])
    for name, p in reader.gru.named_parameters():
        nn.init.constant_(p, 0.5 if name.startswith("weight") else 0.0)
    h, expected = 0.0, []
    for value in (2.0, -1.0):
        gate = 1 / (1 + math.exp(-0.5 * value - 0.5 * h))  # reset and update have the same weights
        new = math.tanh(0.5 * value + gate * 0.5 * h)
        h = (1 - gate) * new + gate * h
        expected.append(h)
    assert_close(reader(x).flatten(), torch.tensor(expected))


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="'lstm'"):
        make("lstm")


@pytest.mark.parametrize("name", ["gru", "attention"])
def test_only_mamba_can_be_explained(name):
    head = DeepTemporalMamba([3, 4], d_model=6, num_classes=5, reader=name)
    depths = [torch.randn(2, 3, 5, 7), torch.randn(2, 4, 3, 4)]
    assert head(depths).shape == (2, 5)
    with pytest.raises(ValueError, match="only Mamba"):
        head.explain(depths)
