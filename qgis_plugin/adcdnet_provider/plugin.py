"""The plugin and its provider: the list of algorithms, one setting, and two entries in the menu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QAction, QPushButton

from . import program
from .algorithm import CommandAlgorithm
from .environment import MakeEnvironment, TestInstallation
from .tools import TOOLS
from .uncertain import UncertainGround

ICON = str(Path(__file__).with_name("icon.svg"))
TITLE = "ADCD-Net"


class Provider(QgsProcessingProvider):
    """All algorithms, under the id `adcdnet`."""

    def id(self) -> str:
        return "adcdnet"

    def name(self) -> str:
        return TITLE

    def longName(self) -> str:
        return "ADCD-Net: land-cover maps from MS and PAN"

    def icon(self) -> QIcon:
        return QIcon(ICON)

    def load(self) -> bool:
        ProcessingConfig.settingIcons[TITLE] = self.icon()
        words = "Program adcdnet (empty: the one on the PATH)"
        ProcessingConfig.addSetting(Setting(TITLE, program.SETTING, words, "", valuetype=Setting.FILE))
        ProcessingConfig.addSetting(Setting(TITLE, program.OUTSIDE, program.OUTSIDE_WORDS, False))
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        for name in (program.SETTING, program.OUTSIDE):
            ProcessingConfig.removeSetting(name)

    def loadAlgorithms(self) -> None:
        for tool in TOOLS:
            self.addAlgorithm(CommandAlgorithm(tool))
        for own in (UncertainGround, TestInstallation, MakeEnvironment):
            self.addAlgorithm(own())


class Plugin:
    """What QGIS makes of the plugin; iface is None in qgis_process, which has no window."""

    def __init__(self, iface: Any) -> None:
        self._iface = iface
        self._provider: Provider | None = None
        self._actions: list[QAction] = []

    def initProcessing(self) -> None:
        self._provider = Provider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        self.initProcessing()
        for algorithm in (TestInstallation(), MakeEnvironment()):
            action = QAction(QIcon(ICON), algorithm.displayName(), self._iface.mainWindow())
            name = algorithm.name()
            action.triggered.connect(lambda _=False, name=name: _open(name))
            self._iface.addPluginToMenu(TITLE, action)
            self._actions.append(action)
        if program.found() is None:
            self._offer_environment()

    def unload(self) -> None:
        for action in self._actions:
            self._iface.removePluginMenu(TITLE, action)
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)

    def _offer_environment(self) -> None:
        message = self._iface.messageBar().createMessage(TITLE, "The program adcdnet was not found.")
        button = QPushButton("Make an environment for it …")
        button.clicked.connect(lambda: _open(MakeEnvironment().name()))
        message.layout().addWidget(button)
        self._iface.messageBar().pushWidget(message)


def _open(name: str) -> None:
    import processing

    processing.execAlgorithmDialog(f"adcdnet:{name}")
