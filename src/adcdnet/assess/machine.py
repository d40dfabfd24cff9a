"""What a machine offers: memory, processors, room on disk, and the variables that change how libraries behave.

No value that looks like a secret leaves this file, and home folders are written as `~`: the text goes into issues.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

Fact = str | int | bool | None

HIDDEN = "set, not shown (may be a secret)"
_SHOWN = re.compile(r"(GDAL|OGR|CPL|VSI|PROJ|OMP|GOMP|KMP|MKL|OPENBLAS|CUDA|PYTORCH|ADCDNET)_|NVIDIA_VISIBLE_DEVICES$")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASS|PWD|KEY|AUTH|BEARER|COOKIE|HEADER|CREDENTIAL|SIGN|SESSION|USER|SAS", re.I)
# an address with somebody in it, a query, a scheme of authorisation, or a long run of letters and digits
_SECRET_VALUE = re.compile(
    r"://[^/]*@|[?&][^=]+=|\b(bearer|basic|token|digest)\b"
    r"|(?=[A-Za-z0-9+_-]*[0-9])(?=[A-Za-z0-9+_-]*[A-Za-z])[A-Za-z0-9+_-]{20,}",
    re.I,
)
_NO_LIMIT = 2**60  # control groups of the first kind say so with the largest number that they have


class Bytes(int):
    """An amount of memory: text for people, a whole number in JSON."""

    def __str__(self) -> str:
        return f"{int(self) / 2**30:.1f} GB"


def without_home(text: str) -> str:
    """The text with the user's folder written as `~`."""
    home = os.path.expanduser("~")
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text


def environment(variables: Mapping[str, str]) -> dict[str, Fact]:
    """Those variables that change what GDAL, PROJ, threads or a GPU do, secrets masked, in alphabetical order."""
    return {name: _safe(name, without_home(value)) for name, value in sorted(variables.items()) if _SHOWN.match(name)}


def _safe(name: str, value: str) -> str:
    if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
        return HIDDEN
    return value


def memory() -> dict[str, Fact]:
    """Total and free memory of the machine, and what this process may take of it where something limits that."""
    known = psutil.virtual_memory()
    limit = control_group_limit(Path("/"))
    return {
        "total": Bytes(known.total),
        "free": Bytes(known.available),
        "limit of the control group": "none" if limit is None else Bytes(limit),
    }


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes that a command may take without asking: half of what is free, or of the control group's limit if less."""
    limit = control_group_limit(root)
    free = int(psutil.virtual_memory().available)
    return (free if limit is None else min(free, limit)) // 2


def control_group_limit(root: Path) -> int | None:
    """The smallest memory limit of the control groups that this process is in; None without one.

    root: the file system's, where the files of control groups of both kinds lie.
    """
    limits = []
    for file in _limit_files(root):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _NO_LIMIT:
            limits.append(int(text))
    return min(limits, default=None)


def _limit_files(root: Path) -> Iterator[Path]:
    """Of each control group and those around it; inside a container its own group is the outermost one to be seen."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    top = root / "sys/fs/cgroup"
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds == "":
            folder, file = top, "memory.max"
        elif "memory" in kinds.split(","):
            folder, file = top / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = Path(group.lstrip("/"))
        for level in (inner, *inner.parents):
            yield folder / level / file


def processors(variables: Mapping[str, str]) -> dict[str, Fact]:
    """Processors of the machine, those that this process may use, and a number of threads that is asked for."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processors": os.cpu_count(),
        "usable here": usable,
        "OMP_NUM_THREADS": variables.get("OMP_NUM_THREADS", "not set"),
    }


def disk() -> dict[str, Fact]:
    """Free space in the current folder and in that of temporary files. OSError where no temporary file can be made."""
    with tempfile.TemporaryFile() as file:
        file.write(b"adcdnet")
    folders = {"current folder": os.getcwd(), "temporary files": tempfile.gettempdir()}
    return {
        f"free, {name}": f"{Bytes(shutil.disk_usage(path).free)} ({without_home(path)})"
        for name, path in folders.items()
    }
