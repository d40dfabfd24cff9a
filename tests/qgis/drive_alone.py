"""Files of adcdnet in QGIS without the plugin: opened as anybody would, by their names."""

import json
import os
import sys

from qgis.core import QgsApplication, QgsMapRendererParallelJob, QgsMapSettings, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtCore import QSize

profile, _, folder, out = sys.argv[1:]
QgsApplication.setPrefixPath("/usr", True)
app = QgsApplication([], False, profile)
app.initQgis()

said = {}
for name in ("map", "large", "cog", "probabilities"):
    layer = QgsRasterLayer(f"{folder}/{name}.tif", name)
    provider = layer.dataProvider()
    said[name] = {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "renderer": layer.renderer().type(),
        "classes": [[c.value, c.label, c.color.name()] for c in layer.renderer().classes()]
        if layer.renderer().type() == "paletted"
        else [],
        "bands": [provider.generateBandName(k + 1) for k in range(layer.bandCount())],
        "pyramids": [pyramid.exists for pyramid in provider.buildPyramidList()],
        "nodata": provider.sourceNoDataValue(1),
    }
settings = QgsMapSettings()
layer = QgsRasterLayer(f"{folder}/map.tif", "map")
settings.setLayers([layer])
settings.setDestinationCrs(layer.crs())
settings.setExtent(layer.extent())
settings.setOutputSize(QSize(2 * layer.width(), 2 * layer.height()))
job = QgsMapRendererParallelJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(out)
points = QgsVectorLayer(f"{folder}/points.gpkg", "points", "ogr")
said["points"] = {"fields": points.fields().names(), "count": points.featureCount(), "crs": points.crs().authid()}
print("\n" + json.dumps(said))
sys.stdout.flush()
os._exit(0)  # QGIS may crash while Python takes it apart
