"""How tests reach QGIS: scripts of this folder, run by QGIS's own Python in a profile of their own."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

PYTHON = Path("/usr/bin/python3")  # the one that Debian's QGIS comes with
HERE = Path(__file__).parent


@functools.cache
def why_not() -> str | None:
    """Why QGIS cannot be had; None where it can."""
    if not PYTHON.exists():
        return f"there is no {PYTHON}"
    code = "import sys; sys.path.append('/usr/share/qgis/python/plugins'); import qgis.core, processing"
    done = subprocess.run(
        [PYTHON, "-c", code], capture_output=True, text=True, check=False, env=variables(Path("/tmp"))
    )
    return None if done.returncode == 0 else "no QGIS here; install it, e.g. with apt-get install qgis python3-qgis"


def variables(home: Path) -> dict[str, str]:
    """For QGIS, without a screen: neither the paths of these tests nor anybody's settings."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "QT_QPA_PLATFORM": "offscreen",
        "OMP_NUM_THREADS": "1",
    }


def require_qgis() -> None:
    if (why := why_not()) is not None:
        pytest.skip(why)


def write_program(path: Path, *words: str | Path) -> Path:
    """A program that runs these words and its arguments. PYTHONPATH is set in it, for QGIS's children inherit none."""
    inner = " ".join(f"'{word}'" for word in words)
    path.write_text(f'#!/bin/sh\nexport PYTHONPATH="{ROOT / "src"}"\nexec {inner} "$@"\n')
    path.chmod(0o755)
    return path


def write_adcdnet(path: Path) -> Path:
    """The program adcdnet of these sources."""
    return write_program(path, sys.executable, "-m", "adcdnet.cli")


def drive(script: str, home: Path, *arguments: object, seconds: int = 200) -> dict:
    """What a script of this folder says at its end."""
    require_qgis()
    words = [PYTHON, HERE / script, home / "profile", ROOT / "qgis_plugin", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, env=variables(home), check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
