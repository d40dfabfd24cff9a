"""What a start of the command line loads: as little as the command needs, and no network for one that has none.

Each start is a process of its own, for what earlier tests have loaded stays loaded.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import adcdnet
from adcdnet.benchmark import cell, methods_by_name
from adcdnet.cli import choices
from adcdnet.config import MemberName, Profile, SplitConfig
from adcdnet.geo import alignment
from adcdnet.mapping import engine, memory
from adcdnet.nn.architecture import PatchArchitecture

HEAVY = ("matplotlib", "numpy", "rasterio", "rich.progress", "scipy", "sklearn", "torch")


def loaded_by(tmp_path: Path, *words: object, **environment: str) -> tuple[set[str], str]:
    """The modules that are loaded when a command line ends well, and what it printed."""
    told = tmp_path / "modules.json"
    code = (
        "import atexit, json, pathlib, sys\n"
        f"atexit.register(lambda: pathlib.Path({str(told)!r}).write_text(json.dumps(list(sys.modules))))\n"
        "sys.argv[0] = 'adcdnet'\n"
        "from adcdnet.cli import main\n"
        "main()\n"
    )
    call = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return set(json.loads(told.read_text())), done.stdout


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["benchmark", "--help"]])
def test_help_loads_nothing_heavy(tmp_path, words):
    modules, _ = loaded_by(tmp_path, *words)
    assert not modules & {*HEAVY, "adcdnet.config", "adcdnet.geo"}


@pytest.mark.parametrize(("line", "completed"), [("adcdnet ", "evaluate"), ("adcdnet predict --", "--sieve")])
def test_completion_loads_nothing_heavy(tmp_path, line, completed):
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    modules, said = loaded_by(tmp_path, _ADCDNET_COMPLETE="complete_bash", **asked)
    assert completed in said.split()
    assert not modules & {*HEAVY, "adcdnet.config", "adcdnet.geo"}


def test_commands_without_a_network_never_load_pytorch(tmp_path, labelled_pair, write_tif):
    pair = "--ms", labelled_pair.ms, "--pan", labelled_pair.pan
    map_ = write_tif("map.tif", labelled_pair.truth)
    for words in (
        ("scenes", labelled_pair.ms.parent, "--out", tmp_path / "scenes.toml"),
        ("check", *pair, "--labels", labelled_pair.labels),
        ("align", *pair, "--out", tmp_path / "aligned.tif"),
        ("evaluate", "--map", map_, "--labels", labelled_pair.labels),
        ("sample", "--map", map_, "--n", "20", "--out", tmp_path / "points.gpkg"),
    ):
        modules, _ = loaded_by(tmp_path, *words)
        assert "rasterio" in modules  # it did its work
        assert not modules & {"torch", "sklearn", "matplotlib", "rich.progress"}, words[0]


def test_choices_are_those_of_the_settings_and_of_the_api():
    assert choices.TargetGrid == get_type_hints(PatchArchitecture)["grid"]
    assert choices.SplitUnit == get_type_hints(SplitConfig)["unit"]
    assert choices.Profile == Profile
    assert choices.MemberName == MemberName
    assert choices.Engine == memory.Engine
    assert choices.Precision == engine.Precision
    assert choices.Resampled == alignment.Resampled
    assert choices.Protocol == cell.Protocol
    assert choices.NETWORKS.split(", ") == list(methods_by_name.NETWORKS)


def test_the_package_itself_loads_nothing():
    code = "import sys, adcdnet; print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    call = [sys.executable, "-S", "-c", code]  # -S: without what is installed for every start
    environment = {**os.environ, "PYTHONPATH": str(Path(adcdnet.__file__).parents[1])}
    said = subprocess.run(call, capture_output=True, text=True, check=True, env=environment).stdout
    assert set(said.split()) == {"__main__", "adcdnet"}


def test_the_folder_of_the_network_works_where_it_is_copied_to_and_loads_pytorch_alone(tmp_path):
    shutil.copytree(Path(adcdnet.__file__).parent / "nn", tmp_path / "elsewhere")
    code = """
import importlib, pathlib, sys, torch
before = set(sys.modules)
import elsewhere
for file in pathlib.Path(elsewhere.__file__).parent.glob("*.py"):
    importlib.import_module(f"elsewhere.{file.stem}")
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - sys.stdlib_module_names))
y = elsewhere.DeformableInteractiveAttention()(torch.zeros(1, 4, 5, 5))
print(tuple(y.shape))
"""
    environment = {**os.environ, "PYTHONPATH": ""}
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["elsewhere", "(1, 4, 5, 5)"]
