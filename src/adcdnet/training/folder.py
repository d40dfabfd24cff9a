"""The folder of a run: its files appear together when all are written, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adcdnet.errors import InputError
from adcdnet.files import MODEL_FILE, PART, WriteBehind, hidden_part, names_on_disk
from adcdnet.mapping.model import folds_name, held_out_name, split_name
from adcdnet.training import provenance

_RASTERS = (split_name(), folds_name(), held_out_name(), held_out_name(soft=True))


def require_run_folder(folder: Path) -> None:
    """InputError unless a run can be written to the folder and nothing but an older run is replaced: it is new, empty,
    or holds a run, or what is left of one that was killed."""
    if not folder.is_dir():
        return  # a file is refused by `whole_run`
    names = {path.name for path in folder.iterdir()}
    left = any(name.endswith(PART) for name in names)
    if left or names & {MODEL_FILE, provenance.FILE} or all(name.startswith(".") for name in names):
        return
    raise InputError(f"{folder} holds files that are no run, such as {min(names)}; name a new or an empty folder")


@contextmanager
def whole_run(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder` for the files of a run, which move into place together when all are written.

    A failure leaves an older run as it was, and no folder that was not there. Where the process is killed between two
    of the moves, the rasters, which come first, say of which model they are, and the model comes last
    (`split.parts.check_of_model`). InputError for a place that cannot be written.
    """
    with hidden_part(folder) as part:
        yield part
        with WriteBehind() as moving:  # a thread: Ctrl-C does not come between two moves
            moving.do(_move, part, folder)
            moving.finish()


def _move(part: Path, folder: Path) -> None:
    files = sorted(part.iterdir(), key=lambda file: (file.name == MODEL_FILE, file.suffix != ".tif", file.name))
    try:
        for file in files:
            if file.name == MODEL_FILE:
                for name in _RASTERS:
                    if all(name != new.name for new in files):  # one of an older run would be taken for this one's
                        (folder / name).unlink(missing_ok=True)
            file.replace(folder / file.name)
        names_on_disk(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}; --resume goes on from what is kept") from error
