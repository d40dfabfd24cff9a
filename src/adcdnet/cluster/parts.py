"""One prediction in parts, each made by a command of its own, on any machine, in any order, as often as one likes.

A part is a run of windows. Its tiles lie in a store that all parts write to. The first part leaves a head there. It
says what the tiles are of and how large. Every other part must agree with it. The last command makes the map.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from adcdnet.cluster.store import Store, store_at
from adcdnet.errors import InputError
from adcdnet.geo.grid import Window, tiles
from adcdnet.geo.scene import Scene
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.engine import Precision, check_scene, default_engine
from adcdnet.mapping.journal import fingerprint
from adcdnet.mapping.memory import Engine, Sizes
from adcdnet.mapping.model import Model
from adcdnet.mapping.predict import make_tiles, sizes_for, write_maps
from adcdnet.mapping.progress import Progress, silent
from adcdnet.mapping.tile import Tile, name_of

_HEAD = "head.json"
_WORDS = {  # of what a head says, in the order in which it is compared
    "model": "another model",
    "grid": "another grid",
    "bands": "other bands",
    "images": "other images",
    "mask": "another rule of the mask",
    "settings": "other settings of --engine, --precision or --device",
    "versions": "other versions",
}
_SHOWN = ("bands", "settings", "versions")  # as they are; others are digests


class Part(NamedTuple):
    """number: from 1 to `of`."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Self:
        """'3/100'. InputError for what is no part."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        part = None if match is None else cls(int(match[1]), int(match[2]))
        if part is None or not 1 <= part.number <= part.of:
            raise InputError(
                f"{text!r} is no part; write 3/100 for the third of 100 parts, the first of which is 1/100"
            )
        return part

    def share(self, count: int) -> range:
        """Which of so many things in a row are its own; all parts together have each of them once."""
        return range((self.number - 1) * count // self.of, self.number * count // self.of)


def place_of_tiles(out: Path) -> str:
    """Where the tiles of a map lie if nothing else is said."""
    return str(out.with_name(f".{out.name}.parts"))


class Head(NamedTuple):
    """What tiles are of, see `_WORDS`; in how many parts they are made, and of which sizes."""

    made_of: dict[str, Any]
    parts: int
    sizes: Sizes

    def to_bytes(self) -> bytes:
        return json.dumps({"made_of": self.made_of, "parts": self.parts, **self.sizes._asdict()}, indent=1).encode()

    @classmethod
    def of(cls, store: Store) -> Self | None:
        """The one in a store. InputError where it is damaged."""
        content = store.get(_HEAD)
        if content is None:
            return None
        try:
            known = json.loads(content)
            head = cls(dict(known["made_of"]), int(known["parts"]), Sizes(int(known["tile"]), int(known["batch"])))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{_HEAD} at {store.place} is damaged; remove all of that folder, and begin anew"
            ) from error
        if min(head.parts, *head.sizes) < 1:
            raise InputError(f"{_HEAD} at {store.place} is damaged; remove all of that folder, and begin anew")
        return head

    def require(self, made_of: dict[str, Any], store: Store) -> None:
        """InputError where tiles of something else are to come beside these."""
        for what, words in _WORDS.items():
            there, here = self.made_of.get(what), made_of[what]
            if there != here:
                both = f" ({there} there, {here} here)" if what in _SHOWN else ""
                raise InputError(
                    f"the tiles at {store.place} are of {words}{both}; use what they were made with, "
                    "or another --out or --tiles"
                )


class _Kept:
    """The tiles in a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.names = store, store.names()

    def find(self, window: Window, seen: int) -> Tile | None:
        tile = self._whole(window) if name_of(window) in self.names else None
        return tile if tile is not None and tile.seen == seen else None

    def keep(self, window: Window, tile: Tile) -> None:
        self.store.put(name_of(window), tile.to_bytes())

    def _whole(self, window: Window) -> Tile | None:
        content = self.store.get(name_of(window))
        try:
            return None if content is None else Tile.of_bytes(content)
        except ValueError:  # to be made anew
            return None


def made_of(
    model: Model, scene: Scene, *, engine: Engine, precision: Precision, device: torch.device
) -> dict[str, Any]:
    """What must be the same in all parts. Raises InputError as `fingerprint`."""
    return {
        "model": model.digest,
        "grid": _digest(scene.grid, scene.pan_shift, scene.phase),
        "bands": scene.chosen,
        "images": fingerprint(model, scene, ()),
        "mask": _digest(scene.mask_rule),
        "settings": [engine, precision, device.type],
        "versions": {"adcdnet": version("adcdnet"), "torch": torch.__version__},
    }


