"""Finished pieces of a training, in a hidden folder beside the run until that is whole.

A piece is data: arrays, and figures as JSON. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adcdnet.errors import InputError
from adcdnet.files import HeldFolder, remove_empty, write_whole
from adcdnet.mapping.model import digest_of

_HOLDER = "holder.json"  # which process works in the folder


class Piece(NamedTuple):
    """arrays: on the CPU. figures: what JSON can say."""

    arrays: Mapping[str, Tensor]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """Pieces by name. folder: where they lie; None: nothing is kept. fingerprint: of the training they are of."""

    folder: Path | None = None
    fingerprint: str = ""

    def find(self, name: str) -> Piece | None:
        """None where there is none that can be used: it is made anew then. One that is damaged is none."""
        if self.folder is None or not self._file(name).exists():
            return None
        try:
            with safe_open(self._file(name), framework="pt") as opened:
                head = opened.metadata() or {}
                # copies, where memory is aligned as that of any other tensor: results can hang on that
                arrays = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            return None
        if head.get("fingerprint") != self.fingerprint or head.get("digest") != _digest(arrays, head.get("figures")):
            return None
        return Piece(arrays, json.loads(head["figures"]))

    def keep(self, name: str, piece: Piece) -> None:
        """In place of an older one of that name. InputError where it cannot be written."""
        if self.folder is not None:
            figures = json.dumps(piece.figures)
            head = {"fingerprint": self.fingerprint, "figures": figures, "digest": _digest(piece.arrays, figures)}
            write_whole(self._file(name), save(dict(piece.arrays), head))

    def drop(self, name: str) -> None:
        """If it is there."""
        if self.folder is not None:
            self._file(name).unlink(missing_ok=True)

    def begin(self, *, resume: bool) -> None:
        """Before the first step: remove what an earlier training left or, to resume, InputError where that was another
        training."""
        for file in _pieces(self.folder):
            whose = _fingerprint_of(file)
            if resume and whose not in ("", self.fingerprint):
                raise InputError(
                    f"what is kept in {self.folder} is of another training: its files, labels, settings or version "
                    "differ; leave out --resume to begin anew"
                )
            if whose != self.fingerprint or not resume:
                file.unlink()

    def clear(self) -> None:
        """Remove all pieces: the run is whole."""
        for file in _pieces(self.folder):
            file.unlink()

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.safetensors"


NOWHERE = Checkpoints()


@contextmanager
def held_beside(out: Path) -> Iterator[Path]:
    """The folder for the pieces of a run, which stays behind where there are some in it at the end.

    InputError where it cannot be made, and where another process trains into the same run.
    """
    run = out.resolve()
    folder = run.with_name(f".{run.name}.training")
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = HeldFolder.hold(folder)
        if held is None:
            raise InputError(
                f"another training works on {out}: {_holder(folder)}; wait until it has ended, or choose another --out"
            )
        me = {"process": os.getpid(), "host": platform.node(), "since": datetime.now().isoformat(" ", "seconds")}
        write_whole(folder / _HOLDER, json.dumps(me).encode())
    except OSError as error:
        remove_empty((folder, *made))
        raise InputError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error
    try:
        yield folder
    finally:
        if any(_pieces(folder)):
            held.release()
        else:
            held.remove()
            remove_empty(made)


def _pieces(folder: Path | None) -> list[Path]:
    return [] if folder is None else sorted(folder.glob("*.safetensors"))


def _digest(arrays: Mapping[str, Tensor], figures: str | None) -> str:
    return hashlib.sha256(f"{digest_of(arrays)} {figures}".encode()).hexdigest()


def _fingerprint_of(file: Path) -> str:
    """Of the training that a piece is of; "" for a damaged one."""
    try:
        with safe_open(file, framework="pt") as opened:
            return str((opened.metadata() or {}).get("fingerprint", ""))
    except (SafetensorError, OSError):
        return ""


def _holder(folder: Path) -> str:
    """'process 12 on HOST since 2026-11-28 14:00:00', as far as that is known."""
    try:
        me = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {me['process']} on {me['host']} since {me['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has only just begun"
