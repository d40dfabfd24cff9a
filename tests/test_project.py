"""What the files of the project say of it agrees with it: versions, dates, rooms, make targets, hooks."""

import re
import subprocess
import tomllib
from datetime import date
from pathlib import Path

import pytest

from conftest import ROOT
from test_imports import MAY_IMPORT, ROOMS

TEXTS = {path.name: path.read_text("utf-8") for path in ROOT.glob("*") if path.suffix in (".md", ".cff", ".toml")}
CONTRIBUTING = TEXTS["CONTRIBUTING.md"]
VERSION = tomllib.loads(TEXTS["pyproject.toml"])["project"]["version"]
RELEASES = re.findall(r"^## (\d+\.\d+\.\d+)(?: \((.+)\))?$", TEXTS["CHANGELOG.md"], re.MULTILINE)
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
WORKFLOWS = {path.name: path.read_text("utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")}


def test_the_newest_release_is_the_version_everywhere():
    newest, when = RELEASES[0]
    citation = dict(re.findall(r"^(version|date-released): (\S+)$", TEXTS["CITATION.cff"], re.MULTILINE))
    assert newest == VERSION
    assert citation == {"version": VERSION, "date-released": when}
    assert date.fromisoformat(when)


def test_the_changelog_begins_with_what_is_not_released():
    headings = re.findall(r"^## (\S+)", TEXTS["CHANGELOG.md"], re.MULTILINE)
    assert headings == ["Unreleased", *(version for version, _ in RELEASES)]


def test_contributing_names_every_room():
    folders = {name for name in ROOMS if (ROOT / "src" / "adcdnet" / name).is_dir()}
    assert set(re.findall(r"^\| `(\w+)` \|", CONTRIBUTING, re.MULTILINE)) == folders
    files = re.search(r"single files: (.+)\.$", CONTRIBUTING, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", files[1])) == set(MAY_IMPORT) - folders


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
def test_make_targets_that_are_named_are_there(name):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", TEXTS[name], re.MULTILINE))
    assert named
    assert named <= targets
    assert targets <= set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())


def test_links_between_the_files_lead_somewhere():
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", TEXTS[name]):
            assert target.startswith("https://") or (ROOT / target).exists(), (name, target)


def test_hooks_are_the_tools_of_make_check_and_download_nothing():
    assert re.findall(r"repo: (\S+)", HOOKS) == ["local"]
    assert re.findall(r"language: (\S+)", HOOKS) == ["system"] * 3
    makefile = (ROOT / "Makefile").read_text("utf-8")
    check = makefile[makefile.index("\ncheck:") : makefile.index("\nformat:")]
    tools = re.findall(r"\$\(BIN\)/(ruff \w+|mypy)", check)
    assert [re.match(r"ruff \w+|mypy", entry)[0] for entry in re.findall(r"entry: (.+)", HOOKS)] == tools


def test_workflows_test_every_supported_python_on_every_system():
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", TEXTS["pyproject.toml"])
    listed = re.search(r"python: \[(.+)\]", WORKFLOWS["test.yml"])[1]
    assert re.findall(r'"(.+?)"', listed) == pythons
    assert "os: [ubuntu-latest, macos-latest, windows-latest]" in WORKFLOWS["test.yml"]


def test_workflows_may_only_read_and_name_no_address():
    for name, text in WORKFLOWS.items():
        assert "\npermissions:\n  contents: read\n" in text, name
        assert "://" not in text, name


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_file_names_where_packages_come_from():
    """Which index pip asks is for each machine to say; a name in a file would outlive it."""
    index = re.compile(r"https?://[^\s\"')]*\b(simple|whl)(/|\b)|(?:--extra)?-index-url[ =]http", re.IGNORECASE)
    for path in tracked():
        if path.suffix in (".md", ".toml", ".txt", ".yml", ".yaml", ".py", ".ipynb", ".cfg", "") and path.is_file():
            assert not index.search(path.read_text("utf-8", errors="replace")), path
