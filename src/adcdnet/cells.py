"""The cells of a benchmark: each trains one method on one fold of a scene and counts what it gets right on the rest.

A cell is a method, a scene, a repeat (another partition into folds), a fold, a seed, and how many
labels a class it may use. Every cell is computed in a process of its own and kept as a file, so that a table can grow
over days. A cell holds the confusion matrices of its test pixels by place, at each operating point; all figures are
made of these sums.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet import memory
from adcdnet.baselines import METHODS, BandRoles
from adcdnet.checkpoint import Model, write_whole
from adcdnet.config import NetworkConfig, Profile, SplitConfig, TrainConfig
from adcdnet.errors import InputError
from adcdnet.folds import block_folds, random_folds
from adcdnet.inference import default_engine, scene_logits
from adcdnet.inputs import sha256
from adcdnet.intervals import confusion_by_block
from adcdnet.labels import Labels
from adcdnet.local_shares import LocalShares
from adcdnet.metrics import expected_calibration_error
from adcdnet.model import Layout
from adcdnet.posterior import posterior
from adcdnet.sampling import TEST, TRAIN, Split, TrainingArea, block_numbers, leakage
from adcdnet.scene import Pixels, Scene
from adcdnet.scenes import SceneFiles
from adcdnet.smoothing import looks, smooth
from adcdnet.training import Trainer, suited_to

TAUS = (0.0, 0.5, 1.0)
ABLATIONS: dict[str, dict[str, Any]] = {  # what is changed in the default settings
    "adcdnet": {},
    "no-stage1": {"network": {"prior": False}},
    "all-parts": {"plain_if_few": False},
    "random-prior": {"stage1": {"steps": 0}, "plain_if_few": False},
    "no-dtm": {"network": {"dtm": False}, "branch_weight": 0.0},
    "no-dia": {"network": {"attention": "none"}},
    "cbam": {"network": {"attention": "cbam"}},
    "gru": {"network": {"reader": "gru"}},
    "attention": {"network": {"reader": "attention"}},
    "flatten-head": {"network": {"head": "flatten"}},  # the sum of both sensors is here to be compared with
    "gate-fusion": {"network": {"head": "flatten", "fusion": "gate"}},
    "concat-fusion": {"network": {"head": "flatten", "fusion": "concat"}},
    "halo": {"network": {"head": "flatten"}, "sampling": "patch"},  # what zeros is to be compared with
    "zeros": {"network": {"padding": "zeros", "patch": 8, "head": "flatten"}, "sampling": "patch"},
    "no-context": {"network": {"context_branch": 0.0}},
    "no-smooth": {"network": {"smooth": 0.0}},
    "no-local-shares": {"network": {"local_shares": 0.0}},
    "no-mixup": {"mixup": 0.0},
    "no-self-training": {"self_training": 0.0},
    "patches": {"sampling": "patch"},
    "tiles": {"sampling": "dense"},
    "ms-only": {"network": {"sensors": "ms"}},
    "pan-only": {"network": {"sensors": "pan"}},
}
ABLATIONS_OF_PAPER = tuple(  # the same changes of the published network
    f"paper-{name}"
    for name in (
        *("no-stage1", "random-prior", "no-dtm", "no-dia"),
        *("cbam", "gru", "attention", "gate-fusion", "concat-fusion", "ms-only", "pan-only"),
    )
)
OTHER_PROFILES: tuple[Profile, ...] = ("plain", "paper")
NETWORKS = (*ABLATIONS, *OTHER_PROFILES, *ABLATIONS_OF_PAPER)  # names of methods that are ADCD-Nets
ALIKE = "-alike"  # after the name of a baseline: its answers are averaged and adapted as those of ADCD-Net are
Protocol = Literal["blocks", "strips", "random"]  # what is tested: see `folds`


@dataclass(frozen=True)
class Cell:
    """One training and its test.

    method: a name of METHODS, as it is or with ALIKE behind it; of ABLATIONS, ABLATIONS_OF_PAPER or OTHER_PROFILES; or
    a TOML of settings.
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
        known = [_digests(self.scene), _rules_of(self.method, self.seed), version("adcdnet")]
        known += [] if self.device == "cpu" else [self.device]
        return short_hash(known)


def scene_hash(scene: SceneFiles) -> str:
    """Of the content of all its files."""
    return short_hash(_digests(scene))


def settings_hash(method: str) -> str:
    """Of an ADCD-Net's settings, whatever the seed; of what other methods are under too."""
    return short_hash(_rules_of(method, 0))


def _digests(scene: SceneFiles) -> list[str]:
    return [sha256(path) for path in scene.files()]


def _rules_of(method: str, seed: int) -> dict[str, Any]:
    settings = settings_of(method, seed)
    return _ground_rules() if settings is None else settings.model_dump()


