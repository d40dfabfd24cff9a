"""How much memory this process holds, as far as the platform tells."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.platform != "win32":
    import resource


def resident() -> int:
    """Bytes held now; where the platform does not tell, the peak, and 0 where it tells neither."""
    if sys.platform == "win32":
        return 0
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak()


def peak() -> int:
    """The most bytes held so far; 0 where the platform does not tell."""
    if sys.platform == "win32":
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
