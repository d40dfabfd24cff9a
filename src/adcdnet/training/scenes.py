"""What one model is trained on: one or several labelled scenes, and which pixels of each train, validate and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adcdnet.config import SplitConfig, TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.grid import phase_words, same_phase
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.split.blocks import block_side, split_blocks
from adcdnet.split.folds import ClassInOnePlace, block_folds, polygon_folds, random_folds
from adcdnet.split.parts import (
    FEWEST_LABELS,
    PART_NAMES,
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Leakage,
    Split,
    add_guard,
    check_counts,
    leakage,
    near,
)
from adcdnet.split.polygons import split_given, split_polygons, split_random
from adcdnet.training.area import TrainingArea, training_statistics
from adcdnet.training.borders import stack

Part = Literal["train", "validation", "test"]
SCENES_AS_FOLDS = 3


@dataclass(frozen=True)
class LabelledScene:
    """An open scene and its labels, on its grid (`read_labels`). name: its own among several.

    part: the one part of the split that all of it is in; None: the scene is divided.
    split: a raster of parts on the MS grid that says how, as a run's split.tif does; None: as the settings say.
    """

    scene: Scene
    labels: Labels
    name: str = ""
    part: Part | None = None
    split: Path | None = None

    @property
    def notes(self) -> list[str]:
        """What is known of the files, each note with the scene's name where it has one."""
        before = f"{self.name}: " if self.name else ""
        return [before + note for note in (*self.scene.notes, *self.labels.notes)]


def check_alike(scenes: Sequence[LabelledScene], *, fine: bool = False) -> None:
    """InputError where labels are not on their scene's grid, or scenes differ in bands, ratio, phase or classes.

    fine: the grid of a scene is that of its PAN image.
    """
    first = scenes[0]
    for labelled in scenes:
        grid, labels = labelled.scene.fine_grid if fine else labelled.scene.grid, labelled.labels
        if labels.index.shape != grid.shape:
            raise InputError(
                f"labels are of {labels.index.shape[0]}×{labels.index.shape[1]} pixels, the scene's "
                f"{'PAN' if fine else 'MS'} grid of {grid.height}×{grid.width}; read them with "
                f"read_labels(path, scene.{'fine_' if fine else ''}grid)"
            )
        for what, here, needed in (
            ("MS bands", labelled.scene.ms_bands, first.scene.ms_bands),
            ("PAN bands", labelled.scene.pan_bands, first.scene.pan_bands),
            ("PAN pixels per MS pixel", labelled.scene.ratio, first.scene.ratio),
        ):
            if here != needed:
                raise InputError(
                    f"scene {labelled.name!r} has {here} {what}, scene {first.name!r} has {needed}; scenes trained "
                    "together must agree in bands and ratio; leave one out"
                )
        if not same_phase(labelled.scene.phase, first.scene.phase):
            raise InputError(
                f"PAN pixels of scene {labelled.name!r} lie {phase_words(labelled.scene.phase)} off the MS edges, "
                f"those of scene {first.name!r} {phase_words(first.scene.phase)}; scenes trained together must agree; "
                "leave one out"
            )
        mine, theirs = (list(s.scene.ms_descriptions) for s in (labelled, first))
        if mine != theirs and None not in mine and sorted(map(str, mine)) == sorted(map(str, theirs)):
            raise InputError(
                f"scene {labelled.name!r} has its MS bands as {mine}, scene {first.name!r} as {theirs}; one order is "
                "needed; write one of them again in the order of the other"
            )
        if labels.classes != first.labels.classes:
            raise InputError(
                f"the classes of scene {labelled.name!r} are {list(labels.classes.names)}, those of scene "
                f"{first.name!r} {list(first.labels.classes.names)}; name one class table for all scenes"
            )
    names = [labelled.name for labelled in scenes]
    if len(set(names)) < len(names):
        raise InputError(f"the scenes are named {names}; each needs a name of its own")


