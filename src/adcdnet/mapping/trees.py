"""Decision trees as plain arrays: read from a file without executing anything, and followed for many pixels at once.

n pixels | F features | K classes | N nodes of all trees | L leaves of all trees | T trees
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

DEEPEST = 64  # steps from root to leaf
_ROWS = 4096  # pixels that go through a tree together: what they need fits a second-level cache
_BITS = 16  # leaves of a tree that are marked in one number
_NUMBERS = np.arange(2**_BITS)
_LEFTMOST: NDArray[np.uint8] = np.log2(~_NUMBERS & (_NUMBERS + 1)).astype(np.uint8)  # the lowest bit that is 0


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
        columns = np.ascontiguousarray(features.T)
        total = np.zeros((self.classes, len(features)))
        for tree in self._followed:
            leaf = tree.leaf(columns)
            for k in tree.classes:
                total[k] += tree.values[k].take(leaf)
        if self.kind == "forest":
            total = np.log(np.maximum(total / len(self.root), self.floor))
        return np.asarray(total.T + self.start, np.float32)

    @cached_property
    def _followed(self) -> list[_Tree]:
        ends = np.append(self.root[1:], len(self.feature))
        trees: list[_Tree] = []
        for start, end, depth in zip(self.root, ends, self._depths, strict=True):
            own = slice(start, end)
            leaf = self.feature[own] < 0
            here = np.arange(len(leaf))
            left, right = (np.where(leaf, here, child[own] - start) for child in (self.left, self.right))
            values = np.ascontiguousarray(self.values[self.left[own][leaf]].T)
            number = np.cumsum(leaf) - 1  # of each leaf, in the order of nodes
            column = np.where(leaf, 0, self.feature[own])
            nodes = _Nodes(column, self.threshold[own], left, right, leaf, number, values, depth)
            trees.append(_Small.of(nodes) if leaf.sum() <= _BITS else _Large.of(nodes))
        return trees

    @cached_property
    def _depths(self) -> list[int]:
        """Steps from each root to its farthest leaf."""
        depth = np.zeros(len(self.feature), np.int64)
        inner = np.flatnonzero(self.feature >= 0)
        for node in inner.tolist():  # parents come first
            depth[self.left[node]] = depth[self.right[node]] = depth[node] + 1
        return [int(d) for d in np.maximum.reduceat(depth, self.root)]


class _Nodes(NamedTuple):
    """Those of one tree, counted from its root. number: of each leaf, from 0; its column in values (K, leaves)."""

    column: NDArray[np.integer]
    threshold: NDArray[np.float32]
    left: NDArray[np.integer]
    right: NDArray[np.integer]
    leaf: NDArray[np.bool_]
    number: NDArray[np.integer]
    values: NDArray[np.float32]
    depth: int


@dataclass(frozen=True)
class _Tree:
    """values (K, leaves); classes: those whose values are not all 0."""

    values: NDArray[np.float32]
    classes: tuple[int, ...]

    def leaf(self, columns: NDArray[np.float32]) -> NDArray[np.integer]:
        """Which leaf each pixel of (F, n) ends in, (n,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Large(_Tree):
    """Followed from node to node, where a leaf follows itself. children: of node i, left at 2 i, right at 2 i + 1."""

    column: NDArray[np.intp]
    threshold: NDArray[np.float32]
    children: NDArray[np.intp]
    number: NDArray[np.intp]
    depth: int

    @classmethod
    def of(cls, nodes: _Nodes) -> _Large:
        return cls(
            nodes.values,
            _used(nodes.values),
            nodes.column.astype(np.intp),
            nodes.threshold,
            np.stack((nodes.left, nodes.right), axis=1).ravel().astype(np.intp),
            nodes.number.astype(np.intp),
            nodes.depth,
        )

    def leaf(self, columns: NDArray[np.float32]) -> NDArray[np.integer]:
        rows = columns.shape[1]
        # one column after another, so that a comparison reads one place: column · rows + row
        flat, row, node = columns.ravel(), np.arange(rows), np.zeros(rows, np.intp)
        for _ in range(self.depth):
            value = flat.take(self.column.take(node) * rows + row)
            node = self.children.take(2 * node + (value > self.threshold.take(node)))
        return self.number.take(node)


@dataclass(frozen=True)
class _Small(_Tree):
    """All comparisons at once: each that sends a pixel to the right rules out the leaves on its left, and of those that
    remain the leftmost is the pixel's own (Lucchese et al. 2015, QuickScorer, doi:10.1145/2766462.2767733).

    inner (m,): columns that are compared, with threshold (m, 1); ruled_out (m, 1): a bit for each leaf, from the left.
    """

    inner: NDArray[np.intp]
    threshold: NDArray[np.float32]
    ruled_out: NDArray[np.uint16]

    @classmethod
    def of(cls, nodes: _Nodes) -> _Small:
        order: list[int] = []  # leaves from left to right
        below: dict[int, int] = {}  # of each node, the bits of its leaves
        for node in _children_first(nodes):
            if nodes.leaf[node]:
                below[node] = 1 << len(order)
                order.append(int(nodes.number[node]))
            else:
                below[node] = below[int(nodes.left[node])] | below[int(nodes.right[node])]
        inner = np.flatnonzero(~nodes.leaf)
        bits = np.array([below[int(nodes.left[node])] for node in inner], np.uint16)[:, None]
        values = np.ascontiguousarray(nodes.values[:, order])
        column = nodes.column[inner].astype(np.intp)
        return cls(values, _used(values), column, nodes.threshold[inner][:, None], bits)

    def leaf(self, columns: NDArray[np.float32]) -> NDArray[np.integer]:
        if not len(self.inner):
            return np.zeros(columns.shape[1], np.intp)
        right = columns[self.inner] > self.threshold
        out: NDArray[np.uint16] = np.bitwise_or.reduce(right * self.ruled_out, axis=0)
        return _LEFTMOST.take(out)


def _children_first(nodes: _Nodes) -> Iterator[int]:
    """Each node after all below it, the left ones first."""
    waiting = [(0, False)]
    while waiting:
        node, below_done = waiting.pop()
        if below_done or nodes.leaf[node]:
            yield node
        else:
            waiting += [(node, True), (int(nodes.right[node]), False), (int(nodes.left[node]), False)]


def _used(values: NDArray[np.float32]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(values.any(axis=1)).tolist())
