"""Selective scan, the recurrence inside Mamba (Gu & Dao, arXiv:2312.00752).

b batch | l steps | c channels | n states per channel
u input (b, l, c)         delta step size > 0 (b, l, c)     A decay rate < 0 (c, n)
B state input (b, l, n)   C state output (b, l, n)          D skip (c)
h state (b, c, n)         y output (b, l, c)

    h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]      y[t] = Σ_n C[t] h[t] + D u[t]

Deviation: none.
"""

from __future__ import annotations

import torch
from torch import Tensor


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """y (b, l, c) of the recurrence above, from h = 0; letters and shapes: top of file.

    ValueError if the shapes do not fit together.
    """
    h = u.new_zeros(u.shape[0], *A.shape)
    ys = []
    for t in range(u.shape[1]):
        drive = (delta[:, t] * u[:, t])[..., None] * B[:, t, None]  # (b, c, n)
        h = torch.exp(delta[:, t, :, None] * A) * h + drive
        ys.append((h * C[:, t, None]).sum(-1) + D * u[:, t])  # (b, c)
    return torch.stack(ys, dim=1)