def on_ms_grid(
    scenes: Sequence[LabelledScene], pixels: Sequence[Pixels], *, step: int
) -> tuple[list[LabelledScene], list[NDArray[np.bool_]]]:
    """The scenes with one label for each MS pixel, and which of these (H, W) can be used at all; `divide` takes both.

    step: labelled pixels per MS pixel and axis. An MS pixel can be used where any of its own can.
    """
    coarse, usable = [], []
    for labelled, read in zip(scenes, pixels, strict=True):
        valid = read.valid_targets(step)
        index = np.where(valid, labelled.labels.index, -1).astype(np.int16)
        coarse.append(replace(labelled, labels=replace(labelled.labels, index=index).coarsen(step)))
        height, width = labelled.scene.grid.shape
        usable.append(np.asarray(valid.reshape(height, step, width, step).any(axis=(1, 3)), bool))
    return coarse, usable


def divide(
    scenes: Sequence[LabelledScene], valid: Sequence[NDArray[np.bool_]], *, reach: int, config: SplitConfig, seed: int
) -> tuple[list[Split], tuple[str, ...]]:
    """One split per scene, and what to say of all. valid: the MS pixels (H, W) of each that can be used at all.

    A class must be learnt somewhere, not in each scene. Raises InputError for a class with too few labelled pixels.
    """
    if len(scenes) == 1 and scenes[0].part is None:
        return [_divided(scenes[0], scenes[0].labels, valid[0], reach, config, seed)], ()
    index = stack(
        [np.where(v, labelled.labels.index, -1) for labelled, v in zip(scenes, valid, strict=True)], gap=0, fill=-1
    )
    classes = scenes[0].labels.classes
    check_counts(index, classes)
    splits = []
    for labelled, usable in zip(scenes, valid, strict=True):
        if labelled.part is not None:
            part = np.where(usable, PART_NAMES.index(labelled.part), UNUSED).astype(np.uint8)
            splits.append(Split(part, max(usable.shape), ()))
            continue
        try:
            split = _divided(labelled, _learnable(labelled.labels, usable), usable, reach, config, seed)
        except InputError as error:
            raise InputError(f"scene {labelled.name!r}: {error}") from error
        splits.append(replace(split, notes=tuple(f"{labelled.name}: {note}" for note in split.notes)))
    parts = stack([split.part for split in splits], gap=0, fill=UNUSED)
    missing = [n for k, n in enumerate(classes.names) if not ((index == k) & (parts == TRAIN)).any()]
    if missing:
        raise InputError(
            f"no training pixel of class '{missing[0]}' in any scene; label it in a scene that trains, or give another "
            "scene to testing"
        )
    notes = [f"there is no {name} part" for number, name in enumerate(PART_NAMES) if _is_lacking(number, parts, index)]
    return splits, (*notes, *_same_ground(scenes))


def folds_of(
    scenes: Sequence[LabelledScene], valid: Sequence[NDArray[np.bool_]], *, reach: int, config: SplitConfig, seed: int
) -> tuple[list[list[Split]], tuple[str, ...]]:
    """For each fold one split per scene, and what to say of all; a single one where the scenes say what tests.

    Of `SCENES_AS_FOLDS` scenes or more, each is wholly in one fold, unless a class lies in one fold only; of fewer,
    each is divided. Folds are fewer than asked for where classes or ground do not allow so many. Raises InputError
    where not even a single split can be made.
    """
    if config.folds > 1 and any(labelled.part or labelled.split for labelled in scenes):
        splits, notes = divide(scenes, valid, reach=reach, config=config, seed=seed)
        return [splits], (*notes, "the scenes say what tests: one training in place of folds")
    why = ""
    for whole in (True, False) if len(scenes) >= SCENES_AS_FOLDS else (False,):
        for folds in range(config.folds, 1, -1):
            try:
                if whole:
                    made = whole_scenes(scenes, valid, reach=reach, folds=folds, seed=seed)
                else:
                    made = _divided_scenes(scenes, valid, reach=reach, config=config, folds=folds, seed=seed)
            except InputError as error:
                why = str(error)
                continue
            few = folds < config.folds or (not whole and len(scenes) >= SCENES_AS_FOLDS)
            judged = _judged_nowhere(scenes, valid, made)
            said = f"{folds} folds{'' if whole or len(scenes) == 1 else ', each of all scenes'}: {why}"
            return made, (*([said] if few else []), *judged, *_same_ground(scenes))
    splits, notes = divide(scenes, valid, reach=reach, config=config, seed=seed)
    return [splits], (*notes, *([f"one training in place of folds: {why}"] if why else []))


