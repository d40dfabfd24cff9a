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
from multiprocessing.queues import Queue
from threading import Thread
from typing import Any, Literal, TypeVar

_Result = TypeVar("_Result")


@contextmanager
def at_work(
    function: Callable[..., _Result],
    calls: Sequence[tuple[Any, ...]],
    *,
    jobs: int,
    begin: Callable[..., None],
    arguments: tuple[Any, ...],
    queues: tuple[Queue[Any], ...] = (),
    tasks_each: Literal[1] | None = None,
) -> Iterator[list[Future[_Result]]]:
    """What becomes of all calls of a function, `jobs` at once. An exception inside the block ends all processes.

    begin: called in each process first, with the arguments and the queues; processes can only inherit the latter.
    tasks_each: 1 where each call has a process of its own.
    Signals that end a command reach whole groups of processes: this one alone answers to them.
    """
    context = multiprocessing.get_context("spawn")
    # a pipe that is closed reaches every process; an event would wait for those that are gone to wake
    wait, stop = context.Pipe(duplex=False)
    # arguments of a process itself would be written to it while it starts, one after another and deaf to Ctrl-C
    handed = context.Queue()
    handed.cancel_join_thread()
    for _ in range(jobs + (len(calls) if tasks_each else 0)):  # a process that has ended is followed by another
        handed.put(arguments)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=context,
        initializer=_begin,
        initargs=(wait, begin, handed, queues),
        max_tasks_per_child=tasks_each,
    )
    try:
        with _shielded():
            futures = [pool.submit(function, *call) for call in calls]
        yield futures
    except BaseException:
        for process in list(pool._processes.values()):  # no public name; one that only begins does not hear of the pipe
            process.kill()
        # not waited for: of a process that was killed while it told its result, the pool waits for the rest
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    else:
        pool.shutdown()
    finally:
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


def _begin(
    stop: Connection, begin: Callable[..., None], handed: Queue[tuple[Any, ...]], queues: tuple[Queue[Any], ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes on Windows too
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=_end_after, args=(parent.join,), daemon=True).start()
    Thread(target=_end_after, args=(partial(stop.poll, None),), daemon=True).start()
    begin(*handed.get(), *queues)


def _end_after(event: Callable[[], object]) -> None:
    try:
        event()
    finally:
        os._exit(1)
