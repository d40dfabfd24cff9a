"""Deformable interactive attention, DIA (ADCD-Net, IEEE TGRS 2025, document 10841446).

x features (b, c, h, w)
a, m mean and maximum of x over channels (b, 1, h, w)     a', m' the same, halved (b, 1, ⌈h/2⌉, ⌈w/2⌉)
g_a, g_m gates in (0, 1), at the halved size              M mask in (0, 1) (b, 1, h, w)
s_a, s_m factors on the gradients that reach a', m' through their gates (global_scale, local_scale)

    a' = down_avg(a)                    m' = down_max(m)                3×3 convolutions, stride 2
    g_a = σ(gate_avg(S(a', s_a)))       g_m = σ(gate_max(S(m', s_m)))   S scales the gradient alone
    M = σ(up(mask([g_a·m', g_m·a'])))   y = ReLU(x·M)

`gated=False`: g_a = g_m = 1, without the gates' parameters. `rectify=False`: y = x·M.

Deviations: odd h and w are accepted (the upsampling goes to (h, w), not to twice the halved size). The biases of the
gates start at zero as their weights do, so that the gates are neutral. The published module takes a stride for its
gates, which crashes for all but 1: there is none here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PUBLISHED = {  # names of layers in the published module, which has no others, and here
    "downavg": "down_avg",
    "downmax": "down_max",
    "d_conv": "gate_avg",
    "d_conv1": "gate_max",
    "conv": "mask",
}


def scale_gradient(v: Tensor, s: float) -> Tensor:
    """v itself, to the last bit in every precision; a gradient that passes back through it is multiplied by s."""
    still = v.detach()
    return still + s * (v - still)


def maximum_over_channels(x: Tensor) -> Tensor:
    """m (b, 1, h, w) of x (b, c, h, w); of equal maxima one gets the gradient."""
    # which one it is costs more than half of a forward pass, and is asked for by gradients alone
    return x.max(1, keepdim=True).values if torch.is_grad_enabled() else x.amax(1, keepdim=True)


class ZeroGate(nn.Module):
    """3×3 convolution 1 → 1, padding 1, that starts at zero: its σ is 1/2 everywhere, so the gate is neutral.

    Not an `nn.Conv2d`, so that loops which initialise every convolution leave its start alone.
    """

    in_channels, stride, padding = 1, 1, 1

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        # drawn as a convolution's, so that a seed keeps its weights
        self.weight = nn.Parameter(torch.rand(1, 1, 3, 3, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.rand(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class DeformableInteractiveAttention(nn.Module):
    """Spatial attention in which the mean and the maximum over channels gate each other: (b, c, h, w) -> the same.

    59 parameters, 39 if not gated, whatever c is; h and w are free, 1 included. `global_scale` (s_a) and `local_scale`
    (s_m) multiply the gradient that reaches the mean and the maximum through their gates: 0.4 and 0.1 where the smooth,
    global part leads (multispectral), the other way round where detail leads (panchromatic). Formula: top of file.

    channels, out_channels, in_channels: nothing depends on them; they are accepted because builders of networks pass
    the channels of the features to every attention. device, dtype: of the parameters. ValueError for a factor outside
    [0, 1], for what is no number of channels, and for numbers that differ.
    """

    def __init__(
        self,
        channels: int | None = None,
        out_channels: int | None = None,
        *,
        in_channels: int | None = None,
        global_scale: float = 0.4,
        local_scale: float = 0.1,
        gated: bool = True,
        rectify: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, scale in (("global_scale", global_scale), ("local_scale", local_scale)):
            if not 0 <= scale <= 1:  # NaN too
                raise ValueError(f"{name} is {scale}; a factor on gradients must lie in [0, 1]")
        given = [c for c in (channels, out_channels, in_channels) if c is not None]
        if any(isinstance(c, bool) or not hasattr(c, "__index__") or c < 1 or c != given[0] for c in given):
            raise ValueError(
                f"channels are {', '.join(map(repr, given))}; they must be the same whole number, at least 1 "
                "(the factors on gradients go by name: global_scale=0.4, local_scale=0.1)"
            )
        self.global_scale, self.local_scale = global_scale, local_scale
        self.gated, self.rectify = gated, rectify
        self.down_avg = nn.Conv2d(1, 1, 3, stride=2, padding=1, device=device, dtype=dtype)
        self.down_max = nn.Conv2d(1, 1, 3, stride=2, padding=1, device=device, dtype=dtype)
        if gated:
            self.gate_avg = ZeroGate(device=device, dtype=dtype)
            self.gate_max = ZeroGate(device=device, dtype=dtype)
        self.mask = nn.Conv2d(2, 1, 3, padding=1, device=device, dtype=dtype)

    @classmethod
    def from_published(
        cls,
        weights: Mapping[str, Tensor],
        *,
        prefix: str = "",
        global_scale: float = 0.4,
        local_scale: float = 0.1,
    ) -> DeformableInteractiveAttention:
        """A module with the weights of the published one, whose layers are conv, downavg, downmax, d_conv and d_conv1.

        weights: its state_dict, or that of a network which has it under `prefix`, such as "dct_ms."; without d_conv and
        d_conv1 (distortionmode=False there) the module is not gated. The factors are no weights: they are given here,
        0.4 and 0.1 for the published DeformableAttention, 0.1 and 0.4 for its DeformableAttention2. ValueError for
        names that are missing or unknown.
        """
        own = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
        gated = any(name.startswith("d_conv") for name in own)
        layers = [name for name in _PUBLISHED if gated or not name.startswith("d_conv")]
        needed = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
        if own.keys() != needed:
            missing, unknown = sorted(needed - own.keys()), sorted(own.keys() - needed)
            raise ValueError(
                f"no weights of the published module under prefix {prefix!r}: missing {', '.join(missing) or 'none'}, "
                f"unknown {', '.join(unknown) or 'none'}; give its state_dict, or the prefix of its names"
            )
        module = cls(global_scale=global_scale, local_scale=local_scale, gated=gated)
        module.load_state_dict({f"{_PUBLISHED[n.split('.')[0]]}.{n.split('.')[1]}": own[n] for n in sorted(needed)})
        return module

    def extra_repr(self) -> str:
        flags = "".join(f", {name}=False" for name in ("gated", "rectify") if not getattr(self, name))
        return f"global_scale={self.global_scale}, local_scale={self.local_scale}{flags}"

    def mask_of(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """M (b, 1, h, w) from the mean and the maximum over channels, (b, 1, h, w) each."""
        avg, top = self.down_avg(mean), self.down_max(maximum)  # a', m'
        if self.gated:
            gate_avg = torch.sigmoid(self.gate_avg(scale_gradient(avg, self.global_scale)))
            gate_max = torch.sigmoid(self.gate_max(scale_gradient(top, self.local_scale)))
            top, avg = gate_avg * top, gate_max * avg
        mixed = self.mask(torch.cat((top, avg), dim=1))
        return torch.sigmoid(F.interpolate(mixed, size=mean.shape[-2:], mode="nearest"))

    def attention(self, x: Tensor) -> Tensor:
        """M (b, 1, h, w) of x (b, c, h, w), to be looked at."""
        return self.mask_of(x.mean(1, keepdim=True), maximum_over_channels(x))

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(x·M), or x·M if not rectified, in the shape of x (b, c, h, w)."""
        y = x * self.attention(x)
        return torch.relu_(y) if self.rectify else y

    def mask_operator(self, g: int) -> MaskOperator:
        """The masks of many patches of g × g cells at once."""
        return MaskOperator(self, g)


