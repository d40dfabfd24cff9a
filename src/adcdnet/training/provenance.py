"""Which files a run was made from, and by which command: inputs.json, apart from what two equal runs share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adcdnet.files import as_json, sha256, write_whole
from adcdnet.geo.masks import PLAIN, MaskRule

FILE = "inputs.json"


@dataclass(frozen=True)
class Input:
    """One file as it was: its absolute path, and the SHA-256 of its content ("" where it is no plain file).

    rule: of a mask, which of its values hide.
    """

    path: Path
    sha256: str
    rule: MaskRule = PLAIN

    @classmethod
    def of(cls, path: Path, rule: MaskRule = PLAIN) -> Input:
        """InputError if the file cannot be read."""
        return cls(path.resolve(), sha256(path), rule)

    @classmethod
    def of_dict(cls, content: Mapping[str, Any]) -> Input:
        rule = MaskRule.of(content.get("mask_values"), content.get("mask_bits"))
        return cls(Path(content["path"]), content["sha256"], rule)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rule = {} if self.rule.is_plain else {"mask_values": list(self.rule.values), "mask_bits": list(self.rule.bits)}
        return {"path": str(self.path), "sha256": self.sha256, **rule}

    def found(self, beside: Path) -> Path | None:
        """Where the file is now: at its old place or, of the same name, in the folder `beside`; None if in neither."""
        places = (self.path, beside / self.path.name)
        return next((place for place in places if place.exists()), None)


def write(
    folder: Path,
    inputs: Mapping[str, Input],
    column: str | None,
    layer: str | None = None,
    command: Sequence[str] = (),
) -> None:
    """Leave inputs.json in a run's folder. column, layer: those of a polygon file that held the class, if named.

    command: the arguments of the command line, none where training was called from Python. InputError on failure.
    """
    content: dict[str, Any] = {name: file.to_dict() for name, file in inputs.items()}
    content |= {"column": column, "layer": layer, "command": list(command)}
    write_whole(folder / FILE, as_json(content))


def read(folder: Path) -> tuple[dict[str, Input], str | None, str | None, tuple[str, ...]]:
    """Inputs by name ("ms", "pan", "labels"), column, layer and command; nothing where the file is no such."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        column, command = content.pop("column"), tuple(map(str, content.pop("command")))
        layer = content.pop("layer", None)  # which older versions did not write
        return {name: Input.of_dict(file) for name, file in content.items()}, column, layer, command
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None, None, ()
