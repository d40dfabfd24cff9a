"""Stage II: the network learns the labels, one round or two, by its main head and its DTM heads.

    L = L_main + λ (L_ms + L_pan)

K classes | n targets. The moving average of the weights at the end is the model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from adcdnet.config import TrainConfig
from adcdnet.geo.grid import tiles
from adcdnet.nn.networks import Network
from adcdnet.nn.tile_sharing import Targets
from adcdnet.training.area import Guessed, TrainingArea
from adcdnet.training.stages.loop import (
    History,
    State,
    check_finite,
    looks_at,
    optimizer_of,
    some_targets,
    tensors,
    update,
)
from adcdnet.training.stages.schedule import Schedule
from adcdnet.training.stages.validate import WINDOW, Validation, logits_on, validate

MOST_UNLABELLED = 2**18  # targets without a label that a second round draws from


@dataclass(frozen=True, kw_only=True)
class Stage2:
    """network: the average of the weights, in eval mode. validation: the last look at it; None without that part.

    self_trained: how many targets without a label it learnt from too.
    """

    network: Network
    validation: Validation | None
    self_trained: int | None


@dataclass(frozen=True)
class Round:
    """One pass through all steps."""

    network: Network
    validation: Validation | None


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """How stage II learns: all that its rounds and steps share."""

    area: TrainingArea
    config: TrainConfig
    schedule: Schedule
    rng: np.random.Generator
    history: History


def train_stage2(network: Network, supervision: Supervision) -> Stage2:
    """One round, or two where labels are few and spread evenly over the classes: the second also learns what the
    first says of ground without labels. Of labels as frequent as the classes are it made worse networks.

    Self-training with soft pseudo-labels, as a student that sees noise of a teacher that does not (Xie et al. 2020,
    arXiv:1911.04252, section 2; here the student is no larger than the teacher, and there is one generation).
    """
    schedule, area = supervision.schedule, supervision.area
    unlabelled = unlabelled_targets(area, supervision.rng) if schedule.second_round else np.zeros(0, bool)
    again = bool(unlabelled.any())
    start = copy.deepcopy(network) if again else network
    first = train_round(network, supervision, before=0, last=not again)
    if not again:
        return Stage2(**vars(first), self_trained=None)
    guessed = _guess(first.network, supervision, unlabelled)
    second = train_round(start, supervision, guessed, before=schedule.stage2.steps, last=True)
    return Stage2(**vars(second), self_trained=len(guessed.places))


def _guess(teacher: Network, supervision: Supervision, unlabelled: NDArray[np.bool_]) -> Guessed:
    """What a network says of the targets without a label."""
    area, config = supervision.area, supervision.config
    windows = list(logits_on(teacher, config.answers, area, unlabelled))
    logits, row, col = (np.concatenate(parts, axis=-1) for parts in zip(*windows, strict=True))
    probability = F.softmax(torch.from_numpy(logits.T), dim=1).numpy()
    return area.guessed(np.stack((row, col), axis=1), probability, config.class_balance)


def unlabelled_targets(area: TrainingArea, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Targets without a label; of more than `MOST_UNLABELLED`, those in some windows drawn at random."""
    wanted = area.target & (area.label < 0)
    if np.count_nonzero(wanted) <= MOST_UNLABELLED:
        return wanted
    height, width = area.split.part.shape
    windows = [window.scale(area.step).slices for window in tiles(height, width, WINDOW)]
    kept, count = np.zeros_like(wanted), 0
    for k in rng.permutation(len(windows)):
        kept[windows[k]] = wanted[windows[k]]
        count += int(np.count_nonzero(wanted[windows[k]]))
        if count >= MOST_UNLABELLED:
            break
    return kept


def train_round(
    network: Network, supervision: Supervision, guessed: Guessed | None = None, *, before: int, last: bool
) -> Round:
    """All steps from the network as it is, which changes; the moving average of its weights.

    guessed: what the round learns beside the labels. before: steps of an earlier round. last: none follows.
    """
    config, stage, history = supervision.config, supervision.schedule.stage2, supervision.history
    average = copy.deepcopy(network).eval()
    optimizer, rate = optimizer_of([p for _, p in network.trained_parameters()], stage)
    total = before + (1 if last else 2) * stage.steps
    validation: Validation | None = None
    state = State({"network": network, "average": average}, optimizer, rate, supervision.rng)
    for step in history.steps("stage2-again" if before else "stage2", stage.steps, state):
        network.train()
        losses = losses_of(network, supervision, mixed=step <= config.mixup * stage.steps, guessed=guessed)
        loss = losses[0] + config.branch_weight * sum(losses[1:], torch.zeros_like(losses[0]))
        update(loss, optimizer, rate)
        _move_average(average, network, min(config.average, step / (step + 9)))
        if not looks_at(step, stage.steps, config.validations):
            continue
        check_finite(loss.item(), "stage II", step)
        figures: dict[str, float] = {
            "loss": loss.item(),
            "main": losses[0].item(),
            "learning_rate": float(rate.get_last_lr()[0]),
        }
        if supervision.area.has_validation:
            validation = validate(average, config.answers, supervision.area, supervision.schedule)
            seen = validation.scores
            figures |= {"validation_kappa": seen.kappa, "validation_aa": seen.aa, "validation_oa": seen.oa}
        history.note("stage2", before + step, total, **figures)
    if validation is None and supervision.area.has_validation:  # the last step was kept, the look at it was not
        validation = validate(average, config.answers, supervision.area, supervision.schedule)
    return Round(average, validation)


