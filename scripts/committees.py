"""What members are worth together and alone: every label judged once, by members and weights of other folds.

    python scripts/committees.py FOLDER ... [--together] [--name NAME] [--seeds 1] [--members plain boosting ...]
    python scripts/committees.py                # the table of docs/evidence.md, from docs/evidence/committees.csv

A FOLDER holds ms.tif, pan.tif, labels.tif, and classes.csv in it or above it. With --together all are scenes of one
training, otherwise each is one of its own. Lines are added to docs/evidence/committees.csv: for each seed, subset of
the members and tau. All are read alike: averaged with like neighbours, with local class priors where the held-out
answers of the other folds are likelier with them. Networks train in bf16.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from adcdnet.config import TrainConfig
from adcdnet.files import write_whole
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Scene
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.training.committee.cross_fit import choices_of, cross_fit, weighed
from adcdnet.training.committee.folds import FoldResult
from adcdnet.training.prepare import prepare
from adcdnet.training.scenes import LabelledScene

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "evidence" / "committees.csv"
DOCUMENT = ROOT / "docs" / "evidence.md"
BEGIN, END = "<!-- committees -->", "<!-- committees end -->"
TAUS = (0.5, 1.0)
DEFAULT = "boosting+perceptron"  # what answers beside the network by default
COLUMNS = ("scene", "seed", "folds", "members", "tau", "oa", "aa", "kappa", "weights", "local_priors", "seconds")


def main() -> None:
    """Train, judge, and write lines; without folders, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--name", help="of the scenes together")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--members", nargs="+", default=["plain", "boosting", "forest", "perceptron"])
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    lines = read() if TABLE.exists() else []
    groups = [given.folders] if given.together else [[folder] for folder in given.folders]
    for folders in groups:
        for seed in range(given.seeds) if folders else ():
            lines += trained(folders, given.name or folders[0].name, seed, given.members, given.jobs)
            kept(lines)
    write_whole(DOCUMENT, with_table(DOCUMENT.read_text("utf-8"), lines).encode())


def read() -> list[dict[str, str]]:
    """The lines that are kept."""
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def trained(folders: Sequence[Path], name: str, seed: int, members: Sequence[str], jobs: int) -> list[dict[str, str]]:
    """Lines of one cross-fitting."""
    started = time.perf_counter()
    config = TrainConfig().replace({"members": list(members), "seed": seed, "precision": "bf16"})
    with ExitStack() as stack:
        scenes = []
        for folder in folders:
            table = next((p for p in (folder / "classes.csv", folder.parent / "classes.csv") if p.exists()), None)
            scene = stack.enter_context(Scene.open(folder / "ms.tif", folder / "pan.tif"))
            classes = None if table is None else ClassTable.read(table)
            scenes.append(
                LabelledScene(scene, read_labels(folder / "labels.tif", scene.grid, classes=classes), folder.name)
            )
        prepared = prepare(scenes, config, None)
    fitted = cross_fit(
        prepared.ground, prepared.splits, prepared.config, torch.device("cpu"), jobs=jobs, progress=lambda *_: None
    )
    return list(lines_of(name, seed, prepared.config, fitted.results, time.perf_counter() - started))


def lines_of(
    name: str, seed: int, config: TrainConfig, results: Sequence[FoldResult], seconds: float
) -> Iterator[dict[str, str]]:
    """All members, each alone, and all but each."""
    names = [member.name for member in results[0].members]
    every = tuple(range(len(names)))
    subsets = [every, *((k,) for k in every)]
    if len(names) > 2:
        subsets += [tuple(j for j in every if j != k) for k in every]
        subsets += [tuple(k for k in every if names[k] not in ("plain", "adcdnet"))]
    for subset in dict.fromkeys(subsets):
        parts = [
            [replace(h, likelihoods=h.likelihoods[list(subset)]) for h in result.held_out if (h.truth >= 0).any()]
            for result in results
        ]
        fits = [
            weighed([h for k, p in enumerate(parts) if k != f for h in p], choices_of(config))
            for f in range(len(parts))
        ]
        weights = np.mean([fit.weights for fit in fits], axis=0)
        for tau in TAUS:
            confusion = sum(
                confusion_matrix(h.truth, h.probabilities(*fit, tau=tau).argmax(0), len(h.label_shares))
                for fit, part in zip(fits, parts, strict=True)
                for h in part
            )
            found = scores(np.asarray(confusion))
            figures = {key: f"{getattr(found, key):.6g}" for key in ("oa", "aa", "kappa")}
            yield {
                "scene": name,
                "seed": str(seed),
                "folds": str(len(results)),
                "members": "+".join(names[k] for k in subset),
                "tau": f"{tau:g}",
                **figures,
                "weights": " ".join(f"{w:.3f}" for w in weights),
                "local_priors": f"{mean(bool(fit.answers.local_priors) for fit in fits):.2g}",
                "seconds": f"{seconds:.0f}",
            }


def kept(lines: Sequence[dict[str, str]]) -> None:
    """Into the CSV file, each line once: the last of its kind counts."""
    once = {tuple(line[c] for c in COLUMNS[:5]): line for line in lines}
    text = [",".join(COLUMNS), *(",".join(line[c] for c in COLUMNS) for line in once.values())]
    write_whole(TABLE, ("\n".join(text) + os.linesep).encode())


def with_table(text: str, lines: Sequence[dict[str, str]]) -> str:
    """The document with its table written anew: kappa and AA, mean ± sd over seeds, of all members, of those that
    answer by default, of each alone, and of all that are no networks."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for line in lines:
        found[line["scene"], line["members"], line["tau"]].append(line)
    rows = [
        "| scene | members | kappa; AA (tau 0.5) | kappa; AA (tau 1) | weights | seeds |",
        "|---|---|---|---|---|---|",
    ]
    most = {scene: max(m.count("+") for s, m, _ in found if s == scene) for scene, *_ in found}
    for (scene, members, tau), some in found.items():
        networks = {"adcdnet", "plain"} & set(members.split("+"))
        shown = members.count("+") in (0, most[scene]) or not networks or members.partition("+")[2] == DEFAULT
        if tau == "0.5" and shown:
            later = found[scene, members, "1"]
            weights = some[0]["weights"] if "+" in members else ""
            cells = scene, members.replace("+", ", "), _figures(some), _figures(later), weights, str(len(some))
            rows.append("| " + " | ".join(cells) + " |")
    before, _, after = text.partition(BEGIN)
    return before + BEGIN + "\n\n" + "\n".join(rows) + "\n\n" + END + after.partition(END)[2]


def _figures(lines: Sequence[dict[str, str]]) -> str:
    cells = []
    for key in ("kappa", "aa"):
        values = [float(line[key]) for line in lines]
        cells.append(f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else ""))
    return "; ".join(cells)


if __name__ == "__main__":
    main()
