"""scenes.toml: several scenes and their files, named once and used by every command that takes more than one.

classes = "classes.csv"              # optional, one table for all

[[scene]]
name = "valley"                      # optional, the folder's name otherwise
ms = "valley/ms.tif"                 # paths relative to the file
pan = "valley/pan.tif"               # either may be a list of files on one grid, e.g. one per band
mask = "valley/clouds.tif"           # optional, on the grid of MS or PAN: invalid where it is not 0,
mask_values = [3, 8, 9, 10]          # or only where it has one of these values,
mask_bits = [1, 3, 4]                # or any of these bits
labels = "valley/labels.gpkg"         # or a list of files, such as one for each year
column = "class"                     # optional, of a polygon file
layer = "train"                      # optional, of a file with several
min_share = 0.5                      # optional, the share of a pixel that its class must cover
part = "test"                        # optional: all of it trains, validates or tests; otherwise it is divided,
split = "split.tif"                  # or as this raster says, values as in a run's split.tif
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adcdnet.errors import InputError, one_line
from adcdnet.files import read_text_file, write_whole
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.origins import require_here
from adcdnet.geo.scene import Scene

_MOST, _MOST_MAPPED = 1000, 100_000  # scenes of a file: those that train are open at once, others one by one


class SceneFiles(BaseModel):
    """Where one scene lies. labels: None only where nothing is trained or judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    ms: Path | Annotated[tuple[Path, ...], Field(min_length=1)]
    pan: Path | Annotated[tuple[Path, ...], Field(min_length=1)]
    mask: Path | None = None
    mask_values: tuple[int, ...] = ()
    mask_bits: tuple[int, ...] = ()
    labels: Path | Annotated[tuple[Path, ...], Field(min_length=1)] | None = None
    classes: Path | None = None
    column: str | None = None
    layer: str | None = None
    min_share: float | None = None
    part: Literal["train", "validation", "test"] | None = None
    split: Path | None = None

    def files(self) -> list[Path]:
        """All files that say what the scene is."""
        masks = () if self.mask is None else (self.mask,)
        return [*_several(self.ms), *_several(self.pan), *self.label_files, *masks]

    @property
    def label_files(self) -> tuple[Path, ...]:
        """Those of the labels; none where there are no labels."""
        return _several(self.labels or ())

    def open(self, *, ms_bands: Sequence[str] | None = None, pan_bands: Sequence[str] | None = None) -> Scene:
        """Both images, open for reading; arguments as of `Scene.open`. Raises InputError."""
        return Scene.open(
            self.ms,
            self.pan,
            mask=self.mask,
            mask_values=self.mask_values,
            mask_bits=self.mask_bits,
            ms_bands=ms_bands,
            pan_bands=pan_bands,
        )

    def read_labels(self, grid: Grid) -> Labels:
        """The labels on the scene's grid, with the class table that is named. Raises InputError."""
        if self.labels is None:
            raise InputError(f'scene {self.name!r} names no labels; add labels = "..." to it')
        table = None if self.classes is None else ClassTable.read(self.classes)
        return read_labels(
            self.label_files,
            grid,
            classes=table,
            column=self.column,
            layer=self.layer,
            min_share=self.min_share,
        )


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: list[SceneFiles]
    classes: Path | None = None


def read_scenes(path: Path | str, *, labelled: bool = True) -> list[SceneFiles]:
    """The scenes of a file, their paths made absolute. labelled: each must name labels.

    Raises InputError: not TOML, no scene, one name twice, a name that cannot be that of a file.
    """
    path = Path(path)
    try:
        content = _File.model_validate(tomllib.loads(read_text_file(path).decode("utf-8-sig")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"scenes {path} cannot be read: {error}") from error
    except ValidationError as error:
        raise InputError(f"scenes {path}: {one_line(error)}; each [[scene]] needs ms, pan and labels") from error
    most = _MOST if labelled else _MOST_MAPPED
    if len(content.scene) > most:
        raise InputError(f"scenes {path} names {len(content.scene)} scenes, {most} at most are read; divide it")
    scenes = [_absolute(scene, path.resolve().parent, content.classes) for scene in content.scene]
    names = [scene.name for scene in scenes]
    for scene in scenes:
        for file in (*scene.files(), scene.split, scene.classes):
            require_here(file or path, f"scenes {path}")
        if labelled and scene.labels is None:
            raise InputError(
                f"scenes {path}: scene {scene.name!r} has no labels; each [[scene]] needs ms, pan and labels"
            )
        if scene.part is not None and scene.split is not None:
            raise InputError(f"scenes {path}: scene {scene.name!r} has a part and a split; give one of the two")
        if Path(scene.name).name != scene.name:
            raise InputError(f"scenes {path}: {scene.name!r} cannot be part of a file's name; leave out its slashes")
    if not scenes or len(set(names)) < len(names):
        raise InputError(
            f"scenes {path} names {names or 'no scene'}; at least one is needed, each by a name of its own"
        )
    return scenes


def write_scenes(path: Path | str, scenes: Iterable[tuple[SceneFiles, Sequence[str]]]) -> None:
    """Write scenes.toml, each scene with remarks above it, as comments. Paths become relative to the file.

    Raises InputError where the file cannot be written.
    """
    path = Path(path)
    folder = path.resolve().parent

    def placed(value: Any) -> Any:
        if isinstance(value, Path):
            return _relative(value, folder)
        return [placed(one) for one in value] if isinstance(value, tuple) else value

    parts = []
    for scene, remarks in scenes:
        given = {name: placed(value) for name, value in scene if value not in (None, (), "")}
        parts.append("".join(f"# {remark}\n" for remark in remarks) + f"[[scene]]\n{tomli_w.dumps(given)}")
    write_whole(path, "\n".join(parts).encode())


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return path.resolve().as_posix()


def _absolute(scene: SceneFiles, folder: Path, classes: Path | None) -> SceneFiles:
    files = {"mask": scene.mask, "split": scene.split, "classes": scene.classes or classes}
    images = {
        what: folder / given if isinstance(given, Path) else tuple(folder / path for path in given)
        for what, given in (("ms", scene.ms), ("pan", scene.pan), ("labels", scene.labels))
        if given is not None
    }
    placed = {name: None if file is None else folder / file for name, file in files.items()}
    name = scene.name or (folder / _several(scene.ms)[0]).parent.name
    return scene.model_copy(update={**placed, **images, "name": name})


def _several(files: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    return (files,) if isinstance(files, Path) else files
