"""How far a trained network over tiles really looks: the radius that holds nearly all of what an answer depends on.

A network over tiles can see tens of MS pixels, but what lies far away hardly counts. The effective radius is measured
by the energy of the gradient of the winning logit in the images (W. Luo et al., "Understanding the effective receptive
field in deep convolutional neural networks", NeurIPS 2016, arXiv:1701.04128), by distance in rows or columns, whichever
is more, over some training targets.
"""

from __future__ import annotations

import numpy as np
import torch

from adcdnet.geo.grid import Window
from adcdnet.nn.networks import Network
from adcdnet.nn.tile_adcdnet import TileADCDNet
from adcdnet.training.area import TrainingArea

SHARE = 0.95  # of the energy
_TARGETS = 48


def effective_radius(network: Network, area: TrainingArea, rng: np.random.Generator) -> int | None:
    """MS pixels to every side within which `SHARE` of the energy lies; None for a network over patches, which sees its
    patch and no more.
    """
    if not isinstance(network, TileADCDNet):
        return None
    reach, ratio = network.config.reach, network.layout.ratio
    device = next(network.parameters()).device
    energy = np.zeros(reach + 1)
    step = area.step
    for row, col in area.labelled[rng.permutation(len(area.labelled))[:_TARGETS]]:
        window = Window(int(row) // step, int(col) // step, 1, 1)
        images = area.images(window, hide_training=False)
        ms, pan = (torch.from_numpy(image)[None].to(device).requires_grad_() for image in images)
        logits = network(ms, pan, border=reach, origin=(window.row - reach, window.col - reach))
        ours = logits[0, :, int(row) % step, int(col) % step]
        gradients = torch.autograd.grad(ours.max(), (ms, pan), allow_unused=True)  # one sensor may be left out
        size = sum(
            gradient[0].square().sum(0).view(2 * reach + 1, r, 2 * reach + 1, r).sum((1, 3)).cpu().numpy()
            for gradient, r in zip(gradients, (1, ratio), strict=True)
            if gradient is not None
        )
        away = np.abs(np.arange(-reach, reach + 1))
        ring = np.maximum(away[:, None], away).ravel()
        energy += np.bincount(ring, np.asarray(size).ravel(), reach + 1) / max(np.sum(size), np.finfo(float).tiny)
    return int(np.searchsorted(np.cumsum(energy), SHARE * energy.sum()))
