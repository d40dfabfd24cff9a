"""What the process holds, and that no platform fails for want of an answer."""

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from adcdnet.mapping import memory


def on(platform: str, monkeypatch: pytest.MonkeyPatch, **missing: None) -> ModuleType:
    """The module as imported anew on another platform, without the modules in `missing`."""
    monkeypatch.setattr(sys, "platform", platform)
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("memory_elsewhere", memory.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_platform_without_the_resource_module_tells_nothing(monkeypatch):
    elsewhere = on("win32", monkeypatch, resource=None)
    assert (elsewhere.resident(), elsewhere.peak()) == (0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
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


@pytest.mark.skipif(sys.platform != "linux", reason="compares with what Linux says")
def test_the_peak_is_counted_in_bytes_or_in_units_of_1024(monkeypatch):
    linux, mac = memory.peak(), on("darwin", monkeypatch).peak()
    assert linux / mac == pytest.approx(1024, rel=0.2)
