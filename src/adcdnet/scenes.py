"""scenes.toml: several scenes and their files, named once and used by every command that takes more than one.

classes = "classes.csv"              # optional, one table for all

[[scene]]
name = "valley"                      # optional, the folder's name otherwise
ms = "valley/ms.tif"                 # paths relative to the file
pan = "valley/pan.tif"
labels = "valley/labels.gpkg"
column = "class"                     # optional, of a polygon file
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from adcdnet.classes import ClassTable
from adcdnet.config import one_line
from adcdnet.errors import InputError


class SceneFiles(BaseModel):
    """Where one scene lies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    ms: Path
    pan: Path
    labels: Path
    classes: Path | None = None
    column: str | None = None

    def class_table(self) -> ClassTable | None:
        """The class table, where one is named."""
        return None if self.classes is None else ClassTable.read(self.classes)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: list[SceneFiles]
    classes: Path | None = None


def read_scenes(path: Path | str) -> list[SceneFiles]:
    """The scenes of a file, their paths made absolute. Raises InputError: not TOML, no scene, one name twice."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            found = _File.model_validate(tomllib.load(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"scenes {path} cannot be read: {error}") from error
    except ValidationError as error:
        raise InputError(f"scenes {path}: {one_line(error)}; each [[scene]] needs ms, pan and labels") from error
    scenes = [_absolute(scene, path.resolve().parent, found.classes) for scene in found.scene]
    names = [scene.name for scene in scenes]
    if not scenes or len(set(names)) < len(names):
        raise InputError(
            f"scenes {path} names {names or 'no scene'}; at least one is needed, each by a name of its own"
        )
    return scenes


def _absolute(scene: SceneFiles, folder: Path, classes: Path | None) -> SceneFiles:
    files = {"ms": scene.ms, "pan": scene.pan, "labels": scene.labels, "classes": scene.classes or classes}
    placed = {name: None if file is None else folder / file for name, file in files.items()}
    return scene.model_copy(update={**placed, "name": scene.name or (folder / scene.ms).parent.name})
