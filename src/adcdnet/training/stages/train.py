"""All stages of one network, one after another.

Randomness: one seed gives the draws of each stage. The moving average of the weights at the end is the model. The
validation part, where there is one, shows on the way what it is worth and gives the temperature; it chooses nothing,
for it is too small for that: where few labels validate, the look that did best there was a tenth of kappa worse than
the end (docs/notes/trials.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adcdnet.config import TrainConfig
from adcdnet.geo.classes import ClassTable
from adcdnet.mapping.model import Model
from adcdnet.mapping.record import RunRecord
from adcdnet.nn.networks import Network
from adcdnet.training.area import TrainingArea
from adcdnet.training.stages.context import train_context
from adcdnet.training.stages.loop import History, repeatable
from adcdnet.training.stages.radius import effective_radius
from adcdnet.training.stages.schedule import Schedule, schedule_of
from adcdnet.training.stages.stage1 import train_prior
from adcdnet.training.stages.stage2 import Stage2, Supervision, train_stage2


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the training of a network went, in figures. dense: by tiles. effective_rank: of stage I, None without it."""

    dense: bool
    labels_per_tile: float | None
    steps: int
    effective_rank: float | None
    effective_radius: int | None
    self_trained: int | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What all stages left. network: on the CPU, in eval mode. seconds: by stage."""

    network: Network
    schedule: Schedule
    course: Course
    stage2: Stage2
    seconds: Mapping[str, float]

    @property
    def temperature(self) -> float:
        """1 where nothing validates."""
        return 1.0 if self.stage2.validation is None else self.stage2.validation.temperature

    def model(
        self, area: TrainingArea, classes: ClassTable, config: TrainConfig, record: RunRecord | None = None
    ) -> Model:
        """The network with all that a map needs."""
        return Model.of_network(
            self.network,
            area.statistics,
            classes,
            self.schedule.label_shares,
            self.schedule.drawn_shares,
            record=record or RunRecord(),
            temperature=self.temperature,
            answers=config.answers,
            phase=area.phase,
        )


def train_network(network: Network, area: TrainingArea, config: TrainConfig, history: History) -> Trained:
    """All stages over one training area, from a network at its start, which changes."""
    schedule, seconds, rank = schedule_of(area, config), {}, None
    rng1, rng2, rng_context, rng_radius = (
        np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(4)
    )
    with repeatable(next(network.parameters()).device):
        started = time.perf_counter()
        if network.prior is not None:
            rank = train_prior(network.prior, area, config, schedule, rng1, history)
            seconds["stage1"] = time.perf_counter() - started
        started = time.perf_counter()
        if network.context_branch is not None:
            train_context(network, network.context_branch, area, config, schedule, rng_context, history)
            seconds["context"] = time.perf_counter() - started
        started = time.perf_counter()
        supervision = Supervision(area=area, config=config, schedule=schedule, rng=rng2, history=history)
        stage2 = train_stage2(network, supervision)
        seconds["stage2"] = time.perf_counter() - started
    average = stage2.network.cpu().eval()
    return Trained(
        network=average,
        schedule=schedule,
        course=Course(
            dense=schedule.dense,
            labels_per_tile=schedule.labels_per_tile,
            steps=schedule.stage2.steps,
            effective_rank=rank,
            effective_radius=effective_radius(average, area, rng_radius),
            self_trained=stage2.self_trained,
        ),
        stage2=stage2,
        seconds=seconds,
    )
