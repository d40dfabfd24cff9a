"""Each notebook of the examples runs from top to bottom with this Python, and is kept without its outputs."""

import json
import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import ROOT

# on Windows the client's library warns that it works around the event loop there
pytestmark = pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(name) -> the notebook with its outputs, run in `tmp_path` by a kernel of this very Python, on one thread."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    own = {"argv": command, "display_name": "own", "language": "python", "env": environment}
    spec = tmp_path / "kernels" / "own" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(own))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def execute(name):
        notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
        last = nbformat.v4.new_code_cell("import sys, adcdnet\nprint(sys.executable, adcdnet.__file__)")
        notebook.cells.append(last)
        folder = {"metadata": {"path": str(tmp_path)}}
        return NotebookClient(notebook, kernel_name="own", timeout=300, resources=folder).execute()

    return execute


def printed(notebook):
    return "".join(o.text for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "text" in o)


def figures(notebook):
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["chain_on_the_simulated_scene", "dia_and_dtm_in_your_network"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None), cell.source
        assert cell.metadata == {}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


def test_chain_on_the_simulated_scene(run, tmp_path):
    done = run("chain_on_the_simulated_scene")
    text = printed(done)
    assert "verdict: fine" in text
    assert float(re.search(r"^OA +(\d\.\d+) \[", text, re.MULTILINE)[1]) > 0.5  # chance is 1 / 9
    assert "Warning" not in text
    assert figures(done) == 3
    assert (tmp_path / "runs" / "notebook" / "map.tif").exists()
    assert sys.executable in text
    assert str(ROOT / "src") in text


def test_dia_and_dtm_in_your_network(run):
    done = run("dia_and_dtm_in_your_network")
    text = printed(done)
    assert "parameters of DIA: 59" in text
    reached = [float(value) for value in re.findall(r"head.*: +(0\.\d{3})$", text, re.MULTILINE)]
    assert len(reached) == 3
    assert min(reached) > 0.3  # chance is 0.1
    assert float(re.search(r"logits: (\S+)$", text, re.MULTILINE)[1]) < 1e-4
    rows = re.findall(r"^width (\d), depth (\d): share (\S+)%, changed (\S+)%$", text, re.MULTILINE)
    shares, changed = ({row[:2]: float(row[k]) for row in rows} for k in (2, 3))
    assert len(rows) == 6
    assert sum(shares.values()) == pytest.approx(200, abs=0.4)
    assert changed["4", "1"] > changed["1", "1"] + 1  # what its last words say
    assert "Warning" not in text
    assert figures(done) == 3
    assert sys.executable in text
