"""From a model and a scene to a map: cut, classify, stitch, one window at a time.

Two engines give the same numbers. `patch` cuts one patch per pixel and is the definition; `dense` convolves a window
once for all its pixels. Memory is bounded by the window, not by the scene.

Posterior at operating point tau: p_k ∝ q_k · π_k^tau / ρ_k, with q the network's posterior, π the class shares of the
training labels and ρ those in which training met them. tau 1 expects classes as often as they were labelled, 0 equally.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.bands import BandStatistics
from adcdnet.checkpoint import Model, Run
from adcdnet.errors import InputError
from adcdnet.grid import Window, tiles
from adcdnet.model import ADCDNet
from adcdnet.nn.shared import Targets
from adcdnet.scene import Pixels, RasterWriter, Scene

Engine = Literal["dense", "patch"]
Progress = Callable[[int, int], None]  # done, of how many
_AT_ONCE = 2048
FAR = 3.0  # training deviations: band means of a new scene beyond this deserve a warning


def default_engine(network: ADCDNet) -> Engine:
    """`dense` where neighbouring patches may share their convolutions, otherwise `patch`."""
    return "dense" if network.config.sharable else "patch"


def posterior(logits: NDArray[np.float32], model: Model, tau: float) -> NDArray[np.float32]:
    """Logits (K, ...) -> probabilities (K, ...) at operating point tau; formula at the top of the file."""
    prior, drawn = np.asarray(model.label_shares), np.asarray(model.drawn_shares)
    shift = (tau * np.log(prior) - np.log(drawn)).reshape(-1, *[1] * (logits.ndim - 1))
    z = logits - logits.max(0, keepdims=True) + shift
    p = np.exp(z - z.max(0, keepdims=True))
    return np.asarray(p / p.sum(0, keepdims=True), np.float32)


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
    model: Model, pixels: Pixels, *, engine: Engine, batch: int = 256, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Main logits (K, h, w) of a window, from its pixels with a halo of the network's reach; nan where invalid."""
    network = model.network.to(device)
    config, layout = network.config, network.layout
    reach, ratio = config.reach, layout.ratio
    ms, pan = (torch.from_numpy(x) for x in model.statistics.standardise(*pixels))
    height, width = ms.shape[1] - 2 * reach, ms.shape[2] - 2 * reach
    valid = pixels.valid[reach : reach + height, reach : reach + width]
    row, col = (torch.from_numpy(i) for i in np.nonzero(valid))
    logits = np.full((layout.classes, height, width), np.nan, np.float32)
    if not len(row):
        return logits
    with torch.inference_mode():
        if engine == "dense":
            shared = network.share(ms[None].to(device), pan[None].to(device))
            where = torch.stack([torch.zeros_like(row), row, col]).to(device)
            # few targets at a time: what is gathered of them stays in the processor's cache
            found = torch.cat(
                [network.classify(shared, Targets(*some)) for some in torch.split(where, _AT_ONCE, dim=1)]
            )
        elif engine == "patch":
            first, size = reach - config.before, config.before + 1 + config.after
            parts = []
            for start in range(0, len(row), batch):
                places = [(int(r) + first, int(c) + first) for r, c in zip(row[start:], col[start:], strict=True)][
                    :batch
                ]
                some_ms = torch.stack([ms[:, r : r + size, c : c + size] for r, c in places])
                some_pan = torch.stack(
                    [pan[:, r * ratio : (r + size) * ratio, c * ratio : (c + size) * ratio] for r, c in places]
                )
                parts.append(network(some_ms.to(device), some_pan.to(device)).main)
            found = torch.cat(parts)
        else:
            raise ValueError(f"engine is {engine!r}, must be 'dense' or 'patch'")
    logits[:, row.numpy(), col.numpy()] = found.float().cpu().numpy().T
    return logits


