"""Cross-fitting: every fold of the labelled ground is answered by members that were trained on the others.

Networks of all folds answer together in the map. Members that are cheap to train are trained once more on all labels
and answer once, which costs less at every pixel and is no worse (docs/notes/trials.md).
M members | K classes | F folds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.config import AnswerConfig, MemberName, TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.labels import Labels
from adcdnet.mapping.members import Member
from adcdnet.mapping.model import Model
from adcdnet.mapping.posterior import fit_temperature
from adcdnet.mapping.progress import Progress
from adcdnet.metrics import confusion_matrix, expected_calibration_error
from adcdnet.metrics.intervals import Intervals, block_bootstrap, confusion_by_block
from adcdnet.split.blocks import block_numbers
from adcdnet.split.parts import TEST, TRAIN, UNUSED, VALIDATION, Split
from adcdnet.training.borders import refine
from adcdnet.training.checkpoints import NOWHERE, Checkpoints
from adcdnet.training.committee.classifiers import FITS
from adcdnet.training.committee.folds import Fold, FoldResult, Ground
from adcdnet.training.committee.held_out import HeldOut
from adcdnet.training.committee.pool import train_folds
from adcdnet.training.committee.weights import fit_weights

_LEAST = 1e-12  # probability that a label is given at least, so that none decides alone


class Answered(NamedTuple):
    """What all members together say of targets at rows and columns (n,): probabilities (K, n)."""

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Judgement:
    """What answers to held-out ground say. confusion (K, K + 1): of all members together; alone: of each by itself.

    Weights and temperature of a fold were fitted to the other folds; of a single fold, to itself. intervals: of the
    scores, from whole blocks of ground of all folds; None where these are too few. calibration_error: by that
    temperature. answered: of each scene, by fold, at tau 1.
    """

    confusion: NDArray[np.int64]
    intervals: Intervals | None
    alone: Mapping[str, NDArray[np.int64]]
    calibration_error: float
    answered: tuple[tuple[Answered, ...], ...]


@dataclass(frozen=True)
class CrossFit:
    """results: of each fold. members: of the map, with their weights. answers: with the weight of local priors that
    was chosen. judgement: None where nothing was held out."""

    results: tuple[FoldResult, ...]
    members: tuple[Member, ...]
    weights: Mapping[str, float]
    temperature: float
    answers: AnswerConfig
    judgement: Judgement | None


def cross_fit(
    ground: Ground,
    splits: Sequence[Sequence[Split]],
    config: TrainConfig,
    device: torch.device,
    *,
    jobs: int,
    progress: Progress,
    init: Model | None = None,
    checkpoints: Checkpoints = NOWHERE,
) -> CrossFit:
    """splits: of each fold, of each scene. Of a single one the validation part weighs the members, if there is one; of
    several, the test parts; these also choose how much local class priors count. Without any such ground the first
    member answers alone: all with equal weights were worse than that (docs/notes/trials.md)."""
    names = members_of(config)
    single, step = len(splits) == 1, config.network.targets_per_pixel(ground.layout.ratio)
    part = VALIDATION if single else TEST
    if not any(
        _labelled_in(split, part, labels) for s in splits for split, labels in zip(s, ground.labels, strict=True)
    ):
        names = names[:1]
    choices = [config.answers] if single else choices_of(config)
    # what is held out is answered as far around labels as the largest weight asks for
    config = config.replace({"answers": {"local_priors": max(choice.local_priors for choice in choices)}})
    folds = [
        Fold(
            name=f"fold{number + 1}",
            splits=of_fold,
            part=part,
            members=names,
            seed=config.seed if single else _seed(config.seed, number),
            init=init,
        )
        for number, of_fold in enumerate(splits)
    ]
    cheap = [name for name in names if name in FITS]
    if cheap and not single:
        whole = [_all_trains(split) for split in splits[0]]
        folds.append(Fold(name="whole", splits=whole, part=None, members=cheap, seed=config.seed, init=init))
    results = train_folds(ground, folds, config, device, jobs=jobs, progress=progress, checkpoints=checkpoints)
    tested = results[: len(splits)]
    held = [[scene for scene in result.held_out if (scene.truth >= 0).any()] for result in tested]
    if not any(held):
        fitted, judgement = Fitted(np.full(len(names), 1 / len(names)), 1.0, choices[0]), None
    else:
        fitted = weighed([scene for of_fold in held for scene in of_fold], choices)
        judgement = _judge(ground, names, tested, choices, splits[0][0].block * step)
    members = []
    for name, weight in zip(names, fitted.weights.tolist(), strict=True):
        if not weight:
            continue
        from_folds = results[len(splits) :] if name in cheap and not single else tested
        own = [member for result in from_folds for member in result.members if member.name == name]
        members += [replace(member, weight=weight / len(own)) for member in own]
    return CrossFit(
        tuple(tested),
        tuple(members),
        dict(zip(names, fitted.weights.tolist(), strict=True)),
        fitted.temperature,
        fitted.answers,
        judgement,
    )


def _labelled_in(split: Split, part: int, labels: Labels) -> bool:
    step = labels.index.shape[0] // split.part.shape[0]
    return bool((refine(split.part == part, step) & (labels.index >= 0)).any())


def choices_of(config: TrainConfig) -> list[AnswerConfig]:
    """How several folds may read answers: with each weight of local class priors that the settings name."""
    weights = config.local_priors_tried or (config.answers.local_priors,)
    return [config.answers.model_copy(update={"local_priors": weight}) for weight in weights]


def members_of(config: TrainConfig) -> list[MemberName]:
    """Those that the settings ask for and the grid allows: trees and perceptrons know MS pixels only."""
    names = list(dict.fromkeys(config.members))
    if config.plain:  # the same network twice
        names = list(dict.fromkeys("adcdnet" if name == "plain" else name for name in names))
    if config.network.grid == "fine":
        names = [name for name in names if name not in FITS]
        if not names:
            raise InputError(
                f"members are {', '.join(config.members)}, which map MS pixels only; add adcdnet, or leave out "
                "--grid fine"
            )
    return names


class Fitted(NamedTuple):
    """What held-out answers say: weights (M,) of the members, the temperature, how answers are read."""

    weights: NDArray[np.float64]
    temperature: float
    answers: AnswerConfig

    def probabilities(self, scene: HeldOut) -> NDArray[np.float32]:
        """(K, n), at tau 1."""
        return scene.probabilities(self.weights, self.temperature, self.answers)


def weighed(held: Sequence[HeldOut], choices: Sequence[AnswerConfig]) -> Fitted:
    """By the labelled targets of held-out ground, each scene of which has some. Of several ways to read answers the one
    is chosen by which the labels are likeliest."""
    parts = [scene.log_posteriors() for scene in held]
    weights, temperature = fit_weights(
        np.concatenate([z for z, _ in parts], axis=2), np.concatenate([truth for _, truth in parts])
    )
    best, lowest = None, np.inf
    for answers in choices:
        fitted = Fitted(weights, temperature, answers)
        if answers.local_priors:  # they make answers surer
            fitted = fitted._replace(temperature=fit_temperature(*_labelled(held, fitted._replace(temperature=1.0))))
        if len(choices) == 1:
            return fitted
        p, truth = _labelled(held, fitted)
        surprise = -float(np.log(np.maximum(p[truth, np.arange(truth.size)], _LEAST)).mean())
        if surprise < lowest:
            best, lowest = fitted, surprise
    assert best is not None
    return best


def _labelled(held: Sequence[HeldOut], fitted: Fitted) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities (K, n) of the labelled targets, and their truth (n,)."""
    p = [fitted.probabilities(scene)[:, scene.truth >= 0] for scene in held]
    return np.concatenate(p, axis=1), np.concatenate([scene.truth[scene.truth >= 0] for scene in held])


