"""The Mamba block (Gu & Dao, arXiv:2312.00752), with the parameter names and shapes of the mamba-ssm package.

b batch | l steps | e = expand·d_model inner channels | n = d_state | r = ⌈d_model/16⌉ rank of delta
x (b, l, d_model) -> in_proj -> u, z (b, l, e) each; u -> causal depthwise conv1d -> SiLU
u -> x_proj -> (b, l, r + 2n) = delta's low-rank part, B, C; delta = softplus(dt_proj(...))
y = selective_scan(u, delta, -exp(A_log), B, C, D) · SiLU(z) -> out_proj -> (b, l, d_out)

Deviation: the output may have another width than the input (d_out).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .scan import scan_step, selective_scan

DELTA_MIN, DELTA_MAX, DELTA_FLOOR = 1e-3, 1e-1, 1e-4  # step sizes at initialisation, as in the Mamba paper


class ScanInputs(NamedTuple):
    """What one block feeds its scan, and the gate z that multiplies the scan's output."""

    u: Tensor  # (b, l, e)
    delta: Tensor  # (b, l, e)
    B: Tensor  # (b, l, n)
    C: Tensor  # (b, l, n)
    z: Tensor  # (b, l, e)


class MambaState(NamedTuple):
    """What a stream must remember between two steps."""

    inputs: Tensor  # the last d_conv - 1 inputs of the convolution (b, e, d_conv - 1)
    h: Tensor  # the state of the scan (b, e, n)


class Mamba(nn.Module):
    """One Mamba block: (b, l, d_model) -> (b, l, d_out); output t depends on inputs 0..t alone.

    No residual and no normalisation: add them around it. d_out defaults to d_model.
    """

    def __init__(
        self, d_model: int, d_out: int | None = None, d_state: int = 16, d_conv: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_out or d_model, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Mamba's own start for A_log (A = -1..-n), D (1) and dt_proj; the other layers are left as they are.

        Run it again after a loop that initialises every Linear: dt_proj's start sets the time scales of the block.
        """
        self.A_log.copy_(torch.arange(1, self.d_state + 1).log().expand(self.d_inner, -1))
        self.D.fill_(1.0)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        low, high = math.log(DELTA_MIN), math.log(DELTA_MAX)
        delta = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp().clamp(min=DELTA_FLOOR)
        self.dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus(bias) = delta

    @property
    def A(self) -> Tensor:
        """Decay rates < 0 (e, n)."""
        return -torch.exp(self.A_log)

    def scan_inputs(self, x: Tensor) -> ScanInputs:
        """What the scan is fed for x (b, l, d_model)."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv1d(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        return ScanInputs(u, *self._selection(u), z)

    def _selection(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """delta, B and C for the scan input u (..., e): what is let in, kept and read is chosen by u itself."""
        low_rank, B, C = self.x_proj(u).split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        return F.softplus(self.dt_proj(low_rank)), B, C

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d_model) -> (b, l, d_out)."""
        u, delta, B, C, z = self.scan_inputs(x)
        y: Tensor = self.out_proj(selective_scan(u, delta, self.A, B, C, self.D) * F.silu(z))
        return y

    def start(self, batch: int) -> MambaState:
        """The state of `batch` streams before their first step."""
        return MambaState(
            self.D.new_zeros(batch, self.d_inner, self.d_conv - 1), self.D.new_zeros(batch, self.d_inner, self.d_state)
        )

    def step(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """One step of a stream: x (b, d_model) -> y (b, d_out) and the next state; as forward, step by step."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        window = torch.cat((state.inputs, u[..., None]), dim=-1)  # (b, e, d_conv)
        u = F.silu(F.conv1d(window, self.conv1d.weight, self.conv1d.bias, groups=self.d_inner)[..., 0])
        delta, B, C = self._selection(u)
        y, h = scan_step(state.h, u, delta, self.A, B, C, self.D)
        return self.out_proj(y * F.silu(z)), MambaState(window[..., 1:], h)
