"""Processor time (user and system) of a start: the command line's help, its completion, the imports.

    python scripts/bench_start.py

Median of 5 processes each, beside a Python that does nothing. No command does any work here.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

RUNS = 5
MAIN = "import sys; sys.argv = ['adcdnet', *sys.argv[1:]]; from adcdnet.cli import main; main()"
TAB = {"_ADCDNET_COMPLETE": "complete_bash"}
STARTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "python -c pass": (["pass"], {}),
    "import adcdnet": (["import adcdnet"], {}),
    "import adcdnet.nn": (["import adcdnet.nn"], {}),
    "adcdnet --version": ([MAIN, "--version"], {}),
    "adcdnet --help": ([MAIN, "--help"], {}),
    "adcdnet predict --help": ([MAIN, "predict", "--help"], {}),
    "Tab after 'adcdnet '": ([MAIN], {**TAB, "COMP_WORDS": "adcdnet ", "COMP_CWORD": "1"}),
    "Tab after 'adcdnet predict --'": ([MAIN], {**TAB, "COMP_WORDS": "adcdnet predict --", "COMP_CWORD": "2"}),
    "import torch": (["import torch"], {}),
    "torch and adcdnet.nn.Mamba": (["from adcdnet.nn import Mamba"], {}),
}


def processor_seconds(words: list[str], environment: dict[str, str]) -> float:
    """Of one process that is run to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call = [sys.executable, "-c", *words]
    subprocess.run(call, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    print("| start | CPU s |\n|---|---|")
    for name, start in STARTS.items():
        print(f"| {name} | {statistics.median(processor_seconds(*start) for _ in range(RUNS)):.2f} |", flush=True)


if __name__ == "__main__":
    main()
