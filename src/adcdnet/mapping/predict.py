"""From a model and a scene to a map: cut, classify, stitch, one window at a time.

Two engines give the same numbers. `patch` cuts one patch per pixel and is the definition; `dense` convolves a window
once for all its pixels. Memory is bounded by the window, not by the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.files import MODEL_TAG, WriteBehind, refuse_overwriting, require_file_name
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window, tiles
from adcdnet.geo.maps import sieve
from adcdnet.geo.origins import parts_of
from adcdnet.geo.raster_writer import RasterWriter, files_written
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.engine import Precision, check_scene, default_engine, scene_logits, valid_targets
from adcdnet.mapping.journal import Journal, fingerprint
from adcdnet.mapping.memory import Engine, Sizes, give_back, resident, sizes_of_model
from adcdnet.mapping.model import Model, Run
from adcdnet.mapping.progress import Progress, silent
from adcdnet.mapping.tile import BandSums, Tile, Tiles, checksum
from adcdnet.mapping.trust import MUCH_OUTSIDE, share_outside

DEFAULT_MEMORY = 2 * 2**30  # bytes
_FRESH = 2**29  # bytes: more than a command holds before it predicts
_READ_ON_GPU = 2**30  # bytes that all kinds of cells read together take there
FAR = 3.0  # training deviations: band means of a new scene beyond this deserve a warning
_NAMED = 3  # of the bands that lie far off


def predict(
    model: Model | Run | Path | str,
    scene: Scene,
    *,
    out: Path | str,
    probabilities: Path | str | None = None,
    engine: Engine | None = None,
    tau: float = 1.0,
    prior: Sequence[float] | None = None,
    memory: int = DEFAULT_MEMORY,
    precision: Precision = "float32",
    resume: bool = False,
    sieved: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> list[str]:
    """Write the map of a scene (uint8 class values, 0 where invalid) and, if wanted, probabilities (float32, one band
    per class, nan where invalid), on the grid of the network's targets: that of MS or of PAN, on the common extent.
    `model` may be a run, its folder or a model file. Returns warnings.

    prior: (K,) shares in which classes are expected in this scene; None: as they were labelled. tau is its exponent.
    The scene is gone through once to classify it, and its logits are kept beside the map, 4 bytes a pixel and class,
    until that is written: how often classes lie around a pixel is known at the end only (`local_priors`).

    memory: bytes of resident memory, all of the process included, that tile and batch are chosen for; on a GPU, of
    the GPU's memory, CUDA's own not counted. Where less can be had, tiles are worked on in parts, as a warning says.
    resume: where the call is stopped, leave the finished tiles beside the map, and go on from those that an earlier
    call with the same model, scene, bands, engine and precision left; the file is the same as from one whole call.
    sieved: give patches of the map of fewer of its pixels than this to their largest neighbour (0: none). Probabilities
    stay as they are. The whole map is held for it, some 10 bytes a pixel on top of `memory`.
    device: "auto" is the GPU if there is one; afterwards the network is back where it was.
    InputError if the scene does not fit the model, nothing is valid or a file cannot be written.
    """
    file = None if isinstance(model, Model | Run) else Path(model)
    if isinstance(model, Run):
        model = model.model
    elif not isinstance(model, Model):
        model = Model.load(Path(model))
    engine = engine or default_engine(*model.networks)
    where = pick_device(device)
    sizes = sizes_for(model, memory, engine=engine, device=where)
    made_of = fingerprint(model, scene, (engine, precision, where.type)) if resume else ""
    notes: dict[str, None] = {}  # each once
    journal = Journal(Path(out), made_of, scene.chosen, lasting=resume)

    def computed() -> Generator[tuple[Window, Tile]]:
        begun = journal.begin(sizes)
        windows = list(tiles(scene.grid.height, scene.grid.width, begun.tile))
        yield from make_tiles(
            model,
            scene,
            windows,
            journal,
            sizes=begun,
            engine=engine,
            device=where,
            precision=precision,
            tell=notes.setdefault,
        )

    with ExitStack() as stack:
        stack.callback(lambda: journal.end(whole=False))
        made = stack.enter_context(closing(computed()))
        warnings = write_maps(
            model,
            scene,
            made,
            journal.read,
            out=out,
            probabilities=probabilities,
            tau=tau,
            prior=prior,
            sieved=sieved,
            read=[file],
            progress=progress,
        )
    journal.end(whole=True)
    return [*notes, *warnings]


def sizes_for(model: Model, memory: int, *, engine: Engine, device: torch.device) -> Sizes:
    """Those of a prediction in this process. Where it holds less than `_FRESH` by itself, as a command does, and
    `memory` is four times as much, they depend on `memory` alone, and not on the machine.
    """
    give_back()
    used = _READ_ON_GPU if device.type == "cuda" else max(resident(), min(memory // 4, _FRESH))
    return sizes_of_model(model, memory, used=used, engine=engine)


def make_tiles(
    model: Model,
    scene: Scene,
    windows: Sequence[Window],
    kept: Tiles,
    *,
    sizes: Sizes,
    engine: Engine,
    device: torch.device,
    precision: Precision = "float32",
    tell: Callable[[str], object] | None = None,
) -> Iterator[tuple[Window, Tile]]:
    """The tiles of windows of a scene, in order: those that are kept and were made of the same pixels, as they are;
    others are computed and kept. Afterwards the network is back where it was. tell: see `scene_logits`.
    """
    seen: dict[Window, int] = {}
    found: dict[Window, Tile] = {}

    def is_known(window: Window, pixels: Pixels) -> bool:
        seen[window] = checksum(pixels)
        tile = kept.find(window, seen[window])
        if tile is not None:
            found[window] = tile
        return tile is not None

    with ExitStack() as stack:
        for network in model.networks:
            stack.callback(network.to, next(network.parameters()).device)
        behind = stack.enter_context(WriteBehind())
        parts = scene_logits(
            model,
            scene,
            engine=engine,
            tile=sizes.tile,
            batch=sizes.batch,
            device=device,
            precision=precision,
            windows=windows,
            skip=is_known,
            tell=tell,
        )
        for window, pixels, logits in parts:
            if logits is None:
                tile = found.pop(window)
            else:
                tile = Tile(logits, BandSums.of(pixels), seen.pop(window))
                behind.do(kept.keep, window, tile)
            yield window, tile
        behind.finish()


def write_maps(
    model: Model,
    scene: Scene,
    made: Iterable[tuple[Window, Tile]],
    again: Callable[[Window], Tile],
    *,
    out: Path | str,
    probabilities: Path | str | None = None,
    tau: float = 1.0,
    prior: Sequence[float] | None = None,
    sieved: int = 0,
    read: Sequence[Path | None] = (),
    progress: Progress = silent,
) -> list[str]:
    """The map, and probabilities, of the tiles of a whole scene, as of `predict`; returns its warnings.

    made: each tile once, in the order of windows, and only when files to write are open. again: reads a tile a second
    time. read: further files that must not be overwritten.
    """
    check_scene(model, scene)
    written = [Path(p) for p in (out, probabilities) if p is not None]
    for path in written:
        require_file_name(path)
    images = [part for path in scene.paths for part in (parts_of(path).rasters if path.is_file() else [path])]
    refuse_overwriting([file for path in written for file in files_written(path)], [*read, *images])
    grid = scene.grid_of(model.grid)
    if sieved >= grid.height * grid.width:
        raise InputError(
            f"patches of fewer than {sieved} pixels are to go, but the map of {scene.name} has only "
            f"{grid.height}×{grid.width}; ask for a smaller --sieve"
        )
    answers = Answers.of(model, grid.shape, prior=prior)
    with ExitStack() as stack:
        # entered first, left last: what was handed over is written before the files are closed
        files = _open_files(stack, out, probabilities, grid, model.classes, _tags(model, tau, prior, sieved))
        windows, sums = _read_all(made, scene, answers, progress)
        behind = stack.enter_context(WriteBehind())
        to_values = np.asarray((*model.classes.values, 0), np.uint8)
        _write_map(files, again, windows, answers, to_values, tau=tau, sieved=sieved, behind=behind)
    return _warn_if_new(model, scene, sums)


def _tags(model: Model, tau: float, prior: Sequence[float] | None, sieved: int) -> dict[str, str]:
    """What map and probabilities say of how they were made."""
    return {
        "ADCDNET_VERSION": version("adcdnet"),
        "ADCDNET_MODEL": model.record.name,
        MODEL_TAG: model.digest,
        "ADCDNET_TAU": str(tau),
        "ADCDNET_PRIOR": "as labelled" if prior is None else " ".join(f"{share:.9g}" for share in prior),
        "ADCDNET_SIEVED": str(sieved),
    }


def _open_files(
    stack: ExitStack,
    out: Path | str,
    probabilities: Path | str | None,
    grid: Grid,
    classes: ClassTable,
    tags: dict[str, str],
) -> list[RasterWriter]:
    """The map, and the probabilities where they are wanted; the stack finishes both, or leaves neither behind."""
    files = [RasterWriter(out, grid, classes=classes, descriptions=["class"], tags=tags)]
    if probabilities is not None:
        nodata, names = float("nan"), classes.names
        soft = {"count": len(classes), "dtype": "float32", "nodata": nodata, "descriptions": names, "tags": tags}
        files.append(RasterWriter(probabilities, grid, **soft))  # type: ignore[arg-type]
    return [stack.enter_context(file) for file in files]


def _read_all(
    made: Iterable[tuple[Window, Tile]], scene: Scene, answers: Answers, progress: Progress
) -> tuple[list[Window], BandSums]:
    """The first pass: logits of all valid targets go into `answers`."""
    windows, sums, answered = list[Window](), None, False
    done, total = 0, scene.grid.height * scene.grid.width
    for window, tile in made:
        targets = valid_targets(tile.logits, window.scale(tile.logits.shape[1] // window.height))
        answers.add(*targets)
        answered = answered or targets[0].size > 0
        sums = tile.sums if sums is None else sums + tile.sums
        windows.append(window)
        done += window.height * window.width
        progress("map", done, total, {})
    if not answered or sums is None:
        raise InputError(f"{scene.name}: no valid pixel; check the nodata values of both images")
    return windows, sums


def _write_map(
    files: Sequence[RasterWriter],
    again: Callable[[Window], Tile],
    windows: Sequence[Window],
    answers: Answers,
    to_values: NDArray[np.uint8],
    *,
    tau: float,
    sieved: int,
    behind: WriteBehind,
) -> None:
    """The second pass: from the logits of every window to classes and probabilities. to_values (K + 1,): the value of
    each class in the map, and of none."""
    whole = np.zeros(files[0].grid.shape, np.uint8) if sieved else None
    for window in windows:
        logits = again(window).logits
        place = window.scale(logits.shape[1] // window.height)
        valid, row, col = valid_targets(logits, place)
        p = np.full_like(logits, np.nan)
        p[:, row - place.row, col - place.col] = answers.probabilities(valid, row, col, tau=tau)
        best = to_values[np.where(np.isnan(p[0]), len(to_values) - 1, p.argmax(0))]
        layers: list[NDArray[Any]] = [best, p]
        if whole is not None:
            whole[place.slices] = best
        ready = (files, layers) if whole is None else (files[1:], layers[1:])
        behind.do(_write, *ready, place)
    behind.finish()
    if whole is not None:
        files[0].write(sieve(whole, sieved))


def _write(files: Sequence[RasterWriter], layers: Sequence[NDArray[Any]], window: Window) -> None:
    for file, layer in zip(files, layers, strict=False):  # without probabilities a file fewer
        file.write(layer, window)


def _warn_if_new(model: Model, scene: Scene, sums: BandSums) -> list[str]:
    """A line where band means lie far from those of the training area, and one where much is unlike all labels."""
    ms, pan = sums.ms / sums.counts[0], sums.pan / sums.counts[1]
    here = BandStatistics(tuple(ms.tolist()), (1.0,) * len(ms), tuple(pan.tolist()), (1.0,) * len(pan))
    names = [f"MS band {i + 1}" for i in range(len(ms))] + [f"PAN band {i + 1}" for i in range(len(pan))]
    distance = dict(zip(names, model.statistics.distance(here), strict=True))
    far = sorted((name for name in names if distance[name] > FAR), key=lambda name: -distance[name])
    warnings = []
    if far:
        worst = ", ".join(f"{name} {distance[name]:.1f}" for name in far[:_NAMED])
        warnings.append(
            f"{scene.name}: the means of {len(far)} of {len(names)} bands lie over {FAR:g} standard deviations from "
            f"those of the training area ({worst}); the map is likely wrong: bring bands to the units and calibration "
            "of training, or train on this scene too"
        )
    outside = share_outside(model, scene)
    if outside is not None and outside > MUCH_OUTSIDE:
        told, known = model.record.applicability, ""
        right = [] if told is None else [told[where]["oa"] for where in ("outside", "inside")]
        if right and None not in right:
            known = ": {:.0%} of held-out answers were right on such ground, {:.0%} on other".format(*right)
        warnings.append(
            f"{scene.name}: about {outside:.0%} of it is unlike all labels{known}; --trust shows where, and "
            "adcdnet suggest names places to label"
        )
    return warnings
