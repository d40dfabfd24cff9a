"""What files hold is printed as text: it neither steers the terminal nor colours anything."""

import io
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rich.console import Console

from adcdnet.cli import console
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster import UNPLACED
from adcdnet.geo.raster_writer import write_raster

STEERS = "\x1b[2Ja\x1b]0;title\x07\x9b31mb\x08\r\x00\u202ec\u2066"
CONTROLS = {c for c in STEERS if not c.isprintable()}


def test_notes_and_tables_show_what_steers_as_its_code(capsys):
    console.say([STEERS])
    console.print_table([("class", "n"), (STEERS, "1")])
    printed = "".join(capsys.readouterr())
    assert not CONTROLS & set(printed)
    assert printed.count("\\x1b[2Ja\\x1b]0;title\\x07\\x9b31mb") == 2


def test_letters_of_all_scripts_stay_as_they_are(capsys):
    names = ["水体 – 湖", "می\u200cخواهم", "forêt\tclaire", "👩\u200d🌾"]
    console.say(names)
    assert capsys.readouterr().err == "".join(f"note: {name}\n" for name in names).expandtabs(8)


def test_markup_in_a_note_is_text(capsys):
    console.say(["[red]fire[/red] [link=http://x]y[/link]"])
    assert capsys.readouterr().err == "note: [red]fire[/red] [link=http://x]y[/link]\n"


def test_a_note_is_one_line_whatever_a_file_is_called(capsys):
    console.say(["a\nadcdnet: all is well"])
    assert capsys.readouterr().err == "note: a\\nadcdnet: all is well\n"


def test_progress_bars_show_names_as_text(monkeypatch):
    """On a terminal: bars themselves move the cursor, and names must not."""
    shown = io.StringIO()
    screen = Console(file=shown, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(console, "err", screen)
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: True, raising=False)
    with console.progress_bars() as report:
        report("\x1b]0;t\x07[red]", 1, 2, {})
    assert "\\x1b]0;t\\x07[red]" in shown.getvalue()
    assert "\x1b]0" not in shown.getvalue()


@pytest.fixture
def hostile(tmp_path, write_tif):
    """A map whose class names steer, in a file whose name does, and labels of it."""
    values = np.ones((13, 11), np.uint8)
    values[5:] = 2
    labels = write_tif("labels.tif", values)
    path = tmp_path / "m\x1b[2J\x9b.tif"
    shutil.copy(labels, path)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASS_NAMES=json.dumps({"1": f"a{STEERS}", "2": "[red]b"}))
    return path, labels


def test_names_of_classes_and_files_never_reach_the_terminal_as_they_are(call, hostile, tmp_path):
    mapped, labels = hostile
    code, out, err = call("evaluate", "--map", mapped, "--labels", labels)
    assert code == 0, err
    assert "[red]b" in out
    _, more, error = call("sample", "--map", mapped, "--n", "4", "--out", tmp_path / "\x1b[31m.gpkg")
    _, none, missing = call("sample", "--map", f"{mapped}\x1b[2J", "--n", "4", "--out", tmp_path / "s.gpkg")
    assert "does not exist" in missing
    assert not CONTROLS & set(out + err + more + error + none + missing)


def test_nor_do_they_reach_the_files_beside_a_map(tmp_path):
    names = [f"a{STEERS}", "b"]
    grid = Grid(2, 3, UNPLACED, None)
    write_raster(
        tmp_path / "m.tif", np.ones((2, 3), np.uint8), grid, classes=ClassTable.numbered(names), descriptions=names[:1]
    )
    for name in ("m.tif.aux.xml", "m.qml"):
        content = (tmp_path / name).read_text("utf-8")
        assert not {"\x1b", "\x07", "\x9b", "\x00", "\x08"} & set(content)
        assert ElementTree.fromstring(content) is not None
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert "\x1b" not in dataset.descriptions[0]
