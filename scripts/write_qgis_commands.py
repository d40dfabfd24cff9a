"""What the QGIS plugin knows of the command line: help, options, kinds and defaults, as its own parser has them.

    python scripts/write_qgis_commands.py    # writes qgis_plugin/adcdnet_provider/commands.json

The plugin makes its parameters from this file, so that they say what `--help` says.
tests/qgis/test_plugin_files.py holds the file to this script.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from write_reference import Option, _paragraphs, options_of

from adcdnet.cli import app

FILE = Path(__file__).parents[1] / "qgis_plugin" / "adcdnet_provider" / "commands.json"
KINDS = {bool: "flag", int: "whole", float: "number", Path: "file", str: "text"}


def content() -> str:
    """JSON: of each command its help, in paragraphs, and its options by name."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("adcdnet", [], resilient_parsing=True)
    commands = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        options = {option.name: _described(option) for option in options_of(command)}
        commands[name] = {"help": _paragraphs(command), "options": options}
    return json.dumps(commands, indent=1, ensure_ascii=False) + "\n"


def _described(option: Option) -> dict[str, Any]:
    """spelled: what stands before the value, nothing of an argument; off: the spelling that turns a flag off."""
    several = get_origin(option.kind) is list
    kind = get_args(option.kind)[0] if several else option.kind
    spelled, _, off = option.spelling.replace("`", "").partition(" / ")
    default = None if option.required or option.default is None else option.default
    described = {
        "help": " ".join((option.info.help or "").split()),
        "kind": "choice" if get_origin(kind) is Literal else KINDS[kind],
        "spelled": "" if option.is_argument else spelled,
        "off": off,
        "needed": option.required,
        "default": str(default) if isinstance(default, Path) else default,
        "min": getattr(option.info, "min", None),
        "max": getattr(option.info, "max", None),
        "choices": list(get_args(kind)) if get_origin(kind) is Literal else None,
    }
    return {key: value for key, value in described.items() if value is not None and value != "" and value is not False}


if __name__ == "__main__":
    FILE.write_text(content(), encoding="utf-8")
