"""Files written whole, digests, and hidden folders that tell whether the process that works in them still runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adcdnet.errors import InputError

_LOCK = "lock"  # name of the file in a held folder
_LONGEST_HEAD = 100_000_000  # bytes, as the safetensors library has it


class HeldFolder:
    """A folder that one process works in, told by a lock inside. The lock dies with its holder, whatever ends that."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def make(cls, parent: Path, prefix: str, suffix: str) -> HeldFolder:
        """A new one, of a random name between prefix and suffix. OSError where it cannot be written."""
        while True:
            path = Path(tempfile.mkdtemp(suffix, prefix, parent))
            held = cls.hold(path)
            if held is not None:  # otherwise another process took it for one that was left
                return held

    @classmethod
    def hold(cls, path: Path) -> HeldFolder | None:
        """One that exists; None where somebody holds it, in this process or in another. OSError as of `make`."""
        lock = FileLock(path / _LOCK, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return cls(path, lock)

    def release(self) -> None:
        """Leave the folder to whoever wants it. A second time changes nothing."""
        self._lock.release()

    def remove(self) -> None:
        """With all that is in it, as far as that goes."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()
        if sys.platform == "win32":  # where the file of a lock that is held stays
            shutil.rmtree(self.path, ignore_errors=True)


def remove_left(folders: Iterable[Path]) -> None:
    """Remove the held folders among these whose holders have ended."""
    for folder in folders:
        with suppress(OSError):
            if (folder / _LOCK).is_file():  # one without is being made, or is no held folder
                left = HeldFolder.hold(folder)
                if left is not None:
                    left.remove()


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, innermost first, up to one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def require_file_name(path: Path) -> None:
    """InputError for a path that no file can have: a folder, or none at all."""
    if not path.name or path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name a file to write")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its target and move it into place, so that it is never half there. InputError on failure."""
    require_file_name(path)
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


def is_address(path: Path) -> bool:
    """Whether only GDAL can say if it is there: inside an archive, or on the net."""
    return str(path).startswith("/vsi") or ":/" in str(path)


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's content, read piece by piece; "" for a folder and for an address inside an archive
    or on the net, which only GDAL can read. InputError if it cannot be read."""
    if path.is_dir() or is_address(path):
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Of a safetensors file, without a look at its tensors; nothing of a file that is none."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(min(size, _LONGEST_HEAD)))
        return {str(name): str(text) for name, text in head.get("__metadata__", {}).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def as_json(content: Any) -> bytes:
    """As people read it, and with a line's end."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
