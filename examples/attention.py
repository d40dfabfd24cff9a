"""CBAM's spatial attention, which DIA is compared with (Woo et al., ECCV 2018, arXiv:1807.06521, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """x (b, c, h, w) -> x·σ(conv([mean_c x, max_c x])), one convolution 2→1 of width `kernel` without bias."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat((x.mean(1, keepdim=True), x.max(1, keepdim=True).values), dim=1)
        return x * torch.sigmoid(self.conv(pooled))
