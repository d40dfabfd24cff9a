"""The tables of docs/evidence.md: trains what is missing, keeps every run as a CSV file, and fills in the tables.

    python benchmarks/evidence.py --out runs/evidence --jobs 2               # all runs; some 30 hours of one core
    python benchmarks/evidence.py --out runs/evidence --only blocks strips   # some of them
    python benchmarks/evidence.py                                            # the tables, from the CSV files

Finished trainings in --out are not repeated. The scenes of North Carolina lie in $ADCDNET_DATA (default ../shared/data
from the project's root); the simulated one is made. A run is one `adcdnet benchmark`; its results.csv becomes
docs/evidence/RUN.csv. In docs/evidence.md a table stands between two marks,

    <!-- scores RUN METHOD ... -->     a line for each method and operating point
    <!-- leads RUN METHOD ... -->      a line for each method: how far the run's reference is ahead of it
    <!-- end -->

and is written anew from RUN.csv. Networks train in bf16, as by a settings file of the line precision = "bf16".
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adcdnet.baselines import METHODS
from adcdnet.benchmark import benchmark
from adcdnet.cells import ALIKE, Cell, Protocol, settings_of
from adcdnet.checkpoint import write_whole
from adcdnet.demo import SCENE, write_scene
from adcdnet.scenes import SceneFiles

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "evidence.md"
RESULTS = ROOT / "docs" / "evidence"
BF16 = {"precision": "bf16"}
PAPER_IN_SHORT = {"stage1": {"steps": 25}, "stage2": {"steps": 100}}  # of 500 and 2,000
BASELINES = ("forest", "forest-alike", "boosting", "boosting-alike", "mlp", "mlp-alike")
PARTS = ("no-dtm", "no-stage1", "no-dia", "no-context", "plain")
SUBSTITUTES = ("cbam", "gru", "attention", "random-prior", "flatten-head", "gate-fusion", "concat-fusion")


@dataclass(frozen=True)
class Run:
    """One call of `benchmark`. The first method is the reference. changes: of the settings of all networks in it."""

    scene: str
    methods: tuple[str, ...]
    folds: int = 5
    repeats: int = 1
    seeds: int = 1
    protocol: Protocol = "blocks"
    labels: int | None = None
    changes: dict[str, Any] = field(default_factory=lambda: BF16)


RATIO_2, RATIO_4 = "nc_landsat7_x2", "nc_landsat7_x4"
WHOLE = ("adcdnet", "all-parts", *BASELINES)
RUNS = {
    "blocks": Run(RATIO_2, ("adcdnet", "plain", *BASELINES), repeats=2, seeds=2),
    "strips": Run(RATIO_2, ("adcdnet", "plain", *BASELINES), folds=4, repeats=2, seeds=2, protocol="strips"),
    "blocks-ratio4": Run(RATIO_4, WHOLE, seeds=2),
    "strips-ratio4": Run(RATIO_4, WHOLE, folds=4, repeats=2, protocol="strips"),
    "labels-50": Run(RATIO_2, WHOLE, repeats=2, labels=50),
    "labels-50-strips": Run(RATIO_2, WHOLE, folds=4, repeats=2, protocol="strips", labels=50),
    "labels-200": Run(RATIO_2, WHOLE, labels=200),
    "simulated": Run("simulated", ("adcdnet", "plain", *BASELINES), folds=2),
    "random": Run(RATIO_2, ("adcdnet", "forest", "boosting", "mlp"), protocol="random"),
    "parts": Run(RATIO_2, ("adcdnet", *PARTS, *SUBSTITUTES, "ms-only", "pan-only", "patches")),
    "parts-ratio4": Run(RATIO_4, ("all-parts", "no-dtm", "no-stage1", "no-dia", "plain")),
    "sensors-ratio4": Run(RATIO_4, ("adcdnet", "ms-only", "pan-only")),
    "halo": Run(RATIO_2, ("halo", "zeros")),
    "networks": Run(
        RATIO_2, ("adcdnet", "plain", "two-branch-cnn", "mft", "dual-resnet", "unet", "dbaf", "forest", "mlp")
    ),
    "paper": Run(
        RATIO_4, ("paper", "paper-no-stage1", "paper-no-dtm", "paper-no-dia"), folds=2, changes=PAPER_IN_SHORT
    ),
}


def scene_files(name: str, out: Path) -> SceneFiles:
    """One of the scenes by its name; the simulated one is the demo's."""
    if name == "simulated":
        folder = out / name
        write_scene(folder, seed=0, size=160, ratio=4)
        ms, pan, labels = (folder / file for file in SCENE)
        return SceneFiles(name=name, ms=ms, pan=pan, labels=labels)
    data = Path(os.environ.get("ADCDNET_DATA", ROOT.parent / "shared" / "data"))
    folder = data / name
    classes = data / RATIO_2 / "classes.csv"
    ms, pan, labels = (folder / f"{what}.tif" for what in ("ms", "pan", "labels"))
    return SceneFiles(name=name, ms=ms, pan=pan, labels=labels, classes=classes)


