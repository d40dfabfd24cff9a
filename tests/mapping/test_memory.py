"""What the process holds, and what it may still take."""

import resource
import subprocess
import sys

import pytest

from adcdnet.mapping import memory


def test_memory_is_held_and_given_back_while_the_peak_stays():
    # in a process of its own: here, earlier tests have left freed memory that a new array may be put into
    code = """
from adcdnet.mapping import memory
import numpy as np
before, size = memory.resident(), 2**27
held = np.ones(size, np.uint8)
during, top = memory.resident(), memory.peak()
del held
print(before, size, during, top, memory.resident(), memory.peak())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, size, during, top, after, top_after = map(int, told.split())
    assert during - before > 0.9 * size
    assert top >= 0.9 * during
    assert after - before < 0.5 * size
    assert top_after >= top


def test_the_peak_is_counted_in_bytes_or_in_units_of_1024(monkeypatch):
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for platform, unit in (("linux", 1024), ("darwin", 1)):
        monkeypatch.setattr(sys, "platform", platform)
        assert memory.peak() == pytest.approx(told * unit, rel=0.2)


def test_what_was_freed_is_given_back():
    """In a process of its own, which keeps freed memory as the command line does."""
    code = """
from adcdnet.cli import _keep_memory
_keep_memory()
import torch
from adcdnet.mapping import memory
many = [torch.ones(2**18) for _ in range(256)]  # 256 MB in pieces
held = memory.resident()
del many
kept = memory.resident()
memory.give_back()
print(held, kept, memory.resident())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    held, kept, after = map(int, told.split())
    assert kept > held - 2**27
    assert after < held - 2**27
