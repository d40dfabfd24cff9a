"""Tiles that were read, on disk until the files are made of them, so that a run that ends early can go on."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from adcdnet.acquire.choose import Step
from adcdnet.acquire.pair import Plan, Tile, read_tile
from adcdnet.errors import InputError
from adcdnet.files import write_whole
from adcdnet.geo.grid import Window


class TileStore:
    """The tiles of a plan in a folder of their own below `work`; those of other plans there are removed."""

    def __init__(self, work: Path, plan: Plan) -> None:
        self._plan = plan
        folder = work / f"tiles-{_key(plan)}"
        for other in work.glob("tiles-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        self._paths = [folder / f"{number}.npz" for number in range(len(plan.tiles))]

    def fill(self, threads: int, step: Step) -> None:
        """Read what is not there yet. InputError says how much is kept where the net fails."""
        windows = self._plan.tiles
        with ThreadPoolExecutor(threads) as pool:
            for number, (window, path) in enumerate(zip(windows, self._paths, strict=True)):
                step("read", number, len(windows))
                if _load(path) is None:
                    try:
                        _save(path, read_tile(self._plan, window, pool))
                    except InputError as error:
                        raise InputError(
                            f"{error}; {sum(one.exists() for one in self._paths)} of {len(windows)} tiles are kept, "
                            "and the same command goes on from there"
                        ) from None
        step("read", len(windows), len(windows))

    def __iter__(self) -> Iterator[tuple[Window, Tile]]:
        for window, path in zip(self._plan.tiles, self._paths, strict=True):
            tile = _load(path)
            if tile is None:
                raise InputError(f"{path} was changed while it was used; run the same command again")
            yield window, tile

    def __len__(self) -> int:
        return len(self._paths)


def _key(plan: Plan) -> str:
    """The same for the same pixels of the same files."""
    parts = [
        [part.opened.item.id, part.opened.item.properties.get("updated"), part.row, part.col]
        + [raster.address for raster in (*part.opened.ms, *part.opened.pan)]
        + [offset.value for offset in part.opened.offsets]
        for part in plan.parts
    ]
    text = json.dumps([plan.grid.shape, tuple(plan.grid.transform), plan.grid.crs, plan.ratio, plan.nodata, parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _save(path: Path, tile: Tile) -> None:
    content = io.BytesIO()
    np.savez(content, **{**tile._asdict(), "below": np.array(tile.below)})
    write_whole(path, content.getvalue())


def _load(path: Path) -> Tile | None:
    """A tile that was saved; None where it is not there, or not whole."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return Tile(content["ms"], content["pan"], content["mask"], content["source"], int(content["below"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
