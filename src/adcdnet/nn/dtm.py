"""Deep temporal Mamba, DTM: the depths of a network read as time (ADCD-Net, IEEE TGRS 2025, document 10841446).

b batch | l tokens: one per depth, and the prior if there is one | d = d_model | K classes
depth k: a map (b, c_k, h_k, w_k) or a sequence (b, l_k, c_k) -> token ReLU(LayerNorm(Linear(...))) (b, d)
tokens (b, l, d) -> LayerNorm -> Mamba -> (b, l, d_out) -> read-out position -> LayerNorm, ReLU -> Linear -> (b, K)

Deviation: a map is averaged to 4×4 before its Linear (token="pool"); the paper flattens it whole (token="flatten").
"""

# ruff: noqa: B905  (the zip of Python 3.9 knows no strict)
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mamba import Mamba, check_sizes, valid_steps
from .scan import Form, scan_matrix

Token = Literal["pool", "flatten"]
GRID = 4  # cells a side that a map is averaged to, and parts that a sequence is
_SMALL = 17**2  # positions of a map


def to_grid(x: Tensor) -> Tensor:
    """(b, c, h, w) averaged to 4×4 cells as `adaptive_avg_pool2d` does; small maps by a matrix product, whose gradients
    come several times as fast, and all elsewhere: on a GPU the other's gradients are not the same twice."""
    h, w = x.shape[-2:]
    if h == w == GRID:
        return x
    if h * w > _SMALL and x.device.type == "cpu":
        return F.adaptive_avg_pool2d(x, GRID)
    # on the processor, since not every device has this pooling for sides that are no multiple of 4
    kind = torch.promote_types(x.dtype, torch.float32)
    ones = torch.eye(h * w, dtype=kind, device="cpu").view(h * w, 1, h, w)
    means: Tensor = x.flatten(2) @ F.adaptive_avg_pool2d(ones, GRID).flatten(1).to(x)
    return means.view(*x.shape[:2], GRID, GRID)


@dataclass(frozen=True)
class MapDepth:
    """A depth that is a map (b, channels, h, w); token="flatten" needs its size (h, w)."""

    channels: int
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class SequenceDepth:
    """A depth that is a sequence (b, any length, channels)."""

    channels: int


