"""Which method suits a scene: repeated spatial cross-validation of ADCD-Net and of what one would use instead.

All methods get the same pixels and are read at the same operating points. Figures are made of confusion matrices that
are summed over the folds, so that every labelled pixel counts once; they are given as mean ± standard deviation over
repeats and seeds. Differences to a reference are paired by place, with a block-bootstrap interval. Nothing is chosen on
test pixels: a cell holds the final model of one training.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adcdnet.benchmark.cell import TAUS, Cell, Protocol, name_of, scenes_hash
from adcdnet.benchmark.methods_by_name import method_name, settings_hash, settings_of
from adcdnet.benchmark.pool import Elsewhere, run_cells
from adcdnet.errors import InputError
from adcdnet.files import refuse_overwriting, write_whole
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.progress import Progress, silent
from adcdnet.metrics import Scores, scores
from adcdnet.metrics.intervals import NO_INTERVAL, Interval, paired_bootstrap

SCORES = ("oa", "aa", "kappa", "macro_f1")
_TITLES = {"oa": "OA", "aa": "AA", "kappa": "kappa", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Row:
    """One method at one operating point. Means and standard deviations over repeats and seeds, folds summed.

    difference: to the reference method on the same cells, None for the reference itself; interval: 95 %.
    """

    scene: str
    protocol: str
    labels: str  # per class, or "all"
    method: str
    tau: float
    trainings: int
    mean: dict[str, float]
    deviation: dict[str, float]  # nan where there is one repeat and seed
    difference: dict[str, float] | None
    interval: dict[str, Interval]
    calibration_error: float
    training_seconds: float  # median, as the next: other work on the machine slows some down
    pixels_per_second: float
    parameters: int
    peak_memory_bytes: int
    device: str  # "cpu" or "cuda"
    overlapping: float | None  # share of test pixels whose window overlaps that of a training pixel
    versions: str  # of adcdnet and torch
    scene_hash: str  # of the scene's files
    settings_hash: str  # of the method's settings


def benchmark(
    scenes: Sequence[SceneFiles],
    *,
    methods: Sequence[str],
    reference: str,
    out: Path | str,
    folds: int = 5,
    repeats: int = 1,
    seeds: int = 1,
    protocol: Protocol = "blocks",
    labels_per_class: Sequence[int | None] = (None,),
    jobs: int = 1,
    device: str = "auto",
    elsewhere: Elsewhere | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Compute what is missing and write results.csv, results.md and results.png into `out`. Returns the rows.

    Cells that an earlier call left in `out` are taken as they are if scene files, settings and version are the same.
    Every scene is divided into folds of its own. By protocol "scenes" all are trained together, and whole scenes are
    tested in turn; by "given" once, as their parts and splits say. Raises InputError for an unknown method, a reference
    that is not among the methods, scenes that cannot be split, and scenes with a part or a split of their own under
    another protocol than "given". device: where ADCD-Nets are trained; the other methods run on the processor.
    elsewhere: who computes cells, not `jobs` processes here.
    """
    out = Path(out)
    if reference not in methods:
        raise InputError(f"reference {reference!r} is not among the methods {', '.join(methods)}; add it to them")
    names = [method_name(method) for method in methods]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise InputError(
            f"two methods go by the name {twice!r}, under which results are kept; name one, or rename a file"
        )
    folds = _folds(scenes, protocol, folds)
    groups = [tuple(scenes)] if protocol in ("scenes", "given") else [(scene,) for scene in scenes]
    kind = pick_device(device).type
    places = {method: "cpu" if settings_of(method, 0) is None else kind for method in methods}
    cells = [
        Cell(group, method, repeat, fold, seed, folds, protocol, labels, places[method])
        for group, labels, repeat, seed, fold, method in product(
            groups, labels_per_class, range(repeats), range(seeds), range(folds), methods
        )
    ]
    made = [out / f"results.{ending}" for ending in ("csv", "md", "png")]
    refuse_overwriting(made, [file for scene in scenes for file in (*scene.files(), scene.classes)])
    run_cells(cells, out, jobs=jobs, elsewhere=elsewhere, progress=progress)
    kept = [_read(cell, out) for cell in cells]
    rows = []
    settings = {method: settings_hash(method) for method in methods}
    for group, labels in product(groups, labels_per_class):
        files = scenes_hash(group)
        own = [c for c in kept if c["scene"] == name_of(group) and c["labels_per_class"] == labels]
        by_method = {method: [c for c in own if c["method"] == method] for method in methods}
        rows += [
            _row(
                by_method[method],
                by_method[reference],
                tau,
                is_reference=method == reference,
                hashes=(files, settings[method]),
            )
            for tau, method in product(TAUS, methods)
        ]
    contents = _csv(rows), markdown(rows, reference=method_name(reference)).encode(), _figure(rows)
    for file, content in zip(made, contents, strict=True):
        write_whole(file, content)
    return rows


