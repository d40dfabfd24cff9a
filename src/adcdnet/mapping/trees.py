"""Decision trees as plain arrays: read from a file without executing anything, and followed for many pixels at once.

n pixels | F features | K classes | N nodes of all trees | L leaves of all trees | T trees
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

DEEPEST = 64  # steps from root to leaf
_ROWS = 4096  # pixels that go through a tree together: what they need fits a second-level cache


@dataclass(frozen=True, kw_only=True)
class Trees:
    """A forest, or trees that were boosted.

    kind: "forest": the logits of a pixel are log of the mean of its leaves; "boosting": their sum and `start`.
    root (T,): first node of each tree; its nodes lie up to the root of the next. feature (N,): column that a node
    compares, −1 of a leaf. threshold (N,): values up to it go left. left, right (N,): node that follows; of a leaf,
    left is its row in `values` (L, K). start (K,). inputs: F.
    """

    kind: Literal["forest", "boosting"]
    inputs: int
    root: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    values: NDArray[np.float32]
    start: NDArray[np.float32]

    @property
    def classes(self) -> int:
        return len(self.start)

    @property
    def floor(self) -> float:
        """A tenth of one tree's vote: what a class counts that no tree of a forest has voted for."""
        return 0.1 / len(self.root)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All but kind and inputs, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("kind", "inputs")}

    @classmethod
    def checked(cls, kind: str, inputs: int, classes: int, arrays: Mapping[str, NDArray[Any]]) -> Trees:
        """Of arrays from a file. ValueError unless every path from a root ends in a leaf of its own tree."""
        if kind not in ("forest", "boosting"):
            raise ValueError(f"trees are of kind {kind!r}, must be forest or boosting")
        wanted = {f.name for f in fields(cls)} - {"kind", "inputs"}
        if set(arrays) != wanted:
            raise ValueError(f"trees hold {sorted(arrays)}, need {sorted(wanted)}")
        for name, array in arrays.items():
            kinds = (np.float32, 2 if name == "values" else 1) if name in ("threshold", "values", "start") else None
            dtype, axes = kinds or (np.int32, 1)
            if array.dtype != dtype or array.ndim != axes:
                raise ValueError(f"{name} of trees is {array.dtype} with {array.ndim} axes, need {dtype.__name__}")
        root, feature, left, right = (arrays[name] for name in ("root", "feature", "left", "right"))
        nodes = len(feature)
        if not len(root) or not all(len(arrays[name]) == nodes for name in ("threshold", "left", "right")):
            raise ValueError("trees have no root, or arrays of different lengths")
        if root[0] != 0 or (np.diff(root) <= 0).any() or root[-1] >= nodes:
            raise ValueError("roots of trees do not follow one another")
        if arrays["values"].shape[1] != classes or len(arrays["start"]) != classes:
            raise ValueError(f"leaves of trees hold {arrays['values'].shape[1]} classes, need {classes}")
        if not all(np.isfinite(arrays[name]).all() for name in ("threshold", "values", "start")):
            raise ValueError("trees hold values that are no finite numbers")
        if feature.min() < -1 or feature.max() >= inputs:
            raise ValueError(f"trees compare columns {feature.min()} to {feature.max()}, there are {inputs}")
        leaf, number = feature < 0, np.arange(nodes)
        end = np.append(root[1:], nodes)[np.searchsorted(root, number, side="right") - 1]
        if leaf.any() and not 0 <= left[leaf].min() <= left[leaf].max() < len(arrays["values"]):
            raise ValueError("a leaf of a tree has no values")
        for child in (left[~leaf], right[~leaf]):  # a child lies behind its parent: no path comes back
            if ((child <= number[~leaf]) | (child >= end[~leaf])).any():
                raise ValueError("a node of a tree leads back, or out of it")
        trees = cls(kind=kind, inputs=inputs, **arrays)  # type: ignore[arg-type]
        if max(trees._depths, default=0) > DEEPEST:
            raise ValueError(f"a tree is deeper than {DEEPEST}")
        return trees

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, F) -> (n, K). A pixel's answer does not depend on the pixels it comes with."""
        blocks = [features[start : start + _ROWS] for start in range(0, len(features), _ROWS)]
        if not blocks:
            return np.empty((0, self.classes), np.float32)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return np.concatenate(list(pool.map(self._logits, blocks)))

    def _logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = len(features)
        # one column after another, so that a comparison reads one place: column · rows + row
        flat, row = np.ascontiguousarray(features.T).ravel(), np.arange(rows)
        total = np.zeros((rows, self.classes))
        for tree, depth in zip(self._tables, self._depths, strict=True):
            node = np.zeros(rows, np.intp)
            for _ in range(depth):  # a leaf follows itself
                value = flat.take(tree.column.take(node) * rows + row)
                node = tree.children.take(2 * node + (value > tree.threshold.take(node)))
            total += tree.values.take(node, axis=0)
        if self.kind == "forest":
            total = np.log(np.maximum(total / len(self.root), self.floor))
        return np.asarray(total + self.start, np.float32)

    @cached_property
    def _tables(self) -> list[_Table]:
        ends = np.append(self.root[1:], len(self.feature))
        return [self._table(slice(start, end)) for start, end in zip(self.root, ends, strict=True)]

    def _table(self, own: slice) -> _Table:
        """Of the nodes of one tree, which are counted from its root."""
        leaf = self.feature[own] < 0
        here = np.arange(len(leaf))
        left, right = (np.where(leaf, here, child[own] - own.start) for child in (self.left, self.right))
        values = np.zeros((len(leaf), self.classes), np.float32)
        values[leaf] = self.values[self.left[own][leaf]]
        return _Table(
            column=np.where(leaf, 0, self.feature[own]).astype(np.intp),
            threshold=np.where(leaf, np.float32(np.inf), self.threshold[own]).astype(np.float32),
            children=np.stack((left, right), axis=1).ravel().astype(np.intp),
            values=values,
        )

    @cached_property
    def _depths(self) -> list[int]:
        """Steps from each root to its farthest leaf."""
        depth = np.zeros(len(self.feature), np.int64)
        inner = np.flatnonzero(self.feature >= 0)
        for node in inner.tolist():  # parents come first
            depth[self.left[node]] = depth[self.right[node]] = depth[node] + 1
        return [int(d) for d in np.maximum.reduceat(depth, self.root)]


@dataclass(frozen=True)
class _Table:
    """One tree. children: of node i, left at 2 i and right at 2 i + 1. values (nodes, K): 0 but of leaves."""

    column: NDArray[np.intp]
    threshold: NDArray[np.float32]
    children: NDArray[np.intp]
    values: NDArray[np.float32]
