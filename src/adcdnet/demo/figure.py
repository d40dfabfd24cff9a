"""The picture of a demo: both images, labels, map, its errors, and accuracy by sensor."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from adcdnet.geo.classes import ClassTable
from adcdnet.geo.display import colour


def demo_figure(
    path: Path,
    *,
    ms: NDArray[np.float32],
    pan: NDArray[np.float32],
    labels: NDArray[np.integer],
    mapped: NDArray[np.integer],
    held_out: NDArray[np.integer],
    classes: ClassTable,
    lines: list[tuple[str, float, float]],
) -> None:
    """Two rows: MS, PAN, labels; map, errors on held-out ground, and accuracy by what the members were given.

    ms (3, h, w) and pan (1, h', w') are stretched for display; labels, mapped and held_out (h, w): class indices, the
    last what members said of ground that they had not seen, −1 for none. lines: name, mean and standard deviation of
    overall accuracy.
    """
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    axes = figure.subplots(2, 3)
    _show(axes[0, 0], ms.transpose(1, 2, 0), "MS")
    _show(axes[0, 1], pan[0], "PAN")
    _show(axes[0, 2], colour(labels, classes), "labels")
    _show(axes[1, 0], colour(mapped, classes), "map")
    right = np.ones((*labels.shape, 3), np.float32)
    judged = (held_out >= 0) & (labels >= 0)
    right[judged & (held_out == labels)] = to_rgb("#0072b2")
    right[judged & (held_out != labels)] = to_rgb("#d55e00")
    _show(axes[1, 1], right, "held-out ground: right blue, wrong orange")
    bars = axes[1, 2]
    names, means, deviations = zip(*lines, strict=True)
    bars.barh(names, means, xerr=deviations, color="#0072b2")
    bars.set_xlim(0, 1)
    bars.invert_yaxis()
    bars.set_title("overall accuracy on held-out ground", fontsize=10)
    for y, mean in enumerate(means):
        bars.text(0.02, y, f"{mean:.3f}", va="center", color="white")
    figure.legend(
        handles=[Patch(color=c, label=n) for n, c in zip(classes.names, classes.colors, strict=True)],
        loc="outside lower center",
        ncols=min(5, len(classes)),
        frameon=False,
    )
    content = io.BytesIO()
    figure.savefig(content, dpi=110)
    # a palette takes a third of the bytes, and is not seen
    Image.open(content).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, "png", optimize=True)


def _show(axes: Axes, image: NDArray[np.floating], title: str) -> None:
    """(h, w) grey or (h, w, 3) RGB in 0..1, without ticks."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
