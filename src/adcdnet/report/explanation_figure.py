"""How the DTM heads decided, as one figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adcdnet.report.drawings import readable_on

EXPLAINED = "decisions of the DTM heads, which supervise; the map is made by the main head"
_MEANING = (
    "share: part of a token in the evidence for the head's answer, by size, with gates and norms held fixed"
    "\nchange: answers that differ when the token is replaced by its mean over these pixels; its gates count too"
)


@dataclass(frozen=True)
class HeadSummary:
    """How one DTM head decided, on average. Rows: K classes, then all together. l tokens."""

    sensor: str  # "MS" or "PAN"
    tokens: tuple[str, ...]
    token_shares: NDArray[np.float64]  # (K + 1, l) part of each token in the evidence for the answer
    scan_shares: NDArray[np.float64]  # (K + 1, l) the same by the position at which it enters the scan
    changed: NDArray[np.float64]  # (K + 1, l) how many answers change without the token
    agreement: NDArray[np.float64]  # (K + 1,) how often the head answers as the map does
    right: NDArray[np.float64]  # (K + 1,) how often it gives the label


def explanation_figure(
    heads: Sequence[HeadSummary], *, rows: Sequence[str], map_right: NDArray[np.float64], title: str, kind: str
) -> bytes:
    """A row of panels per head: shares of the tokens, answers that change without each, how often the head is right.

    rows: a name for each of the K + 1 rows. kind: "png" or "svg".
    """
    figure = Figure(figsize=(13, 2.3 + len(heads) * (1.2 + 0.32 * len(rows))), layout="constrained")
    figure.suptitle(f"{title}\nexplained here: {EXPLAINED}", fontsize=11)
    entered = "".join(
        f"\nwhere the {head.sensor} head's evidence enters the scan, whose positions mix up to four tokens: "
        + ", ".join(f"{t} {100 * share:.1f}%" for t, share in zip(head.tokens, head.scan_shares[-1], strict=True))
        for head in heads
    )
    figure.supxlabel(_MEANING + entered, fontsize=9, x=0.01, ha="left")
    panels = figure.subplots(len(heads), 3, squeeze=False, sharey=True, width_ratios=(5, 4, 4))
    for (shares, without, hits), head in zip(panels, heads, strict=True):
        share_bars(shares, head.tokens, head.token_shares)
        shares.set_yticks(range(len(rows)), rows, fontsize=9)
        shares.set_ylabel(f"{head.sensor} head", fontsize=12, fontweight="bold")
        shares.set_title("share of each token in the answer", fontsize=10)
        _change_table(without, head.tokens, head.changed)
        without.set_title("answers that change without it", fontsize=10)
        _hit_marks(hits, head, map_right)
        for axes in (shares, without, hits):
            axes.axhline(len(rows) - 1.5, color="black", linewidth=0.8)  # the last row is that of all classes
            axes.tick_params(axis="y", length=0)
    panels[0, 0].set_ylim(len(rows) - 0.5, -0.5)  # all panels share the axis
    for column, n in ((0, 5), (2, 3)):
        legend = {"fontsize": 9, "frameon": False, "handlelength": 1.0, "handletextpad": 0.4, "columnspacing": 0.9}
        panels[-1, column].legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=n, **legend)
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "adcdnet"}):  # so that one input gives one file
        figure.savefig(content, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def share_bars(axes: Axes, tokens: Sequence[str], shares: NDArray[np.float64]) -> None:
    """One bar from 0 to 1 per row of `shares` (rows, l), cut into the tokens; parts of 5 % and more are numbered."""
    places = np.arange(len(shares))
    left = np.zeros(len(shares))
    for token, part, shade in zip(tokens, np.nan_to_num(shares).T, _token_colours(tokens), strict=True):
        axes.barh(places, part, left=left, color=shade, label=token, height=0.8)
        for y in places[part >= 0.05]:
            middle, ink = left[y] + part[y] / 2, readable_on(shade)
            axes.text(middle, y, f"{100 * part[y]:.0f}%", ha="center", va="center", fontsize=8, color=ink)
        left += part
    axes.set_xlim(0, 1)
    axes.set_xticks([])


def _token_colours(tokens: Sequence[str]) -> list[str]:
    """Depths from light to dark blue, what attention made of the last one orange, levels from light to dark green, the
    prior grey."""
    fixed = {"attended": "#e69f00", "prior": "#7f7f7f"}
    levels = [token for token in tokens if token.startswith("level")]
    depths = [token for token in tokens if token not in fixed and token not in levels]
    for names, shades in ((depths, "Blues"), (levels, "Greens")):
        for place, name in zip(np.linspace(0.25, 0.75, len(names)), names, strict=True):
            fixed[name] = to_hex(colormaps[shades](place))
    return [fixed[token] for token in tokens]


def _change_table(axes: Axes, tokens: Sequence[str], changed: NDArray[np.float64]) -> None:
    """Shares of pixels (rows, l) as a shaded table."""
    axes.imshow(changed, cmap="Reds", vmin=0, vmax=0.5, aspect="auto")
    for (y, x), value in np.ndenumerate(changed):
        text = "–" if np.isnan(value) else f"{100 * value:.1f}%"
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if value > 0.35 else "black")
    axes.set_xticks(range(len(tokens)), tokens, fontsize=9)
    axes.tick_params(axis="x", length=0)


def _hit_marks(axes: Axes, head: HeadSummary, map_right: NDArray[np.float64]) -> None:
    """How often the head agrees with the map, and both with the labels."""
    for values, marker, shade, label in (
        (head.agreement, "o", "#0072b2", "agrees with map"),
        (head.right, "s", "#d55e00", "head right"),
        (map_right, "|", "black", "map right"),
    ):
        size = 14 if marker == "|" else 7
        axes.plot(values, range(len(values)), marker, color=shade, label=label, markersize=size, clip_on=False)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color="0.85")
    axes.set_title("how often (share of pixels)", fontsize=10)
