"""A finished map against labels: confusion matrix and scores, on one part of a split if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.classes import ClassTable
from adcdnet.errors import InputError
from adcdnet.grid import Grid
from adcdnet.labels import Labels, read_labels
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
    check_part(split, part)
    values, grid, nodata = read_band(map_path)
    labels = read_labels(labels_path, grid, classes=read_classes(map_path), column=column)
    value_to_index = np.full(256, -1, np.int64)
    value_to_index[list(labels.classes.values)] = np.arange(len(labels.classes))
    kept = np.where(is_nodata(values, nodata), 0, values)
    if kept.dtype.kind not in "iu" or kept.min() < 0 or kept.max() > 255:
        raise InputError(f"{map_path} is not a map: whole numbers from 0 to 255 are needed, it holds {values.dtype}")
    mapped = value_to_index[kept]
    truth = labels_in_part(labels, grid, f"the map {map_path}", split, part)
    if not (truth >= 0).any():
        raise InputError(f"no labelled pixel in the {part or 'map'}{' part' if part else ''}; nothing to evaluate")
    confusion = confusion_matrix(truth, mapped, len(labels.classes))
    return Evaluation(labels.classes, confusion, scores(confusion), part, labels.notes)


def check_part(split: Path | str | None, part: str | None) -> None:
    """InputError unless split and part come together and the part exists."""
    if (split is None) != (part is None):
        raise InputError(
            "a split and the name of one of its parts belong together; give --split and --part, or neither"
        )
    if part is not None and part not in PART_NAMES:
        raise InputError(f"part {part!r} is not one of {', '.join(PART_NAMES)}")


def labels_in_part(
    labels: Labels, grid: Grid, place: str, split: Path | str | None, part: str | None
) -> NDArray[np.int64]:
    """Class indices (h, w) on `grid` in one part of a split, or all of them without one; −1 elsewhere.

    place: what has that grid, for the InputError of a split that does not lie on it.
    """
    check_part(split, part)
    index = labels.index.astype(np.int64)
    if split is None or part is None:
        return index
    parts, own, _ = read_band(split)
    if parts.shape != grid.shape or own.transform != grid.transform:
        raise InputError(
            f"{split} does not lie on {place}: {parts.shape[0]}×{parts.shape[1]} against "
            f"{grid.height}×{grid.width} pixels or another place; use the split.tif of the same scene"
        )
    return np.where(parts == PART_NAMES.index(part), index, -1)
