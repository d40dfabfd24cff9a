"""Selective scan, the recurrence inside Mamba (Gu & Dao, arXiv:2312.00752).

b batch | l steps | c channels | n states per channel
u input (b, l, c)         delta step size > 0 (b, l, c)     A decay rate < 0 (c, n)
B state input (b, l, n)   C state output (b, l, n)          D skip (c)
h state (b, c, n)         y output (b, l, c)

    h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]      y[t] = Σ_n C[t] h[t] + D u[t]

Three forms. The loop defines, and autograd differentiates it; it keeps every state for the backward pass. The chunked
form keeps the state before every 32nd step and computes the others again when the gradient needs them: l/32 states and
a few buffers of 32 instead of several times l, with the same additions and multiplications and no division. The matrix
form has no steps at all, but l² decays: for exports whose length is to stay free where no operator of ours can be had.

Deviation: none.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Form = Literal["auto", "loop", "chunked", "matrix"]

CHUNK = 32  # steps; longer chunks leave the processor's cache, shorter ones keep more states
SHARED = 32768  # elements; PyTorch shares an operation of this size and more among its threads
LOOP_STEPS = 16  # up to here "auto" takes the loop: it is faster there, and there is no memory to save


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, form: Form = "auto"
) -> Tensor:
    """y (b, l, c) of the recurrence above, from h = 0; letters and shapes: top of file.

    form: "loop" defines; "chunked" spares memory and time on long sequences; "matrix" leaves the length free in ONNX
    too and takes l² as much memory; "auto" takes the loop up to 16 steps and chunks beyond, so the choice depends on l
    alone (and chunks where torch.compile or torch.export leaves l free). The state is at least float32; y has the
    precision of u. The chunked form can be differentiated once. ValueError if the shapes do not fit together or the
    form is unknown.
    """
    return scan_with_state(u, delta, A, B, C, D, form=form)[0]


def scan_with_state(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    form: Form = "auto",
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan`, from the state h (b, c, n) instead of 0; returns y and the state after the last step."""
    b, steps, c = u.shape
    n = A.shape[-1]
    needed = {"delta": (b, steps, c), "A": (c, n), "B": (b, steps, n), "C": (b, steps, n), "D": (c,)}
    given = {"delta": delta, "A": A, "B": B, "C": C, "D": D}
    if state is not None:
        needed["state"], given["state"] = (b, c, n), state
    for name, need in needed.items():
        if given[name].shape != need:
            raise ValueError(
                f"{name} is {tuple(given[name].shape)}; with u {tuple(u.shape)} and n = {n} it must be {need}"
            )
    if steps < 1:
        raise ValueError(f"u is {tuple(u.shape)}: a sequence of no steps; at least one is needed")
    if form not in ("auto", "loop", "chunked", "matrix"):
        raise ValueError(f"form is {form!r}; it must be 'auto', 'loop', 'chunked' or 'matrix'")
    kind = torch.promote_types(torch.promote_types(u.dtype, A.dtype), torch.float32)
    inputs = (u.to(kind), delta.to(kind), A.to(kind), B.to(kind), C.to(kind), D.to(kind))
    h = u.new_zeros(b, c, n, dtype=kind) if state is None else state.to(kind)
    if form == "loop" or (form == "auto" and _short(steps)):
        y, h = _loop(*inputs, h)
    elif form == "matrix":
        y, h = _by_matrix(*inputs, h)
    else:
        y, states = _Chunked.apply(*inputs, h.mT)  # type: ignore[no-untyped-call]
        h = states[:, -1].mT
    return y.to(u.dtype), h


def _short(steps: int) -> bool:
    """Whether "auto" takes the loop, which a compiler unrolls: for a length that it leaves free it must not ask."""
    if not torch.compiler.is_compiling():
        return steps <= LOOP_STEPS
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(steps <= LOOP_STEPS)


def _loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    ys = []
    for t in range(u.shape[1]):
        y, h = scan_step(h, u[:, t], delta[:, t], A, B[:, t], C[:, t], D)
        ys.append(y)
    return torch.stack(ys, dim=1), h


