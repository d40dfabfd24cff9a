"""Mamba and a DTM head against a GRU of the same size, on two sequence tasks.

python examples/sequences.py

Digits: handwritten digits read row by row, 8 steps of 8 pixels. Heart: a simulated heart signal of 2,000 samples, which
two strided convolutions turn into 50 steps; the class is the form of one beat among the first ones, all later beats
are normal, and the decision is taken at the end. All networks of a task have about the same number of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from study import Part, Row, arguments, digits, table, train
from torch import Tensor, nn

from adcdnet.nn import DeepTemporalMamba, Mamba, SequenceDepth, SequenceToken

SETTINGS = {"samples": 1024, "epochs": 16}  # per seed

LENGTH = 2000
WIDTH = 24  # of the Mamba layers; the others get the width at which they have as many parameters


class Signal(nn.Module):
    """A signal (b, 2000) -> 50 steps (b, 50, width) by two strided convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(1, 8, 9, 4, padding=4), nn.ReLU(), nn.Conv1d(8, width, 21, 10, padding=10), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convolutions(x[:, None]).mT


class MambaLayer(nn.Module):
    """x + Mamba(LayerNorm(x)), (b, l, d) -> (b, l, d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mamba = Mamba(width, expand=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.mamba(self.norm(x))
        return y


class MambaClassifier(nn.Module):
    """Two Mamba layers and one of three ways to read them.

    "last": the last step. "dtm": a DTM head over both layers, whose tokens see the means of 4 parts of the sequence.
    "parts": such a token of the second layer alone, without DTM, which says how much is owed to the means.
    """

    def __init__(self, embed: nn.Module, classes: int, width: int, read: Literal["last", "parts", "dtm"]) -> None:
        super().__init__()
        self.read = read
        self.embed = embed
        self.layers = nn.ModuleList((MambaLayer(width), MambaLayer(width)))
        if read == "dtm":
            depths = (SequenceDepth(width), SequenceDepth(width))
            self.head: nn.Module = DeepTemporalMamba(depths, d_model=width, num_classes=classes, d_out=width)
        else:
            first = SequenceToken(width, width) if read == "parts" else nn.LayerNorm(width)
            self.head = nn.Sequential(first, nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        first = self.layers[0](self.embed(x))
        second = self.layers[1](first)
        logits: Tensor = self.head({"last": second[:, -1], "parts": second, "dtm": (first, second)}[self.read])
        return logits


class GRUClassifier(nn.Module):
    """Two GRU layers, read at the last step."""

    def __init__(self, embed: nn.Module, classes: int, width: int) -> None:
        super().__init__()
        self.embed = embed
        self.gru = nn.GRU(width, width, num_layers=2, batch_first=True)
        self.classifier = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.gru(self.embed(x))[0][:, -1])
        return logits


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def kinds(task: str) -> dict[str, Callable[[int], nn.Module]]:
    """The networks that are compared on a task, as functions of their width."""
    classes = {"digits": 10, "heart": 3}[task]

    def embed(width: int) -> nn.Module:
        return nn.Linear(8, width) if task == "digits" else Signal(width)

    return {
        "GRU": lambda width: GRUClassifier(embed(width), classes, width),
        "Mamba": lambda width: MambaClassifier(embed(width), classes, width, "last"),
        "Mamba, means of 4 parts": lambda width: MambaClassifier(embed(width), classes, width, "parts"),
        "Mamba, DTM head": lambda width: MambaClassifier(embed(width), classes, width, "dtm"),
    }


def rows_of(part: Part) -> Part:
    """Digits as sequences of their 8 rows."""
    return Part((part.inputs[0][:, 0],), part.labels)


def heart(samples: int, seed: int) -> Part:
    """Signals (samples, 2000) of 3 classes: the odd beat is wide and low, early and inverted, or there is none."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (samples,), generator=draw)
    period = 160 + 60 * torch.rand(samples, 1, 1, generator=draw)
    beats = torch.arange(-1, 1 + LENGTH // 160)[None, :, None]
    centres = (beats + torch.rand(samples, 1, 1, generator=draw)) * period + 4 * torch.randn(
        samples, len(beats[0]), 1, generator=draw
    )
    width, height = torch.full_like(centres, 4.0), torch.ones_like(centres)
    odd = torch.zeros_like(centres, dtype=torch.bool)
    odd[:, 2] = True  # the second or third beat that is seen
    wide, inverted = (odd & (labels == k)[:, None, None] for k in (1, 2))
    width[wide], height[wide] = 12.0, 0.6
    height[inverted] = -0.8
    centres = centres - 40 * inverted
    time = torch.arange(LENGTH, dtype=torch.float32)
    signal = (height * torch.exp(-(((time - centres) / width) ** 2) / 2)).sum(1)
    drift = 0.2 * torch.sin(time / 300 + 6.28 * torch.rand(samples, 1, generator=draw))
    signal = signal + drift + 0.1 * torch.randn(samples, LENGTH, generator=draw)
    return Part((signal,), labels)


def run(task: str, seeds: Sequence[int], *, samples: int, epochs: int) -> list[Row]:
    """Accuracy and cost of the four networks on "digits" or "heart", for each seed."""
    networks, rows = kinds(task), []
    for seed in seeds:
        if task == "digits":
            learn, test = (rows_of(part) for part in digits(samples, seed))
        else:
            learn, test = heart(samples, 2 * seed), heart(samples, 2 * seed + 1)
        budget = size(networks["Mamba"](WIDTH))
        for name, network_of in networks.items():
            width = min(range(8, 64), key=lambda w: abs(size(network_of(w)) - budget))
            torch.manual_seed(seed)
            network = network_of(width)
            seconds = train(network, learn, epochs=epochs, seed=seed, rate=3e-3)
            rows.append(Row.of(f"{task}: {name}", network, test, seconds))
    return rows


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    for task in ("digits", "heart"):
        print(table(run(task, args.seeds, samples=args.samples, epochs=args.epochs)), "\n")
