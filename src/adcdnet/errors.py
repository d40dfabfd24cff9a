"""The one exception a user can cause.

Its message is a single line that says what came, what was needed and what to do. The command line prints it and
ends with exit code 1; from Python it is an ordinary ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class InputError(ValueError):
    """Input that cannot be used: a file, an image pair, labels, settings or a model file."""


def one_line(error: ValidationError) -> str:
    """The first complaint of a validation error: where and what."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'settings'}: {first['msg'].removeprefix('Value error, ')}"


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether NumPy, or PyTorch on a processor or on a GPU, could not have what it asked for."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
