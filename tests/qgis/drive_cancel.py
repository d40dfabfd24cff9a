"""A training that the user stops from QGIS once something of it is kept, then the same again, to its end."""

import os
from contextlib import suppress
from pathlib import Path

from session import FOLDER, Log, finish, run, use

use(FOLDER / "adcdnet")


class Impatient(Log):
    """Stops when the training has told of this stage."""

    def setProgressText(self, text):
        super().setProgressText(text)
        if text.startswith("stage2") and not self.isCanceled():
            self.started = [number for number, (parent, _) in processes().items() if parent == os.getpid()]
            self.cancel()


def processes():
    """Parent and session of each process here, by its number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent, _, session, *_ = path.read_text().rpartition(")")[2].split()
            if state != "Z":
                found[int(path.parent.name)] = int(parent), int(session)
    return found


parameters = {
    "MS": str(FOLDER / "ms.tif"),
    "PAN": str(FOLDER / "pan.tif"),
    "LABELS": str(FOLDER / "polygons.gpkg"),
    "COLUMN": "cover",
    "CONFIG": str(FOLDER / "long.toml"),
    "OUT": str(FOLDER / "stopped"),
    "DEVICE": "cpu",
    "JOBS": 2,
}
log = Impatient()
stopped = run("train", log=log, **parameters)
running = [number for number, (_, session) in processes().items() if session in log.started]
left = sorted(path.name for path in FOLDER.iterdir() if "stopped" in path.name)
again = run("train", **parameters, RESUME=True)
whole = sorted(path.name for path in FOLDER.iterdir() if "stopped" in path.name)
finish(stopped=stopped, started=log.started, running=running, left=left, again=again, whole=whole)
