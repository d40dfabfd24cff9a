"""The tables of docs/evidence/modules.md, written anew by running the examples with their own settings.

python examples/write_tables.py                        # all; about forty minutes of one core
python examples/write_tables.py detection --seeds 0    # one seed of some; the table waits for the others

A table stands between <!-- table NAME --> and <!-- end -->: mean ± standard deviation over seeds 0, 1 and 2. What a
seed has given is kept in --out and not repeated.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import detection
import dia_in_resnet
import dia_two_sensors
import dtm_on_resnet
import redundancy
import segmentation
import sequences
import torch
import video
from study import Row, table

DOCUMENT = Path(__file__).parents[1] / "docs" / "evidence" / "modules.md"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Study:
    run: Callable[..., Sequence[Any]]  # of seeds, samples and epochs
    settings: dict[str, int]
    table: Callable[[Sequence[Any]], str] = table
    row: type = Row


STUDIES = {
    "dia_in_resnet": Study(dia_in_resnet.run, dia_in_resnet.SETTINGS),
    "dtm_on_resnet": Study(dtm_on_resnet.run, dtm_on_resnet.SETTINGS),
    "dia_two_sensors": Study(dia_two_sensors.run, dia_two_sensors.SETTINGS),
    "digits": Study(partial(sequences.run, "digits"), sequences.SETTINGS),
    "heart": Study(partial(sequences.run, "heart"), sequences.SETTINGS),
    "detection": Study(detection.run, detection.SETTINGS, partial(table, measure=detection.MEASURE)),
    "segmentation": Study(
        partial(segmentation.run, "attention"), segmentation.SETTINGS, partial(table, measure=segmentation.MEASURE)
    ),
    "supervision": Study(
        partial(segmentation.run, "supervision"), segmentation.SETTINGS, partial(table, measure=segmentation.MEASURE)
    ),
    "video": Study(video.run, video.SETTINGS),
    "redundancy": Study(redundancy.run, redundancy.SETTINGS, redundancy.table, redundancy.Measured),
}


def kept_rows(file: Path, study: Study, seed: int) -> list[Any]:
    """What one seed has given, run where the file is not there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(row) for row in study.run([seed], **study.settings)]))
    return [study.row(**row) for row in json.loads(file.read_text())]


def with_table(text: str, name: str, rows: str) -> str:
    """A document with that table exchanged. ValueError where it has no place for it."""
    place = re.compile(rf"(<!-- table {re.escape(name)} -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"no place for table {name!r}: it needs <!-- table {name} --> and <!-- end -->")
    return place.sub(lambda found: f"{found[1]}{rows}\n{found[2]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(STUDIES), metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    parser.add_argument("--out", type=Path, default=Path("runs/modules"), help="where rows are kept (runs/modules)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(STUDIES):
        parser.error(f"no tables {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    torch.set_num_threads(1)
    for name in args.names:
        files = {seed: args.out / f"{name}-{seed}.json" for seed in SEEDS}
        for seed in args.seeds:
            kept_rows(files[seed], STUDIES[name], seed)
        if all(file.exists() for file in files.values()):
            rows = [row for seed, file in files.items() for row in kept_rows(file, STUDIES[name], seed)]
            DOCUMENT.write_text(with_table(DOCUMENT.read_text("utf-8"), name, STUDIES[name].table(rows)), "utf-8")


if __name__ == "__main__":
    main()
