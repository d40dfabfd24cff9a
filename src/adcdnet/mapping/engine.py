"""Classify the targets of a window, and of a scene window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adcdnet.config import AnswerConfig
from adcdnet.errors import InputError, is_out_of_memory
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.grid import Window, phase_words, same_phase, tiles
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.mapping.members import Member, by_features, features_of
from adcdnet.mapping.memory import LARGEST_BATCH, Engine
from adcdnet.mapping.model import Model
from adcdnet.mapping.smoothing import looks, smooth
from adcdnet.mapping.trees import Trees
from adcdnet.nn.adcdnet import ADCDNet, Shared
from adcdnet.nn.context import ContextBranch
from adcdnet.nn.networks import Network
from adcdnet.nn.tile_adcdnet import TileADCDNet
from adcdnet.nn.tile_sharing import Rectangle

Precision = Literal["float32", "bf16"]
# bytes of one cell of the targets that are read together: fits a second-level cache a few times; a GPU wants more
_AT_ONCE, _AT_ONCE_ON_GPU = 2**19, 2**25
_IN_PARTS = "memory ran out, so tiles are worked on in smaller parts; a smaller --memory saves the failed attempts"
_SMALLEST_PART = 8  # MS pixels per side that a tile is cut into where memory runs out


def default_engine(*networks: Network) -> Engine:
    """`dense` where neighbouring patches may share their convolutions, otherwise `patch`."""
    return "dense" if all(network.config.sharable for network in networks) else "patch"


def check_scene(model: Model, scene: Scene) -> None:
    """InputError if the scene's bands, ratio or phase are not those the model was trained with."""
    layout = model.layout
    for what, here, needed in (
        ("MS bands", scene.ms_bands, layout.ms_bands),
        ("PAN bands", scene.pan_bands, layout.pan_bands),
        ("PAN pixels per MS pixel", scene.ratio, layout.ratio),
    ):
        if here != needed:
            raise InputError(
                f"the scene has {here} {what}, the model was trained with {needed}; "
                "give it images of the sensors it was trained with, or train a model on this scene"
            )
    if not same_phase(scene.phase, model.phase):
        mend = "use a model trained on such images" + ("" if any(model.phase) else ", or the copy of `adcdnet align`")
        raise InputError(
            f"PAN pixels of the scene lie {phase_words(scene.phase)} off the MS edges, the model was trained with "
            f"{phase_words(model.phase)}; {mend}"
        )


