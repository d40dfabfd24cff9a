"""Selective scan, the recurrence inside Mamba (Gu & Dao, arXiv:2312.00752).

b batch | l steps | c channels | n states per channel
u input (b, l, c)         delta step size > 0 (b, l, c)     A decay rate < 0 (c, n)
B state input (b, l, n)   C state output (b, l, n)          D skip (c)
h state (b, c, n)         y output (b, l, c)

    h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]      y[t] = Σ_n C[t] h[t] + D u[t]

Two forms. The loop defines, and autograd differentiates it; it keeps every state for the backward pass. The chunked
form keeps the state before every 32nd step and computes the others again when the gradient needs them: l/32 states and
a few buffers of 32 instead of several times l, with the same additions and multiplications and no division.

Deviation: none.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

CHUNK = 32  # steps; longer chunks leave the processor's cache, shorter ones keep more states
SHARED = 32768  # elements; PyTorch shares an operation of this size and more among its threads
LOOP_STEPS = 16  # up to here "auto" takes the loop: it is faster there, and there is no memory to save


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    form: Literal["auto", "loop", "chunked"] = "auto",
) -> Tensor:
    """y (b, l, c) of the recurrence above, from h = 0; letters and shapes: top of file.

    form: "loop" defines; "chunked" spares memory and time on long sequences; "auto" takes the loop up to 16 steps, so
    the choice depends on l alone. The state is at least float32; y has the precision of u. The chunked form
    can be differentiated once. ValueError if the shapes do not fit together or the form is unknown.
    """
    b, steps, c = u.shape
    n = A.shape[-1]
    needed = {"delta": (b, steps, c), "A": (c, n), "B": (b, steps, n), "C": (b, steps, n), "D": (c,)}
    for (name, need), given in zip(needed.items(), (delta, A, B, C, D), strict=True):
        if given.shape != need:
            raise ValueError(f"{name} is {tuple(given.shape)}; with u {tuple(u.shape)} and n = {n} it must be {need}")
    if steps < 1:
        raise ValueError(f"u is {tuple(u.shape)}: a sequence of no steps; at least one is needed")
    if form not in ("auto", "loop", "chunked"):
        raise ValueError(f"form is {form!r}; it must be 'auto', 'loop' or 'chunked'")
    state = torch.promote_types(torch.promote_types(u.dtype, A.dtype), torch.float32)
    wide = (v.to(state) for v in (u, delta, A, B, C, D))
    if form == "loop" or (form == "auto" and steps <= LOOP_STEPS):
        return _loop(*wide).to(u.dtype)
    y: Tensor = _chunked(*wide)[0]
    return y.to(u.dtype)


def _loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    h = u.new_zeros(u.shape[0], *A.shape)
    ys = []
    for t in range(u.shape[1]):
        y, h = scan_step(h, u[:, t], delta[:, t], A, B[:, t], C[:, t], D)
        ys.append(y)
    return torch.stack(ys, dim=1)


def scan_step(h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """y (b, c) and the new state h (b, c, n) of one step; u, delta (b, c) and B, C (b, n) are of that step alone."""
    h = torch.exp(delta[..., None] * A) * h + (delta * u)[..., None] * B[:, None]
    return (h * C[:, None]).sum(-1) + D * u, h


# The chunked form. Within a chunk of s steps all but the recurrence itself is done for all steps at once, with the
# steps first and the channels last: (s, b, n, c). It writes into buffers of one chunk, since fresh memory would cost
# more than the arithmetic, and it is an opaque operator, so that torch.compile need not unroll it. The batch is taken
# in parts whose step is too small for PyTorch to share among threads: sharing microseconds costs more than it gains,
# and on a busy machine very much more.


@torch.library.custom_op("adcdnet::selective_scan", mutates_args=())
def _chunked(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """y (b, l, c), and the state before each chunk (b, chunks, n, c)."""
    batch_parts = zip(*(v.tensor_split(_parts(u, A)) for v in (u, delta, B, C)), strict=True)
    ys, starts = zip(*(_forward(u, delta, A, B, C, D) for u, delta, B, C in batch_parts), strict=True)
    return torch.cat(ys), torch.cat(starts)


def _parts(u: Tensor, A: Tensor) -> int:
    """Into how many parts the batch is cut."""
    b = u.shape[0]
    return -(-b // max(1, SHARED // (A.numel() + 1)))


def _forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    b, steps = u.shape[:2]
    u, delta, B, C = (_steps_first(v) for v in (u, delta, B, C))
    A = A.T.contiguous()
    y = torch.empty_like(u)
    starts = u.new_zeros(-(-steps // CHUNK), b, *A.shape)
    buffers = u.new_empty(2, min(CHUNK, steps), b, *A.shape)
    for k, start in enumerate(starts):
        s = slice(k * CHUNK, (k + 1) * CHUNK)
        decay, h = buffers[:, : len(u[s])]
        _states(delta[s], A, u[s], B[s], start, decay, h)
        if k + 1 < len(starts):
            starts[k + 1] = h[-1]
        y[s] = torch.mul(h, C[s, :, :, None], out=decay).sum(2)
    return _steps_first(y.addcmul_(D, u)), _steps_first(starts)


def _steps_first(v: Tensor) -> Tensor:
    """(b, l, ...) -> (l, b, ...) and back."""
    return v.transpose(0, 1).contiguous()


def _states(delta: Tensor, A: Tensor, u: Tensor, B: Tensor, start: Tensor, decay: Tensor, h: Tensor) -> None:
    """Fills decay with exp(delta A), and h with the state after each step of the chunk that begins in `start`."""
    # in place of exp, whose last digits lean to one side on some processors: thousands of steps would add that up
    torch.mul(delta[:, :, None], A, out=decay).expm1_().add_(1)
    torch.mul((delta * u)[:, :, None], B[..., None], out=h)
    before = start
    for now, a in zip(h, decay, strict=True):
        before = now.addcmul_(a, before)


@torch.library.custom_op("adcdnet::selective_scan_backward", mutates_args=())
def _chunked_backward(
    grad: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C and D."""
    batch_parts = zip(*(v.tensor_split(_parts(u, A)) for v in (grad, u, delta, B, C, starts)), strict=True)
    gradients = (_backward(g, u, delta, A, B, C, D, start) for g, u, delta, B, C, start in batch_parts)
    u_, delta_, A_, B_, C_, D_ = zip(*gradients, strict=True)
    return (
        torch.cat(u_),
        torch.cat(delta_),
        torch.stack(A_).sum(0),
        torch.cat(B_),
        torch.cat(C_),
        torch.stack(D_).sum(0),
    )


