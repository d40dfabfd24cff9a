"""Selective scan, the recurrence inside Mamba (Gu & Dao, arXiv:2312.00752).

b batch | l steps | c channels | n states per channel
u input (b, l, c)         delta step size > 0 (b, l, c)     A decay rate < 0 (c, n)
B state input (b, l, n)   C state output (b, l, n)          D skip (c)
h state (b, c, n)         y output (b, l, c)

    h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]      y[t] = Σ_n C[t] h[t] + D u[t]

Four forms. The loop defines, and autograd differentiates it; it keeps every state for the backward pass. The chunked
form keeps the state before every 32nd step and computes the others again when the gradient needs them: l/32 states and
a few buffers of 32 instead of several times l, with the same additions and multiplications and no division. The
parallel form does the same in all chunks at once: some ten times fewer kernels, which is what a GPU waits for. The
matrix form has no steps at all, but l² decays: for exports whose length is to stay free where no operator of ours can
be had.

Deviation: none.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .operators import FORMS, Scan, is_compiling

Form = Literal["auto", "loop", "chunked", "parallel", "matrix"]

LOOP_STEPS = 16  # up to here "auto" takes the loop: it is faster there, and there is no memory to save


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, form: Form = "auto"
) -> Tensor:
    """y (b, l, c) of the recurrence above, from h = 0; letters and shapes: top of file.

    form: "loop" defines; "chunked" spares memory and time on long sequences; "parallel" spares a GPU most of the
    kernels; "matrix" leaves the length free in ONNX too and takes l² as much memory; "auto" is what `scan_form` says.
    The state is at least float32; y has the precision of u. The chunked and the parallel form can be differentiated
    once. ValueError if the shapes do not fit together or the form is unknown.
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
    check_form(form)
    kind = torch.promote_types(torch.promote_types(u.dtype, A.dtype), torch.float32)
    inputs = (u.to(kind), delta.to(kind), A.to(kind), B.to(kind), C.to(kind), D.to(kind))
    h = u.new_zeros(b, c, n, dtype=kind) if state is None else state.to(kind)
    chosen = scan_form(steps, u.device) if form == "auto" else form
    if chosen in FORMS:
        y, states = Scan.apply(*inputs, h.mT, chosen)  # type: ignore[no-untyped-call]
        h = states[:, -1].mT
    else:
        y, h = (_loop if chosen == "loop" else _by_matrix)(*inputs, h)
    return y.to(u.dtype), h


def check_form(form: str) -> None:
    """ValueError for what is no form."""
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}; it must be one of {', '.join(map(repr, get_args(Form)))}")


def scan_form(steps: int, device: torch.device | str) -> Form:
    """What "auto" takes: the loop up to 16 steps; beyond, "chunked" on a processor and "parallel" on other devices.

    So the choice depends on the number of steps and the kind of device alone. A number that torch.compile or
    torch.export leaves free counts as large.
    """
    if _short(steps):
        return "loop"
    return "chunked" if torch.device(device).type == "cpu" else "parallel"


def _short(steps: int) -> bool:
    """Whether "auto" takes the loop, which a compiler unrolls: for a length that it leaves free it must not ask."""
    if not is_compiling():
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


def scan_matrix(delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The scan without its skip as a matrix M (b, l, l, c), for given delta, B, C: y[t] = Σ_j M[t, j] u[j] + D u[t].

    M[t, j] = Σ_n C[t] exp((delta[j+1] + ... + delta[t]) A) delta[j] B[j], and 0 for j > t: lower triangular in (t, j)
    for every sample and channel. It holds b·l·l·c·n numbers: meant for explaining short sequences.
    """
    kind = torch.promote_types(delta.dtype, A.dtype)
    delta, B, C = (v.to(kind) for v in (delta, B, C))
    return torch.einsum("btn,btjcn,bjn,bjc->btjc", C, _decays(delta.cumsum(1), A.to(kind)), B, delta)
