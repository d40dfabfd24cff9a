"""What the loops of all stages share: the start of a network, optimizers, a step, batches, the history, and the
state that another process can go on from."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
from adcdnet.training.checkpoints import NOWHERE, Checkpoints, Piece

LEAST = 2.0  # seconds between two states that are kept, at least
SHARE = 0.01  # of the time may go into keeping them
_OF_RATE = ("last_epoch", "_step_count", "_last_lr")  # what moves in a schedule of learning rates


class History:
    """The figures of the training of one member, a row a look, which `progress` is told too; and how far it has come.

    checkpoints: where the state of its loops is kept now and then, under names that begin with `name`.
    """

    def __init__(self, progress: Progress = silent, checkpoints: Checkpoints = NOWHERE, name: str = "") -> None:
        self._progress, self._checkpoints, self._name = progress, checkpoints, name
        self._loops: list[str] = []
        self._due = time.monotonic() + LEAST
        self.rows: list[dict[str, float | str]] = []

    def note(self, stage: str, step: int, steps: int, **figures: float) -> None:
        self.rows.append({"stage": stage, "step": step, **figures})
        self._progress(stage, step, steps, figures)

    def steps(self, loop: str, steps: int, state: State) -> Iterator[int]:
        """The steps of a loop, from 1 or from behind that whose state was kept last: none where that was the last."""
        name, done = f"{self._name}-{loop}", 0
        self._loops.append(name)
        piece = self._checkpoints.find(name)
        if piece is not None:
            state.restore(piece)
            done, self.rows = piece.figures["step"], piece.figures["rows"]
        for step in range(done + 1, steps + 1):
            yield step
            if self._checkpoints.folder is not None and time.monotonic() >= self._due:
                started = time.monotonic()
                self._checkpoints.keep(name, state.piece(step=step, rows=self.rows))
                self._due = time.monotonic() + max(LEAST, (time.monotonic() - started) / SHARE)

    def forget(self) -> None:
        """Remove the states of all loops: the member is trained."""
        for name in self._loops:
            self._checkpoints.drop(name)


@dataclass(frozen=True)
class State:
    """All that the next step of a loop depends on; PyTorch's own generators are part of it."""

    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    rate: torch.optim.lr_scheduler.LRScheduler
    rng: np.random.Generator

    def piece(self, **figures: Any) -> Piece:
        """figures: more of them."""
        kept = self.optimizer.state_dict()
        arrays = {f"{name}.{key}": x for name, m in self.modules.items() for key, x in m.state_dict().items()}
        arrays |= {f"optimizer.{k}.{key}": x for k, of_one in kept["state"].items() for key, x in of_one.items()}
        arrays["generator"] = torch.get_rng_state()
        if self._gpu is not None:
            arrays["generator of the GPU"] = torch.cuda.get_rng_state(self._gpu)
        rate = {name: getattr(self.rate, name) for name in _OF_RATE}
        groups = [{name: x for name, x in group.items() if name != "params"} for group in kept["param_groups"]]
        figures |= {"rate": rate, "groups": groups, "rng": self.rng.bit_generator.state}
        return Piece({name: x.detach().cpu().contiguous() for name, x in arrays.items()}, figures)

    def restore(self, piece: Piece) -> None:
        """Bring all to where it was when the piece was made."""
        for name, module in self.modules.items():
            module.load_state_dict(_below(piece.arrays, name))
        state: dict[int, dict[str, Tensor]] = {}
        for key, x in _below(piece.arrays, "optimizer").items():
            number, _, what = key.partition(".")
            state.setdefault(int(number), {})[what] = x
        groups = [
            # JSON has lists only
            {**{name: tuple(x) if isinstance(x, list) else x for name, x in kept.items()}, "params": now["params"]}
            for kept, now in zip(piece.figures["groups"], self.optimizer.state_dict()["param_groups"], strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.rate.load_state_dict(piece.figures["rate"])
        self.rng.bit_generator.state = piece.figures["rng"]
        torch.set_rng_state(piece.arrays["generator"])
        if self._gpu is not None:
            torch.cuda.set_rng_state(piece.arrays["generator of the GPU"], self._gpu)

    @property
    def _gpu(self) -> torch.device | None:
        device = self.optimizer.param_groups[0]["params"][0].device
        return device if device.type == "cuda" else None


def _below(arrays: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): x for key, x in arrays.items() if key.startswith(f"{name}.")}


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
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)  # one pass over the memory in place of ten
    optimizer = kind(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=fused)
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
