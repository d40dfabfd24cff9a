"""A command of adcdnet as a Processing algorithm: parameters from its options, a process, layers of its files."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsProcessingParameterVectorLayer,
    QgsProcessingUtils,
    QgsRasterLayer,
)
from qgis.PyQt.QtGui import QIcon

from . import layers, program, results
from .tools import FILES, FOLDERS, RASTERS, SAMPLES, Tool, title_of

MORE = "MORE_LABELS"
SHAPES = [QgsProcessing.TypeVectorPolygon, QgsProcessing.TypeVectorPoint]


def key_of(option: str) -> str:
    """'map_path' -> 'MAP', the name of the parameter."""
    return option.upper().replace("_PATH", "")


class CommandAlgorithm(QgsProcessingAlgorithm):
    """One of the tools. Layers are read while QGIS prepares the algorithm; the process runs beside QGIS."""

    def __init__(self, tool: Tool) -> None:
        super().__init__()
        self._tool = tool
        self._words: list[str] = []
        self._layer: str | None = None  # of a file of labels that has several
        self._written: dict[str, str] = {}  # parameter -> path
        self._to_load: dict[str, QgsProcessingContext.LayerDetails] = {}  # by path

    def createInstance(self) -> CommandAlgorithm:
        return CommandAlgorithm(self._tool)

    def name(self) -> str:
        return self._tool.name

    def displayName(self) -> str:
        return self._tool.title

    def icon(self) -> QIcon:
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def shortDescription(self) -> str:
        return self._tool.help[0]

    def shortHelpString(self) -> str:
        """The command's help, then that of each parameter in the dialog, which by itself shows on hovering only."""
        paragraphs = [f"<p>{escape(text)}</p>" for text in self._tool.help]
        for option in self._tool.shown.split():
            text = self._tool.options()[option]["help"]
            paragraphs.append(f"<p><b>{title_of(self._tool, option)}</b><br/>{escape(text)}</p>")
        return "\n".join(paragraphs)

    # Parameters ------------------------------------------------------------------------------------------------------

    def initAlgorithm(self, config: dict[str, Any] | None = None) -> None:
        shown = self._tool.shown.split()
        for option, described in self._tool.options().items():
            for parameter in self._parameters(option, described):
                parameter.setHelp(described["help"])
                if option not in shown:
                    parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
                self.addParameter(parameter)
        if self._tool.takes_extent:
            extent = QgsProcessingParameterExtent("EXTENT", "Only this extent", optional=True)
            extent.setHelp("Map only the MS pixels that this extent touches. Any coordinate system will do.")
            self.addParameter(extent)

    def _parameters(self, option: str, described: dict[str, Any]) -> list[QgsProcessingParameterDefinition]:
        tool, key, title = self._tool, key_of(option), title_of(self._tool, option)
        optional = not (described.get("needed") or option in tool.needs.split())
        kind, default = described["kind"], described.get("default")
        common: dict[str, Any] = {"name": key, "description": title, "optional": optional}
        if option in tool.outputs:
            return [_destination(tool.outputs[option], common)]
        if option == "labels":
            more = "More labels (layers, or rasters of classes)"
            return [
                QgsProcessingParameterFeatureSource(key, title, types=SHAPES, optional=True),
                QgsProcessingParameterMultipleLayers(MORE, more, QgsProcessing.TypeMapLayer, optional=True),
            ]
        if option == "column":
            return [QgsProcessingParameterField(**common, parentLayerParameterName="LABELS")]
        if option in ("ms_bands", "pan_bands"):
            image = key.partition("_")[0]
            return [QgsProcessingParameterBand(**common, parentLayerParameterName=image, allowMultiple=True)]
        if kind == "file" and option in RASTERS:
            return [QgsProcessingParameterRasterLayer(**common)]
        if option in SAMPLES:
            return [QgsProcessingParameterVectorLayer(**common, types=[QgsProcessing.TypeVectorPoint])]
        if option in FOLDERS:
            return [QgsProcessingParameterFile(**common, behavior=QgsProcessingParameterFile.Folder)]
        if kind == "file":
            return [QgsProcessingParameterFile(**common, extension=FILES[option])]
        common["defaultValue"] = default
        if kind == "flag":
            return [QgsProcessingParameterBoolean(key, title, defaultValue=bool(default))]
        if kind == "choice":
            return [QgsProcessingParameterEnum(**common, options=described["choices"], usesStaticStrings=True)]
        if kind in ("whole", "number"):
            types = {"whole": QgsProcessingParameterNumber.Integer, "number": QgsProcessingParameterNumber.Double}
            bounds = {f"{end}Value": described[end] for end in ("min", "max") if end in described}
            return [QgsProcessingParameterNumber(**common, type=types[kind], **bounds)]
        return [QgsProcessingParameterString(**common)]

    # Run -------------------------------------------------------------------------------------------------------------

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        options = self._tool.options()
        self._written, self._layer = {}, None
        for option, kind in self._tool.outputs.items():
            key = key_of(option)
            if parameters.get(key) not in (None, ""):
                as_path = self.parameterAsOutputLayer if kind in ("raster", "vector") else self.parameterAsFileOutput
                self._written[key] = as_path(parameters, key, context)
        self._to_load = context.layersToLoadOnCompletion()
        words, arguments = [], []
        for option, described in options.items():
            for value in self._values(option, described, parameters, context):
                if not described.get("spelled"):
                    arguments.append(value)
                elif described["kind"] == "flag":
                    words.append(value)
                else:
                    words += [described["spelled"], value]
        self._words = [self._tool.command, *arguments, *words, *(["--layer", self._layer] if self._layer else [])]
        return True

    def _values(
        self, option: str, described: dict[str, Any], parameters: dict[str, Any], context: QgsProcessingContext
    ) -> list[str]:
        """The texts that an option is given with, one for each time; none where it stays at its default."""
        key, kind = key_of(option), described["kind"]
        if key in self._written:
            return [self._written[key]]
        if option == "labels":
            return self._labels(parameters, context)
        if kind == "flag":
            wanted = self.parameterAsBoolean(parameters, key, context)
            on = described["spelled"] if "off" not in described else ""
            return [text for text in [on if wanted else described.get("off", "")] if text]
        if parameters.get(key) in (None, "", []):
            return []
        if option in ("ms_bands", "pan_bands"):
            return [",".join(map(str, self.parameterAsInts(parameters, key, context)))]
        if kind == "file" and option in RASTERS:
            path = layers.raster_file(self._raster(parameters, key, context))
            return [self._cut(path, parameters, context) if option == "ms" else path]
        if option in SAMPLES:
            layer = self.parameterAsVectorLayer(parameters, key, context)
            if layer is None:
                raise QgsProcessingException(self.invalidSourceError(parameters, key))
            return [layers.sample_file(layer)]
        if kind == "whole":
            text = str(self.parameterAsInt(parameters, key, context))
        elif kind == "number":
            text = repr(self.parameterAsDouble(parameters, key, context))
        elif kind == "choice":
            text = self.parameterAsEnumString(parameters, key, context)
        else:
            text = self.parameterAsString(parameters, key, context)
        return [] if text == str(described.get("default")) else [text]

    def _raster(self, parameters: dict[str, Any], key: str, context: QgsProcessingContext) -> QgsRasterLayer:
        layer = self.parameterAsRasterLayer(parameters, key, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, key))
        return layer

    def _labels(self, parameters: dict[str, Any], context: QgsProcessingContext) -> list[str]:
        """A file of each layer of labels. Their copies lie beside a run, which reads them again for its report."""
        beside = self._written.get("OUT") if self._tool.name == "train" else None
        stem = Path(beside or QgsProcessingUtils.generateTempFilename("labels"))
        several = bool(parameters.get(MORE))
        files = []
        if parameters.get("LABELS") not in (None, ""):
            value = parameters["LABELS"]
            if isinstance(value, QgsProcessingFeatureSourceDefinition):  # as where only selected features are wanted
                value = value.source.valueAsString(context.expressionContext())[0]
            layer = self.parameterAsVectorLayer({"LABELS": value}, "LABELS", context)
            source = self.parameterAsSource(parameters, "LABELS", context)
            if layer is None or source is None:
                raise QgsProcessingException(self.invalidSourceError(parameters, "LABELS"))
            copy = stem.with_name(f"{stem.name}-labels.gpkg")
            path, self._layer = layers.vector_file(layer, source, parameters["LABELS"], copy, one_layer=several)
            files.append(path)
        for number, layer in enumerate(self.parameterAsLayerList(parameters, MORE, context), 2):
            if isinstance(layer, QgsRasterLayer):
                files.append(layers.raster_file(layer))
            else:
                copy = stem.with_name(f"{stem.name}-labels-{number}.gpkg")
                source = QgsProcessingFeatureSource(layer, context)
                files.append(layers.vector_file(layer, source, None, copy, one_layer=True)[0])
        return files

    def _cut(self, path: str, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """MS, or the part of it that was asked for: it decides what is mapped."""
        if not self._tool.takes_extent or parameters.get("EXTENT") in (None, ""):
            return path
        crs = self._raster(parameters, "MS", context).crs()
        extent = self.parameterAsExtent(parameters, "EXTENT", context, crs)
        beside = Path(self._written["OUT"])
        return layers.cut(path, extent, beside.with_name(f"{beside.stem}-ms.tif"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        program.run_adcdnet(self._words, feedback)
        written = dict(self._written)
        if self._tool.name == "report" and "OUT" not in written:
            written["OUT"] = str(Path(self.parameterAsString(parameters, "RUN", context)) / "report.html")
        if self._tool.name == "sample":
            raster = layers.raster_file(self._raster(parameters, "MAP", context))
            results.list_classes(written["OUT"], "points", results.classes_of_map(raster))
        if self._tool.name == "suggest":
            run = self.parameterAsString(parameters, "RUN", context)
            results.list_classes(written["OUT"], "places", results.classes_of_run(run))
        for path in written.values():
            if path.endswith(".html"):
                feedback.pushInfo(f"Report: {Path(path).absolute().as_uri()}")
        return written

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        for path, details in self._to_load.items():  # those of a thread's context have taken their place
            context.addLayerToLoadOnCompletion(path, details)
        for path in self._written.values():
            results.restyle(path, context)
        for name in results.IN_FOLDER.get(self._tool.name, ()):
            path = Path(self._written["OUT"]) / name
            if path.exists():
                results.load(str(path), f"{path.parent.name} {path.stem}", context)
        return {}


def _destination(kind: str, common: dict[str, Any]) -> QgsProcessingParameterDefinition:
    """Of a file or folder to write; one that may be left out is left out unless asked for."""
    if common["optional"]:
        common = {**common, "createByDefault": False}
    if kind == "raster":
        return QgsProcessingParameterRasterDestination(**common)
    if kind == "vector":
        return QgsProcessingParameterVectorDestination(**common)
    if kind == "folder":
        return QgsProcessingParameterFolderDestination(**common)
    return QgsProcessingParameterFileDestination(**common, fileFilter=f"{kind.upper()} files (*.{kind})")
