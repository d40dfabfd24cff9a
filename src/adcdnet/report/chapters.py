"""What the template is given, chapter by chapter: plain values, images as data addresses, drawings as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from adcdnet.files import sha256
from adcdnet.metrics import expected_calibration_error
from adcdnet.report import pictures, words
from adcdnet.report.drawings import class_bars, confusion_heat_map, reliability_diagram, training_curve
from adcdnet.report.findings import Findings
from adcdnet.split.parts import PART_NAMES

Drawings = dict[str, str]
PART_COLORS = (None, "#0072b2", "#e69f00", "#cc3311", "#b8b8b8")  # unused, train, validation, test, guard
_CURVES = (  # name, stage, columns and what they are called, title
    ("loss1", "stage1", {"loss": "loss", "sps": "distance of the sensors"}, "Stage I: loss"),
    ("rank", "stage1", {"effective_rank": "effective rank"}, "Stage I: effective rank of the prior"),
    ("context", "context", {"loss": "loss"}, "Context branch: loss"),
    ("loss2", "stage2", {"loss": "all heads", "main": "main head"}, "Stage II: loss"),
    ("kappa", "stage2", {"validation_kappa": "kappa"}, "Stage II: kappa on the validation part"),
    ("rate", "stage2", {"learning_rate": "learning rate"}, "Stage II: learning rate"),
)


def summary(found: Findings) -> list[str]:
    """What was mapped, from what, how well, and how that is known: one paragraph each."""
    mapped = int(found.survey.counts.sum())
    lines = [words.of_scene(found.scene, found.classes, mapped, map_grid=found.grid, pixels=found.pixels)]
    if made := words.of_making(found.tags, found.classes):
        lines.append(made)
    if found.evaluation is not None:
        lines += words.of_accuracy(found.evaluation, found.pixels)
    if found.sample is not None:
        lines.append(words.of_sample(found.sample))
    if found.split is not None:
        lines.append(words.of_split(found.files.divided, found.files.model.reach))
    if found.evaluation is not None and found.evaluation.leakage is not None:
        lines.append(words.of_leakage(found.evaluation.leakage))
    return lines


def warnings(found: Findings) -> list[str]:
    """What the reader must know before trusting the page."""
    record, product = found.files.model.record, found.product
    notes = [*found.notes, *record.get("notes", []), *(found.sample.notes if found.sample else ())]
    for source in found.files.sources.values():
        if source.changed:
            notes.append(f"{source.path.name} is not the file that the run was trained with: its SHA-256 differs")
    if record.get("interrupted"):
        notes.append(f"training was stopped by hand at step {record.get('interrupted_at_step')}")
    if "labels" not in found.files.sources:
        notes.append("no labels were at hand, so nothing is said of accuracy")
    elif found.split is None:
        notes.append("the split is of another scene: all labels judge the map; make sure that none of them trained")
    if found.evaluation is not None:
        support = found.evaluation.scores.support
        missing = [name for name, n in zip(found.evaluation.classes.names, support, strict=True) if not n]
        if missing:
            notes.append(
                f"no pixel that judges the map is of {', '.join(missing)}: nothing is said of how well they are found"
            )
    if product.made:
        notes.append("no map was named: one was made for this page and not kept")
    if product.probabilities is None:
        notes.append("without probabilities of this large scene, nothing is said of how sure the map is")
    elif found.survey.disagree > 0.01:
        notes.append(
            f"map and probabilities disagree on {found.survey.disagree:.1%} of the pixels: "
            "they come from different runs or settings, or the map was sieved"
        )
    return list(dict.fromkeys([*notes, *found.classes.alike()]))


def split(found: Findings) -> dict[str, Any] | None:
    """Where each part lies, and its pixels."""
    if found.split is None:
        return None
    step = max(1, found.survey.step // found.step)
    labelled = found.files.divided.get("labelled_pixels", {})
    parts = [
        {
            "name": name,
            "color": PART_COLORS[k],
            "pixels": words.number((found.split == k).sum()),
            "labelled": words.number(labelled.get(name, 0)),
        }
        for k, name in enumerate(PART_NAMES)
        if PART_COLORS[k]
    ]
    return {
        "src": pictures.png_of_codes(found.split[::step, ::step], PART_COLORS),
        "parts": parts,
        "pixels": found.pixels,
    }


def accuracy(found: Findings, drawings: Drawings) -> dict[str, Any] | None:
    """Scores by class, confusion matrix, and whether probabilities mean what they say."""
    e = found.evaluation
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
        "intervals": words.of_intervals(e, found.pixels),
        "test": found.split is not None,
        "calibration": _calibration(found, drawings),
    }


def sample(found: Findings) -> dict[str, Any] | None:
    """Scores by class that a probability sample gives for the whole map."""
    e = found.sample
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
    return {"rows": rows, "text": words.of_sample(e), "intervals": words.of_intervals(e, found.pixels)}


def _calibration(found: Findings, drawings: Drawings) -> dict[str, Any] | None:
    judged = found.survey.judged
    if judged is None:
        return None

    def draw(figure: Figure) -> None:
        reliability_diagram(figure.subplots(), judged.probabilities, judged.truth)

    drawings["reliability"] = pictures.svg(draw, 5.2, 4.0)
    return {
        "error": words.share(expected_calibration_error(judged.probabilities, judged.truth)),
        "temperature": f"{found.files.model.temperature:.2f}",
        "fitted": "calibration" in found.files.model.record,
    }


def training(found: Findings, drawings: Drawings) -> dict[str, Any]:
    """How both stages went, as drawings, and what they cost."""
    shown = []
    for name, stage, columns, title in _CURVES:
        rows = [row for row in found.files.history if row["stage"] == stage]
        curves = {label: line for column, label in columns.items() if (line := _column(rows, column))}
        if curves:
            drawings[name] = _curve(_column(rows, "step"), curves, title)
            shown.append({"name": name, "title": title})
    timing = dict(found.files.timing)
    memory = timing.pop("peak_memory_bytes", None)
    called = {"stage1": "stage I", "context": "context branch", "stage2": "stage II"}
    costs = [(called.get(name, name), f"{s:.1f} s") for name, s in timing.items()]
    if memory is not None:
        costs.append(("largest memory", f"{memory / 2**30:.2f} GiB"))
    told = words.of_model(found.files.model.record, looked_at="kappa" in drawings)
    return {"drawings": shown, "costs": costs, "model": told}


def _curve(steps: Sequence[float], curves: Mapping[str, Sequence[float]], title: str) -> str:
    return pictures.svg(lambda figure: training_curve(figure.subplots(), steps, curves, title), 3.6, 2.3)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
    """One column of the history; empty unless every row has it."""
    values = [row.get(name) or "" for row in rows]
    return [float(value) for value in values] if all(values) else []


def repeat(found: Findings) -> dict[str, Any]:
    """Command, settings, versions and hashes with which the run and the page can be made again."""
    files, record = found.files, found.files.model.record
    hashes = [(source.role, source.path.name, source.sha256) for source in files.sources.values()]
    hashes += [(role, file.path.name, file.sha256) for role, file in files.others.items()]
    hashes.append(("model", "model.safetensors", sha256(files.folder / "model.safetensors")))
    if not found.product.made:
        hashes.append(("map", found.product.map.name, sha256(found.product.map)))
    if found.sample_file is not None:
        hashes.append(("sample", found.sample_file.name, sha256(found.sample_file)))
    config = files.folder / "config.toml"
    named = {"version": "adcdnet", "torch": "PyTorch", "python": "Python"}
    return {
        "command": words.of_command(files.command),
        "settings": config.read_text("utf-8") if config.exists() else "",
        "versions": [(name, record[key]) for key, name in named.items() if key in record],
        "seed": record.get("settings", {}).get("seed"),
        "hashes": hashes,
    }
