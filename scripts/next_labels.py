"""How many labels are needed? An analyst simulated on labelled scenes.

    python scripts/next_labels.py FOLDER ... [--side 1] [--places 50] [--rounds 9] [--seeds 5]

A FOLDER holds ms.tif, pan.tif, labels.tif and, in it or above it, classes.csv. The left three fifths of its columns can
be labelled, the right third judges. Each strategy begins with the same random places of side × side MS pixels, gets
their true labels, learns them with a perceptron on context statistics, and asks for more places, round by round.
Printed, a line a scene: kappa that random places have at the end, on the mean of all seeds; with how many places each
strategy reaches that, by a straight line between rounds, mean ± sd over seeds, and how many seeds did (others count as
all places); kappa and AA of each strategy at the end, ± sd.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from adcdnet.assess.suggest import suggest
from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Scene
from adcdnet.mapping.members import by_features
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn.context import CONTEXT_REACH
from adcdnet.training.applicability import features_at, measured
from adcdnet.training.committee.classifiers import fit_perceptron

Chosen = list[tuple[int, int]]


class Analyst:
    """A scene whose left part can be labelled, in squares of `side` pixels all of whose labels are known."""

    def __init__(self, folder: Path, side: int) -> None:
        self.side = side
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
        squares = np.lib.stride_tricks.sliding_window_view(self.truth[:, self.pool] >= 0, (side, side))
        self.free = squares.all(axis=(2, 3))  # by their first pixel

    @property
    def grounds(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Labels of what can be labelled, and of what judges."""
        return self.truth[:, self.pool], self.truth[:, self.judge]

    def start(self, seed: int, count: int) -> Chosen:
        return self.random_places([], np.random.default_rng(seed), count)

    def random_places(self, before: Chosen, rng: np.random.Generator, count: int) -> Chosen:
        """Squares that lie on no other."""
        left = self.left(before)
        found: Chosen = []
        for r, c in rng.permutation(np.argwhere(left)):
            if left[r, c]:
                found.append((int(r), int(c)))
                self.take(left, found[-1], False)
            if len(found) == count:
                break
        return found

    def left(self, places: Chosen) -> NDArray[np.bool_]:
        """Squares that can be labelled and touch none of these, by their first pixel."""
        left = np.array(self.free)
        for place in places:
            self.take(left, place, False)
        return left

    def take(self, squares: NDArray[np.generic], place: tuple[int, int], value: float) -> None:
        """Set those that touch a place to a value."""
        near = (slice(max(0, at - self.side + 1), at + self.side) for at in place)
        squares[tuple(near)] = value

    def labelled(self, places: Chosen) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        """Labels of the places (h, w) and the place each pixel lies in, −1 elsewhere."""
        index, place = np.full(self.truth.shape, -1, np.int16), np.full(self.truth.shape, -1)
        for k, (r, c) in enumerate(places):
            square = slice(r, r + self.side), slice(c, c + self.side)
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
        weight = np.bincount(y)[y] ** -TrainConfig().class_balance  # as `train` weighs them
        network = fit_perceptron(self.x[known], y, weight / weight.mean(), seed)
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
    windows = np.lib.stride_tricks.sliding_window_view(doubt, (analyst.side, analyst.side)).mean(axis=(2, 3))
    windows = np.where(analyst.left(places), windows, -np.inf)
    found: Chosen = []
    while len(found) < count and np.isfinite(windows.max()):
        r, c = np.unravel_index(int(windows.argmax()), windows.shape)
        found.append((int(r), int(c)))
        analyst.take(windows, found[-1], -np.inf)
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
    can = np.where(analyst.truth >= 0, p, np.nan)[:, :, analyst.pool].astype(np.float32)  # nothing is known elsewhere
    found = suggest(
        can,
        analyst.classes,
        n=count,
        side=analyst.side,
        trust=trust,
        labelled=index[:, analyst.pool],
        seed=seed,
    )
    return [(place.row, place.col) for place in found]


def at_random(analyst: Analyst, p: NDArray[np.float32], places: Chosen, count: int, seed: int) -> Chosen:
    return analyst.random_places(places, np.random.default_rng((seed, len(places))), count)


STRATEGIES: dict[str, Callable[..., Chosen]] = {"random": at_random, "uncertain": uncertain, "suggest": suggested}


def main() -> None:
    """A line for each scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--side", type=int, default=1)
    parser.add_argument("--places", type=int, default=50, help="at the start, and more in each round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    counts = [given.places * (k + 1) for k in range(given.rounds + 1)]
    names = list(STRATEGIES)
    print(f"| scene | goal | {' | '.join(names)} | {' | '.join(f'end, {name}' for name in names)} |")
    print("|" + "---|" * (2 + 2 * len(names)), flush=True)
    for folder in given.folders:
        analyst = Analyst(folder, given.side)
        if min(len(np.unique(ground[ground >= 0])) for ground in analyst.grounds) < 2:
            print(f"| {folder.parent.name}/{folder.name} | one class only |" + " |" * 2 * len(names), flush=True)
            continue
        curves = {
            name: [_curve(analyst, strategy, given.rounds, given.places, seed) for seed in range(given.seeds)]
            for name, strategy in STRATEGIES.items()
        }
        goal = mean(curve[-1][0] for curve in curves["random"])
        cells = []
        for own in curves.values():
            needed = [_reached(counts, [kappa for kappa, _ in curve], goal) for curve in own]
            reached = sum(one is not None for one in needed)
            cells.append(f"{_spread([one or counts[-1] for one in needed], '.0f')} ({reached})")
        for own in curves.values():
            kappas, aas = zip(*(curve[-1] for curve in own), strict=True)
            cells.append(f"{_spread(kappas, '.3f')}; {_spread(aas, '.3f')}")
        print(f"| {folder.parent.name}/{folder.name} | {goal:.3f} | {' | '.join(cells)} |", flush=True)


def _reached(counts: Sequence[int], kappas: Sequence[float], goal: float) -> float | None:
    """With how many places a curve first reaches the goal."""
    if kappas[0] >= goal:
        return counts[0]
    for k in range(1, len(counts)):
        if kappas[k] >= goal:
            part = (goal - kappas[k - 1]) / (kappas[k] - kappas[k - 1])
            return counts[k - 1] + part * (counts[k] - counts[k - 1])
    return None


def _spread(values: Sequence[float], form: str) -> str:
    spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


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
