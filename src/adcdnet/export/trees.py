"""Trees as operations on tensors, so that a graph can hold them; `mapping.trees` is the definition.

n pixels | F features | K classes | T trees
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from adcdnet.mapping.trees import Trees


class TreeOperations(nn.Module):
    """All trees at once, from node to node, where a leaf follows itself: (n, F) -> logits (n, K)."""

    def __init__(self, trees: Trees) -> None:
        super().__init__()
        leaf, here = trees.feature < 0, np.arange(len(trees.feature))
        children = np.stack([np.where(leaf, here, side) for side in (trees.left, trees.right)], axis=1)
        for name, array in (
            ("root", trees.root.astype(np.int64)),
            ("column", np.where(leaf, 0, trees.feature).astype(np.int64)),
            ("threshold", trees.threshold),
            ("follows", children.ravel().astype(np.int64)),
            ("row", np.where(leaf, trees.left, 0).astype(np.int64)),
            ("start", trees.start),
        ):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))
        self.root: Tensor
        self.column: Tensor
        self.threshold: Tensor
        self.follows: Tensor  # of node i, left at 2 i, right at 2 i + 1
        self.row: Tensor
        self.start: Tensor
        self.kind, self.floor, self.depth = trees.kind, trees.floor, _deepest(trees)
        self._keep_values(trees)

    def _keep_values(self, trees: Trees) -> None:
        """Leaves of a boosted tree vote for one class: then one number a leaf is read, and classes are summed after."""
        ends = np.append(trees.root[1:], len(trees.feature))
        own = np.zeros((len(trees.root), trees.classes), np.float32)
        for tree, (start, end) in enumerate(zip(trees.root, ends, strict=True)):
            rows = trees.left[start:end][trees.feature[start:end] < 0]
            own[tree] = trees.values[rows].any(axis=0)
        self.single = bool((own.sum(axis=1) <= 1).all())
        values = trees.values.sum(axis=1) if self.single else trees.values
        self.register_buffer("values", torch.from_numpy(np.ascontiguousarray(values)))
        self.register_buffer("own", torch.from_numpy(own))
        self.values: Tensor
        self.own: Tensor

    def forward(self, features: Tensor) -> Tensor:
        node = self.root.expand(features.shape[0], -1)  # (n, T)
        for _ in range(self.depth):
            value = features.gather(1, self.column[node])
            node = self.follows[2 * node + (value > self.threshold[node]).long()]
        reached = self.values[self.row[node]]  # (n, T), or (n, T, K)
        total = reached @ self.own if self.single else reached.sum(1)
        if self.kind == "forest":
            total = (total / len(self.root)).clamp_min(self.floor).log()
        return total + self.start


def _deepest(trees: Trees) -> int:
    """Steps from a root to the farthest leaf."""
    depth = np.zeros(len(trees.feature), np.int64)
    for node in np.flatnonzero(trees.feature >= 0).tolist():  # parents come first
        depth[trees.left[node]] = depth[trees.right[node]] = depth[node] + 1
    return int(depth.max())
