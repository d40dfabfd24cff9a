"""What becomes of the files that adcdnet wrote: layers with their styles, and fields to fill in from a list."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from osgeo import gdal
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsEditorWidgetSetup,
    QgsMapLayer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsRendererCategory,
    QgsSymbol,
    QgsVectorLayer,
)
from qgis.PyQt import sip
from qgis.PyQt.QtGui import QColor

FIELD = "class"  # that samples and suggested places leave empty
IN_FOLDER = {  # what is loaded of a folder, the uppermost layer last
    "train": ("folds.tif", "split.tif", "held-out.tif"),
    "demo": ("pan.tif", "ms.tif", "labels.tif", "map.tif"),
}


class _StyleBeside(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer the style file that lies beside its file; Processing by itself leaves it out."""

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        style = Path(layer.source().split("|")[0]).with_suffix(".qml")
        if style.is_file():
            layer.loadNamedStyle(str(style))
            layer.triggerRepaint()


_kept: list[_StyleBeside] = []  # the context that each is given to deletes it, and Python must not do so before


def _style_beside() -> _StyleBeside:
    _kept[:] = [one for one in _kept if not sip.isdeleted(one)]
    _kept.append(_StyleBeside())
    return _kept[-1]


def load(path: str, name: str, context: QgsProcessingContext) -> None:
    """Have a layer added to the project when the algorithm is done."""
    details = QgsProcessingContext.LayerDetails(name, context.project(), name)
    details.setPostProcessor(_style_beside())
    context.addLayerToLoadOnCompletion(path, details)


def restyle(path: str, context: QgsProcessingContext) -> None:
    """Have a layer that Processing will load get the style beside it."""
    if context.willLoadLayerOnCompletion(path):
        context.layerToLoadOnCompletionDetails(path).setPostProcessor(_style_beside())


def classes_of_map(raster: str) -> dict[str, str]:
    """Names of the classes of a map and their colours, as '#rrggbb'; nothing where the map carries none."""
    dataset = gdal.Open(raster)
    names = json.loads(dataset.GetMetadataItem("CLASS_NAMES") or "{}")
    table = dataset.GetRasterBand(1).GetColorTable()
    if table is None:
        return dict.fromkeys(names.values(), "#808080")
    return {name: "#{:02x}{:02x}{:02x}".format(*table.GetColorEntry(int(value))[:3]) for value, name in names.items()}


def classes_of_run(folder: str) -> dict[str, str]:
    """Names and colours of the classes that a run's model knows, from the head of its safetensors file."""
    with (Path(folder) / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        described = json.loads(json.loads(file.read(size))["__metadata__"]["adcdnet"])["classes"]
    return dict(zip(described["names"], described["colors"]))


def list_classes(path: str, table: str, classes: dict[str, str]) -> None:
    """Leave a style beside a layer to fill in: its class is picked from a list, and what is empty stands out."""
    layer = QgsVectorLayer(f"{path}|layername={table}", table, "ogr")
    index = layer.fields().indexOf(FIELD)
    if index < 0 or not classes:
        return
    layer.setEditorWidgetSetup(index, QgsEditorWidgetSetup("ValueMap", {"map": [{name: name} for name in classes]}))
    categories = []
    for name, colour in [*classes.items(), ("", "#ffffff")]:
        symbol = QgsSymbol.defaultSymbol(layer.geometryType())
        symbol.setColor(QColor(colour))
        symbol.setOpacity(1 if symbol.type() == QgsSymbol.Marker else 0.6)
        categories.append(QgsRendererCategory(name or None, symbol, name or "to fill in"))
    layer.setRenderer(QgsCategorizedSymbolRenderer(FIELD, categories))
    layer.saveNamedStyle(str(Path(path).with_suffix(".qml")))
