"""The logits of one prediction, tile by tile, in a hidden folder beside the map until that is whole."""

from __future__ import annotations

import glob
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from adcdnet.errors import InputError
from adcdnet.files import HeldFolder, remove_left, write_whole
from adcdnet.geo.grid import Window
from adcdnet.geo.origins import address_of
from adcdnet.geo.raster import files_of, headers_of
from adcdnet.geo.scene import Scene
from adcdnet.mapping.memory import Sizes
from adcdnet.mapping.model import Model
from adcdnet.mapping.tile import Tile, name_of

_TILES = ".tiles"  # how the folder's name ends
_HEAD = "head.json"  # in it where tiles last: what they are of
_SAMPLE, _SAMPLES = 2**16, 16  # bytes of a sample, and how many tell a file from others; tiles know their own pixels
_PATIENCE = 30  # seconds that a server may take to answer
_OF_SERVER, _OF_STORE = re.compile("https?://"), re.compile("/vsi(s3|gs|az|adls|oss)/|(s3|gs|az|oss)://")


class Journal:
    """The tiles of the prediction that `fingerprint` stands for. finished: windows that need no more work.

    chosen: the bands asked for, of "ms" and "pan", where they were. lasting: a stopped prediction leaves them, and
    another one goes on from them; otherwise they are its own.
    """

    def __init__(self, out: Path, fingerprint: str, chosen: Mapping[str, Sequence[str]], *, lasting: bool) -> None:
        self.out, self.lasting = out, lasting
        self.folder = _folder(out)
        self._held: HeldFolder | None = None
        self.fingerprint = fingerprint
        self.chosen = {image: list(bands) for image, bands in chosen.items()}
        self.finished: set[Window] = set()

    def begin(self, sizes: Sizes) -> Sizes:
        """Find what an earlier call left, or begin anew; returns the sizes to go on with.

        InputError where the folder cannot be written, where what it holds cannot be understood, and where all is as it
        was but the bands that are asked for.
        """
        if not self.lasting:
            try:
                self._held = HeldFolder.make(self.out.parent, f".{self.out.name}.", _TILES)
            except OSError as error:
                raise InputError(f"{self.out} cannot be written: {error.strerror}; choose another --out") from error
            self.folder = self._held.path
            return sizes
        head = self.folder / _HEAD
        if head.exists():
            left = _read_head(head)
            if left is None:
                raise InputError(
                    f"{head} is damaged, which says what the tiles beside it are of; leave out --resume to begin anew"
                )
            if left["fingerprint"] == self.fingerprint:
                if (before := left["chosen"]) != self.chosen:
                    raise InputError(
                        f"{self.folder} holds tiles made from {_words(before)}, and {_words(self.chosen)} are "
                        "asked for now; ask for those again, or leave out --resume to begin anew"
                    )
                for file in self.folder.glob("*.npz"):
                    self.finished.add(Window(*(int(part) for part in file.stem.split("_"))))
                sizes = Sizes(left["tile"], left["batch"])
            else:
                self.forget()
        try:
            self.folder.mkdir(exist_ok=True)
            self._held = HeldFolder.hold(self.folder)  # another call of the same may be at work in it
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {error.strerror}") from error
        content = {"fingerprint": self.fingerprint, "chosen": self.chosen, **sizes._asdict()}
        write_whole(head, json.dumps(content).encode())
        return sizes

    def find(self, window: Window, seen: int) -> Tile | None:
        """The tile that an earlier call made of the same pixels, or None. InputError for one that is damaged."""
        if window not in self.finished:
            return None
        tile = self.read(window)
        return tile if tile.seen == seen else None

    def keep(self, window: Window, tile: Tile) -> None:
        """InputError where that fails."""
        try:
            write_whole(self._file(window), tile.to_bytes())
        except InputError as error:
            raise InputError(
                f"{self.out} cannot be written: it is made of tiles beside it, 4 bytes a pixel and class, and {error}"
            ) from error

    def read(self, window: Window) -> Tile:
        """InputError for a file that is damaged."""
        file = self._file(window)
        try:
            return Tile.of_bytes(file.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{file} is damaged; remove it, and --resume computes this tile anew") from error

    def end(self, *, whole: bool) -> None:
        """Remove the tiles, if the map is whole or nobody may go on from them; those of ended calls with it."""
        if whole or (self._held is not None and not self.lasting):
            self.forget()
        if self._held is not None:
            self._held.release()
        if whole:
            _clear(self.out)

    def forget(self) -> None:
        if self._held is not None:
            self._held.remove()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, window: Window) -> Path:
        return self.folder / name_of(window)


