"""The training loop of every network we compare with: one seed, one falling learning rate, the best of a few looks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adcdnet.errors import InputError

_LOOKS = 5
_MOMENTUM = 0.3  # of BatchNorm statistics: PyTorch's 0.1 lags behind weights that have few steps to settle


@dataclass(frozen=True)
class Recipe:
    """AdamW whose learning rate rises to `learning_rate` and falls to almost 0 over `steps` (Smith and Topin 2017)."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.0


def train(
    network: nn.Module, recipe: Recipe, loss: Callable[[], Tensor], validation_kappa: Callable[[], float] | None
) -> None:
    """Train in place and leave the network in eval mode, with the weights of the look with the best kappa.

    validation_kappa: called a few times, in eval mode; None where no pixels are held back: the last weights are kept.
    Raises InputError where the loss is no longer a number.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=max(2, recipe.steps), cycle_momentum=False
    )
    interval = max(1, recipe.steps // _LOOKS)
    best, weights = -math.inf, None
    for step in range(1, recipe.steps + 1):
        network.train()
        found = loss()
        optimizer.zero_grad(set_to_none=True)
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % interval and step != recipe.steps:
            continue
        if not math.isfinite(found.item()):
            raise InputError(
                f"{type(network).__name__} diverged: its loss is {found.item()} after {step} steps; look for extreme "
                "values in the images"
            )
        if validation_kappa is not None:
            network.eval()
            with torch.inference_mode():
                kappa = validation_kappa()
            if kappa > best:
                best, weights = kappa, copy.deepcopy(network.state_dict())
    if weights is not None:
        network.load_state_dict(weights)
    network.eval()


class TrainedNetwork:
    """What every classifier that is a network says of itself; see `Classifier`."""

    network: nn.Module

    @property
    def parameters(self) -> int:
        return parameter_count(self.network)


def parameter_count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