def _folds(scenes: Sequence[SceneFiles], protocol: Protocol, folds: int) -> int:
    """How many there are. InputError where scenes, protocol and number do not agree."""
    own = next((scene for scene in scenes if scene.part is not None or scene.split is not None), None)
    if protocol == "given":
        if own is None:
            raise InputError("no scene has a part or a split that says what is tested; give them, or test by folds")
        return 1
    if own is not None:
        raise InputError(
            f"scene {own.name!r} has a {'part' if own.split is None else 'split'} of its own, and folds would divide "
            "it otherwise; add --split given, or take that line out of the file of scenes"
        )
    if folds < 2:
        raise InputError(f"{folds} folds leave nothing to train on or to test; ask for 2 or more")
    if protocol == "scenes":
        if len(scenes) < 2:
            raise InputError("one scene cannot be trained on and tested; name two or more, or test by blocks")
        return min(folds, len(scenes))
    return folds


def _read(cell: Cell, out: Path) -> dict[str, Any]:
    """What was kept of a cell, whose settings may have lain elsewhere then."""
    kept: dict[str, Any] = json.loads((out / cell.file).read_text(encoding="utf-8"))
    return kept | {"method": cell.method}


def _row(
    cells: list[dict[str, Any]],
    reference: list[dict[str, Any]],
    tau: float,
    *,
    is_reference: bool,
    hashes: tuple[str, str],
) -> Row:
    own, other = _summed(cells, tau), _summed(reference, tau)
    each = [_means(confusions.sum(0)) for confusions in own.values()]
    difference, interval = None, dict.fromkeys(SCORES, NO_INTERVAL)
    if not is_reference:
        theirs = [_means(confusions.sum(0)) for confusions in other.values()]
        difference = {s: _mean([a[s] - b[s] for a, b in zip(each, theirs, strict=True)]) for s in SCORES}
        by_fold = paired_bootstrap(sum(own.values()), sum(other.values()), rng=np.random.default_rng(0))  # type: ignore[arg-type]
        if by_fold is not None:
            interval = {s: getattr(by_fold, s) for s in SCORES}
    first = cells[0]
    overlapping = [c["leakage"]["overlapping"] for c in cells]
    return Row(
        scene=first["scene"],
        protocol=first["protocol"],
        labels="all" if first["labels_per_class"] is None else str(first["labels_per_class"]),
        method=method_name(first["method"]),
        tau=tau,
        trainings=len(cells),
        mean={s: _mean([e[s] for e in each]) for s in SCORES},
        deviation={s: float(np.std([e[s] for e in each], ddof=1)) if len(each) > 1 else math.nan for s in SCORES},
        difference=difference,
        interval=interval,
        calibration_error=_mean([c["calibration_error"][str(tau)] for c in cells]),
        training_seconds=float(np.median([c["training_seconds"] for c in cells])),
        pixels_per_second=float(np.median([c["pixels_per_second"] for c in cells])),
        parameters=int(_mean([c["parameters"] for c in cells])),
        peak_memory_bytes=max(c["peak_memory_bytes"] for c in cells),
        device=first.get("device", "cpu"),  # cells of before there was a choice do not say
        overlapping=None if None in overlapping else _mean(overlapping),
        versions=", ".join(sorted({f"{name} {v}" for c in cells for name, v in c["versions"].items()})),
        scene_hash=hashes[0],
        settings_hash=hashes[1],
    )


