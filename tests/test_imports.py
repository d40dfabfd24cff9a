"""Who may import whom, over the syntax tree: rooms, their floors, and what each room may know of the world outside."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "adcdnet"
FILES = sorted(SOURCE.rglob("*.py"))
DESIGN = SOURCE.parents[1] / "docs" / "concepts" / "design.md"
MOST_ENTRIES, MOST_FLOORS, MOST_LINES = 19, 8, 400
MAY_IMPORT = {  # besides themselves, `errors` and `files`
    "errors": set(),
    "files": set(),
    "metrics": set(),
    "nn": set(),
    "config": {"nn.architecture"},
    "geo": set(),
    "acquire": {"geo"},
    "split": {"geo", "config"},
    "mapping": {"geo", "nn", "config"},
    "cluster": {"mapping", "geo"},
    "export": {"mapping", "nn", "geo"},
    "training": {"split", "mapping", "nn", "metrics", "config", "geo"},
    "assess": {"split", "geo", "metrics", "config"},
    "report": {"assess", "mapping", "training.provenance", "metrics", "split", "geo", "nn"},
    "benchmark": {"training", "assess", "mapping", "metrics", "split", "geo", "nn", "config"},
    "demo": {"training", "assess", "mapping", "metrics", "split", "geo", "nn", "config"},
}
ROOMS = set(MAY_IMPORT) | {"cli", "__init__"}
WITHOUT_TORCH = {"geo", "acquire", "split", "assess", "files", "errors", "config", "metrics"}
OPENS_RASTERS = {"geo.raster", "geo.raster_writer", "geo.image", "acquire.remote"}
ON_ARRAYS = {  # what others may use of rasterio: functions on arrays and grids, no files
    "acquire.choose": {"rasterio.features.rasterize"},
    "geo.maps": {"rasterio.features.sieve"},
    "geo.polygons": {"rasterio.features.rasterize", "rasterio.features.shapes"},
    "geo.alignment": {f"rasterio.{name}" for name in ("enums.Resampling", "errors.CRSError", "errors.RasterioError")}
    | {f"rasterio.warp.{name}" for name in ("reproject", "transform", "transform_bounds")},
}


def module(file: Path) -> str:
    """'geo.raster' for src/adcdnet/geo/raster.py; a room's own name for its __init__."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module(file): file for file in FILES}


def room(name: str) -> str:
    return name.split(".")[0]


def imported(text: str, package: str = "adcdnet") -> set[str]:
    """Full names of all that a source imports, inside functions and `if TYPE_CHECKING` too.

    package: the one the source lies in, for relative imports.
    """
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            beyond = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*beyond, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def imports_of(name: str) -> set[str]:
    file = MODULES[name]
    return imported(file.read_text(), ".".join(["adcdnet", *file.relative_to(SOURCE).parts[:-1]]))


def own(names: set[str]) -> set[str]:
    """The modules of this package that the names belong to."""
    found = set()
    for name in names:
        if not name.startswith("adcdnet."):
            continue
        inner = name.removeprefix("adcdnet.")
        while inner and inner not in MODULES:
            inner = inner.rpartition(".")[0]
        found.add(inner or "__init__")
    return found


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def complaints(name: str, names: set[str]) -> list[str]:
    """Imports by module `name` of rooms that its own may not know."""
    allowed = MAY_IMPORT.get(room(name), ROOMS) | {room(name), "errors", "files"}
    return [
        f"{name} imports {other}" for other in sorted(own(names)) if room(other) not in allowed and other not in allowed
    ]


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The longest way down from each node; CycleError (a ValueError) where there is a circle."""
    floor: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        floor[node] = 1 + max((floor[below] for below in graph.get(node, ())), default=-1)
    return floor


def room_graph() -> dict[str, set[str]]:
    """Rooms and the rooms they import; one file of a room that others may import alone stands for itself."""
    single = {one for allowed in MAY_IMPORT.values() for one in allowed if "." in one}
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        here = name if name in single else room(name)
        others = {other if other in single else room(other) for other in own(imports_of(name))}
        graph.setdefault(here, set()).update(others - {here})
    return graph


def test_the_tree_is_small():
    entries = sorted(path.name for path in SOURCE.iterdir() if path.name != "__pycache__")
    assert len(entries) <= MOST_ENTRIES, entries
    assert {room(name) for name in MODULES} == ROOMS


def test_rooms_stand_on_few_floors_without_a_circle():
    found = floors(room_graph())
    assert max(found.values()) < MOST_FLOORS, found


def test_the_drawing_of_the_floors_is_true():
    drawn = {}
    for line in DESIGN.read_text(encoding="utf-8").splitlines():
        row = re.fullmatch(r"\| (\d) \| (.*) \|", line)
        if row:
            names = [name.replace("/", ".") for name in re.findall(r"`([^`]+)`", row[2])]
            drawn |= dict.fromkeys((name.replace("adcdnet", "__init__") for name in names), int(row[1]))
    assert drawn == floors(room_graph())


def test_files_import_each_other_without_a_circle():
    floors({name: own(imports_of(name)) - {name} for name in MODULES})


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_only_rooms_below_it(name):
    assert complaints(name, imports_of(name)) == []


@pytest.mark.parametrize("name", MODULES)
def test_files_are_short(name):
    assert len(MODULES[name].read_text().splitlines()) <= MOST_LINES


def test_the_checks_find_what_they_are_meant_to_find():
    assert complaints("geo.scene", imported("def f():\n    from adcdnet.split.parts import Split")) != []
    assert complaints("report.write", imported("from adcdnet.training.run import train")) != []
    assert complaints("report.write", imported("from adcdnet.training.provenance import read")) == []
    assert complaints("config", imported("from adcdnet.nn.adcdnet import ADCDNet")) != []
    assert complaints("cli.train", imported("from adcdnet.training.run import train")) == []
    assert own(imported("from .scan import selective_scan", "adcdnet.nn")) == {"nn.scan"}
    with pytest.raises(ValueError, match="cycle"):
        floors({"a": {"b"}, "b": {"a"}})
    assert floors({"a": {"b", "c"}, "b": {"c"}}) == {"c": 0, "b": 1, "a": 2}


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) == "nn"])
def test_the_modules_of_the_method_need_pytorch_alone(name):
    names = imports_of(name)
    assert packages(names) <= {"__future__", "adcdnet", "collections", "dataclasses", "functools", "importlib"} | {
        "math",
        "torch",
        "typing",
    }
    assert "from adcdnet" not in MODULES[name].read_text(), "relative imports, so that the folder works elsewhere"


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in WITHOUT_TORCH])
def test_rooms_that_can_do_without_the_network_do(name):
    assert "torch" not in packages(imports_of(name))


def test_few_files_open_rasters():
    for name in set(MODULES) - OPENS_RASTERS:
        used = {full for full in imports_of(name) if full.split(".")[0] in ("rasterio", "osgeo")}
        assert used <= ON_ARRAYS.get(name, set()), name


def test_nothing_is_unpickled():
    for name, file in MODULES.items():
        assert not packages(imports_of(name)) & {"pickle", "dill", "joblib", "shelve", "marshal"}, name
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)}
        assert not calls & {"torch.load", "torch.save", "eval", "exec"}, name
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                allowed = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}.get("allow_pickle")
                assert allowed == "False", f"{name} loads arrays without allow_pickle=False"
