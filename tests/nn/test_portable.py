"""The folder works where it is copied to, its syntax is that of Python 3.9, and so is what the public modules call.

`portable.py` beside this file was run by Python 3.9 with PyTorch 2.1 too. Whole networks need Python 3.10.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adcdnet.nn

FOLDER = Path(adcdnet.nn.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
PUBLIC = [FOLDER / f"{name}.py" for name in ("__init__", "dia", "dtm", "mamba")] + sorted(FOLDER.glob("scan/*.py"))


def too_new(text: str) -> list[str]:
    """What Python 3.9 would stumble over, though a newer one parses it."""
    try:
        tree = ast.parse(text, feature_version=(3, 9))
    except SyntaxError as error:
        return [str(error)]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and any(isinstance(n, ast.Starred) for n in getattr(node.slice, "elts", ())):
            found.append(f"line {node.lineno}: a star in an index")
        if isinstance(node, ast.Match | ast.TryStar):
            found.append(f"line {node.lineno}: {type(node).__name__}")
        of_types = node.value if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            of_types = node.args[1]
        if isinstance(of_types, ast.BinOp) and isinstance(of_types.op, ast.BitOr):
            names = [ast.unparse(side).split(".")[-1] for side in (of_types.left, of_types.right)]
            if any(name[0].isupper() or name in ("int", "float", "None") for name in names):
                found.append(f"line {node.lineno}: a union of types outside annotations")
    annotated = any(getattr(node, "annotation", None) or getattr(node, "returns", None) for node in ast.walk(tree))
    if annotated and "from __future__ import annotations" not in text:
        found.append("annotations that are evaluated")
    return found


def arguments_too_new(text: str) -> list[str]:
    """Arguments of the standard library that Python 3.9 does not know."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    named = {(ast.unparse(call.func), keyword.arg) for call in calls for keyword in call.keywords}
    return sorted(f"{name}({argument}=)" for name, argument in named & {("zip", "strict"), ("dataclass", "kw_only")})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_syntax_is_that_of_python_3_9(file):
    assert too_new(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", PUBLIC, ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_public_modules_call_nothing_newer_than_python_3_9(file):
    assert arguments_too_new(file.read_text(encoding="utf-8")) == []


def test_public_names_come_from_these_files():
    found = {Path(sys.modules[getattr(adcdnet.nn, name).__module__].__file__) for name in adcdnet.nn.__all__}
    assert found <= set(PUBLIC)
    assert len(found) == 4
    assert arguments_too_new("zip(a, b, strict=True)\n@dataclass(kw_only=True)\nclass A: ...") == [
        "dataclass(kw_only=)",
        "zip(strict=)",
    ]


@pytest.mark.parametrize(
    "text",
    ["match 1:\n    case 1: pass", "x = A | B", "isinstance(x, int | float)", "y = x[*z, 1]", "def f(x: int): ..."],
)
def test_newer_syntax_is_found(text):
    assert len(too_new(text)) == 1


def test_a_copy_works_without_the_package(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys, torch, copied\n"
        "from copied.adcdnet import ADCDNet\n"
        "from copied.architecture import PatchArchitecture, Layout\n"
        "network = ADCDNet(PatchArchitecture(), Layout(ms_bands=3, pan_bands=1, ratio=2, classes=4)).eval()\n"
        "side = network.config.size\n"
        "print(network(torch.zeros(1, 3, side, side), torch.zeros(1, 1, 2 * side, 2 * side)).main.shape)\n"
        "assert not any(name.startswith('adcdnet') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("torch.Size")) == (0, 1), done.stderr
    script = Path(__file__).with_name("portable.py")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stdout.endswith(": passed\n"), done.stderr
