"""What a page is made from: the files of a run, and the images and labels it was trained on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adcdnet.errors import InputError
from adcdnet.files import sha256
from adcdnet.geo.masks import PLAIN, MaskRule
from adcdnet.geo.origins import require_here
from adcdnet.geo.scene import Scene
from adcdnet.mapping.model import Model, folds_name, held_out_name, split_name
from adcdnet.split.parts import check_of_model
from adcdnet.training import provenance as inputs

_OTHER = "other files"  # in the place of a SHA-256: the run was trained with more or fewer of them


@dataclass(frozen=True)
class Source:
    """One input file. known: the SHA-256 that the run recorded in its place, "" for none.

    role: "ms", "pan", "mask" or "labels"; "ms 1", "ms 2" where an image has several files.
    """

    role: str
    path: Path
    sha256: str
    known: str

    @property
    def changed(self) -> bool:
        """Whether this is another file than the run was trained with."""
        return self.known not in ("", self.sha256)


@dataclass(frozen=True)
class RunFiles:
    """A run folder, read. history: rows of history.csv as they are; timing: seconds by stage, and memory.

    scene: the name of the one that is looked at in a run of several, "" where there is one only.
    reading: of the labels: column, layer and min_share, where these were given.
    command: the words that made the run, none where not known.
    bands: to use of "ms" and "pan", as `Scene.open` takes them, of an image that is missing here all.
    others: files that the run's other scenes were trained with, as "SCENE: role".
    mask_rule: which values of the mask hide.
    pan_shift: the correction of PAN that the run was trained with, none where the images are others.
    """

    folder: Path
    model: Model
    scene: str
    sources: Mapping[str, Source]
    others: Mapping[str, inputs.Input]
    bands: Mapping[str, Sequence[str]]
    mask_rule: MaskRule
    pan_shift: tuple[int, int]
    reading: Mapping[str, Any]
    command: tuple[str, ...]
    history: tuple[dict[str, str], ...]
    timing: Mapping[str, float]
    metrics: Mapping[str, Any]

    @property
    def split(self) -> Path | None:
        path = self.folder / split_name(self.scene)
        return path if path.exists() else None

    @property
    def folds(self) -> Path | None:
        """Which fold tests each pixel, of a run of several folds."""
        path = self.folder / folds_name(self.scene)
        return path if path.exists() else None

    @property
    def held_out(self) -> tuple[Path, Path]:
        """The map of labelled ground by members that did not train there, and its probabilities; of such a run."""
        return self.folder / held_out_name(self.scene), self.folder / held_out_name(self.scene, soft=True)

    @property
    def labels(self) -> list[Path]:
        """The files of them; none where the page has no labels."""
        return [self.sources[key].path for key in _files_of("labels", self.sources)]

    @property
    def divided(self) -> Mapping[str, Any]:
        """How this scene's labels were divided: labelled_pixels by part, block, and the part that all of it is in."""
        record = self.model.record
        return record.scenes[self.scene] if self.scene else record.to_dict()

    def open(self) -> Scene:
        """The images as the run was trained on them: their mask, chosen bands and correction. Raises InputError."""
        paths = {role: [self.sources[key].path for key in _files_of(role, self.sources)] for role in ("ms", "pan")}
        mask = self.sources.get("mask")
        scene = Scene.open(
            paths["ms"],
            paths["pan"],
            mask=mask.path if mask else None,
            mask_values=self.mask_rule.values if mask else None,
            mask_bits=self.mask_rule.bits if mask else None,
            ms_bands=self.bands.get("ms"),
            pan_bands=self.bands.get("pan"),
        )
        return scene if self.pan_shift == (0, 0) else scene.with_pan_moved(*self.pan_shift)


