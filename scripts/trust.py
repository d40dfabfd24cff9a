"""Does the area of applicability tell where a map is wrong, on ground that nothing was trained on?

    python scripts/trust.py TRAIN ... --on TEST ... [--halves] [--members boosting perceptron] [--seeds 3] [--remedies]

A folder holds ms.tif, pan.tif, labels.tif and, in it or above it, classes.csv. A model is trained on TRAIN, in folds,
and maps each TEST. With --halves the upper half of the labels trains and the lower half tests, as for two dates of one
place. Printed: AUROC of wrong answers by 1 − p̂, by dissimilarity and by the expected error; how the latter agrees with
the share that is wrong (in ten bins of equal size: mean absolute difference); accuracy inside and outside the area.

With --remedies: what helps on TEST as new scenes. The right half of their columns is judged by the model as it is; with
bands scaled to mean and deviation of the training ground; with other priors; and after training on 20 squares of 5 × 5
labelled pixels of the left two fifths of each, alone and together with TRAIN. Printed: how many deviations the furthest
band mean lies off, the share of judged pixels outside the area, kappa and AA, confusion matrices of all TEST summed.
--shift 3 makes all bands of TEST brighter by 3 deviations of the training ground first: another calibration.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Window
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.applicability import Applicability
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.engine import logits_of, valid_targets
from adcdnet.mapping.model import Model
from adcdnet.mapping.progress import silent
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.split.parts import FEWEST_LABELS
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
    parser.add_argument("--remedies", action="store_true")
    parser.add_argument(
        "--shift", type=float, default=0.0, help="of TEST's bands, in deviations of the training ground"
    )
    given = parser.parse_args()
    if given.remedies:
        print_remedies(given)
        return
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
    with ExitStack() as stack:
        upper, lower = halves_of(train[0]) if halves else (None, None)
        scenes = [opened(stack, folder, str(k), upper) for k, folder in enumerate(train)]
        model, area = trained(scenes, members, seed)
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


def halves_of(folder: Path) -> tuple[slice, slice]:
    """Rows of the upper and of the lower half, apart."""
    with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
        middle = scene.grid.height // 2
    return slice(0, middle - 10), slice(middle + 10, 10**6)


def trained(scenes: Sequence[LabelledScene], members: Sequence[str], seed: int) -> tuple[Model, Applicability | None]:
    config = TrainConfig().replace({"members": list(members), "seed": seed, "precision": "bf16"})
    prepared = prepare(scenes, config, None)
    fitted = cross_fit(prepared.ground, prepared.splits, prepared.config, pick_device("cpu"), jobs=1, progress=silent)
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
    block = prepared.splits[0][0].block
    return model, applicability_of(prepared.ground, fitted.judgement, model.statistics, seed, block=block)[0]


def whole(pixels: Pixels, statistics: BandStatistics) -> NDArray[np.float32]:
    """(H, W, F) context statistics of a scene."""
    at = np.indices(pixels.ms_valid.shape).reshape(2, -1)
    return features_at(pixels, statistics, *at).reshape(*pixels.ms_valid.shape, -1)


def tested(labelled: LabelledScene, model: Model, area: Applicability) -> tuple[NDArray[Any], ...]:
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


class Remedied(NamedTuple):
    """What one remedy makes of one new scene. confusion (K, K + 1)."""

    deviations: float
    outside: float
    confusion: NDArray[np.int64]


def print_remedies(given: argparse.Namespace) -> None:
    """A line for each remedy."""
    found: dict[str, list[list[Remedied]]] = {}  # of each remedy, of each seed, of each scene
    for seed in range(given.seeds):
        with ExitStack() as stack:
            upper, lower = halves_of(given.train[0]) if given.halves else (None, None)
            scenes = [opened(stack, folder, str(k), upper) for k, folder in enumerate(given.train)]
            first = trained(scenes, given.members, seed)
            new = [opened(stack, folder, f"new {k}", lower) for k, folder in enumerate(given.on)]
            for name, of_scenes in remedies(new, scenes, first, given, seed):
                found.setdefault(name, []).append(of_scenes)
    print("| remedy | furthest band mean | outside | kappa | AA |\n|---|---|---|---|---|")
    for name, of_seeds in found.items():
        totals = [scores(np.sum([one.confusion for one in of_scenes], axis=0)) for of_scenes in of_seeds]
        cells = [
            f"{mean(max(one.deviations for one in of_scenes) for of_scenes in of_seeds):.2f}",
            f"{mean(mean(one.outside for one in of_scenes) for of_scenes in of_seeds):.1%}",
            _spread([total.kappa for total in totals]),
            _spread([total.aa for total in totals]),
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def remedies(
    new: Sequence[LabelledScene],
    known: Sequence[LabelledScene],
    first: tuple[Model, Applicability | None],
    given: argparse.Namespace,
    seed: int,
) -> Iterator[tuple[str, list[Remedied]]]:
    """What each remedy makes of each new scene."""
    model, area = first
    assert area is not None
    images = [shifted(one.scene.read(one.scene.grid.window), model.statistics, given.shift) for one in new]
    judged = [
        np.where(pixels.valid & right_half(pixels.valid.shape[1]), one.labels.index, np.int16(-1))
        for one, pixels in zip(new, images, strict=True)
    ]
    counts = [np.bincount(truth[truth >= 0], minlength=len(model.classes)) for truth in judged]
    shares = [tuple(np.maximum(n / n.sum(), 1e-4).tolist()) for n in counts]
    scaled = [normalised(pixels, model.statistics) for pixels in images]
    alike = (1 / len(model.classes),) * len(model.classes)
    weight = model.answers.local_priors
    other = replace(model, answers=model.answers.model_copy(update={"local_priors": 0.0 if weight else 0.75}))

    def read_by(
        one: Model,
        seen: Sequence[Pixels],
        priors: Sequence[Sequence[float] | None] = (None,) * len(new),
        present: NDArray[np.int64] | None = None,
    ) -> list[Remedied]:
        each = zip(seen, judged, priors, strict=True)
        return [remedied(one, area, *of_scene, len(model.classes), present) for of_scene in each]

    yield "nothing", read_by(model, images)
    yield "bands scaled", read_by(model, scaled)
    yield "local priors " + ("off" if weight else "on"), read_by(other, images)
    yield "--prior balanced", read_by(model, images, [alike] * len(new))
    yield "--prior, true shares", read_by(model, images, shares)
    yield "bands scaled, true shares", read_by(model, scaled, shares)
    if given.shift:  # scenes are read from their files
        return
    few = [
        replace(one, labels=replace(one.labels, index=squares(one.labels.index, pixels.valid, seed)))
        for one, pixels in zip(new, images, strict=True)
    ]
    own, present = of_own_classes(few)
    yield "20 places alone", read_by(trained(own, given.members, seed)[0], images, present=present)
    yield "20 places and TRAIN", read_by(trained([*known, *few], given.members, seed)[0], images)


def right_half(width: int) -> NDArray[np.bool_]:
    return np.arange(width) >= width // 2


def shifted(pixels: Pixels, statistics: BandStatistics, deviations: float) -> Pixels:
    """All bands brighter by so many deviations of the training ground."""
    ms, pan = (
        np.where(valid, x + deviations * np.asarray(d, np.float32)[:, None, None], 0).astype(np.float32)
        for x, d, valid in (
            (pixels.ms, statistics.ms_deviation, pixels.ms_valid),
            (pixels.pan, statistics.pan_deviation, pixels.pan_valid),
        )
    )
    return pixels._replace(ms=ms, pan=pan)


def normalised(pixels: Pixels, statistics: BandStatistics) -> Pixels:
    """Every band with the mean and deviation of the training ground."""
    ms, pan = BandStatistics.measure(*pixels).standardise(*pixels)
    s = statistics
    ms, pan = (
        x * np.asarray(d, np.float32)[:, None, None] + np.asarray(m, np.float32)[:, None, None]
        for x, m, d in ((ms, s.ms_mean, s.ms_deviation), (pan, s.pan_mean, s.pan_deviation))
    )
    return Pixels(ms, pan, pixels.ms_valid, pixels.pan_valid)


def of_own_classes(scenes: Sequence[LabelledScene]) -> tuple[list[LabelledScene], NDArray[np.int64]]:
    """With a table of the classes that have enough labels to train, and which these are."""
    table = scenes[0].labels.classes
    index = np.concatenate([one.labels.index.ravel() for one in scenes])
    present = np.flatnonzero(np.bincount(index[index >= 0], minlength=len(table)) >= FEWEST_LABELS)
    place = np.full(len(table) + 1, -1, np.int16)  # the last is that of −1
    place[present] = np.arange(len(present))
    own = ClassTable.numbered([table.names[k] for k in present])
    return [
        replace(one, labels=replace(one.labels, index=place[one.labels.index], classes=own)) for one in scenes
    ], present


def squares(index: NDArray[np.int16], valid: NDArray[np.bool_], seed: int, count: int = 20, side: int = 5) -> Any:
    """Labels of random squares in the left two fifths, −1 elsewhere; none overlap."""
    left = np.where(valid & (np.arange(index.shape[1]) < 0.4 * index.shape[1]), index, -1)
    whole = np.lib.stride_tricks.sliding_window_view(left >= 0, (side, side)).all(axis=(2, 3))
    whole = np.array(whole)
    kept = np.full_like(index, -1)
    rng = np.random.default_rng(seed)
    for _ in range(count):
        r, c = rng.permutation(np.argwhere(whole))[0]
        kept[r : r + side, c : c + side] = index[r : r + side, c : c + side]
        whole[max(0, r - side + 1) : r + side, max(0, c - side + 1) : c + side] = False
    return kept


def remedied(
    model: Model,
    area: Applicability,
    pixels: Pixels,
    truth: NDArray[np.int16],
    prior: Sequence[float] | None,
    classes: int,
    present: NDArray[np.int64] | None,
) -> Remedied:
    """As `predict` reads it. present: which classes those of the model are; None: all."""
    logits = logits_of(model, bordered(pixels, model.reach, repeat_edge=True), engine="dense")
    reading = Answers.of(model, truth.shape, prior=prior)
    targets = valid_targets(logits, Window(0, 0, *truth.shape))
    reading.add(*targets)
    mapped = np.full(truth.shape, -1)
    best = reading.probabilities(*targets, tau=1.0).argmax(axis=0)
    mapped[targets[1:]] = best if present is None else present[best]
    judged = truth >= 0
    apart = area.dissimilarity(whole(pixels, model.statistics)[judged])
    confusion = confusion_matrix(truth[judged].astype(np.int64), mapped[judged], classes)
    furthest = max(model.statistics.distance(BandStatistics.measure(*pixels)))
    return Remedied(furthest, float((apart > area.threshold).mean()), confusion)


def _spread(values: Sequence[float]) -> str:
    values = list(map(float, values))
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
