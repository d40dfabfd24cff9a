"""Where tiles lie that several machines write: a folder that all see, or an address of an object store."""

from __future__ import annotations

import os
import posixpath
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from adcdnet.errors import InputError
from adcdnet.files import write_whole

_MARK = ".done"  # ends the name of what says that an object is whole


class Store(Protocol):
    """Files by name. One that is not whole is not there. All methods raise InputError where storage fails."""

    place: str

    def create(self, name: str, content: bytes) -> None:
        """Write a file unless there is one by that name already, which then stays as it is."""

    def put(self, name: str, content: bytes) -> None:
        """Write a file in the place of any other."""

    def get(self, name: str) -> bytes | None: ...

    def names(self) -> set[str]:
        """Of all files that are there."""

    def remove(self) -> None:
        """All files."""


def store_at(place: str) -> Store:
    """place: a folder, made when it is first written to, or an address such as s3://bucket/tiles. InputError for an
    address that nobody can read."""
    return _Address(place) if "://" in place else _Folder(Path(place))


class _Folder:
    """A file gets its name when all of it is written."""

    def __init__(self, folder: Path) -> None:
        self.place, self._folder = str(folder), folder

    def create(self, name: str, content: bytes) -> None:
        path = self._folder / name
        if path.exists():
            return
        with _telling(self.place):
            self._folder.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
        write_whole(whole, content)
        try:
            with _telling(self.place):
                try:
                    os.link(whole, path)  # unlike a move, fails where somebody else was faster
                except FileExistsError:
                    pass
                except OSError:  # a file system without links
                    _write_new(path, content)
        finally:
            whole.unlink(missing_ok=True)

    def put(self, name: str, content: bytes) -> None:
        write_whole(self._folder / name, content)

    def get(self, name: str) -> bytes | None:
        with _telling(self.place):
            try:
                return (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def names(self) -> set[str]:
        with _telling(self.place):
            try:
                return {file.name for file in self._folder.iterdir() if not file.name.startswith(".")}
            except FileNotFoundError:
                return set()

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _write_new(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        pass


class _Address:
    """Object stores move nothing, and some show what is half there: an object counts when a second one, its mark, tells
    its size and checksum."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.place = address
        with _telling(address):
            found = fsspec.core.url_to_fs(address)
            self._files: Any = found[0]
            self._root = str(found[1]).rstrip("/")

    def create(self, name: str, content: bytes) -> None:
        with _telling(self.place):
            self._files.makedirs(self._root, exist_ok=True)
            if self.get(name) is None:
                try:
                    self._files.pipe_file(self._at(name), content, mode="create")
                except OSError:  # of many kinds where somebody was faster, or was killed before the mark
                    self._files.invalidate_cache(self._root)
                    if not self._files.exists(self._at(name)):
                        raise
                    content = self._files.cat_file(self._at(name))
                self._files.pipe_file(self._at(name + _MARK), _mark_of(content))

    def put(self, name: str, content: bytes) -> None:
        with _telling(self.place):
            self._files.pipe_file(self._at(name), content)
            self._files.pipe_file(self._at(name + _MARK), _mark_of(content))

    def get(self, name: str) -> bytes | None:
        with _telling(self.place):
            try:
                mark = self._files.cat_file(self._at(name + _MARK))
                content: bytes = self._files.cat_file(self._at(name))
            except FileNotFoundError:
                return None
        return content if mark == _mark_of(content) else None

    def names(self) -> set[str]:
        with _telling(self.place):
            self._files.invalidate_cache(self._root)  # others write too
            try:
                files = self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return set()
        found = {posixpath.basename(file) for file in files}
        return {name.removesuffix(_MARK) for name in found if name.endswith(_MARK)} & found

    def remove(self) -> None:
        with _telling(self.place):
            self._files.rm(self._root, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _mark_of(content: bytes) -> bytes:
    return f"{len(content)} {zlib.crc32(content)}".encode()


@contextmanager
def _telling(place: str) -> Iterator[None]:
    """What goes wrong in one line, whatever library raises it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(
            f"tiles at {place} cannot be read or written: {' '.join(why.split())}; check --tiles and its rights"
        ) from error