def short_hash(content: Any) -> str:
    """The first 16 digits of the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def method_name(method: str) -> str:
    """A settings file goes by its name."""
    return Path(method).stem if method.endswith(".toml") else method


def settings_of(method: str, seed: int) -> TrainConfig | None:
    """The settings of an ADCD-Net, None for the other methods. InputError for a method that is not known."""
    if method.removesuffix(ALIKE) in METHODS:
        return None
    if method.endswith(".toml"):
        return TrainConfig.read(Path(method)).replace({"seed": seed})
    if method in OTHER_PROFILES:
        return TrainConfig.of_profile(method).replace({"seed": seed})
    if method in ABLATIONS:
        return TrainConfig().replace({**ABLATIONS[method], "seed": seed})
    if method in ABLATIONS_OF_PAPER:
        return TrainConfig.of_profile("paper").replace({**ABLATIONS[method.removeprefix("paper-")], "seed": seed})
    raise InputError(
        f"method {method!r} is not known; choose from {', '.join(NETWORKS)}, "
        f"from {', '.join(METHODS)} (with {ALIKE} behind it, if wanted), or name a TOML file of settings"
    )


def _ground_rules() -> dict[str, Any]:
    """Those of the default settings that a baseline is under too: guard, window, class weights, averages, validation.

    How ADCD-Net is built and trained is not among them: a finished table of baselines outlives a change of that.
    """
    config = TrainConfig()
    network = config.network
    return {
        "window": (network.before, network.after, network.reach),
        "answer": (network.smooth, network.likeness, network.local_shares),
        "class_balance": config.class_balance,
        "split": config.split.model_dump(),
    }


def run_cells(
    cells: Sequence[Cell], out: Path, *, jobs: int = 1, progress: Callable[[int, int, Cell], None] | None = None
) -> None:
    """Compute the cells that are not kept in `out` yet, each in a process of its own, `jobs` at a time."""
    for cell in cells:
        settings_of(cell.method, cell.seed)
    _refuse_unwritable(out)
    missing = [cell for cell in cells if not _is_kept(cell, out)]
    done = len(cells) - len(missing)
    trainings: dict[Cell, list[Cell]] = {}  # a baseline is trained once for both ways of reading it
    for cell in missing:
        trainings.setdefault(replace(cell, method=cell.method.removesuffix(ALIKE)), []).append(cell)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        max_tasks_per_child=1,
        initializer=_begin_worker,
        initargs=(threads,),
    )
    with pool:
        running = {pool.submit(_compute, together, out): together for together in trainings.values()}
        try:
            for future in as_completed(running):
                future.result()
                for cell in running[future]:
                    done += 1
                    if progress is not None:
                        progress(done, len(cells), cell)
        except BrokenProcessPool as error:
            raise InputError(
                "a training was killed, most likely for want of memory; what is finished is kept: call again with "
                "fewer --jobs"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin_worker(threads: int) -> None:
    """A training ends with the benchmark that wants it, also where that is killed and can tell nobody."""
    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _refuse_unwritable(folder: Path) -> None:
    """InputError now, and not after the first training."""
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "cells"):
            pass
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error


def _is_kept(cell: Cell, out: Path) -> bool:
    try:
        kept = json.loads((out / cell.file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(kept.get("fingerprint") == cell.fingerprint())


def _compute(cells: Sequence[Cell], out: Path) -> None:
    for cell, found in zip(cells, compute_together(cells), strict=True):
        file = out / cell.file
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, (json.dumps(found) + "\n").encode())


def compute(cell: Cell) -> dict[str, Any]:
    """Train, classify the test pixels, count. The figures of a cell, as they are kept."""
    return compute_together([cell])[0]


def compute_together(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """As `compute`, of cells with one training, whose answers are read as they are or ALIKE."""
    first = cells[0]
    settings = settings_of(first.method, first.seed)
    config = settings or TrainConfig()
    with first.scene.open() as scene:
        labels = first.scene.read_labels(scene.grid)
        pixels = scene.read(scene.grid.window)
        split = _split(first, labels, pixels.valid, config)
        index = np.where(pixels.valid, labels.index, -1).astype(np.int64)
        shown = replace(labels, index=_kept_labels(index, split, first).astype(np.int16))
        area = TrainingArea(pixels, shown, split, network=config.network, ratio=scene.ratio)
        ground = (split.part == TEST) & pixels.valid
        if settings is None:
            answers = _of_baseline(first, area, pixels, scene, ground)
        else:
            answers = _of_network(area, pixels, scene, labels, settings, torch.device(first.device))
    truth = np.where(ground, index, -1)
    common = {
        "scene": first.scene.name,
        "classes": list(labels.classes.names),
        "training_pixels": area.class_counts.tolist(),
        "leakage": leakage(split.part, truth >= 0, reach=config.network.reach).to_dict(),
        "training_seconds": answers.training_seconds,
        "pixels_per_second": answers.pixels_per_second,
        "parameters": answers.parameters,
        "peak_memory_bytes": memory.peak(),
        "threads": torch.get_num_threads(),
        "versions": {"adcdnet": version("adcdnet"), "torch": torch.__version__},
    }
    found = []
    for cell in cells:
        logits, alike = answers.logits, cell.method.endswith(ALIKE)
        if alike:
            look = looks(*area.statistics.standardise(*pixels), 1, sensors="both")
            logits = smooth(logits, look, config.network.smooth, config.network.likeness)
        weight = config.network.local_shares if alike or settings is not None else 0.0
        own = {k: v for k, v in asdict(cell).items() if k != "scene"}
        counted = _count(replace(answers, logits=logits), area, truth, ground, weight)
        found.append({"fingerprint": cell.fingerprint(), **own, **common, **counted})
    return found


@dataclass(frozen=True)
class _Answers:
    """What a trained method says. logits (K, H, W): of the test ground at least."""

    logits: NDArray[np.float32]
    drawn_shares: tuple[float, ...]
    temperature: float
    parameters: int
    training_seconds: float
    pixels_per_second: float


def _of_baseline(cell: Cell, area: TrainingArea, pixels: Pixels, scene: Scene, ground: NDArray[np.bool_]) -> _Answers:
    started = time.perf_counter()
    bands = BandRoles.of_descriptions(scene.ms_descriptions)
    classifier = METHODS[cell.method.removesuffix(ALIKE)](area, pixels, bands, seed=cell.seed)
    trained = time.perf_counter()
    logits = classifier.logits(pixels, ground)
    speed = int(ground.sum()) / (time.perf_counter() - trained)
    return _Answers(logits, classifier.drawn_shares, 1.0, classifier.parameters, trained - started, speed)


def _of_network(
    area: TrainingArea, pixels: Pixels, scene: Scene, labels: Labels, settings: TrainConfig, device: torch.device
) -> _Answers:
    started = time.perf_counter()
    model = _train(area, scene, labels, settings, device)
    trained = time.perf_counter()
    logits = np.empty((len(labels.classes), *scene.grid.shape), np.float32)
    for window, _, values in scene_logits(model, scene, engine=default_engine(model.network), device=device):
        logits[:, *window.slices] = values
    speed = int(pixels.valid.sum()) / (time.perf_counter() - trained)
    parameters = sum(p.numel() for p in model.network.parameters())
    return _Answers(logits, model.drawn_shares, model.temperature, parameters, trained - started, speed)


def _count(
    answers: _Answers, area: TrainingArea, truth: NDArray[np.int64], ground: NDArray[np.bool_], weight: float
) -> dict[str, Any]:
    """Confusion matrices by place and calibration errors, by tau. truth: −1 where nothing is tested.

    weight: of the shares of the classes around a pixel, which are those of the test ground alone: answers to training
    ground know its labels.
    """
    shares = (area.class_counts / area.class_counts.sum()).tolist()
    row, col = np.nonzero(ground)
    local = LocalShares(truth.shape, 1, shares, answers.drawn_shares, weight)
    local.add(answers.logits[:, row, col], row, col)
    row, col = np.nonzero(truth >= 0)
    adapted = local.adapt(answers.logits[:, row, col], row, col)
    height, width = truth.shape
    place = block_numbers(height, width, 2 * NetworkConfig().reach)
    confusions, calibration = {}, {}
    for tau in TAUS:
        p = posterior(adapted, shares, answers.drawn_shares, tau, answers.temperature)
        answer = np.full(truth.shape, -1)
        answer[row, col] = p.argmax(0)
        found = confusion_by_block(truth, answer, len(shares), place)  # places after the last tested one are left out
        by_place = np.zeros((int(place.max()) + 1, *found.shape[1:]), np.int64)
        by_place[: len(found)] = found
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
    reach = max(config.network.reach, NetworkConfig().reach)
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


def _train(area: TrainingArea, scene: Scene, labels: Labels, settings: TrainConfig, device: torch.device) -> Model:
    layout = Layout(ms_bands=scene.ms_bands, pan_bands=scene.pan_bands, ratio=scene.ratio, classes=len(labels.classes))
    torch.manual_seed(settings.seed)
    trainer = Trainer(area, layout, suited_to(area, settings), device, None)
    network = trainer.run()
    shares = trainer.label_shares, trainer.drawn_shares
    return Model(network, area.statistics, labels.classes, *shares, temperature=trainer.temperature)
