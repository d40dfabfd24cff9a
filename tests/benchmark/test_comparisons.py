"""What stands in the place of ADCD-Net's parts: by hand, and the contract that the parts themselves keep."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from adcdnet.benchmark.comparisons import (
    SUBSTITUTES,
    Concatenation,
    Gate,
    InitialState,
    LearntToken,
    Recurrent,
    SelfAttention,
    SpatialAttention,
)
from adcdnet.config import TrainConfig
from adcdnet.nn import DeepTemporalMamba
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.nn.parts import PUBLISHED, Sum
from adcdnet.nn.tile_sharing import Targets
from conftest import SMALL, liven

# ---- CBAM's spatial attention


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
    attention.rectify = False
    assert_close(attention(x)[0, :, 2, 4], torch.tensor([1.0, 0.0, 0.0, -3.0]) / (1 + torch.e))  # CBAM's own


@pytest.mark.parametrize(("g", "core"), [(9, 3), (9, 9), (5, 3), (13, 13)])
def test_masks_of_many_patches_are_those_of_each(g, core):
    torch.manual_seed(g)
    attention = SpatialAttention().double()
    pooled = torch.randn(7, 2, g, g, dtype=torch.float64)
    trim = (g - core) // 2
    whole = attention.mask_of(pooled[:, :1], pooled[:, 1:])[..., trim : g - trim, trim : g - trim]
    found = attention.mask_operator(g)(pooled.permute(0, 2, 3, 1).flatten(1), side=core).view(-1, 1, core, core)
    assert_close(found, whole, rtol=0, atol=1e-12)
    weight = attention.conv.weight
    mine, theirs = (torch.autograd.grad(m.square().sum(), weight)[0] for m in (found, whole))
    assert_close(mine, theirs, rtol=0, atol=1e-10)
    assert F.relu(theirs).any()


# ---- readers


@pytest.mark.parametrize("reader", [PUBLISHED.reader, Recurrent, SelfAttention])
def test_an_output_depends_on_its_own_and_earlier_tokens_alone(reader):
    torch.manual_seed(0)
    reader, x = reader(6, 5), torch.randn(2, 4, 6)
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


def test_a_learnt_token_begins_as_the_mean_semantic_sequence_and_is_the_same_for_all():
    torch.manual_seed(0)
    reader, first, second = LearntToken(6, 4), torch.randn(5, 3, 6), torch.randn(7, 3, 6)
    of_mean = torch.cat((first[:, :-1], first[:, -1:].mean(0, keepdim=True).expand(5, -1, -1)), 1)
    assert_close(reader(first), reader.mamba(of_mean))
    reader(second)
    reader.eval()
    mean = (first[:, -1].mean(0) + second[:, -1].mean(0)) / 2  # of both batches
    with torch.no_grad():
        reader.delta.copy_(torch.arange(6) / 6)
        token = (mean + reader.delta).expand(7, 1, -1)
        assert_close(reader(second), reader.mamba(torch.cat((second[:, :-1], token), 1)))
        other = second.clone()
        other[:, -1] += 1
        assert_close(reader(other), reader(second))  # a parameter, whatever the target's own sequence


def test_an_initial_state_is_let_in_before_the_first_depth():
    torch.manual_seed(0)
    reader, x = InitialState(6, 4).double(), torch.randn(5, 4, 6, dtype=torch.float64)
    y = reader(x)
    assert y.shape == (5, 4, 4)
    assert not y[:, :-1].any()
    inputs = reader.mamba.scan_inputs(x[:, :-1])
    h = (x[:, -1] @ reader.state.weight.T).view(5, reader.mamba.d_inner, -1)
    for t in range(3):
        delta, u = inputs.delta[:, t], inputs.u[:, t]
        h = torch.exp(delta[..., None] * reader.mamba.A) * h + (delta * u)[..., None] * inputs.B[:, t, None]
    last = (h * inputs.C[:, -1, None]).sum(-1) + reader.mamba.D * inputs.u[:, -1]
    assert_close(y[:, -1], reader.mamba.out_proj(last * F.silu(inputs.z[:, -1])))


@pytest.mark.parametrize("reader", [Recurrent, SelfAttention, LearntToken, InitialState])
def test_only_mamba_can_be_explained(reader):
    head = DeepTemporalMamba([3, 4], d_model=6, num_classes=5, reader=reader)
    depths = [torch.randn(2, 3, 5, 7), torch.randn(2, 4, 3, 4)]
    assert head(depths).shape == (2, 5)
    with pytest.raises(ValueError, match="only Mamba"):
        head.explain(depths)


# ---- fusions

MS, PAN = (torch.tensor(v).reshape(1, 2, 1, 1) for v in ([1.0, 4.0], [3.0, -2.0]))


def fused(module: nn.Module, weight: list[list[float]]) -> list[float]:
    with torch.no_grad():
        module.conv.weight.copy_(torch.tensor(weight)[..., None, None])
        if module.conv.bias is not None:
            nn.init.zeros_(module.conv.bias)
    return module(MS, PAN).flatten().tolist()


def test_fusions_by_hand():
    assert Sum(2)(MS, PAN).flatten().tolist() == [4, 2]
    assert fused(Concatenation(2), [[1, 0, 2, 0], [0, 1, 0, -1]]) == [1 + 6, 4 + 2]
    g = 1 / (1 + math.exp(-(1 - 3)))  # the first gate sees ms - pan of its channel, the second nothing
    assert fused(Gate(2), [[1, 0, -1, 0], [0, 0, 0, 0]]) == pytest.approx([g * 1 + (1 - g) * 3, 1])


@pytest.mark.parametrize("fusion", [Sum, Gate, Concatenation])
def test_each_cell_for_itself(fusion):
    torch.manual_seed(0)
    module, (f, g) = fusion(3), torch.randn(2, 2, 3, 5, 7)
    assert_close(module(f, g)[:, :, 1:3, 4:], module(f[:, :, 1:3, 4:], g[:, :, 1:3, 4:]))


# ---- whole networks


def network(name: str, architecture: PatchArchitecture, ratio: int) -> ADCDNet:
    torch.manual_seed(0)
    return ADCDNet(architecture, Layout(ms_bands=3, pan_bands=1, ratio=ratio, classes=4), SUBSTITUTES[name])


def cuts(x: torch.Tensor, targets: Targets, side: int, step: int) -> torch.Tensor:
    """The patches around targets; step: pixels of x per MS pixel."""
    places = zip(*(i.tolist() for i in targets), strict=True)
    return torch.stack([x[t, :, i * step : (i + side) * step, j * step : (j + side) * step] for t, i, j in places])


@pytest.mark.parametrize("name", SUBSTITUTES)
def test_a_tile_gives_the_numbers_and_gradients_of_its_patches(name):
    head = "flatten" if "fusion" in name else "centre"
    found = liven(
        network(name, TrainConfig.of_profile("patch").replace({"network": SMALL | {"head": head}}).network, 2)
    ).double()
    side = found.config.size
    generator = torch.Generator().manual_seed(0)
    for module in found.modules():
        if isinstance(module, LearntToken):  # as in training: a token of zeros would let no gradient through
            module.mean.copy_(torch.randn(len(module.mean), generator=generator))
    ms, pan = (
        torch.randn(2, bands, (side + 4) * r, (side + 3) * r, generator=generator, dtype=torch.float64)
        for bands, r in ((3, 1), (1, 2))
    )
    targets = Targets(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 4, 2, 3]), torch.tensor([0, 3, 1, 0]))
    shared = found.on_tile(ms, pan, targets, branch_targets=targets)
    defined = found(cuts(ms, targets, side, 1), cuts(pan, targets, side, 2), branches=True)
    gradients = []
    for outputs in (shared, defined):
        found.zero_grad()
        sum(F.cross_entropy(logits, torch.tensor([0, 2, 1, 3])) for logits in outputs).backward()
        gradients.append({name: p.grad.clone() for name, p in found.trained_parameters()})
    assert_close(shared, defined, rtol=0, atol=1e-9)
    assert_close(*gradients, rtol=0, atol=1e-9)
    exchanged = {"cbam": "attention"}.get(name, "fuse" if "fusion" in name else "reader")
    own = {key: g for key, g in gradients[0].items() if f".{exchanged}." in key}
    assert own
    assert all(g.any() for g in own.values())


@pytest.mark.parametrize("name", SUBSTITUTES)
def test_every_part_learns_in_the_published_network(name):
    paper = replace(TrainConfig.of_profile("paper").network, widths=(24, 24, 24), hidden=7, token_dims=(6, 8))
    found = network(name, paper, 4).train()
    outputs = found(torch.randn(24, 3, 16, 16), torch.randn(24, 1, 64, 64), branches=True)
    sum(F.cross_entropy(logits, torch.arange(24) % 4) for logits in outputs).backward()
    idle = [key for key, p in found.trained_parameters() if p.grad is None or not p.grad.any()]
    assert not idle
