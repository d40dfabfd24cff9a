"""The style file beside a class map: QGIS takes names and colours of the classes from map.qml when it opens map.tif.

What is written are the elements that QGIS reads of a paletted renderer (QgsPalettedRasterRenderer::create); the rest
of a style file has defaults.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from adcdnet.geo.classes import ClassTable

_MARK = b"<!-- written with the map, and again with its next version; a style saved here by QGIS stays -->"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def map_style(classes: ClassTable) -> bytes:
    """The content of a style file: one palette entry a class, with its value, its colour and its name as label."""
    root = ElementTree.Element("qgis", version="3.4", styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for value, name, color in zip(classes.values, classes.names, classes.colors, strict=True):
        entry = {"value": str(value), "color": color, "label": xml_text(name), "alpha": "255"}
        ElementTree.SubElement(palette, "paletteEntry", entry)
    ElementTree.indent(root)
    return _MARK + b"\n" + bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)) + b"\n"


def xml_text(text: str) -> str:
    """A text with the replacement character for controls, most of which no XML file may hold."""
    return _NOT_IN_XML.sub("\ufffd", text)


def is_own_style(path: Path) -> bool:
    """Whether a style file is as `map_style` wrote it, not one that somebody saved from QGIS."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MARK)) == _MARK
