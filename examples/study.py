"""What the examples share: digits, simulated images, one training loop, and a table of mean ± sd over seeds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.demo.simulate import simulate

IMAGE = 64  # pixels a side of an image of the simulated ground

Loss = Callable[[nn.Module, Sequence[Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """Inputs of n samples (one tensor per sensor) and their classes (n)."""

    inputs: tuple[Tensor, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def digits(samples: int, seed: int) -> tuple[Part, Part]:
    """scikit-learn's handwritten digits (8×8 grey, 10 classes): `samples` to train on, all the others to test on."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, train_size=samples, random_state=seed, stratify=labels)
    train, test, train_labels, test_labels = (np.asarray(v) for v in split)
    return tuple(
        Part((torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 1, 8, 8),), torch.tensor(y, dtype=torch.long))
        for x, y in ((train, train_labels), (test, test_labels))
    )  # type: ignore[return-value]


def ground(samples: int, seed: int) -> tuple[Tensor, NDArray[np.uint8], tuple[str, ...]]:
    """Images (samples, 7, 64, 64) of 2 m, six MS bands, repeated, and PAN; their classes (samples, 64, 64), from 1 on,
    and the names of the classes."""
    images, classes = [], []
    for k in range(-(-samples // 9)):
        scene = simulate(96, 96, ratio=2, seed=(seed, k))
        bands = np.concatenate((scene.ms.repeat(2, 1).repeat(2, 2), scene.pan)) / 1e4
        for row in range(0, 192, IMAGE):
            for col in range(0, 192, IMAGE):
                window = slice(row, row + IMAGE), slice(col, col + IMAGE)
                images.append(torch.tensor(bands[:, *window], dtype=torch.float32))
                classes.append(scene.labels_fine[window])
    x = torch.stack(images[:samples])
    scale = x.new_tensor([0.05, 0.05, 0.06, 0.15, 0.1, 0.1, 0.08])  # about what a band varies by
    return (x - 0.15) / scale[:, None, None], np.stack(classes[:samples]), scene.class_table.names


def cross_entropy(network: nn.Module, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
    return F.cross_entropy(network(*inputs), labels)


def train(
    network: nn.Module,
    part: Part,
    *,
    epochs: int,
    seed: int,
    batch: int = 32,
    rate: float = 2e-3,
    loss: Loss = cross_entropy,
) -> float:
    """Adam with a rate that falls to 0 along a cosine; returns the seconds of one step, the first step left out."""
    draw = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(part) // batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    done, start = 0, time.perf_counter()
    for _ in range(epochs):
        for chosen in torch.randperm(len(part), generator=draw).split(batch):
            optimizer.zero_grad()
            loss(network, [x[chosen] for x in part.inputs], part.labels[chosen]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done == 1:
                start = time.perf_counter()
    return (time.perf_counter() - start) / max(done - 1, 1)


@torch.no_grad()
def accuracy(network: nn.Module, part: Part) -> float:
    """Share of right classes in percent."""
    network.eval()
    guesses = [network(*inputs).argmax(1) for inputs in zip(*(x.split(256) for x in part.inputs), strict=True)]
    return 100 * (torch.cat(guesses) == part.labels).double().mean().item()


@dataclass(frozen=True)
class Row:
    """What one variant reached with one seed."""

    variant: str
    accuracy: float  # percent, on the test part
    parameters: int
    seconds: float  # per training step

    @classmethod
    def of(cls, variant: str, network: nn.Module, test: Part, seconds: float) -> Row:
        return cls(variant, accuracy(network, test), sum(p.numel() for p in network.parameters()), seconds)


def table(rows: Sequence[Row], measure: str = "test accuracy, %") -> str:
    """Mean ± sd of the accuracy over the seeds of each variant, its parameters and its time per training step."""
    lines = [f"| variant | {measure} | parameters | ms per step |", "|---|---|---|---|"]
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        reached = np.array([row.accuracy for row in own])
        spread = f" ± {reached.std(ddof=1):.2f}" if len(own) > 1 else ""
        milliseconds = 1e3 * float(np.median([row.seconds for row in own]))
        lines.append(f"| {variant} | {reached.mean():.2f}{spread} | {own[0].parameters} | {milliseconds:.1f} |")
    return "\n".join(lines)


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Command line with --seeds and one whole-number option per default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    return parser.parse_args()
