"""Members that see context statistics of single MS pixels: a forest, boosting and a perceptron.

Breiman 2001, Machine Learning 45, and Friedman 2001, Annals of Statistics 29, both as scikit-learn builds them. Their
settings are fixed: chosen on development scenes (docs/notes/trials.md), not on the labels of a user.
n labelled pixels | F features | K classes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from torch.nn import functional as F

from adcdnet.geo.grid import tiles
from adcdnet.mapping.members import features_of
from adcdnet.mapping.trees import DEEPEST, Trees
from adcdnet.nn.context import CONTEXT_REACH, ContextBranch
from adcdnet.training.area import TrainingArea

MOST_PIXELS = 2**18  # labelled pixels that one is trained on
_WINDOW = 64  # MS pixels per side whose features are computed at once
_TREES, _LEAF = 200, 3  # of the forest; pixels in a leaf at least
_ROUNDS, _LEAVES, _RATE = 100, 15, 0.1  # of boosting: rounds, leaves of a tree, learning rate
_BINS = 64  # of a feature, in boosting: where rows have weights, scikit-learn needs long to find the bins' edges
_STEPS, _PASSES, _BATCH = 4000, 60, 256  # of the perceptron: at most so many steps, and so often each label


def features_and_labels(area: TrainingArea, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(n, F) and class indices (n,) of the labelled MS pixels that train, or of `MOST_PIXELS` of them."""
    chosen = np.zeros(area.label.shape, bool)
    chosen[tuple(area.labelled[rng.permutation(len(area.labelled))[:MOST_PIXELS]].T)] = True
    features, truth = [], []
    height, width = area.split.part.shape
    for window in tiles(height, width, _WINDOW):
        here = chosen[window.slices]
        if here.any():
            ms, pan = area.tile(window, border=CONTEXT_REACH)
            images = np.ascontiguousarray(ms), np.ascontiguousarray(pan)
            features.append(features_of(*images, here, sensors=area.network.sensors))
            truth.append(area.label[window.slices][here])
    return np.concatenate(features), np.concatenate(truth)


def fit_forest(x: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64], seed: int) -> Trees:
    """weight (n,): of each pixel."""
    forest = RandomForestClassifier(
        _TREES, min_samples_leaf=_LEAF, max_depth=DEEPEST, max_features="sqrt", random_state=seed
    )
    forest.fit(x, y, sample_weight=weight)
    grown = [tree.tree_ for tree in forest.estimators_]
    return _joined(
        "forest",
        x.shape[1],
        [
            (
                np.where(tree.children_left < 0, -1, tree.feature),
                tree.threshold,
                tree.children_left,
                tree.children_right,
                tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True),
            )
            for tree in grown
        ],
        np.zeros(len(forest.classes_)),
    )


def fit_boosting(x: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64], seed: int) -> Trees:
    """weight (n,): of each pixel. Of two classes scikit-learn boosts the log odds of the second alone."""
    boosting = HistGradientBoostingClassifier(
        max_iter=_ROUNDS,
        max_leaf_nodes=_LEAVES,
        learning_rate=_RATE,
        l2_regularization=1.0,
        max_bins=_BINS,
        early_stopping=False,
        random_state=seed,
    )
    boosting.fit(x, y, sample_weight=weight)
    start = np.zeros(len(boosting.classes_))
    start[-boosting._baseline_prediction.size :] = boosting._baseline_prediction.ravel()  # no public name
    parts = []
    for of_round in boosting._predictors:  # the fitted trees have no public name
        for k, tree in enumerate(of_round, start=len(start) - len(of_round)):
            nodes = tree.nodes
            leaf = nodes["is_leaf"].astype(bool)
            values = np.zeros((len(nodes), len(start)))
            values[:, k] = np.where(leaf, nodes["value"], 0)
            left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
            feature = np.where(leaf, -1, nodes["feature_idx"].astype(np.int64))
            parts.append((feature, nodes["num_threshold"], left, right, values))
    return _joined("boosting", x.shape[1], parts, start)


def _joined(
    kind: str,
    inputs: int,
    trees: Sequence[tuple[NDArray[Any], ...]],
    start: NDArray[np.float64],
) -> Trees:
    """trees: of each, for its nodes: feature (−1 of a leaf), threshold, left, right (n,) and values (n, K)."""
    root = np.cumsum([0, *(len(tree[0]) for tree in trees)])[:-1]
    feature = np.concatenate([tree[0] for tree in trees]).astype(np.int32)
    leaf = feature < 0
    left, right = (
        np.concatenate([tree[side] + first for tree, first in zip(trees, root, strict=True)]) for side in (2, 3)
    )
    threshold = np.where(leaf, 0, np.concatenate([tree[1] for tree in trees]))
    single = threshold.astype(np.float32)
    # features are float32: x <= threshold holds for the same of them with the next float32 below it
    single = np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single)
    left[leaf], right[leaf] = np.arange(int(leaf.sum())), -1
    return Trees.checked(
        kind,
        inputs,
        len(start),
        {
            "root": root.astype(np.int32),
            "feature": feature,
            "threshold": single,
            "left": left.astype(np.int32),
            "right": right.astype(np.int32),
            "values": np.concatenate([tree[4] for tree in trees])[leaf].astype(np.float32),
            "start": start.astype(np.float32),
        },
    )


def fit_perceptron(
    x: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64], seed: int
) -> ContextBranch:
    """weight (n,): of each pixel."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the first weights and of dropout
        network = ContextBranch(x.shape[1], int(y.max()) + 1)
        steps = min(_STEPS, ceil(_PASSES * len(x) / _BATCH))
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(2, steps))
        inputs, truth, weights = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(weight.astype(np.float32))
        for _ in range(steps):
            some = torch.from_numpy(rng.integers(len(x), size=_BATCH))
            each = F.cross_entropy(network(inputs[some]), truth[some], reduction="none")
            loss = (weights[some] * each).sum() / weights[some].sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
    return network.eval().requires_grad_(False)


FITS: dict[str, Callable[..., Trees | ContextBranch]] = {
    "forest": fit_forest,
    "boosting": fit_boosting,
    "perceptron": fit_perceptron,
}
