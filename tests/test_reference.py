"""The reference is what the code says: both written pages, the public names, and every link and path in words."""

import ast
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import typer
from pydantic import BaseModel, Field

import adcdnet
import adcdnet.nn
from adcdnet.cli import app

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import plan_country
import write_reference

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WORDS = [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "scripts").glob("*.*")]
SOURCES = [file for folder in ("src", "tests", "scripts", "examples") for file in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("path", write_reference.pages(), ids=lambda path: path.name)
def test_pages_are_what_the_script_would_write(path):
    assert path.read_text("utf-8") == write_reference.pages()[path], "run scripts/write_reference.py"


def test_every_setting_and_option_says_what_it_means():
    for text in write_reference.pages().values():
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert len(rows) > 50
        assert [row for row in rows if row.endswith("|  |")] == []


def test_a_setting_from_a_comment_behind_or_above_it():
    @dataclass
    class Record:
        behind: int = 1  # width, in pixels
        # above,
        # on two lines
        above: float = 2.0
        bare: str = ""

    assert write_reference._comments(Record) == {
        "behind": "width, in pixels",
        "above": "above, on two lines",
        "bare": "",
    }


class Inner(BaseModel):
    rate: float = Field(0.5, gt=0, le=1)  # a share


@dataclass(frozen=True)
class Shape:
    """Of a network."""

    widths: tuple[int, int] = (3, 5)  # of two depths


@dataclass(frozen=True)
class Round:
    """One of two that may stand in one place."""

    form: Literal["round"] = "round"
    radius: int = 2  # of it


@dataclass(frozen=True)
class Square:
    form: Literal["square"] = "square"
    side: float = 1.5  # of it


class Outer(BaseModel):
    kind: Literal["a", "b"] = "a"  # which
    shape: Shape = Shape()
    first: Inner = Inner()
    second: Inner = Inner(rate=0.25)
    outline: Round | Square = Round()


def test_settings_in_nested_records_of_both_kinds():
    instances = {"one": Outer(), "other": Outer(outline=Square())}
    found = [(s.path, s.kind, s.values, s.meaning) for s in write_reference._settings(Outer, instances, ())]
    form = write_reference.WORDS["form"]
    assert found == [
        (("kind",), '`"a"` or `"b"`', {"one": "a", "other": "a"}, "which"),
        (("shape", "widths"), "2 × whole number", {"one": (3, 5), "other": (3, 5)}, write_reference.WORDS["widths"]),
        (("first", "rate"), "number, above 0, at most 1", {"one": 0.5, "other": 0.5}, "a share"),
        (("second", "rate"), "number, above 0, at most 1", {"one": 0.25, "other": 0.25}, "a share"),
        (("outline:round", "form"), '`"round"`', {"one": "round"}, form),
        (("outline:round", "radius"), "whole number", {"one": 2}, "of it"),
        (("outline:square", "form"), '`"square"`', {"other": "square"}, form),
        (("outline:square", "side"), "number", {"other": 1.5}, "of it"),
    ]


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    names = [f"adcdnet.{name}" for name in adcdnet.__all__] + [f"adcdnet.nn.{name}" for name in adcdnet.nn.__all__]
    assert [name for name in names if f"::: {name}\n" not in text] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_the_site_shows_every_page():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert {page.relative_to(ROOT / "docs").as_posix() for page in PAGES} == set(re.findall(r"[\w/-]+\.md\b", text))


def test_files_that_are_named_are_there():
    named = re.compile(r"(?<![\w/.-])((?:docs|scripts|tests|examples|src/adcdnet)/[\w./-]*\.(?:md|py|csv|png))\b")
    lost = {
        f"{file.relative_to(ROOT)}: {path}"
        for file in {*WORDS, *SOURCES}
        if file.is_file() and file.suffix in (".md", ".py")
        for path in named.findall(file.read_text("utf-8"))
        if not (ROOT / path).exists() and "/RUN." not in path
    }
    assert lost == set()


def literals(tree: ast.AST) -> str:
    """All strings of a module, one a line, … in the place of what they are filled with."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return "\n".join(found)


def test_messages_that_are_explained_are_those_of_the_code():
    said = "\n".join(literals(ast.parse(file.read_text("utf-8"))) for file in (ROOT / "src").rglob("*.py"))
    text = (ROOT / "docs" / "reference" / "troubleshooting.md").read_text("utf-8")
    first = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    messages = [message for cell in first for message in re.findall("`([^`]+)`", cell)]
    assert len(messages) > 50
    lost = [m for m in messages for part in m.split("…") if part.strip() and part.strip() not in said]
    assert lost == []


def commands_in(text: str) -> list[str]:
    """Lines of code blocks that call the command line, without comments; several lines joined by \\."""
    text = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^(?: {4})?(adcdnet [a-z].*)$", text, re.MULTILINE)
    return [
        line.split(" #")[0].strip() for line in lines if not any(mark in line for mark in ("|", "…", "`", "[OPTIONS]"))
    ]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_code_blocks_have_these_options(page):
    group = typer.main.get_command(app)
    context = group.make_context("adcdnet", [], resilient_parsing=True)
    for line in commands_in(page.read_text("utf-8")):
        _, name, *words = shlex.split(line)
        if name in group.list_commands(context):  # a sentence may begin with the package's name
            group.get_command(context, name).make_context(name, words)


def test_commands_are_found_in_code_blocks():
    block = "```sh\nadcdnet predict a --ms b \\\n  --pan c   # a comment\n```\n"
    text = f"{block}\n    adcdnet check --ms d\n\n`adcdnet x` is none."
    assert commands_in(text) == ["adcdnet predict a --ms b --pan c", "adcdnet check --ms d"]


def test_the_plan_of_a_country_is_what_its_script_prints():
    page = (ROOT / "docs" / "how-to" / "plan-a-country.md").read_text("utf-8")
    assert f"\n\n{plan_country.table(0.05)}\n\n" in page