def _summed(cells: list[dict[str, Any]], tau: float) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Confusion matrices by place (B, K, K + 1) of every repeat and seed, folds summed."""
    by_fold: dict[tuple[int, int], NDArray[np.int64]] = {}
    for cell in cells:
        key = cell["repeat"], cell["seed"]
        by_fold[key] = by_fold.get(key, 0) + np.asarray(cell["confusions"][str(tau)], np.int64)
    return by_fold


def _means(confusion: NDArray[np.int64]) -> dict[str, float]:
    by_fold: Scores = scores(confusion)
    return {s: getattr(by_fold, s) for s in SCORES}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def markdown(rows: Sequence[Row], *, reference: str) -> str:
    """The rows as tables, one per scene, protocol, number of labels and operating point; below them versions and hashes
    of all that they were made from."""
    lines = []
    for place in dict.fromkeys((r.scene, r.protocol, r.labels, r.tau) for r in rows):
        scene, protocol, labels, tau = place
        lines += [f"### {scene}, {labels} labels, {protocol}, tau {tau:g}", ""]
        difference = " | ".join(f"{_TITLES[s]} − {reference}" for s in SCORES[:3])
        lines += [f"| method | n | {' | '.join(_TITLES.values())} | ECE | {difference} | train s | parameters | MB |"]
        lines += ["|---" * (len(SCORES) + 9) + "|"]
        for r in (r for r in rows if (r.scene, r.protocol, r.labels, r.tau) == place):
            own = " | ".join(_with_deviation(r.mean[s], r.deviation[s]) for s in SCORES)
            against = " | ".join(_with_interval(r, s) for s in SCORES[:3])
            where = "" if r.device == "cpu" else f" ({r.device})"
            lines.append(
                f"| {r.method} | {r.trainings} | {own} | {r.calibration_error:.3f} | {against} | "
                f"{r.training_seconds:.0f}{where} | {r.parameters} | {r.peak_memory_bytes / 2**20:.0f} |"
            )
        lines.append("")
    scenes, settings = {r.scene: r.scene_hash for r in rows}, {r.method: r.settings_hash for r in rows}
    for what, hashes in (("Files", scenes), ("Settings", settings)):
        lines += [f"{what}: {', '.join(f'{name} `{digest}`' for name, digest in hashes.items())}.", ""]
    return "\n".join([*lines, "; ".join(dict.fromkeys(r.versions for r in rows)) + ".", ""])


def _with_deviation(mean: float, deviation: float) -> str:
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def _with_interval(row: Row, score: str) -> str:
    if row.difference is None:
        return "–"
    low, high = row.interval[score]
    ends = "" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
    return f"{row.difference[score]:+.3f}{ends}"


def _csv(rows: Sequence[Row]) -> bytes:
    """Flat columns: a score, its deviation, its difference and the two ends of that stand side by side."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for r in rows:
        flat = {k: v for k, v in asdict(r).items() if k not in ("mean", "deviation", "difference", "interval")}
        for s in SCORES:
            low, high = r.interval[s]
            flat |= {s: r.mean[s], f"{s}_sd": r.deviation[s], f"{s}_low": low, f"{s}_high": high}
            flat[f"{s}_difference"] = math.nan if r.difference is None else r.difference[s]
        if writer is None:
            writer = csv.DictWriter(text, list(flat), lineterminator="\n")
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in flat.items()})
    return text.getvalue().encode()


def _figure(rows: Sequence[Row]) -> bytes:
    """Difference in kappa and AA to the reference with its interval, a panel per table."""
    tables = [t for t in dict.fromkeys((r.scene, r.labels, r.tau) for r in rows) if t[2] > 0]
    figure = Figure(
        figsize=(10, 0.6 + len(tables) * (1.1 + 0.25 * len({r.method for r in rows}))), layout="constrained"
    )
    panels = figure.subplots(len(tables), 2, squeeze=False)
    for line, (scene, labels, tau) in zip(panels, tables, strict=True):
        compared = [r for r in rows if (r.scene, r.labels, r.tau) == (scene, labels, tau) and r.difference is not None]
        for axes, score in zip(line, ("kappa", "aa"), strict=True):
            for y, r in enumerate(compared):
                assert r.difference is not None
                axes.plot(r.interval[score], (y, y), color="#2b83ba", linewidth=2)
                axes.plot(r.difference[score], y, "o", color="#2b83ba")
            axes.axvline(0, color="0.4", linewidth=1)
            axes.set_yticks(range(len(compared)), [r.method for r in compared])
            axes.invert_yaxis()
            axes.grid(axis="x", color="0.9")
            axes.set_title(f"{_TITLES[score]} difference, {scene}, {labels} labels, tau {tau:g}", fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
