"""The class table: which pixel value is which class, by what name and in what colour. Value 0 is 'no class'."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adcdnet.errors import InputError

# Okabe and Ito's eight colour-blind safe colours without black, then darker and lighter relatives of them
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f",
    "#00466e", "#8f6200", "#005a41", "#7d3f63", "#a8d8f5", "#f7a873", "#fff6a3", "#c7c7c7",
)  # fmt: skip


@dataclass(frozen=True)
class ClassTable:
    """K classes in the order of their values; class index k (0..K-1) inside the program is values[k] in files."""

    values: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]  # "#rrggbb"

    def __post_init__(self) -> None:
        if not len(self.values) == len(self.names) == len(self.colors):
            raise InputError("class table: values, names and colors differ in number")
        if list(self.values) != sorted(set(self.values)):
            raise InputError(f"class table: values must be different and rising, got {list(self.values)}")
        if any(not 1 <= v <= 255 for v in self.values):
            raise InputError(f"class table: values must lie in 1..255 (0 is 'no class'), got {list(self.values)}")
        if len(set(self.names)) != len(self.names) or "" in self.names:
            raise InputError(f"class table: names must differ and not be empty, got {list(self.names)}")
        for color in self.colors:
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
                raise InputError(f"class table: color {color!r} is not of the form #rrggbb")

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def numbered(cls, names: Sequence[str]) -> ClassTable:
        """Classes 1..K with the given names and colour-blind safe colours."""
        return cls.of(range(1, len(names) + 1), names)

    @classmethod
    def of(cls, values: Sequence[int], names: Sequence[str]) -> ClassTable:
        """The given values and names with colour-blind safe colours."""
        return cls(tuple(values), tuple(names), _safe_colors(len(names)))

    @classmethod
    def read(cls, path: Path) -> ClassTable:
        """From CSV with the columns value, name and, if wanted, color. Raises InputError."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"class table {path} cannot be read: {error}") from error
        if not rows or not {"value", "name"} <= set(rows[0]):
            raise InputError(f"class table {path} needs a header 'value,name,color' and a row for each class")
        try:
            numbered = sorted(((int(row["value"]), row) for row in rows), key=lambda pair: pair[0])
        except (TypeError, ValueError) as error:
            raise InputError(f"class table {path}: column 'value' must hold whole numbers") from error
        values = [value for value, _ in numbered]
        safe = _safe_colors(len(rows))
        colors = tuple((row.get("color") or "").strip() or safe[i] for i, (_, row) in enumerate(numbered))
        return cls(tuple(values), tuple((row["name"] or "").strip() for _, row in numbered), colors)


def _safe_colors(count: int) -> tuple[str, ...]:
    return tuple(PALETTE[i % len(PALETTE)] for i in range(count))