def _judged_nowhere(
    scenes: Sequence[LabelledScene], valid: Sequence[NDArray[np.bool_]], folds: Sequence[Sequence[Split]]
) -> list[str]:
    """A note on classes that no fold tests."""
    tested = [np.any([of_fold[k].part == TEST for of_fold in folds], axis=0) for k in range(len(scenes))]
    names = scenes[0].labels.classes.names
    judged = {
        names[k]
        for labelled, usable, where in zip(scenes, valid, tested, strict=True)
        for k in np.unique(labelled.labels.index[usable & where & (labelled.labels.index >= 0)])
    }
    alone = [name for name in names if name not in judged]
    if not alone:
        return []
    return [f"in one place only, so trained in every fold and judged in none: {', '.join(alone)}; label more places"]


def _divided_scenes(
    scenes: Sequence[LabelledScene],
    valid: Sequence[NDArray[np.bool_]],
    *,
    reach: int,
    config: SplitConfig,
    folds: int,
    seed: int,
) -> list[list[Split]]:
    """Each scene in folds of its own. InputError where so many cannot be made."""
    of_scene = []
    for labelled, usable in zip(scenes, valid, strict=True):
        labels = labelled.labels if len(scenes) == 1 else _learnable(labelled.labels, usable)
        if config.unit == "random":
            of_scene.append(random_folds(labels, usable, folds=folds, seed=seed))
        elif config.unit == "polygons":
            of_scene.append(polygon_folds(labels, usable, reach=reach, folds=folds, seed=seed))
        else:
            of_scene.append(_blocks_in_folds(labels, usable, reach=reach, folds=folds, config=config, seed=seed))
    return [list(of_fold) for of_fold in zip(*of_scene, strict=True)]


