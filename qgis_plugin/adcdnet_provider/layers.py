"""Files for adcdnet of layers as they are in QGIS: with selections, filters, edits, joined fields, or in memory."""

from __future__ import annotations

from pathlib import Path

from osgeo import gdal, ogr
from qgis.core import (
    QgsCoordinateTransformContext,
    QgsDataProvider,
    QgsFeature,
    QgsFields,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeatureSourceDefinition,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

DESIGN = "sample_design"  # the table of `adcdnet sample` that a copy of its points would lack


def raster_file(layer: QgsRasterLayer) -> str:
    """The path of a raster layer, or GDAL's name of a layer in it. QgsProcessingException where it is no file."""
    if layer.providerType() != "gdal" or layer.source().startswith("/vsimem/"):
        raise QgsProcessingException(f"{layer.name()} is no file; save it with Export → Save As, and take the copy")
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    # GPKG:file:layer and the like are the source itself, without the options that QGIS puts behind
    return parts["path"] if not parts.get("layerName") else layer.source().split("|option:")[0]


def vector_file(
    layer: QgsVectorLayer, source: QgsProcessingFeatureSource, value: object, copy: Path, *, one_layer: bool
) -> tuple[str, str | None]:
    """The path of a vector layer, and the name of its layer there where the file has several.

    source, value: the features that the parameter stands for, and the parameter itself. Where these are not simply all
    that the file holds, or there is no file, they are written to `copy`, a GeoPackage; as well where the file has
    several layers and must have one. QgsProcessingException for a sample whose copy would be none.
    """
    path, names = _file_of(layer)
    if names and _is_as_its_file(layer, value):
        shapes = [name for name, has_shapes in names.items() if has_shapes]
        if len(shapes) < 2:
            return path, None
        if not one_layer:
            return path, layer.dataProvider().subLayers()[0].split(QgsDataProvider.SUBLAYER_SEPARATOR)[1]
    if DESIGN in names:
        raise QgsProcessingException(_WHOLE.format(layer.name()))
    _write(source, copy)
    return str(copy), None


def sample_file(layer: QgsVectorLayer) -> str:
    """The path of a filled in sample. QgsProcessingException where the layer is not all of its file, or has none."""
    path, names = _file_of(layer)
    if not names or not _is_as_its_file(layer, None):
        raise QgsProcessingException(_WHOLE.format(layer.name()))
    return path


_WHOLE = "{} is a sample; save its edits, and take it whole: from its file, without filter or selection"


def _file_of(layer: QgsVectorLayer) -> tuple[str, dict[str, bool]]:
    """Path of the file of a layer, and whether each layer in it has shapes; no layers where there is no file."""
    if layer.providerType() != "ogr":
        return "", {}
    path = QgsProviderRegistry.instance().decodeUri("ogr", layer.source()).get("path") or ""
    dataset = ogr.Open(path) if Path(path).exists() else None
    if dataset is None:
        return path, {}
    found = (dataset.GetLayer(k) for k in range(dataset.GetLayerCount()))
    return path, {one.GetName(): one.GetGeomType() != ogr.wkbNone for one in found}


def _is_as_its_file(layer: QgsVectorLayer, value: object) -> bool:
    part = isinstance(value, QgsProcessingFeatureSourceDefinition) and (
        value.selectedFeaturesOnly or value.featureLimit >= 0 or bool(getattr(value, "filterExpression", ""))
    )
    fields = layer.fields()
    return not (
        part
        or layer.subsetString()
        or layer.isModified()
        or layer.crs() != layer.dataProvider().crs()
        or layer.source().lower().split("|")[0].endswith(".csv")
        or any(fields.fieldOrigin(k) != QgsFields.OriginProvider for k in range(fields.count()))
    )


def _write(source: QgsProcessingFeatureSource, copy: Path) -> None:
    fields = QgsFields()
    kept = [k for k, one in enumerate(source.fields()) if one.name().lower() not in ("fid", "ogc_fid")]
    for k in kept:
        fields.append(source.fields().at(k))
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName, options.layerName = "GPKG", "labels"
    place = source.wkbType(), source.sourceCrs(), QgsCoordinateTransformContext(), options
    writer = QgsVectorFileWriter.create(str(copy), fields, *place)
    for feature in source.getFeatures():
        written = QgsFeature(fields)
        written.setGeometry(feature.geometry())
        written.setAttributes([feature.attributes()[k] for k in kept])
        writer.addFeature(written)
    failed = writer.errorMessage() if writer.hasError() else ""
    del writer  # writes the rest
    if failed:
        raise QgsProcessingException(f"{copy} cannot be written: {failed}")


def cut(path: str, extent: QgsRectangle, copy: Path) -> str:
    """The part of a raster that an extent, in its coordinate system, touches: a copy in whole pixels.

    QgsProcessingException where they do not meet.
    """
    raster = gdal.Open(path)
    x, width, _, y, _, height = raster.GetGeoTransform()
    columns = sorted(int((edge - x) / width // 1) for edge in (extent.xMinimum(), extent.xMaximum()))
    rows = sorted(int((edge - y) / height // 1) for edge in (extent.yMinimum(), extent.yMaximum()))
    left, right = max(0, columns[0]), min(raster.RasterXSize, columns[1] + 1)
    top, bottom = max(0, rows[0]), min(raster.RasterYSize, rows[1] + 1)
    if left >= right or top >= bottom:
        raise QgsProcessingException(f"the extent does not meet {path}; choose one that does")
    window = [left, top, right - left, bottom - top]
    gdal.Translate(str(copy), raster, srcWin=window, creationOptions=["COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"])
    return str(copy)
