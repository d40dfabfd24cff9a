"""One fold: its members trained, and what they say of the ground that was held out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.config import MemberName, TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.members import Classifier, Member
from adcdnet.mapping.model import Model, arrays_of, header_of, member_of
from adcdnet.mapping.progress import Progress
from adcdnet.nn.architecture import Layout
from adcdnet.split.parts import Split
from adcdnet.training.area import TrainingArea, training_statistics
from adcdnet.training.checkpoints import NOWHERE, Checkpoints, Piece
from adcdnet.training.committee.classifiers import FITS, features_and_labels
from adcdnet.training.committee.held_out import HeldOut, answer, answers_of, piece_of
from adcdnet.training.scenes import training_area
from adcdnet.training.stages.loop import History, build_network
from adcdnet.training.stages.train import Course, train_network
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

    name: in checkpoints. splits: of each scene. part: that is answered; None: nothing is. members: their names. init:
    what networks begin from. seed: of all draws.
    """

    name: str
    splits: Sequence[Split]
    part: int | None
    members: Sequence[MemberName]
    seed: int
    init: Model | None = None


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """members: trained, each with weight 1. held_out: of each scene, none where nothing was to be answered.

    courses: of the networks, by name. history: its rows. new_classes: that the model to begin from did not know.
    """

    members: tuple[Member, ...]
    statistics: BandStatistics
    label_shares: tuple[float, ...]
    held_out: tuple[HeldOut, ...]
    courses: Mapping[str, Course]
    seconds: Mapping[str, float]
    history: Sequence[Mapping[str, float | str]]
    new_classes: tuple[str, ...]


def train_fold(
    ground: Ground,
    fold: Fold,
    config: TrainConfig,
    device: torch.device,
    progress: Progress,
    checkpoints: Checkpoints = NOWHERE,
) -> FoldResult:
    """All members, one after another, then their answers; what is among the checkpoints is not made again."""
    config = config.replace({"seed": fold.seed})
    measured = training_statistics(list(zip(ground.pixels, fold.splits, strict=True)))
    statistics = measured if fold.init is None else fold.init.first_network.statistics
    area = _area(ground, fold, config, statistics)
    shares = tuple((area.class_counts / area.class_counts.sum()).tolist())
    learner = _Learner(ground, fold, config, device, statistics, area, progress, checkpoints)
    learnt = [learner.member(name) for name in fold.members]
    members = [one.member for one in learnt]
    seconds: dict[str, float] = {}
    for one in learnt:
        seconds |= one.seconds
    held_out: tuple[HeldOut, ...] = ()
    started = time.perf_counter()
    if fold.part is not None:
        piece = checkpoints.find(f"{fold.name}-answers")
        if piece is None:
            held_out = tuple(
                answer(
                    members,
                    *scene,
                    fold.part,
                    answers=config.answers,
                    statistics=statistics,
                    label_shares=shares,
                    device=device,
                )
                for scene in zip(ground.pixels, ground.labels, fold.splits, strict=True)
            )
            checkpoints.keep(f"{fold.name}-answers", piece_of(held_out))
        else:
            held_out = answers_of(piece)
        seconds["answers"] = time.perf_counter() - started
    for member in members:
        if member.network is not None:
            member.network.cpu()
    return FoldResult(
        members=tuple(members),
        statistics=measured,
        label_shares=shares,
        held_out=held_out,
        courses={one.member.name: one.course for one in learnt if one.course is not None},
        seconds=seconds,
        history=[row for one in learnt for row in one.rows],
        new_classes=next((one.new_classes for one in learnt if one.new_classes), ()),
    )


@dataclass(frozen=True)
class _Learnt:
    """A member, and how it came about."""

    member: Member
    course: Course | None
    seconds: Mapping[str, float]
    rows: Sequence[Mapping[str, float | str]]
    new_classes: tuple[str, ...] = ()

    def piece(self) -> Piece:
        figures = {
            "member": header_of(self.member),
            "course": None if self.course is None else asdict(self.course),
            "seconds": self.seconds,
            "rows": self.rows,
            "new_classes": self.new_classes,
        }
        return Piece(arrays_of(self.member.classifier), figures)

    @classmethod
    def of(cls, piece: Piece, layout: Layout) -> _Learnt:
        figures = piece.figures
        return cls(
            member_of(figures["member"], dict(piece.arrays), layout),
            None if figures["course"] is None else Course(**figures["course"]),
            figures["seconds"],
            figures["rows"],
            tuple(figures["new_classes"]),
        )


@dataclass(frozen=True)
class _Learner:
    """What the members of one fold learn from."""

    ground: Ground
    fold: Fold
    config: TrainConfig
    device: torch.device
    statistics: BandStatistics
    area: TrainingArea
    progress: Progress
    checkpoints: Checkpoints

    def member(self, name: MemberName) -> _Learnt:
        """Trained, or as it was kept."""
        kept = f"{self.fold.name}-{name}"
        piece = self.checkpoints.find(kept)
        if piece is not None:
            learnt = _Learnt.of(piece, self.ground.layout)
            for stage, row in {row["stage"]: row for row in learnt.rows}.items():
                self.progress(str(stage), int(row["step"]), int(row["step"]), {})
            return learnt
        history = History(self.progress, self.checkpoints, kept)
        learnt = self._by_features(name, history) if name in FITS else self._network(name, history)
        self.checkpoints.keep(kept, learnt.piece())
        history.forget()
        return learnt

    def _by_features(self, name: str, history: History) -> _Learnt:
        started = time.perf_counter()
        features, truth = self._table
        weight = self.area.class_counts.astype(float)[truth] ** -self.config.class_balance
        classifier = FITS[name](features, truth, weight / weight.mean(), self.fold.seed)
        history.note("members", 1, 1)
        return _Learnt(self._member(name, classifier), None, {name: time.perf_counter() - started}, history.rows)

    def _network(self, name: str, history: History) -> _Learnt:
        ground, fold = self.ground, self.fold
        config = self.config if name == "adcdnet" else self.config.without_parts()
        new: tuple[str, ...] = ()
        with torch.random.fork_rng():
            torch.manual_seed(fold.seed)  # of the first weights and of dropout
            network = build_network(config, ground.layout, self.device)
            if fold.init is not None:
                new = begin_from(network, fold.init, ground.classes, phase=ground.phase)
            area = _area(ground, fold, config, self.statistics)
            trained = train_network(network, area, config, history)
        return _Learnt(self._member(name, trained.network), trained.course, trained.seconds, history.rows, new)

    def _member(self, name: str, classifier: Classifier) -> Member:
        drawn = self.area.drawn_counts(self.config.class_balance)
        return Member(
            name=name,
            classifier=classifier,
            statistics=self.statistics,
            drawn_shares=tuple((drawn / drawn.sum()).tolist()),
            sensors=self.config.network.sensors,
        )

    @cached_property
    def _table(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return features_and_labels(self.area, np.random.default_rng(self.fold.seed))


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
