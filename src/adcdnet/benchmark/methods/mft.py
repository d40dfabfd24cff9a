"""MFT-like transformer, after Roy, Deria, Hong, Rasti, Plaza and Chanussot 2023, IEEE TGRS 61 (arXiv:2203.16952).

n pixels | d width, 64 | positions of a patch after its convolutions
Four tokens are weighted means of the MS patch, one is a weighted mean of the PAN patch: T = softmax(A x)ᵀ (V x), A and
V learnt, softmax over the positions. The PAN token takes the place of the class token and asks the others.
Patches of 16×16 MS pixels.
Deviations: plain 3×3 convolutions for the 3-D and grouped ones on hyperspectral bands; two convolutions of stride 2
for PAN; training: `patches`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adcdnet.benchmark.methods.loop import Recipe
from adcdnet.benchmark.methods.patches import PatchMethod
from adcdnet.nn.architecture import Layout

_D = 64
_MS_TOKENS = 4


class MFT(nn.Module):
    """ms (n, B, 16, 16) and pan (n, B', 16r, 16r) -> logits (n, K)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.ms = nn.Sequential(_convolutions(layout.ms_bands, stride=1), _Tokens(_MS_TOKENS))
        self.pan = nn.Sequential(_convolutions(layout.pan_bands, stride=2), _Tokens(1))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + _MS_TOKENS, _D))
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.classifier = nn.Sequential(nn.LayerNorm(_D), nn.Linear(_D, layout.classes))

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        tokens = self.dropout(torch.cat([self.pan(pan), self.ms(ms)], dim=1) + self.position)  # (n, 5, d)
        asks, others = tokens[:, :1], tokens[:, 1:]
        for block in self.blocks:
            asks = block(asks, others)
        logits: Tensor = self.classifier(asks[:, 0])
        return logits


class _Tokens(nn.Module):
    """x (n, d, h, w) -> `count` weighted means (n, count, d)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.A = nn.Linear(_D, count, bias=False)
        self.V = nn.Linear(_D, _D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(2).transpose(1, 2)  # (n, h·w, d)
        tokens: Tensor = self.A(positions).softmax(1).transpose(1, 2) @ self.V(positions)
        return tokens


class _Block(nn.Module):
    """Attention in which only the class token asks, then an MLP on it; both with their input added."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(_D), nn.LayerNorm(_D)
        self.attention = nn.MultiheadAttention(_D, 8, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(_D, 8 * _D), nn.GELU(), nn.Dropout(0.1), nn.Linear(8 * _D, _D), nn.Dropout(0.1)
        )

    def forward(self, asks: Tensor, others: Tensor) -> Tensor:
        """asks (n, 1, d), others (n, t, d) -> (n, 1, d)"""
        all_ = self.before_attention(torch.cat([asks, others], dim=1))
        answer, _ = self.attention(all_[:, :1], all_, all_, need_weights=False)
        asks = asks + answer
        changed: Tensor = asks + self.mlp(self.before_mlp(asks))
        return changed


def _convolutions(bands: int, *, stride: int) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (bands, _D):
        layers += [nn.Conv2d(channels, _D, 3, stride, padding=1, bias=False), nn.BatchNorm2d(_D), nn.ReLU()]
    return nn.Sequential(*layers)


MFT_METHOD = PatchMethod(MFT, side=16, batch=64, recipe=Recipe(steps=600, learning_rate=5e-4, weight_decay=5e-3))
