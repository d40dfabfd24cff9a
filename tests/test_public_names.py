"""The names of `import adcdnet as ad`: always what they say, and imported no sooner than they are asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import adcdnet as ad


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_network_parts_do_without_raster_libraries_and_settings():
    heavy = ("rasterio", "geopandas", "pyogrio", "pydantic", "matplotlib", "sklearn")
    code = f"import sys, adcdnet.nn; print([name for name in {heavy} if name in sys.modules])"
    assert in_a_fresh_process(code) == "[]"


def test_every_name_is_what_type_checkers_take_it_for():
    tree = ast.parse(Path(ad.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    sources = {
        alias.name: node.module
        for statement in typed.body
        for node in ast.walk(statement)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("adcdnet.")
        for alias in node.names
    }
    assert sorted(sources) == ad.__all__
    for name, module in sources.items():
        assert getattr(ad, name) is getattr(importlib.import_module(module), name)
    assert set(ad.__all__) <= set(dir(ad))


def test_no_file_takes_the_place_of_a_name():  # which importing it would
    assert not set(ad.__all__) & {path.stem for path in Path(ad.__file__).parent.iterdir()}


def test_functions_asked_for_first_and_after_all_files():
    names = ["evaluate", "predict", "simulate", "train"]
    kinds = f"print([type(getattr(ad, name)).__name__ for name in {names}])"
    found = in_a_fresh_process(f"import adcdnet as ad; {kinds}; import adcdnet.cli; {kinds}")
    assert found.splitlines() == [str(["function"] * 4)] * 2


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'adcdnet' has no attribute 'nonsense'"):
        _ = ad.nonsense
