"""From a model and a scene to a map: cut, classify, stitch, one window at a time.

Two engines give the same numbers. `patch` cuts one patch per pixel and is the definition; `dense` convolves a window
once for all its pixels. Memory is bounded by the window, not by the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adcdnet.bands import BandStatistics
from adcdnet.budget import LARGEST_BATCH, Engine, sizes_within
from adcdnet.checkpoint import Model, Run, pick_device
from adcdnet.errors import InputError
from adcdnet.grid import Window, tiles
from adcdnet.journal import Journal, fingerprint
from adcdnet.local_shares import LocalShares
from adcdnet.memory import resident
from adcdnet.model import ADCDNet, Shared
from adcdnet.nn.shared import Rectangle
from adcdnet.posterior import posterior
from adcdnet.raster import RasterWriter, sieve
from adcdnet.scene import Pixels, Scene
from adcdnet.smoothing import looks, smooth

Precision = Literal["float32", "bf16"]
Progress = Callable[[int, int], None]  # done, of how many
DEFAULT_MEMORY = 2 * 2**30  # bytes
# bytes of one cell of the targets that are read together: fits a second-level cache a few times; a GPU wants more
_AT_ONCE, _AT_ONCE_ON_GPU = 2**19, 2**25
_READ_ON_GPU = 2**30  # bytes that all kinds of cells read together take there
FAR = 3.0  # training deviations: band means of a new scene beyond this deserve a warning


def default_engine(network: ADCDNet) -> Engine:
    """`dense` where neighbouring patches may share their convolutions, otherwise `patch`."""
    return "dense" if network.config.sharable else "patch"


def check_scene(model: Model, scene: Scene) -> None:
    """InputError if the scene's bands or ratio are not those the model was trained with."""
    layout = model.network.layout
    for what, found, needed in (
        ("MS bands", scene.ms_bands, layout.ms_bands),
        ("PAN bands", scene.pan_bands, layout.pan_bands),
        ("PAN pixels per MS pixel", scene.ratio, layout.ratio),
    ):
        if found != needed:
            raise InputError(
                f"the scene has {found} {what}, the model was trained with {needed}; "
                "give it images of the sensors it was trained with, or train a model on this scene"
            )