def read_run(
    folder: Path,
    given: Mapping[str, Sequence[Path]],
    scene: str | None = None,
    bands: Mapping[str, Sequence[str]] | None = None,
    mask_rule: MaskRule = PLAIN,
) -> RunFiles:
    """The run in a folder; `given` (by role) goes before the files it was trained with. InputError without images, and
    where the files are of two trainings.

    scene: which one of a run of several, by default the first. bands, mask_rule: before those of training. Labels and
    mask of training are left out where the images are others, unless they are given; its correction of PAN always is.
    """
    if not (folder / "model.safetensors").exists():
        raise InputError(
            f"{folder} is not a run: it has no model.safetensors; name a folder that `adcdnet train` wrote"
        )
    model = Model.load(folder)
    recorded, command = inputs.read(folder)
    names = list(model.record.scenes)
    name = _choose(names, scene, folder)
    for raster in (folder / split_name(name), folder / folds_name(name)):
        if raster.exists():
            check_of_model(raster)
    before = f"{name}: " if name else ""
    others = {what: file for what, file in recorded.items() if not what.startswith(before)}
    recorded = {what.removeprefix(before): file for what, file in recorded.items() if what.startswith(before)}
    sources: dict[str, Source] = {}
    for role in ("ms", "pan", "labels", "mask"):
        sources |= _found(role, folder, recorded, given.get(role, ()))
    if any(sources[key].changed for role in ("ms", "pan") for key in _files_of(role, sources)):
        for role in ("mask", "labels"):  # what lies on the scene of training does not lie on another
            if not given.get(role):
                for key in _files_of(role, sources):
                    del sources[key]
        rows = cols = 0
    else:
        rows, cols = model.record.scenes[name]["pan_shift"] if name else model.record.pan_shift
    return RunFiles(
        folder,
        model,
        name,
        sources,
        others,
        {**model.record.chosen_bands, **(bands or {})},
        recorded["mask"].rule if mask_rule.is_plain and "mask" in recorded and not given.get("mask") else mask_rule,
        (rows, cols),
        {} if given.get("labels") else _reading(recorded),
        command,
        tuple(_rows(folder / "history.csv")),
        _json(folder / "timing.json"),
        _json(folder / "metrics.json"),
    )


def _choose(names: Sequence[str], wanted: str | None, folder: Path) -> str:
    """The scene to look at: as wanted or the first of several, "" where there is one only."""
    if wanted is None:
        return names[0] if names else ""
    if wanted not in names:
        known = (
            f"its scenes are {', '.join(names)}; name one of them" if names else "it has one only; leave --scene out"
        )
        raise InputError(f"{folder} was not trained on a scene called {wanted!r}; {known}")
    return wanted


def _found(role: str, folder: Path, recorded: Mapping[str, inputs.Input], given: Sequence[Path]) -> dict[str, Source]:
    """The files of an image, of labels or of a mask, by what they are. InputError where one that is needed is gone."""
    if given:
        known = [recorded[key].sha256 for key in _files_of(role, recorded)]
        if len(known) != len(given):
            known = [_OTHER if known else ""] * len(given)
        keys = [role] if len(given) == 1 else [f"{role} {k}" for k in range(1, len(given) + 1)]
        return {key: Source(key, path, sha256(path), sha) for key, path, sha in zip(keys, given, known, strict=True)}
    sources = {}
    for key in _files_of(role, recorded):
        path = recorded[key].found(beside=folder)
        if path is not None:
            require_here(path, f"{folder / inputs.FILE}")
            sources[key] = Source(key, path, sha256(path), recorded[key].sha256)
        elif role == "mask":
            raise InputError(
                f"the mask of {folder} is gone: {recorded[key].path}; put it back, or into the run's folder"
            )
        elif role != "labels":
            where = f"{recorded[key].path} is gone"
            raise InputError(f"no {role.upper()} image for the report of {folder}: {where}; name it with --{role}")
    if not sources and role in ("ms", "pan"):
        where = "the run does not say which it was trained on"
        raise InputError(f"no {role.upper()} image for the report of {folder}: {where}; name it with --{role}")
    return sources


def _reading(recorded: Mapping[str, inputs.Input]) -> Mapping[str, Any]:
    """How the labels of training were read."""
    return next((recorded[key].reading for key in _files_of("labels", recorded)), {})


def _files_of(role: str, known: Iterable[str]) -> list[str]:
    """Which of the known files make up an image: "ms", or "ms 1", "ms 2" in their order."""
    return [key for key in known if key.split(" ")[0] == role]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it to make the report without it") from error
    return content if isinstance(content, dict) else {}
