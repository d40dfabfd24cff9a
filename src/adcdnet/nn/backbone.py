"""Convolutional backbone of one sensor: three depths, as 3×3 convolutions or MobileNetV3 units.

b batch | c_k channels of depth k | s_k stride of depth k | r ratio (stride of the pan stem)

    depth_k = unit_k(depth_{k-1}),   depth_0 = stem(x) or x

Padding 'zeros' (the published network): every unit keeps or halves the size. Padding 'valid': no padding, so that
output i of a unit of stride s is centred on input s·i and the patch must bring a halo of real neighbours.
A valid backbone can also be applied `shared`: strides become dilations and every position of a large tile gets the
very value it would have as the centre of its own patch (Giusti et al. 2013, arXiv:1302.1700).
Units: ADCD-Net (TGRS 2025) names MobileNetV3 units (Howard et al. 2019, arXiv:1905.02244); its code uses convolutions.
Deviation: convolutions before a BatchNorm have no bias (it would never receive a gradient).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UnitName = Literal["conv", "mobilenetv3"]
Padding = Literal["valid", "zeros"]


def normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, dilation: int | None = None) -> Tensor:
    """BatchNorm of a convolution; `dilation` as in `_convolve`.

    Where the norm does not take its statistics from x, it is part of the convolution's weights.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        normalised: Tensor = norm(_convolve(conv, x, conv.weight, None, dilation))
        return normalised
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    return _convolve(conv, x, conv.weight * scale[:, None, None, None], bias, dilation)


def _convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int | None) -> Tensor:
    """`conv` with these weights, or (dilation given) at every position of x, reading inputs `dilation` apart."""
    if dilation is None:
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, 1, conv.groups)
    return F.conv2d(x, weight, bias, 1, 0, dilation, conv.groups)


class ConvUnit(nn.Module):
    """3×3 convolution, BatchNorm, ReLU. (b, c_in, h, w) -> (b, c_out, h', w')."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, padding: Padding) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, padding=int(padding == "zeros"), bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor, dilation: int | None = None) -> Tensor:
        return F.relu_(normalised(self.conv, self.norm, x, dilation))


class MobileUnit(nn.Module):
    """1×1 expansion, depthwise 3×3, 1×1 projection, h-swish or ReLU between; residual where shapes agree.

    squeeze_excite weighs channels by their mean over the patch; such a unit cannot be applied `shared`.
    Deviation: expanded to 4·c_in channels, and to c_out at least. MobileNetV3 has a convolution of 16 channels before
    its first unit; here that unit sees the bands, and of one band of PAN four filters would be left.
    """

    EXPANSION = 4

    def __init__(
        self, c_in: int, c_out: int, *, stride: int, padding: Padding, squeeze_excite: bool, hard_swish: bool
    ) -> None:
        super().__init__()
        self.activation = F.hardswish if hard_swish else F.relu
        wide = max(self.EXPANSION * c_in, c_out)
        self.expand = nn.Conv2d(c_in, wide, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, padding=int(padding == "zeros"), groups=wide, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(wide)
        self.squeeze = nn.Linear(wide, max(1, wide // 4)) if squeeze_excite else None
        self.excite = nn.Linear(max(1, wide // 4), wide) if squeeze_excite else None
        self.project = nn.Conv2d(wide, c_out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(c_out)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor, dilation: int | None = None) -> Tensor:
        y = self.activation(normalised(self.expand, self.expand_norm, x))
        y = self.activation(self._each_channel(y, dilation))
        if self.squeeze is not None and self.excite is not None:
            weight = F.hardsigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
            y = y * weight[:, :, None, None]
        y = normalised(self.project, self.project_norm, y)
        if self.residual:
            trim = (x.shape[-1] - y.shape[-1]) // 2
            y = y + F.pad(x, (-trim, -trim, -trim, -trim))
        return y

    def _each_channel(self, x: Tensor, dilation: int | None) -> Tensor:
        """Depthwise convolution and its norm. On a processor its gradients take three times as long in bf16."""
        if not self.training or x.dtype == self.depthwise.weight.dtype:
            return normalised(self.depthwise, self.depthwise_norm, x, dilation)
        with torch.autocast(x.device.type, enabled=False):
            return normalised(self.depthwise, self.depthwise_norm, x.to(self.depthwise.weight.dtype), dilation)


class Stem(nn.Module):
    """Brings the fine sensor onto the coarse grid: r×r convolution of stride r, BatchNorm, ReLU.

    (b, bands, h·r, w·r) -> (b, c, h, w): each output sees exactly the fine pixels of its own coarse pixel.
    """

    def __init__(self, bands: int, channels: int, ratio: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(bands, channels, ratio, ratio, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(normalised(self.conv, self.norm, x))


class Backbone(nn.Module):
    """Three depths of one sensor. Returns them as a list of (b, c_k, h_k, w_k).

    ratio: puts a stem before the units (valid padding, fine sensor); None: none.
    """

    def __init__(
        self,
        bands: int,
        widths: Sequence[int] = (128, 256, 128),
        *,
        strides: Sequence[int] = (1, 2, 1),
        unit: UnitName = "conv",
        padding: Padding = "valid",
        ratio: int | None = None,
        squeeze_excite: bool = False,
        hard_swish: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != len(strides):
            raise ValueError(f"{len(widths)} widths and {len(strides)} strides must be as many")
        if padding not in ("valid", "zeros"):
            raise ValueError(f"padding is {padding!r}, must be 'valid' or 'zeros'")
        self.strides = tuple(strides)
        self.sharable = padding == "valid" and not squeeze_excite
        self.rectified = unit == "conv"  # no depth is negative
        self.stem = Stem(bands, widths[0], ratio) if ratio is not None else None
        inputs = [widths[0] if ratio is not None else bands, *widths[:-1]]
        self.units = nn.ModuleList()
        for c_in, c_out, stride in zip(inputs, widths, strides, strict=True):
            if unit == "conv":
                self.units.append(ConvUnit(c_in, c_out, stride=stride, padding=padding))
            elif unit == "mobilenetv3":
                self.units.append(
                    MobileUnit(
                        c_in,
                        c_out,
                        stride=stride,
                        padding=padding,
                        squeeze_excite=squeeze_excite,
                        hard_swish=hard_swish,
                    )
                )
            else:
                raise ValueError(f"unit is {unit!r}, must be 'conv' or 'mobilenetv3'")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x if self.stem is None else self.stem(x)
        x = x.contiguous(memory_format=torch.channels_last)  # faster, most of all for depthwise convolutions
        depths = []
        for unit in self.units:
            x = unit(x)
            depths.append(x)
        return depths

    def shared(self, x: Tensor) -> list[Tensor]:
        """Every depth at every position of the coarse grid (the stem keeps its stride). ValueError if not sharable."""
        if not self.sharable:
            raise ValueError("zero padding and squeeze-excite tie values to their patch; run this patch by patch")
        x = x if self.stem is None else self.stem(x)
        # the channels of one position side by side, as they will be read
        x = x.contiguous(memory_format=torch.channels_last)
        depths, dilation = [], 1
        for unit, stride in zip(self.units, self.strides, strict=True):
            x = unit(x, dilation)
            depths.append(x)
            dilation *= stride
        return depths
