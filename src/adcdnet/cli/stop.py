"""How a command is stopped: by Ctrl-C, SIGTERM or SIGHUP alike, with one line and exit code 130, within 5 seconds."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from adcdnet.cli.console import err

EXIT_CODE = 130  # what shells expect of a command that Ctrl-C ended
_ENDING = 4.0  # seconds that a command may take to tidy up; what it leaves then, the next one clears
_came: list[int] = []  # the first signal


@contextmanager
def signals_taken() -> Iterator[None]:
    """Signals that ask for an end raise KeyboardInterrupt, once. One that is ignored, as by nohup, stays so."""
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")]  # some, by system
    before = {
        number: signal.signal(number, _stop)
        for number in numbers
        if number is not None and signal.getsignal(number) != signal.SIG_IGN
    }
    read, write = os.pipe()
    if hasattr(os, "set_blocking"):  # not with Python 3.11 on Windows, which does not ask for it
        os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    Thread(target=_end_in_time, args=(read,), daemon=True).start()
    try:
        yield
    finally:
        if _came:  # the process is about to end, and Python to let go of its handlers: another signal would kill it
            for number in before:
                signal.signal(number, signal.SIG_IGN)
        else:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(write)


def _stop(number: int, _: object) -> None:
    if not _came:
        _came.append(number)
        raise KeyboardInterrupt


def _end_in_time(read: int) -> None:
    """After a signal, whatever the main thread does: a library can keep it for long, deaf to signals."""
    if os.read(read, 1):
        time.sleep(_ENDING)
        os._exit(EXIT_CODE)
    os.close(read)


@contextmanager
def stopped_with(words: str) -> Iterator[None]:
    """What is said of the command if it is stopped in this block; what an inner block says goes before."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error) or words) from None


def stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which ends in one line when it is stopped; `stopped_with` says what stands in it."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) and not _came:
                raise
            # a terminal that is gone, or an import that was cut short, can turn the end into another error
            how = f"; {error}" if isinstance(error, KeyboardInterrupt) and str(error) else ""
            with suppress(OSError):
                err.print(f"adcdnet: stopped{how}", markup=False, style="yellow")
            raise SystemExit(EXIT_CODE) from None

    return run
