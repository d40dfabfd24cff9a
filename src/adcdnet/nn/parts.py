"""The parts of ADCD-Net that may be exchanged, as factories; the paper's are the defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from .dia import DeformableInteractiveAttention
from .mamba import Mamba
from .tile_sharing import Masks


class Attention(Protocol):
    """A module F = ReLU(x·M) of maps x (n, c, g, g); M (n, 1, g, g) is made of mean and maximum over channels alone."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def mask_operator(self, g: int) -> Masks:
        """The same masks of many patches of g × g cells at once; asked for anew when weights have changed."""
        ...


class Sum(nn.Module):
    """F_ms + F_pan, the published fusion."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        return f_ms + f_pan


def _dia(global_scale: float, local_scale: float) -> Attention:
    return DeformableInteractiveAttention(global_scale=global_scale, local_scale=local_scale)


def _mamba(d_model: int, d_out: int) -> nn.Module:
    return Mamba(d_model, d_out=d_out, expand=1)


@dataclass(frozen=True)
class Parts:
    """What a network is built with where its `PatchArchitecture` has such a part at all.

    attention(global_scale, local_scale): on the last depth of both sensors, in both stages.
    reader(d_model, d_out): of a DTM's tokens, (b, l, d_model) -> (b, l, d_out); output t depends on tokens 0..t alone.
    fuse(channels): F_ms, F_pan (n, c, 1, 1) of one cell -> (n, c, 1, 1); of head 'flatten'.
    """

    attention: Callable[[float, float], Attention] = _dia
    reader: Callable[[int, int], nn.Module] = _mamba
    fuse: Callable[[int], nn.Module] = Sum


PUBLISHED = Parts()
