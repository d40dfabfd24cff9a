"""What the loops of all stages share: the network's start, optimizers, a step, batches as tensors, the history."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adcdnet.config import StageConfig, TrainConfig
from adcdnet.errors import InputError
from adcdnet.mapping.progress import Progress, silent
from adcdnet.nn.architecture import Layout
from adcdnet.nn.mamba import StepProjection
from adcdnet.nn.networks import Network, network_of
from adcdnet.nn.parts import PUBLISHED, Parts
from adcdnet.nn.tile_sharing import Targets
from adcdnet.training.area import Drawn


class History:
    """The figures of a training on the way, a row a look; what `progress` is told too."""

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress
        self.rows: list[dict[str, float | str]] = []

    def note(self, stage: str, step: int, steps: int, **figures: float) -> None:
        self.rows.append({"stage": stage, "step": step, **figures})
        self._progress(stage, step, steps, figures)


def to_csv(rows: Sequence[Mapping[str, float | str]]) -> bytes:
    """The rows of a history, or of several, with a column for each figure that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def build_network(config: TrainConfig, layout: Layout, device: torch.device, parts: Parts = PUBLISHED) -> Network:
    """A network at its start. Its weights are drawn from PyTorch's own generator: seed that first."""
    network = network_of(config.network, layout, parts).to(device)
    if config.initialisation == "xavier":
        xavier(network)
    return network


def xavier(network: nn.Module) -> None:
    """As published: Xavier-uniform on Conv2d and Linear; zero gates and Mamba's own start are none and stay."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | StepProjection):  # drawn there too: a seed keeps its weights
            nn.init.xavier_uniform_(module.weight)
    for module in network.modules():
        if isinstance(module, StepProjection):
            module.reset_parameters()


def optimizer_of(
    parameters: Sequence[nn.Parameter], stage: StageConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer of a stage and how its learning rate moves."""
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[stage.optimizer]
    optimizer = kind(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay)
    if stage.schedule == "exponential":
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9995)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.learning_rate, total_steps=max(2, stage.steps))
    return optimizer, schedule


def update(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    """One step down the gradient of a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    schedule.step()


def looks_at(step: int, steps: int, looks: int) -> bool:
    """Whether the figures of this step are noted: so many looks, evenly spread, and the last step."""
    return step % max(1, steps // looks) == 0 or step == steps


def check_finite(loss: float, stage: str, step: int) -> None:
    """InputError for a loss that is none."""
    if not math.isfinite(loss):
        raise InputError(
            f"{stage} diverged: its loss is {loss} after {step} steps; lower its learning_rate, or look for extreme "
            "values in the images"
        )


def tensors(drawn: Drawn, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """ms, pan and label of a batch."""
    ms, pan, label = (torch.from_numpy(x).to(device) for x in (drawn.ms, drawn.pan, drawn.label))
    return ms, pan, label


def some_targets(label: NDArray[np.int64], count: int, rng: np.random.Generator, device: torch.device) -> Targets:
    """At most `count` targets of tiles: neighbours say nearly the same, and each costs its masks and heads."""
    places = np.argwhere(label >= 0)
    chosen = places[rng.permutation(len(places))[:count]]
    return Targets(*(torch.from_numpy(i).to(device) for i in chosen.T.copy()))


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """One seed gives one file on a GPU too, where sums over gathered cells would otherwise be added in any order."""
    if device.type != "cuda":
        yield
        return
    # cuBLAS is repeatable with workspaces of its own only, and reads this when it is first used: it stays
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
