"""The cells of a benchmark: each trains one method on one fold of a scene and counts what it gets right on the rest.

A cell is a method, a scene, a repeat (another partition into folds), a fold, a seed, and how many
labels a class it may use. Every cell is computed in a process of its own and kept as a file, so that a table can grow
over days. A cell holds the confusion matrices of its test pixels by place, at each operating point; all figures are
made of these sums.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.benchmark.methods import METHODS, BandRoles
from adcdnet.benchmark.methods_by_name import (
    ALIKE,
    COMMITTEES,
    GROUND_RULES,
    RAW,
    SEEN,
    method_name,
    parts_of,
    rules_of,
    settings_of,
    short_hash,
    trained_as,
)
from adcdnet.config import AnswerConfig, SplitConfig, TrainConfig
from adcdnet.files import sha256
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping import memory
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.engine import default_engine, together, window_logits
from adcdnet.mapping.model import Model
from adcdnet.mapping.progress import silent
from adcdnet.mapping.smoothing import looks, smooth
from adcdnet.metrics import expected_calibration_error
from adcdnet.metrics.intervals import confusion_by_block
from adcdnet.nn.architecture import Layout
from adcdnet.nn.parts import Parts
from adcdnet.split.blocks import block_numbers
from adcdnet.split.folds import block_folds, random_folds
from adcdnet.split.parts import TEST, TRAIN, VALIDATION, Split, leakage
from adcdnet.training.area import TrainingArea
from adcdnet.training.borders import bordered, with_border, without
from adcdnet.training.committee.cross_fit import cross_fit
from adcdnet.training.committee.folds import Ground
from adcdnet.training.scenes import LabelledScene, folds_of
from adcdnet.training.stages.loop import History, build_network
from adcdnet.training.stages.schedule import suited_to
from adcdnet.training.stages.train import train_network

TAUS = (0.0, 0.5, 1.0)
Protocol = Literal["blocks", "strips", "random"]  # what is tested: see `folds`


@dataclass(frozen=True)
class Cell:
    """One training and its test.

    method: a name of METHODS, as it is or with ALIKE behind it; of ABLATIONS, ABLATIONS_OF_PAPER or OTHER_PROFILES, or
    a TOML of settings, of which `gru+a.toml` trains a network with the parts of `gru`, as it is or with RAW or SEEN
    behind it.
    device: of an ADCD-Net; the other methods run on the processor.
    """

    scene: SceneFiles
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
        return Path("cells", self.scene.name, self.protocol, f"labels-{labels}", method_name(self.method), name)

    def fingerprint(self) -> str:
        """Changes when a file of the scene, the settings of the method, or how the methods are compared change."""
        content = [_digests(self.scene), rules_of(self.method, self.seed), version("adcdnet")]
        content += [] if self.device == "cpu" else [self.device]
        return short_hash(content)


def scene_hash(scene: SceneFiles) -> str:
    """Of the content of all its files."""
    return short_hash(_digests(scene))


def _digests(scene: SceneFiles) -> list[str]:
    rule = [f"mask values {scene.mask_values}, bits {scene.mask_bits}"] if scene.mask_values or scene.mask_bits else []
    return [sha256(path) for path in scene.files()] + rule


def compute(cell: Cell) -> dict[str, Any]:
    """Train, classify the test pixels, count. The figures of a cell, as they are kept."""
    return compute_together([cell])[0]


def compute_together(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """As `compute`, of cells with one training, whose answers are read in several ways."""
    first = cells[0]
    settings = settings_of(first.method, first.seed)
    config = settings or GROUND_RULES
    with first.scene.open() as scene:
        labels = first.scene.read_labels(scene.grid)
        pixels = scene.read(scene.grid.window)
        split = _split(first, labels, pixels.valid, config)
        index = np.where(pixels.valid, labels.index, -1).astype(np.int64)
        shown = replace(labels, index=_kept_labels(index, split, first).astype(np.int16))
        if settings is not None:
            labelled = int(np.count_nonzero((shown.index >= 0) & (split.part == TRAIN)))
            config = suited_to(labelled, scene.ratio, config)
        area = TrainingArea.of(pixels, shown, split, config=config, ratio=scene.ratio, phase=scene.phase)
        ground = (split.part == TEST) & pixels.valid
        if trained_as(first.method) in COMMITTEES:
            answers = _of_committee(first, pixels, shown, split, ground, scene, config)
        elif settings is None:
            answers = _of_baseline(first, area, pixels, scene, ground)
        else:
            answers = _of_network(cells, area, pixels, ground, scene, labels, config)
    truth = np.where(ground, index, -1)
    common = {
        "scene": first.scene.name,
        "classes": list(labels.classes.names),
        "training_pixels": area.class_counts.tolist(),
        "leakage": leakage(split.part, truth >= 0, reach=config.guard).to_dict(),
        "training_seconds": answers.training_seconds,
        "pixels_per_second": answers.pixels_per_second,
        "parameters": answers.parameters,
        "peak_memory_bytes": memory.peak(),
        "threads": torch.get_num_threads(),
        "versions": {"adcdnet": version("adcdnet"), "torch": torch.__version__},
    }
    results = []
    for cell in cells:
        own = answers.seen if cell.method.endswith(SEEN) else answers.logits
        assert own is not None
        raw = cell.method.endswith(RAW) or (settings is None and not cell.method.endswith(ALIKE))
        if not raw:
            sensors = "both" if settings is None else config.network.sensors
            look = looks(*area.statistics.standardise(*pixels), 1, sensors=sensors)
            own = smooth(own, look, config.answers.smooth, config.answers.likeness)
        weight = (
            0.0 if raw else answers.local_priors if answers.local_priors is not None else config.answers.local_priors
        )
        what = {k: v for k, v in asdict(cell).items() if k != "scene"}
        counted = _count(replace(answers, logits=own), area, truth, ground, weight)
        results.append({"fingerprint": cell.fingerprint(), **what, **common, **counted})
    return results


@dataclass(frozen=True)
class _Trained:
    """What a trained method says. logits (K, H, W): of the test ground at least, training ground hidden from it while
    it answers. seen: the same of a network that sees it, where that is asked for.
    """

    logits: NDArray[np.float32]
    seen: NDArray[np.float32] | None
    drawn_shares: tuple[float, ...]
    temperature: float
    parameters: int
    training_seconds: float
    pixels_per_second: float
    local_priors: float | None = None  # that it chose itself


def _of_baseline(cell: Cell, area: TrainingArea, pixels: Pixels, scene: Scene, ground: NDArray[np.bool_]) -> _Trained:
    started = time.perf_counter()
    bands = BandRoles.of_descriptions(scene.ms_descriptions)
    classifier = METHODS[trained_as(cell.method)](area, pixels, bands, seed=cell.seed)
    trained = time.perf_counter()
    logits = classifier.logits(pixels, ground)
    speed = int(ground.sum()) / (time.perf_counter() - trained)
    return _Trained(logits, None, classifier.drawn_shares, 1.0, classifier.parameters, trained - started, speed)


def _of_network(
    cells: Sequence[Cell],
    area: TrainingArea,
    pixels: Pixels,
    ground: NDArray[np.bool_],
    scene: Scene,
    labels: Labels,
    config: TrainConfig,
) -> _Trained:
    started, device = time.perf_counter(), torch.device(cells[0].device)
    model = _train(area, scene, labels, config, parts_of(cells[0].method), device)
    trained = time.perf_counter()
    logits = logits_of_test(model, pixels, ground, hidden=area.split.part == TRAIN, device=device)
    speed = int(ground.sum()) / (time.perf_counter() - trained)  # these alone are answered, as by baselines
    seen = None
    if any(cell.method.endswith(SEEN) for cell in cells):
        seen = logits_of_test(model, pixels, ground, hidden=np.zeros_like(ground), device=device)
    parameters = sum(p.numel() for p in model.network.parameters())
    return _Trained(
        logits, seen, model.first_network.drawn_shares, model.temperature, parameters, trained - started, speed
    )


def _of_committee(
    cell: Cell,
    pixels: Pixels,
    labels: Labels,
    split: Split,
    ground: NDArray[np.bool_],
    scene: Scene,
    config: TrainConfig,
) -> _Trained:
    """Cross-fitted on the train and validation ground of the cell; the test ground and its guard band are no ground at
    all meanwhile."""
    started, device = time.perf_counter(), torch.device(cell.device)
    known = np.isin(split.part, (TRAIN, VALIDATION))
    seen = without(pixels, ~known)
    labelled = LabelledScene(scene, replace(labels, index=np.where(known, labels.index, -1).astype(np.int16)))
    splits, _ = folds_of([labelled], [seen.valid], reach=config.guard, config=config.split, seed=cell.seed)
    layout = Layout(ms_bands=scene.ms_bands, pan_bands=scene.pan_bands, ratio=scene.ratio, classes=len(labels.classes))
    ground_of_cell = Ground([seen], [labelled.labels], layout, scene.phase)
    fitted = cross_fit(ground_of_cell, splits, config, device, jobs=1, progress=silent)
    trained = time.perf_counter()
    border = max(member.reach for member in fitted.members)
    shown = bordered(without(pixels, known), border)
    logits = together(fitted.members, shown, border=border, origin=(-border, -border), wanted=ground, device=device)
    speed = int(ground.sum()) / (time.perf_counter() - trained)
    parameters = sum(member.parameters for member in fitted.members)
    alike = (1.0,) * layout.classes  # log likelihoods have no shares in them
    return _Trained(
        logits, None, alike, fitted.temperature, parameters, trained - started, speed, fitted.answers.local_priors
    )


def logits_of_test(
    model: Model,
    pixels: Pixels,
    ground: NDArray[np.bool_],
    *,
    hidden: NDArray[np.bool_],
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Main logits (K, H, W) of the test ground of a whole scene, not averaged; nan elsewhere.

    hidden (H, W): ground in whose place the network sees the training mean.
    """
    network, ratio = model.network, pixels.pan.shape[1] // pixels.ms.shape[1]
    ms, pan = model.statistics.standardise(*without(pixels, hidden))
    reach, repeat_edge = network.config.reach, network.config.repeat_edge
    return window_logits(
        network.to(device),
        AnswerConfig(smooth=0.0),
        (with_border(ms, reach, repeat_edge=repeat_edge), with_border(pan, reach * ratio, repeat_edge=repeat_edge)),
        origin=(-reach, -reach),
        wanted=ground,
        look=ms,
        engine=default_engine(network),
    )


