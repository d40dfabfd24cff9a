"""Calls of a function, made by worker processes of dask.distributed, here or on other machines.

Only plain values travel: paths and settings there, paths and small figures back. What is large goes through files. So
nothing is lost with a worker but the call that it was at, and that is made again.

A worker has one thread, for GDAL's files belong to one. Its memory is never spilled or paused, since what GDAL and
PyTorch hold cannot be; where it holds too much, it is killed and started again. Workers are spawned, never forked.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from adcdnet.errors import InputError
from adcdnet.mapping.progress import Progress, silent

try:
    import dask
    from distributed import Client, Future, KilledWorker, LocalCluster
except ImportError as error:
    raise InputError(
        "--workers and --scheduler need dask, which is not installed; pip install 'adcdnet[cluster]'"
    ) from error

_R = TypeVar("_R")
_SPARE = 2**29  # bytes that a worker may hold beyond what a task is to hold
_COMMON = ("adcdnet", "torch", "numpy", "rasterio", "distributed")  # what must have one version everywhere
_TIMES = 2  # calls on their way for each worker: one at work, one waiting beside it or at the scheduler


@dataclass(frozen=True)
class Failed:
    """Why a call has no result, however often it was made."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who makes calls. scheduler: the address of one that runs; "": `count` processes of this machine.

    threads: of PyTorch, in each of these processes, unless OMP_NUM_THREADS says otherwise. memory: bytes that a call is
    to hold. limit: seconds that one may take, None: as long as it likes. retries: how often one is made again.
    patience: seconds that a scheduler may be away, or without any worker.
    """

    scheduler: str = ""
    count: int = 1
    threads: int = 1
    memory: int = 2**31
    limit: float | None = 3600.0
    retries: int = 2
    patience: float = 60.0

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """InputError where no scheduler answers, where no worker comes, and for workers of another kind."""
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(self._settings()))
            client = stack.enter_context(self._client() if self.scheduler else self._local())
            self._check(client)
            yield client

    @contextmanager
    def _local(self) -> Iterator[Client]:
        with _same_environment():  # to the end: workers that are started again set it anew
            with _deaf_to_the_terminal():
                cluster = LocalCluster(
                    n_workers=self.count,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=self.memory + self.memory // 4 + _SPARE,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,  # what went wrong is told by the results
                )
            with cluster, Client(cluster, set_as_default=False) as client:
                try:
                    yield client
                except BaseException:  # nobody waits for what is at work
                    for nanny in cluster.workers.values():
                        nanny.auto_restart = False
                        with suppress(OSError, TypeError):  # one that is starting has no number yet
                            os.kill(nanny.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
                    raise

    def _settings(self) -> dict[str, Any]:
        threads = {f"{library}_NUM_THREADS": self.threads for library in ("OMP", "MKL", "OPENBLAS")}
        # as `adcdnet` sets them for itself: freed memory is kept for the next tensor
        memory = {"MALLOC_MMAP_THRESHOLD_": 2**30, "MALLOC_TRIM_THRESHOLD_": 2**31 - 1}
        kept = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")}
        return {
            **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in (threads | memory).items()},
            **kept,
            "distributed.worker.multiprocessing-method": "spawn",
            "distributed.worker.daemon": False,  # a daemon cannot start the processes that a training may need
            "distributed.scheduler.allowed-failures": self.retries,
            "distributed.comm.timeouts.connect": "10s",
            **({} if self.scheduler else {"logging.distributed": "critical"}),
        }

    def _client(self) -> Client:
        try:
            return Client(self.scheduler, timeout=min(5.0, self.patience), set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(
                f"no scheduler answers at {self.scheduler}; start one with `dask scheduler`, or give its address as "
                "tcp://HOST:8786"
            ) from error

    def _check(self, client: Client) -> None:
        where = self.scheduler or "this machine"
        try:
            client.wait_for_workers(1, timeout=self.patience)
        except TimeoutError as error:
            raise InputError(
                f"no worker at {where} within {self.patience:.0f} s; start some with `dask worker`"
            ) from error
        for address, told in client.run(_told).items():
            _require_same(told["versions"], versions(), f"the worker at {address}")
        for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
            if self.scheduler and worker["nthreads"] != 1:
                raise InputError(
                    f"the worker at {address} has {worker['nthreads']} threads, and GDAL's files belong to one; "
                    "start it with --nthreads 1"
                )
            if self.scheduler and 0 < worker["memory_limit"] < self.memory:
                raise InputError(
                    f"the worker at {address} may hold {worker['memory_limit'] / 2**20:.0f} MB, less than --memory; "
                    "start it with a larger --memory-limit, or give a smaller --memory"
                )


@contextmanager
def _same_environment() -> Iterator[None]:
    """What dask sets for the processes that it starts is taken back here, where other processes would inherit it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Threads and processes that are started meanwhile, and by these, get no Ctrl-C: this process alone answers."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def versions() -> dict[str, str]:
    return {package: version(package) for package in _COMMON}


