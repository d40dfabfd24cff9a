"""One fold: its members trained, and what they say of the ground that was held out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adcdnet.config import MemberName, TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.members import Classifier, Member
from adcdnet.mapping.model import Model
from adcdnet.mapping.progress import Progress
from adcdnet.nn.architecture import Layout
from adcdnet.split.parts import Split
from adcdnet.training.area import TrainingArea, training_statistics
from adcdnet.training.committee.classifiers import FITS, features_and_labels
from adcdnet.training.committee.held_out import HeldOut, answer
from adcdnet.training.scenes import training_area
from adcdnet.training.stages.loop import History, build_network
from adcdnet.training.stages.train import Trained, train_network
from adcdnet.training.transfer import begin_from


@dataclass(frozen=True)
class Ground:
    """All scenes of a training as arrays. pixels, labels: of each, labels on the grid of the targets."""

    pixels: Sequence[Pixels]
    labels: Sequence[Labels]
    layout: Layout
    phase: tuple[float, float]

    @property
    def classes(self) -> ClassTable:
        return self.labels[0].classes


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What one fold trains and answers.

    splits: of each scene. part: that is answered; None: nothing is. members: their names. init: what networks begin
    from. seed: of all draws.
    """

    splits: Sequence[Split]
    part: int | None
    members: Sequence[MemberName]
    seed: int
    init: Model | None = None


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """members: trained, each with weight 1. held_out: of each scene, none where nothing was to be answered.

    trained: of the networks, by name. history: its rows. new_classes: that the model to begin from did not know.
    """

    members: tuple[Member, ...]
    statistics: BandStatistics
    label_shares: tuple[float, ...]
    held_out: tuple[HeldOut, ...]
    trained: Mapping[str, Trained]
    seconds: Mapping[str, float]
    history: Sequence[Mapping[str, float | str]]
    new_classes: tuple[str, ...]


def train_fold(ground: Ground, fold: Fold, config: TrainConfig, device: torch.device, progress: Progress) -> FoldResult:
    """All members, one after another, then their answers. KeyboardInterrupt: as `train_network`."""
    history = History(progress)
    members: list[Member] = []
    seconds: dict[str, float] = {}
    classifier: Classifier
    trained: dict[str, Trained] = {}
    new_classes: tuple[str, ...] = ()
    config = config.replace({"seed": fold.seed})
    measured = training_statistics(list(zip(ground.pixels, fold.splits, strict=True)))
    statistics = measured if fold.init is None else fold.init.first_network.statistics
    area = _area(ground, fold, config, statistics)
    counts = area.class_counts / area.class_counts.sum()
    drawn = area.drawn_counts(config.class_balance)
    drawn_shares = tuple((drawn / drawn.sum()).tolist())
    table = None
    for name in fold.members:
        started = time.perf_counter()
        if name in FITS:
            if table is None:
                table = features_and_labels(area, np.random.default_rng(fold.seed))
            weight = area.class_counts.astype(float)[table[1]] ** -config.class_balance
            classifier = FITS[name](*table, weight / weight.mean(), fold.seed)
            seconds[name] = time.perf_counter() - started
            history.note("members", 1, 1)
        else:
            own = config if name == "adcdnet" else config.without_parts()
            with torch.random.fork_rng():
                torch.manual_seed(fold.seed)  # of the first weights and of dropout
                network = build_network(own, ground.layout, device)
                if fold.init is not None:
                    new_classes = begin_from(network, fold.init, ground.classes, phase=ground.phase)
                trained[name] = train_network(network, _area(ground, fold, own, statistics), own, history)
            classifier = trained[name].network
            seconds |= trained[name].seconds
        members.append(
            Member(
                name=name,
                classifier=classifier,
                statistics=statistics,
                drawn_shares=drawn_shares,
                sensors=config.network.sensors,
            )
        )
    held_out: tuple[HeldOut, ...] = ()
    started = time.perf_counter()
    if fold.part is not None:
        held_out = tuple(
            answer(
                members,
                *scene,
                fold.part,
                answers=config.answers,
                statistics=statistics,
                label_shares=tuple(counts.tolist()),
                device=device,
            )
            for scene in zip(ground.pixels, ground.labels, fold.splits, strict=True)
        )
        seconds["answers"] = time.perf_counter() - started
    for member in members:
        if member.network is not None:
            member.network.cpu()
    return FoldResult(
        members=tuple(members),
        statistics=measured,
        label_shares=tuple(counts.tolist()),
        held_out=held_out,
        trained=trained,
        seconds=seconds,
        history=history.rows,
        new_classes=new_classes,
    )


def _area(ground: Ground, fold: Fold, config: TrainConfig, statistics: BandStatistics) -> TrainingArea:
    return training_area(
        ground.pixels,
        ground.labels,
        fold.splits,
        config=config,
        ratio=ground.layout.ratio,
        phase=ground.phase,
        statistics=statistics,
    )
