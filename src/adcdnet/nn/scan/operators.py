"""Both fast forms of the scan as opaque operators, so that torch.compile and torch.export need not unroll them."""

# ruff: noqa: B905  (the zip of Python 3.9 knows no strict)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import chunked, parallel

FORMS = {"chunked": (chunked.forward, chunked.backward), "parallel": (parallel.forward, parallel.backward)}
is_compiling: Callable[[], bool] = getattr(torch.compiler, "is_compiling", lambda: False)  # PyTorch 2.1 has none


def _forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor, form: str
) -> tuple[Tensor, Tensor]:
    return FORMS[form][0](u, delta, A, B, C, D, h)


def _forward_shapes(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor, form: str
) -> tuple[Tensor, Tensor]:
    b, steps, c = u.shape
    return u.new_empty(u.shape), u.new_empty(b, (steps + chunked.CHUNK - 1) // chunked.CHUNK + 1, A.shape[1], c)


def _backward(
    grad: Tensor,
    end: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    states: Tensor,
    form: str,
) -> chunked.Gradients:
    return FORMS[form][1](grad, end, u, delta, A, B, C, D, states)


def _backward_shapes(grad: Tensor, end: Tensor, *given: Any) -> tuple[Tensor, ...]:
    return tuple(v.new_empty(v.shape) for v in (*given[:-2], end))


def _each(op: Any) -> Any:
    """The vmap rule of an operator: one call after the other."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        moved = [v if d is None else v.movedim(d, 0) for v, d in zip(given, in_dims)]
        calls = [op(*(v if d is None else v[i] for v, d in zip(moved, in_dims))) for i in range(info.batch_size)]
        answers = tuple(torch.stack(own) for own in zip(*calls))
        return answers, (0,) * len(answers)

    return rule


# Without a rule for autograd, which `Scan` has: so torch.func can differentiate them too.
_SPACE = (__package__ or "scan").replace(".", "_")  # so that a copy of this folder can be used beside it
_LIBRARY = torch.library.Library(_SPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
_OPERATORS = getattr(torch.ops, _SPACE)
for _name, _run, _shapes, _given, _answers in (
    ("selective_scan", _forward, _forward_shapes, "u delta A B C D h", 2),
    ("selective_scan_backward", _backward, _backward_shapes, "grad end u delta A B C D states", 7),
):
    _signature = ", ".join(f"Tensor {name}" for name in _given.split())
    _LIBRARY.define(f"{_name}({_signature}, str form) -> ({', '.join(['Tensor'] * _answers)})")  # type: ignore[no-untyped-call]
    _LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    _LIBRARY.impl(_name, _shapes, "Meta")  # type: ignore[no-untyped-call]
    if hasattr(torch.library, "register_vmap"):  # from PyTorch 2.5 on
        torch.library.register_vmap(f"{_SPACE}::{_name}", _each(getattr(_OPERATORS, _name)), lib=_LIBRARY)


class Scan(torch.autograd.Function):
    """u, delta, A, B, C, D, h (b, n, c), form -> y, states. Differentiable once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = _OPERATORS.selective_scan(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, _, ctx.form = inputs
        ctx.save_for_backward(*tensors, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        # of the states, only the last is anybody's business
        given = grad, grad_states[:, -1], *ctx.saved_tensors, ctx.form
        # a compiler takes no function in a function's backward, and refuses a second one by itself
        op = _OPERATORS.selective_scan_backward if is_compiling() else _Gradients.apply
        return *op(*given), None


class _Gradients(torch.autograd.Function):
    """The gradients of `Scan`, which have none themselves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = _OPERATORS.selective_scan_backward(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None: ...

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(
            "the chunked and the parallel scan can be differentiated once; take form='loop' to differentiate twice"
        )
