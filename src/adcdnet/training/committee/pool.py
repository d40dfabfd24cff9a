"""Folds trained side by side, each in a process of its own with one thread, so that how many run at once changes
nothing but the time."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from threading import Thread
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.mapping.progress import Progress
from adcdnet.training.checkpoints import NOWHERE, Checkpoints
from adcdnet.training.committee.folds import Fold, FoldResult, Ground, train_fold
from adcdnet.training.workers import at_work


def train_folds(
    ground: Ground,
    folds: Sequence[Fold],
    config: TrainConfig,
    device: torch.device,
    *,
    jobs: int,
    progress: Progress,
    checkpoints: Checkpoints = NOWHERE,
) -> list[FoldResult]:
    """The results of all folds, in their order. jobs: at once; on a GPU one after another.

    A single fold has all threads. KeyboardInterrupt ends all. InputError where a process is killed.
    """
    together = _Together(progress, folds)
    if len(folds) == 1:
        return [train_fold(ground, folds[0], config, device, progress, checkpoints)]
    if jobs == 1 or device.type == "cuda":
        with _one_thread():
            return [
                train_fold(ground, fold, config, device, together.of_fold(number), checkpoints)
                for number, fold in enumerate(folds)
            ]
    told: Queue[Any] = multiprocessing.get_context("spawn").Queue()
    done = threading.Event()
    listener = Thread(target=together.listen, args=(told, done), daemon=True)
    listener.start()
    try:
        with at_work(
            _train,
            list(enumerate(folds)),
            jobs=min(jobs, len(folds)),
            begin=_begin,
            arguments=(ground, config, device, checkpoints),
            queues=(told,),
        ) as results:
            return [result.result() for result in results]
    except BrokenProcessPool as error:
        raise InputError(
            "the training of a fold was killed, most likely for want of memory; train with fewer --jobs, and with "
            "--resume to go on from what is finished"
        ) from error
    finally:
        done.set()
        listener.join(timeout=2)


class _Together:
    """The progress of several folds as one: the steps of a stage are those of all folds. Figures say of which fold
    they are, and of how many."""

    def __init__(self, progress: Progress, folds: Sequence[Fold]) -> None:
        self._progress, self._folds = progress, folds
        self._tested = sum(fold.part is not None for fold in folds)
        self._done: dict[str, dict[int, int]] = {}

    def tell(self, fold: int, stage: str, step: int, steps: int, figures: Mapping[str, float]) -> None:
        done = self._done.setdefault(stage, {})
        done[fold] = step
        if self._folds[fold].part is not None:
            figures = {"fold": fold + 1, "folds": self._tested, **figures}
        self._progress(stage, sum(done.values()), steps * len(self._folds), figures)

    def of_fold(self, fold: int) -> Progress:
        return lambda *told: self.tell(fold, *told)

    def listen(self, told: Queue[Any], done: threading.Event) -> None:
        """Tell what the processes say, until there is nothing more to say."""
        while not done.is_set():
            with suppress(queue.Empty):
                self.tell(*told.get(timeout=0.2))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # those of scikit-learn
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Work:
    """What a process was started with."""

    ground: Ground
    config: TrainConfig
    device: torch.device
    checkpoints: Checkpoints
    told: Queue[Any]


_work: list[_Work] = []  # one, in a process of the pool


def _begin(
    ground: Ground, config: TrainConfig, device: torch.device, checkpoints: Checkpoints, told: Queue[Any]
) -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)
    _work.append(_Work(ground, config, device, checkpoints, told))


def _train(number: int, fold: Fold) -> FoldResult:
    work = _work[0]

    def tell(stage: str, step: int, steps: int, figures: Mapping[str, float]) -> None:
        work.told.put((number, stage, step, steps, dict(figures)))

    return train_fold(work.ground, fold, work.config, work.device, tell, work.checkpoints)
