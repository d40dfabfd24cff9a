"""Cells computed in processes of their own, and kept as files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adcdnet.benchmark.cell import Cell, compute_together
from adcdnet.benchmark.methods_by_name import settings_of, trained_as
from adcdnet.errors import InputError
from adcdnet.files import write_whole
from adcdnet.mapping.progress import Progress, silent
from adcdnet.training.workers import at_work

# makes calls of a function elsewhere: the number of each one that is done
Elsewhere = Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], Iterable[int]]


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 1,
    elsewhere: Elsewhere | None = None,
    progress: Progress = silent,
) -> None:
    """Compute the cells that are not kept in `out` yet, each in a process of its own, `jobs` at a time here, or
    elsewhere, where `out` must be the same folder."""
    for cell in cells:
        settings_of(cell.method, cell.seed)
    _refuse_unwritable(out)
    missing = [cell for cell in cells if not _is_kept(cell, out)]
    done = len(cells) - len(missing)
    trainings: dict[Cell, list[Cell]] = {}  # a method is trained once for all ways of reading it
    for cell in missing:
        trainings.setdefault(replace(cell, method=trained_as(cell.method)), []).append(cell)
    calls = [(together, out) for together in trainings.values()]
    if elsewhere is not None:
        for number in elsewhere(_compute_alone, calls):
            for _ in calls[number][0]:
                done += 1
                progress("cells", done, len(cells), {})
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        with at_work(
            _compute, calls, jobs=jobs, begin=torch.set_num_threads, arguments=(threads,), tasks_each=1
        ) as results:
            running = dict(zip(results, trainings.values(), strict=True))
            for future in as_completed(running):
                future.result()
                for _ in running[future]:
                    done += 1
                    progress("cells", done, len(cells), {})
    except BrokenProcessPool as error:
        raise InputError(
            "a training was killed, most likely for want of memory; what is finished is kept: call again with "
            "fewer --jobs"
        ) from error


def _refuse_unwritable(folder: Path) -> None:
    """InputError now, and not after the first training."""
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "cells"):
            pass
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error


def _is_kept(cell: Cell, out: Path) -> bool:
    try:
        kept = json.loads((out / cell.file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(kept.get("fingerprint") == cell.fingerprint())


def _compute(cells: Sequence[Cell], out: Path) -> None:
    for cell, result in zip(cells, compute_together(cells), strict=True):
        file = out / cell.file
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, (json.dumps(result) + "\n").encode())


def _compute_alone(cells: Sequence[Cell], out: Path) -> None:
    """In a process of its own, whose time and memory are those of these cells, with as many threads as this one has."""
    with at_work(
        _compute,
        [(cells, out)],
        jobs=1,
        begin=torch.set_num_threads,
        arguments=(torch.get_num_threads(),),
        tasks_each=1,
    ) as results:
        results[0].result()
