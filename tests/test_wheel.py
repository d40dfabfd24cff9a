"""The wheel holds what the source tree holds, data of the package included, and nothing else."""

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT

SOURCE = ROOT / "src" / "adcdnet"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the repository; with the setuptools that is installed here."""
    copy = tmp_path_factory.mktemp("wheel") / "source"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(built) as content:
        yield content


def test_it_holds_every_file_of_the_source_tree_and_no_other(wheel):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    here = {path.relative_to(ROOT / "src").as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    assert packed == {name for name in here if "__pycache__" not in name}


DATA = [
    "py.typed",
    "config/paper.toml",
    "acquire/catalogues.toml",
    "report/template.html",
    "report/style.css",
    "report/viewer.js",
]


@pytest.mark.parametrize("name", DATA)
def test_data_of_the_package_arrives_unchanged(wheel, name):
    assert wheel.read(f"adcdnet/{name}") == (SOURCE / name).read_bytes()


def test_its_metadata_name_command_licence_and_pythons(wheel):
    (folder,) = {Path(name).parts[0] for name in wheel.namelist() if ".dist-info/" in name}
    known = email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert folder == f"adcdnet-{known['Version']}.dist-info"
    assert known["License-Expression"] == "Apache-2.0"
    assert known["Requires-Python"].replace(" ", "") == "<3.14,>=3.11"
    assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "adcdnet = adcdnet.cli:main" in wheel.read(f"{folder}/entry_points.txt").decode()
