"""Files written whole, digests, and hidden folders that tell whether the process that works in them still runs."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adcdnet.errors import InputError

PART = ".part"  # how the name of a hidden folder ends whose files are not whole yet
_LOCK = "lock"  # name of the file in a held folder
_MAKING = 60.0  # seconds within which a folder that is being made has its lock
_OF_A_RUN = re.compile(  # what a training leaves
    r"model\.safetensors|config\.toml|(metrics|inputs|timing)\.json|history\.csv|(split|folds|held-out)\b.*\.tif"
)
_LARGEST_TEXT = 2**26  # bytes
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it


class HeldFolder:
    """A folder that one process works in, told by a lock inside. The lock dies with its holder, whatever ends that."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def make(cls, parent: Path, prefix: str, suffix: str) -> HeldFolder:
        """A new one, of a random name between prefix and suffix. OSError where it cannot be written."""
        while True:
            path = Path(tempfile.mkdtemp(suffix, prefix, parent))
            try:
                held = cls.hold(path)
            except OSError:  # no room for the lock
                remove_empty([path])
                raise
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
        """With all that is in it, as far as that goes. The lock goes last: a folder without one is empty."""
        with suppress(OSError):
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name != _LOCK:
                    path.unlink()
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()
        if sys.platform == "win32":  # where the file of a lock that is held stays
            shutil.rmtree(self.path, ignore_errors=True)


def remove_left(folders: Iterable[Path]) -> None:
    """Remove the held folders among these whose holders have ended."""
    for folder in folders:
        with suppress(OSError):
            if (folder / _LOCK).is_file():
                left = HeldFolder.hold(folder)
                if left is not None:
                    left.remove()
            elif time.time() - folder.stat().st_mtime > _MAKING:
                folder.rmdir()  # made or removed when the power failed; another one is not empty and stays


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, innermost first, up to one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def hidden_part(folder: Path, name: str = "") -> Iterator[Path]:
    """An empty folder inside a hidden one in `folder`, for files that are moved from there when all are written.

    Afterwards it is gone, with what killed calls of the same `name` left, and folders that were made if they are empty.
    InputError for a place that cannot be written.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = HeldFolder.make(folder, f".{name}", PART)
        part = held.path / "part"
        try:
            part.mkdir()
        except OSError:
            held.remove()
            raise
    except OSError as error:
        remove_empty(made)
        raise InputError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error
    remove_left(folder.glob(f".{glob.escape(name)}*{PART}"))
    try:
        yield part
    finally:
        held.remove()
        remove_empty(made)


def require_file_name(path: Path) -> None:
    """InputError for a path that no file can have: a folder, or none at all."""
    if not path.name or path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name a file to write")


def require_plain(path: Path) -> None:
    """InputError for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a pipe or a device; a file is needed")


def read_text_file(path: Path) -> bytes:
    """The content of a file that people write, such as a table or settings. OSError, and InputError for what is no such
    file or far too large for one."""
    require_plain(path)
    if (size := path.stat().st_size) > _LARGEST_TEXT:
        raise InputError(f"{path} has {size} bytes, and a table or settings {_LARGEST_TEXT} at most; name another file")
    return path.read_bytes()


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path | None] = ()) -> None:
    """InputError where a file to write is one of those that are read, by whatever name or link, was named twice, or is
    one that a run consists of."""
    read, taken = [_on_disk(path) for path in inputs if path is not None], list[Path]()
    for output in outputs:
        if any(_is_same(output, path) for path in read):
            raise InputError(f"{output} is one of the files that are read; name another one to write")
        if any(_is_same(output, path) for path in taken):
            raise InputError(f"{output} was named twice; name a file of its own for each")
        for place in (output, output.resolve()):
            if _OF_A_RUN.fullmatch(place.name.lower()) and (place.parent / MODEL_FILE).exists():
                raise InputError(f"{output} is a part of the run in its folder; name another file to write")
        taken.append(output)


def refuse_replacing(folder: Path, inputs: Iterable[Path | None]) -> None:
    """InputError where a run that is written to the folder would replace a file that is read, by whatever link."""
    for path in inputs:
        place = None if path is None else _on_disk(path).resolve()
        if place is not None and place.parent == folder.resolve() and _OF_A_RUN.fullmatch(place.name.lower()):
            raise InputError(f"{path} is read and would be replaced by the run in {folder}; name another folder for it")


def _on_disk(path: Path) -> Path:
    """The file behind an address of GDAL: that of file:///..., or the archive of /vsizip/...; others as they are."""
    inner = re.match(r"(?:file:|/vsi\w+)/+(?=.)(.*)", str(path))
    if inner is None:
        return path
    place = Path("/", inner[1])
    return next((part for part in (place, *place.parents) if part.is_file()), path)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there, or is no file
        return one.resolve() == other.resolve()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its target and move it into place, so that it is never half there. InputError on failure."""
    require_file_name(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = part.open("xb")  # a name that nobody foresees, and no link that somebody laid there
        try:
            with file:
                file.write(content)
            move_into_place(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def move_into_place(part: Path, path: Path) -> None:
    """Give a finished file its name, which then stands for all of it even if the power fails. OSError on failure."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    names_on_disk(path.parent)


def names_on_disk(folder: Path) -> None:
    """What was made, named and removed in a folder stays so even if the power fails."""
    with suppress(OSError):  # Windows opens no folders, and some file systems know no such call
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


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


MODEL_TAG = "ADCDNET_MODEL_SHA256"  # of a map: the digest of the model that made it
MODEL_KEY = "adcdnet"  # of a model file's metadata
MODEL_FILE = "model.safetensors"  # in a run's folder


def digest_of_header(header: Mapping[str, Any]) -> str:
    """What tells a model from others: the SHA-256 of its header, which has that of its weights, without its record."""
    kept = {name: value for name, value in header.items() if name != "record"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def model_digest(path: Path) -> str:
    """The digest of a model file without reading its weights; "" for what is no model file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            content = json.loads(file.read(size)) if size < _LONGEST_HEADER else {}
        return digest_of_header(json.loads(content["__metadata__"][MODEL_KEY]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def as_json(content: Any) -> bytes:
    """As people read it, and with a line's end."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