def logits_of(
    model: Model,
    pixels: Pixels,
    *,
    engine: Engine,
    batch: int = LARGEST_BATCH,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Main logits (K, h, w) of a window, from its pixels with a halo of the network's reach; nan where invalid.

    h, w: MS pixels, or PAN pixels where those are the targets of the network. batch: patches at once of engine `patch`.
    The logits of neighbours are averaged as the settings of the network say.
    """
    network = model.network.to(device)
    config = network.config
    step, halo = config.step(network.layout.ratio), config.reach - config.margin
    images = model.statistics.standardise(*pixels)
    ms, pan = (torch.from_numpy(x).to(device) for x in images)
    own = (slice(halo * step, -halo * step),) * 2
    valid = pixels.valid_targets(step)[own]
    row, col = np.nonzero(valid)
    around = config.margin * step
    inside = tuple(slice(around, size - around) for size in valid.shape)
    logits = np.full((network.layout.classes, *valid.shape), np.nan, np.float32)
    if not len(row):
        return logits[:, *inside]
    with inference(device, precision):
        if engine == "dense":
            found = _dense(network, ms, pan, row, col)
        elif engine == "patch":
            found = _patch_by_patch(network, ms, pan, row, col, batch)
        else:
            raise ValueError(f"engine is {engine!r}, must be 'dense' or 'patch'")
    logits[:, row, col] = found.float().cpu().numpy().T
    look = looks(*images, step, sensors=config.sensors)[:, *own]
    return smooth(logits, look, config.smooth, config.likeness)[:, *inside]


@contextmanager
def inference(device: torch.device | str, precision: Precision) -> Iterator[None]:
    """No gradients, and the precision that was asked for: float32 means float32 on a GPU too, where convolutions would
    otherwise round their inputs to tf32's ten bits.
    """
    kind, cudnn = torch.device(device).type, torch.backends.cudnn
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    exact = cudnn.flags(**kept, allow_tf32=False) if kind == "cuda" else nullcontext()
    with torch.inference_mode(), exact, torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        yield


def _dense(network: ADCDNet, ms: Tensor, pan: Tensor, row: NDArray[np.int64], col: NDArray[np.int64]) -> Tensor:
    """Logits (n, K) at targets of one tile: convolved once, then read a few rows at a time, from the first column of
    any target in them to the last; what lies between is computed too.

    Where targets are PAN pixels, those of one phase lie as MS pixels do, on a PAN image that is moved by it: PAN is
    convolved once for every phase, MS once for all.
    """
    config, ratio = network.config, network.layout.ratio
    step, margin = config.step(ratio), config.reach - config.margin - config.before
    window = Window(margin, margin, ms.shape[1] - 2 * margin, ms.shape[2] - 2 * margin)
    widest = max(*config.widths, config.hidden)
    at_once = (_AT_ONCE_ON_GPU if ms.device.type == "cuda" else _AT_ONCE) // (4 * widest)
    shared: Shared | None = None
    logits = ms.new_empty(len(row), network.layout.classes)
    for phase in np.ndindex(step, step):
        own = np.flatnonzero((row % step == phase[0]) & (col % step == phase[1]))
        if not len(own):
            continue
        pan_slices = window.around(ratio, step, phase).slices
        shared = network.share(ms[None, :, *window.slices], pan[None, :, *pan_slices], same_ms=shared)
        own = own[np.argsort(row[own], kind="stable")]
        r, c = row[own] // step, col[own] // step
        few = max(1, at_once // (int(np.ptp(c)) + 1))  # rows at once
        start = 0
        while start < len(own):
            some = slice(start, int(np.searchsorted(r, r[start] + few)))
            top, left = int(r[start]), int(c[some].min())
            place = Rectangle(top, left, int(r[some][-1]) + 1 - top, int(c[some].max()) + 1 - left)
            answers = network.classify(shared, place).view(*place.shape, -1)
            at = (torch.from_numpy(i).to(ms.device) for i in (own[some], r[some] - top, c[some] - left))
            into, inside, across = at
            logits[into] = answers[inside, across].to(logits.dtype)
            start = some.stop
    return logits


def _patch_by_patch(
    network: ADCDNet, ms: Tensor, pan: Tensor, row: NDArray[np.int64], col: NDArray[np.int64], batch: int
) -> Tensor:
    """Logits (n, K), one patch per target: the definition."""
    config, ratio = network.config, network.layout.ratio
    step, size = config.step(ratio), config.before + 1 + config.after
    first = config.reach - config.margin - config.before
    parts = []
    for start in range(0, len(row), batch):
        some_ms, some_pan = [], []
        for r, c in zip(row[start : start + batch].tolist(), col[start : start + batch].tolist(), strict=True):
            window = Window(r // step + first, c // step + first, size, size)
            some_ms.append(ms[:, *window.slices])
            some_pan.append(pan[:, *window.around(ratio, step, (r % step, c % step)).slices])
        parts.append(network(torch.stack(some_ms), torch.stack(some_pan)).main)
    return torch.cat(parts)


def scene_logits(
    model: Model,
    scene: Scene,
    *,
    engine: Engine,
    tile: int = 128,
    batch: int = LARGEST_BATCH,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    skip: Container[Window] = (),
) -> Iterator[tuple[Window, Pixels, NDArray[np.float32] | None]]:
    """Window, its pixels (without halo) and logits as `logits_of`, over the whole scene; None for windows to skip.

    Windows are in MS pixels. The next window is read while one is classified.
    """
    config = model.network.config
    if engine == "dense" and not config.sharable:
        raise InputError(
            "this network ties values to their patch (zero padding or squeeze-excite) and cannot share convolutions; "
            "use --engine patch"
        )
    check_scene(model, scene)

    def read(window: Window) -> Pixels:
        return scene.read(window.grow(config.reach), repeat_edge=config.padding == "valid")

    windows = list(tiles(scene.grid.height, scene.grid.width, tile))
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, windows[0])
        for window, following in zip(windows, [*windows[1:], None], strict=True):
            pixels = coming.result()
            if following is not None:
                coming = reader.submit(read, following)
            logits = None
            if window not in skip:
                logits = logits_of(model, pixels, engine=engine, batch=batch, device=device, precision=precision)
            yield window, pixels.inner(config.reach), logits


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
    progress: Progress | None = None,
) -> list[str]:
    """Write the map of a scene (uint8 class values, 0 where invalid) and, if wanted, probabilities (float32, one band
    per class, nan where invalid), on the grid of the network's targets: that of MS or of PAN, on the common extent.
    `model` may be a run, its folder or a model file. Returns warnings.

    prior: (K,) shares in which classes are expected in this scene; None: as they were labelled. tau is its exponent.
    The scene is gone through once to classify it, and its logits are kept beside the map, 4 bytes a pixel and class,
    until that is written: how often classes lie around a pixel is known at the end only (`local_shares`).

    memory: bytes of resident memory, all of the process included, that tile and batch are chosen for; on a GPU, of
    the GPU's memory, CUDA's own not counted.
    resume: where the call is stopped, leave the finished tiles beside the map, and go on from those that an earlier
    call with the same model, scene, bands, engine and precision left; the file is the same as from one whole call.
    sieved: give patches of the map of fewer of its pixels than this to their largest neighbour (0: none). Probabilities
    stay as they are. The whole map is held for it, some 10 bytes a pixel on top of `memory`.
    device: "auto" is the GPU if there is one; afterwards the network is back where it was.
    InputError if the scene does not fit the model, nothing is valid or a file cannot be written.
    """
    if isinstance(model, Run):
        model = model.model
    elif not isinstance(model, Model):
        model = Model.load(Path(model))
    engine = engine or default_engine(model.network)
    check_scene(model, scene)
    _refuse_overwriting([p for p in (out, probabilities) if p is not None], scene)
    expected = model.label_shares if prior is None else tuple(prior)
    tags = {
        "ADCDNET_VERSION": version("adcdnet"),
        "ADCDNET_MODEL": str(model.record.get("name", "")),
        "ADCDNET_TAU": str(tau),
        "ADCDNET_PRIOR": "as labelled" if prior is None else " ".join(f"{share:.9g}" for share in expected),
        "ADCDNET_SIEVED": str(sieved),
    }
    where, home = pick_device(device), next(model.network.parameters()).device
    used = _READ_ON_GPU if where.type == "cuda" else resident()
    sizes = sizes_within(model.network, memory, used=used, engine=engine)
    config = model.network.config
    step = config.step(scene.ratio)
    grid = scene.grid.refine(step)
    if sieved >= grid.height * grid.width:
        raise InputError(
            f"patches of fewer than {sieved} pixels are to go, but the map of {scene.name} has only "
            f"{grid.height}×{grid.width}; ask for a smaller --sieve"
        )
    values = np.asarray((*model.classes.values, 0), np.uint8)
    sums, local = _Sums(), LocalShares(grid.shape, step, expected, model.drawn_shares, config.local_shares)
    known = fingerprint(model, scene, (engine, precision, where.type))
    journal = Journal(Path(out), known, scene.chosen, lasting=resume)
    with ExitStack() as stack:
        stack.callback(model.network.to, home)
        # entered first, left last: what was handed over is written before the files are closed
        files = [stack.enter_context(RasterWriter(out, grid, classes=model.classes, descriptions=["class"], tags=tags))]
        if probabilities is not None:
            soft = RasterWriter(
                probabilities,
                grid,
                count=len(model.classes),
                dtype="float32",
                nodata=float("nan"),
                descriptions=model.classes.names,
                tags=tags,
            )
            files.append(stack.enter_context(soft))
        sizes = journal.begin(sizes)
        stack.callback(lambda: journal.end(whole=False))
        behind = stack.enter_context(_WriteBehind())
        done, total, mapped = 0, scene.grid.height * scene.grid.width, False
        windows = []
        for window, pixels, logits in scene_logits(
            model, scene, engine=engine, **sizes._asdict(), device=where, precision=precision, skip=journal.finished
        ):
            if logits is None:
                logits = journal.read(window)
            else:
                behind.do(journal.keep, window, logits)
            targets = known_targets(logits, window.scale(step))
            local.add(*targets)
            mapped = mapped or targets[0].size > 0
            sums.add(pixels)
            windows.append(window)
            done += window.height * window.width
            if progress is not None:
                progress(done, total)
        if not mapped:
            raise InputError(f"{scene.name}: no valid pixel; check the nodata values of both images")
        behind.finish()
        whole = np.zeros(grid.shape, np.uint8) if sieved else None
        for window in windows:
            place, logits = window.scale(step), journal.read(window)
            found, row, col = known_targets(logits, place)
            logits[:, row - place.row, col - place.col] = local.adapt(found, row, col)
            p = posterior(logits, expected, model.drawn_shares, tau, model.temperature)
            best = values[np.where(np.isnan(p[0]), len(values) - 1, p.argmax(0))]
            layers: list[NDArray[Any]] = [best, p]
            if whole is not None:
                whole[place.slices] = best
            ready = (files, layers) if whole is None else (files[1:], layers[1:])
            behind.do(_write, *ready, place)
        behind.finish()
        if whole is not None:
            files[0].write(sieve(whole, sieved))
    journal.end(whole=True)
    return _warn_if_far(model, scene, sums)


def _refuse_overwriting(outputs: Sequence[Path | str], scene: Scene) -> None:
    taken = {p.resolve() for p in scene.paths}
    for output in outputs:
        if Path(output).resolve() in taken:
            raise InputError(f"{output} is an image of the scene, or was named twice; name a file of its own")
        taken.add(Path(output).resolve())


def known_targets(
    logits: NDArray[np.float32], place: Window
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Logits (K, n) of the valid targets of a window, and their rows and columns (n,) in the scene."""
    row, col = np.nonzero(~np.isnan(logits[0]))
    return logits[:, row, col], row + place.row, col + place.col


def _write(files: Sequence[RasterWriter], layers: Sequence[NDArray[Any]], window: Window) -> None:
    for file, layer in zip(files, layers, strict=False):  # without probabilities a file fewer
        file.write(layer, window)


class _WriteBehind:
    """A thread that writes one thing while the next one is computed; a failure shows at the next call."""

    def __enter__(self) -> _WriteBehind:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def do(self, write: Callable[..., None], *arguments: Any) -> None:
        self.finish()
        self._last = self._thread.submit(write, *arguments)

    def finish(self) -> None:
        if self._last is not None:
            self._last.result()


class _Sums:
    """Running band sums over valid pixels."""

    def __init__(self) -> None:
        self.ms: NDArray[np.float64] | float = 0.0
        self.pan: NDArray[np.float64] | float = 0.0
        self.ms_count = self.pan_count = 0

    def add(self, pixels: Pixels) -> None:
        self.ms = self.ms + pixels.ms[:, pixels.ms_valid].sum(1, dtype=np.float64)
        self.pan = self.pan + pixels.pan[:, pixels.pan_valid].sum(1, dtype=np.float64)
        self.ms_count += int(pixels.ms_valid.sum())
        self.pan_count += int(pixels.pan_valid.sum())


def _warn_if_far(model: Model, scene: Scene, sums: _Sums) -> list[str]:
    ms, pan = np.atleast_1d(sums.ms / sums.ms_count), np.atleast_1d(sums.pan / sums.pan_count)
    found = BandStatistics(tuple(ms.tolist()), (1.0,) * len(ms), tuple(pan.tolist()), (1.0,) * len(pan))
    names = [f"MS band {i + 1}" for i in range(len(ms))] + [f"PAN band {i + 1}" for i in range(len(pan))]
    return [
        f"{scene.name}: the mean of {name} lies {distance:.1f} standard deviations from that of the training area; "
        "the map may be wrong: check units and season, or train on this scene too"
        for name, distance in zip(names, model.statistics.distance(found), strict=True)
        if distance > FAR
    ]
