"""A finished map against labels: confusion matrix and scores, on one part of a split if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.classes import ClassTable
from adcdnet.errors import InputError
from adcdnet.labels import read_labels
from adcdnet.metrics import Scores, confusion_matrix, scores
from adcdnet.sampling import PART_NAMES
from adcdnet.scene import is_nodata, read_band, read_classes


@dataclass(frozen=True)
class Evaluation:
    """confusion (K, K + 1): rows labels, columns map, last column where the map has no class."""

    classes: ClassTable
    confusion: NDArray[np.int64]
    scores: Scores
    part: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "part": self.part,
            "classes": [{"value": v, "name": n} for v, n in zip(self.classes.values, self.classes.names, strict=True)],
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
            **self.scores.to_dict(),
        }


def evaluate(
    map_path: Path | str,
    labels_path: Path | str,
    *,
    split: Path | str | None = None,
    part: str | None = None,
    column: str | None = None,
) -> Evaluation:
    """Scores of a map over the labelled pixels of one part of a split, or over all of them.

    Raises InputError if labels or split do not lie on the map, if they hold classes the map does not know, or if no
    labelled pixel is left. The class names of the map count; a map without them is known by its values.
    """
    if (split is None) != (part is None):
        raise InputError(
            "a split and the name of one of its parts belong together; give --split and --part, or neither"
        )
    if part is not None and part not in PART_NAMES:
        raise InputError(f"part {part!r} is not one of {', '.join(PART_NAMES)}")
    values, grid, nodata = read_band(map_path)
    labels = read_labels(labels_path, grid, classes=read_classes(map_path), column=column)
    value_to_index = np.full(256, -1, np.int64)
    value_to_index[list(labels.classes.values)] = np.arange(len(labels.classes))
    kept = np.where(is_nodata(values, nodata), 0, values)
    if kept.dtype.kind not in "iu" or kept.min() < 0 or kept.max() > 255:
        raise InputError(f"{map_path} is not a map: whole numbers from 0 to 255 are needed, it holds {values.dtype}")
    mapped = value_to_index[kept]
    truth = labels.index.astype(np.int64)
    if split is not None and part is not None:
        parts, split_grid, _ = read_band(split)
        if parts.shape != values.shape or split_grid.transform != grid.transform:
            raise InputError(
                f"{split} does not lie on the map {map_path}: {parts.shape[0]}×{parts.shape[1]} against "
                f"{values.shape[0]}×{values.shape[1]} pixels or another place; use the split.tif of the same scene"
            )
        truth = np.where(parts == PART_NAMES.index(part), truth, -1)
    if not (truth >= 0).any():
        raise InputError(f"no labelled pixel in the {part or 'map'}{' part' if part else ''}; nothing to evaluate")
    confusion = confusion_matrix(truth, mapped, len(labels.classes))
    return Evaluation(labels.classes, confusion, scores(confusion), part, labels.notes)
