"""The QGIS plugin as files: what its metadata must say, what must not be in it, and that it knows the command line."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "qgis_plugin"))
import build_qgis_plugin
import write_qgis_commands
from adcdnet_provider import tools

PLUGIN = ROOT / "qgis_plugin" / "adcdnet_provider"
SOURCES = sorted(PLUGIN.glob("*.py"))
NEEDED = ("name", "qgisMinimumVersion", "description", "about", "version", "author", "email", "repository", "tracker")
MAY_IMPORT = {  # QGIS and what always comes with it; of Python nothing that reaches a network
    *(
        "__future__",
        "collections",
        "dataclasses",
        "html",
        "json",
        "os",
        "pathlib",
        "queue",
        "re",
        "shlex",
        "shutil",
        "signal",
    ),
    *("struct", "subprocess", "sys", "threading", "time", "typing"),
    *("osgeo", "processing", "qgis"),
}


def test_commands_are_those_of_the_command_line():
    text = write_qgis_commands.FILE.read_text("utf-8")
    assert text == write_qgis_commands.content(), "run scripts/write_qgis_commands.py"


def test_metadata_has_the_fields_that_qgis_and_its_list_of_plugins_need():
    metadata = build_qgis_plugin.metadata()
    assert [name for name in NEEDED if not metadata.get(name)] == []
    assert metadata["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert metadata["qgisMinimumVersion"] == "3.22"
    assert metadata["hasProcessingProvider"] == "yes"
    assert (PLUGIN / metadata["icon"]).is_file()
    assert "<" not in metadata["about"] + metadata["description"]  # no HTML


def test_the_archive_is_one_folder_of_text_with_the_licence(tmp_path):
    build_qgis_plugin.build(tmp_path / "a.zip")
    build_qgis_plugin.build(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        for name in names:
            archive.read(name).decode("utf-8")
    assert {name.split("/")[0] for name in names} == {"adcdnet_provider"}
    assert {Path(name).suffix for name in names} == {".py", ".json", ".svg", ".txt", ""}
    assert {"adcdnet_provider/LICENSE", "adcdnet_provider/metadata.txt"} <= set(names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_are_for_the_python_of_qgis_and_import_nothing_else(path):
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add(str(node.module).split(".")[0])
            assert "QtNetwork" not in str(node.module)
    assert roots <= MAY_IMPORT
    assert "QgsNetwork" not in path.read_text("utf-8")
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_nothing_in_it_names_an_address_but_its_metadata():
    for path in SOURCES:
        assert "://" not in path.read_text("utf-8"), path.name
    svg = (PLUGIN / "icon.svg").read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search("https?:|<script|href", svg)


@pytest.mark.parametrize("tool", tools.TOOLS, ids=lambda tool: tool.name)
def test_options_of_a_tool_are_options_of_its_command(tool):
    known = set(tools.COMMANDS[tool.command]["options"])
    named = {*tool.shown.split(), *tool.left_out.split(), *tool.outputs, *tool.needs.split()}
    assert named <= known
    files = {name for name, option in tool.options().items() if option["kind"] == "file"}
    assert files <= tools.RASTERS | tools.FOLDERS | tools.SAMPLES | set(tools.FILES) | {"labels", *tool.outputs}
    assert "out" not in tool.options() or tool.name in tools.OUT_TITLES