def losses_of(
    network: Network, supervision: Supervision, *, mixed: bool = False, guessed: Guessed | None = None
) -> list[Tensor]:
    """Cross-entropy of the main head and of the DTM heads on one draw.

    guessed: targets without a label, from which a share of `self_training` of the patches is drawn.
    mixed: samples are averaged in pairs, by a share drawn evenly from 0 to 1, and so are the losses against their
    labels (mixup, Zhang et al. 2018, arXiv:1710.09412, with alpha 1).
    """
    area, config, schedule, rng = supervision.area, supervision.config, supervision.schedule, supervision.rng
    stage, device, branches = schedule.stage2, next(network.parameters()).device, config.branch_weight > 0
    precision = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
    if schedule.dense:
        drawn = area.draw_tiles(
            rng, stage.tiles, stage.tile, labelled=True, augment=config.augment, anchors=config.anchors
        )
    else:
        guesses = 0 if guessed is None else round(config.self_training * stage.batch)
        drawn = area.draw_patches(
            rng,
            stage.batch,
            balance=config.class_balance,
            augment=config.augment,
            guessed=guessed,
            guesses=min(guesses, stage.batch - 1),
        )
    ms, pan, label = tensors(drawn, device)
    if config.jitter:
        ms, pan = (_jittered(x, config.jitter, rng) for x in (ms, pan))
    labels = [(1.0, label)]
    if mixed:
        share, partner = rng.random(), torch.from_numpy(rng.permutation(len(label))).to(device)
        ms, pan = (share * x + (1 - share) * x[partner] for x in (ms, pan))
        labels = [(share, label), (1 - share, label[partner])]
    weight = torch.tensor(schedule.class_weight, dtype=torch.float32, device=device)
    if schedule.dense:
        targets = some_targets(drawn.label, stage.targets, rng, device)
        few = Targets(*(i[: config.branch_targets] for i in targets)) if branches else None
        with precision:
            outputs = network.on_tile(ms, pan, targets, branch_targets=few)
        truths = [(share, own[targets]) for share, own in labels]
    else:
        with precision:
            outputs = network(ms, pan, branches=branches and config.branch_targets)
        truths, weight = [(share, own.flatten()) for share, own in labels], torch.ones_like(weight)
    smoothing = config.label_smoothing
    return [
        sum((share * _loss(z, truth[: len(z)], weight, smoothing) for share, truth in truths), z.new_zeros(()))
        for z in outputs
        if z is not None
    ]


def _jittered(x: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
    """Samples (b, bands, h, w) as under another light: each band of each times a gain and plus an offset. What is 0,
    the training mean or hidden ground, stays so.
    """
    gain, offset = (
        torch.from_numpy(rng.normal(0, deviation, (*x.shape[:2], 1, 1)).astype(np.float32)).to(x.device)
        for _ in range(2)
    )
    return torch.where(x == 0, x, x * gain.exp() + offset)


def _loss(logits: Tensor, truth: Tensor, weight: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy, weighted by class. A target of a tile may lie on no label of the tile mixed into it."""
    labelled = truth >= 0
    logits, truth = logits[labelled], truth[labelled]
    each = F.cross_entropy(logits.float(), truth, reduction="none", label_smoothing=smoothing)
    return (weight[truth] * each).sum() / weight[truth].sum().clamp_min(torch.finfo(weight.dtype).tiny)


@torch.no_grad()
def _move_average(average: Network, network: Network, decay: float) -> None:
    """average ← decay · average + (1 − decay) · network, parameters and BatchNorm statistics; the prior is copied."""
    theirs = network.state_dict()
    for name, mine in average.state_dict().items():
        if mine.is_floating_point() and not name.startswith("prior."):
            mine.lerp_(theirs[name], 1 - decay)
        else:
            mine.copy_(theirs[name])
