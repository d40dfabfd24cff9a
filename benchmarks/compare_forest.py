"""The trained network against a random forest: same training pixels, same test pixels, same operating points.

    python benchmarks/compare_forest.py RUN --ms M.tif --pan P.tif --labels L.tif [--classes C.csv] [--trees 500]

The forest gets, per MS pixel: the bands, normalised differences of the given near-infrared, red and green bands, means
and deviations in 3×3 and 7×7 MS windows; of PAN mean, deviation, minimum, maximum and gradient energy of the pixel's
own cells, and mean and deviation in windows of 4 and 8 MS pixels. Its leaf size and number of features are chosen on
the validation part by kappa at tau 1; classes are weighted (class frequency)^-balance in the forest as in the network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from adcdnet.checkpoint import Model
from adcdnet.classes import ClassTable
from adcdnet.inference import default_engine, scene_logits
from adcdnet.labels import read_labels
from adcdnet.metrics import Scores, confusion_matrix, scores
from adcdnet.posterior import posterior
from adcdnet.sampling import TEST, TRAIN, VALIDATION
from adcdnet.scene import Pixels, Scene, read_band


def features(pixels: Pixels, ratio: int, *, green: int, red: int, nir: int) -> NDArray[np.float32]:
    """Features (H, W, F) of every MS pixel; band numbers from 0."""
    ms, pan = pixels.ms.astype(np.float64), pixels.pan.astype(np.float64)
    columns = list(ms)
    for other in (red, green):
        columns.append((ms[nir] - ms[other]) / np.maximum(ms[nir] + ms[other], 1e-6))
    for band in ms:
        columns += _window(band, 3) + _window(band, 7)
    height, width = ms.shape[1:]
    for band in pan:
        cells = band.reshape(height, ratio, width, ratio).transpose(0, 2, 1, 3).reshape(height, width, -1)
        columns += [cells.mean(-1), cells.std(-1), cells.min(-1), cells.max(-1)]
        for side in (4 * ratio, 8 * ratio):
            columns += [x[ratio // 2 :: ratio, ratio // 2 :: ratio] for x in _window(band, side)]
        energy = ndimage.sobel(band, 0) ** 2 + ndimage.sobel(band, 1) ** 2
        columns.append(energy.reshape(height, ratio, width, ratio).mean((1, 3)))
    return np.stack(columns, -1).astype(np.float32)


def _window(band: NDArray[np.float64], side: int) -> list[NDArray[np.float64]]:
    mean = ndimage.uniform_filter(band, side, mode="reflect")
    square = ndimage.uniform_filter(band * band, side, mode="reflect")
    return [mean, np.sqrt(np.maximum(square - mean * mean, 0))]


def fit_forest(
    x: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64], trees: int, leaf: int, share: float | str
) -> RandomForestClassifier:
    forest = RandomForestClassifier(
        trees, min_samples_leaf=leaf, max_features=share, n_jobs=2, random_state=0, class_weight=None
    )
    return forest.fit(x, y, sample_weight=weight[y])


def log_posterior(forest: RandomForestClassifier, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K, n); a share of no tree at all counts as a tenth of one tree."""
    return np.log(np.maximum(forest.predict_proba(x), 0.1 / len(forest.estimators_))).T


def score(p: NDArray[np.float32], truth: NDArray[np.int64]) -> Scores:
    return scores(confusion_matrix(truth, p.argmax(-1), p.shape[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--ms", type=Path, required=True)
    parser.add_argument("--pan", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--classes", type=Path)
    parser.add_argument("--bands", type=int, nargs=3, default=(1, 2, 3), help="green, red, near infrared, from 0")
    parser.add_argument("--trees", type=int, default=500)
    arguments = parser.parse_args()
    model = Model.load(arguments.run)
    table = ClassTable.read(arguments.classes) if arguments.classes else None
    with Scene.open(arguments.ms, arguments.pan) as scene:
        labels = read_labels(arguments.labels, scene.grid, classes=table)
        pixels = scene.read(scene.grid.window)
        part = read_band(arguments.run / "split.tif")[0]
        index = np.where(pixels.valid, labels.index, -1).astype(np.int64)
        where = {n: (index >= 0) & (part == n) for n in (TRAIN, VALIDATION, TEST)}
        x = features(pixels, scene.ratio, green=arguments.bands[0], red=arguments.bands[1], nir=arguments.bands[2])
        logits = np.empty((len(labels.classes), *index.shape), np.float32)
        started = time.perf_counter()
        for window, _, values in scene_logits(model, scene, engine=default_engine(model.network)):
            logits[:, *window.slices] = values
        seconds = time.perf_counter() - started
    y = {n: index[m] for n, m in where.items()}
    counts = np.bincount(y[TRAIN], minlength=len(labels.classes)).astype(float)
    drawn = np.asarray(model.drawn_shares)
    weight = drawn / (counts / counts.sum())

    def read(log_q: NDArray[np.floating], tau: float) -> NDArray[np.float32]:
        return posterior(log_q, model.label_shares, model.drawn_shares, tau).T

    best = (-1.0, 1, "sqrt")
    if len(y[VALIDATION]):
        for leaf in (1, 3, 10):
            for share in ("sqrt", 0.3):
                forest = fit_forest(x[where[TRAIN]], y[TRAIN], weight, 150, leaf, share)
                kappa = score(read(log_posterior(forest, x[where[VALIDATION]]), 1.0), y[VALIDATION]).kappa
                best = max(best, (kappa, leaf, share), key=lambda b: b[0])
    started = time.perf_counter()
    forest = fit_forest(x[where[TRAIN]], y[TRAIN], weight, arguments.trees, best[1], best[2])
    fitted = time.perf_counter() - started
    print(
        f"forest: {arguments.trees} trees, leaf {best[1]}, features {best[2]}, {x.shape[-1]} features, {fitted:.0f} s"
    )
    print(f"network: mapped in {seconds:.1f} s")
    print(f"{'':22}{'tau':>5}{'OA':>8}{'AA':>8}{'kappa':>8}")
    for n, name in ((VALIDATION, "validation"), (TEST, "test")):
        if not len(y[n]):
            continue
        log_q = {"forest": log_posterior(forest, x[where[n]]), "network": logits[:, where[n]]}
        for tau in (0.0, 0.5, 1.0):
            for method, values in log_q.items():
                s = score(read(values, tau), y[n])
                print(f"{name + ' ' + method:22}{tau:5.1f}{s.oa:8.3f}{s.aa:8.3f}{s.kappa:8.3f}")


if __name__ == "__main__":
    main()
