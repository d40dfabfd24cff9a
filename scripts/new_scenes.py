"""Methods on scenes that training has never seen: train on some labelled scenes, read on others, in one table.

    python scripts/new_scenes.py --train DIR ... --test DIR ... [--methods plain boosting-alike ...] [--seeds 1]

--halves trains on the western half of each scene and reads the eastern half of others: two dates of one place.
A DIR holds ms.tif, pan.tif, labels.tif, and classes.csv in it or above it. The last training scene validates baselines
(it is not trained on by them or by networks). Networks train in bf16. One line a method: kappa and AA at tau 0.5 and 1,
confusion matrices of all test scenes summed; ± is the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.benchmark.cell import logits_of_test
from adcdnet.benchmark.methods import METHODS, BandRoles
from adcdnet.benchmark.methods_by_name import ALIKE, GROUND_RULES, RAW, settings_of, trained_as
from adcdnet.config import TrainConfig
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Pixels
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.smoothing import looks, smooth
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn.architecture import Layout
from adcdnet.split.parts import TRAIN, UNUSED, VALIDATION, Split
from adcdnet.training.area import TrainingArea
from adcdnet.training.borders import stack
from adcdnet.training.scenes import training_area
from adcdnet.training.stages.loop import History, build_network
from adcdnet.training.stages.train import train_network

METHOD_NAMES = ("adcdnet", "plain", "patch", "boosting", "boosting-alike", "forest", "forest-alike", "mlp", "mlp-alike")
TAUS = (0.5, 1.0)
WHOLE = slice(None)


def scene_in(folder: Path) -> SceneFiles:
    table = next(p for p in (folder / "classes.csv", folder.parent / "classes.csv") if p.exists())
    ms, pan, labels = (folder / f"{what}.tif" for what in ("ms", "pan", "labels"))
    return SceneFiles(name=folder.name, ms=ms, pan=pan, labels=labels, classes=table)


class Ground:
    """A scene whole in memory, with its labels; also one of a single class, which tests false alarms."""

    def __init__(self, folder: Path, half: slice = WHOLE) -> None:
        files = scene_in(folder)
        assert files.classes is not None
        classes = ClassTable.read(files.classes)
        with files.open() as scene:
            self.pixels: Pixels = scene.read(scene.grid.window)
            self.ratio, self.phase = scene.ratio, scene.phase
            self.bands = BandRoles.of_descriptions(scene.ms_descriptions)
        values = read_band(files.labels)[0]
        index = np.full(values.shape, -1, np.int16)
        for k, value in enumerate(classes.values):
            index[values == value] = k
        self.labels = Labels(index, classes)
        kept = np.zeros(index.shape[1], bool)
        kept[slice(*(None if at is None else round(at * len(kept)) for at in (half.start, half.stop)))] = True
        self.pixels.ms_valid[:, ~kept] = False  # what lies in the other half is not there
        self.pixels.pan_valid[:, ~kept.repeat(self.ratio)] = False

    @property
    def truth(self) -> NDArray[np.int64]:
        return np.where(self.pixels.valid, self.labels.index, -1).astype(np.int64)

    def split(self, part: int) -> Split:
        return Split(np.where(self.pixels.valid, part, UNUSED).astype(np.uint8), 1, ())


def area_of(train: Sequence[Ground], config: TrainConfig) -> TrainingArea:
    parts = [TRAIN] * (len(train) - 1) + [VALIDATION] if len(train) > 1 else [TRAIN]
    splits = [ground.split(part) for ground, part in zip(train, parts, strict=True)]
    first = train[0]
    return training_area(
        [g.pixels for g in train],
        [g.labels for g in train],
        splits,
        config=config,
        ratio=first.ratio,
        phase=first.phase,
    )


def joined(train: Sequence[Ground], area: TrainingArea) -> Pixels:
    """Pixels of all scenes on the grid of the joined area, for methods that want features."""
    gap, ratio = 2 * area.reach, area.ratio
    return Pixels(
        stack([g.pixels.ms for g in train], gap=gap, fill=0),
        stack([g.pixels.pan for g in train], gap=gap * ratio, fill=0),
        stack([g.pixels.ms_valid for g in train], gap=gap, fill=0),
        stack([g.pixels.pan_valid for g in train], gap=gap * ratio, fill=0),
    )


def confusions(
    method: str, seed: int, train: Sequence[Ground], test: Sequence[Ground]
) -> tuple[list[NDArray[np.int64]], float]:
    """Of all test scenes together, one for each tau; and the seconds that training took."""
    settings = settings_of(method, seed)
    config = (
        GROUND_RULES
        if settings is None
        else settings.replace({"precision": "bf16", "plain_if_few": False, "tiles_from": 1})
    )
    area = area_of(train, config)
    started = time.perf_counter()
    classes = train[0].labels.classes
    if settings is None:
        fitted = METHODS[trained_as(method)](area, joined(train, area), train[0].bands, seed=seed)
        shares, drawn = area.class_counts / area.class_counts.sum(), fitted.drawn_shares
        model = None
    else:
        ms_bands, pan_bands = len(train[0].pixels.ms), len(train[0].pixels.pan)
        layout = Layout(ms_bands=ms_bands, pan_bands=pan_bands, ratio=train[0].ratio, classes=len(classes))
        torch.manual_seed(seed)
        network = build_network(config, layout, torch.device("cpu"))
        model = train_network(network, area, config, History()).model(area, classes, config)
        shares, drawn = np.asarray(model.label_shares), model.first_network.drawn_shares
    seconds = time.perf_counter() - started
    raw = method.endswith(RAW) or (settings is None and not method.endswith(ALIKE))
    sums = [np.zeros((len(classes), len(classes) + 1), np.int64) for _ in TAUS]
    for ground in test:
        valid = ground.pixels.valid
        if model is None:
            logits = fitted.logits(ground.pixels, valid)
        else:
            logits = logits_of_test(model, ground.pixels, valid, hidden=np.zeros_like(valid))
        if not raw:
            look = looks(*area.statistics.standardise(*ground.pixels), 1, sensors="both")
            logits = smooth(logits, look, config.answers.smooth, config.answers.likeness)
        weight = 0.0 if raw else config.answers.local_priors
        answers = Answers(valid.shape, 1, shares.tolist(), drawn, local_priors=weight)
        row, col = np.nonzero(valid)
        answers.add(logits[:, row, col], row, col)
        row, col = np.nonzero(ground.truth >= 0)
        for total, tau in zip(sums, TAUS, strict=True):
            answer = answers.probabilities(logits[:, row, col], row, col, tau=tau).argmax(0)
            total += confusion_matrix(ground.truth[row, col], answer, len(classes))
    return sums, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", default=METHOD_NAMES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--halves", action="store_true", help="train on western halves, read on eastern ones")
    arguments = parser.parse_args()
    halves = (slice(None, 0.5), slice(0.5, None)) if arguments.halves else (WHOLE, WHOLE)
    train, test = (
        [Ground(folder, half) for folder in folders]
        for folders, half in zip((arguments.train, arguments.test), halves, strict=True)
    )
    print("| method | kappa, tau 0.5 | kappa, tau 1 | AA, tau 0.5 | AA, tau 1 | train s |\n|---|---|---|---|---|---|")
    for method in arguments.methods:
        found = [confusions(method, seed, train, test) for seed in range(arguments.seeds)]
        columns = []
        for score in ("kappa", "aa"):
            for k in range(len(TAUS)):
                values = [getattr(scores(sums[k]), score) for sums, _ in found]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                columns.append(f"{np.mean(values):.3f}{spread}")
        seconds = np.median([s for _, s in found])
        print(f"| {method} | {' | '.join(columns)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
