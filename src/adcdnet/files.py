"""Which process made a temporary file, so that what a killed one left can be told from what another one works on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

from adcdnet.errors import InputError


def owner() -> str:
    """This process: machine (8 hexadecimal digits) and process number, fit for file names."""
    return f"{_machine()}-{os.getpid()}"


def is_gone(other: str) -> bool:
    """Whether the process of an `owner` has ended for sure. False for other machines, and where none can be asked."""
    machine, _, number = other.partition("-")
    if sys.platform == "win32" or machine != _machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)  # signal 0 asks only
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _machine() -> str:
    return f"{crc32(platform.node().encode()):08x}"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its target and move it into place, so that it is never half there. InputError on failure."""
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


class WriteBehind:
    """A thread that writes one thing while the next one is computed; a failure shows at the next call."""

    def __enter__(self) -> WriteBehind:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def do(self, write: Callable[..., None], *arguments: Any) -> None:
        self.finish()
        self._last = self._thread.submit(write, *arguments)

    def finish(self) -> None:
        if self._last is not None:
            self._last.result()


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's content, read piece by piece; "" for a folder and for an address inside an archive
    or on the net, which only GDAL can read. InputError if it cannot be read."""
    if path.is_dir() or str(path).startswith("/vsi") or ":/" in str(path):
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error


def as_json(content: Any) -> bytes:
    """As people read it, and with a line's end."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
