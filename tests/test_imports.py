"""Who may import whom, over the syntax tree: a file imports only rows above its own."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "adcdnet"
ROWS = [
    {"areas", "errors", "classes", "config", "grid", "ground"}
    | {"bands", "memory", "metrics", "owner", "posterior", "qgis", "register", "simulate", "smoothing"},
    {"raster", "local_shares"},
    {"images", "figures"},
    {"nn", "scene", "report", "intervals"},
    {"alignment", "model", "labels"},
    {"checkpoint", "sampling", "budget", "sample", "scenes"},
    {"journal", "inputs", "folds", "joined", "splits", "transfer"},
    {"material"},
    {"training", "inference", "baselines", "evaluation", "acquire", "checking"},
    {"demo", "cells", "claims", "explain", "cluster", "export"},
    {"page", "benchmark"},
    {"cli", "__init__"},
]
FOUNDATION = {"errors", "classes", "grid"}  # the files of row 0 that others of row 0 may import
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
WARPING = {f"rasterio.{name}" for name in ("enums.Resampling", "errors.CRSError", "errors.RasterioError")} | {
    f"rasterio.warp.{name}" for name in ("reproject", "transform", "transform_bounds")
}
FILES = sorted(SOURCE.rglob("*.py"))


def unit(file: Path) -> str:
    """The row's name for a file: that of its folder inside the package, or its own."""
    first = file.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported(text: str) -> set[str]:
    """Full names of all that a source imports, inside functions and `if TYPE_CHECKING` too."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the row they reach"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    """Which files of this package the names belong to."""
    return {name.split(".")[1] for name in names if name.startswith("adcdnet.")}


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def complaints(file: str, text: str) -> list[str]:
    """Imports of `file` that break the order of the rows."""
    found = []
    for other in sorted(own(imported(text)) - {file}):
        above = ROW_OF[other] < ROW_OF[file] or (ROW_OF[file] == 0 and other in FOUNDATION)
        if not above:
            found.append(f"{file} (row {ROW_OF[file]}) imports {other} (row {ROW_OF[other]})")
    return found


def test_every_file_has_a_row():
    missing = {unit(file) for file in FILES} - set(ROW_OF)
    assert not missing, f"place {sorted(missing)} in ROWS"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_imports_only_rows_above_its_own(file):
    assert complaints(unit(file), file.read_text()) == []


def test_the_check_finds_what_it_is_meant_to_find():
    assert complaints("inference", "def f():\n    from adcdnet.training import train") != []  # same row
    assert complaints("scene", "import adcdnet.sampling") != []  # a row below
    assert complaints("bands", "from adcdnet.metrics import scores") != []  # row 0, but no foundation
    assert complaints("grid", "from adcdnet.errors import InputError") == []
    assert complaints("cli", "from adcdnet.demo import run_demo") == []


@pytest.mark.parametrize("file", sorted((SOURCE / "nn").glob("*.py")), ids=lambda file: file.name)
def test_the_modules_of_the_method_need_pytorch_alone(file):
    names = imported(file.read_text())
    assert own(names) <= {"nn"}
    allowed = {"__future__", "adcdnet", "collections", "dataclasses", "math", "numpy", "torch", "typing"}
    assert packages(names) <= allowed


@pytest.mark.parametrize(
    "name", ["bands", "classes", "config", "grid", "memory", "metrics", "simulate", "report", "labels"]
)
def test_files_that_can_do_without_the_network_do(name):
    assert "torch" not in packages(imported((SOURCE / f"{name}.py").read_text()))


def test_only_two_files_open_rasters():
    for file in FILES:
        used = {name for name in imported(file.read_text()) if name.split(".")[0] in ("rasterio", "osgeo")}
        on_arrays = {"labels": {"rasterio.features.rasterize"}, "alignment": WARPING}
        assert unit(file) in ("raster", "images") or used <= on_arrays.get(unit(file), set()), file.name


def test_nothing_is_unpickled():
    for file in FILES:
        text = file.read_text()
        assert not packages(imported(text)) & {"pickle", "dill", "joblib", "shelve", "marshal"}, file.name
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
        assert not calls & {"torch.load", "torch.save", "eval", "exec"}, file.name
