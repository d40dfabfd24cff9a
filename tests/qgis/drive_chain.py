"""A map from QGIS's own layers, from check to suggestions, and what QGIS loads of each step."""

import json
import os
import sys

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from session import FOLDER, finish, run, to_load, use

use(FOLDER / "adcdnet")
os.environ.update(json.loads((FOLDER / "foreign.json").read_text()))
project = QgsProject.instance()
project.setCrs(QgsCoordinateReferenceSystem("EPSG:4326"))
ms, pan = (QgsRasterLayer(str(FOLDER / f"{name}.tif"), name) for name in ("ms", "pan"))
polygons = QgsVectorLayer(f"{FOLDER}/polygons.gpkg|layername=polygons", "polygons", "ogr")
project.addMapLayers([ms, pan, polygons])
pair = {"MS": ms, "PAN": pan}
labels = {"LABELS": polygons, "COLUMN": "cover"}
folder = str(FOLDER / "run")

done = {"check": run("check", **pair, **labels)}
done["no_field"] = run("check", **pair, LABELS=polygons, COLUMN="gone")
done["wrong_field"] = run("train", **pair, LABELS=polygons, COLUMN="gone", OUT=folder)
done["align"] = run("align", **pair, OUT=to_load(FOLDER / "aligned.tif"))
done["train"] = run("train", **pair, **labels, CONFIG=str(FOLDER / "quick.toml"), DEVICE="cpu", OUT=folder)
maps = {"OUT": "map.tif", "PROBABILITIES": "probabilities.tif", "TRUST": "trust.tif"}
done["map"] = run("map", MODEL=folder, **pair, **{key: to_load(FOLDER / name) for key, name in maps.items()})
done["uncertain"] = run(
    "uncertain", PROBABILITIES=str(FOLDER / "probabilities.tif"), OUT=to_load(FOLDER / "unsure.gpkg")
)
mapped = done["map"]["layers"]["Map"]
done["sample"] = run("sample", MAP=mapped, N=40, OUT=to_load(FOLDER / "points.gpkg"))
done["wrong_use"] = run("sample", MAP=mapped, OUT=str(FOLDER / "none.gpkg"))

points = done["sample"]["layers"]["Points"]
field = points.fields().indexOf("class")
chosen = points.editorWidgetSetup(field)
listed = [next(iter(entry.values())) for entry in chosen.config()["map"]]
names = json.loads((FOLDER / "names.json").read_text())
truth = QgsRasterLayer(str(FOLDER / "truth.tif"))
points.startEditing()
for feature in points.getFeatures():
    value, _ = truth.dataProvider().sample(feature.geometry().asPoint(), 1)
    points.changeAttributeValue(feature.id(), field, names[int(value) - 1])
assert points.commitChanges()

done["judge"] = run("judge", MAP=mapped, LABELS=points, JSON=str(FOLDER / "judged.json"))
done["report"] = run("report", RUN=folder, MAP=mapped, SAMPLE=points)
done["suggest"] = run("suggest", RUN=folder, N=3, SIDE=2, OUT=to_load(FOLDER / "next.gpkg"))
done["suspects"] = run("suspects", RUN=folder, OUT=to_load(FOLDER / "suspects.gpkg"))


def described(layer):
    """What a test can compare of how a layer is shown."""
    shown = {"valid": layer.isValid(), "source": layer.source(), "renderer": layer.renderer().type()}
    if layer.renderer().type() == "paletted":
        shown["classes"] = [[c.value, c.label, c.color.name()] for c in layer.renderer().classes()]
    elif layer.renderer().type() == "categorizedSymbol":
        shown["classes"] = [[c.value(), c.label()] for c in layer.renderer().categories()]
    return shown


settings = QgsMapSettings()
settings.setLayers([done["uncertain"]["layers"]["Uncertain ground"], mapped])
settings.setDestinationCrs(mapped.crs())
settings.setExtent(mapped.extent())
settings.setOutputSize(QSize(480, 480))
job = QgsMapRendererParallelJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(str(FOLDER / "rendered.png"))

for one in done.values():
    one["layers"] = {name: described(layer) for name, layer in one["layers"].items()}
places = QgsVectorLayer(str(FOLDER / "next.gpkg"), "next", "ogr")  # opened again, by itself
done["again"] = {"widget": places.editorWidgetSetup(places.fields().indexOf("class")).type()}
done["widget"] = [chosen.type(), listed]
done["modules"] = sorted({"torch", "adcdnet"} & set(sys.modules))
finish(**done)
