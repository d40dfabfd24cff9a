"""The cells of a benchmark: each trains one method on one fold and counts what it gets right on the rest.

A cell is a method, a scene or several that are trained together, a repeat (another partition into folds), a fold, a
seed, and how many labels a class it may use. Every cell is computed in a process of its own and kept as a file, so that
a table can grow over days. A cell holds the confusion matrices of its test pixels by place, at each operating point;
all figures are made of these sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.benchmark.methods_by_name import (
    ALIKE,
    GROUND_RULES,
    RAW,
    SEEN,
    method_name,
    rules_of,
    settings_of,
    short_hash,
)
from adcdnet.benchmark.trained import Place, Trained, area_of, that_test, train_and_answer
from adcdnet.config import SplitConfig, TrainConfig
from adcdnet.files import sha256
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping import memory
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.smoothing import looks, smooth
from adcdnet.metrics import expected_calibration_error
from adcdnet.metrics.intervals import confusion_by_block
from adcdnet.split.blocks import block_numbers
from adcdnet.split.folds import block_folds, random_folds
from adcdnet.split.parts import TEST, TRAIN, VALIDATION, Split
from adcdnet.training.area import TrainingArea
from adcdnet.training.scenes import LabelledScene, check_alike, divide, total_leakage, whole_scenes
from adcdnet.training.stages.schedule import suited_to

TAUS = (0.0, 0.5, 1.0)
Protocol = Literal["blocks", "strips", "random", "scenes", "given"]  # what is tested: see `_splits`


@dataclass(frozen=True)
class Cell:
    """One training and its test.

    scenes: one, or all that are trained together. method: a name of METHODS, as it is or with ALIKE behind it; of
    ABLATIONS, ABLATIONS_OF_PAPER, COMMITTEES or OTHER_PROFILES, or a TOML of settings, of which `gru+a.toml` trains a
    network with the parts of `gru`, as it is or with RAW or SEEN behind it.
    device: of an ADCD-Net; the other methods run on the processor.
    """

    scenes: tuple[SceneFiles, ...]
    method: str
    repeat: int
    fold: int
    seed: int
    folds: int
    protocol: Protocol = "blocks"
    labels_per_class: int | None = None  # None: all
    device: str = "cpu"

    @property
    def file(self) -> Path:
        """Where it is kept, below the folder of the benchmark."""
        labels = "all" if self.labels_per_class is None else str(self.labels_per_class)
        name = f"repeat{self.repeat}-fold{self.fold}of{self.folds}-seed{self.seed}.json"
        return Path("cells", name_of(self.scenes), self.protocol, f"labels-{labels}", method_name(self.method), name)

    def fingerprint(self) -> str:
        """Changes when a file of the scenes, the settings of the method, or how the methods are compared change."""
        content = [_digests(self.scenes), rules_of(self.method, self.seed), version("adcdnet")]
        content += [] if self.device == "cpu" else [self.device]
        return short_hash(content)


def name_of(scenes: Sequence[SceneFiles]) -> str:
    """Of a scene, or of several that are trained together."""
    return scenes[0].name if len(scenes) == 1 else f"{scenes[0].name}-to-{scenes[-1].name}"


def scenes_hash(scenes: Sequence[SceneFiles]) -> str:
    """Of the content of all files."""
    return short_hash(_digests(scenes))


def _digests(scenes: Sequence[SceneFiles]) -> list[str]:
    found = []
    for scene in scenes:
        found += [sha256(path) for path in scene.files()]
        if scene.mask_values or scene.mask_bits:
            found.append(f"mask values {scene.mask_values}, bits {scene.mask_bits}")
        if scene.part is not None or scene.split is not None:
            found.append(f"part {scene.part}, split {scene.split and sha256(scene.split)}")
    return found


def compute(cell: Cell) -> dict[str, Any]:
    """Train, classify the test pixels, count. The figures of a cell, as they are kept."""
    return compute_together([cell])[0]


def compute_together(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """As `compute`, of cells with one training, whose answers are read in several ways."""
    first = cells[0]
    settings = settings_of(first.method, first.seed)
    config = settings or GROUND_RULES
    with ExitStack() as stack:
        places = _places(first, config, stack)
        if settings is not None:
            labelled = sum(int(((p.labels.index >= 0) & (p.split.part == TRAIN)).sum()) for p in places)
            config = suited_to(labelled, places[0].labelled.scene.ratio, config)
        area = area_of(places, config)
        seen = any(cell.method.endswith(SEEN) for cell in cells)
        answers = train_and_answer(first.method, places, area, config, seed=first.seed, device=first.device, seen=seen)
    own_labels = [replace(p.labels, index=np.where(p.pixels.valid, p.labels.index, -1)) for p in places]
    common = {
        "scene": name_of(first.scenes),
        "classes": list(places[0].labels.classes.names),
        "training_pixels": area.class_counts.tolist(),
        "leakage": total_leakage(own_labels, [p.split for p in places], reach=config.guard).to_dict(),
        "training_seconds": answers.training_seconds,
        "pixels_per_second": answers.pixels_per_second,
        "parameters": answers.parameters,
        "peak_memory_bytes": memory.peak(),
        "threads": torch.get_num_threads(),
        "versions": {"adcdnet": version("adcdnet"), "torch": torch.__version__},
    }
    results = []
    for cell in cells:
        logits = answers.seen if cell.method.endswith(SEEN) else answers.logits
        assert logits is not None
        raw = cell.method.endswith(RAW) or (settings is None and not cell.method.endswith(ALIKE))
        weight = 0.0
        if not raw:
            chosen = answers.local_priors
            weight = config.answers.local_priors if chosen is None else chosen
            sensors = "both" if settings is None else config.network.sensors
            logits = [
                smooth(
                    z,
                    looks(*area.statistics.standardise(*place.pixels), 1, sensors=sensors),
                    config.answers.smooth,
                    config.answers.likeness,
                )
                for z, place in zip(logits, that_test(places), strict=True)
            ]
        what = {k: v for k, v in asdict(replace(cell, scenes=())).items() if k != "scenes"}
        counted = _count(replace(answers, logits=logits), area, that_test(places), weight)
        results.append({"fingerprint": cell.fingerprint(), **what, **common, **counted})
    return results


def _places(cell: Cell, config: TrainConfig, stack: ExitStack) -> list[Place]:
    """The scenes of a cell, divided, with no more labels that train than the cell may use; the stack closes them."""
    scenes = []
    for files in cell.scenes:
        scene = stack.enter_context(files.open())
        labels = files.read_labels(scene.grid)
        scenes.append(LabelledScene(scene, labels, files.name, files.part, files.split))
    check_alike(scenes)
    pixels = [labelled.scene.read(labelled.scene.grid.window) for labelled in scenes]
    splits = _splits(cell, scenes, [read.valid for read in pixels], config)
    index = [
        np.where(read.valid, labelled.labels.index, -1).astype(np.int16)
        for read, labelled in zip(pixels, scenes, strict=True)
    ]
    kept = _kept_labels(index, splits, cell)
    return [
        Place(labelled, read, replace(labelled.labels, index=own), split)
        for labelled, read, own, split in zip(scenes, pixels, kept, splits, strict=True)
    ]


def _count(trained: Trained, area: TrainingArea, places: Sequence[Place], weight: float) -> dict[str, Any]:
    """Confusion matrices by place and calibration errors, by tau. places: that test.

    weight: of the shares of the classes around a pixel, which are those of the test ground alone: answers to training
    ground know its labels.
    """
    shares = (area.class_counts / area.class_counts.sum()).tolist()
    by_place: dict[float, list[NDArray[np.int64]]] = {tau: [] for tau in TAUS}
    sure: dict[float, list[NDArray[np.float32]]] = {tau: [] for tau in TAUS}
    truths = []
    for logits, place in zip(trained.logits, places, strict=True):
        truth = np.where(place.tested, place.labels.index, -1).astype(np.int64)
        row, col = np.nonzero(place.tested)
        answers = Answers(
            truth.shape, 1, shares, trained.drawn_shares, local_priors=weight, temperature=trained.temperature
        )
        answers.add(logits[:, row, col], row, col)
        row, col = np.nonzero(truth >= 0)
        truths.append(truth[row, col])
        height, width = truth.shape
        block = block_numbers(height, width, 2 * TrainConfig().guard)
        for tau in TAUS:
            p = answers.probabilities(logits[:, row, col], row, col, tau=tau)
            answer = np.full(truth.shape, -1)
            answer[row, col] = p.argmax(0)
            found = confusion_by_block(truth, answer, len(shares), block)  # places after the last tested are left out
            whole = np.zeros((int(block.max()) + 1, *found.shape[1:]), np.int64)
            whole[: len(found)] = found
            by_place[tau].append(whole)
            sure[tau].append(p.T)
    calibration = {
        str(tau): expected_calibration_error(np.concatenate(sure[tau]), np.concatenate(truths)) for tau in TAUS
    }
    confusions = {str(tau): np.concatenate(by_place[tau]).tolist() for tau in TAUS}
    return {"confusions": confusions, "calibration_error": calibration}


def _splits(
    cell: Cell, scenes: Sequence[LabelledScene], valid: Sequence[NDArray[np.bool_]], config: TrainConfig
) -> list[Split]:
    """Of each scene, for this fold. blocks, strips, random: of one scene. scenes: whole ones test in turn, and the
    first of the next fold validates where every class can still be learnt. given: as the scenes themselves say.

    Few labels validate nothing: choosing among models with other labels would be using more of them.
    """
    if cell.protocol not in get_args(Protocol):
        raise ValueError(f"protocol is {cell.protocol!r}, must be one of {', '.join(get_args(Protocol))}")
    # the same pixels for every method, whatever its settings say of splits
    how = SplitConfig() if cell.labels_per_class is None else SplitConfig(validation=0.0)
    reach = max(config.guard, TrainConfig().guard)
    if cell.protocol == "given":
        return divide(scenes, valid, reach=reach, config=how, seed=cell.repeat)[0]
    if cell.protocol == "scenes":
        folds = whole_scenes(scenes, valid, reach=reach, folds=cell.folds, seed=cell.repeat)
        following = folds[(cell.fold + 1) % cell.folds]
        return _validated(folds[cell.fold], following, scenes) if how.validation else folds[cell.fold]
    labels, usable = scenes[0].labels, valid[0]
    if cell.protocol == "random":
        return [random_folds(labels, usable, folds=cell.folds, seed=cell.repeat)[cell.fold]]
    strips: Literal["rows", "columns"] | None = None
    if cell.protocol == "strips":
        strips = "columns" if cell.repeat % 2 else "rows"
    made = block_folds(labels, usable, reach=reach, folds=cell.folds, config=how, seed=cell.repeat, strips=strips)
    return [made[cell.fold]]


def _validated(splits: Sequence[Split], following: Sequence[Split], scenes: Sequence[LabelledScene]) -> list[Split]:
    """The splits of whole scenes with one that validates in place of training, unless a class trains there alone."""
    chosen = next(k for k, split in enumerate(following) if (split.part == TEST).any())
    found = list(splits)
    part = splits[chosen].part
    found[chosen] = replace(splits[chosen], part=np.where(part == TRAIN, VALIDATION, part).astype(np.uint8))

    def learnt(some: Sequence[Split]) -> set[int]:
        each = (labelled.labels.index[split.part == TRAIN] for labelled, split in zip(scenes, some, strict=True))
        return {int(k) for of_scene in each for k in np.unique(of_scene[of_scene >= 0])}

    return found if learnt(found) == learnt(splits) else list(splits)


def _kept_labels(
    index: Sequence[NDArray[np.int16]], splits: Sequence[Split], cell: Cell
) -> Sequence[NDArray[np.int16]]:
    """Class indices of each scene with at most `labels_per_class` training pixels of each class, drawn by the seed."""
    if cell.labels_per_class is None:
        return index
    rng = np.random.default_rng((cell.repeat, cell.fold, cell.seed))
    trains = [split.part == TRAIN for split in splits]
    kept = [np.where(t, -1, i).astype(np.int16) for t, i in zip(trains, index, strict=True)]
    for k in np.unique(np.concatenate([i[i >= 0] for i in index])):
        own = [np.argwhere(t & (i == k)) for t, i in zip(trains, index, strict=True)]
        scene = np.repeat(np.arange(len(own)), [len(places) for places in own])
        places = np.concatenate(own)
        for chosen in rng.permutation(len(places))[: cell.labels_per_class]:
            kept[scene[chosen]][tuple(places[chosen])] = k
    return kept
