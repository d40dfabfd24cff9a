"""Random forest and histogram gradient boosting on hand-made features, each tuned on the validation part.

Breiman 2001, Machine Learning 45, and Friedman 2001, Annals of Statistics 29, both as scikit-learn builds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from adcdnet.benchmark.methods.classifier import BALANCE, kappa_at_tau_1, on_map, shares_drawn, to_classify
from adcdnet.benchmark.methods.features import BandRoles, features
from adcdnet.geo.scene import Pixels
from adcdnet.training.area import TrainingArea

_BINS = 64  # of a feature, in boosting: where rows have weights, scikit-learn needs long to find the bins' edges
_FLOOR = 0.1  # of one tree: what a class counts that no tree of the forest has voted for


@dataclass(frozen=True)
class TreeClassifier:
    """Trees on features. parameters: nodes of all trees."""

    model: Any
    bands: BandRoles
    drawn_shares: tuple[float, ...]
    parameters: int

    def logits(self, pixels: Pixels, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Log of the predicted probabilities (K, h, w), see `Classifier`."""
        chosen = to_classify(pixels, where)
        if not chosen.any():
            return np.full((len(self.drawn_shares), *chosen.shape), np.nan, np.float32)
        return on_map(_log_posterior(self.model, features(pixels, self.bands)[chosen]), chosen)


def fit_forest(
    area: TrainingArea, pixels: Pixels, bands: BandRoles, *, seed: int, trees: int = 300, trees_to_choose: int = 30
) -> TreeClassifier:
    """The leaf size and the share of features a cut may choose from that gave the best validation kappa.

    They are chosen with a part of the trees; the others are then added. About 40 s on one core for 15,000 training
    pixels.
    """
    candidates = [
        RandomForestClassifier(
            min(trees, trees_to_choose), min_samples_leaf=leaf, max_features=share, random_state=seed, warm_start=True
        )
        for share in ("sqrt", 0.3)
        for leaf in (3, 10, 30)
    ]
    rows = _Rows.of(area, pixels, bands)
    forest, _ = rows.choose([(candidate, BALANCE) for candidate in candidates])
    if len(forest.estimators_) < trees:
        rows.fit(forest.set_params(n_estimators=trees), BALANCE)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return TreeClassifier(forest, bands, shares_drawn(area), nodes)


def fit_boosting(
    area: TrainingArea, pixels: Pixels, bands: BandRoles, *, seed: int, rounds: int = 100
) -> TreeClassifier:
    """Size of the trees, and classes unweighted or balanced, as gave the best validation kappa.

    About 40 s on one core for 15,000 training pixels.
    """
    candidates = [
        (
            HistGradientBoostingClassifier(
                max_iter=rounds,
                max_leaf_nodes=leaves,
                l2_regularization=1.0,
                max_bins=_BINS,
                early_stopping=False,
                random_state=seed,
            ),
            balance,
        )
        for balance in (0.0, 1.0)
        for leaves in (7, 31)
    ]
    boosting, balance = _Rows.of(area, pixels, bands).choose(candidates)
    # the fitted trees have no public name
    nodes = sum(len(tree.nodes) for trees in boosting._predictors for tree in trees)
    return TreeClassifier(boosting, bands, shares_drawn(area, balance), nodes)


@dataclass(frozen=True)
class _Rows:
    """Features x (n, F) and classes y (n) of the labelled training pixels, and of the validation pixels."""

    area: TrainingArea
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    x_held: NDArray[np.float32]
    y_held: NDArray[np.int64]

    @classmethod
    def of(cls, area: TrainingArea, pixels: Pixels, bands: BandRoles) -> _Rows:
        table = features(pixels, bands)
        train, held = area.label >= 0, area.validation_label >= 0
        return cls(area, table[train], area.label[train], table[held], area.validation_label[held])

    def fit(self, model: Any, balance: float) -> None:
        weight = (self.area.class_counts.astype(float) ** -balance)[self.y]
        model.fit(self.x, self.y, sample_weight=weight / weight.mean() if balance else None)

    def choose(self, candidates: Sequence[tuple[Any, float]]) -> tuple[Any, float]:
        """The fitted model and balance with the best validation kappa; the first where nothing was held back."""
        if not self.area.has_validation:
            candidates = candidates[:1]
        for model, balance in candidates:
            self.fit(model, balance)
        if len(candidates) == 1:
            return candidates[0]
        return max(candidates, key=lambda candidate: self._kappa(*candidate))

    def _kappa(self, model: Any, balance: float) -> float:
        shares = shares_drawn(self.area, balance)
        return kappa_at_tau_1(_log_posterior(model, self.x_held), self.y_held, self.area, shares)


def _log_posterior(model: Any, x: NDArray[np.float32]) -> NDArray[np.floating]:
    """(K, n)"""
    p = model.predict_proba(x).T
    floor = _FLOOR / len(model.estimators_) if isinstance(model, RandomForestClassifier) else 1e-6
    return np.asarray(np.log(np.maximum(p, floor)))