def _blocks_in_folds(
    labels: Labels, valid: NDArray[np.bool_], *, reach: int, folds: int, config: SplitConfig, seed: int
) -> list[Split]:
    """By blocks of the usual size or, where these leave a class in one place only, by smaller ones. What lies in one
    place even so trains in every fold and is judged in none, with all ground within twice the guard band of it."""
    usual = config.block or block_side(*valid.shape, reach=reach)
    smallest = min(usual, 2 * reach)
    sides = [usual] if config.block else [usual, max(smallest, usual * 2 // 3), max(smallest, usual // 2)]
    dealt, names = labels, labels.classes.names
    zone, alone = np.zeros_like(valid), list[str]()
    while True:
        for side in dict.fromkeys(sides):
            own = config.model_copy(update={"validation": 0.0, "block": side})
            try:
                splits = block_folds(dealt, valid, reach=reach, folds=folds, config=own, seed=seed)
            except ClassInOnePlace as error:
                scarce = error
                continue
            return [_always_trained(split, zone, valid, alone, reach) for split in splits]
        alone.append(scarce.name)
        if len(alone) > len(names) - 2:
            raise scarce
        zone = near(np.isin(labels.index, [names.index(name) for name in alone]), 2 * reach)
        dealt = _learnable(replace(labels, index=np.where(zone, np.int16(-1), labels.index)), valid)


def _always_trained(
    split: Split, zone: NDArray[np.bool_], valid: NDArray[np.bool_], alone: Sequence[str], reach: int
) -> Split:
    """The split with ground that is never tested; nothing changes where there is none."""
    if not alone:
        return split
    tested = np.where((split.part == TEST) & ~zone, TEST, TRAIN).astype(np.uint8)
    return replace(split, part=add_guard(tested, valid, reach))


def whole_scenes(
    scenes: Sequence[LabelledScene], valid: Sequence[NDArray[np.bool_]], *, reach: int, folds: int, seed: int
) -> list[list[Split]]:
    """Scenes dealt to folds, from that with most labels to that with fewest, each to the fold that has fewest.
    InputError where so many folds cannot be made."""
    if folds > len(scenes):
        raise InputError(f"there are {len(scenes)} scenes, each wholly in one fold")
    classes = scenes[0].labels.classes
    counts = np.stack(
        [
            np.bincount(s.labels.index[usable & (s.labels.index >= 0)], minlength=len(classes))
            for s, usable in zip(scenes, valid, strict=True)
        ]
    )
    order = np.random.default_rng(seed).permutation(len(scenes))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    held, fold = np.zeros((folds, len(classes)), np.int64), np.empty(len(scenes), np.int64)
    for scene in order:
        fold[scene] = held.sum(1).argmin()
        held[fold[scene]] += counts[scene]
    for k, name in enumerate(classes.names):
        if (held.sum(0)[k] - held[:, k] == 0).any():
            raise InputError(f"class '{name}' lies in one of {folds} folds of scenes only")
    return [
        [
            Split(
                np.where(usable, TEST if fold[scene] == number else TRAIN, UNUSED).astype(np.uint8),
                block_side(*usable.shape, reach=reach),
                (),
            )
            for scene, usable in enumerate(valid)
        ]
        for number in range(folds)
    ]


def _divided(
    labelled: LabelledScene, labels: Labels, valid: NDArray[np.bool_], reach: int, config: SplitConfig, seed: int
) -> Split:
    if labelled.split is not None:
        return split_given(labelled.split, labelled.scene.grid, labels, valid, reach=reach)
    make = {"blocks": split_blocks, "polygons": split_polygons, "random": split_random}[config.unit]
    return make(labels, valid, reach=reach, config=config, seed=seed)


def _is_lacking(number: int, parts: NDArray[np.uint8], index: NDArray[np.int16]) -> bool:
    return number in (VALIDATION, TEST) and not ((parts == number) & (index >= 0)).any()


def _learnable(labels: Labels, valid: NDArray[np.bool_]) -> Labels:
    """The classes that a scene has labels enough of to be divided by."""
    counts = np.bincount(labels.index[valid & (labels.index >= 0)], minlength=len(labels.classes))
    kept = np.flatnonzero(counts >= FEWEST_LABELS)
    number = np.full(len(counts) + 1, -1, np.int16)
    number[kept] = np.arange(len(kept))
    table = labels.classes
    table = replace(
        table,
        values=tuple(table.values[k] for k in kept),
        names=tuple(table.names[k] for k in kept),
        colors=tuple(table.colors[k] for k in kept),
    )
    if not len(kept):
        raise InputError(f"no class has {FEWEST_LABELS} labelled pixels; give all of it one part, or leave it out")
    return replace(labels, index=number[labels.index], classes=table)


def _same_ground(scenes: Sequence[LabelledScene]) -> tuple[str, ...]:
    """A note for every two scenes that overlap: places that one of them hides, the other may show."""
    notes = []
    for a, b in combinations(scenes, 2):
        boxes = []
        for grid in (a.scene.grid, b.scene.grid):
            t = grid.transform
            boxes.append((t.c, t.c + grid.width * t.a, t.f + grid.height * t.e, t.f))
        (left, right, bottom, top), (left_b, right_b, bottom_b, top_b) = boxes
        apart = right <= left_b or right_b <= left or top <= bottom_b or top_b <= bottom
        if a.scene.placed and a.scene.grid.crs == b.scene.grid.crs and not apart:
            notes.append(
                f"scenes {a.name!r} and {b.name!r} overlap: ground that tests in one may train in the other; give both "
                "the same part, or a split of your own"
            )
    return tuple(notes)


def total_leakage(labels: Sequence[Labels], splits: Sequence[Split], *, reach: int) -> Leakage:
    """`leakage` of the test parts, over all scenes together."""
    part = stack([split.part for split in splits], gap=2 * reach, fill=UNUSED)
    index = stack([of_scene.index for of_scene in labels], gap=2 * reach, fill=-1)
    return leakage(part, (part == TEST) & (index >= 0), reach=reach)


def training_area(
    pixels: Sequence[Pixels],
    labels: Sequence[Labels],
    splits: Sequence[Split],
    *,
    config: TrainConfig,
    ratio: int,
    phase: tuple[float, float] = (0.0, 0.0),
    statistics: BandStatistics | None = None,
) -> TrainingArea:
    """What training may look at, over all scenes that train or validate; band statistics over all that train."""
    statistics = statistics or training_statistics(list(zip(pixels, splits, strict=True)))
    areas = [
        TrainingArea.of(*scene, config=config, ratio=ratio, phase=phase, statistics=statistics)
        for scene in zip(pixels, labels, splits, strict=True)
        if np.isin(scene[2].part, (TRAIN, VALIDATION)).any()
    ]
    return TrainingArea.joined(areas)
