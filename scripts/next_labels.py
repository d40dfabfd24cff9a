"""How many places must be labelled? An analyst simulated on labelled scenes.

    python scripts/next_labels.py FOLDER ... [--seeds 5] [--rounds 5] [--places 20]

A FOLDER holds ms.tif, pan.tif, labels.tif and, in it or above it, classes.csv. The left three fifths of its columns can
be labelled, the right third judges. Each strategy begins with the same 20 random places of 5 × 5 pixels, gets their
true labels, learns them with a perceptron on context statistics, and asks for more places, round by round. Printed:
kappa ± sd over seeds; AA on the judging ground after each round, and with how many places each strategy reaches the
kappa that random places reach at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from adcdnet.assess.suggest import suggest
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Scene
from adcdnet.mapping.members import by_features
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn.context import CONTEXT_REACH
from adcdnet.training.applicability import features_at, measured
from adcdnet.training.committee.classifiers import fit_perceptron

SIDE = 5
Chosen = list[tuple[int, int]]


class Analyst:
    """A scene whose left part can be labelled. place (h, w): which place a pixel was labelled in, −1 none."""

    def __init__(self, folder: Path) -> None:
        table = next(path for path in (folder / "classes.csv", folder.parent / "classes.csv") if path.exists())
        with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
            self.classes = ClassTable.read(table)
            self.truth = read_labels(folder / "labels.tif", scene.grid, classes=self.classes).index
            pixels = scene.read(scene.grid.window)
        statistics = BandStatistics.measure(*pixels)
        at = np.indices(self.truth.shape).reshape(2, -1)
        self.x = features_at(pixels, statistics, *at).reshape(*self.truth.shape, -1)
        width = self.truth.shape[1]
        self.pool = slice(0, int(0.6 * width))
        self.judge = slice(int(0.6 * width) + 2 * CONTEXT_REACH, width)

    def start(self, seed: int, count: int) -> Chosen:
        return self.random_places([], np.random.default_rng(seed), count)

    def random_places(self, before: Chosen, rng: np.random.Generator, count: int) -> Chosen:
        """Squares with a label in their middle that lie on no other."""
        middle = SIDE // 2
        inner = self.truth[middle:-middle, self.pool][:, middle:-middle]
        corners = [(int(r), int(c)) for r, c in np.argwhere(inner >= 0)]
        found: Chosen = []
        for k in rng.permutation(len(corners)):
            corner = corners[k]
            if all(max(abs(corner[0] - r), abs(corner[1] - c)) >= SIDE for r, c in before + found):
                found.append(corner)
            if len(found) == count:
                break
        return found

    def can_label(self, row: int, col: int) -> bool:
        """Whether the truth of a square is known in its middle; the analyst leaves others out."""
        return bool(self.truth[row + SIDE // 2, col + SIDE // 2] >= 0)

    def labelled(self, places: Chosen) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        """Labels of the places (h, w), −1 elsewhere, and the place each lies in."""
        index, place = np.full(self.truth.shape, -1, np.int16), np.full(self.truth.shape, -1)
        for k, (r, c) in enumerate(places):
            square = slice(r, r + SIDE), slice(c, c + SIDE)
            index[square], place[square] = self.truth[square], k
        return index, place

    def learnt(self, index: NDArray[np.int16], seed: int) -> NDArray[np.float32]:
        """(K, h, w) probabilities of all of the scene."""
        known = index >= 0
        present, y = np.unique(index[known], return_inverse=True)
        p = np.zeros((len(self.classes), *index.shape), np.float32)
        if len(present) < 2:
            p[present[0]] = 1
            return p
        network = fit_perceptron(self.x[known], y, np.ones(len(y)), seed)
        p[present] = softmax(by_features(network, self.x.reshape(-1, self.x.shape[-1])), axis=0).reshape(
            len(present), *index.shape
        )
        return p

    def judged(self, p: NDArray[np.float32]) -> tuple[float, float]:
        """Kappa and AA on the judging ground."""
        truth, said = (a[:, self.judge] for a in (self.truth, p.argmax(axis=0)))
        known = truth >= 0
        found = scores(confusion_matrix(truth[known].astype(np.int64), said[known], len(self.classes)))
        return found.kappa, found.aa


def uncertain(analyst: Analyst, p: NDArray[np.float32], places: Chosen, count: int, seed: int) -> Chosen:
    """The squares with the lowest largest probability, one after another."""
    doubt = 1 - p.max(axis=0)[:, analyst.pool]
    for r, c in places:
        doubt[r : r + SIDE, c : c + SIDE] = -np.inf
    windows = np.lib.stride_tricks.sliding_window_view(doubt, (SIDE, SIDE)).mean(axis=(2, 3))
    found: Chosen = []
    while len(found) < count and np.isfinite(windows).any():
        r, c = (int(v) for v in np.unravel_index(int(windows.argmax()), windows.shape))
        if analyst.can_label(r, c):
            found.append((r, c))
        windows[max(0, r - SIDE + 1) : r + SIDE, max(0, c - SIDE + 1) : c + SIDE] = -np.inf
    return found


def suggested(analyst: Analyst, p: NDArray[np.float32], places: Chosen, count: int, seed: int) -> Chosen:
    """As `adcdnet suggest`."""
    index, place = analyst.labelled(places)
    known = index >= 0
    rng = np.random.default_rng(seed)
    fold = place[known] % 5
    area = measured(analyst.x[known], index[known].astype(np.int64), fold, p[:, known], rng)
    trust = None
    if area is not None:
        apart = area.dissimilarity(analyst.x.reshape(-1, analyst.x.shape[-1])).reshape(index.shape)
        trust = np.stack([apart / area.threshold, 1 - p.max(axis=0)]).astype(np.float32)[:, :, analyst.pool]
    shown = np.where(place >= 0, np.maximum(index, 0), -1).astype(np.int16)[:, analyst.pool]
    found = suggest(
        p[:, :, analyst.pool], analyst.classes, n=4 * count, side=SIDE, trust=trust, labelled=shown, seed=seed
    )
    able = [(place.row, place.col) for place in found if analyst.can_label(place.row, place.col)]
    drawn = {(place.row, place.col) for place in found if place.reason.startswith("drawn at random")}
    chosen = [place for place in able if place not in drawn][: (count + 1) // 2]
    return chosen + [place for place in able if place in drawn][: count - len(chosen)]


def at_random(analyst: Analyst, p: NDArray[np.float32], places: Chosen, count: int, seed: int) -> Chosen:
    return analyst.random_places(places, np.random.default_rng((seed, len(places))), count)


STRATEGIES: dict[str, Callable[..., Chosen]] = {"random": at_random, "uncertain": uncertain, "suggest": suggested}


def main() -> None:
    """A table for each scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--places", type=int, default=20)
    given = parser.parse_args()
    counts = [given.places * (k + 1) for k in range(given.rounds + 1)]
    for folder in given.folders:
        analyst = Analyst(folder)
        print(f"| {folder.name}, places | {' | '.join(map(str, counts))} | reaches random's end with |")
        print("|" + "---|" * (len(counts) + 2))
        curves = {
            name: [_curve(analyst, strategy, given.rounds, given.places, seed) for seed in range(given.seeds)]
            for name, strategy in STRATEGIES.items()
        }
        goal = mean(curve[-1][0] for curve in curves["random"])
        for name, own in curves.items():
            rounds = [tuple(zip(*of_seeds, strict=True)) for of_seeds in zip(*own, strict=True)]  # kappas, AAs
            figures = [f"{mean(k):.3f}{f' ± {stdev(k):.3f}' if len(k) > 1 else ''}; {mean(a):.3f}" for k, a in rounds]
            reached = next((str(n) for n, (k, _) in zip(counts, rounds, strict=True) if mean(k) >= goal), "–")
            print(f"| {name} | {' | '.join(figures)} | {reached} |", flush=True)


def _curve(
    analyst: Analyst, strategy: Callable[..., Chosen], rounds: int, count: int, seed: int
) -> list[tuple[float, float]]:
    places = analyst.start(seed, count)
    found = []
    for k in range(rounds + 1):
        p = analyst.learnt(analyst.labelled(places)[0], seed)
        found.append(analyst.judged(p))
        if k < rounds:
            places = places + strategy(analyst, p, places, count, seed)
    return found


if __name__ == "__main__":
    main()