def _clear(out: Path) -> None:
    """Remove the tiles that calls stopped earlier left beside `out`; those that a running call works on stay."""
    killed = out.parent.glob(f".{glob.escape(out.name)}.*{_TILES}")
    remove_left(folder for folder in killed if not (folder / _HEAD).exists())  # with a head, those of another map
    folder = _folder(out)
    with suppress(OSError):
        if (folder / _HEAD).exists() and (left := HeldFolder.hold(folder)) is not None:
            left.remove()


def fingerprint(model: Model, scene: Scene, settings: tuple[object, ...]) -> str:
    """What must be the same for finished tiles to be used again, on whatever machine: network, statistics, shares,
    images by their content, what of a mask hides, settings. No path and no time of a file counts.

    InputError where images lie where no change of them can be seen.
    """
    images = [_pins(path) for path in scene.paths]
    content = model.digest, images, scene.grid, scene.pan_shift, scene.mask_rule, settings
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _pins(path: Path) -> list[tuple[str, int, str]]:
    """What tells one content of an image from another: of all files that it is read from, or of what a server has."""
    address = address_of(path)
    remote = address.removeprefix("/vsicurl/")
    if _OF_SERVER.match(remote) or _OF_STORE.match(remote):
        return [_pin_of_address(remote)]
    files = files_of(path)
    # the file may lie elsewhere by now, but what is taken out of an archive or of a file of several must be the same
    taken = "" if path.is_file() else address
    for file in files:
        taken = taken.replace(str(file), file.name)
    return [(taken, 0, ""), *map(_pin, files)]


def _pin(file: Path) -> tuple[str, int, str]:
    """Name, size, and samples from all over a file. InputError if it is gone."""
    try:
        size = file.stat().st_size
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            for place in sorted({max(0, size - _SAMPLE) * k // (_SAMPLES - 1) for k in range(_SAMPLES)}):
                opened.seek(place)
                digest.update(opened.read(_SAMPLE))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}; check the path and its permissions") from error
    return file.name, size, digest.hexdigest()


def _pin_of_address(address: str) -> tuple[str, int, str]:
    """Name, size, and the version that a server tells. InputError where it tells none."""
    plain = urlsplit(address)._replace(query="", fragment="").geturl()  # what follows may be secret, and change
    told = _told_by_server(address, plain) if _OF_SERVER.match(address) else headers_of(address)
    if not told:
        raise InputError(
            f"{plain} cannot be asked for its version; check the address and your rights, copy it to a file, or "
            "leave out --resume"
        )
    version = told.get("etag") or told.get("last-modified")
    size = told.get("content-range", "").rpartition("/")[2] or told.get("content-length", "")
    if not version or not size.isdigit():
        raise InputError(
            f"{plain} comes with neither ETag nor Last-Modified, so nobody can tell whether it has changed; "
            "copy it to a file, or leave out --resume"
        )
    return PurePosixPath(urlsplit(address).path).name, int(size), version


def _told_by_server(address: str, plain: str) -> dict[str, str]:
    """Headers of an answer, by small names."""
    try:
        # one byte is asked for: an address may be signed for reading alone, and not for asking about it
        with urlopen(Request(address, headers={"Range": "bytes=0-0"}), timeout=_PATIENCE) as answer:
            return {name.lower(): value for name, value in answer.headers.items()}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{plain} cannot be asked for its version: {type(error).__name__}; copy it to a file, or leave out --resume"
        ) from None


def _read_head(path: Path) -> dict[str, Any] | None:
    """What was written by `Journal.begin`; None where the file is damaged."""
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        sizes = Sizes(int(head["tile"]), int(head["batch"]))
        of_map = {"fingerprint": str(head["fingerprint"]), "chosen": dict(head.get("chosen", {}))}
        return of_map | sizes._asdict() if min(sizes) > 0 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _words(chosen: Mapping[str, Sequence[str]]) -> str:
    """'MS bands 4,1 and PAN bands 1'."""
    return " and ".join(f"{image.upper()} bands {','.join(bands)}" for image, bands in chosen.items()) or "all bands"


def _folder(out: Path) -> Path:
    return out.with_name(f".{out.name}{_TILES}")
