"""Does the area of applicability tell where a map is wrong, on ground that nothing was trained on?

    python scripts/trust.py TRAIN ... --on TEST ... [--halves] [--members boosting perceptron] [--seeds 3]

A folder holds ms.tif, pan.tif, labels.tif and, in it or above it, classes.csv. A model is trained on TRAIN, in folds,
and maps each TEST. With --halves the upper half of the labels trains and the lower half tests, as for two dates of one
place. Printed: AUROC of wrong answers by 1 − p̂, by dissimilarity and by the expected error; how the latter agrees with
the share that is wrong (in ten bins of equal size: mean absolute difference); accuracy inside and outside the area.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.mapping.applicability import Applicability
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.engine import logits_of
from adcdnet.mapping.model import Model
from adcdnet.mapping.progress import silent
from adcdnet.training.applicability import applicability_of, features_at
from adcdnet.training.borders import bordered
from adcdnet.training.committee.cross_fit import cross_fit
from adcdnet.training.prepare import prepare
from adcdnet.training.scenes import LabelledScene


class Found(NamedTuple):
    """Figures of one seed, over all test ground together."""

    wrong: float
    by_probability: float
    by_dissimilarity: float
    by_error: float
    disagreement: float
    outside: float
    oa_inside: float
    oa_outside: float


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="+", type=Path)
    parser.add_argument("--on", nargs="+", type=Path, required=True)
    parser.add_argument("--halves", action="store_true")
    parser.add_argument("--members", nargs="+", default=["boosting", "perceptron"])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    rows = [once(given.train, given.on, given.halves, given.members, seed) for seed in range(given.seeds)]
    print("| " + " | ".join(Found._fields) + " |")
    print("|" + "---|" * len(Found._fields))
    print("| " + " | ".join(_spread(column) for column in zip(*rows, strict=True)) + " |")


def opened(stack: ExitStack, folder: Path, name: str, half: slice | None) -> LabelledScene:
    table = next(path for path in (folder / "classes.csv", folder.parent / "classes.csv") if path.exists())
    scene = stack.enter_context(Scene.open(folder / "ms.tif", folder / "pan.tif"))
    labels = read_labels(folder / "labels.tif", scene.grid, classes=ClassTable.read(table))
    if half is not None:
        kept = np.full_like(labels.index, -1)
        kept[half] = labels.index[half]
        labels = replace(labels, index=kept)
    return LabelledScene(scene, labels, name)


def once(train: Sequence[Path], on: Sequence[Path], halves: bool, members: Sequence[str], seed: int) -> Found:
    """One training, and all that it says of the test ground."""
    config = TrainConfig().replace({"members": list(members), "seed": seed, "precision": "bf16"})
    with ExitStack() as stack:
        upper, lower = (slice(0, 10**6), slice(0, 10**6)) if not halves else (None, None)
        if halves:
            with Scene.open(train[0] / "ms.tif", train[0] / "pan.tif") as first:
                middle = first.grid.height // 2
            upper, lower = slice(0, middle - 10), slice(middle + 10, 10**6)
        scenes = [opened(stack, folder, str(k), upper) for k, folder in enumerate(train)]
        prepared = prepare(scenes, config, None)
        fitted = cross_fit(
            prepared.ground, prepared.splits, prepared.config, pick_device("cpu"), jobs=1, progress=silent
        )
        model = Model(
            fitted.members,
            prepared.ground.layout,
            prepared.statistics,
            prepared.classes,
            prepared.label_shares,
            temperature=fitted.temperature,
            answers=fitted.answers,
            phase=prepared.ground.phase,
        )
        assert fitted.judgement is not None
        area = applicability_of(prepared.ground, fitted.judgement, model.statistics, seed)
        assert area is not None
        parts = [tested(opened(stack, folder, "", lower), model, area) for folder in on]
    apart, wrong, likely, error = (np.concatenate(column) for column in zip(*parts, strict=True))
    inside = apart <= area.threshold
    order = np.argsort(error, kind="stable")
    bins = np.array_split(order, 10)
    return Found(
        wrong.mean(),
        roc_auc_score(wrong, 1 - likely),
        roc_auc_score(wrong, apart),
        roc_auc_score(wrong, error),
        mean(abs(error[these].mean() - wrong[these].mean()) for these in bins),
        1 - inside.mean(),
        1 - wrong[inside].mean(),
        1 - wrong[~inside].mean() if (~inside).any() else float("nan"),
    )


def whole(pixels: Pixels, statistics: BandStatistics) -> NDArray[np.float32]:
    """(H, W, F) context statistics of a scene."""
    at = np.indices(pixels.ms_valid.shape).reshape(2, -1)
    return features_at(pixels, statistics, *at).reshape(*pixels.ms_valid.shape, -1)


def tested(labelled: LabelledScene, model: Model, area: Applicability) -> tuple[NDArray[np.float64], ...]:
    """Of labelled pixels: dissimilarity, whether the answer is wrong, its probability, the expected error."""
    pixels = labelled.scene.read(labelled.scene.grid.window)
    known = (labelled.labels.index >= 0) & pixels.valid
    logits = logits_of(model, bordered(pixels, model.reach, repeat_edge=True), engine="dense")
    posterior = logits + np.log(np.asarray(model.label_shares, np.float32))[:, None, None]
    posterior = posterior[:, known] / model.temperature
    p = np.exp(posterior - posterior.max(axis=0))
    p /= p.sum(axis=0)
    apart = area.dissimilarity(whole(pixels, model.statistics)[known])
    wrong = p.argmax(axis=0) != labelled.labels.index[known]
    return apart, wrong, p.max(axis=0), area.expected_error(apart, p.astype(np.float32))


def _spread(values: Sequence[float]) -> str:
    values = list(map(float, values))
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
