"""The card of a model that is handed on: README.md, with the front matter that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adcdnet.mapping.model import Model

_SCORES = (  # of a run's metrics.json, and what hubs call them
    ("oa", "accuracy", "Overall accuracy"),
    ("aa", "balanced_accuracy", "Average accuracy"),
    ("kappa", "cohen_kappa", "Cohen's kappa"),
    ("macro_f1", "f1", "Macro F1"),
)
_ONNX = """\
import json
import numpy as np
import onnxruntime
from pathlib import Path

config = json.loads(Path("config.json").read_text("utf-8"))
halo, ratio = config["halo"], config["ratio"]
ms = np.load("ms.npy").astype(np.float32)    # (bands, rows, columns) as in the files; nan where there is no data
pan = np.load("pan.npy").astype(np.float32)  # the same ground, `ratio` times as many rows and columns
ms = np.pad(ms, [(0, 0), (halo, halo), (halo, halo)], mode=config["edge"])
pan = np.pad(pan, [(0, 0), (halo * ratio, halo * ratio), (halo * ratio, halo * ratio)], mode=config["edge"])
session = onnxruntime.InferenceSession("model.onnx")
(probabilities,) = session.run(None, {"ms": ms[None], "pan": pan[None]})  # (1, classes, rows, columns)
values = np.array([int(value) for value in config["classes"]], np.uint8)
map = np.where(np.isnan(probabilities[0, 0]), 0, values[probabilities[0].argmax(0)])
np.save("map.npy", map)
"""
_PT2 = (
    _ONNX.replace("import onnxruntime", "import torch")
    .replace('session = onnxruntime.InferenceSession("model.onnx")', 'graph = torch.export.load("model.pt2").module()')
    .replace(
        '(probabilities,) = session.run(None, {"ms": ms[None], "pan": pan[None]})  #',
        "probabilities = graph(torch.from_numpy(ms[None]), torch.from_numpy(pan[None])).numpy()  #",
    )
)


def card(model: Model, facts: Mapping[str, Any], left_out: Sequence[str], *, licence: str, name: str) -> str:
    """facts: what config.json says. left_out: sentences of `left_out_of`. licence: a hub's identifier."""
    record = model.record
    scores, judged = _scores(model)
    head = _front_matter(name, facts, licence, scores, record.scene)
    return "\n".join(
        [
            head,
            f"# {_plain(name)}",
            "",
            "Land-cover classes from a multispectral (MS) and a panchromatic (PAN) image, each at its own resolution. "
            f"Made with adcdnet {facts['adcdnet']}.",
            "",
            *_use(model, facts),
            *_limits(model, facts, left_out),
            *_data(model, licence),
            *_metrics(model, scores, judged),
            *_how(facts),
        ]
    )


def _front_matter(name: str, facts: Mapping[str, Any], licence: str, scores: Mapping[str, Any], scene: str) -> str:
    """JSON is YAML: texts are quoted as JSON has them."""
    tags = ["adcdnet", "remote-sensing", "land-cover", "multispectral", "panchromatic", str(facts["format"])]
    known = [(metric, words, scores[key]) for key, metric, words in _SCORES if scores.get(key) is not None]
    lines = [
        "---",
        f"license: {json.dumps(licence)}",
        "library_name: adcdnet",
        "pipeline_tag: image-segmentation",
        f"tags: {json.dumps(tags)}",
    ]
    if known:
        results = {
            "task": {"type": "image-segmentation"},
            "dataset": {"type": "held-out-ground", "name": scene or "held-out ground of the training scene"},
            "metrics": [{"type": metric, "name": words, "value": round(value, 4)} for metric, words, value in known],
        }
        index = [{"name": name, "results": [results]}]
        lines.append(f"metrics: {json.dumps([metric for metric, _, _ in known])}")
        lines.append(f"model-index: {json.dumps(index, ensure_ascii=False)}")
    return "\n".join([*lines, "---", ""])


def _use(model: Model, facts: Mapping[str, Any]) -> list[str]:
    layout, targets = model.layout, "PAN" if facts["targets_per_pixel"] > 1 else "MS"
    rows = zip(model.classes.values, model.classes.names, model.classes.colors, strict=True)
    return [
        "## Use",
        "",
        f"Images as those of training: {layout.ms_bands} MS bands ({_bands(model.record.ms_bands)}), "
        f"{layout.pan_bands} PAN bands ({_bands(model.record.pan_bands)}), "
        f"{layout.ratio} PAN pixels per MS pixel and axis, in the units of the training files.",
        f"The map is on the grid of {targets}. Its classes:",
        "",
        "| value | name | colour |",
        "|---|---|---|",
        *(f"| {value} | {_plain(name)} | {color} |" for value, name, color in rows),
        "",
    ]


