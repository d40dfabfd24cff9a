"""Stage I: the prior network learns without labels that both sensors show the same ground (SPS, see `nn.sps`).

F_ms, F_pan features of the prior network | c their channels
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.nn.prior import PriorNet
from adcdnet.nn.sps import MetricNet, effective_rank, spread_loss, sps_loss
from adcdnet.nn.streams import TilePrior
from adcdnet.training.area import TrainingArea
from adcdnet.training.stages.loop import (
    History,
    State,
    check_finite,
    looks_at,
    optimizer_of,
    some_targets,
    tensors,
    update,
    xavier,
)
from adcdnet.training.stages.schedule import Schedule

COLLAPSED = 1.5  # effective rank below which the features of stage I are useless
_MEASURED = 8  # batches that the features are standardised by


def train_prior(
    prior: PriorNet | TilePrior,
    area: TrainingArea,
    config: TrainConfig,
    schedule: Schedule,
    rng: np.random.Generator,
    history: History,
) -> float | None:
    """Train `prior` in place and leave it frozen, in eval mode; returns the effective rank of its features at the end,
    None where there are no steps. InputError where they collapse.
    """
    stage, device = config.stage1, next(prior.parameters()).device
    channels = prior.mean.shape[1]
    metric = MetricNet(channels).to(device)
    if config.initialisation == "xavier":
        xavier(metric)
    prior.requires_grad_(True).train()
    prior.mean.zero_()  # stage I learns from F itself
    prior.deviation.fill_(1)
    optimizer, rate = optimizer_of([*prior.parameters(), *metric.parameters()], stage)
    state = State({"prior": prior, "metric": metric}, optimizer, rate, rng)
    for step in history.steps("stage1", stage.steps, state):
        (f_ms, f_pan), some = features_of_draw(prior, area, config, schedule, rng)
        loss = distance = sps_loss(metric, f_ms, f_pan)
        if config.spread:
            spread = sum((spread_loss(some(f)) for f in (f_ms, f_pan)), torch.zeros_like(loss))
            loss = distance + config.spread * spread
        update(loss, optimizer, rate)
        if looks_at(step, stage.steps, config.validations):
            check_finite(loss.item(), "stage I", step)
            found = min(effective_rank(some(f).detach().float().cpu()) for f in (f_ms, f_pan))
            figures = {"loss": loss.item(), "sps": distance.item(), "effective_rank": found}
            history.note("stage1", step, stage.steps, **figures, learning_rate=float(rate.get_last_lr()[0]))
            _check_rank(found, step, channels)
    rank = float(history.rows[-1]["effective_rank"]) if stage.steps else None
    prior.requires_grad_(False).eval()
    if config.network.prior_mask == "standardised":
        _standardise(prior, [features_of_draw(prior, area, config, schedule, rng)[0] for _ in range(_MEASURED)])
    return rank


def features_of_draw(
    prior: PriorNet | TilePrior, area: TrainingArea, config: TrainConfig, schedule: Schedule, rng: np.random.Generator
) -> tuple[tuple[Tensor, Tensor], Callable[[Tensor], Tensor]]:
    """F_ms and F_pan of one draw from the training area, (n, c, g, g) of patches or (b, c, h, w) of tiles; and what
    takes vectors (n, c) from them, one for each of some targets.
    """
    stage, device = config.stage1, next(prior.parameters()).device
    with torch.set_grad_enabled(prior.training):
        if not schedule.dense:
            balance = 0.0 if config.stage1_labelled else None
            drawn = area.draw_patches(rng, stage.batch, balance=balance, augment=config.augment)
            features: tuple[Tensor, Tensor] = prior(*tensors(drawn, device)[:2])
            return features, _centre
        drawn = area.draw_tiles(rng, stage.tiles, stage.tile, labelled=False, augment=config.augment)
        ms, pan, _ = tensors(drawn, device)
        targets = some_targets(drawn.label, stage.targets, rng, device)
        if isinstance(prior, TilePrior):
            border, step = area.network.border, area.step
            tile, row, col = targets.tile, targets.row // step + border, targets.col // step + border
            return prior.features(ms, pan), lambda f: f[tile, :, row, col]
        return prior.features(prior.share(ms, pan), targets), _centre


def _standardise(prior: PriorNet | TilePrior, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Mean and deviation of the features over training samples, so that the masks span (0, 1)."""
    for sensor in (0, 1):
        values = torch.cat([batch[sensor] for batch in batches]).float()
        prior.mean[sensor] = values.mean((0, 2, 3))
        prior.deviation[sensor] = values.std((0, 2, 3)).clamp_min(1e-3)


def _check_rank(rank: float, step: int, channels: int) -> None:
    if rank < COLLAPSED:
        raise InputError(
            f"stage I collapsed: after {step} steps its features have effective rank {rank:.2f} of {channels}; "
            "raise `spread`, lower its learning rate, or use --no-stage1"
        )


def _centre(features: Tensor) -> Tensor:
    """The cell of the target pixel, (n, c)."""
    middle = features.shape[-1] // 2
    return features[:, :, middle, middle]
