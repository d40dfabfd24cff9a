"""How a command is stopped: by Ctrl-C, SIGTERM or SIGHUP alike, with one line and exit code 130."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Any

from adcdnet.cli.console import err

EXIT_CODE = 130  # what shells expect of a command that Ctrl-C ended
_ENDING = 5.0  # seconds that a command may take to end; until then further signals say nothing new
_came = [-inf]  # when the last signal that counted came


def take_signals() -> None:
    """From now on, signals that ask for an end raise KeyboardInterrupt. One that is ignored, as by nohup, stays so."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)  # each system has some of them
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(*_: object) -> None:
    if time.monotonic() - _came[0] > _ENDING:  # later on, the first was lost in code that cannot raise it
        _came[0] = time.monotonic()
        raise KeyboardInterrupt


@contextmanager
def stopped_with(words: str) -> Iterator[None]:
    """What is said of the command if it is stopped in this block."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(words) from None


def stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which ends in one line when it is stopped; `stopped_with` says what stands in it."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        _came[0] = -inf
        try:
            command(*arguments, **options)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) and _came[0] == -inf:
                raise
            # a terminal that is gone, or an import that was cut short, can turn the end into another error
            how = f"; {error}" if isinstance(error, KeyboardInterrupt) and str(error) else ""
            with suppress(OSError):
                err.print(f"adcdnet: stopped{how}", markup=False, style="yellow")
            raise SystemExit(EXIT_CODE) from None

    return run