def method_files(run: Run, folder: Path) -> list[str]:
    """The methods as `benchmark` takes them: networks as files of their settings, written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for method in run.methods:
        if method.removesuffix(ALIKE) in METHODS:
            found.append(method)
            continue
        settings = settings_of(method, 0)
        assert settings is not None
        file = folder / f"{method}.toml"
        file.write_text(settings.replace(run.changes).to_toml())
        found.append(str(file))
    return found


def compute(name: str, out: Path, jobs: int, progress: Callable[[int, int, Cell], None]) -> None:
    """Finish a run and keep its results."""
    run = RUNS[name]
    methods = method_files(run, out / "methods" / name)
    benchmark(
        [scene_files(run.scene, out)],
        methods=methods,
        reference=methods[0],
        out=out,
        folds=run.folds,
        repeats=run.repeats,
        seeds=run.seeds,
        protocol=run.protocol,
        labels_per_class=[run.labels],
        jobs=jobs,
        device="cpu",
        progress=progress,
    )
    RESULTS.mkdir(exist_ok=True)
    write_whole(RESULTS / f"{name}.csv", (out / "results.csv").read_bytes())


Rows = dict[tuple[str, str], dict[str, str]]  # of a CSV file, by method and tau


def read_rows(name: str) -> Rows:
    with (RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return {(row["method"], row["tau"]): row for row in csv.DictReader(file)}


def number(text: str, sign: str = "") -> str:
    return f"{float(text):{sign}.3f}".replace("-", "−")


def lead(row: dict[str, str], score: str) -> str:
    """reference − method with its interval; the file has method − reference."""
    if row[f"{score}_difference"] == "nan":
        return "–"
    middle, low, high = (str(-float(row[f"{score}_{end}"])) for end in ("difference", "high", "low"))
    return f"{number(middle, '+')} [{number(low, '+')}, {number(high, '+')}]"


def scores(name: str, methods: list[str]) -> list[str]:
    rows, reference = read_rows(name), RUNS[name].methods[0]
    titles = ("method", "tau", "OA", "AA", "kappa", "macro F1", "ECE")
    leads = (f"{reference} − it: OA", "AA", "kappa")
    lines = [f"| {' | '.join((*titles, *leads, 'train s'))} |", "|---" * 11 + "|"]
    for tau in ("1", "0.5"):
        for method in methods:
            row = rows[method, tau]
            own = [with_deviation(row, score) for score in ("oa", "aa", "kappa", "macro_f1")]
            behind = [lead(row, score) for score in ("oa", "aa", "kappa")]
            cells = (method, tau, *own, number(row["calibration_error"]), *behind, seconds(row))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def leads(name: str, methods: list[str]) -> list[str]:
    rows, run = read_rows(name), RUNS[name]
    taus = ("0.5", "1") if run.labels is None else ("1",)  # of even labels all operating points are one
    own = [f"OA / AA / kappa, tau {tau}" for tau in taus] if len(taus) > 1 else ["OA / AA / kappa"]
    behind = (f"{run.methods[0]} − it: OA", "AA", "kappa")
    lines = [f"| {' | '.join(('method', *own, *behind, 'train s', 'parameters'))} |", "|---" * (6 + len(taus)) + "|"]
    for method in methods:
        found = [rows[method, tau] for tau in taus]
        triples = [" / ".join(number(row[score]) for score in ("oa", "aa", "kappa")) for row in found]
        differences = ["; ".join(dict.fromkeys(lead(row, s) for row in found)) for s in ("oa", "aa", "kappa")]
        cells = (method, *triples, *differences, seconds(found[0]), f"{int(found[0]['parameters']):,}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def with_deviation(row: dict[str, str], score: str) -> str:
    deviation = row[f"{score}_sd"]
    return number(row[score]) if deviation == "nan" else f"{number(row[score])} ± {number(deviation)}"


def seconds(row: dict[str, str]) -> str:
    return f"{float(row['training_seconds']):.0f}"


LAYOUTS = {"scores": scores, "leads": leads}
MARKED = re.compile(r"(<!-- (scores|leads) (\S+) ([^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """A document with its tables as the CSV files have them; a table of a run without a file stays as it is."""

    def table(found: re.Match[str]) -> str:
        first, layout, name, methods, last = found.groups()
        if not (RESULTS / f"{name}.csv").exists():
            return found.group()
        return first + "\n" + "\n".join(LAYOUTS[layout](name, methods.split())) + "\n\n" + last

    return MARKED.sub(table, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of finished trainings")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.only if arguments.out is not None else ():
        compute(
            name,
            arguments.out,
            arguments.jobs,
            lambda done, of, _, name=name: print(f"{name}: {done} of {of}", file=sys.stderr, flush=True),
        )
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
