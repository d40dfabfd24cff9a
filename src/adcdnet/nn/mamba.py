"""The Mamba block (Gu & Dao, arXiv:2312.00752), with the parameter names and shapes of the mamba-ssm package.

b batch | l steps | e = expand·d_model inner channels | n = d_state | r = dt_rank, ⌈d_model/16⌉ if "auto"
x (b, l, d_model) -> in_proj -> u, z (b, l, e) each; u -> causal depthwise conv1d -> SiLU
u -> x_proj -> (b, l, r + 2n) = delta's low-rank part, B, C; delta = softplus(dt_proj(...))
y = selective_scan(u, delta, -exp(A_log), B, C, D) · SiLU(z) -> out_proj -> (b, l, d_out)

Deviation: the output may have another width than the input (d_out).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .scan import Form, check_form, scan_with_state

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
    h: Tensor  # the state of the scan (b, e, n), float32 at least


class StepProjection(nn.Module):
    """r -> e, a Linear whose start sets the time scales of a block: softplus(bias) between 0.001 and 0.1.

    Not an `nn.Linear`, so that loops which initialise every Linear leave its start alone.
    """

    def __init__(
        self, rank: int, channels: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, rank, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        low, high = math.log(DELTA_MIN), math.log(DELTA_MAX)
        delta = torch.empty_like(self.bias).uniform_(low, high).exp().clamp(min=DELTA_FLOOR)
        self.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus(bias) = delta

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Mamba(nn.Module):
    """One Mamba block: (b, l, d_model) -> (b, l, d_out); output t depends on inputs 0..t alone.

    No residual and no normalisation: add them around it. d_out defaults to d_model; the other settings are those of
    mamba-ssm, all by name, since its second one is d_state; device and dtype are those of the parameters. form: of the
    scan, see `selective_scan`. ValueError for sizes below 1 and unknown forms.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_out: int | None = None,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        bias: bool = False,
        conv_bias: bool = True,
        form: Form = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_form(form)
        check_sizes(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=expand)
        self.d_model, self.d_state, self.d_conv, self.form = d_model, d_state, d_conv, form
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        d_out = d_model if d_out is None else d_out
        check_sizes(dt_rank=self.dt_rank, d_out=d_out)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias, device=device, dtype=dtype)
        self.conv1d = nn.Conv1d(
            self.d_inner,
            self.d_inner,
            d_conv,
            groups=self.d_inner,
            padding=d_conv - 1,
            bias=conv_bias,
            device=device,
            dtype=dtype,
        )
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False, device=device, dtype=dtype)
        self.dt_proj = StepProjection(self.dt_rank, self.d_inner, device=device, dtype=dtype)
        self.A_log = nn.Parameter(torch.empty(self.d_inner, d_state, device=device, dtype=dtype))
        self.D = nn.Parameter(torch.empty(self.d_inner, device=device, dtype=dtype))
        self.out_proj = nn.Linear(self.d_inner, d_out, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()
        self.dt_proj.reset_parameters()  # drawn again behind out_proj, so that a seed keeps its weights

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Mamba's own start of A_log (A = -1..-n) and D (1). The layers inside have their own."""
        self.A_log.copy_(torch.arange(1, self.d_state + 1).log().expand(self.d_inner, -1))
        self.D.fill_(1.0)

    def _mark(self) -> None:
        """`_no_weight_decay` on A_log and D, as mamba-ssm marks them, for optimizers that ask."""
        for name in ("A_log", "D"):
            if self._parameters.get(name) is not None:
                self._parameters[name]._no_weight_decay = True  # type: ignore[union-attr]

    # the three ways in which PyTorch puts other parameters, without the mark, in the place of these

    def __setattr__(self, name: str, value: Any) -> None:  # fully_shard, load_state_dict(assign=True)
        super().__setattr__(name, value)
        if name in ("A_log", "D"):
            self._mark()

    def __setstate__(self, state: dict[str, Any]) -> None:  # deepcopy, pickle
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._mark()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mamba:  # to, half, to_empty
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._mark()
        return self

    def extra_repr(self) -> str:
        return f"form={self.form!r}"

    @property
    def A(self) -> Tensor:
        """Decay rates < 0 (e, n), float32 at least: near 1, bfloat16 has steps of 1/128."""
        return -torch.exp(self.A_log.to(self._state_dtype))

    @property
    def _state_dtype(self) -> torch.dtype:
        return torch.promote_types(self.A_log.dtype, torch.float32)

    def scan_inputs(self, x: Tensor) -> ScanInputs:
        """What the scan is fed for x (b, l, d_model)."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        return self._scan_inputs(u.transpose(1, 2), z, None)

    def _scan_inputs(self, u: Tensor, z: Tensor, before: Tensor | None) -> ScanInputs:
        """u (b, e, l) before its convolution, which zeros come before, or the inputs of a state."""
        if before is None:
            u = self.conv1d(u)[..., : u.shape[-1]]
        else:
            u = F.conv1d(torch.cat((before, u), -1), self.conv1d.weight, self.conv1d.bias, groups=self.d_inner)
        u = F.silu(u.transpose(1, 2))
        # what is let in, kept and read is chosen by u itself
        low_rank, B, C = self.x_proj(u).split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        return ScanInputs(u, F.softplus(self.dt_proj(low_rank)), B, C, z)

    @overload
    def forward(
        self,
        x: Tensor,
        state: MambaState | None = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        return_state: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        state: MambaState | None = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        return_state: Literal[True],
    ) -> tuple[Tensor, MambaState]: ...

    def forward(
        self,
        x: Tensor,
        state: MambaState | None = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, MambaState]:
        """(b, l, d_model) -> (b, l, d_out); with return_state also the state behind it.

        state: where a stream stands before x; None: at its start.
        lengths: (b,) valid steps of each sample, those at the end being padding: whatever stands there reaches neither
        the answer, which is 0 there, nor the state.
        mask: (b, l) bool, true where a step is valid, for padding anywhere; the others are left out as if they had
        never been. ValueError where both came.
        """
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != self.d_model:
            raise ValueError(f"x is {tuple(x.shape)}; it must be (b, l, {self.d_model}), with l at least 1")
        if mask is not None:
            order, lengths = _valid_first(mask, x, lengths)
            y, end = self(_taken(x, order), state, lengths=lengths, return_state=True)
            y = _taken(y, order.argsort(1))
            return (y, end) if return_state else y
        lengths = None if lengths is None else lengths.to(x.device)
        valid = None if lengths is None else valid_steps(lengths, x)
        if valid is not None:
            x = x.masked_fill(~valid, 0)
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = u.transpose(1, 2)
        inputs = self._scan_inputs(u, z, None if state is None else state.inputs)
        # delta 0 lets nothing in and forgets nothing
        delta = inputs.delta if valid is None else inputs.delta.masked_fill(~valid, 0)
        y, h = scan_with_state(
            inputs.u,
            delta,
            self.A,
            inputs.B,
            inputs.C,
            self.D,
            form=self.form,
            state=None if state is None else state.h,
        )
        y = self.out_proj(y * F.silu(z))
        if valid is not None:
            y = y.masked_fill(~valid, 0)
        return (y, MambaState(self._last_inputs(u, state, lengths), h)) if return_state else y

    def _last_inputs(self, u: Tensor, state: MambaState | None, lengths: Tensor | None) -> Tensor:
        """The last d_conv - 1 valid inputs (b, e, d_conv - 1) of the convolution, u (b, e, l) coming after a state."""
        count = self.d_conv - 1
        before = u.new_zeros(*u.shape[:2], count) if state is None else state.inputs
        known = torch.cat((before, u), -1)
        if lengths is None:
            return known[..., known.shape[-1] - count :]
        where = lengths.clamp(0, u.shape[-1])[:, None] + torch.arange(count, device=u.device)  # (b, count)
        return known.gather(-1, where[:, None].expand(-1, u.shape[1], -1))

    def packed(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Sequences laid end to end, x (all their steps, d_model) and lengths (b,) -> (all their steps, d_out).

        Each is read by itself. Costs what the longest costs, b times. ValueError if the lengths do not add up.
        """
        return _packed(self, x, lengths)

    def start(self, batch: int) -> MambaState:
        """The state of `batch` streams before their first step."""
        return MambaState(
            self.D.new_zeros(batch, self.d_inner, self.d_conv - 1),
            self.D.new_zeros(batch, self.d_inner, self.d_state, dtype=self._state_dtype),
        )

    def step(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """One step of a stream: x (b, d_model) -> y (b, d_out) and the next state; as forward, step by step."""
        y, state = self(x[:, None], state, return_state=True)
        return y[:, 0], state


class BiMamba(nn.Module):
    """Two Mamba blocks, one of which reads backwards, summed: (b, l, d_model) -> (b, l, d_out).

    Output t depends on all inputs. Settings as of `Mamba`, errors too.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_out: int | None = None,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        bias: bool = False,
        conv_bias: bool = True,
        form: Form = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.onward, self.back = (
            Mamba(
                d_model,
                d_out=d_out,
                d_state=d_state,
                d_conv=d_conv,
                expand=expand,
                dt_rank=dt_rank,
                bias=bias,
                conv_bias=conv_bias,
                form=form,
                device=device,
                dtype=dtype,
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor, *, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """lengths, mask: as of `Mamba.forward`; each sample is read backwards from its own last valid step."""
        y: Tensor
        if mask is not None:
            order, lengths = _valid_first(mask, x, lengths)
            return _taken(self(_taken(x, order), lengths=lengths), order.argsort(1))
        if lengths is None:
            y = self.onward(x) + self.back(x.flip(1)).flip(1)
            return y
        y = self.onward(x, lengths=lengths)
        step, last = torch.arange(x.shape[1], device=x.device), lengths.to(x.device)[:, None] - 1
        turned = torch.where(step <= last, last - step, step)  # (b, l), its own inverse
        y = y + _taken(self.back(_taken(x, turned), lengths=lengths), turned)
        return y

    def packed(self, x: Tensor, lengths: Tensor) -> Tensor:
        """As `Mamba.packed`."""
        return _packed(self, x, lengths)


def check_sizes(**sizes: int) -> None:
    """ValueError for what is no whole number, at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
            raise ValueError(f"{name} is {size!r}; it must be a whole number, at least 1")


def valid_steps(lengths: Tensor, x: Tensor) -> Tensor:
    """(b, l, 1), true where a step of x (b, l, c) is no padding. ValueError for what is not one length a sample."""
    if lengths.shape != x.shape[:1] or lengths.is_floating_point():
        raise ValueError(
            f"lengths are {lengths.dtype} of shape {tuple(lengths.shape)}; with x {tuple(x.shape)} they must be "
            f"integers ({len(x)},)"
        )
    return (torch.arange(x.shape[1], device=lengths.device) < lengths[:, None])[..., None]


def _valid_first(mask: Tensor, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """The steps (b, l) in such an order that the valid ones come first, and how many these are (b,)."""
    if lengths is not None:
        raise ValueError("lengths and mask both came; give one of them")
    if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}; with x {tuple(x.shape)} it must be "
            f"bool {tuple(x.shape[:2])}"
        )
    mask, steps = mask.to(x.device), x.shape[1]
    return (torch.arange(steps, device=x.device) + steps * ~mask).argsort(1), mask.sum(1)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    """The steps of x (b, l, c) in such an order (b, l)."""
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


def _packed(module: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """Rows of x, sequence by sequence, through a module of (b, l, d_model) that takes lengths."""
    lengths = lengths.to(x.device)
    if int(lengths.sum()) != len(x):
        raise ValueError(f"lengths add up to {int(lengths.sum())}, but x has {len(x)} steps; they must be equal")
    padded = x.new_zeros(len(lengths), int(lengths.max()), x.shape[-1])
    valid = valid_steps(lengths, padded)[..., 0]
    padded = padded.masked_scatter(valid[..., None], x)
    y: Tensor = module(padded, lengths=lengths)[valid]
    return y
