"""What the process holds, and what it may still take."""

import resource
import subprocess
import sys

import psutil
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


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "5000\n", "memory.current": "1500\n"}, 3500),
        ({"memory.max": "5000\n", "memory.current": "7000\n"}, 0),
        ({"memory/memory.limit_in_bytes": "900\n", "memory/memory.usage_in_bytes": "200\n"}, 700),
        ({"memory.max": "max\n", "memory.current": "1500\n"}, None),
        ({"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n", "memory/memory.usage_in_bytes": "200\n"}, None),
        ({}, None),
    ],
)
def test_what_is_free_ends_where_the_control_group_does(tmp_path, files, free):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    of_machine = psutil.virtual_memory().available
    assert memory.available(tmp_path) == (pytest.approx(of_machine, rel=0.3) if free is None else free)
