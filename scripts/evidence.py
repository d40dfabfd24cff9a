"""The tables of docs/evidence.md: trains what is missing, keeps every run as a CSV file, and fills in the tables.

    python scripts/evidence.py --out runs/evidence --jobs 2               # all runs; some 12 hours of one core
    python scripts/evidence.py --out runs/evidence --only blocks strips   # some of them
    python scripts/evidence.py                                            # the tables, from the CSV files

Finished trainings in --out are not repeated. The scenes of North Carolina lie in $ADCDNET_DATA (default ../shared/data
from the project's root); the simulated one is made. A run is one `adcdnet benchmark`; its results.csv becomes
docs/evidence/RUN.csv. In docs/evidence.md a table stands between two marks,

    <!-- scores RUN METHOD ... -->     a line for each method and operating point
    <!-- leads RUN METHOD ... -->      a line for each method: how far the run's reference is ahead of it
    <!-- end -->

and is written anew from RUN.csv. Networks train in bf16, as by a settings file of the line precision = "bf16";
those of committees in float32, as by `train`.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from adcdnet.benchmark.cell import Protocol
from adcdnet.benchmark.comparisons import SUBSTITUTES as COMPARED
from adcdnet.benchmark.methods import METHODS
from adcdnet.benchmark.methods_by_name import COMMITTEES, WITH, settings_of, trained_as
from adcdnet.benchmark.tables import benchmark
from adcdnet.demo.run import SCENE, write_scene
from adcdnet.files import write_whole
from adcdnet.geo.scene_files import SceneFiles

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "evidence.md"
RESULTS = ROOT / "docs" / "evidence"
BF16 = {"precision": "bf16"}
BASELINES = ("forest", "forest-alike", "boosting", "boosting-alike", "mlp", "mlp-alike")
PARTS = ("patch-no-dtm", "patch-no-stage1", "patch-no-dia", "patch-no-context", "patch-plain")
EXCHANGED = ("cbam", "gru", "attention", "random-prior", "flatten-head", "gate-fusion", "concat-fusion")
SUBSTITUTES = tuple(f"patch-{name}" for name in EXCHANGED)


@dataclass(frozen=True)
class Run:
    """One call of `benchmark`. The first method is the reference."""

    scene: str
    methods: tuple[str, ...]
    folds: int = 5
    repeats: int = 1
    seeds: int = 1
    protocol: Protocol = "blocks"
    labels: int | None = None


RATIO_2, RATIO_4, HARZ = "nc_landsat7_x2", "nc_landsat7_x4", "harz_s2_x4/20190619"
OVER_TILES = (*(f"tiles{kind}{how}" for kind in ("-plain", "") for how in ("", "-raw", "-seen")), "patch", *BASELINES)
WHOLE = ("patch", "patch-all-parts", *BASELINES)
RIVALS = ("committee", "committee-no-network", *(f"committee-of-{m}" for m in ("boosting", "forest", "perceptron")))
RUNS = {
    "tiles": Run(RATIO_2, OVER_TILES),
    "tiles-harz": Run(HARZ, OVER_TILES, folds=3),
    "blocks": Run(RATIO_2, ("patch", "patch-plain", *BASELINES), repeats=2, seeds=2),
    "strips": Run(RATIO_2, ("patch", "patch-plain", *BASELINES), folds=4, repeats=2, seeds=2, protocol="strips"),
    "blocks-ratio4": Run(RATIO_4, WHOLE, seeds=2),
    "strips-ratio4": Run(RATIO_4, WHOLE, folds=4, repeats=2, protocol="strips"),
    "labels-50": Run(RATIO_2, WHOLE, repeats=2, labels=50),
    "labels-50-strips": Run(RATIO_2, WHOLE, folds=4, repeats=2, protocol="strips", labels=50),
    "labels-200": Run(RATIO_2, WHOLE, labels=200),
    "simulated": Run("simulated", ("patch", "patch-plain", *BASELINES), folds=2),
    "random": Run(RATIO_2, ("patch", "forest", "boosting", "mlp"), folds=2, protocol="random"),
    "parts": Run(RATIO_2, ("patch", *PARTS, *SUBSTITUTES, "patch-ms-only", "patch-pan-only", "patch-patches")),
    "parts-ratio4": Run(RATIO_4, ("patch-all-parts", "patch-no-dtm", "patch-no-stage1", "patch-no-dia", "patch-plain")),
    "sensors-ratio4": Run(RATIO_4, ("patch", "patch-ms-only", "patch-pan-only")),
    "halo": Run(RATIO_2, ("patch-halo", "patch-zeros")),
    "committees": Run(RATIO_2, RIVALS, folds=2, protocol="strips"),
    "committees-ratio4": Run(RATIO_4, ("committee-adcdnet", *RIVALS[1:]), folds=4, protocol="strips"),
    "committees-harz": Run(HARZ, RIVALS, folds=2),
    "networks": Run(
        RATIO_2, ("patch", "patch-plain", "two-branch-cnn", "mft", "dual-resnet", "unet", "dbaf", "forest", "mlp")
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
    classes = folder / "classes.csv" if name == HARZ else data / RATIO_2 / "classes.csv"
    ms, pan, labels = (folder / f"{what}.tif" for what in ("ms", "pan", "labels"))
    return SceneFiles(name=name.replace("/", "_"), ms=ms, pan=pan, labels=labels, classes=classes)


def method_files(methods: Sequence[str], folder: Path) -> list[str]:
    """The methods as `benchmark` takes them: networks as files of their settings, written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for method in methods:
        own = trained_as(method)
        if own in METHODS or own in COMMITTEES:
            found.append(method)
            continue
        settings = settings_of(own, 0)
        assert settings is not None
        file = folder / f"{own}.toml"
        file.write_text(settings.replace(BF16).to_toml())
        named = f"{own}{WITH}{file}" if own.removeprefix("patch-") in COMPARED else str(file)
        found.append(named + method.removeprefix(own))
    return found


