"""Several scenes as one training area: they lie one under another, each inside the mirrored border of its own.

Windows of targets never leave their scene, since what separates two scenes is as wide as both borders. So all that
draws from one scene draws from several: every labelled pixel of every scene is as likely, and the loss weights of the
classes are those of all scenes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.sampling import Split, TrainingArea


def stack(arrays: Sequence[NDArray[Any]], *, gap: int, fill: float) -> NDArray[Any]:
    """Arrays (..., h, w) of any h and w one under another, `gap` rows apart; `fill` in gaps and beside narrow ones."""
    width = max(array.shape[-1] for array in arrays)
    parts = []
    for k, array in enumerate(arrays):
        below = gap if k < len(arrays) - 1 else 0
        beside = [(0, 0)] * (array.ndim - 2) + [(0, below), (0, width - array.shape[-1])]
        parts.append(np.pad(array, beside, constant_values=fill))
    return np.concatenate(parts, axis=-2)


class JoinedArea(TrainingArea):
    """The training areas of several scenes, standardised alike; arrays as in `TrainingArea`, of all scenes.

    ms and pan hold each scene with its border; label, target and the parts of the split lie 2 reach MS rows apart.
    """

    def __init__(self, areas: Sequence[TrainingArea]) -> None:
        first = areas[0]
        self.statistics, self.network, self.ratio, self.step = first.statistics, first.network, first.ratio, first.step
        self.ms = stack([area.ms for area in areas], gap=0, fill=0)
        self.pan = stack([area.pan for area in areas], gap=0, fill=0)
        self._shown = stack([area._shown for area in areas], gap=0, fill=0)
        self._shown_fine = stack([area._shown_fine for area in areas], gap=0, fill=False)
        gap = 2 * self.network.reach
        self.split = Split(stack([area.split.part for area in areas], gap=gap, fill=0), first.split.block, ())
        gap *= self.step  # between targets
        self.target = stack([area.target for area in areas], gap=gap, fill=False)
        self.label = stack([area.label for area in areas], gap=gap, fill=-1)
        self.validation = stack([area.validation for area in areas], gap=gap, fill=False)
        self.validation_label = stack([area.validation_label for area in areas], gap=gap, fill=-1)
        self.has_validation = any(area.has_validation for area in areas)
        self.labelled = np.argwhere(self.label >= 0)
        self.unlabelled = np.argwhere(self.target)
        self.class_counts = np.sum([area.class_counts for area in areas], axis=0)
