"""An environment of its own for adcdnet, apart from QGIS's Python, and a test of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsApplication,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputFile,
    QgsProcessingParameterFile,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from . import program
from .tools import COMMANDS

VERSIONS = ("3.11", "3.12", "3.13")  # of Python, that adcdnet runs with
_BIN = "Scripts" if sys.platform == "win32" else "bin"
_EXE = ".exe" if sys.platform == "win32" else ""


class TestInstallation(QgsProcessingAlgorithm):
    """adcdnet doctor"""

    def createInstance(self) -> TestInstallation:
        return TestInstallation()

    def name(self) -> str:
        return "doctor"

    def displayName(self) -> str:
        return "Test the installation"

    def icon(self) -> QIcon:
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def shortHelpString(self) -> str:
        return "\n\n".join(COMMANDS["doctor"]["help"])

    def initAlgorithm(self, config: dict[str, Any] | None = None) -> None:
        """It has no parameters."""

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        feedback.pushInfo(f"Program: {program.required()}")
        program.run_adcdnet(["doctor"], feedback)
        return {}


class MakeEnvironment(QgsProcessingAlgorithm):
    """A virtual environment with adcdnet in it, which the setting of the provider then names."""

    def createInstance(self) -> MakeEnvironment:
        return MakeEnvironment()

    def name(self) -> str:
        return "environment"

    def displayName(self) -> str:
        return "Make an environment for adcdnet"

    def icon(self) -> QIcon:
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def shortHelpString(self) -> str:
        return (
            "Install adcdnet in an environment of its own, by uv where it is found, or else by venv and pip. QGIS's "
            "own Python is not changed. Several hundred MB come from the package index that pip is set to.\n\n"
            f"The program is then named in {program.SETTINGS}."
        )

    def initAlgorithm(self, config: dict[str, Any] | None = None) -> None:
        file, folder = QgsProcessingParameterFile.File, QgsProcessingParameterFile.Folder
        # no default: until the package is on an index, its name there could be anybody's
        source = QgsProcessingParameterString("SOURCE", "What pip installs")
        source.setHelp("A wheel of adcdnet (.whl), a folder with its sources, or its name where your index has it.")
        default = str(Path(QgsApplication.qgisSettingsDirPath()) / "adcdnet")
        place = QgsProcessingParameterFile("FOLDER", "Folder of the environment", folder, defaultValue=default)
        place.setHelp("A new or empty folder, or an environment, in which adcdnet is then brought up to date.")
        python = QgsProcessingParameterFile("PYTHON", "Python", file, optional=True)
        python.setHelp(f"Program python of version {', '.join(VERSIONS)}. Left out, one is looked for.")
        for parameter in (source, place, python):
            self.addParameter(parameter)
        self.addOutput(QgsProcessingOutputFile("PROGRAM", "Program adcdnet"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        folder = Path(self.parameterAsString(parameters, "FOLDER", context))
        source = self.parameterAsString(parameters, "SOURCE", context)
        is_new = not folder.exists() or not any(folder.iterdir())
        if not is_new and not (folder / "pyvenv.cfg").exists():
            raise QgsProcessingException(f"{folder} holds other files; choose a new or empty folder")
        named = self.parameterAsString(parameters, "PYTHON", context)
        uv = shutil.which("uv")
        inside = str(folder / _BIN / f"python{_EXE}")
        try:
            if is_new:
                feedback.setProgressText("Making the environment")
                python = named or find_python(uv)
                by_uv = [uv or "", "venv", "--python", python, str(folder)]
                program.run(by_uv if uv else [python, "-m", "venv", str(folder)], feedback)
            feedback.setProgress(10)
            feedback.setProgressText(f"Installing {source}; some minutes")
            by_uv = [uv or "", "pip", "install", "--python", inside, "--upgrade", source]
            by_pip = [inside, "-m", "pip", "install", "--disable-pip-version-check", "--upgrade", source]
            program.run(by_uv if uv else by_pip, feedback)
            feedback.setProgress(90)
            made = str(folder / _BIN / f"adcdnet{_EXE}")
            program.run([made, "doctor"], feedback)
        except QgsProcessingException:
            if is_new:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._made = made
        return {"PROGRAM": made}

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        ProcessingConfig.setSettingValue(program.SETTING, self._made)
        return {}


def find_python(uv: str | None) -> str:
    """A Python for the environment: what uv will choose, or a program. QgsProcessingException where none fits."""
    if uv:
        return f">={VERSIONS[0]},<3.{int(VERSIONS[-1].split('.')[1]) + 1}"
    names = [f"python{version}" for version in reversed(VERSIONS)] + ["python3", "python"]
    own = [Path(sys.exec_prefix) / name for name in (f"python{_EXE}", f"bin/python3{_EXE}")]
    for path in [*(shutil.which(name) for name in names), *map(str, own)]:
        if path is not None and os.access(path, os.X_OK) and _version_of(path) in VERSIONS:
            return path
    raise QgsProcessingException(
        f"no Python {VERSIONS[0]} to {VERSIONS[-1]} with venv was found; install one, or uv, or name it under 'Python'"
    )


def _version_of(python: str) -> str:
    """'3.11'; nothing where it cannot make environments."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    options = {"capture_output": True, "text": True, "env": program.environment(), "check": False}
    done = subprocess.run([python, "-c", code], **options)
    return done.stdout.strip() if done.returncode == 0 else ""