def _digest(*content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()


def predict_part(
    model: Model,
    scene: Scene,
    part: Part,
    *,
    place: str,
    memory: int,
    engine: Engine | None = None,
    precision: Precision = "float32",
    device: str = "auto",
    progress: Progress = silent,
) -> int:
    """Compute the tiles of a part and leave them at `place`, a folder or an address, where the other parts put theirs.
    Returns how many they are. Tiles that are there already, of the same pixels, stay.

    memory, engine, precision, device: as of `predict`; the first part decides on the size of tiles. InputError where
    tiles of something else lie at the place, or in another number of parts.
    """
    check_scene(model, scene)
    engine, where = engine or default_engine(*model.networks), pick_device(device)
    known = made_of(model, scene, engine=engine, precision=precision, device=where)
    store = store_at(place)
    head = Head.of(store)
    if head is None:
        own = Head(known, part.of, sizes_for(model, memory, engine=engine, device=where))
        store.create(_HEAD, own.to_bytes())
        head = Head.of(store) or own
    head.require(known, store)
    if head.parts != part.of:
        raise InputError(
            f"the tiles at {place} are made in {head.parts} parts, and --part {part.number}/{part.of} is asked for; "
            f"use {head.parts} parts, or another --tiles"
        )
    windows = list(tiles(scene.grid.height, scene.grid.width, head.sizes.tile))
    own_share = part.share(len(windows))
    mine = windows[own_share.start : own_share.stop]
    done, total = 0, sum(window.height * window.width for window in mine)
    made = make_tiles(
        model, scene, mine, _Kept(store), sizes=head.sizes, engine=engine, device=where, precision=precision
    )
    for window, _ in made:
        done += window.height * window.width
        progress("part", done, total, {})
    return len(mine)


def finish(
    model: Model,
    scene: Scene,
    *,
    place: str,
    out: Path | str,
    probabilities: Path | str | None = None,
    engine: Engine | None = None,
    precision: Precision = "float32",
    device: str = "auto",
    tau: float = 1.0,
    prior: Sequence[float] | None = None,
    sieved: int = 0,
    read: Sequence[Path | None] = (),
    progress: Progress = silent,
) -> list[str]:
    """The map of all parts, which are removed then; to the byte that of `predict` with tiles of the same size. Returns
    warnings. InputError where a part is missing, and as `predict`.
    """
    check_scene(model, scene)
    engine, where = engine or default_engine(*model.networks), pick_device(device)
    store = store_at(place)
    head = Head.of(store)
    if head is None:
        raise InputError(f"no part is at {place}; run the same command with --part 1/N, 2/N, ... in place of --finish")
    head.require(made_of(model, scene, engine=engine, precision=precision, device=where), store)
    windows = list(tiles(scene.grid.height, scene.grid.width, head.sizes.tile))
    parts = {
        windows[i]: Part(k, head.parts)
        for k in range(1, head.parts + 1)
        for i in Part(k, head.parts).share(len(windows))
    }
    there = store.names()
    missing = sorted({part.number for window, part in parts.items() if name_of(window) not in there})
    if missing:
        verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        raise InputError(f"{_parts_words(missing)} of {head.parts} {verb} not there or not whole; run {them}")

    def tile_of(window: Window) -> Tile:
        content, part = store.get(name_of(window)), parts[window]
        try:
            return Tile.of_bytes(content or b"")
        except ValueError as error:
            raise InputError(
                f"a tile of part {part.number} of {part.of} is damaged; run --part {part.number}/{part.of} again"
            ) from error

    warnings = write_maps(
        model,
        scene,
        ((window, tile_of(window)) for window in windows),
        tile_of,
        out=out,
        probabilities=probabilities,
        tau=tau,
        prior=prior,
        sieved=sieved,
        read=read,
        progress=progress,
    )
    store.remove()
    return warnings


def missing_parts(place: str, shape: tuple[int, int], count: int) -> list[Part]:
    """Those that somebody has still to make of a scene of so many rows and columns: all of `count` where none is begun,
    otherwise in as many parts as were begun. InputError where the head is damaged."""
    store = store_at(place)
    head = Head.of(store)
    if head is None:
        return [Part(k, count) for k in range(1, count + 1)]
    windows = list(tiles(*shape, head.sizes.tile))
    there = store.names()
    parts = [Part(k, head.parts) for k in range(1, head.parts + 1)]
    return [p for p in parts if any(name_of(windows[i]) not in there for i in p.share(len(windows)))]


def _parts_words(numbers: Sequence[int]) -> str:
    """'parts 4, 17', or with the first of very many."""
    shown = ", ".join(map(str, numbers[:20])) + (f" and {len(numbers) - 20} more" if len(numbers) > 20 else "")
    return f"part{'s' if len(numbers) > 1 else ''} {shown}"
