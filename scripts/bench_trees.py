"""How fast boosted trees answer, ours as arrays and scikit-learn's own: python scripts/bench_trees.py"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from adcdnet.training.committee.classifiers import fit_boosting

PIXELS, FEATURES, CLASSES, REPEATS = 20_000, 40, 5, 5


def main() -> None:
    """Print microseconds a pixel of both, and their ratio; best of several calls in turn."""
    rng = np.random.default_rng(0)
    y = rng.integers(CLASSES, size=8000)
    x = (rng.normal(size=(8000, FEATURES)) + 0.3 * y[:, None]).astype(np.float32)
    new = rng.normal(size=(PIXELS, FEATURES)).astype(np.float32)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        trees = fit_boosting(x, y, np.ones(len(y)), 0)
        theirs = HistGradientBoostingClassifier(max_leaf_nodes=15, max_bins=64, early_stopping=False).fit(x, y)
        best = {"ours": np.inf, "scikit-learn": np.inf}
        calls: dict[str, Callable[..., object]] = {"ours": trees.logits, "scikit-learn": theirs.decision_function}
        for _ in range(REPEATS):
            for name, call in calls.items():
                started = time.perf_counter()
                call(new)
                best[name] = min(best[name], (time.perf_counter() - started) / PIXELS * 1e6)
    for name, microseconds in best.items():
        print(f"{name}: {microseconds:.1f} µs a pixel, {len(trees.root)} trees")
    print(f"ratio: {best['scikit-learn'] / best['ours']:.1f}")


if __name__ == "__main__":
    main()
