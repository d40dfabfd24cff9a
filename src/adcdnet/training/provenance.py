"""Which files a run was made from, and by which command: inputs.json, apart from what two equal runs share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adcdnet.files import as_json, is_address, sha256, write_whole
from adcdnet.geo.masks import PLAIN, MaskRule

FILE = "inputs.json"


@dataclass(frozen=True)
class Input:
    """One file as it was: its absolute path, and the SHA-256 of its content ("" where it is no plain file).

    rule: of a mask, which of its values hide. reading: of labels, column, layer and min_share, where these were given.
    """

    path: Path
    sha256: str
    rule: MaskRule = PLAIN
    reading: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, rule: MaskRule = PLAIN, **reading: Any) -> Input:
        """InputError if the file cannot be read."""
        given = {name: value for name, value in reading.items() if value is not None}
        return cls(path if is_address(path) else path.resolve(), sha256(path), rule, given)

    @classmethod
    def of_dict(cls, content: Mapping[str, Any]) -> Input:
        rule = MaskRule.of(content.get("mask_values"), content.get("mask_bits"))
        reading = {name: content[name] for name in ("column", "layer", "min_share") if name in content}
        return cls(Path(content["path"]), content["sha256"], rule, reading)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rule = {} if self.rule.is_plain else {"mask_values": list(self.rule.values), "mask_bits": list(self.rule.bits)}
        return {"path": str(self.path), "sha256": self.sha256, **rule, **self.reading}

    def found(self, beside: Path) -> Path | None:
        """Where the file is now: at its old place or, of the same name, in the folder `beside`; None if in neither."""
        if is_address(self.path):
            return self.path
        places = (self.path, beside / self.path.name)
        return next((place for place in places if place.exists()), None)


def write(folder: Path, inputs: Mapping[str, Input], command: Sequence[str] = ()) -> None:
    """Leave inputs.json in a run's folder.

    command: the arguments of the command line, none where training was called from Python. InputError on failure.
    """
    content: dict[str, Any] = {name: file.to_dict() for name, file in inputs.items()}
    content["command"] = list(command)
    write_whole(folder / FILE, as_json(content))


def read(folder: Path) -> tuple[dict[str, Input], tuple[str, ...]]:
    """Inputs by name ("ms", "pan", "labels") and command; nothing where the file is no such."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        command = tuple(map(str, content.pop("command")))
        return {name: Input.of_dict(file) for name, file in content.items()}, command
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, ()
