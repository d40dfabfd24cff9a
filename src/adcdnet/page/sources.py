"""What a page is made from: the files of a run, and the images and labels it was trained on."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adcdnet import inputs
from adcdnet.checkpoint import Model
from adcdnet.errors import InputError


@dataclass(frozen=True)
class Source:
    """One input file. role: "ms", "pan" or "labels". known: the SHA-256 that the run recorded, "" for none."""

    role: str
    path: Path
    sha256: str
    known: str

    @property
    def changed(self) -> bool:
        """Whether this is another file than the run was trained with."""
        return self.known not in ("", self.sha256)


@dataclass(frozen=True)
class RunFiles:
    """A run folder, read. history: rows of history.csv as they are; timing: seconds by stage, and memory.

    column: which column of a polygon file held the class. command: the line that made the run, "" where not known.
    """

    folder: Path
    model: Model
    sources: Mapping[str, Source]
    column: str | None
    command: str
    history: tuple[dict[str, str], ...]
    timing: Mapping[str, float]
    metrics: Mapping[str, Any]

    @property
    def split(self) -> Path | None:
        path = self.folder / "split.tif"
        return path if path.exists() else None


def read_run(folder: Path, given: Mapping[str, Path | None]) -> RunFiles:
    """The run in a folder; `given` (by role) goes before the files it was trained with. InputError without images.

    The labels of training are left out where the images are others, unless they are given.
    """
    if not (folder / "model.safetensors").exists():
        raise InputError(
            f"{folder} is not a run: it has no model.safetensors; name a folder that `adcdnet train` wrote"
        )
    model = Model.load(folder)
    recorded, column, command = inputs.read(folder)
    sources = {}
    for role in ("ms", "pan", "labels"):
        old, path = recorded.get(role), given.get(role)
        if path is None and old is not None:
            path = old.found(beside=folder)
        if path is not None:
            sources[role] = Source(role, path, inputs.sha256(path), old.sha256 if old else "")
        elif role != "labels":
            where = f"{old.path} is gone" if old else "the run does not say which it was trained on"
            raise InputError(f"no {role.upper()} image for the report of {folder}: {where}; name it with --{role}")
    if given.get("labels") is None and any(sources[role].changed for role in ("ms", "pan")):
        sources.pop("labels", None)  # those of training lie on its own scene
    return RunFiles(
        folder,
        model,
        sources,
        column,
        shlex.join(["adcdnet", *command]) if command else "",
        tuple(_rows(folder / "history.csv")),
        _json(folder / "timing.json"),
        _json(folder / "metrics.json"),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it to make the report without it") from error
    return content if isinstance(content, dict) else {}