def compute(name: str, out: Path, jobs: int) -> None:
    """Finish a run and keep its results."""

    def tell(what: str, done: int, of: int, _: Mapping[str, float]) -> None:
        print(f"{name}: {done} of {of} {what}", file=sys.stderr, flush=True)

    run = RUNS[name]
    methods = method_files(run.methods, out / "methods" / name)
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
        progress=tell,
    )
    RESULTS.mkdir(exist_ok=True)
    write_whole(RESULTS / f"{name}.csv", (out / "results.csv").read_bytes())


Rows = dict[tuple[str, str], dict[str, str]]  # of a CSV file, by method and tau


def read_rows(name: str) -> Rows:
    with (RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return {(row["method"], row["tau"]): row for row in csv.DictReader(file)}


def scores(name: str, methods: list[str]) -> list[str]:
    """Scores with deviations, and how far the reference is ahead: a line for each operating point and method."""
    rows, reference = read_rows(name), RUNS[name].methods[0]
    titles = ["method", "tau", "OA", "AA", "kappa", "macro F1", "ECE"]
    titles += [f"{reference} − it, {score}" for score in ("OA", "AA", "kappa")] + ["train s"]
    lines = []
    for tau, method in product(("0.5", "1"), methods):
        row = rows[method, tau]
        own = [with_deviation(row, score) for score in ("oa", "aa", "kappa", "macro_f1")]
        behind = ["–" if method == reference else lead(row, score) for score in ("oa", "aa", "kappa")]
        lines.append([method, tau, *own, number(float(row["calibration_error"])), *behind, seconds(row)])
    return table(titles, lines)


def leads(name: str, methods: list[str]) -> list[str]:
    """Both operating points in one line for each method; of labels as many of each class they are one."""
    rows, run = read_rows(name), RUNS[name]
    taus, both = (("0.5", "1"), " (tau 0.5; 1)") if run.labels is None else (("1",), "")
    titles = ["method", f"OA / AA / kappa{both}"]
    titles += [f"{run.methods[0]} − it, {score}{both}" for score in ("OA", "AA", "kappa")] + ["train s", "parameters"]
    lines = []
    for method in methods:
        found = [rows[method, tau] for tau in taus]
        own = "; ".join(" / ".join(number(float(row[score])) for score in ("oa", "aa", "kappa")) for row in found)
        behind = ["; ".join(lead(row, score) for row in found) for score in ("oa", "aa", "kappa")]
        behind = ["–"] * 3 if method == run.methods[0] else behind
        lines.append([method, own, *behind, seconds(found[0]), f"{int(found[0]['parameters']):,}"])
    return table(titles, lines)


def table(titles: list[str], lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *lines)]


def number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}".replace("-", "−")


def with_deviation(row: dict[str, str], score: str) -> str:
    value, deviation = number(float(row[score])), row[f"{score}_sd"]
    return value if deviation == "nan" else f"{value} ± {number(float(deviation))}"


def lead(row: dict[str, str], score: str) -> str:
    """reference − method with its interval, if there are blocks enough; the file has method − reference."""
    middle, low, high = (number(-float(row[f"{score}_{end}"]), "+") for end in ("difference", "high", "low"))
    return middle if row[f"{score}_low"] == "nan" else f"{middle} [{low}, {high}]"


def seconds(row: dict[str, str]) -> str:
    return f"{float(row['training_seconds']):.0f}"


LAYOUTS = {"scores": scores, "leads": leads}
MARKED = re.compile(r"<!-- (scores|leads) (\S+) ([^>]+) -->\n((?:(?!<!--).)*)<!-- end -->", re.DOTALL)


def with_tables(text: str) -> str:
    """A document with its tables as the CSV files have them."""

    def filled(found: re.Match[str]) -> str:
        layout, name, methods, _ = found.groups()
        lines = LAYOUTS[layout](name, methods.split())
        trainings = next(iter(read_rows(name).values()))["trainings"]
        below = f"Run [{name}](evidence/{name}.csv); trainings a line: {trainings}."
        return "\n".join([f"<!-- {layout} {name} {methods} -->", "", *lines, "", below, "", "<!-- end -->"])

    return MARKED.sub(filled, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of finished trainings")
    parser.add_argument("--only", nargs="+", choices=RUNS)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.out is not None:
        for name in arguments.only or RUNS:
            compute(name, arguments.out, arguments.jobs)
    elif arguments.only:
        parser.error("--only needs --out, the folder of finished trainings")
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
