"""CBAM's spatial attention, which may stand in DIA's place (Woo et al., ECCV 2018, arXiv:1807.06521, section 3.2).

x features (b, c, h, w) | a, m mean and maximum of x over channels (b, 1, h, w) | M mask in (0, 1) (b, 1, h, w)

    M = σ(conv([a, m]))     y = ReLU(x·M)           one 7×7 convolution, zero-padded, without bias

Deviation: the ReLU, which is DIA's; it changes nothing where x has passed one already.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """(b, c, h, w) -> the same, for any c, h and w; 98 parameters. Formula and letters: top of file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def mask_of(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """M (b, 1, h, w) from the mean and the maximum over channels, (b, 1, h, w) each."""
        return torch.sigmoid(self.conv(torch.cat((mean, maximum), dim=1)))

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(x·M), in the shape of x (b, c, h, w)."""
        return torch.relu_(x * self.mask_of(x.mean(1, keepdim=True), x.amax(1, keepdim=True)))
