"""QGIS without a window, for the scripts of this folder. QGIS's own Python runs them, and each prints JSON at its end.

Arguments: a folder for QGIS's profile, the folder that holds the plugin, and what the script itself needs.
"""

# ruff: noqa: E402  QGIS must have begun before its plugins are imported

import json
import os
import sys
from pathlib import Path

PROFILE, PLUGINS, *ARGUMENTS = sys.argv[1:]
sys.path.insert(0, "/usr/share/qgis/python/plugins")
sys.path.insert(0, PLUGINS)

from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingUtils,
    QgsProject,
)

QgsApplication.setPrefixPath("/usr", True)
APP = QgsApplication([], False, PROFILE)
APP.initQgis()

from processing.core.Processing import Processing
from processing.core.ProcessingConfig import ProcessingConfig

Processing.initialize()
from adcdnet_provider import program
from adcdnet_provider.plugin import Plugin

PLUGIN = Plugin(None)
PLUGIN.initProcessing()


class Log(QgsProcessingFeedback):
    """Keeps what is said, by kind."""

    def __init__(self):
        super().__init__()
        self.said = {"info": [], "warning": [], "console": [], "command": [], "error": [], "text": []}
        self.progressChanged.connect(self.moved)
        self.bar = []

    def moved(self, value):
        self.bar.append(value)

    def pushInfo(self, info):
        self.said["info"].append(info)

    def pushWarning(self, warning):
        self.said["warning"].append(warning)

    def pushConsoleInfo(self, info):
        self.said["console"].append(info)

    def pushCommandInfo(self, info):
        self.said["command"].append(info)

    def reportError(self, error, fatalError=False):
        self.said["error"].append(error)

    def setProgressText(self, text):
        self.said["text"].append(text)


def use(path):
    """Have the provider start this program."""
    ProcessingConfig.setSettingValue(program.SETTING, str(path))


def run(name, log=None, **parameters):
    """What an algorithm returned, what it said, the error it ended with, and the layers that QGIS would load."""
    log = log or Log()
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"adcdnet:{name}")
    results, error = {}, None
    try:
        results, fine = algorithm.run(parameters, context, log, {}, False)
        error = None if fine else (log.said["error"] or ["?"])[-1]
    except QgsProcessingException as failed:
        error = str(failed)
    layers = {}
    if error is None:
        for path, details in context.layersToLoadOnCompletion().items():
            layer = QgsProcessingUtils.mapLayerFromString(path, context)
            if details.postProcessor():
                details.postProcessor().postProcessLayer(layer, context, log)
            layers[details.name] = QgsProject.instance().addMapLayer(layer)
    return {"results": results, "failed": error, "layers": layers, "bar": log.bar, **log.said}


def to_load(path):
    """A destination whose layer is wanted in the project, as the dialog asks for it."""
    return QgsProcessingOutputLayerDefinition(str(path), QgsProject.instance())


def finish(**said):
    """Print what the test looks at."""
    print("\n" + json.dumps(said, ensure_ascii=True, default=str))
    sys.stdout.flush()
    QgsProject.instance().clear()
    PLUGIN.unload()
    os._exit(0)  # QGIS may crash while Python takes it apart


FOLDER = Path(ARGUMENTS[0]) if ARGUMENTS else None
