"""Which class of a table the names or numbers of a label file mean: names match names, numbers match values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable, tidy

_MOST = 255  # classes of a map
_SHOWN = 12  # classes that a sentence names


@dataclass(frozen=True)
class Lookup:
    """index_of: class index by what the file holds, as `tidy` writes it. notes: what a user should know of it."""

    index_of: dict[str, int]
    classes: ClassTable
    notes: tuple[str, ...] = ()


def look_up(keys: Iterable[str], classes: ClassTable | None, file: str, *, nameless: str | None = None) -> Lookup:
    """What the keys of a file, tidy texts that may be numbers, mean in a class table, or in one made of them.

    Keys that are all names of the table are names, also where they are numbers; otherwise whole numbers are its values.
    Without a table numbers in 1..255 stay as they are, and others are numbered 1..K with the number as name.
    nameless: what the labels will be compared with, where that has values without names; only such values then count.
    Raises InputError for keys that are no class, and for more classes than a map can hold.
    """
    keys = sorted(set(keys))
    numbers = _whole(keys)
    if nameless is not None:
        _check_values(keys, numbers, file, nameless)
    if classes is None:
        return _numbered(keys, numbers, file)
    by_name = {tidy(name): k for k, name in enumerate(classes.names)}
    codes = classes.codes or classes.values
    by_code = {code: k for k, code in enumerate(codes)}
    plain = {key: key if numbers is None or key in by_name else str(numbers[key]) for key in keys}
    if set(plain.values()) <= set(by_name):
        index_of = {key: by_name[name] for key, name in plain.items()}
        other = None if numbers is None else {key: by_code.get(number) for key, number in numbers.items()}
        notes = _of_codes(classes)
        if other is not None and any(k is not None and k != index_of[key] for key, k in other.items()):
            notes += (f"the numbers in {file} are taken for names of classes, not for their values",)
        return Lookup(index_of, classes, notes)
    if numbers is not None and set(numbers.values()) <= set(by_code):
        notes = _of_codes(classes)
        if _whole(list(by_name)) is not None and any(by_name.get(str(code)) != k for code, k in by_code.items()):
            notes += (f"the numbers in {file} are taken for values of classes, not for their names",)
        return Lookup({key: by_code[number] for key, number in numbers.items()}, classes, notes)
    unknown = [key for key in keys if plain[key] not in by_name and (numbers is None or numbers[key] not in by_code)]
    unknown = sorted(unknown or keys, key=None if numbers is None else numbers.__getitem__)
    raise InputError(
        f"{file} holds the classes {unknown}, which the class table has not (it has {list(classes.names)}, "
        f"values {list(codes)}); add them to the table or rename them"
    )


def listed(names: Iterable[str]) -> str:
    """'a, b, c', or the first of them and how many more there are."""
    names = list(names)
    more = len(names) - _SHOWN
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_SHOWN])} and {more} more"


def _whole(keys: list[str]) -> dict[str, int] | None:
    """The number that each key is, as 1, 1.0 or 1.; None where one of them is no whole number."""
    if not all(re.fullmatch(r"-?\d+(\.0*)?", key) for key in keys):
        return None
    return {key: int(key.partition(".")[0]) for key in keys}


def _numbered(keys: list[str], numbers: dict[str, int] | None, file: str) -> Lookup:
    values = [] if numbers is None else sorted(set(numbers.values()))
    count = len(values or keys)
    if count > _MOST:
        raise InputError(f"{file} holds {count} classes, {_MOST} can be mapped; check which column holds the class")
    if numbers is None:
        return Lookup({key: k for k, key in enumerate(keys)}, ClassTable.numbered(keys))
    index_of = {key: values.index(number) for key, number in numbers.items()}
    names = [str(value) for value in values]
    if all(1 <= value <= _MOST for value in values):
        return Lookup(index_of, ClassTable.of(values, names))
    pairs = listed(f"{k} for {name}" for k, name in enumerate(names, 1))
    note = f"classes of {file} that lie outside 1..{_MOST} cannot be values of a map, which will have {pairs}"
    return Lookup(index_of, ClassTable.numbered(names), (note,))


def _of_codes(classes: ClassTable) -> tuple[str, ...]:
    if not classes.codes:
        return ()
    pairs = zip(classes.values, classes.codes, classes.names, strict=True)
    shown = listed(f"{value} for {code} {name}" for value, code, name in pairs)
    return (f"values of the class table that lie outside 1..{_MOST} cannot be those of a map, which will have {shown}",)


def _check_values(keys: list[str], numbers: dict[str, int] | None, file: str, nameless: str) -> None:
    ask = "say with --classes which of its values is which class (CSV: value,name)"
    if numbers is None:
        raise InputError(f"{file} names its classes ({listed(keys)}) and {nameless} has values without names; {ask}")
    beyond = [str(n) for n in sorted(set(numbers.values())) if not 1 <= n <= _MOST]
    if beyond:
        raise InputError(
            f"{file} holds the classes {listed(beyond)} and {nameless} has values without names, which lie in "
            f"1..{_MOST}; {ask}"
        )
