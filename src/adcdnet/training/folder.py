"""The folder of a run: its files appear together when all are written, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from adcdnet.errors import InputError
from adcdnet.mapping.model import folds_name, held_out_name, split_name


@contextmanager
def whole_run(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder` for the files of a run, which move into place together when all are written.

    A failure leaves an older run as it was, and no folder that was not there. InputError for a place that cannot be
    written.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder))
    except OSError as error:
        _remove(made)
        raise InputError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error
    try:
        yield part
        for name in (split_name(), folds_name(), held_out_name(), held_out_name(soft=True)):
            if not (part / name).exists():  # one of an older run would be taken for this one's
                (folder / name).unlink(missing_ok=True)
        for file in part.iterdir():
            file.replace(folder / file.name)
        made = []
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _remove(made)


def _remove(folders: Sequence[Path]) -> None:
    """Take away folders, innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
