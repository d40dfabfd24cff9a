"""The help of every command ends with an example, and its example parses."""

import re
import shlex

import pytest
import typer

from adcdnet.cli import app

COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_parses(name, monkeypatch):
    command = COMMANDS[name]
    last = command.help.strip().splitlines()[-1]
    example = re.fullmatch(rf"Example: adcdnet {name}( .+)?", last)
    assert example, last
    command.make_context(name, shlex.split(example[1] or ""), resilient_parsing=False)


def test_an_option_that_does_not_exist_is_seen():
    with pytest.raises(Exception, match="No such option: --sceens"):
        COMMANDS["train"].make_context("train", ["--sceens", "x"])
