"""Which MS pixels should a fine label raster label: pure ones, those mostly of one class, or all, weighted by shares?

    python scripts/label_shares.py FOLDER ... [--strips 4] [--per-class 0] [--seeds 3]

A FOLDER holds ms.tif, pan.tif and labels_fine.tif on the PAN grid. Several folders are left out in turn; a single one
is cut into strips of columns, which are. Boosting and a perceptron on context statistics learn the rest by each rule
and answer every MS pixel left out, mixed ones too, of which the class with the largest share is the truth.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray

from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.scene import Scene
from adcdnet.mapping.members import by_features
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn.context import CONTEXT_REACH
from adcdnet.training.applicability import features_at
from adcdnet.training.committee.classifiers import FITS

RULES = ("pure", "mostly", "mostly, weighted", "largest", "all, weighted")
MEMBERS = ("boosting", "perceptron")


class Ground(NamedTuple):
    """features (n, F) of MS pixels, and the shares (n, K) of each that its classes cover."""

    features: NDArray[np.float32]
    shares: NDArray[np.float64]


def main() -> None:
    """Print a line for each member, rule and kind of judged pixel: mean ± sd over seeds of the pooled kappa and AA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--strips", type=int, default=4)
    parser.add_argument("--per-class", type=int, default=0, help="labels of each class that train; 0: all")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    places = read(given.folders)
    if len(places) == 1:
        places = list(strips(places[0], given.strips))
    grounds = [Ground(features[known], shares[known]) for features, shares, known in places]
    found = defaultdict(list)
    for seed in range(given.seeds):
        for name in MEMBERS:
            for rule in RULES:
                for judged, of_kind in judge(grounds, name, rule, given.per_class, seed).items():
                    found[name, rule, judged].append(of_kind)
    mixed = np.concatenate([ground.shares.max(1) < 1 for ground in grounds]).mean()
    print(f"{mixed:.1%} of the labelled MS pixels are mixed; {given.seeds} seeds")
    print("| member | rule | judged | kappa | AA |\n|---|---|---|---|---|")
    for key, values in found.items():
        columns = (
            f"{mean(v):.3f} ± {stdev(v):.3f}" if len(v) > 1 else f"{v[0]:.3f}" for v in zip(*values, strict=True)
        )
        print(f"| {' | '.join((*key, *columns))} |")


Place = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]


def read(folders: Sequence[Path]) -> list[Place]:
    """Of each scene: features (h, w, F), shares (h, w, K), and which pixels are valid and wholly labelled."""
    fine, images = [], []
    for folder in folders:
        with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
            images.append(scene.read(scene.grid.window))
        with rasterio.open(folder / "labels_fine.tif") as raster:
            fine.append(raster.read(1))
    values = np.unique(np.concatenate([one.ravel() for one in fine]))
    values = values[values > 0]
    ms, pan = (np.concatenate([x[k].reshape(len(x[k]), -1) for x in images], axis=1)[:, None] for k in (0, 1))
    seen = [np.concatenate([x[k].ravel() for x in images])[None] for k in (2, 3)]
    statistics = BandStatistics.measure(ms, pan, *seen)
    places = []
    for pixels, labels in zip(images, fine, strict=True):
        h, w = pixels.ms_valid.shape
        r = labels.shape[0] // h
        cells = labels[: h * r, : w * r].reshape(h, r, w, r)
        shares = np.stack([(cells == value).mean(axis=(1, 3)) for value in values], axis=-1)
        features = features_at(pixels, statistics, *np.indices((h, w)).reshape(2, -1))
        known = pixels.valid & (shares.sum(-1) == 1)
        places.append((features.reshape(h, w, -1), shares, known))
    return places


def strips(place: Place, count: int) -> Iterator[Place]:
    """A scene cut into strips of columns, without those that features of the next strip see."""
    edges = np.linspace(0, place[2].shape[1], count + 1).astype(int)
    for begin, end in pairwise(edges):
        cut = slice(begin + CONTEXT_REACH * (begin > 0), end - CONTEXT_REACH * (end < place[2].shape[1]))
        yield place[0][:, cut], place[1][:, cut], place[2][:, cut]


def judge(grounds: Sequence[Ground], name: str, rule: str, per_class: int, seed: int) -> dict[str, tuple[float, float]]:
    """kappa and AA of all, pure and mixed pixels, each answered by a member that learnt the other places."""
    classes = grounds[0].shares.shape[1]
    confusion = {kind: np.zeros((classes, classes + 1), np.int64) for kind in ("all", "pure", "mixed")}
    for k, held in enumerate(grounds):
        others = [ground for j, ground in enumerate(grounds) if j != k]
        features = np.concatenate([ground.features for ground in others])
        shares = np.concatenate([ground.shares for ground in others])
        if per_class:
            rng = np.random.default_rng((seed, k))
            largest = shares.argmax(1)
            some = [rng.permutation(np.flatnonzero(largest == c))[:per_class] for c in range(classes)]
            drawn = np.concatenate(some)
            features, shares = features[drawn], shares[drawn]
        row, truth, weight = by_rule(shares, rule)
        fitted = FITS[name](features[row], truth, weight, seed)
        said = by_features(fitted, held.features).argmax(0)
        true, most = held.shares.argmax(1), held.shares.max(1)
        for kind, these in (("all", most > 0), ("pure", most == 1), ("mixed", most < 1)):
            confusion[kind] += confusion_matrix(true[these], said[these], classes)
    return {kind: (scores(matrix).kappa, scores(matrix).aa) for kind, matrix in confusion.items()}


def by_rule(shares: NDArray[np.float64], rule: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Which rows of shares (n, K) train, as which class, with which weight."""
    most = shares.max(1)
    if rule == "all, weighted":
        row, truth = np.nonzero(shares)
        return row, truth, shares[row, truth]
    row = np.flatnonzero({"pure": most == 1, "largest": most > 0}.get(rule, most > 0.5))
    weight = most[row] if rule == "mostly, weighted" else np.ones(len(row))
    return row, shares[row].argmax(1), weight


if __name__ == "__main__":
    main()
