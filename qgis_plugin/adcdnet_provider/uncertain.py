"""Uncertain ground as hatched polygons: where no class of a map has a probability to rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from osgeo import gdal, ogr, osr
from qgis.core import (
    QgsFillSymbol,
    QgsLinePatternFillSymbolLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
    QgsProcessingUtils,
    QgsSimpleLineSymbolLayer,
    QgsSingleSymbolRenderer,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor, QIcon

from . import layers, results

ROWS = 256  # of the raster, read at once


class UncertainGround(QgsProcessingAlgorithm):
    """From the probabilities that 'Map' writes. Needs no program but QGIS."""

    def createInstance(self) -> UncertainGround:
        return UncertainGround()

    def name(self) -> str:
        return "uncertain"

    def displayName(self) -> str:
        return "Hatch uncertain ground"

    def icon(self) -> QIcon:
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def shortHelpString(self) -> str:
        return (
            "Polygons where the largest probability of a class is below a limit, hatched so that the map shows. "
            "Probabilities are an output of 'Map'. They are calibrated on held-out ground."
        )

    def initAlgorithm(self, config: dict[str, Any] | None = None) -> None:
        self.addParameter(QgsProcessingParameterRasterLayer("PROBABILITIES", "Probabilities"))
        number = QgsProcessingParameterNumber.Double
        bounds = {"type": number, "defaultValue": 0.6, "minValue": 0, "maxValue": 1}
        self.addParameter(QgsProcessingParameterNumber("BELOW", "Largest probability below", **bounds))
        self.addParameter(QgsProcessingParameterVectorDestination("OUT", "Uncertain ground"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        layer = self.parameterAsRasterLayer(parameters, "PROBABILITIES", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "PROBABILITIES"))
        below = self.parameterAsDouble(parameters, "BELOW", context)
        self._out = self.parameterAsOutputLayer(parameters, "OUT", context)
        mask = QgsProcessingUtils.generateTempFilename("uncertain.tif")
        share = _mark(gdal.Open(layers.raster_file(layer)), below, mask, feedback)
        feedback.pushInfo(f"The largest probability is below {below:g} on {share:.1%} of the map.")
        _polygons(mask, self._out)
        hatch(self._out)
        return {"OUT": self._out}

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        results.restyle(self._out, context)
        return {}


def _mark(probabilities: gdal.Dataset, below: float, mask: str, feedback: QgsProcessingFeedback) -> float:
    """A raster that is 1 where the largest probability is below a limit, and which share of valid pixels that is."""
    width, height = probabilities.RasterXSize, probabilities.RasterYSize
    options = ["COMPRESS=DEFLATE", "TILED=YES"]
    marked = gdal.GetDriverByName("GTiff").Create(mask, width, height, 1, gdal.GDT_Byte, options)
    marked.SetGeoTransform(probabilities.GetGeoTransform())
    marked.SetProjection(probabilities.GetProjection())
    uncertain = valid = 0
    for top in range(0, height, ROWS):
        if feedback.isCanceled():
            raise QgsProcessingException("stopped")
        rows = min(ROWS, height - top)
        block = probabilities.ReadAsArray(0, top, width, rows).reshape(-1, rows, width)
        largest = block.max(0)  # NaN where the map is not valid, and no NaN is below anything
        low = largest < below
        marked.GetRasterBand(1).WriteArray(low.astype("uint8"), 0, top)
        uncertain, valid = uncertain + int(low.sum()), valid + int((largest == largest).sum())
        feedback.setProgress(90 * (top + rows) / height)
    return uncertain / max(1, valid)


def _polygons(mask: str, out: str) -> None:
    raster = gdal.Open(mask)
    band = raster.GetRasterBand(1)
    driver = QgsVectorFileWriter.driverForExtension(Path(out).suffix)
    dataset = ogr.GetDriverByName(driver).CreateDataSource(out)
    if dataset is None:
        raise QgsProcessingException(f"{out} cannot be written; choose a new GeoPackage (.gpkg)")
    place = osr.SpatialReference(wkt=raster.GetProjection())
    layer = dataset.CreateLayer("uncertain", place, ogr.wkbPolygon)
    layer.CreateField(ogr.FieldDefn("uncertain", ogr.OFTInteger))
    gdal.Polygonize(band, band, layer, 0)


def hatch(out: str) -> None:
    """Leave a style beside the polygons: dark lines with the map between them."""
    line = QgsSimpleLineSymbolLayer(QColor("#222222"), 0.3)
    pattern = QgsLinePatternFillSymbolLayer()
    pattern.setLineAngle(45)
    pattern.setDistance(1.6)
    pattern.subSymbol().changeSymbolLayer(0, line)
    layer = QgsVectorLayer(out, "uncertain", "ogr")
    symbol = QgsFillSymbol.createSimple({})
    symbol.changeSymbolLayer(0, pattern)
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    layer.saveNamedStyle(str(Path(out).with_suffix(".qml")))
