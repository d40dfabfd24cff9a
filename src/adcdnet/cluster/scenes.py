"""Scenes mapped one by one by whoever does it, and what became of each: done, failed or still open."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from adcdnet.cluster.parts import Part, finish, made_of, predict_part
from adcdnet.errors import InputError
from adcdnet.files import as_json, sha256, write_whole
from adcdnet.geo import alignment
from adcdnet.geo.raster_writer import files_written
from adcdnet.geo.scene import Scene
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.engine import Precision, default_engine
from adcdnet.mapping.memory import Engine
from adcdnet.mapping.model import Model
from adcdnet.mapping.predict import predict
from adcdnet.mapping.progress import Progress, silent
from adcdnet.mapping.trust import require_applicability, write_trust

_RECORDS = ".scenes"  # in the folder of the maps: a file for each scene
SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Work:
    """How scenes are mapped: a model and the options of `predict`, all of it values, so that it can travel.

    model: run folder or model file. digest: of the model that is meant.
    """

    model: Path
    digest: str
    ms_bands: tuple[str, ...] | None = None
    pan_bands: tuple[str, ...] | None = None
    fix_shift: bool = False
    engine: Engine | None = None
    tau: float = 1.0
    prior: tuple[float, ...] | None = None
    memory: int = 2**31
    precision: Precision = "float32"
    sieved: int = 0
    device: str = "auto"
    resume: bool = False

    def load(self) -> Model:
        """Read once a process. InputError where another model lies there by now, or on this machine."""
        if self.digest not in _loaded:
            model = Model.load(self.model)
            if model.digest != self.digest:
                raise InputError(
                    f"{self.model} is another model here than where the work was given out; put the same one there"
                )
            remember(model)
        return _loaded[self.digest]

    def of_tiles(self) -> dict[str, Any]:
        """Options of `predict` that count for every tile."""
        return {"engine": self.engine, "precision": self.precision, "device": self.device}

    def of_map(self) -> dict[str, Any]:
        """Those that count when a map is made of tiles."""
        return {"tau": self.tau, "prior": self.prior, "sieved": self.sieved}

    @contextmanager
    def open(self, files: SceneFiles) -> Iterator[Scene]:
        scene = files.open(ms_bands=self.ms_bands, pan_bands=self.pan_bands)
        with scene:
            yield alignment.fix_shift(scene) if self.fix_shift else scene

    def of_scene(self, scene: Scene) -> str:
        """Digest of all that a map of a scene depends on. InputError where images cannot be told from changed ones."""
        model = self.load()
        engine = self.engine or default_engine(*model.networks)
        known = made_of(model, scene, engine=engine, precision=self.precision, device=pick_device(self.device))
        return hashlib.sha256(repr((known, self.tau, self.prior, self.sieved)).encode()).hexdigest()


_loaded: dict[str, Model] = {}  # the last one, by its digest


def remember(model: Model) -> None:
    """Work with this model does not read it again."""
    _loaded.clear()
    _loaded[model.digest] = model


class Made(NamedTuple):
    """The files that one scene gets, or the folders that those of several go into."""

    map: Path
    probabilities: Path | None = None
    trust: Path | None = None

    def of_scene(self, name: str) -> Made:
        """Those of one of several scenes, called as it is."""
        return Made(*(folder and folder / f"{name}.tif" for folder in self))  # type: ignore[arg-type]

    def written(self) -> list[Path]:
        """With the files that go beside them."""
        return [file for path in self if path is not None for file in files_written(path)]

    def digests(self) -> dict[str, str]:
        return {kind: sha256(path) for kind, path in self._asdict().items() if path is not None and path.is_file()}


@dataclass(frozen=True)
class Mapped:
    """What there is to say of a scene that has its map. shape: of the map. outside: share beyond the area of
    applicability, where trust was asked for. content: see `Work.of_scene`, "" where it cannot be told."""

    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
    shape: tuple[int, int]
    outside: float | None
    content: str
    digests: dict[str, str]


def map_scene(
    work: Work, files: SceneFiles, made: Made, *, place: str | None = None, progress: Progress = silent
) -> Mapped:
    """Make the map of a scene, and what else is wanted. place: where the tiles of all its parts lie, if they do."""
    model = work.load()
    if made.trust is not None:
        require_applicability(model)
    with ExitStack() as stack:
        scene = stack.enter_context(work.open(files))
        content = _content(work, scene)
        started, soft = time.perf_counter(), made.probabilities
        if soft is None and made.trust is not None:
            soft = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "probabilities.tif"
        wanted: dict[str, Any] = {"out": made.map, "probabilities": soft, **work.of_tiles(), **work.of_map()}
        if place is None:
            warnings = predict(model, scene, memory=work.memory, resume=work.resume, progress=progress, **wanted)
        else:
            warnings = finish(model, scene, place=place, progress=progress, **wanted)
        outside = None if made.trust is None or soft is None else write_trust(model, scene, soft, made.trust)
        shape, notes = scene.grid_of(model.grid).shape, tuple(scene.notes)
    seconds = time.perf_counter() - started
    return Mapped(notes, tuple(warnings), seconds, shape, outside, content, made.digests())


def _content(work: Work, scene: Scene) -> str:
    try:
        return work.of_scene(scene)
    except InputError:
        if work.resume:
            raise
        return ""  # it can be mapped, but not be told from another later


def make_part(work: Work, files: SceneFiles, part: Part, place: str, *, progress: Progress = silent) -> int:
    """The tiles of a part of a scene, see `predict_part`."""
    with work.open(files) as scene:
        return predict_part(
            work.load(), scene, part, place=place, memory=work.memory, progress=progress, **work.of_tiles()
        )


def deal(scenes: Sequence[SceneFiles], part: Part | None) -> list[SceneFiles]:
    """The scenes of a part: every `part.of`-th. It depends on nothing but their order."""
    return list(scenes) if part is None else list(scenes[part.number - 1 :: part.of])


class Records:
    """What became of each scene of a list, beside their maps: one small file each, so that many may write."""

    def __init__(self, made: Made, work: Work) -> None:
        self.made, self._folder = made, made.map / _RECORDS
        travels = {**asdict(work), "model": "", "memory": 0, "device": "", "resume": False}  # no map depends on these
        self._work = hashlib.sha256(repr(sorted(travels.items())).encode()).hexdigest()

    def done(self, name: str, mapped: Mapped) -> None:
        figures = {"seconds": round(mapped.seconds, 3), "pixels": mapped.shape[0] * mapped.shape[1]}
        self._write(name, {"state": "done", **figures, "content": mapped.content, "digests": mapped.digests})

    def failed(self, name: str, reason: str) -> None:
        self._write(name, {"state": "failed", "reason": " ".join(reason.split())})

    def open(self, name: str) -> None:
        """Nothing is known of it any more."""
        (self._folder / f"{name}.json").unlink(missing_ok=True)

    def is_mapped(self, name: str, content: str) -> bool:
        """Whether all that is wanted of a scene lies there as it was made, of this content."""
        known = self._read(name)
        own = self.made.of_scene(name)
        wanted = [kind for kind, path in own._asdict().items() if path is not None]
        before = known.get("digests", {})
        if not content or known.get("content") != content or set(wanted) - set(before):
            return False
        digests = own.digests()
        return all(digests.get(kind) == before[kind] for kind in wanted)

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """How many scenes are done, failed and open, and each of them; written to `SUMMARY` beside their maps too."""
        scenes = list[dict[str, Any]]()
        for name in names:
            known = self._read(name)
            told = ("state", "reason", "seconds", "pixels")
            shown: dict[str, Any] = {key: known[key] for key in told if key in known}
            scenes.append({"scene": name, "state": "open", **shown})
        counts = {state: sum(scene["state"] == state for scene in scenes) for state in ("done", "failed", "open")}
        content = {**counts, "scenes": scenes}
        write_whole(self.made.map / SUMMARY, as_json(content))
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self._folder} cannot be written: {error.strerror}; choose another --out") from error
        write_whole(self._folder / f"{name}.json", as_json({"work": self._work, **content}))

    def _read(self, name: str) -> dict[str, Any]:
        """Nothing where it is not there, damaged, or of other work."""
        try:
            known = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
            ours = known["work"] == self._work and known["state"] in ("done", "failed")
            return dict(known) if ours and isinstance(known.get("digests", {}), dict) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
