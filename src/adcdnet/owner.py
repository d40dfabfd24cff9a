"""Which process made a temporary file, so that what a killed one left can be told from what another one works on."""

from __future__ import annotations

import os
import platform
import sys
from zlib import crc32


def owner() -> str:
    """This process: machine (8 hexadecimal digits) and process number, fit for file names."""
    return f"{_machine()}-{os.getpid()}"


def is_gone(other: str) -> bool:
    """Whether the process of an `owner` has ended for sure. False for other machines, and where none can be asked."""
    machine, _, number = other.partition("-")
    if sys.platform == "win32" or machine != _machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)  # signal 0 asks only
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _machine() -> str:
    return f"{crc32(platform.node().encode()):08x}"
