"""From arrays and scores to tables and figures. Opens no raster and knows no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from adcdnet.classes import ClassTable
from adcdnet.metrics import Scores

UNMAPPED = (0.85, 0.85, 0.85)  # of a map, where there is no class


def stretch(bands: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Bands (1 or 3, h, w) for display: the 2nd and 98th percentile of each band over valid pixels become 0 and 1."""
    shown = np.zeros(bands.shape, np.float32)
    for band, out in zip(bands, shown, strict=True):
        low, high = np.percentile(band[valid], (2, 98)) if valid.any() else (0.0, 1.0)
        out[:] = np.where(valid, np.clip((band - low) / max(high - low, 1e-12), 0, 1), 1)
    return shown


def colour(index: NDArray[np.integer], classes: ClassTable) -> NDArray[np.float32]:
    """Class indices (h, w), −1 none -> RGB (h, w, 3)."""
    palette = np.asarray([*(to_rgb(c) for c in classes.colors), UNMAPPED], np.float32)
    return np.asarray(palette[np.where(index < 0, len(classes), index)], np.float32)


def show_image(axes: Axes, image: NDArray[np.floating], title: str) -> None:
    """(h, w) grey or (h, w, 3) RGB in 0..1, without ticks."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def demo_figure(
    path: Path,
    *,
    ms: NDArray[np.float32],
    pan: NDArray[np.float32],
    labels: NDArray[np.integer],
    mapped: NDArray[np.integer],
    part: NDArray[np.uint8],
    classes: ClassTable,
    lines: list[tuple[str, float, float]],
) -> None:
    """Two rows: MS, PAN, labels; map, its errors on the test part, and accuracy by what the network was given.

    ms (3, h, w) and pan (1, h', w') are stretched for display; labels, mapped and part (h, w). lines: name, mean and
    standard deviation of overall accuracy.
    """
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    axes = figure.subplots(2, 3)
    show_image(axes[0, 0], ms.transpose(1, 2, 0), "MS")
    show_image(axes[0, 1], pan[0], "PAN")
    show_image(axes[0, 2], colour(labels, classes), "labels")
    show_image(axes[1, 0], colour(mapped, classes), "map")
    test = part == 3
    right = np.ones((*labels.shape, 3), np.float32)
    right[test] = 0.9
    judged = test & (labels >= 0)
    right[judged & (mapped == labels)] = to_rgb("#0072b2")
    right[judged & (mapped != labels)] = to_rgb("#d55e00")
    show_image(axes[1, 1], right, "test part: right blue, wrong orange")
    bars = axes[1, 2]
    names, means, deviations = zip(*lines, strict=True)
    bars.barh(names, means, xerr=deviations, color="#0072b2")
    bars.set_xlim(0, 1)
    bars.invert_yaxis()
    bars.set_title("overall accuracy on the test part", fontsize=10)
    for y, mean in enumerate(means):
        bars.text(0.02, y, f"{mean:.3f}", va="center", color="white")
    figure.legend(
        handles=[Patch(color=c, label=n) for n, c in zip(classes.names, classes.colors, strict=True)],
        loc="outside lower center",
        ncols=min(5, len(classes)),
        frameon=False,
    )
    figure.savefig(path, dpi=110)


def score_table(found: Scores, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Rows for a terminal: header, one per class, in the field's words."""

    def share(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:.3f}"

    rows: list[tuple[str, ...]] = [("class", "pixels", "precision", "recall", "F1", "IoU")]
    for k, name in enumerate(names):
        values = (found.precision[k], found.recall[k], found.f1[k], found.iou[k])
        rows.append((name, str(found.support[k]), *(share(v) for v in values)))
    return rows
