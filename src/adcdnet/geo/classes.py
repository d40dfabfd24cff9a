"""The class table: which pixel value is which class, by what name and in what colour. Value 0 is 'no class'."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.files import read_text_file

# Okabe and Ito's eight colour-blind safe colours with grey for black, then darker and lighter ones that keep apart
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#666666",
    "#00466e", "#8d2f00", "#006437", "#6028ad", "#a8d8f5", "#f7a873", "#fff6a3", "#c7c7c7",
    # then, one after another, the colour that lies furthest from all before it, for each kind of sight
    "#0000ff", "#002d2d", "#8778ff", "#0f0f69", "#fff0d2", "#5a4bf0", "#3c1e00", "#0000c3",
    "#e1ff78", "#87874b", "#b40096", "#b4ffff", "#ff964b", "#d2c3a5", "#9696ff", "#001e4b",
    "#2d4b5a", "#1e4b3c", "#000087", "#3cb4c3", "#1e691e", "#e1e1a5", "#0078d2", "#965a87",
)  # fmt: skip
# Linear RGB as it looks without one kind of cone (Machado, Oliveira and Fernandes 2009, IEEE TVCG 15(6), severity 1)
_VISION = {
    "": np.eye(3),
    "without red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "without green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
_ALIKE = 10.0  # CIE 1976 colour difference; neighbours in a map with less are taken for one another


@dataclass(frozen=True)
class ClassTable:
    """K classes in the order of their values; class index k (0..K-1) inside the program is values[k] in files.

    codes: the numbers that stand for the classes in files of labels, where they are no values; no model keeps them.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]  # "#rrggbb"
    codes: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not len(self.values) == len(self.names) == len(self.colors):
            raise InputError("class table: values, names and colors differ in number")
        if list(self.values) != sorted(set(self.values)):
            raise InputError(f"class table: values must be different and rising, got {_few(self.values)}")
        if self.codes and len(self.codes) != len(self.values):
            raise InputError("class table: values and codes differ in number")
        if any(not 1 <= v <= 255 for v in self.values):
            raise InputError(f"class table: values must lie in 1..255 (0 is 'no class'), got {_few(self.values)}")
        if len(set(self.names)) != len(self.names) or "" in self.names:
            raise InputError(f"class table: names must differ and not be empty, got {_few(self.names)}")
        for color in self.colors:
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
                raise InputError(f"class table: color {color!r} is not of the form #rrggbb")

    def __len__(self) -> int:
        return len(self.values)

    def alike(self) -> list[str]:
        """One sentence for every two classes whose colours are hard to tell apart, or are so for the colour-blind."""
        sentences = []
        seen = {who: _lab(self.colors, matrix) for who, matrix in _VISION.items()}
        for i, j in combinations(range(len(self)), 2):
            apart = {who: float(np.linalg.norm(lab[i] - lab[j])) for who, lab in seen.items()}
            closest = min(apart, key=lambda who: apart[who])
            if apart[closest] < _ALIKE:
                who = "" if apart[""] < _ALIKE else f" for readers {closest}"
                names = f"{self.names[i]} ({self.colors[i]}) and {self.names[j]} ({self.colors[j]})"
                sentences.append(f"the colours of {names} are hard to tell apart{who}; change one in the class table")
        return sentences

    @classmethod
    def numbered(cls, names: Sequence[str]) -> ClassTable:
        """Classes 1..K with the given names and colour-blind safe colours."""
        return cls.of(range(1, len(names) + 1), names)

    @classmethod
    def of(cls, values: Sequence[int], names: Sequence[str]) -> ClassTable:
        """The given values and names with colour-blind safe colours."""
        return cls(tuple(values), tuple(names), _safe_colors(len(names)))

    def to_csv(self) -> bytes:
        """As `read` takes it."""
        text = io.StringIO()
        rows = zip(self.values, self.names, self.colors, strict=True)
        csv.writer(text, lineterminator="\n").writerows([("value", "name", "color"), *rows])
        return text.getvalue().encode()

    @classmethod
    def read(cls, path: Path) -> ClassTable:
        """From CSV with the columns value, name and, if wanted, color. Raises InputError.

        Values outside 1..255, such as CORINE's 112, are codes: the classes are numbered 1..K in their order.
        """
        try:
            rows = read_table(path)
        except (OSError, UnicodeError, csv.Error) as error:
            raise InputError(f"class table {path} cannot be read: {error}") from error
        if not rows or not {"value", "name"} <= set(rows[0]):
            raise InputError(f"class table {path} needs a header 'value,name,color' and a row for each class")
        try:
            numbered = sorted(((int(row["value"]), row) for row in rows), key=lambda pair: pair[0])
        except ValueError as error:
            raise InputError(f"class table {path}: column 'value' must hold whole numbers") from error
        values = tuple(value for value, _ in numbered)
        safe = _safe_colors(len(rows))
        colors = tuple(row.get("color") or safe[i] for i, (_, row) in enumerate(numbered))
        names = tuple(tidy(row["name"]) for _, row in numbered)
        if all(1 <= value <= 255 for value in values) or len(set(values)) < len(values):
            return cls(values, names, colors)
        return cls(tuple(range(1, len(values) + 1)), names, colors, values)


def tidy(name: str) -> str:
    """A class's name in one form: composed letters (NFC), single blanks, nothing that cannot be seen."""
    seen = "".join(
        " " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in unicodedata.normalize("NFC", name)
    )
    return " ".join("".join(c for c in seen if c not in "\ufeff\u200b\u2060").split())


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header, as spreadsheets save it: by commas, semicolons or tabs, with or without BOM.

    Names of columns in small letters, cells without blanks around them. OSError, UnicodeError, csv.Error.
    """
    content = read_text_file(path)
    if content.startswith(b"PK\x03\x04"):
        raise csv.Error("it is a workbook, not text; save it as CSV")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")  # what Excel calls CSV
    head = text.strip().partition("\n")[0]
    separator = max(",;\t", key=head.count)
    lines = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator)]
    lines = [row for row in lines if any(row)]
    if not lines:
        return []
    columns = [name.lower() for name in lines[0]]
    return [dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=False)) for row in lines[1:]]


def read_prior(path: Path, classes: ClassTable) -> tuple[float, ...]:
    """Shares of the classes (K,), summing to 1, from CSV with the columns value and share. Raises InputError.

    Shares may be of any unit (hectares, percent); every class needs one, and it must be above 0.
    """
    try:
        given = {int(row["value"]): float(row["share"]) for row in read_table(path)}
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"class shares {path} cannot be read: {error}") from error
    except (KeyError, ValueError) as error:
        raise InputError(f"class shares {path} need the columns value,share with a number in each row") from error
    total = sum(given.values())
    if set(given) != set(classes.values) or not all(share > 0 for share in given.values()) or not total < np.inf:
        raise InputError(
            f"class shares {path} name {sorted(given)}, needed is one share above 0 for each of {list(classes.values)}"
        )
    return tuple(given[value] / total for value in classes.values)


def _lab(colors: Sequence[str], vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, 3) CIELAB under D65 of sRGB colours, seen through `vision` (3, 3)."""
    coded = np.array([list(bytes.fromhex(color[1:])) for color in colors]) / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ vision.T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack((116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])), axis=1)


def _few(values: Sequence[object]) -> str:
    """A list as Python shows it, but of hundreds the first ones."""
    return str(list(values)) if len(values) <= 99 else f"{str(list(values[:9]))[:-1]}, ...] ({len(values)} of them)"


def _safe_colors(count: int) -> tuple[str, ...]:
    return tuple(PALETTE[i % len(PALETTE)] for i in range(count))