def _count(
    trained: _Trained, area: TrainingArea, truth: NDArray[np.int64], ground: NDArray[np.bool_], weight: float
) -> dict[str, Any]:
    """Confusion matrices by place and calibration errors, by tau. truth: −1 where nothing is tested.

    weight: of the shares of the classes around a pixel, which are those of the test ground alone: answers to training
    ground know its labels.
    """
    shares = (area.class_counts / area.class_counts.sum()).tolist()
    row, col = np.nonzero(ground)
    temperature, logits = trained.temperature, trained.logits
    answers = Answers(truth.shape, 1, shares, trained.drawn_shares, local_priors=weight, temperature=temperature)
    answers.add(logits[:, row, col], row, col)
    row, col = np.nonzero(truth >= 0)
    height, width = truth.shape
    place = block_numbers(height, width, 2 * TrainConfig().guard)
    confusions, calibration = {}, {}
    for tau in TAUS:
        p = answers.probabilities(logits[:, row, col], row, col, tau=tau)
        answer = np.full(truth.shape, -1)
        answer[row, col] = p.argmax(0)
        confusion = confusion_by_block(
            truth, answer, len(shares), place
        )  # places after the last tested one are left out
        by_place = np.zeros((int(place.max()) + 1, *confusion.shape[1:]), np.int64)
        by_place[: len(confusion)] = confusion
        confusions[str(tau)] = by_place.tolist()
        calibration[str(tau)] = expected_calibration_error(p.T, truth[row, col])
    return {"confusions": confusions, "calibration_error": calibration}


