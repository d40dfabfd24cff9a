"""The drawings of a report, each onto an Axes that is given: they go into a notebook's figure as well as into the page.

K classes. What is text or line on the paper itself is drawn in INK and what is faint in FAINT, so that a page can give
both the colours of its own light or dark paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK, FAINT = "#1a1a1b", "#8c8c8d"
BLUE, ORANGE, GREY = "#2b83ba", "#d55e00", "#7f7f7f"
_LONGEST = 22  # characters of a class name in a drawing; tables have the whole
_SHADES = LinearSegmentedColormap.from_list("shades", ["#f3f7fb", "#6baed6", "#08306b"])


def style() -> dict[str, Any]:
    """rcParams for drawings of this file: inks, names taken literally."""
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, INK),
        "font.size": 9,
        "text.parse_math": False,  # a dollar sign in a class name is one
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": FAINT,
        "grid.alpha": 0.35,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "adcdnet",  # one input gives one file
    }


def short(name: str) -> str:
    """A class name cut to what a drawing has room for."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def confusion_heat_map(axes: Axes, confusion: NDArray[np.integer], names: Sequence[str]) -> None:
    """Confusion matrix (K, K + 1): count and share of the row in each cell, shaded by share.

    The last column has the producer's accuracy of each row, the last row the user's accuracy of each column. The
    column of pixels without a class in the map is drawn only where there are any.
    """
    shown = confusion if confusion[:, -1].any() else confusion[:, :-1]
    classes, columns = shown.shape
    with np.errstate(invalid="ignore"):
        shares = shown / shown.sum(1, keepdims=True)
        producers = np.diagonal(confusion) / confusion.sum(1)
        users = np.diagonal(confusion) / confusion[:, :-1].sum(0)
    axes.imshow(np.nan_to_num(shares), cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    size = 9 if classes <= 8 else max(4.5, 72 / classes)
    for (row, col), count in np.ndenumerate(shown):
        share = shares[row, col]
        text = f"{count}\n{_percent(share)}" if count else "0"
        ink = readable_on(_SHADES(share)) if count else "black"
        axes.text(col, row, text, ha="center", va="center", fontsize=size, color=ink)
    for k in range(classes):
        axes.text(columns, k, _percent(producers[k]), ha="center", va="center", fontsize=size)
        axes.text(k, classes, _percent(users[k]), ha="center", va="center", fontsize=size)
    labels = [short(name) for name in names]
    extra = ["no class"] if columns > classes else []
    axes.set_xticks(
        range(columns + 1), [*labels, *extra, "producer's"], rotation=35, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(classes + 1), [*labels, "user's"])
    axes.set_xlim(-0.5, columns + 0.5)
    axes.set_ylim(classes + 0.5, -0.5)
    axes.set_xlabel("in the map")
    axes.set_ylabel("in the labels")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def class_bars(
    axes: Axes,
    values: Mapping[str, Sequence[float]],
    names: Sequence[str],
    colors: Sequence[str],
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> None:
    """One group a class: a bar for each score (K values a name), with its interval as a whisker where there is one."""
    height = 0.8 / len(values)
    places = np.arange(len(names), dtype=float)
    for i, (name, scores) in enumerate(values.items()):
        at = places + (i - (len(values) - 1) / 2) * height
        known = np.nan_to_num(np.asarray(scores, float))
        axes.barh(
            at, known, height * 0.86, color=[_lighter(c, 0.28 * i) for c in colors], edgecolor=FAINT, linewidth=0.4
        )
        ends = (intervals or {}).get(name, [(math.nan, math.nan)] * len(names))
        for y, score, (low, high) in zip(at, scores, ends, strict=True):
            if not math.isnan(low):
                for shade, width in (("white", 3.2), ("black", 1.4)):  # seen on light and dark bars and pages
                    axes.plot((low, high), (y, y), color=shade, linewidth=width, solid_capstyle="butt")
            label = "–" if math.isnan(score) else f"{score:.2f}"
            end = max(v for v in (score, high, 0.0) if not math.isnan(v))
            axes.text(end + 0.015, y, f"{label} {name}", va="center", fontsize=7.5)
    axes.set_yticks(places, [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.3)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def reliability_diagram(
    axes: Axes, probabilities: NDArray[np.floating], truth: NDArray[np.integer], *, bins: int = 15
) -> None:
    """How often the map is right (bars) where it is how sure (n, K), in bins of the winner's probability.

    On the diagonal the probabilities mean what they say. The area of a dot is the share of pixels in its bin.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    held = count > 0
    accuracy = np.bincount(bin_of, right, bins)[held] / count[held]
    sure = np.bincount(bin_of, confidence, bins)[held] / count[held]
    axes.plot((0, 1), (0, 1), color=FAINT, linestyle="--", linewidth=1)
    axes.bar((np.flatnonzero(held) + 0.5) / bins, accuracy, 0.9 / bins, color=BLUE, alpha=0.35)
    axes.scatter(
        sure, accuracy, s=12 + 260 * count[held] / count.sum(), color=BLUE, edgecolor=INK, linewidth=0.6, zorder=3
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability of the winner", ylabel="share of pixels mapped right")
    axes.grid()
    axes.set_axisbelow(True)


def expected_error_diagram(axes: Axes, bins: Sequence[Mapping[str, float]]) -> None:
    """Share of pixels that are wrong over the error that was expected, a dot for each of some bins of equally many.

    On the diagonal the expected error means what it says.
    """
    expected, wrong = ([bin[name] for bin in bins] for name in ("expected", "wrong"))
    end = 1.08 * max(*expected, *wrong, 0.02)
    axes.plot((0, end), (0, end), color=FAINT, linestyle="--", linewidth=1)
    axes.plot(expected, wrong, color=BLUE, linewidth=1, alpha=0.5)
    axes.scatter(expected, wrong, s=38, color=BLUE, edgecolor=INK, linewidth=0.6, zorder=3)
    axes.set(xlim=(0, end), ylim=(-0.02 * end, end), xlabel="expected error", ylabel="share of pixels that are wrong")
    axes.grid()
    axes.set_axisbelow(True)


def training_curve(axes: Axes, steps: Sequence[float], values: Mapping[str, Sequence[float]], title: str) -> None:
    """One or two figures over the training steps, under a title."""
    for (name, line), shade in zip(values.items(), (BLUE, ORANGE), strict=False):
        axes.plot(steps, line, color=shade, marker="o", markersize=2.5, linewidth=1.4, label=name)
    axes.set_title(title, fontsize=9.5, loc="left")
    axes.grid()
    low, high = min(0.0, *map(min, values.values())), max(map(max, values.values()))
    axes.set_ylim(low, high + 0.08 * ((high - low) or 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8)
    if len(values) > 1:
        axes.legend(fontsize=8)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f}%"


def readable_on(color: Any) -> str:
    """Black or white, whichever stands out more: at least 4.58 to 1, where WCAG 2.2 AA asks for 4.5."""
    coded = np.asarray(to_rgb(color))
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _lighter(color: str, by: float) -> tuple[float, float, float]:
    red, green, blue = (v + (1 - v) * by for v in to_rgb(color))
    return red, green, blue
