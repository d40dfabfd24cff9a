"""Environments that the plugin makes, from a small wheel and without a network."""

import os

from session import FOLDER, finish, program, run, use

os.environ["PIP_NO_INDEX"] = "1"
wheel = {"SOURCE": str(FOLDER / "adcdnet-9.9-py3-none-any.whl"), "PYTHON": str(FOLDER / "python")}
said = {"made": run("environment", **wheel, FOLDER=str(FOLDER / "own")), "used": program.found()}
said["again"] = run("environment", **wheel, FOLDER=str(FOLDER / "own"))
said["other"] = run("environment", **wheel, FOLDER=str(FOLDER / "other"))
lost = {**wheel, "SOURCE": str(FOLDER / "nothing.whl")}
said["failed"] = run("environment", **lost, FOLDER=str(FOLDER / "failing"))
use(FOLDER / "unwell")
said["unwell"] = run("doctor")
finish(**said)
