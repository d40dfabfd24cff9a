"""Layers as they are in QGIS, and the words that adcdnet is called with for them."""

import json
import os

from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsField,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QVariant
from session import FOLDER, PLUGIN, Log, finish, run, use

use(FOLDER / "adcdnet")
CALLS = FOLDER / "calls.jsonl"
os.environ.update(json.loads((FOLDER / "foreign.json").read_text()))
project = QgsProject.instance()
project.setCrs(QgsRasterLayer(str(FOLDER / "lat lon.tif")).crs())  # another than that of the images
ms, pan = (QgsRasterLayer(str(FOLDER / name), name) for name in ("ms bänd.tif", "pan.tif"))
project.addMapLayers([ms, pan])


def words(name, **parameters):
    """The words of the call, or the error."""
    CALLS.unlink(missing_ok=True)
    done = run(name, **{"MS": ms, "PAN": pan, **parameters} if name in ("check", "train", "map") else parameters)
    if done["failed"]:
        return done["failed"]
    return json.loads(CALLS.read_text().splitlines()[-1])["words"]


def layer(name, text=None, provider="ogr"):
    found = QgsVectorLayer(text or str(FOLDER / name), name, provider)
    assert found.isValid(), name
    project.addMapLayer(found)
    return found


said = {}
plain = layer("fields.gpkg", f"{FOLDER}/fields.gpkg|layername=fields")
said["plain"] = words("check", LABELS=plain, COLUMN="kind")
said["by_path"] = words("check", LABELS=str(FOLDER / "fields.gpkg"), COLUMN="kind")
two = layer("two.gpkg", f"{FOLDER}/two.gpkg|layername=second")
said["of_two"] = words("check", LABELS=two, COLUMN="kind")
said["of_two_and_more"] = words("check", LABELS=two, MORE_LABELS=[plain, str(FOLDER / "labels.tif")])

plain.selectByIds([2])
chosen = QgsProcessingFeatureSourceDefinition(plain.id(), selectedFeaturesOnly=True)
run_out = FOLDER / "run one"
said["selected"] = words("train", LABELS=chosen, COLUMN="kind", OUT=str(run_out))
said["whole_though_selected"] = words("train", LABELS=plain, COLUMN="kind", OUT=str(run_out))
plain.removeSelection()

subset = layer("subset", f"{FOLDER}/fields.gpkg|layername=fields|subset=\"kind\" = 'rock'")
said["subset"] = words("train", LABELS=subset, COLUMN="kind", OUT=str(FOLDER / "run two"))

scratch = layer("scratch", "Polygon?crs=EPSG:4326&field=kind:string", "memory")
feature = QgsFeature(scratch.fields())
feature.setGeometry(next(plain.getFeatures()).geometry())
feature.setAttributes(["meadow"])
scratch.dataProvider().addFeature(feature)
said["scratch"] = words("train", LABELS=scratch, COLUMN="kind", OUT=str(FOLDER / "run three"))

moved = layer("moved", f"{FOLDER}/fields.gpkg|layername=fields")
moved.setCrs(QgsCoordinateReferenceSystem("EPSG:32634"))
said["moved"] = words("train", LABELS=moved, COLUMN="kind", OUT=str(FOLDER / "run six"))

plain.startEditing()
plain.changeAttributeValue(1, plain.fields().indexOf("kind"), "water")
said["edited"] = words("train", LABELS=plain, COLUMN="kind", OUT=str(FOLDER / "run four"))
plain.rollBack()
plain.addExpressionField("'all of ' || kind", QgsField("virtual", QVariant.String))
said["virtual"] = words("train", LABELS=plain, COLUMN="virtual", OUT=str(FOLDER / "run five"))

said["bands"] = words("check", MS_BANDS=[3, 1], MORE_LABELS=[str(FOLDER / "labels.tif")])
said["vrt"] = words("check", MS=QgsRasterLayer(str(FOLDER / "of two files.vrt"), "vrt"))
said["table"] = words("check", MS=QgsRasterLayer(f"GPKG:{FOLDER}/raster.gpkg:first", "table"))
gdal.Translate("/vsimem/gone.tif", str(FOLDER / "labels.tif"))
said["no_file"] = words("check", MS=QgsRasterLayer("/vsimem/gone.tif", "gone"))
said["defaults"] = words("train", LABELS=str(FOLDER / "fields.gpkg"), OUT=str(FOLDER / "r"), STAGE1=True)
said["all_kinds"] = words(
    "train",
    LABELS=str(FOLDER / "fields.gpkg"),
    OUT=str(FOLDER / "r"),
    STAGE1=False,
    QUICK=True,
    PROFILE="plain",
    SEED=0,
    MIN_SHARE=0.25,
    MEMBERS="adcdnet,boosting",
    CONFIG=str(FOLDER / "c.toml"),
)
west, east, south, north = 500_010, 500_040, 4_999_950, 4_999_990
extent = f"{west},{east},{south},{north} [EPSG:32633]"
said["extent"] = words("map", MODEL=str(FOLDER), OUT=str(FOLDER / "m.tif"), EXTENT=extent)
cut = QgsRasterLayer(str(FOLDER / "m-ms.tif"))
box = cut.extent()
said["cut"] = [box.xMinimum(), box.xMaximum(), box.yMinimum(), box.yMaximum(), cut.bandCount()]
said["elsewhere"] = words("map", MODEL=str(FOLDER), OUT=str(FOLDER / "m.tif"), EXTENT="0,9,0,9 [EPSG:32633]")

points = layer("points.gpkg", f"{FOLDER}/points.gpkg|layername=points")
said["sample"] = words("judge", MAP=str(FOLDER / "labels.tif"), LABELS=points)
said["report"] = words("report", RUN=str(FOLDER), SAMPLE=points, MAP=str(FOLDER / "labels.tif"))
points.startEditing()
points.changeAttributeValue(1, points.fields().indexOf("class"), "rock")
said["sample_edited"] = words("judge", MAP=str(FOLDER / "labels.tif"), LABELS=points)
said["report_edited"] = words("report", RUN=str(FOLDER), SAMPLE=points)
points.rollBack()
said["demo"] = words("demo", OUT=str(FOLDER / "demo"), SIZE=120)

log = Log()
run("doctor", log)
said["variables"] = json.loads(CALLS.read_text().splitlines()[-1])["variables"]
gone = FOLDER / "gone"
gone.touch()
use(gone)
gone.unlink()
said["lost"] = words("demo", OUT=str(FOLDER / "demo"))
use("")
os.environ["PATH"] = str(FOLDER)
said["on_path"] = words("demo", OUT=str(FOLDER / "demo"))
os.environ["PATH"] = "/nowhere"
said["nowhere"] = words("demo", OUT=str(FOLDER / "demo"))
tools = {algorithm.name(): algorithm for algorithm in PLUGIN._provider.algorithms()}
said["defaults_shown"] = {
    name: {one.name(): one.defaultValue() for one in algorithm.parameterDefinitions()}
    for name, algorithm in tools.items()
}
finish(**said)