def _by_matrix(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """h[t] = Σ_j exp((delta[j+1] + ... + delta[t]) A) delta[j] u[j] B[j] + exp((delta[1] + ... + delta[t]) A) h."""
    total = delta.cumsum(1)
    drive = (delta * u)[..., None] * B[:, :, None]  # (b, j, c, n)
    states = (_decays(total, A) * drive[:, None]).sum(2) + torch.exp(total[..., None] * A) * h[:, None]
    return (states * C[:, :, None]).sum(-1) + D * u, states[:, -1]


def _decays(total: Tensor, A: Tensor) -> Tensor:
    """What is left at step t of what came at step j (b, t, j, c, n), 0 for j > t; total: delta summed up to a step."""
    elapsed = (total[:, :, None] - total[:, None]).clamp(min=0)  # (b, t, j, c); without it, later j would overflow
    past = torch.ones(total.shape[1], total.shape[1], dtype=torch.bool, device=total.device).tril()
    return torch.exp(elapsed[..., None] * A) * past[..., None, None]


def scan_step(h: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """y (b, c) and the new state h (b, c, n) of one step; u, delta (b, c) and B, C (b, n) are of that step alone."""
    h = torch.exp(delta[..., None] * A) * h + (delta * u)[..., None] * B[:, None]
    return (h * C[:, None]).sum(-1) + D * u, h


# The chunked form. Within a chunk of s steps all but the recurrence itself is done for all steps at once, with the
# steps first and the channels last: (s, b, n, c). It writes into buffers of one chunk, since fresh memory would cost
# more than the arithmetic, and it is an opaque operator, so that torch.compile need not unroll it. The batch is taken
# in parts whose step is too small for PyTorch to share among threads: sharing microseconds costs more than it gains,
# and on a busy machine very much more.


@torch.no_grad()
def _chunked(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """y (b, l, c), and the state h (b, n, c) before each chunk and after the last: (b, chunks + 1, n, c)."""
    batch_parts = zip(*(v.tensor_split(_parts(u, A)) for v in (u, delta, B, C, h)), strict=True)
    ys, states = zip(*(_forward(u, delta, A, B, C, D, h) for u, delta, B, C, h in batch_parts), strict=True)
    return torch.cat(ys), torch.cat(states)


def _parts(u: Tensor, A: Tensor) -> int:
    """Into how many parts the batch is cut."""
    b = u.shape[0]
    return max(1, -(-b // max(1, SHARED // (A.numel() + 1))))


def _forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    b, steps = u.shape[:2]
    u, delta, B, C = (_steps_first(v) for v in (u, delta, B, C))
    A = A.T.contiguous()
    y = torch.empty_like(u)
    states = u.new_empty(-(-steps // CHUNK) + 1, b, *A.shape)
    states[0] = h0
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
    for now, a in zip(h, decay, strict=True):
        before = now.addcmul_(a, before)


@torch.no_grad()
def _chunked_backward(
    grad: Tensor,
    grad_end: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C, D and h from those of y and of the last state (b, n, c)."""
    batch_parts = zip(*(v.tensor_split(_parts(u, A)) for v in (grad, grad_end, u, delta, B, C, states)), strict=True)
    gradients = (_backward(g, end, u, delta, A, B, C, D, h) for g, end, u, delta, B, C, h in batch_parts)
    u_, delta_, A_, B_, C_, D_, h_ = zip(*gradients, strict=True)
    return (
        torch.cat(u_),
        torch.cat(delta_),
        torch.stack(A_).sum(0),
        torch.cat(B_),
        torch.cat(C_),
        torch.stack(D_).sum(0),
        torch.cat(h_),
    )


def _backward(
    grad: Tensor,
    grad_end: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """From the last chunk to the first, by way of r = dL/dh:

    r[t] = grad[t] C[t] + exp(delta[t+1] A) r[t+1]      dL/d(delta A)[t] = exp(delta[t] A) r[t] h[t-1]
    """
    steps = u.shape[1]
    grad, u, delta, B, C, states = (_steps_first(v) for v in (grad, u, delta, B, C, states))
    A = A.T.contiguous()
    grad_u, grad_delta, grad_A, grad_B, grad_C = (torch.zeros_like(v) for v in (u, delta, A, B, C))
    buffers = u.new_empty(4, min(CHUNK, steps), *states.shape[1:])
    carry = grad_end.clone()  # exp(delta A) r of the step after this one
    for k in reversed(range(len(states) - 1)):
        s = slice(k * CHUNK, (k + 1) * CHUNK)
        decay, h, r, q = buffers[:, : len(u[s])]
        _states(delta[s], A, u[s], B[s], states[k], decay, h)
        torch.mul(grad[s, :, None], C[s, :, :, None], out=r)
        for t in reversed(range(len(r))):
            r[t] += carry
            carry = torch.mul(decay[t], r[t], out=q[t])
        carry = carry.clone()  # the next chunk writes over q
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


def _chunked_fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    b, steps, c = u.shape
    return u.new_empty(u.shape), u.new_empty(b, (steps + CHUNK - 1) // CHUNK + 1, A.shape[1], c)


def _chunked_backward_fake(grad: Tensor, grad_end: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(v.new_empty(v.shape) for v in (*inputs[:-1], grad_end))


def _each(op: Any) -> Any:
    """The vmap rule of an operator: one call after the other."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *given: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        moved = [v if d is None else v.movedim(d, 0) for v, d in zip(given, in_dims, strict=True)]
        calls = [
            op(*(v if d is None else v[i] for v, d in zip(moved, in_dims, strict=True))) for i in range(info.batch_size)
        ]
        answers = tuple(torch.stack(own) for own in zip(*calls, strict=True))
        return answers, (0,) * len(answers)

    return rule


# Opaque operators without a rule for autograd, which `_Chunked` has: so torch.func can differentiate them too.
_SPACE = (__package__ or "adcdnet").replace(".", "_")  # so that a copy of this folder can be used beside it
_LIBRARY = torch.library.Library(_SPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
_OPERATORS = getattr(torch.ops, _SPACE)
for _name, _run, _fake, _given, _answers in (
    ("selective_scan", _chunked, _chunked_fake, "u delta A B C D h", 2),
    ("selective_scan_backward", _chunked_backward, _chunked_backward_fake, "grad end u delta A B C D states", 7),
):
    _signature = ", ".join(f"Tensor {name}" for name in _given.split())
    _schema = f"{_name}({_signature}) -> ({', '.join(['Tensor'] * _answers)})"
    _LIBRARY.define(_schema)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"{_SPACE}::{_name}", _fake, lib=_LIBRARY)
    if hasattr(torch.library, "register_vmap"):  # from PyTorch 2.5 on
        torch.library.register_vmap(f"{_SPACE}::{_name}", _each(getattr(_OPERATORS, _name)), lib=_LIBRARY)


class _Chunked(torch.autograd.Function):
    """u, delta, A, B, C, D, h (b, n, c) -> y, states. Differentiable once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = _OPERATORS.selective_scan(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:-1], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_states: Tensor) -> tuple[Tensor, ...]:
        # of the states, only the last is anybody's business
        given = grad, grad_states[:, -1], *ctx.saved_tensors
        # a compiler takes no function in a function's backward, and refuses a second one by itself
        op = _OPERATORS.selective_scan_backward if torch.compiler.is_compiling() else _Gradients.apply
        found: tuple[Tensor, ...] = op(*given)
        return found


class _Gradients(torch.autograd.Function):
    """The gradients of `_Chunked`, which have none themselves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = _OPERATORS.selective_scan_backward(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None: ...

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError("the chunked scan can be differentiated once; take form='loop' to differentiate twice")


def scan_matrix(delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The scan without its skip as a matrix M (b, l, l, c), for given delta, B, C: y[t] = Σ_j M[t, j] u[j] + D u[t].

    M[t, j] = Σ_n C[t] exp((delta[j+1] + ... + delta[t]) A) delta[j] B[j], and 0 for j > t: lower triangular in (t, j)
    for every sample and channel. It holds b·l·l·c·n numbers: meant for explaining short sequences.
    """
    kind = torch.promote_types(delta.dtype, A.dtype)
    delta, B, C = (v.to(kind) for v in (delta, B, C))
    return torch.einsum("btn,btjcn,bjn,bjc->btjc", C, _decays(delta.cumsum(1), A.to(kind)), B, delta)
