"""Backbones: published sizes, and strides turned into dilations without a change in value."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from adcdnet.nn.backbone import Backbone, ConvUnit, MobileUnit, Stem

WIDTHS = (5, 7, 6)


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode and float64, with BatchNorms that do something."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(norm.weight, generator=generator)
            nn.init.normal_(norm.bias, generator=generator)
    return module.double().eval()


@pytest.mark.parametrize("unit", ["conv", "mobilenetv3"])
@pytest.mark.parametrize("ratio", [None, 1, 2, 3, 8])
def test_shared_values_are_those_of_each_patch(unit, ratio):
    backbone = settled(Backbone(3, WIDTHS, unit=unit, ratio=ratio))
    scale = ratio or 1
    tile = torch.randn(2, 3, 29 * scale, 27 * scale, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shared = backbone.shared(tile)
    for row, col in ((0, 0), (1, 2), (4, 1)):  # a patch of 25 = 17 and a halo of 4 begins there
        patch = tile[:, :, row * scale : (row + 25) * scale, col * scale : (col + 25) * scale]
        for depth, (one, all_) in enumerate(zip(backbone(patch), shared, strict=True)):
            step = (1, 2, 2)[depth]
            side = one.shape[-1]
            rows = slice(row, row + (side - 1) * step + 1, step)
            cols = slice(col, col + (side - 1) * step + 1, step)
            assert_close(all_[:, :, rows, cols], one, rtol=0, atol=1e-12)
    assert [d.shape[-1] for d in backbone(tile[:, :, : 25 * scale, : 25 * scale])] == [23, 11, 9]


def test_published_sizes():
    ms = Backbone(4, (8, 16, 8), strides=(1, 2, 1), padding="zeros")
    pan = Backbone(1, (8, 16, 8), strides=(2, 2, 2), padding="zeros")
    assert [tuple(d.shape[1:]) for d in ms(torch.zeros(2, 4, 16, 16))] == [(8, 16, 16), (16, 8, 8), (8, 8, 8)]
    assert [tuple(d.shape[1:]) for d in pan(torch.zeros(2, 1, 64, 64))] == [(8, 32, 32), (16, 16, 16), (8, 8, 8)]


def test_a_stem_output_sees_its_own_coarse_pixel_and_no_other():
    stem = settled(Stem(2, 4, 3))
    x = torch.randn(1, 2, 12, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    stem.norm.bias.data += 100  # the ReLU lets everything through
    stem(x)[0, :, 2, 1].sum().backward()
    seen = (x.grad[0] != 0).all(0)
    assert seen[6:9, 3:6].all()
    assert seen.sum() == 9


def test_a_mobile_unit_adds_its_input_only_where_shapes_agree():
    for stride, c_out, residual in ((1, 4, True), (1, 5, False), (2, 4, False)):
        unit = settled(MobileUnit(4, c_out, stride=stride, padding="valid", squeeze_excite=False, hard_swish=True))
        nn.init.zeros_(unit.project_norm.weight)
        nn.init.zeros_(unit.project_norm.bias)
        x = torch.randn(1, 4, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        y = unit(x)
        assert_close(y, x[:, :, 1:-1, 1:-1] if residual else torch.zeros_like(y))


def test_a_mobile_unit_by_hand():
    """One pixel of two bands, every convolution an identity or a sum: h-swish(x) = x · ReLU6(x + 3) / 6, or ReLU."""
    x = torch.tensor([1.0, -2.0], dtype=torch.float64).view(1, 2, 1, 1)
    swish = (1 * 4 / 6, -2 * 1 / 6)
    twice = tuple(v * min(max(v + 3, 0), 6) / 6 for v in swish)
    for hard_swish, inner in ((True, twice), (False, (1.0, 0.0))):
        unit = MobileUnit(2, 3, stride=2, padding="zeros", squeeze_excite=False, hard_swish=hard_swish).double().eval()
        assert unit.expand.weight.shape == (8, 2, 1, 1)
        for norm in (unit.expand_norm, unit.depthwise_norm, unit.project_norm):
            norm.eps = 0.0
        with torch.no_grad():
            unit.expand.weight.zero_()
            unit.expand.weight[0, 0] = unit.expand.weight[1, 1] = 1
            unit.depthwise.weight.zero_()
            unit.depthwise.weight[:, 0, 1, 1] = 1
            unit.project.weight.zero_()
            unit.project.weight[2, :2] = 1
        assert_close(unit(x).flatten(), torch.tensor([0, 0, sum(inner)], dtype=torch.float64))


def test_one_band_is_expanded_to_as_many_channels_as_come_out():
    unit = MobileUnit(1, 128, stride=2, padding="zeros", squeeze_excite=True, hard_swish=True)
    assert unit.depthwise.weight.shape == (128, 1, 3, 3)
    assert unit.squeeze.weight.shape == (32, 128)


def test_depthwise_convolutions_learn_in_float32_under_bf16():
    unit, seen = MobileUnit(4, 8, stride=2, padding="zeros", squeeze_excite=True, hard_swish=True), []
    unit.depthwise_norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert unit.train()(torch.randn(2, 4, 8, 8)).dtype == torch.bfloat16
    assert seen == [torch.float32]


def test_squeeze_excite_sees_the_whole_patch_and_is_not_shared():
    torch.manual_seed(0)  # with so few channels a ReLU in the squeeze can be dead
    backbone = settled(Backbone(3, (16, 16, 16), unit="mobilenetv3", squeeze_excite=True))
    x = torch.randn(1, 3, 25, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    backbone(x)[0][0, :, 11, 11].sum().backward()
    assert x.grad[0, :, 0, 0].abs().max() > 0
    with pytest.raises(ValueError, match="squeeze-excite"):
        backbone.shared(x)


def test_refusals():
    with pytest.raises(ValueError, match="strides"):
        Backbone(3, (8, 8), strides=(1, 2, 1))
    with pytest.raises(ValueError, match="unit is 'vit'"):
        Backbone(3, WIDTHS, unit="vit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="padding is 'same'"):
        Backbone(3, WIDTHS, padding="same")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zero padding"):
        Backbone(3, WIDTHS, padding="zeros").shared(torch.zeros(1, 3, 25, 25))


def norm_of(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """By its formula, with the statistics it has measured."""
    shape = (1, -1, 1, 1)
    centred = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    return centred * norm.weight.view(shape) + norm.bias.view(shape)


def by_formula(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(module, MobileUnit):
        y = F.hardswish(norm_of(module.expand_norm, module.expand(x)))
        y = F.hardswish(norm_of(module.depthwise_norm, module.depthwise(y)))
        return norm_of(module.project_norm, module.project(y))
    return F.relu(norm_of(module.norm, module.conv(x)))


@pytest.mark.parametrize(
    "module",
    [
        ConvUnit(3, 4, stride=2, padding="valid"),
        ConvUnit(3, 4, stride=1, padding="zeros"),
        MobileUnit(3, 4, stride=1, padding="valid", squeeze_excite=False, hard_swish=True),
        Stem(3, 4, 2),
    ],
)
def test_a_settled_norm_is_part_of_its_convolution(module):
    settled(module)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.mul_(1e-5)  # so small that eps counts
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    found, expected = module(x), by_formula(module, x)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)
    given = [x, *module.parameters()]
    mine, theirs = (torch.autograd.grad(y.square().mean(), given) for y in (found, expected))
    assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_a_norm_that_learns_measures_what_it_sees():
    unit = ConvUnit(3, 4, stride=1, padding="valid").train()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    y = F.conv2d(x, unit.conv.weight)
    assert_close(unit(x), F.relu(F.batch_norm(y, None, None, training=True)))
    assert_close(unit.norm.running_mean, 0.1 * y.mean((0, 2, 3)))