def _split(cell: Cell, labels: Labels, valid: NDArray[np.bool_], config: TrainConfig) -> Split:
    """The fold. Few labels validate nothing: choosing among models with other labels would be using more of them."""
    if cell.protocol == "random":
        return random_folds(labels, valid, folds=cell.folds, seed=cell.repeat)[cell.fold]
    if cell.protocol not in get_args(Protocol):
        raise ValueError(f"protocol is {cell.protocol!r}, must be one of {', '.join(get_args(Protocol))}")
    # the same pixels for every method, whatever its settings say of splits
    how = SplitConfig() if cell.labels_per_class is None else SplitConfig(validation=0.0)
    reach = max(config.guard, TrainConfig().guard)
    strips: Literal["rows", "columns"] | None = None
    if cell.protocol == "strips":
        strips = "columns" if cell.repeat % 2 else "rows"
    folds = block_folds(labels, valid, reach=reach, folds=cell.folds, config=how, seed=cell.repeat, strips=strips)
    return folds[cell.fold]


def _kept_labels(index: NDArray[np.int64], split: Split, cell: Cell) -> NDArray[np.int64]:
    """Class indices with at most `labels_per_class` training pixels of each class, drawn by the seed."""
    if cell.labels_per_class is None:
        return index
    rng = np.random.default_rng((cell.repeat, cell.fold, cell.seed))
    kept = np.where(split.part == TRAIN, -1, index)
    for k in np.unique(index[index >= 0]):
        places = np.argwhere((split.part == TRAIN) & (index == k))
        chosen = places[rng.permutation(len(places))[: cell.labels_per_class]]
        kept[tuple(chosen.T)] = k
    return kept


def _train(
    area: TrainingArea, scene: Scene, labels: Labels, config: TrainConfig, parts: Parts, device: torch.device
) -> Model:
    layout = Layout(ms_bands=scene.ms_bands, pan_bands=scene.pan_bands, ratio=scene.ratio, classes=len(labels.classes))
    torch.manual_seed(config.seed)
    trained = train_network(build_network(config, layout, device, parts), area, config, History())
    return trained.model(area, labels.classes, config)