def _told() -> dict[str, Any]:
    return {"versions": versions()}


def _require_same(theirs: dict[str, str], ours: dict[str, str], who: str) -> None:
    for package, here in ours.items():
        if theirs[package] != here:
            raise InputError(
                f"{who} has {package} {theirs[package]}, and {here} is needed; install the same everywhere"
            )


def _make(function: Callable[..., _R], call: tuple[Any, ...], needed: dict[str, str], limit: float | None) -> _R:
    """A call, on a worker. One that takes too long ends the process, for nothing else ends what hangs in C."""
    _require_same(versions(), needed, "a worker")  # it may have come after the others were looked at
    if limit is not None:
        faulthandler.dump_traceback_later(limit, exit=True)
    try:
        return function(*call)
    finally:
        if limit is not None:
            faulthandler.cancel_dump_traceback_later()


def run_all(
    workers: Workers,
    function: Callable[..., _R],
    calls: Sequence[tuple[Any, ...]],
    *,
    what: str = "tasks",
    progress: Progress = silent,
    begun: Callable[[Client], None] = lambda client: None,
) -> Iterator[tuple[int, _R | Failed]]:
    """Number and result of each call, in the order in which they end. begun: is given each client that is connected.

    A call whose worker dies or that raises is made again. Where the scheduler goes away, those that have no result yet
    are made by the next one. InputError where that does not come.
    """
    todo, tries, done, failed = deque(range(len(calls))), Counter[int](), 0, 0
    while todo:
        running = _Running(workers, function, calls)
        try:
            with workers.connected() as client:
                begun(client)
                for number, future in running.follow(client, todo):
                    error = future.exception() if future.status == "error" else None
                    tries[number] += 1
                    if error is not None and not isinstance(error, KilledWorker) and tries[number] <= workers.retries:
                        todo.append(number)
                        continue
                    done += 1
                    failed += error is not None
                    progress(what, done, len(calls), {"failed": failed} if failed else {})
                    yield number, future.result() if error is None else Failed(_reason(error, workers))
        except _SchedulerLost:
            todo.extendleft(running.numbers)
            _await_scheduler(workers, done, len(calls))


class _SchedulerLost(Exception):
    """All that it knew is gone."""


class _Running(Generic[_R]):
    """Calls that are on their way to workers, a bounded number at a time."""

    def __init__(self, workers: Workers, function: Callable[..., _R], calls: Sequence[tuple[Any, ...]]) -> None:
        self._workers, self._function, self._calls = workers, function, calls
        self._futures: dict[str, tuple[int, Future]] = {}

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self._futures.values()]

    def follow(self, client: Client, todo: deque[int]) -> Iterator[tuple[int, Future]]:
        """Calls that have ended, until none is left to do. Raises _SchedulerLost."""
        ended: SimpleQueue[Future] = SimpleQueue()
        needed, seen, asked, count = versions(), time.monotonic(), -1.0, 0
        while todo or self._futures:
            if time.monotonic() - asked > 1:  # not for every call: the scheduler has to answer
                known = client.scheduler_info(n_workers=-1)["workers"] if client.status == "running" else {}
                count, asked = sum(worker["nthreads"] for worker in known.values()), time.monotonic()
            while todo and len(self._futures) < max(1, _TIMES * count):
                number = todo.popleft()
                arguments = self._function, self._calls[number], needed, self._workers.limit
                future = client.submit(_make, *arguments, pure=False)
                self._futures[future.key] = number, future
                future.add_done_callback(ended.put)
            if count:
                seen = time.monotonic()
            elif time.monotonic() - seen > self._workers.patience:
                raise InputError(
                    f"all workers are gone since {self._workers.patience:.0f} s; what is finished is kept: "
                    "call again when there are some"
                )
            try:
                future = ended.get(timeout=1.0)
            except Empty:
                if client.status != "running":
                    raise _SchedulerLost from None
                continue
            if future.status == "cancelled" or client.status != "running":
                raise _SchedulerLost
            number, _ = self._futures.pop(future.key)
            yield number, future


def _await_scheduler(workers: Workers, done: int, total: int) -> None:
    """InputError where none comes again."""
    until = time.monotonic() + workers.patience
    while workers.scheduler and time.monotonic() < until:
        with suppress(InputError):
            workers._client().close()
            return
        time.sleep(0.5)
    raise InputError(
        f"the scheduler at {workers.scheduler or 'this machine'} went away and has not come again within "
        f"{workers.patience:.0f} s; {done} of {total} are finished and kept: call again when it is there"
    )


def _reason(error: BaseException, workers: Workers) -> str:
    if isinstance(error, KilledWorker):
        limit = "" if workers.limit is None else f", or took more than {workers.limit:.0f} s"
        return f"its worker died each time: it held more memory than a worker may{limit}"
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
