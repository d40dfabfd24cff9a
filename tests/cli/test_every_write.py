"""A process that dies, a full disk and a power cut at the writes of a map: a small part of scripts/attack_writes.py."""

import errno
import platform
import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="calls are traced on Linux on x86-64"
)


@pytest.mark.slow
@linux
@pytest.mark.parametrize(("attack", "every"), [("kill", 23), ("full", 9), ("gone", 41), ("power", 17)])
def test_a_map_survives(attack, every):
    words = [sys.executable, str(SCRIPTS / "attack_writes.py"), attack, "--of", "predict", "--every", str(every)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tried" in done.stdout


@linux
def test_calls_are_seen_refused_and_cut(tmp_path):
    # in a process of its own: the tracer waits for all children of its process
    program = f"""
import os, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
import traced
folder = Path({str(tmp_path)!r})
def work():
    try:
        with open(folder / "a", "wb", buffering=0) as file:
            file.write(b"12345678")
            os.fsync(file.fileno())
        os.replace(folder / "a", folder / "b")
    except OSError as error:
        os._exit(error.errno)
    os._exit(0)
def told(verdict, at):
    seen = []
    def decide(one):
        seen.append(one.kind)
        return verdict if one.number == at else traced.DONE
    return traced.run(work, folder, decide), seen
print(told(traced.DONE, 0))
print(told(traced.Verdict(error={errno.ENOSPC}), 2))
(folder / "a").unlink()
print(told(traced.Verdict(bytes=3), 2), (folder / "a").read_bytes())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "(0, ['create', 'write', 'fsync', 'rename'])",
        f"({errno.ENOSPC}, ['create', 'write'])",
        "(-9, ['create', 'write']) b'123'",
    ]


@linux
def test_a_power_cut_takes_what_no_fsync_kept():
    from attack_writes import after_the_cut
    from traced import Call

    folder, part, place = Path("/d"), Path("/d/part"), Path("/d/map")
    calls = [
        Call(1, "create", (part,)),
        Call(2, "write", (part,), 0, b"new"),
        Call(3, "fsync", (part,)),
        Call(4, "rename", (part, place)),
    ]

    def left(calls):
        found = (after_the_cut(calls, {place: b"old"}, {folder}, random.Random(seed)) for seed in range(40))
        return {tuple(sorted((str(p), c) for p, c in files.items() if c is not None)) for files in found}

    old, part_kept, new = (("/d/map", b"old"),), ("/d/part", b"new"), (("/d/map", b"new"),)
    assert left(calls) == {old, (*old, part_kept), new}
    assert left([*calls, Call(5, "fsync", (folder,))]) == {new}
    torn = left([one for one in calls if one.kind != "fsync"])
    assert (("/d/map", b""),) in torn, "a file that is named before its bytes are on disk can be empty"
