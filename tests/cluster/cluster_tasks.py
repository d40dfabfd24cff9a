"""What worker processes do in tests; each leaves a line in a file for every time that it is called.

PyTorch is imported only where it is needed: it takes seconds in every new process.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np

from adcdnet.errors import InputError


def noted(folder: Path, name: object) -> int:
    """How often this was called by the name, this time included."""
    with (folder / f"called-{name}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len((folder / f"called-{name}").read_text().splitlines())


def square(folder: Path, number: int) -> int:
    noted(folder, number)
    return number**2


def environment(names: tuple[str, ...]) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def start_a_process() -> int:
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    return process.exitcode


def die_once(folder: Path, number: int) -> int:
    if number == 1 and noted(folder, number) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hang(folder: Path, number: int) -> int:
    if number == 1:
        noted(folder, number)
        time.sleep(1000)
    return number


def hang_once(folder: Path, number: int) -> int:
    if number == 1 and noted(folder, number) == 1:
        time.sleep(1000)
    return number


def hold_too_much(folder: Path, number: int) -> int:
    if number == 1:
        noted(folder, number)
        held = [np.ones(2**23, np.uint8) for _ in range(1000) if not time.sleep(0.005)]
        return len(held)
    return number


def fail_now_and_then(folder: Path, number: int) -> int:
    if noted(folder, number) <= number % 3:
        raise InputError("storage does not answer") if number % 2 else OSError("storage is away")
    return number


def fail(folder: Path, number: int) -> int:
    noted(folder, number)
    raise InputError(f"no {number}")


def wait_and_square(folder: Path, number: int) -> int:
    noted(folder, number)
    time.sleep(0.4)
    return number**2


def note_cells(cells, out):
    noted(out, " ".join([str(cells[0].fold), *(cell.method for cell in cells)]))


def fail_of_fold_1(cells, out):
    if cells[0].fold == 1:
        raise InputError("no fold 1")
    note_cells(cells, out)


def make_part_killed_once(folder, work, files, part, place):
    """Killed in mid-tile: after the first tile of the part was kept and while the next is written."""
    from adcdnet.cluster import store
    from adcdnet.cluster.scenes import make_part

    if noted(folder, f"part-{part.number}") == 1 and part.number == 1:
        put, times = store._Folder.put, []

        def die(self, name, content):
            times.append(name)
            if len(times) == 2:
                (self._folder / f".{name}.0.part").write_bytes(content[:100])
                os.kill(os.getpid(), signal.SIGKILL)
            put(self, name, content)

        store._Folder.put = die
    return make_part(work, files, part, place)