def logits_of(
    model: Model,
    pixels: Pixels,
    *,
    engine: Engine,
    corner: tuple[int, int] = (0, 0),
    batch: int = LARGEST_BATCH,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Log likelihoods (K, h, w), up to a constant, of a window, from its pixels with a halo of the model's reach; nan
    where invalid. They are those of all members, each times its weight.

    corner: row and column of the window in its scene, in MS pixels: tiles are laid out on a lattice that begins there.
    h, w: MS pixels, or PAN pixels where those are the targets. batch: patches at once of engine `patch`.
    They are averaged with those of neighbours as the settings of the model say.
    """
    margin, step, border = model.answers.margin, model.step, model.border
    own, inside = (without_border(width * step) for width in (border, margin))
    look = looks(*model.statistics.standardise(*pixels), step, sensors=model.members[0].sensors)[:, *own]
    total = together(
        model.members,
        pixels,
        border=border,
        origin=(corner[0] - model.reach, corner[1] - model.reach),
        wanted=pixels.valid_targets(step)[own],
        engine=engine,
        batch=batch,
        device=device,
        precision=precision,
    )
    return smooth(total, look, model.answers.smooth, model.answers.likeness)[:, *inside]


def together(members: Sequence[Member], pixels: Pixels, **how: Any) -> NDArray[np.float32]:
    """Log likelihoods (K, h, w) of all members that weigh anything, each times its weight. how: see `likelihoods`."""
    total: NDArray[np.float32] | float = 0.0
    for member, own in likelihoods([member for member in members if member.weight], pixels, **how):
        total = total + np.float32(member.weight) * own
    return np.asarray(total)


def likelihoods(
    members: Sequence[Member],
    pixels: Pixels,
    *,
    border: int,
    origin: tuple[int, int],
    wanted: NDArray[np.bool_],
    engine: Engine | None = None,
    batch: int = LARGEST_BATCH,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
) -> Iterator[tuple[Member, NDArray[np.float32]]]:
    """Each member with its log likelihoods (K, h, w), up to a constant, of the targets (h, w) of a window that are
    wanted, nan elsewhere; not averaged with neighbours.

    pixels: of the window, with a border that no member sees beyond. origin: row and column in the scene, in MS pixels,
    of the first pixel of that border. engine: of networks; None: the default of each.
    """
    images: dict[BandStatistics, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    features: dict[tuple[BandStatistics, str], NDArray[np.float32]] = {}
    for member in members:
        if member.statistics not in images:
            images[member.statistics] = member.statistics.standardise(*pixels)
        spare = border - member.reach
        ms, pan = _inner(images[member.statistics], spare)
        network = member.network
        if network is not None:
            logits = window_logits(
                network.to(device),
                AnswerConfig(smooth=0.0),
                (ms, pan),
                origin=(origin[0] + spare, origin[1] + spare),
                wanted=wanted,
                look=ms[:, :0],
                engine=engine if engine is not None else default_engine(network),
                batch=batch,
                precision=precision,
            )
        else:
            assert isinstance(member.classifier, ContextBranch | Trees)
            key = member.statistics, member.sensors
            if key not in features:
                features[key] = features_of(ms, pan, wanted, sensors=member.sensors)
            logits = np.full((len(member.drawn_shares), *wanted.shape), np.nan, np.float32)
            logits[:, wanted] = by_features(member.classifier, features[key])
        yield member, logits - np.log(np.asarray(member.drawn_shares, np.float32))[:, None, None]


def _inner(
    images: tuple[NDArray[np.float32], NDArray[np.float32]], border: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """ms and pan without so many MS pixels at every edge."""
    ms, pan = images
    ratio = pan.shape[1] // ms.shape[1]
    return ms[:, *without_border(border)], pan[:, *without_border(border * ratio)]


def window_logits(
    network: Network,
    answers: AnswerConfig,
    images: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    origin: tuple[int, int],
    wanted: NDArray[np.bool_],
    look: NDArray[np.float32],
    engine: Engine,
    batch: int = LARGEST_BATCH,
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Main logits (K, h, w) of the targets (h, w) of a window that are wanted, nan elsewhere; averaged with those of
    neighbours that are wanted too.

    images: ms and pan of the window, standardised, with a halo of the network's reach. origin: row and column in the
    scene, in MS pixels, of the first pixel of the halo. look: see `smoothing`.
    """
    logits = np.full((network.layout.classes, *wanted.shape), np.nan, np.float32)
    row, col = np.nonzero(wanted)
    if not len(row):
        return logits
    device = next(network.parameters()).device
    ms, pan = (torch.from_numpy(image).to(device) for image in images)
    with inference(device, precision):
        if isinstance(network, TileADCDNet):
            _check_engine(network, engine)
            maps = network(ms[None], pan[None], border=network.config.reach, origin=origin)[0]
            answered = maps.permute(1, 2, 0)[torch.from_numpy(row).to(device), torch.from_numpy(col).to(device)]
        elif engine == "dense":
            answered = _dense(network, ms, pan, row, col)
        elif engine == "patch":
            answered = _patch_by_patch(network, ms, pan, row, col, batch)
        else:
            raise ValueError(f"engine is {engine!r}, must be 'dense' or 'patch'")
    logits[:, row, col] = answered.float().cpu().numpy().T
    return smooth(logits, look, answers.smooth, answers.likeness)


def _check_engine(network: Network, engine: Engine) -> None:
    """InputError for an engine that a network does not have."""
    if engine == "dense" and not network.config.sharable:
        raise InputError(
            "this network ties values to their patch (zero padding or squeeze-excite) and cannot share convolutions; "
            "use --engine patch"
        )
    if engine == "patch" and isinstance(network, TileADCDNet):
        raise InputError(
            "this network classifies whole tiles, not patches; leave out --engine, or train one with --profile patch"
        )


def without_border(border: int) -> tuple[slice, slice]:
    """Rows and columns of an image without so many pixels at every edge."""
    inner = slice(border, -border or None)
    return inner, inner


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
    step, margin = config.targets_per_pixel(ratio), config.reach - config.before
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
    parts = []
    for start in range(0, len(row), batch):
        some = slice(start, start + batch)
        parts.append(network(*cut_patches(network, ms, pan, row[some], col[some])).main)
    return torch.cat(parts)


def cut_patches(
    network: ADCDNet, ms: Tensor, pan: Tensor, row: NDArray[np.int64], col: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """One patch per target (n, B, h, h) and (n, B', h·r, h·r), from a window with a halo of the network's reach."""
    config, ratio = network.config, network.layout.ratio
    step, size, first = config.targets_per_pixel(ratio), config.size, config.reach - config.before
    windows = [Window(r // step + first, c // step + first, size, size) for r, c in zip(row, col, strict=True)]
    phases = zip(row % step, col % step, strict=True)
    return (
        torch.stack([ms[:, *window.slices] for window in windows]),
        torch.stack([pan[:, *w.around(ratio, step, phase).slices] for w, phase in zip(windows, phases, strict=True)]),
    )


def read_window(model: Model, scene: Scene, window: Window) -> Pixels:
    """A window of a scene with a halo of the model's reach, mirrored at borders as the network wants it."""
    return scene.read(window.grow(model.reach), repeat_edge=model.repeat_edge)


def tensors_of(model: Model, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """ms and pan of a window as the first network takes them, with a halo of its own reach; pixels: of the model's."""
    first = model.first_network
    ms, pan = first.statistics.standardise(*pixels.inner(model.reach - first.reach))
    return torch.from_numpy(ms), torch.from_numpy(pan)


def scene_logits(
    model: Model,
    scene: Scene,
    *,
    engine: Engine,
    tile: int = 128,
    batch: int = LARGEST_BATCH,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    windows: Sequence[Window] | None = None,
    skip: Callable[[Window, Pixels], bool] = lambda window, pixels: False,
    tell: Callable[[str], object] | None = None,
) -> Iterator[tuple[Window, Pixels, NDArray[np.float32] | None]]:
    """Window, its pixels (without halo) and logits as `logits_of`, over all windows of the scene, or some.

    skip: whether a window needs no logits, by its pixels with their halo; they are None then. Windows are in MS pixels.
    The next window is read while one is classified. tell: hears of it if memory runs out; the window, and those after
    it, are then classified in smaller parts, whose logits are the same but for rounding. None: the error is raised.
    """
    for network in model.networks:
        _check_engine(network, engine)
    check_scene(model, scene)

    read = partial(read_window, model, scene)
    if windows is None:
        windows = list(tiles(scene.grid.height, scene.grid.width, tile))
    if not windows:
        return
    side = max(max(window.height, window.width) for window in windows)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, windows[0])
        for window, following in zip(windows, [*windows[1:], None], strict=True):
            pixels = coming.result()
            if following is not None:
                coming = reader.submit(read, following)
            logits, wanted = None, not skip(window, pixels)
            while wanted and logits is None:
                try:
                    logits = _logits_in_parts(
                        model,
                        pixels,
                        window,
                        side,
                        engine=engine,
                        batch=batch,
                        device=device,
                        precision=precision,
                    )
                except (MemoryError, RuntimeError) as error:
                    smaller = min(side, max(window.height, window.width)) // 2
                    if tell is None or not is_out_of_memory(error) or smaller < _SMALLEST_PART:
                        raise
                    side = smaller
                if logits is None and tell is not None:  # here the failed attempt holds nothing any more
                    torch.cuda.empty_cache()
                    tell(_IN_PARTS)
            yield window, pixels.inner(model.reach), logits


def _logits_in_parts(model: Model, pixels: Pixels, window: Window, side: int, **how: Any) -> NDArray[np.float32]:
    """`logits_of` a window, in parts of at most so many MS pixels per side."""
    parts = list(tiles(window.height, window.width, side))
    if len(parts) == 1:
        return logits_of(model, pixels, corner=(window.row, window.col), **how)
    step = model.step
    logits = np.empty((len(model.classes), window.height * step, window.width * step), np.float32)
    for part in parts:
        own = pixels.part(part.shift(model.reach, model.reach).grow(model.reach))
        corner = window.row + part.row, window.col + part.col
        logits[:, *part.scale(step).slices] = logits_of(model, own, corner=corner, **how)
    return logits


def valid_targets(
    logits: NDArray[np.float32], place: Window
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Logits (K, n) of the valid targets of a window, and their rows and columns (n,) in the scene."""
    row, col = np.nonzero(~np.isnan(logits[0]))
    return logits[:, row, col], row + place.row, col + place.col
