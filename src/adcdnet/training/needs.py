"""How much memory and disk a training needs at least, known before it begins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.training.scenes import LabelledScene

_PROCESS = 350 * 2**20  # bytes of a process before it has read anything
_COPIES = 2  # of all images in a process that trains: as read, and standardised


class Needs(NamedTuple):
    """Bytes, at least. processes: that train at once."""

    memory: int
    disk: int
    processes: int


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def needs_of(scenes: Sequence[LabelledScene], config: TrainConfig, jobs: int | None) -> Needs:
    """jobs: as of `train`. Disk is for the answers to held-out labels, of each member and of all together."""
    images, answers = 0, 0
    for scene, labels in ((labelled.scene, labelled.labels) for labelled in scenes):
        images += 4 * scene.grid.height * scene.grid.width * (scene.ms_bands + scene.pan_bands * scene.ratio**2)
        answers += 4 * int(np.count_nonzero(labels.index >= 0)) * len(labels.classes)
    folds = config.split.folds
    processes = 1 if folds == 1 else min(jobs or processors(), folds)
    beside = 0 if processes == 1 else _PROCESS + images  # what starts them has read the images too
    return Needs(beside + processes * (_PROCESS + _COPIES * images), answers * (1 + len(config.members)), processes)


def require_disk(out: Path, needs: Needs) -> None:
    """InputError where the disk of a folder, which need not be there yet, has clearly too little room."""
    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.is_dir())
    total, _, free = shutil.disk_usage(there)
    if total and free < needs.disk:  # some file systems, such as /proc, do not count
        raise InputError(
            f"{there} has {free / 2**30:.1f} GB free, the training needs {needs.disk / 2**30:.1f} GB at least; make "
            "room, or choose another --out"
        )
