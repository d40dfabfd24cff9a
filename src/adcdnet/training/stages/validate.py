"""What a network says of parts of the training area, by the engine that makes maps; scores and temperature by that.

K classes | n targets
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adcdnet.config import AnswerConfig
from adcdnet.geo.grid import tiles
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.engine import default_engine, valid_targets, window_logits
from adcdnet.mapping.posterior import fit_temperature
from adcdnet.metrics import Scores, confusion_matrix, scores
from adcdnet.nn.networks import Network
from adcdnet.training.area import TrainingArea
from adcdnet.training.stages.schedule import Schedule

WINDOW = 64  # MS pixels per side that are classified at once


@dataclass(frozen=True)
class Validation:
    """Scores of the validation part at tau 1, and the temperature that fits it."""

    scores: Scores
    temperature: float


def logits_on(
    network: Network,
    answers: AnswerConfig,
    area: TrainingArea,
    wanted: NDArray[np.bool_],
    *,
    hide_training: bool = False,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    """Main logits (K, n) of the wanted targets, and their rows and columns (n,), window by window.

    Logits are averaged with those of neighbours, as in a map, but only of neighbours that are wanted too.
    """
    step = area.step
    height, width = area.split.part.shape
    for window in tiles(height, width, WINDOW):
        if not wanted[window.scale(step).slices].any():
            continue
        wide = window.grow(answers.margin).within(height, width)
        logits = window_logits(
            network,
            answers,
            area.images(wide, hide_training=hide_training),
            origin=(wide.row - area.network.reach, wide.col - area.network.reach),
            wanted=wanted[wide.scale(step).slices],
            look=area.looks(wide),
            engine=default_engine(network),
        )
        own = window.shift(-wide.row, -wide.col).scale(step)
        yield valid_targets(logits[:, *own.slices], window.scale(step))


def validate(network: Network, answers: AnswerConfig, area: TrainingArea, schedule: Schedule) -> Validation:
    """As in a map of the validation part alone, with the training ground hidden from the network.

    What lies around a pixel ends where the part does, but not where one of several scenes does: one after another they
    lie closer together than a window is wide.
    """
    truth, p = _posterior(network, answers, area, schedule)
    return Validation(scores(confusion_matrix(truth, p.argmax(0), len(p))), fit_temperature(p, truth))


def _posterior(
    network: Network, answers: AnswerConfig, area: TrainingArea, schedule: Schedule
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class indices (n,) of the validation part and probabilities (K, n) at tau 1, without a temperature."""
    label, shares = area.validation_label, (schedule.label_shares, schedule.drawn_shares)
    reading = Answers(label.shape, area.step, *shares, local_priors=answers.local_priors)
    windows = list(logits_on(network, answers, area, area.validation, hide_training=True))
    logits, row, col = (np.concatenate(parts, axis=-1) for parts in zip(*windows, strict=True))
    reading.add(logits, row, col)
    labelled = label[row, col] >= 0
    row, col = row[labelled], col[labelled]
    return label[row, col], reading.probabilities(logits[:, labelled], row, col, tau=1.0)