DIA = DeformableInteractiveAttention


class MaskOperator:
    """DIA's masks for many patches of g × g cells: each pair of its 3×3 convolutions written as one small matrix.

    Equal to `DeformableInteractiveAttention.mask_of`. Thousands of 9×9 maps of one channel are the worst case of a
    convolution library and an easy one for a matrix product. Gradients reach the weights of `dia`.
    """

    def __init__(self, dia: DeformableInteractiveAttention, g: int) -> None:
        half = (g + 1) // 2
        self.dia, self.g, self.half = dia, g, half
        # columns [a', m'] from rows (cell, [mean, maximum]), as `windows` lays them
        down = _side_by_side(convolution_matrix(dia.down_avg, g), convolution_matrix(dia.down_max, g))
        self.down = down.view(2, g * g, -1).transpose(0, 1).flatten(0, 1), _biases(dia.down_avg, dia.down_max, half)
        self._last: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        if not dia.gated:
            return
        # columns [g_m, g_a], each above what it multiplies
        gates = _side_by_side(convolution_matrix(dia.gate_avg, half), convolution_matrix(dia.gate_max, half))
        self.gates = gates.roll(half * half, 1), _biases(dia.gate_max, dia.gate_avg, half)

    def __call__(self, pooled: Tensor, *, side: int) -> Tensor:
        """The central cells (n, side²) of the masks, from mean and maximum over channels (n, g²·2), cell by cell."""
        down = torch.addmm(self.down[1], pooled, self.down[0])  # (n, 2·half²)
        mixed = self._gates(down) * down if self.dia.gated else down
        if side not in self._last:
            self._last[side] = self._last_convolution(side)
        matrix, bias, place = self._last[side]
        mask = torch.sigmoid(torch.addmm(bias, mixed, matrix))
        return mask.index_select(1, place)

    def _gates(self, down: Tensor) -> Tensor:
        """[g_m, g_a] from [a', m']."""
        if torch.is_grad_enabled():
            avg, top = down.chunk(2, dim=1)
            down = torch.cat(
                (scale_gradient(avg, self.dia.global_scale), scale_gradient(top, self.dia.local_scale)), dim=1
            )
        return torch.sigmoid(torch.addmm(self.gates[1], down, self.gates[0]))

    def _last_convolution(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Matrix and bias that give the mixed values which the centre shows, and which of them each cell there does."""
        # as nearest upsampling itself has it
        conv, g = self.dia.mask, self.g
        number = torch.arange(self.half**2, dtype=torch.float32, device=conv.weight.device)
        trim = (g - side) // 2
        shown = F.interpolate(number.view(1, 1, self.half, self.half), size=(g, g), mode="nearest")[0, 0]
        needed, place = torch.unique(shown[trim : g - trim, trim : g - trim].flatten().long(), return_inverse=True)
        # the convolution takes [g_a·m', g_m·a'], here they come the other way round
        matrix = convolution_matrix(conv, self.half).roll(self.half**2, 0)[:, needed]
        bias = matrix.new_zeros(1) if conv.bias is None else conv.bias
        return matrix, bias, place


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Block-diagonal matrix of two."""
    both: Tensor = torch.block_diag(first, second)  # type: ignore[no-untyped-call]
    return both


def _biases(first: nn.Conv2d | ZeroGate, second: nn.Conv2d | ZeroGate, half: int) -> Tensor:
    """The biases of two convolutions, each for half × half positions."""
    each = [c.weight.new_zeros(1) if c.bias is None else c.bias for c in (first, second)]
    return torch.cat([b.expand(half * half) for b in each])


def convolution_matrix(conv: nn.Conv2d | ZeroGate, side: int) -> Tensor:
    """A convolution of one output channel on side × side maps without its bias, (channels·side², positions): its
    answer to each input being 1 and the others 0."""
    inputs = conv.in_channels * side * side
    ones = torch.eye(inputs, dtype=conv.weight.dtype, device=conv.weight.device)
    ones = ones.view(inputs, conv.in_channels, side, side)
    return F.conv2d(ones, conv.weight, None, conv.stride, conv.padding).flatten(1)
