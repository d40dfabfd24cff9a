"""What may stand in the place of a part of ADCD-Net, to see what that part is worth: no part of the method itself.

In DIA's place     `SpatialAttention`, CBAM's (Woo et al., ECCV 2018, arXiv:1807.06521, section 3.2)
In Mamba's place   `Recurrent`, a GRU (Cho et al. 2014, arXiv:1406.1078), or causal `SelfAttention` (Vaswani et al.
                   2017, arXiv:1706.03762), as readers of a DTM's tokens
The prior otherwise `LearntToken` or `InitialState`: readings of "a learnable parameter of Mamba", which is what the
                   article says of the semantic sequence, and nothing more
In the sum's place `Gate` or `Concatenation` of the features of two sensors, under head 'flatten'

All keep the contract of what they replace (`adcdnet.nn.parts`): the network gives the same numbers on tiles and on
patches, and a reader's output t depends on tokens 0..t alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.nn.dia import convolution_matrix
from adcdnet.nn.mamba import Mamba, MambaState
from adcdnet.nn.parts import Parts

HEADS = 2


class SpatialAttention(nn.Module):
    """CBAM's spatial attention: (b, c, h, w) -> the same, for any c, h and w; 98 parameters.

    With a, m the mean and the maximum of x over channels:

        M = σ(conv([a, m]))     y = ReLU(x·M)       one 7×7 convolution, zero-padded, without bias

    The ReLU is DIA's, not CBAM's; `rectify=False` leaves it out.
    """

    def __init__(self, *, rectify: bool = True) -> None:
        super().__init__()
        self.rectify = rectify
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def mask_of(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """M (b, 1, h, w) from the mean and the maximum over channels, (b, 1, h, w) each."""
        return torch.sigmoid(self.conv(torch.cat((mean, maximum), dim=1)))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.mask_of(x.mean(1, keepdim=True), x.amax(1, keepdim=True))
        return torch.relu_(y) if self.rectify else y

    def mask_operator(self, g: int) -> ConvolutionMask:
        """The masks of many patches of g × g cells at once."""
        return ConvolutionMask(self, g)


class ConvolutionMask:
    """CBAM's masks for many patches of g × g cells, its convolution written as one matrix; see `nn.dia`."""

    def __init__(self, cbam: SpatialAttention, g: int) -> None:
        matrix = convolution_matrix(cbam.conv, g).view(2, g * g, g, g)
        self.matrix = matrix.transpose(0, 1).flatten(0, 1)  # rows (cell, [mean, maximum]), as `windows` lays them

    def __call__(self, pooled: Tensor, *, side: int) -> Tensor:
        """The central cells (n, side²) of the masks, from mean and maximum over channels (n, g²·2), cell by cell."""
        trim = (self.matrix.shape[-1] - side) // 2
        shown = self.matrix[:, trim : trim + side, trim : trim + side].flatten(1)
        return torch.sigmoid(pooled @ shown)


class Recurrent(nn.Module):
    """A GRU over the tokens (b, l, d_model), from a state of zeros; its d_out cells' states are the outputs."""

    def __init__(self, d_model: int, d_out: int) -> None:
        super().__init__()
        self.gru = nn.GRU(d_model, d_out, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.gru(x)[0]
        return states


class SelfAttention(nn.Module):
    """Attention of two heads, each token asking itself and those before it: (b, l, d_model) -> (b, l, d_out).

        y = W_out (x + softmax(Q Kᵀ / √(d/2)) V)        Q, K, V = W x

    No MLP and no code of positions: each token comes from a Linear of its own, which tells them apart. No biases: that
    of the keys would never receive a gradient. ValueError if d_model is odd.
    """

    def __init__(self, d_model: int, d_out: int) -> None:
        super().__init__()
        if d_model % HEADS:
            raise ValueError(f"tokens of {d_model} numbers cannot be divided between {HEADS} heads; take an even width")
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.in_proj(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # (b, heads, l, d/2) each
        answer = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.out_proj(x + answer.transpose(1, 2).flatten(2))
        return y


class LearntToken(nn.Module):
    """Mamba whose last token is a parameter that the semantic sequence initialises, the same for every target.

        token = mean over the batch of the prior tokens + δ,   δ = 0 at the start

    In eval mode the mean is that of all batches of training.
    """

    def __init__(self, d_model: int, d_out: int) -> None:
        super().__init__()
        self.mamba = Mamba(d_model, d_out=d_out, expand=1)
        self.delta = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("mean", torch.zeros(d_model))
        self.register_buffer("batches", torch.zeros(()))
        self.mean: Tensor
        self.batches: Tensor

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean
        if self.training:
            mean = x[:, -1].mean(0)
            with torch.no_grad():
                self.batches += 1
                self.mean.lerp_(mean.to(self.mean), 1 / self.batches)
        token = (mean + self.delta).to(x).expand(len(x), 1, -1)
        y: Tensor = self.mamba(torch.cat((x[:, :-1], token), dim=1))
        return y


class InitialState(nn.Module):
    """Mamba that begins in a state made of the semantic sequence, and reads the depths alone.

        h_0 = W s,   s the prior token

    Outputs stand at the last position; those before are 0, since they may not know the last token.
    """

    def __init__(self, d_model: int, d_out: int) -> None:
        super().__init__()
        self.mamba = Mamba(d_model, d_out=d_out, expand=1)
        self.state = nn.Linear(d_model, self.mamba.d_inner * self.mamba.d_state, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        start = self.mamba.start(len(x))
        h = self.state(x[:, -1]).view_as(start.h).to(start.h.dtype)
        y: Tensor = self.mamba(x[:, :-1], MambaState(start.inputs.to(x.dtype), h))
        return F.pad(y[:, -1:], (0, 0, x.shape[1] - 1, 0))


class Gate(nn.Module):
    """G·F_ms + (1 − G)·F_pan, G = σ(conv([F_ms, F_pan])): a gate per cell and channel; 1×1, 2c → c."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        gate = torch.sigmoid(self.conv(torch.cat((f_ms, f_pan), dim=1)))
        return f_pan + gate * (f_ms - f_pan)


class Concatenation(nn.Module):
    """conv([F_ms, F_pan]), 1×1, 2c → c; no bias, since a Linear that has one follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        fused: Tensor = self.conv(torch.cat((f_ms, f_pan), dim=1))
        return fused


def _cbam(global_scale: float, local_scale: float) -> SpatialAttention:
    """CBAM scales no gradients."""
    return SpatialAttention()


SUBSTITUTES = {  # by the name of the method that has it
    "cbam": Parts(attention=_cbam),
    "gru": Parts(reader=Recurrent),
    "attention": Parts(reader=SelfAttention),
    "learnt-token": Parts(reader=LearntToken),
    "initial-state": Parts(reader=InitialState),
    "gate-fusion": Parts(fuse=Gate),
    "concat-fusion": Parts(fuse=Concatenation),
}
