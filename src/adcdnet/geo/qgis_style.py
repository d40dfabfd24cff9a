"""Style files, which QGIS reads with a file of their name: map.qml has names and colours of the classes of map.tif, and
points.qml the choices for the column `class` of points.gpkg.

What is written are the elements that QGIS reads of a paletted renderer (QgsPalettedRasterRenderer::create) or of a
widget (QgsVectorLayer::readSymbology); the rest of a style file has defaults.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from adcdnet.files import write_whole
from adcdnet.geo.classes import ClassTable

_MARK = b"<!-- written with the map, and again with its next version; a style saved here by QGIS stays -->"
_MARK_OF_CHOICES = b"<!-- written with the shapes, and again with their next version -->"
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
    return _content(root, _MARK)


def write_choices(path: Path, classes: ClassTable) -> None:
    """Beside a new file of shapes with a column `class`: the names of the classes, to choose from. A style of a map of
    this name, and one that somebody saved from QGIS, stays."""
    style = path.with_suffix(".qml")
    if style.exists() and not _begins_with(style, _MARK_OF_CHOICES):
        return
    root = ElementTree.Element("qgis", version="3.4", styleCategories="Fields|Forms")
    field = ElementTree.SubElement(ElementTree.SubElement(root, "fieldConfiguration"), "field", name="class")
    config = ElementTree.SubElement(ElementTree.SubElement(field, "editWidget", type="ValueMap"), "config")
    choices = ElementTree.SubElement(ElementTree.SubElement(config, "Option", type="Map"), "Option", type="List")
    choices.set("name", "map")
    for name in classes.names:
        choice = {"type": "QString", "name": xml_text(name), "value": xml_text(name)}
        ElementTree.SubElement(ElementTree.SubElement(choices, "Option", type="Map"), "Option", choice)
    write_whole(style, _content(root, _MARK_OF_CHOICES))


def _content(root: ElementTree.Element, mark: bytes) -> bytes:
    ElementTree.indent(root)
    return mark + b"\n" + bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)) + b"\n"


def xml_text(text: str) -> str:
    """A text with the replacement character for controls, most of which no XML file may hold."""
    return _NOT_IN_XML.sub("\ufffd", text)


def is_own_style(path: Path) -> bool:
    """Whether a style file is as `map_style` wrote it, not one that somebody saved from QGIS."""
    return _begins_with(path, _MARK)


def _begins_with(path: Path, mark: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(mark)) == mark
