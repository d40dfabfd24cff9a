"""QGIS with its window: `qgis --code` of this file, with the plugin in its profile. Dialogs run as a user runs them.

The variable ADCDNET_FOLDER names the folder: a scene, the program adcdnet, and a run. Pictures are left in it, and
what was seen, as window.json. Those of docs/how-to/qgis.md were made by this, of what `adcdnet demo` leaves.
"""

import json
import os
import traceback
from pathlib import Path

import qgis.utils
from qgis.core import QgsApplication, QgsProcessingOutputLayerDefinition, QgsProject
from qgis.PyQt.QtCore import QEventLoop, QTimer
from qgis.PyQt.QtWidgets import QApplication, QComboBox, QDockWidget

FOLDER = Path(os.environ["ADCDNET_FOLDER"])
MAIN = qgis.utils.iface.mainWindow()


def settle(milliseconds=1500):
    """Let QGIS draw."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec_()
    QApplication.processEvents()


def to_load(name):
    """A destination as the dialog makes it of a file that somebody chose."""
    return QgsProcessingOutputLayerDefinition(str(FOLDER / name), QgsProject.instance())


def run_dialog(name, parameters):
    """Run an algorithm by its dialog, as its button does; what it returned."""
    import processing

    dialog = processing.createAlgorithmDialog(f"adcdnet:{name}", parameters)
    dialog.resize(900, 700)
    dialog.show()
    settle(300)
    dialog.grab().save(str(FOLDER / f"dialog-{name}.png"))
    loop = QEventLoop()
    dialog.algorithmFinished.connect(lambda *_: loop.quit())
    QTimer.singleShot(90_000, loop.quit)
    dialog.runAlgorithm()
    loop.exec_()
    settle(500)
    dialog.grab().save(str(FOLDER / f"log-{name}.png"))
    results = dialog.results()
    dialog.close()
    return results


def look():
    import processing
    from adcdnet_provider import program
    from processing.core.ProcessingConfig import ProcessingConfig

    seen = {"offered": [item.text() for item in qgis.utils.iface.messageBar().items()]}
    qgis.utils.iface.messageBar().clearWidgets()
    ProcessingConfig.setSettingValue(program.SETTING, str(FOLDER / "adcdnet"))
    ProcessingConfig.setSettingValue(ProcessingConfig.PREFER_FILENAME_AS_LAYER_NAME, False)
    provider = QgsApplication.processingRegistry().providerById("adcdnet")
    dialogs = [processing.createAlgorithmDialog(algorithm.id(), {}) for algorithm in provider.algorithms()]
    seen["dialogs"] = sorted(dialog.algorithm().name() for dialog in dialogs if dialog)
    for name in ("pan", "ms"):
        qgis.utils.iface.addRasterLayer(str(FOLDER / f"{name}.tif"), name)
    run = {"MODEL": str(FOLDER / "run"), "MS": "ms", "PAN": "pan", "OUT": to_load("window.tif")}
    seen["map"] = run_dialog("map", {**run, "PROBABILITIES": to_load("window-probabilities.tif")})
    soft = QgsProject.instance().mapLayersByName("Probabilities")[0]
    qgis.utils.iface.layerTreeView().setLayerVisible(soft, False)
    seen["uncertain"] = run_dialog("uncertain", {"PROBABILITIES": soft, "OUT": to_load("window-unsure.gpkg")})
    mapped = QgsProject.instance().mapLayersByName("Map")[0]
    seen["sample"] = run_dialog("sample", {"MAP": mapped, "N": 20, "OUT": to_load("window-points.gpkg")})
    points = QgsProject.instance().mapLayersByName("Points")[0]
    points.startEditing()
    form = qgis.utils.iface.getFeatureForm(points, next(points.getFeatures()))
    form.resize(360, 160)
    form.show()
    boxes = form.findChildren(QComboBox)
    seen["lists"] = [[box.itemText(k) for k in range(box.count())] for box in boxes]
    form.close()
    points.rollBack()
    MAIN.findChild(QDockWidget, "Browser").hide()
    for name in ("Probabilities", "pan", "ms"):
        (layer,) = QgsProject.instance().mapLayersByName(name)
        QgsProject.instance().layerTreeRoot().findLayer(layer).setExpanded(False)
    QgsProject.instance().layerTreeRoot().findLayer(mapped).setExpanded(True)
    MAIN.resize(1000, 700)
    qgis.utils.iface.mapCanvas().setExtent(soft.extent())
    qgis.utils.iface.mapCanvas().refresh()
    settle()
    MAIN.grab().save(str(FOLDER / "window.png"))
    layers = QgsProject.instance().mapLayers().values()
    seen["layers"] = {layer.name(): layer.renderer().type() for layer in layers}
    seen["unloaded"] = qgis.utils.unloadPlugin("adcdnet_provider")
    seen["gone"] = QgsApplication.processingRegistry().providerById("adcdnet") is None
    return seen


def go():
    try:
        seen = look()
    except Exception:
        seen = {"traceback": traceback.format_exc()}
    (FOLDER / "window.json").write_text(json.dumps(seen, default=str))
    os._exit(0)


QTimer.singleShot(2000, go)