def _limits(model: Model, facts: Mapping[str, Any], left_out: Sequence[str]) -> list[str]:
    members = ", ".join(f"{name} ({weight:.2f})" for name, weight in facts["members"].items())
    prior = "as labelled" if facts["prior"] is None else ", ".join(f"{share:.3g}" for share in facts["prior"])
    lines = [
        "## Limits",
        "",
        "- Other sensors, units, seasons or regions than those of training may give wrong maps. Judge such maps first.",
        f"- The operating point is fixed: tau {facts['tau']:g}, class shares {prior}.",
        f"- In the graph: standardisation, members by weight ({members}), temperature {facts['temperature']:.3f}.",
        *([f"- In it too: the average with like neighbours (deviation {facts['smooth']:g})."] * bool(facts["smooth"])),
        *(f"- Left out: {words}." for words in left_out),
        "- The area of applicability is not in the graph. `adcdnet predict --trust` writes it.",
    ]
    if any(model.phase):
        lines.append(f"- PAN pixels must lie {model.phase[0]:.2f} rows and {model.phase[1]:.2f} columns off MS edges.")
    return [*lines, ""]


def _data(model: Model, licence: str) -> list[str]:
    record = model.record
    pixels = sum(count for part, count in record.labelled_pixels.items() if part != "unused")
    named = "not stated" if licence == "unknown" else f"`{licence}`"
    return [
        "## Data and licence",
        "",
        f"Trained on {_plain(record.scene or 'a scene that is not named')}, with {pixels:,} labelled pixels.",
        f"Licence of this model: {named}. The licences of images and labels are not recorded in a run: add them here.",
        "",
    ]


def _metrics(model: Model, scores: Mapping[str, Any], judged: str) -> list[str]:
    if not scores:
        return ["## Metrics", "", "No ground was held out when this model was trained: no figure can be given.", ""]
    intervals = scores.get("intervals") or {}
    level = f"{intervals.get('level', 0.95):.0%}"
    lines = ["## Metrics", "", f"{judged} at tau 1. Intervals ({level}) are block bootstraps.", ""]
    lines += ["| score | value | interval |", "|---|---|---|"]
    lines += [
        f"| {words} | {scores[key]:.3f} | {_interval(intervals.get(key))} |"
        for key, _, words in _SCORES
        if scores.get(key) is not None
    ]
    lines += ["", "| class | F1 | interval | pixels |", "|---|---|---|---|"]
    of_classes = intervals.get("f1") or [None] * len(model.classes)
    for name, f1, interval, pixels in zip(
        model.classes.names, scores["f1"], of_classes, scores["support"], strict=True
    ):
        value = "–" if f1 is None else f"{f1:.3f}"
        lines.append(f"| {_plain(name)} | {value} | {_interval(interval)} | {pixels} |")
    return [*lines, ""]


def _how(facts: Mapping[str, Any]) -> list[str]:
    """Lines that a test runs."""
    onnx = facts["format"] == "onnx"
    package, code = ("onnxruntime", _ONNX) if onnx else ("torch", _PT2)
    return [
        "## How to run",
        "",
        f"It needs numpy and {package}, and not adcdnet.",
        "",
        "```python",
        code + "```",
        "",
        f"Tiles of a large scene carry {facts['halo']} MS pixels of their surroundings on every side. "
        f"The first pixel of each tile, halo not counted, lies at a multiple of {facts['lattice']} rows and columns.",
        "`model.safetensors` is the same model for `adcdnet predict`.",
        "",
    ]


def _scores(model: Model) -> tuple[Mapping[str, Any], str]:
    """Those of held-out ground, and what it was."""
    record = model.record
    if record.cross_validation is not None:
        return record.cross_validation, f"Of {record.folds} folds, each judged by members that did not train on it,"
    if record.validation is not None:
        return record.validation, "Of the validation part, which did not train,"
    return {}, ""


def _interval(ends: Sequence[float] | None) -> str:
    return "–" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _bands(names: Sequence[str | None]) -> str:
    return ", ".join(_plain(name or "not named") for name in names) or "not named"


def _plain(text: str) -> str:
    """A name in a table or heading: nothing in it is markup."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text).replace("\n", " ")
