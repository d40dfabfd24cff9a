"""The tables of docs/evidence/modules.md, written anew by running the examples with their own settings.

python examples/write_tables.py              # all; about half an hour of one core
python examples/write_tables.py detection    # some

A table stands between <!-- table NAME --> and <!-- end -->. Mean ± standard deviation over seeds 0, 1 and 2.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import detection
import dia_in_resnet
import dia_two_sensors
import dtm_on_resnet
import redundancy
import sequences
import torch
import video
from study import table

DOCUMENT = Path(__file__).parents[1] / "docs" / "evidence" / "modules.md"
SEEDS = (0, 1, 2)
TABLES: dict[str, Callable[[], str]] = {
    "dia_in_resnet": lambda: table(dia_in_resnet.run(SEEDS, **dia_in_resnet.SETTINGS)),
    "dtm_on_resnet": lambda: table(dtm_on_resnet.run(SEEDS, **dtm_on_resnet.SETTINGS)),
    "dia_two_sensors": lambda: table(dia_two_sensors.run(SEEDS, **dia_two_sensors.SETTINGS)),
    "digits": lambda: table(sequences.run("digits", SEEDS, **sequences.SETTINGS)),
    "heart": lambda: table(sequences.run("heart", SEEDS, **sequences.SETTINGS)),
    "detection": lambda: table(detection.run(SEEDS, **detection.SETTINGS), detection.MEASURE),
    "video": lambda: table(video.run(SEEDS, **video.SETTINGS)),
    "redundancy": lambda: redundancy.table(redundancy.run(SEEDS, **redundancy.SETTINGS)),
}


def with_table(text: str, name: str, rows: str) -> str:
    """A document with that table exchanged. ValueError where it has no place for it."""
    place = re.compile(rf"(<!-- table {re.escape(name)} -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"no place for table {name!r}: it needs <!-- table {name} --> and <!-- end -->")
    return place.sub(lambda found: f"{found[1]}{rows}\n{found[2]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(TABLES), metavar="NAME", help=", ".join(TABLES))
    names = parser.parse_args().names
    if unknown := set(names) - set(TABLES):
        parser.error(f"no tables {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    torch.set_num_threads(1)
    for name in names:
        rows = TABLES[name]()
        DOCUMENT.write_text(with_table(DOCUMENT.read_text("utf-8"), name, rows), "utf-8")
        print(f"{name}\n{rows}\n", flush=True)


if __name__ == "__main__":
    main()
