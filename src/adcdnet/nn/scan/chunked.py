"""The scan for processors: chunk after chunk, each in buffers that stay in the cache.

Letters and shapes: `adcdnet.nn.scan`. Within a chunk of s steps all but the recurrence itself is done for all steps at
once, with the steps first and the channels last: (s, b, n, c). It writes into buffers of one chunk, since fresh memory
would cost more than the arithmetic. The batch is taken in parts whose step is too small for PyTorch to share among
threads: sharing microseconds costs more than it gains, and on a busy machine very much more.
"""

# ruff: noqa: B905  (the zip of Python 3.9 knows no strict)
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

CHUNK = 32  # steps; longer chunks leave the processor's cache, shorter ones keep more states
SHARED = 32768  # elements; PyTorch shares an operation of this size and more among its threads

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # of u, delta, A, B, C, D and h


@torch.no_grad()
def forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """y (b, l, c), and the state h (b, n, c) before each chunk and after the last: (b, chunks + 1, n, c)."""
    batch_parts = zip(*(v.tensor_split(_parts(u, A)) for v in (u, delta, B, C, h)))
    ys, states = zip(*(forward_part(u, delta, A, B, C, D, h) for u, delta, B, C, h in batch_parts))
    return torch.cat(ys), torch.cat(states)


def _parts(u: Tensor, A: Tensor) -> int:
    """Into how many parts the batch is cut: one where no processor's threads and caches count."""
    return max(1, -(-len(u) // max(1, SHARED // (A.numel() + 1)))) if u.device.type == "cpu" else 1


def forward_part(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """As `forward`, the whole batch at once."""
    b, steps = u.shape[:2]
    u, delta, B, C = (_steps_first(v) for v in (u, delta, B, C))
    A = A.T.contiguous()
    y = torch.empty_like(u)
    states = u.new_empty(-(-steps // CHUNK) + 1, b, *A.shape)
    states[0] = h
    buffers = u.new_empty(2, min(CHUNK, steps), b, *A.shape)
    for k in range(len(states) - 1):
        s = slice(k * CHUNK, (k + 1) * CHUNK)
        decay, h = buffers[:, : len(u[s])]
        _states(delta[s], A, u[s], B[s], states[k], decay, h)
        states[k + 1] = h[-1]
        y[s] = torch.mul(h, C[s, :, :, None], out=decay).sum(2)
    return _steps_first(y.addcmul_(D, u)), _steps_first(states)


def _steps_first(v: Tensor) -> Tensor:
    """(b, l, ...) -> (l, b, ...) and back."""
    return v.transpose(0, 1).contiguous()


def _states(delta: Tensor, A: Tensor, u: Tensor, B: Tensor, start: Tensor, decay: Tensor, h: Tensor) -> None:
    """Fills decay with exp(delta A), and h with the state after each step of the chunk that begins in `start`."""
    # in place of exp, whose last digits lean to one side on some processors: thousands of steps would add that up
    torch.mul(delta[:, :, None], A, out=decay).expm1_().add_(1)
    torch.mul((delta * u)[:, :, None], B[..., None], out=h)
    before = start
    for now, a in zip(h, decay):
        before = now.addcmul_(a, before)


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
    batch_parts = zip(*(v.tensor_split(_parts(u, A)) for v in (grad, grad_end, u, delta, B, C, states)))
    return together(backward_part(g, end, u, delta, A, B, C, D, h) for g, end, u, delta, B, C, h in batch_parts)


def together(parts: Iterable[Gradients]) -> Gradients:
    """The gradients of a batch from those of its parts."""
    u, delta, A, B, C, D, h = zip(*parts)
    return (
        torch.cat(u),
        torch.cat(delta),
        torch.stack(A).sum(0),
        torch.cat(B),
        torch.cat(C),
        torch.stack(D).sum(0),
        torch.cat(h),
    )


def backward_part(
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
    """As `backward`, the whole batch at once. From the last chunk to the first, by way of r = dL/dh:

    r[t] = grad[t] C[t] + exp(delta[t+1] A) r[t+1]      dL/d(delta A)[t] = exp(delta[t] A) r[t] h[t-1]
    """
    steps = u.shape[1]
    grad, u, delta, B, C, states = (_steps_first(v) for v in (grad, u, delta, B, C, states))
    A = A.T.contiguous()
    grad_u, grad_delta, grad_A, grad_B, grad_C = (torch.zeros_like(v) for v in (u, delta, A, B, C))
    buffers = u.new_empty(4, min(CHUNK, steps), *states.shape[1:])
    carry = grad_end.clone()  # exp(delta A) r of the step after this one
    for k in reversed(range(-(-steps // CHUNK))):
        s = slice(k * CHUNK, (k + 1) * CHUNK)
        decay, h, r, q = buffers[:, : len(u[s])]
        _states(delta[s], A, u[s], B[s], states[k], decay, h)
        torch.mul(grad[s, :, None], C[s, :, :, None], out=r)
        r[-1] += carry
        for t in reversed(range(len(r) - 1)):
            r[t].addcmul_(decay[t + 1], r[t + 1])
        torch.mul(decay, r, out=q)
        carry = q[0].clone()  # the next chunk writes over q
        q[1:] *= h[:-1]
        q[0] *= states[k]  # q is now dL/d(delta A)
        free = decay  # no longer needed
        grad_C[s] = torch.mul(h, grad[s, :, None], out=free).sum(-1)
        grad_B[s] = torch.mul(r, (delta[s] * u[s])[:, :, None], out=free).sum(-1)
        into_drive = torch.mul(r, B[s, :, :, None], out=free).sum(2)  # dL/d(delta u)
        grad_u[s] = delta[s] * into_drive
        grad_delta[s] = u[s] * into_drive + torch.mul(q, A, out=free).sum(2)
        grad_A += torch.mul(q, delta[s, :, None], out=free).sum((0, 1))
    grad_D = (grad * u).sum((0, 1))
    grad_u.addcmul_(D, grad)
    grad_u, grad_delta, grad_B, grad_C = (_steps_first(v) for v in (grad_u, grad_delta, grad_B, grad_C))
    return grad_u, grad_delta, grad_A.T.contiguous(), grad_B, grad_C, grad_D, carry
