"""Test pixels to look at, class by class: the surest right, the surest wrong and the least sure, with their ground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.geo.display import display_range, stretch
from adcdnet.geo.grid import Window
from adcdnet.report import pictures
from adcdnet.report.findings import Findings
from adcdnet.report.survey import Judged

_EACH = 2  # of a kind and class
_AROUND = 8  # MS pixels shown on every side of that of the pixel; two of a kind lie further apart
_SIDE = 256  # of the overview that the brightness is taken from


def write(findings: Findings) -> list[dict[str, Any]]:
    """A row a class with pixels of its own: name, colour, and lists of pictures by kind."""
    judged = findings.survey.judged
    if judged is None:
        return []
    view = findings.scene.overview(_SIDE)
    bands = (
        pictures.composite_bands(findings.scene.ms_descriptions),
        pictures.composite_bands(findings.scene.pan_descriptions),
    )
    ranges = display_range(view.ms[bands[0]], view.ms_valid), display_range(view.pan[bands[1]], view.pan_valid)
    rows = []
    for k, (name, color) in enumerate(zip(findings.classes.names, findings.classes.colors, strict=True)):
        kinds = {kind: chosen for kind, chosen in choose(judged, k, _AROUND * findings.step).items() if len(chosen)}
        if kinds:
            shown = {
                kind: [_show(findings, judged, i, bands, ranges) for i in chosen] for kind, chosen in kinds.items()
            }
            rows.append({"name": name, "color": color, "kinds": shown})
    return rows


def choose(judged: Judged, k: int, apart: int) -> dict[str, list[int]]:
    """Which of the judged pixels of true class k to show, by kind; at most _EACH, more than `apart` pixels away from
    each other."""
    p = judged.probabilities
    answer, sure = p.argmax(1), p.max(1)
    own = judged.truth == k
    kinds = {
        "surest right": (own & (answer == k), -sure),
        "surest wrong": (own & (answer != k), -sure),
        "least sure": (own, sure),
    }
    return {kind: _apart(judged, np.flatnonzero(where), order, apart) for kind, (where, order) in kinds.items()}


def _apart(judged: Judged, some: NDArray[np.int64], order: NDArray[np.float32], apart: int) -> list[int]:
    chosen: list[int] = []
    for i in some[np.argsort(order[some], kind="stable")].tolist():
        row, col = abs(judged.row[chosen] - judged.row[i]), abs(judged.col[chosen] - judged.col[i])
        if (np.maximum(row, col) > apart).all():
            chosen.append(i)
        if len(chosen) == _EACH:
            break
    return chosen


def _show(
    findings: Findings,
    judged: Judged,
    i: int,
    bands: tuple[list[int], list[int]],
    ranges: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> dict[str, str]:
    row, col = int(judged.row[i]), int(judged.col[i])
    pixels = findings.scene.read(Window(row // findings.step, col // findings.step, 1, 1).grow(_AROUND))
    ms = stretch(pixels.ms[bands[0]], pixels.ms_valid, ranges[0])
    pan = stretch(pixels.pan[bands[1]], pixels.pan_valid, ranges[1])
    answer = int(judged.probabilities[i].argmax())
    return {
        "ms": pictures.png(pictures.image(ms)),
        "pan": pictures.png(pictures.image(pan)),
        "text": f"{findings.classes.names[answer]} {judged.probabilities[i, answer]:.0%}",
        "place": f"row {row}, column {col}",
    }
