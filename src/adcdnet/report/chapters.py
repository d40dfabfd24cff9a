"""What the template is given, chapter by chapter: plain values, images as data addresses, drawings as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adcdnet.files import sha256
from adcdnet.mapping.trust import MUCH_OUTSIDE
from adcdnet.metrics import expected_calibration_error
from adcdnet.report import pictures, words
from adcdnet.report.drawings import (
    class_bars,
    confusion_heat_map,
    expected_error_diagram,
    reliability_diagram,
    training_curve,
)
from adcdnet.report.findings import Findings
from adcdnet.split.parts import PART_NAMES

Drawings = dict[str, str]
FOLD_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
PART_COLORS = (None, "#0072b2", "#e69f00", "#cc3311", "#b8b8b8")  # unused, train, validation, test, guard
_CURVES = (  # name, stage, columns and what they are called, title
    ("loss1", "stage1", {"loss": "loss", "sps": "distance of the sensors"}, "Stage I: loss"),
    ("rank", "stage1", {"effective_rank": "effective rank"}, "Stage I: effective rank of the prior"),
    ("context", "context", {"loss": "loss"}, "Context branch: loss"),
    ("loss2", "stage2", {"loss": "all heads", "main": "main head"}, "Stage II: loss"),
    ("kappa", "stage2", {"validation_kappa": "kappa"}, "Stage II: kappa on the validation part"),
    ("rate", "stage2", {"learning_rate": "learning rate"}, "Stage II: learning rate"),
)


def summary(findings: Findings) -> list[str]:
    """What was mapped, from what, how well, and how that is known: one paragraph each."""
    mapped = int(findings.survey.counts.sum())
    lines = [words.of_scene(findings.scene, findings.classes, mapped, map_grid=findings.grid, pixels=findings.pixels)]
    lines[0] += words.of_product([*findings.notes, *findings.files.model.record.notes])
    if made := words.of_making(findings.tags, findings.classes):
        lines.append(made)
    if findings.evaluation is not None:
        lines += words.of_accuracy(findings.evaluation, findings.pixels, folds=findings.folds is not None)
    if findings.sample is not None:
        lines.append(words.of_sample(findings.sample))
    if findings.split is not None:
        lines.append(words.of_split(findings.files.divided, findings.files.model.guard))
    if findings.folds is not None:
        lines.append(words.of_folds(findings.files.model.record))
    if findings.evaluation is not None and findings.evaluation.leakage is not None:
        lines.append(words.of_leakage(findings.evaluation.leakage))
    model = findings.files.model
    if findings.evaluation is not None and findings.evaluation.training_ground is not None:
        sight = findings.evaluation.training_ground
        lines.append(words.of_sight(sight, model.record.effective_radius, model.guard))
    return lines


def warnings(findings: Findings) -> list[str]:
    """What the reader must know before trusting the page."""
    record, product = findings.files.model.record, findings.product
    notes = [*findings.notes, *record.notes, *(findings.sample.notes if findings.sample else ())]
    for source in findings.files.sources.values():
        if source.changed:
            notes.append(f"{source.path.name} is not the file that the run was trained with: its SHA-256 differs")
    if not findings.files.labels:
        notes.append("no labels were at hand, so nothing is said of accuracy")
    elif findings.split is None and findings.folds is None:
        notes.append("the split is of another scene: all labels judge the map; make sure that none of them trained")
    if findings.evaluation is not None:
        support = findings.evaluation.scores.support
        missing = [name for name, n in zip(findings.evaluation.classes.names, support, strict=True) if not n]
        if missing:
            notes.append(
                f"no pixel that judges the map is of {', '.join(missing)}: nothing is said of how well they are found"
            )
    if product.made:
        notes.append("no map was named: one was made for this page and not kept")
    if (product.outside or 0) > MUCH_OUTSIDE:
        notes.append(
            f"{product.outside:.0%} of the map is unlike anything that was labelled; accuracy was not measured on such "
            "ground: label some of it (adcdnet suggest)"
        )
    if product.probabilities is None:
        notes.append("without probabilities of this large scene, nothing is said of how sure the map is")
    elif findings.survey.disagree > 0.01:
        notes.append(
            f"map and probabilities disagree on {findings.survey.disagree:.1%} of the pixels: "
            "they come from different runs or settings, or the map was sieved"
        )
    return list(dict.fromkeys([*notes, *findings.classes.alike()]))


def split(findings: Findings) -> dict[str, Any] | None:
    """Where each part lies, and its pixels."""
    if findings.folds is not None:
        return _folds(findings, findings.folds)
    if findings.split is None:
        return None
    step = max(1, findings.survey.step // findings.step)
    labelled = findings.files.divided.get("labelled_pixels", {})
    parts = [
        {
            "name": name,
            "color": PART_COLORS[k],
            "pixels": words.number((findings.split == k).sum()),
            "labelled": words.number(labelled.get(name, 0)),
        }
        for k, name in enumerate(PART_NAMES)
        if PART_COLORS[k]
    ]
    return {
        "heading": "Where training, validation and test lie",
        "alt": "Parts of the split",
        "src": pictures.png_of_codes(findings.split[::step, ::step], PART_COLORS),
        "parts": parts,
        "pixels": findings.pixels,
    }


def _folds(findings: Findings, folds: NDArray[np.uint8]) -> dict[str, Any]:
    """Where each fold lies, and its pixels."""
    step = max(1, findings.survey.step // findings.step)
    count = findings.files.model.record.folds
    colors = [None, *(FOLD_COLORS[k % len(FOLD_COLORS)] for k in range(count))]
    labelled = findings.files.divided.get("labelled_pixels", {})
    parts = [
        {
            "name": f"fold {k}",
            "color": colors[k],
            "pixels": words.number((folds == k).sum()),
            "labelled": words.number(labelled.get(f"fold {k}", 0)),
        }
        for k in range(1, count + 1)
    ]
    return {
        "heading": "Which ground was tested together",
        "alt": "Folds",
        "src": pictures.png_of_codes(folds[::step, ::step], colors),
        "parts": parts,
        "pixels": findings.pixels,
    }


def accuracy(findings: Findings, drawings: Drawings) -> dict[str, Any] | None:
    """Scores by class, confusion matrix, and whether probabilities mean what they say."""
    e = findings.evaluation
    if e is None:
        return None
    names, s, colors, k = e.classes.names, e.scores, e.classes.colors, len(e.classes)
    bars = {"F1": s.f1, "user's": s.precision, "producer's": s.recall}
    spread = None
    if e.intervals is not None:
        spread = dict(zip(bars, (e.intervals.f1, e.intervals.precision, e.intervals.recall), strict=True))
    cells = min(k, 8) * 0.52 + max(0, k - 8) * 0.32

    def draw_confusion(figure: Figure) -> None:
        confusion_heat_map(figure.subplots(), e.confusion, names)

    def draw_bars(figure: Figure) -> None:
        class_bars(figure.subplots(), bars, names, colors, spread)

    drawings["confusion"] = pictures.svg(draw_confusion, cells + 2.6, cells + 1.8)
    drawings["classes"] = pictures.svg(draw_bars, 5.2, 0.6 + 0.62 * k)
    intervals: Mapping[str, Sequence[tuple[float, float] | None]] = spread or dict.fromkeys(bars, [None] * k)
    rows = [
        {
            "name": name,
            "color": colors[i],
            "support": words.number(s.support[i]),
            "scores": [words.share(values[i], intervals[key][i]) for key, values in bars.items()],
            "iou": words.share(s.iou[i]),
        }
        for i, name in enumerate(names)
    ]
    return {
        "rows": rows,
        "headings": list(bars),
        "names": names,
        "confusion": [[words.number(c) for c in row] for row in e.confusion],
        "pixels": words.number(sum(s.support)),
        "intervals": words.of_intervals(e, findings.pixels),
        "where": "on the test part" if findings.split is not None else "on all labels",
        "members": words.of_members(findings.files.model.record),
        "calibration": _calibration(findings, drawings),
    }


def trust(findings: Findings, drawings: Drawings) -> dict[str, Any] | None:
    """Accuracy inside and outside the area of applicability, and whether expected errors mean what they say."""
    told = findings.files.model.record.applicability
    if told is None:
        return None

    def draw(figure: Figure) -> None:
        expected_error_diagram(figure.subplots(), told["reliability"])

    drawings["expected_error"] = pictures.svg(draw, 5.2, 4.0)
    outside = findings.product.outside
    shares = {"inside": None if outside is None else 1 - outside, "outside": outside}
    return {
        "rows": [
            {
                "name": name,
                "pixels": words.number(told[name]["pixels"]),
                "accuracy": "–" if told[name]["oa"] is None else words.share(told[name]["oa"], told[name]["interval"]),
                "map": "–" if part is None else f"{part:.1%}",
            }
            for name, part in shares.items()
        ],
    }


def sample(findings: Findings) -> dict[str, Any] | None:
    """Scores by class that a probability sample gives for the whole map."""
    e = findings.sample
    if e is None:
        return None
    s, spread = e.scores, e.intervals
    users, producers = (spread.precision, spread.recall) if spread else ((None,) * len(e.classes),) * 2
    rows = [
        {
            "name": name,
            "color": e.classes.colors[k],
            "points": words.number(s.support[k]),
            "users": words.share(s.precision[k], users[k]),
            "producers": words.share(s.recall[k], producers[k]),
        }
        for k, name in enumerate(e.classes.names)
    ]
    return {"rows": rows, "text": words.of_sample(e), "intervals": words.of_intervals(e, findings.pixels)}


def _calibration(findings: Findings, drawings: Drawings) -> dict[str, Any] | None:
    judged = findings.survey.judged
    if judged is None:
        return None

    def draw(figure: Figure) -> None:
        reliability_diagram(figure.subplots(), judged.probabilities, judged.truth)

    drawings["reliability"] = pictures.svg(draw, 5.2, 4.0)
    return {
        "error": words.share(expected_calibration_error(judged.probabilities, judged.truth)),
        "temperature": f"{findings.files.model.temperature:.2f}",
        "fitted": findings.files.model.record.calibration is not None,
        "on": "held-out ground" if findings.folds is not None else "the validation part",
    }


def training(findings: Findings, drawings: Drawings) -> dict[str, Any]:
    """How both stages went, as drawings, and what they cost."""
    shown = []
    for name, stage, columns, title in _CURVES:
        rows = [row for row in findings.files.history if row["stage"] == stage and row.get("fold", "1") == "1"]
        curves = {label: line for column, label in columns.items() if (line := _column(rows, column))}
        if curves:
            drawings[name] = _curve(_column(rows, "step"), curves, title)
            shown.append({"name": name, "title": title})
    timing = dict(findings.files.timing)
    memory = timing.pop("peak_memory_bytes", None)
    called = {"stage1": "stage I", "context": "context branch", "stage2": "stage II", "answers": "held-out answers"}
    costs = [(called.get(name, name), f"{s:.1f} s") for name, s in timing.items()]
    if memory is not None:
        costs.append(("largest memory", f"{memory / 2**30:.2f} GiB"))
    told = words.of_model(findings.files.model.record, looked_at="kappa" in drawings)
    return {"drawings": shown, "costs": costs, "model": told}


def _curve(steps: Sequence[float], curves: Mapping[str, Sequence[float]], title: str) -> str:
    return pictures.svg(lambda figure: training_curve(figure.subplots(), steps, curves, title), 3.6, 2.3)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
    """One column of the history; empty unless every row has it."""
    values = [row.get(name) or "" for row in rows]
    return [float(value) for value in values] if all(values) else []


def repeat(findings: Findings) -> dict[str, Any]:
    """Command, settings, versions and hashes with which the run and the page can be made again."""
    files, record = findings.files, findings.files.model.record
    hashes = [(source.role, source.path.name, source.sha256) for source in files.sources.values()]
    hashes += [(role, file.path.name, file.sha256) for role, file in files.others.items()]
    hashes.append(("model", "model.safetensors", sha256(files.folder / "model.safetensors")))
    if not findings.product.made:
        hashes.append(("map", findings.product.map.name, sha256(findings.product.map)))
    if findings.sample_file is not None:
        hashes.append(("sample", findings.sample_file.name, sha256(findings.sample_file)))
    config = files.folder / "config.toml"
    named = {"version": "adcdnet", "torch": "PyTorch", "python": "Python"}
    return {
        "command": words.of_command(files.command),
        "settings": config.read_text("utf-8") if config.exists() else "",
        "versions": [(name, getattr(record, key)) for key, name in named.items() if getattr(record, key)],
        "seed": record.settings.get("seed"),
        "hashes": hashes,
    }
