"""Deformable interactive attention, DIA (ADCD-Net, IEEE TGRS 2025, document 10841446).

x features (b, c, h, w)
a, m mean and maximum of x over channels (b, 1, h, w)     a', m' the same, halved (b, 1, ⌈h/2⌉, ⌈w/2⌉)
g_a, g_m gates in (0, 1), at the halved size              M mask in (0, 1) (b, 1, h, w)
s_a, s_m factors on the gradients that reach a', m' through their gates (global_scale, local_scale)

    a' = down_avg(a)                    m' = down_max(m)                3×3 convolutions, stride 2
    g_a = σ(gate_avg(S(a', s_a)))       g_m = σ(gate_max(S(m', s_m)))   S scales the gradient alone
    M = σ(up(mask([g_a·m', g_m·a'])))   y = ReLU(x·M)

Deviation: odd h and w are accepted (the upsampling goes to (h, w), not to twice the halved size).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def scale_gradient(v: Tensor, s: float) -> Tensor:
    """v itself, to the last bit in every precision; a gradient that passes back through it is multiplied by s."""
    still = v.detach()
    return still + s * (v - still)


class DeformableInteractiveAttention(nn.Module):
    """Spatial attention in which the mean and the maximum over channels gate each other: (b, c, h, w) -> the same.

    59 parameters, whatever c is; h and w are free, 1 included. `global_scale` (s_a) and `local_scale` (s_m) multiply
    the gradient that reaches the mean and the maximum through their gates: 0.4 and 0.1 where the smooth, global part
    leads (multispectral), the other way round where detail leads (panchromatic). Formula and letters: top of file.
    """

    def __init__(self, global_scale: float = 0.4, local_scale: float = 0.1) -> None:
        super().__init__()
        self.global_scale = global_scale
        self.local_scale = local_scale
        self.down_avg = nn.Conv2d(1, 1, 3, stride=2, padding=1)
        self.down_max = nn.Conv2d(1, 1, 3, stride=2, padding=1)
        self.gate_avg = nn.Conv2d(1, 1, 3, padding=1)
        self.gate_max = nn.Conv2d(1, 1, 3, padding=1)
        self.mask = nn.Conv2d(2, 1, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Neutral gates: weight and bias 0, so g = 1/2 everywhere. Run it again after a global initialisation loop."""
        for gate in (self.gate_avg, self.gate_max):
            nn.init.zeros_(gate.weight)
            if gate.bias is not None:
                nn.init.zeros_(gate.bias)

    def mask_of(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """M (b, 1, h, w) from the mean and the maximum over channels, (b, 1, h, w) each."""
        avg, top = self.down_avg(mean), self.down_max(maximum)  # a', m'
        gate_avg = torch.sigmoid(self.gate_avg(scale_gradient(avg, self.global_scale)))
        gate_max = torch.sigmoid(self.gate_max(scale_gradient(top, self.local_scale)))
        mixed = self.mask(torch.cat((gate_avg * top, gate_max * avg), dim=1))
        return torch.sigmoid(F.interpolate(mixed, size=mean.shape[-2:], mode="nearest"))

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(x·M), in the shape of x (b, c, h, w)."""
        mask = self.mask_of(x.mean(1, keepdim=True), x.max(1, keepdim=True).values)
        return torch.relu_(x * mask)
