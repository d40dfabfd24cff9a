"""Processes that work for this one, and end with it whatever ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, TypeVar

_Result = TypeVar("_Result")


@contextmanager
def at_work(
    function: Callable[..., _Result],
    calls: Sequence[tuple[Any, ...]],
    *,
    jobs: int,
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
    tasks_each: int | None = None,
) -> Iterator[list[Future[_Result]]]:
    """What becomes of all calls of a function, `jobs` at once. An exception inside the block ends all processes.

    begin: called in each process first, with the arguments. tasks_each: calls after which a process is replaced.
    Signals that end a command reach whole groups of processes: this one alone answers to them.
    """
    context = multiprocessing.get_context("spawn")
    # a pipe that is closed reaches every process; an event would wait for those that are gone to wake
    wait, stop = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=context,
        initializer=_begin,
        initargs=(wait, begin, arguments),
        max_tasks_per_child=tasks_each,
    )
    try:
        with _shielded():
            futures = [pool.submit(function, *call) for call in calls]
        yield futures
    except BaseException:
        stop.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        stop.close()
        wait.close()


@contextmanager
def _shielded() -> Iterator[None]:
    """Processes that are started meanwhile never get a signal to end; this one gets it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(stop: Connection, begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes on Windows too
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=_end_after, args=(parent.join,), daemon=True).start()
    Thread(target=_end_after, args=(partial(stop.poll, None),), daemon=True).start()
    begin(*arguments)


def _end_after(event: Callable[[], object]) -> None:
    try:
        event()
    finally:
        os._exit(1)
