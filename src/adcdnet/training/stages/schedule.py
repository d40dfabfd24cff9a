"""What a training will do: tiles or patches, how many steps, how classes weigh. Decided before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from adcdnet.config import StageConfig, TrainConfig
from adcdnet.training.area import TrainingArea

DENSE_FROM = 15.0  # labelled targets a tile must hold to be cheaper than patches (scripts/bench_training.py)
TARGETS_TO_LEARN = 512  # a step: labels are few where they are not worth so many in all steps, under 5,120
STEPS_OF_PATCHES = 2  # of stage II, in whose place one of tiles is


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """dense: whether training draws tiles, not patches. labels_per_tile: labelled targets in one, on average.

    stage2: its settings, with no more steps than the labels are worth. second_round: whether stage II runs again, on
    ground without labels too. label_shares π: class shares of the labels. drawn_shares ρ: those in which training meets
    them. class_weight: of the loss of tiles, (K,).
    """

    dense: bool
    labels_per_tile: float
    stage2: StageConfig
    second_round: bool
    label_shares: tuple[float, ...]
    drawn_shares: tuple[float, ...]
    class_weight: tuple[float, ...]


def schedule_of(area: TrainingArea, config: TrainConfig) -> Schedule:
    """Tiles where labels lie close and are not few; a second round where labels are few and even over the classes."""
    stage, labels = config.stage2, area.labels_per_tile(config.stage2.tile)
    by_patches, by_tiles = (within_passes(config, stage, len(area.labelled), each) for each in (None, labels))
    enough = by_tiles.steps * STEPS_OF_PATCHES >= stage.steps  # labels for all steps of tiles
    dense = config.network.form == "tile" or (
        config.network.sharable
        and (config.sampling == "dense" or (config.sampling == "auto" and labels >= DENSE_FROM and enough))
    )
    even = 2 * area.class_counts.min() >= area.class_counts.mean()
    few = not dense and by_patches.steps < stage.steps
    return Schedule(
        dense=dense,
        labels_per_tile=labels,
        stage2=by_tiles if dense else by_patches,
        second_round=bool(config.self_training > 0 and few and even),
        label_shares=_shares(area.class_counts),
        drawn_shares=_shares(area.drawn_counts(config.class_balance)),
        class_weight=tuple(area.tile_weights(config.class_balance, stage.tile, anchors=config.anchors).tolist()),
    )


def suited_to(labelled: int, ratio: int, config: TrainConfig) -> TrainConfig:
    """The settings themselves, or others that suit the data better (docs/evidence.md): over patches where PAN is little
    finer than MS, and without prior, DIA and DTM too where labels are few and all these parts are there.

    labelled: MS pixels of the training part.
    """
    if config.network.form == "tile" and ratio < config.tiles_from:
        config = config.over_patches()
    few = 0 < config.passes * labelled * STEPS_OF_PATCHES < config.stage2.steps * TARGETS_TO_LEARN
    return config.for_few_labels() if few and config.plain_if_few and config.whole else config


def within_passes(config: TrainConfig, stage: StageConfig, labelled: int, labels_per_tile: float | None) -> StageConfig:
    """With no more steps than `passes` over the labelled pixels take; labels_per_tile: None patch by patch."""
    each, most = float(stage.batch), stage.steps
    if labels_per_tile is not None:
        each, most = min(stage.targets, stage.tiles * labels_per_tile), math.ceil(stage.steps / STEPS_OF_PATCHES)
    enough = math.ceil(config.passes * labelled / each) if config.passes else most
    return stage.model_copy(update={"steps": min(most, enough)})


def _shares(counts: NDArray[Any]) -> tuple[float, ...]:
    shares: list[float] = (counts / counts.sum()).tolist()
    return tuple(shares)
