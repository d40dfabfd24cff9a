"""What the attention and the prior let through at every pixel: their masks at the pixel's own cell, as pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.geo.grid import Window, tiles
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.mapping.engine import read_window, tensors_of, without_border
from adcdnet.mapping.model import Model
from adcdnet.nn.tile_adcdnet import TileADCDNet
from adcdnet.nn.tile_sharing import Targets

_TILE = 64  # MS pixels
_SIDE = 96  # pixels of a picture, a side
_MOST = 512  # MS pixels a side; of a larger scene the middle is looked at


def masks(model: Model, scene: Scene) -> dict[str, NDArray[np.float32]]:
    """Pictures (h, w) of values in 0..1, nan where the scene is invalid, by what they show; none for a network that
    cannot be shared between pixels. The prior's masks are the mean over their channels. Of a network that maps PAN
    pixels, those of the PAN pixel in the middle of each MS pixel."""
    network = model.network
    if not network.config.sharable:
        return {}
    height, width = min(scene.grid.height, _MOST), min(scene.grid.width, _MOST)
    top, left = (scene.grid.height - height) // 2, (scene.grid.width - width) // 2
    step = max(1, -(-max(height, width) // _SIDE))
    shape = -(-height // step), -(-width // step)
    pictures: dict[str, NDArray[np.float32]] = {}
    for window in tiles(height, width, _TILE // step * step):
        place = tuple(slice(s.start // step, -(-s.stop // step)) for s in window.slices)
        for name, part in _masks_of(model, scene, window.shift(top, left), step).items():
            pictures.setdefault(name, np.full(shape, np.nan, np.float32))[place] = part
    return pictures


@torch.inference_mode()
def _masks_of(model: Model, scene: Scene, window: Window, step: int) -> dict[str, NDArray[np.float32]]:
    network = model.network
    pixels = read_window(model, scene, window)
    if isinstance(network, TileADCDNet):
        return _masks_of_tile(model, network, pixels, window, step)
    border = network.config.reach - network.config.before
    ms, pan = tensors_of(model, pixels)
    ms, pan = ms[None, :, *without_border(border)], pan[None, :, *without_border(border * scene.ratio)]
    row, col = np.mgrid[0 : window.height : step, 0 : window.width : step]
    targets = Targets(*(torch.from_numpy(i.ravel()) for i in (np.zeros_like(row), row, col)))
    masks_here = {}
    for name, encoder, image in (("MS", network.sensors.ms, ms), ("PAN", network.sensors.pan, pan)):
        masks = encoder.masks_at(encoder.share(image), targets, side=1)
        if masks is not None:
            masks_here[f"{network.config.attention.upper()} mask, {name}"] = masks[0]
    if network.prior is not None:
        shared = network.prior.share(ms, pan)
        for name, features in zip(("MS", "PAN"), network.prior.features_at(shared, targets, side=1), strict=True):
            masks_here[f"prior mask, {name}"] = torch.sigmoid(next(features)).mean(1)
    valid = pixels.inner(model.reach).valid[::step, ::step]
    return {name: np.where(valid, mask.reshape(row.shape).numpy(), np.nan) for name, mask in masks_here.items()}


def _masks_of_tile(
    model: Model, network: TileADCDNet, pixels: Pixels, window: Window, step: int
) -> dict[str, NDArray[np.float32]]:
    reach, ms_and_pan = network.config.reach, tensors_of(model, pixels)
    ms, pan = (image[None] for image in ms_and_pan)
    masks = network.masks(ms, pan, border=reach, origin=(window.row - reach, window.col - reach))
    valid = pixels.inner(model.reach).valid[::step, ::step]
    return {
        name: np.where(valid, mask[::step, ::step].numpy(), np.nan).astype(np.float32) for name, mask in masks.items()
    }