def _backward(
    grad: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """From the last chunk to the first, by way of r = dL/dh:

    r[t] = grad[t] C[t] + exp(delta[t+1] A) r[t+1]      dL/d(delta A)[t] = exp(delta[t] A) r[t] h[t-1]
    """
    steps = u.shape[1]
    grad, u, delta, B, C, starts = (_steps_first(v) for v in (grad, u, delta, B, C, starts))
    A = A.T.contiguous()
    grad_u, grad_delta, grad_A, grad_B, grad_C = (torch.zeros_like(v) for v in (u, delta, A, B, C))
    buffers = u.new_empty(4, min(CHUNK, steps), *starts.shape[1:])
    carry = torch.zeros_like(starts[0])  # exp(delta A) r of the step after this one
    for k in reversed(range(len(starts))):
        s = slice(k * CHUNK, (k + 1) * CHUNK)
        decay, h, r, q = buffers[:, : len(u[s])]
        _states(delta[s], A, u[s], B[s], starts[k], decay, h)
        torch.mul(grad[s, :, None], C[s, :, :, None], out=r)
        for t in reversed(range(len(r))):
            r[t] += carry
            carry = torch.mul(decay[t], r[t], out=q[t])
        carry = carry.clone()  # the next chunk writes over q
        q[1:] *= h[:-1]
        q[0] *= starts[k]  # q is now dL/d(delta A)
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
    return grad_u, grad_delta, grad_A.T, grad_B, grad_C, grad_D


@_chunked.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    b, steps, c = u.shape
    return u.new_empty(u.shape), u.new_empty(b, -(-steps // CHUNK), A.shape[1], c)


@_chunked_backward.register_fake
def _(
    grad: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, starts: Tensor
) -> tuple[Tensor, ...]:
    return tuple(v.new_empty(v.shape) for v in (u, delta, A, B, C, D))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = _chunked_backward(grad, *ctx.saved_tensors)
    return gradients


_chunked.register_autograd(_differentiate, setup_context=_save)


def scan_matrix(delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The scan without its skip as a matrix M (b, l, l, c), for given delta, B, C: y[t] = Σ_j M[t, j] u[j] + D u[t].

    M[t, j] = Σ_n C[t] exp((delta[j+1] + ... + delta[t]) A) delta[j] B[j], and 0 for j > t: lower triangular in (t, j)
    for every sample and channel. It holds b·l·l·c·n numbers: meant for explaining short sequences.
    """
    total = delta.cumsum(1)
    elapsed = (total[:, :, None] - total[:, None]).clamp(min=0)  # (b, t, j, c), from j to t
    decay = torch.exp(elapsed[..., None] * A)  # (b, t, j, c, n)
    matrix = torch.einsum("btn,btjcn,bjn,bjc->btjc", C, decay, B, delta)
    past = torch.ones(delta.shape[1], delta.shape[1], dtype=torch.bool, device=delta.device).tril()
    return matrix * past[..., None]