class MapToken(nn.Module):
    """One map (b, c, h, w) -> one token (b, d_model) = ReLU(LayerNorm(Linear(...))).

    token="pool": the map is first averaged to 4×4 (a 4×4 map passes unchanged), so h and w are free.
    token="flatten": the whole map, for which `size` (h, w) is needed. ValueError without it.
    """

    def __init__(
        self, channels: int, d_model: int, *, size: tuple[int, int] | None = None, token: Token = "pool"
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, d_model=d_model)
        if token not in ("pool", "flatten"):
            raise ValueError(f"token is {token!r}; it must be 'pool' or 'flatten'")
        if token == "flatten" and size is None:
            raise ValueError("token='flatten' needs the size (h, w) of the map; give it, or take token='pool'")
        self.token = token
        cells = GRID * GRID if token == "pool" or size is None else size[0] * size[1]
        self.linear = nn.Linear(channels * cells, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        if self.token == "pool":
            x = to_grid(x)
        return torch.relu(self.norm(self.linear(x.flatten(1))))


class SequenceToken(nn.Module):
    """One sequence (b, l, c) -> one token (b, d_model) = ReLU(LayerNorm(Linear(...))).

    The sequence is averaged in 4 parts of equal length, which keeps what came early apart from what came late and
    leaves l free (below 4 steps the parts overlap). With lengths (b,), only the valid first steps of each sample are.
    """

    def __init__(self, channels: int, d_model: int) -> None:
        super().__init__()
        check_sizes(channels=channels, d_model=d_model)
        self.linear = nn.Linear(channels * GRID, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        # by a matrix product, since not every device has PyTorch's pooling for lengths that are no multiple of 4
        if lengths is None:
            lengths = torch.full((1,), x.shape[1], device=x.device)
        else:
            lengths = lengths.to(x.device)
            x = x.masked_fill(~valid_steps(lengths, x), 0)
        inside = _parts(lengths, x.shape[1]).to(x.dtype)
        parts = inside @ x / inside.sum(-1, keepdim=True).clamp(min=1)  # (b, 4, c)
        return torch.relu(self.norm(self.linear(parts.transpose(1, 2).flatten(1))))


def _parts(lengths: Tensor, steps: int) -> Tensor:
    """(b, 4, steps), true where a step belongs to a part of the first `lengths`, cut as `adaptive_avg_pool1d` does."""
    part, step = torch.arange(GRID, device=lengths.device)[:, None], torch.arange(steps, device=lengths.device)
    length = lengths[:, None, None]
    first, end = part * length // GRID, ((part + 1) * length + GRID - 1) // GRID
    return (step >= first) & (step < end)


@dataclass(frozen=True)
class Explanation:
    """How the tokens of each sample reached the decision of a DTM head; l tokens, e inner channels, K classes.

    The scan is linear in its input for given delta, B and C: scan_output[t] = Σ_j matrix[t, j]·scan_input[j] + skip[t],
    exactly. For given gate, spread in the LayerNorm and pattern of the ReLU, so is all that follows:
    logits = Σ_j evidence[j] + rest. The skip counts as evidence of its own token. What enters the scan at token j has
    already passed the causal convolution, so it holds something of up to d_conv - 1 tokens before j as well.
    """

    tokens: tuple[str, ...]  # names of the l tokens, as Mamba reads them
    matrix: Tensor  # (b, l, l, e), lower triangular
    scan_input: Tensor  # (b, l, e)
    skip: Tensor  # (b, l, e)
    scan_output: Tensor  # (b, l, e)
    evidence: Tensor  # (b, l, K)
    rest: Tensor  # (b, K), from biases alone
    logits: Tensor  # (b, K)

    @property
    def shares(self) -> Tensor:
        """Part of each token in the decision (b, l), summing to 1.

        By the size of its evidence for the winning class; what it adds to all classes alike decides nothing and is
        taken off first.
        """
        relative = self.evidence - self.evidence.mean(-1, keepdim=True)
        winner = self.logits.argmax(-1)[:, None, None].expand(-1, relative.shape[1], 1)
        size = relative.gather(-1, winner)[..., 0].abs()
        return size / size.sum(-1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)


class DeepTemporalMamba(nn.Module):
    """A classification head over the depths of a network, and over a prior token if there is one.

    depths: one entry per depth, in the order of forward's: a number of channels (a map), MapDepth or SequenceDepth.
    prior: where the prior token (b, d_model) stands, "last" or "first", or None for no prior.
    read_out: "last" takes the last position, which has seen all; "mean" the mean over positions.
    num_classes: K, or None for the outputs of all positions, (b, l, d_out), instead of logits.
    d_state, d_conv, expand, form: of the Mamba that reads the tokens.
    reader: makes something else of (d_model, d_out) to read them, (b, l, d_model) -> (b, l, d_out).
    """

    def __init__(
        self,
        depths: Sequence[int | MapDepth | SequenceDepth],
        *,
        d_model: int,
        num_classes: int | None,
        d_out: int = 64,
        prior: Literal["last", "first"] | None = None,
        token: Token = "pool",
        reader: Callable[[int, int], nn.Module] | None = None,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 1,
        form: Form = "auto",
        read_out: Literal["last", "mean"] = "last",
    ) -> None:
        super().__init__()
        if not depths:
            raise ValueError("no depths; at least one is needed")
        if prior not in ("last", "first", None):
            raise ValueError(f"prior is {prior!r}; it must be 'last', 'first' or None")
        check_sizes(d_model=d_model, d_out=d_out, num_classes=1 if num_classes is None else num_classes)
        if read_out not in ("last", "mean"):
            raise ValueError(f"read_out is {read_out!r}; it must be 'last' or 'mean'")
        self.prior, self.read_out = prior, read_out
        self.tokens = nn.ModuleList(_token(depth, d_model, token) for depth in depths)
        self.norm = nn.LayerNorm(d_model)
        self.reader = (
            Mamba(d_model, d_out=d_out, d_state=d_state, d_conv=d_conv, expand=expand, form=form)
            if reader is None
            else reader(d_model, d_out)
        )
        self.out_norm = nn.LayerNorm(d_out) if num_classes is not None else None
        self.classifier = nn.Linear(d_out, num_classes) if num_classes is not None else None

    @property
    def mamba(self) -> Mamba:
        """The Mamba block that reads the tokens. ValueError where something else does."""
        if not isinstance(self.reader, Mamba):
            raise ValueError(f"this head is read by {type(self.reader).__name__}; only Mamba's way can be followed")
        return self.reader

    def sequence(
        self, depths: Sequence[Tensor], prior: Tensor | None = None, *, lengths: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """The tokens in the order they are read, (b, l, d_model), before the LayerNorm.

        lengths: one entry per depth, (b,) valid steps of a sequence or None; the steps behind them are never read.
        """
        if len(depths) != len(self.tokens):
            raise ValueError(f"{len(depths)} depths came; this head was made for {len(self.tokens)}")
        if (prior is None) != (self.prior is None):
            raise ValueError(f"prior token {'missing' if prior is None else 'given'}, but prior={self.prior!r}")
        valid = [None] * len(depths) if lengths is None else list(lengths)
        if len(valid) != len(depths):
            raise ValueError(f"{len(valid)} lengths came for {len(depths)} depths; give None where a depth has none")
        tokens = [
            token(depth) if own is None else token(depth, own) for token, depth, own in zip(self.tokens, depths, valid)
        ]
        if prior is not None:
            tokens.insert(0 if self.prior == "first" else len(tokens), prior)
        return torch.stack(tokens, dim=1)

    def forward(
        self, depths: Sequence[Tensor], prior: Tensor | None = None, *, lengths: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """Logits (b, K), or the outputs of all positions (b, l, d_out) if num_classes is None.

        lengths: as of `sequence`.
        """
        out: Tensor = self.reader(self.norm(self.sequence(depths, prior, lengths=lengths)))
        if self.out_norm is None or self.classifier is None:
            return out
        logits: Tensor = self.classifier(torch.relu(self.out_norm(self._read(out))))
        return logits

    def _read(self, out: Tensor) -> Tensor:
        """(b, l, ...) -> (b, ...): the last position, or the mean over positions."""
        return out[:, -1] if self.read_out == "last" else out.mean(1)

    @torch.no_grad()
    def explain(
        self, depths: Sequence[Tensor], prior: Tensor | None = None, *, lengths: Sequence[Tensor | None] | None = None
    ) -> Explanation:
        """Which depth decided? Same input as forward; ValueError if the head has no classes or no Mamba."""
        if self.out_norm is None or self.classifier is None:
            raise ValueError("this head has no classes to explain; make it with num_classes=K")
        u, delta, B, C, z = self.mamba.scan_inputs(self.norm(self.sequence(depths, prior, lengths=lengths)))
        matrix = scan_matrix(delta, self.mamba.A, B, C).to(u)
        skip = self.mamba.D * u
        paths = matrix * u[:, None]  # (b, t, j, e): from token j to position t
        output = paths.sum(2) + skip
        paths = paths + torch.diag_embed(skip.transpose(1, 2)).permute(0, 2, 3, 1)
        parts = self._read(self.mamba.out_proj(paths * F.silu(z)[:, :, None]))  # (b, j, d_out)
        read = parts.sum(1)
        active = self.out_norm(read) > 0
        spread = torch.sqrt(read.var(-1, correction=0) + self.out_norm.eps)[:, None, None]
        scaled = (parts - parts.mean(-1, keepdim=True)) / spread * self.out_norm.weight
        evidence = (scaled * active[:, None]) @ self.classifier.weight.T
        rest = self.classifier(self.out_norm.bias * active)
        names = [f"depth {k}" for k in range(1, len(depths) + 1)]
        if prior is not None:
            names.insert(0 if self.prior == "first" else len(names), "prior")
        return Explanation(tuple(names), matrix, u, skip, output, evidence, rest, evidence.sum(1) + rest)


def _token(depth: int | MapDepth | SequenceDepth, d_model: int, token: Token) -> MapToken | SequenceToken:
    if isinstance(depth, SequenceDepth):
        return SequenceToken(depth.channels, d_model)
    if isinstance(depth, MapDepth):
        return MapToken(depth.channels, d_model, size=depth.size, token=token)
    return MapToken(depth, d_model, token=token)
