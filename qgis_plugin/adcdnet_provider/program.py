"""The program `adcdnet`: where it is, what it may inherit from QGIS, and how it runs, reports and is stopped."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import QgsProcessingException, QgsProcessingFeedback

SETTING = "ADCDNET_PROGRAM"
OUTSIDE = "ADCDNET_ALLOW_OUTSIDE"  # a setting, and the variable that says the same to adcdnet
OUTSIDE_WORDS = "Virtual rasters (VRT) may name files outside their folder"
SETTINGS = "Settings → Options → Processing → Providers → ADCD-Net"
_LEAKED = re.compile(  # what QGIS sets for itself, and what breaks another Python, GDAL or PROJ
    "PYTHON(HOME|PATH|USERBASE|STARTUP|EXECUTABLE)|__PYVENV_LAUNCHER__|GDAL_(DRIVER_PATH|DATA)|OGR_DRIVER_PATH|"
    "PROJ_(LIB|DATA)|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|DYLD_FRAMEWORK_PATH|VIRTUAL_ENV|QT_.*|QML.*|QGIS_.*"
)
_WINDOWS = sys.platform == "win32"
_ENDING = 20  # seconds from asking a process to end until it is killed; adcdnet itself takes 5 at most


def found() -> str | None:
    """The program that the setting names, or else the one on the PATH."""
    named = str(ProcessingConfig.getSetting(SETTING) or "").strip()
    return shutil.which(named or "adcdnet")


def required() -> str:
    """As `found`. QgsProcessingException where there is none."""
    path = found()
    if path is not None:
        return path
    named = str(ProcessingConfig.getSetting(SETTING) or "").strip()
    what = f"{named}, the program of the settings, cannot be started" if named else "the program adcdnet was not found"
    raise QgsProcessingException(f"{what}; run 'Make an environment for adcdnet', or name it in {SETTINGS}")


def environment() -> dict[str, str]:
    """The variables of a child process: without those that QGIS made for its own libraries; texts are UTF-8."""
    kept = {name: value for name, value in os.environ.items() if not _LEAKED.fullmatch(name)}
    if ProcessingConfig.getSetting(OUTSIDE):
        kept[OUTSIDE] = "1"
    return {**kept, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "TYPER_USE_RICH": "0", "NO_COLOR": "1"}


def run_adcdnet(words: list[str], feedback: QgsProcessingFeedback) -> None:
    """Run a command of adcdnet with its progress. QgsProcessingException with its own line where it fails or stops."""
    run([required(), *words, "--progress", "json"], feedback)


def run(words: list[str], feedback: QgsProcessingFeedback) -> None:
    """Run a program to its end; what it says goes to the log, and steps to the bar.

    QgsProcessingException where it fails, with the line that says why, and where the user stops it.
    """
    feedback.pushCommandInfo(" ".join(shlex.quote(word) for word in words))
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment(),
            start_new_session=not _WINDOWS,  # so that all its processes can be named
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW if _WINDOWS else 0,
        )
    except OSError as error:
        raise QgsProcessingException(f"{words[0]} cannot be started: {error.strerror}") from error
    lines: queue.Queue[tuple[bool, str]] = queue.Queue()
    readers = [
        threading.Thread(target=_read, args=(stream, stream is process.stderr, lines), daemon=True)
        for stream in (process.stdout, process.stderr)
    ]
    for reader in readers:
        reader.start()
    said = _Said(feedback)
    try:
        asked = None
        while process.poll() is None:
            said.take(lines, wait=0.1)
            if feedback.isCanceled() and asked is None:
                asked = time.monotonic()
                _ask_to_end(process)
            if asked is not None and time.monotonic() > asked + _ENDING:
                break
    finally:
        _kill(process)
    for reader in readers:
        reader.join(timeout=5)
    said.take(lines, wait=0)
    if feedback.isCanceled():
        raise QgsProcessingException(said.end() or "stopped")
    if process.returncode:
        raise QgsProcessingException(said.error() or f"{Path(words[0]).name} ended with code {process.returncode}")


def _read(stream: IO[str], is_err: bool, lines: queue.Queue[tuple[bool, str]]) -> None:
    with stream:
        for line in stream:
            lines.put((is_err, line.rstrip()))


class _Said:
    """What a process has said so far, handed on to the log in words."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        self._feedback = feedback
        self._out: list[str] = []
        self._err: list[str] = []

    def take(self, lines: queue.Queue[tuple[bool, str]], wait: float) -> None:
        """All lines that have come; the first is waited for, in seconds."""
        while True:
            try:
                is_err, line = lines.get(timeout=wait) if wait else lines.get_nowait()
            except queue.Empty:
                return
            wait = 0
            if is_err and line.startswith("{"):
                self._step(line)
            elif line:
                (self._err if is_err else self._out).append(line)
                self._tell(line, is_err)

    def _tell(self, line: str, is_err: bool) -> None:
        if is_err and line.startswith("note: "):
            self._feedback.pushWarning(line[len("note: ") :])
        elif is_err and not line.startswith("adcdnet: "):  # these end the process: they become its error
            self._feedback.pushInfo(line)
        elif not is_err:  # tables: the log would join blanks
            self._feedback.pushConsoleInfo(re.sub("  +", lambda blanks: "\u00a0" * len(blanks[0]), line))

    def _step(self, line: str) -> None:
        try:
            step = json.loads(line)
            share = step.pop("step") / step.pop("steps")
            stage = step.pop("stage")
        except (ValueError, KeyError, TypeError, ZeroDivisionError):
            return
        figures = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in step.items() if value is not None]
        self._feedback.setProgress(100 * share)
        self._feedback.setProgressText("  ".join([stage, *figures]))

    def end(self) -> str:
        """The last line of a process that was stopped, which says how to go on."""
        line = next((line for line in reversed(self._err) if line.startswith("adcdnet: stopped")), "")
        words = line.replace("adcdnet: ", "")
        return words.replace("the same command with --resume", "the same with 'Resume' ticked, and the same output,")

    def error(self) -> str:
        """The line that says why a process failed: its own, that of wrong use, or the last."""
        setting = f"tick '{OUTSIDE_WORDS}' in {SETTINGS}"
        for mark in ("adcdnet: ", "Error: ", "ERROR: ", "error: ", "PROBLEM: "):
            for line in (*self._err, *self._out):
                if line.startswith(mark):
                    return line[len(mark) :].replace(f"set {OUTSIDE}=1", setting)
        return (self._err or self._out or [""])[-1]


def _ask_to_end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.CTRL_BREAK_EVENT if _WINDOWS else signal.SIGINT)


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process that did not end when it was asked, and all that it started; nothing where it has ended."""
    if process.poll() is not None:
        return
    if _WINDOWS:
        tree = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(tree, capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
