"""Are wrong labels found? Planted ones, and what it brings to leave suspects out.

    python scripts/suspects.py planted FOLDER ... [--seeds 3]    wrong labels planted at 5, 10 and 20 % of the polygons
    python scripts/suspects.py removed FOLDER [--seeds 3]        training without the suspects of real labels

A FOLDER holds ms.tif, pan.tif, labels.tif and, in it or above it, classes.csv. Patches of labels of 4 to 400 pixels are
the polygons. Boosting and a perceptron are cross-fitted in five folds of blocks. With the package cleanlab at hand the
same answers are also judged by its `find_label_issues`, a polygon by the share of its pixels that are issues.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from adcdnet.assess.suspects import patches, suspect
from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.scene import Scene
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.members import by_features
from adcdnet.mapping.progress import silent
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.training.applicability import features_at
from adcdnet.training.committee.classifiers import FITS
from adcdnet.training.committee.cross_fit import cross_fit
from adcdnet.training.prepare import prepare
from adcdnet.training.scenes import LabelledScene

SHARES = (0.05, 0.1, 0.2)
SMALLEST, LARGEST = 4, 400  # pixels of a patch that is taken for a polygon


def main() -> None:
    """One experiment, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=("planted", "removed"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.experiment == "planted":
        planted(given.folders, given.seeds)
    else:
        removed(given.folders, given.seeds)


def opened(folder: Path) -> tuple[Scene, Labels]:
    table = next(path for path in (folder / "classes.csv", folder.parent / "classes.csv") if path.exists())
    scene = Scene.open(folder / "ms.tif", folder / "pan.tif")
    labels = read_labels(folder / "labels.tif", scene.grid, classes=ClassTable.read(table))
    unit = patches(labels.index)
    size = np.bincount(unit[unit >= 0])
    usable = (unit >= 0) & ((size >= SMALLEST) & (size <= LARGEST))[unit]
    index = np.where(usable, labels.index, np.int16(-1))
    return scene, replace(labels, index=index, polygons=np.where(usable, unit, np.int32(-1)))


def answers(scene: Scene, labels: Labels, seed: int) -> NDArray[np.float32]:
    """(K, H, W): of labelled pixels, each by members that trained neither on it nor near it; nan elsewhere."""
    config = TrainConfig().replace({"members": ["boosting", "perceptron"], "seed": seed})
    prepared = prepare([LabelledScene(scene, labels)], config, None)
    fitted = cross_fit(prepared.ground, prepared.splits, prepared.config, pick_device("cpu"), jobs=1, progress=silent)
    assert fitted.judgement is not None
    p = np.full((len(labels.classes), *labels.index.shape), np.nan, np.float32)
    for of_fold in fitted.judgement.answered[0]:
        p[:, of_fold.row, of_fold.col] = of_fold.probabilities
    return p


def planted(folders: Sequence[Path], seeds: int) -> None:
    """Precision among the k first, k as many as were planted; and of all suspects, precision and recall."""
    print("| scene | planted | first k right | suspects right | planted found | cleanlab, first k right |")
    print("|---|---|---|---|---|---|")
    for folder in folders:
        scene, labels = opened(folder)
        assert labels.polygons is not None
        for share in SHARES:
            rows = [_planted_once(scene, labels, share, seed) for seed in range(seeds)]
            shown = " | ".join(_spread(column) for column in zip(*rows, strict=True))
            print(f"| {folder.name} | {share:.0%} | {shown} |", flush=True)


def _planted_once(scene: Scene, labels: Labels, share: float, seed: int) -> tuple[float, ...]:
    assert labels.polygons is not None
    rng = np.random.default_rng(seed)
    numbers = np.unique(labels.polygons[labels.polygons >= 0])
    wrong = rng.permutation(numbers)[: round(share * len(numbers))]
    index = labels.index.copy()
    for number in wrong:
        here = labels.polygons == number
        others = np.setdiff1d(np.unique(labels.index[labels.index >= 0]), index[here])
        index[here] = rng.choice(others)
    changed = replace(labels, index=index)
    p = answers(scene, changed, seed)
    found = suspect(changed, p)
    judged = np.unique(labels.polygons[np.isfinite(p).all(0) & (labels.polygons >= 0)])
    wrong = np.intersect1d(wrong, judged)
    ranked = [one.number for one in found.ranked]
    hits = np.isin(ranked, wrong)
    first = hits[: len(wrong)].sum() / len(wrong)
    theirs = _by_cleanlab(changed, p)
    own = np.isin(theirs[: len(wrong)], wrong).sum() / len(wrong) if len(theirs) else float("nan")
    return float(first), float(hits.mean()) if len(hits) else 0.0, float(hits.sum() / len(wrong)), float(own)


def _by_cleanlab(labels: Labels, p: NDArray[np.float32]) -> list[int]:
    """Polygons by the share of their pixels that are label issues, then by how little likely their label is."""
    if find_spec("cleanlab") is None or labels.polygons is None:
        return []
    from cleanlab.filter import find_label_issues

    known = np.isfinite(p).all(0) & (labels.index >= 0)
    given, unit, own = labels.index[known].astype(int), labels.polygons[known], p[:, known].T.astype(float)
    present = np.unique(given)  # it wants classes 0..K−1, each there
    own = own[:, present] / own[:, present].sum(1, keepdims=True)
    given = np.searchsorted(present, given)
    issue = find_label_issues(given, own, n_jobs=1)
    numbers, place = np.unique(unit, return_inverse=True)
    size = np.bincount(place)
    share = np.bincount(place, issue) / size
    likely = np.bincount(place, own[np.arange(len(own)), given]) / size
    return [int(n) for n in numbers[np.lexsort((likely, -share))]]


def removed(folders: Sequence[Path], seeds: int) -> None:
    """Kappa and AA on one half of a scene (all its labels), trained on the other half with and without its suspects."""
    print("| scene | left out | kappa with all | without suspects | without as many at random |\n|---|---|---|---|---|")
    for folder in folders:
        scene, labels = opened(folder)
        for rows in _halves(labels.index.shape[0]):
            found = [_removed_once(scene, labels, rows, seed) for seed in range(seeds)]
            shown = " | ".join(_spread(column) for column in zip(*found, strict=True))
            print(f"| {folder.name}, trained on rows {rows.start} to {rows.stop} | {shown} |", flush=True)


def _halves(height: int) -> Iterator[slice]:
    yield slice(0, height // 2 - 10)
    yield slice(height // 2 + 10, height)


def _removed_once(scene: Scene, labels: Labels, rows: slice, seed: int) -> tuple[float, ...]:
    assert labels.polygons is not None
    inside = np.zeros(labels.index.shape, bool)
    inside[rows] = True
    own = replace(labels, index=np.where(inside, labels.index, np.int16(-1)))
    numbers = [one.number for one in suspect(own, answers(scene, own, seed)).ranked]
    every = np.unique(labels.polygons[own.index >= 0])
    some = np.random.default_rng(seed).permutation(every)[: len(numbers)]
    x = _features(scene)
    judged = (labels.index >= 0) & ~inside
    kappas = []
    for gone in ([], numbers, some):
        kept = (own.index >= 0) & ~np.isin(labels.polygons, gone)
        kappas.append(_kappa(x[kept], own.index[kept].astype(np.int64), x[judged], labels.index[judged], seed))
    return (len(numbers) / len(every), *kappas)


def _features(scene: Scene) -> NDArray[np.float32]:
    """(H, W, F) context statistics."""
    pixels = scene.read(scene.grid.window)
    statistics = BandStatistics.measure(*pixels)
    at = np.indices(pixels.ms_valid.shape).reshape(2, -1)
    return features_at(pixels, statistics, *at).reshape(*scene.grid.shape, -1)


def _kappa(
    x: NDArray[np.float32], y: NDArray[np.int64], judged: NDArray[np.float32], truth: NDArray[np.integer], seed: int
) -> float:
    """Of boosting and a perceptron together, trained on x, y."""
    present, place = np.unique(y, return_inverse=True)
    logits = [by_features(FITS[name](x, place, np.ones(len(x)), seed), judged) for name in ("boosting", "perceptron")]
    said = present[sum(each - logsumexp(each, axis=0) for each in logits).argmax(0)]
    classes = int(max(truth.max(), present.max())) + 1
    return scores(confusion_matrix(truth.astype(np.int64), said, classes)).kappa


def _spread(values: Sequence[float]) -> str:
    values = list(values)
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
