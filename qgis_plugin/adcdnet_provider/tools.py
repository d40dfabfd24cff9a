"""Which commands of adcdnet are algorithms, and by which of QGIS's widgets their options are given.

Help, kinds and defaults of options come from commands.json, which is written from the command line itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMANDS: dict[str, Any] = json.loads(Path(__file__).with_name("commands.json").read_text("utf-8"))


@dataclass(frozen=True)
class Tool:
    """An algorithm. shown: options in the order of the dialog; others stand under Advanced, unless left out.

    needs: options that the command line leaves open, for it has other ways to be used. outputs: what is written, as
    'raster', 'vector', 'folder' or the ending of a file.
    """

    name: str
    command: str
    title: str
    shown: str
    outputs: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    left_out: str = ""
    takes_extent: bool = False

    @property
    def help(self) -> list[str]:
        """Paragraphs."""
        return COMMANDS[self.command]["help"]

    def options(self) -> dict[str, dict[str, Any]]:
        """Options as commands.json describes them: first those shown, in their order."""
        known = COMMANDS[self.command]["options"]
        first = self.shown.split()
        left_out = {"layer", *self.left_out.split()}  # the layer comes with the labels
        return {name: known[name] for name in [*first, *(n for n in known if n not in first and n not in left_out)]}


TOOLS = (
    Tool(
        "check",
        "check",
        "1 Check images",
        "ms ms_bands pan pan_bands labels column classes mask",
        {"json_path": "json"},
        needs="ms pan",
        left_out="run scene out",
    ),
    Tool("align", "align", "2 Align images", "ms pan resample shift out", {"out": "raster"}),
    Tool(
        "train",
        "train",
        "3 Train",
        "ms ms_bands pan pan_bands labels column classes mask profile quick resume out",
        {"out": "folder"},
        needs="ms pan",
        left_out="scenes",
    ),
    Tool(
        "map",
        "predict",
        "4 Map",
        "model ms pan mask resume out probabilities trust",
        {"out": "raster", "probabilities": "raster", "trust": "raster"},
        needs="ms pan",
        left_out="scenes",
        takes_extent=True,
    ),
    Tool("sample", "sample", "5 Draw a sample", "map_path n for_error of out", {"out": "vector", "ceo": "csv"}),
    Tool("judge", "evaluate", "6 Judge accuracy", "map_path labels column classes", {"json_path": "json"}),
    Tool("report", "report", "7 Report", "run map_path probabilities sample out", {"out": "html"}),
    Tool("suggest", "suggest", "8 Suggest what to label next", "run n side out", {"out": "vector"}),
    Tool(
        "suspects",
        "check",
        "9 Find labels that are likely wrong",
        "run scene out",
        {"out": "vector", "json_path": "json"},
        needs="run out",
        left_out="ms ms_bands pan pan_bands labels column classes mask mask_values mask_bits min_share",
    ),
    Tool("demo", "demo", "Demo on a simulated scene", "out size ratio seed", {"out": "folder"}),
)

RASTERS = {"ms", "pan", "mask", "map_path", "probabilities", "split_raster", "split"}
FOLDERS = {"run", "model", "init"}
SAMPLES = {"after", "sample"}  # files of `adcdnet sample`, which a copy would spoil
FILES = {"classes": "csv", "config": "toml", "expected": "json"}
TITLES = {
    "ms": "MS image",
    "pan": "PAN image",
    "ms_bands": "MS bands",
    "pan_bands": "PAN bands",
    "labels": "Labels (polygons or points)",
    "column": "Field with the class",
    "classes": "Class table",
    "run": "Run",
    "model": "Run",
    "map_path": "Map",
    "n": "Number",
    "for_error": "Standard error",
    "of": "Class whose area is meant",
    "init": "Run to begin from",
    "sample": "Sample that is filled in",
    "after": "First points, filled in",
    "quick": "Quick, a first look",
    "resume": "Resume what was stopped",
    "json_path": "Figures (JSON)",
    "ceo": "Points for Collect Earth Online",
}
OUT_TITLES = {
    "align": "Copy on a grid that fits",
    "train": "Run",
    "map": "Map",
    "sample": "Points",
    "report": "Report",
    "suggest": "Places",
    "suspects": "Labels to look at",
    "demo": "Folder",
}


def title_of(tool: Tool, option: str) -> str:
    if option == "out":
        return OUT_TITLES[tool.name]
    return TITLES.get(option) or option.replace("_", " ").capitalize()
