"""What the network used: tokens of the DTM heads, masks of DIA and of the prior, each sensor alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from adcdnet.geo.grid import tiles
from adcdnet.geo.labels import Labels
from adcdnet.report import pictures, words
from adcdnet.report.attention import masks
from adcdnet.report.drawings import short
from adcdnet.report.explain import SceneExplanation, explain
from adcdnet.report.explanation_figure import EXPLAINED, HeadSummary, share_bars
from adcdnet.report.findings import Findings

_TILE = 64  # MS pixels
_TILES, _PIXELS = 16, 1200  # what is explained at most
_SHADES = "cividis"
_NO_NETWORK = "Nothing is said of what a network used: none has a say in this map."


def write(findings: Findings, drawings: dict[str, str]) -> dict[str, Any]:
    """The template's `use`; each part is empty where nothing is known."""
    if not findings.files.model.networks:
        return {
            "missing": [_NO_NETWORK],
            "heads": [],
            "pixels": "0",
            "explained": "",
            "masks": [],
            "alone": [],
            "trained": [],
        }
    explained = _explain(findings)
    shown = []
    for head in explained.heads if explained else ():
        name = f"tokens_{head.sensor.lower()}"
        drawings[name] = _tokens(head, [short(row) for row in explained.row_names] if explained else [])
        changed = ", ".join(f"{t} {c:.0%}" for t, c in zip(head.tokens, head.changed[-1], strict=True))
        shown.append({"name": name, "sensor": head.sensor, "changed": changed})
    rows = []
    for name, values in masks(findings.files.model, findings.scene).items():
        known = values[np.isfinite(values)]
        low, high = (float(v) for v in np.percentile(known, (2, 98))) if known.size else (0.0, 1.0)
        scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
        source = pictures.heat(scaled, np.isfinite(values), _SHADES)
        rows.append({"name": name, "src": source, "range": f"{low:.2f} (dark) to {high:.2f} (light)"})
    return {
        "missing": _missing(findings, bool(rows)),
        "heads": shown,
        "pixels": words.number(explained.pixels[-1]) if explained else "0",
        "explained": EXPLAINED,
        "masks": rows,
        "alone": _alone(explained),
        "trained": [(name, words.share(oa)) for name, oa in findings.files.metrics.get("oa", {}).items()],
    }


def _missing(findings: Findings, masks: bool) -> list[str]:
    """Why a part of the chapter is not there; nothing where the network has nothing that it would show."""
    network = findings.files.model.network
    notes = []
    if network.dtm and (why := _silent(findings)):
        notes.append(f"Nothing is said of the decisions of the DTM heads: {why}.")
    if (network.config.attention != "none" or network.prior is not None) and not masks:
        notes.append(
            "No masks are shown: this network ties its values to each patch (zero padding or squeeze-excite), and they "
            "make no picture of the scene."
        )
    return notes


def _silent(findings: Findings) -> str:
    """Why the DTM heads cannot be explained; "" where they can."""
    config = findings.files.model.network.config
    if config.grid == "fine":
        return "the map is of PAN pixels, and they are explained for MS pixels only"
    return "no labelled pixel judges the map" if findings.truth is None else ""


def _explain(findings: Findings) -> SceneExplanation | None:
    """The judged pixels of some tiles, so that the time does not grow with the scene."""
    network = findings.files.model.network
    if not network.dtm or _silent(findings):
        return None
    assert findings.truth is not None
    rng = np.random.default_rng(0)
    truth = findings.truth
    if findings.folds is not None:  # the first network is that of the first fold, which did not train there
        truth = np.where(findings.folds == 1, truth, np.int16(-1))
    index = np.full_like(truth, -1)
    held = [w for w in tiles(index.shape[0], index.shape[1], _TILE) if (truth[w.slices] >= 0).any()]
    for k in rng.permutation(len(held))[:_TILES]:
        index[held[k].slices] = truth[held[k].slices]
    places = np.flatnonzero(index >= 0)
    index.ravel()[rng.permutation(places)[_PIXELS:]] = -1
    return explain(findings.files.model.of_first_network(), findings.scene, Labels(index, findings.classes))


def _tokens(head: HeadSummary, rows: list[str]) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        share_bars(axes, head.tokens, head.token_shares)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines[:].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=8, handlelength=1)

    return pictures.svg(draw, 5.2, 1.2 + 0.3 * len(rows))


def _alone(explained: SceneExplanation | None) -> list[tuple[str, str, str]]:
    """How often each head, which sees one sensor, gives the label and agrees with the main head, which sees both."""
    if explained is None:
        return []
    alone = [
        (f"{head.sensor} head, which sees {head.sensor} alone", head.right[-1], head.agreement[-1])
        for head in explained.heads
    ]
    rows = (*alone, ("main head, which sees both", explained.map_right[-1], 1.0))
    return [(name, words.share(right), words.share(agreement)) for name, right, agreement in rows]
