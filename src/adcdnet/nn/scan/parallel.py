"""The scan for GPUs: all chunks of the sequence side by side, so that kernels are few and large.

Letters and shapes: `adcdnet.nn.scan`; K chunks of s steps, t counted within its chunk. Two levels:

    gain[k] = Σ_t exp((delta[t+1] + ... + delta[s]) A) delta[t] u[t] B[t]       what a chunk adds to the state
    h[k+1]  = exp((delta[1] + ... + delta[s]) A) h[k] + gain[k]                 K steps of one operation each
    and then the recurrence in all chunks at once, each from its own h[k]: s steps for K chunks together.

Backward alike, from the last chunk to the first, with grad and C in the place of delta u and B. No decay exceeds 1 and
nothing is divided, so neither strong nor weak decay overflows. Only h[k] are kept; what lies between is computed again.
Many chunks are cut into parts of one buffer each.
"""

# ruff: noqa: B905  (the zip of Python 3.9 knows no strict)
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .chunked import CHUNK, Gradients, backward_part, forward_part, together

BUFFER = 2**24  # numbers of one buffer: 64 MB in float32; larger ones mean fewer kernels and more memory


@torch.no_grad()
def forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """y (b, l, c), and the state h (b, n, c) before each chunk and after the last: (b, chunks + 1, n, c)."""
    b, steps, _ = u.shape
    u, delta, B, C = (_side_by_side(v) for v in (u, delta, B, C))
    states = _carried(h, _kept(delta, A), _gained(_time_left(delta), A, delta * u, B), -(-steps // CHUNK))
    parts = zip(*(torch.split(v, _rows(u, A)) for v in (u, delta, B, C, states[:, :-1].flatten(0, 1))))
    y = torch.cat([forward_part(u, delta, A, B, C, D, h)[0] for u, delta, B, C, h in parts])
    return _end_to_end(y, b, steps), states


@torch.no_grad()
def backward(
    grad: Tensor,
    grad_end: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    states: Tensor,
) -> Gradients:
    """From the gradients of y and of the last state (b, n, c), and the states that `forward` kept."""
    b, steps, _ = u.shape
    grad, u, delta, B, C = (_side_by_side(v) for v in (grad, u, delta, B, C))
    gained = _gained(_time_gone(delta), A, grad, C)
    # dL/dh before each chunk and behind the last, as far as later steps make it
    ends = _carried(grad_end, _kept(delta, A), gained, states.shape[1] - 1, onward=False)
    before, behind = states[:, :-1, None].flatten(0, 1), ends[:, 1:].flatten(0, 1)
    parts = zip(*(torch.split(v, _rows(u, A)) for v in (grad, behind, u, delta, B, C, before)))
    found = together(backward_part(g, end, u, delta, A, B, C, D, h) for g, end, u, delta, B, C, h in parts)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, _ = found
    grad_u, grad_delta, grad_B, grad_C = (_end_to_end(v, b, steps) for v in (grad_u, grad_delta, grad_B, grad_C))
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, ends[:, 0].clone()


def _side_by_side(v: Tensor) -> Tensor:
    """(b, l, x) -> (b·K, s, x), the last chunk filled up by steps of delta 0, which leave the state alone."""
    b, steps, x = v.shape
    size = min(CHUNK, steps)
    missing = -steps % size
    if missing:  # a copy
        v = F.pad(v, (0, 0, 0, missing))
    return v.reshape(b * ((steps + missing) // size), size, x)


def _end_to_end(v: Tensor, b: int, steps: int) -> Tensor:
    """(b·K, s, x) -> (b, l, x)."""
    return v.reshape(b, -(-steps // v.shape[1]) * v.shape[1], v.shape[2])[:, :steps].contiguous()


def _rows(v: Tensor, A: Tensor) -> int:
    """How many chunks are taken at once."""
    return max(1, BUFFER // (v.shape[1] * A.numel()))


# Not by cumsum, which is no deterministic operation on CUDA, and not by a product with ones, which tf32 would round.


def _time_left(delta: Tensor) -> Tensor:
    """From the end of each step to that of its chunk, (b·K, s, c)."""
    left = torch.zeros_like(delta)
    for t in reversed(range(delta.shape[1] - 1)):
        torch.add(left[:, t + 1], delta[:, t + 1], out=left[:, t])
    return left


def _time_gone(delta: Tensor) -> Tensor:
    """From the beginning of a chunk to the end of each of its steps, (b·K, s, c)."""
    gone = delta.clone()
    for t in range(1, delta.shape[1]):
        gone[:, t] += gone[:, t - 1]
    return gone


def _kept(delta: Tensor, A: Tensor) -> Tensor:
    """What each chunk leaves of the state before it, (b·K, n, c)."""
    return torch.exp(delta.sum(1)[:, None] * A.T)


def _gained(elapsed: Tensor, A: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Σ_t exp(elapsed[t] A) v[t] w[t] of each chunk, (b·K, n, c); elapsed and v (b·K, s, c), w (b·K, s, n)."""
    parts = []
    for time, x, y in zip(*(torch.split(all_rows, _rows(v, A)) for all_rows in (elapsed, v, w))):
        share = torch.mul(time[:, :, None], A.T).exp_()
        parts.append(share.mul_(x[:, :, None]).mul_(y[..., None]).sum(1))
    return torch.cat(parts)


def _carried(first: Tensor, kept: Tensor, gained: Tensor, chunks: int, *, onward: bool = True) -> Tensor:
    """The states (b, K + 1, n, c) between chunks: from the first (b, n, c) onward, or from the last backwards."""
    b, n, c = first.shape
    kept, gained = (v.view(b, chunks, n, c) for v in (kept, gained))
    states = torch.cat((first[:, None], gained) if onward else (gained, first[:, None]), dim=1)
    for k in range(chunks) if onward else reversed(range(chunks)):
        after, before = (k + 1, k) if onward else (k, k + 1)
        states[:, after].addcmul_(kept[:, k], states[:, before])
    return states
