"""What may read the tokens of a DTM in Mamba's place, to see what Mamba is worth.

b batch | l tokens | d = d_model | h heads
All keep Mamba's contract: (b, l, d_model) -> (b, l, d_out), and output t depends on inputs 0..t alone.

    GRU             Cho et al. 2014, arXiv:1406.1078; d_out cells, whose states are the outputs
    self-attention  y = W_out (x + softmax(Q Kᵀ / √(d/h)) V), Q, K, V = W x; Vaswani et al. 2017, arXiv:1706.03762

Deviations: attention has no MLP and no code of positions: each token comes from a Linear of its own, which tells them
apart. No biases: that of the keys would never receive a gradient.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from .mamba import Mamba

ReaderName = Literal["mamba", "gru", "attention"]
HEADS = 2


class Recurrent(nn.Module):
    """A GRU over the tokens, from a state of zeros."""

    def __init__(self, d_model: int, d_out: int) -> None:
        super().__init__()
        self.gru = nn.GRU(d_model, d_out, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.gru(x)[0]
        return states


class SelfAttention(nn.Module):
    """Attention of two heads, each token asking itself and those before it. ValueError if d_model is odd."""

    def __init__(self, d_model: int, d_out: int) -> None:
        super().__init__()
        if d_model % HEADS:
            raise ValueError(f"tokens of {d_model} numbers cannot be divided between {HEADS} heads; take an even width")
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.in_proj(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # (b, h, l, d/h) each
        answer = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.out_proj(x + answer.transpose(1, 2).flatten(2))
        return y


def reader_of(name: ReaderName, d_model: int, d_out: int, *, d_state: int, d_conv: int, expand: int) -> nn.Module:
    """The reader of that name; d_state, d_conv and expand are Mamba's. ValueError for another name."""
    match name:
        case "mamba":
            return Mamba(d_model, d_out, d_state=d_state, d_conv=d_conv, expand=expand)
        case "gru":
            return Recurrent(d_model, d_out)
        case "attention":
            return SelfAttention(d_model, d_out)
    raise ValueError(f"reader is {name!r}; it must be 'mamba', 'gru' or 'attention'")