def scene_logits(
    model: Model, scene: Scene, *, engine: Engine, tile: int = 128, device: torch.device | str = "cpu"
) -> Iterator[tuple[Window, Pixels, NDArray[np.float32]]]:
    """Window, its pixels (without halo) and logits (K, h, w), over the whole scene."""
    config = model.network.config
    if engine == "dense" and not config.sharable:
        raise InputError(
            "this network ties values to their patch (zero padding or squeeze-excite) and cannot share convolutions; "
            "use --engine patch"
        )
    check_scene(model, scene)
    for window in tiles(*scene.grid.shape, tile):
        pixels = scene.read(window.grow(config.reach), repeat_edge=config.padding == "valid")
        logits = logits_of(model, pixels, engine=engine, device=device)
        yield window, _inner(pixels, config.reach, scene.ratio), logits


def _inner(pixels: Pixels, reach: int, ratio: int) -> Pixels:
    coarse, fine = (slice(reach, -reach),) * 2, (slice(reach * ratio, -reach * ratio),) * 2
    return Pixels(pixels.ms[:, *coarse], pixels.pan[:, *fine], pixels.ms_valid[coarse], pixels.pan_valid[fine])


def predict(
    model: Model | Run | Path | str,
    scene: Scene,
    *,
    out: Path | str,
    probabilities: Path | str | None = None,
    engine: Engine | None = None,
    tau: float = 1.0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[str]:
    """Write the map of a scene (uint8 class values, 0 where invalid) and, if wanted, probabilities (float32, one band
    per class, nan where invalid). `model` may be a run, its folder or a model file. Returns warnings.
    InputError if the scene does not fit the model, nothing is valid or a file cannot be written.
    """
    if isinstance(model, Run):
        model = model.model
    elif not isinstance(model, Model):
        model = Model.load(Path(model))
    engine = engine or default_engine(model.network)
    check_scene(model, scene)
    if probabilities is not None and Path(probabilities).resolve() == Path(out).resolve():
        raise InputError(f"{out} was named as one file for both, map and probabilities; name two")
    tags = {
        "ADCDNET_VERSION": version("adcdnet"),
        "ADCDNET_MODEL": str(model.record.get("name", "")),
        "ADCDNET_TAU": str(tau),
    }
    values = np.asarray((*model.classes.values, 0), np.uint8)
    total = scene.grid.height * scene.grid.width
    sums = _Sums()
    with ExitStack() as stack:
        writer = stack.enter_context(
            RasterWriter(out, scene.grid, classes=model.classes, descriptions=["class"], tags=tags)
        )
        soft = None
        if probabilities is not None:
            soft = stack.enter_context(
                RasterWriter(
                    probabilities,
                    scene.grid,
                    count=len(model.classes),
                    dtype="float32",
                    nodata=float("nan"),
                    descriptions=model.classes.names,
                    tags=tags,
                )
            )
        done = 0
        for window, pixels, logits in scene_logits(model, scene, engine=engine, device=device):
            p = posterior(logits, model, tau)
            best = np.where(pixels.valid, p.argmax(0), len(values) - 1)
            writer.write(values[best], window)
            if soft is not None:
                soft.write(p, window)
            sums.add(pixels)
            done += window.height * window.width
            if progress is not None:
                progress(done, total)
        if not sums.any:
            raise InputError(f"{scene.name}: no valid pixel; check the nodata values of both images")
    return _warn_if_far(model, scene, sums)


class _Sums:
    """Running band sums over valid pixels."""

    def __init__(self) -> None:
        self.ms: NDArray[np.float64] | float = 0.0
        self.pan: NDArray[np.float64] | float = 0.0
        self.ms_count = self.pan_count = 0
        self.any = False

    def add(self, pixels: Pixels) -> None:
        self.ms = self.ms + pixels.ms[:, pixels.ms_valid].sum(1, dtype=np.float64)
        self.pan = self.pan + pixels.pan[:, pixels.pan_valid].sum(1, dtype=np.float64)
        self.ms_count += int(pixels.ms_valid.sum())
        self.pan_count += int(pixels.pan_valid.sum())
        self.any = self.any or bool(pixels.valid.any())


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