def _judge(
    ground: Ground, names: Sequence[str], results: Sequence[FoldResult], choices: Sequence[AnswerConfig], block: int
) -> Judgement:
    """block: targets per side of the blocks of ground that intervals come from."""
    classes = len(ground.classes)
    confusion = np.zeros((classes, classes + 1), np.int64)
    alone = {name: np.zeros_like(confusion) for name in names}
    mapped = [np.full(labels.index.shape, -1, np.int16) for labels in ground.labels]
    answered: list[list[Answered]] = [[] for _ in ground.labels]
    truth = [np.full(labels.index.shape, -1, np.int16) for labels in ground.labels]
    sure, right = [], []
    for number, result in enumerate(results):
        everywhere = [(k, scene) for k, r in enumerate(results) for scene in r.held_out if (scene.truth >= 0).any()]
        elsewhere = [scene for k, scene in everywhere if k != number]
        fitted = weighed(elsewhere or [scene for _, scene in everywhere], choices)
        for scene, index, true, said in zip(result.held_out, mapped, truth, answered, strict=True):
            p = fitted.probabilities(scene)
            said.append(Answered(scene.row, scene.col, p))
            index[scene.row, scene.col] = p.argmax(0)
            true[scene.row, scene.col] = scene.truth
            known = scene.truth >= 0
            confusion += confusion_matrix(scene.truth, p.argmax(0), classes)
            sure.append(p[:, known])
            right.append(scene.truth[known])
            for k, name in enumerate(names):
                single = fitted._replace(weights=np.eye(len(names))[k], temperature=1.0)
                alone[name] += confusion_matrix(scene.truth, single.probabilities(scene).argmax(0), classes)
    error = expected_calibration_error(np.concatenate(sure, axis=1).T, np.concatenate(right))
    by_block = []
    for labels, true, index in zip(ground.labels, truth, mapped, strict=True):
        height, width = labels.index.shape
        by_block.append(confusion_by_block(true, index, classes, block_numbers(height, width, block)))
    intervals = block_bootstrap(np.concatenate(by_block), rng=np.random.default_rng(0))
    return Judgement(confusion, intervals, alone, error, tuple(map(tuple, answered)))


def _all_trains(split: Split) -> Split:
    return replace(split, part=np.where(split.part == UNUSED, UNUSED, TRAIN).astype(np.uint8))


def _seed(seed: int, fold: int) -> int:
    """Of each fold another, so that networks differ."""
    return int(np.random.SeedSequence((seed, fold)).generate_state(1)[0])
