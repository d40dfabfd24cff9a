"""U-Net on a pansharpened stack: what most people do with such a pair. Ronneberger, Fischer and Brox 2015
(arXiv:1505.04597); Brovey's pansharpening: Gillespie, Kahle and Walker 1987, Remote Sensing of Environment 22.

b tiles | B, B' bands of ms and pan | r ratio | h, w in MS pixels
    sharp = ms↑ · (pan / mean pan) / (I / mean I)     ms↑ bilinear, I the mean of the bands of ms↑, means of training

The network sees the sharpened bands and pan at PAN resolution; labels are spread over the PAN pixels of their MS pixel,
and the logits of these are averaged.
Deviations: BatchNorm, padded convolutions, bilinear upsampling; a quarter of the width, for as many steps in the same
time as it takes to be sure of rare classes (docs/evidence.md). Classes are weighted in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.benchmark.methods.classifier import BALANCE, kappa_at_tau_1, on_map, shares_drawn, to_classify
from adcdnet.benchmark.methods.features import BandRoles
from adcdnet.benchmark.methods.loop import Recipe, TrainedNetwork, train
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.scene import Pixels
from adcdnet.training.area import TrainingArea
from adcdnet.training.borders import with_border

_WIDTH = 16  # of the first of five levels; each deeper one has twice that of the one above
_DARKEST = 0.05  # of the mean: smaller values count as this in a quotient, dark water would be torn apart
_PAN_SIDE = 192  # PAN pixels a tile of training has, border included, as far as its ratio allows
_SMALLEST = 16  # MS pixels a tile of training has inside its border
_TILES = 4  # a step: with a single one BatchNorm's statistics are those of one place
_ANCHORS = 0.5  # tiles lie around labels of a class as often as (frequency)^0.5, as those of ADCD-Net do


class UNet(nn.Module):
    """x (b, channels, H, W) -> (b, K, H, W), any size from 16 on."""

    def __init__(self, channels: int, classes: int, width: int = _WIDTH) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        self.down = nn.ModuleList(_double(a, b) for a, b in pairwise((channels, *widths)))
        self.up = nn.ModuleList(_double(a + b, a) for a, b in pairwise(widths))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.down[0](x)]
        for block in self.down[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for block in reversed(self.up):
            skip = levels.pop()
            wide = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([skip, wide], dim=1))
        logits: Tensor = self.classifier(x)
        return logits


def _double(channels: int, wider: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (channels, wider):
        layers += [nn.Conv2d(inputs, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
    return nn.Sequential(*layers)


def brovey(ms: Tensor, pan: Tensor, statistics: BandStatistics) -> Tensor:
    """Standardised ms (b, B, h, w) and pan (b, B', h·r, w·r) -> (b, B + B', h·r, w·r): sharpened bands, then pan.

    What is 0, the training mean, in both images comes out as 0: hidden ground stays hidden.
    """
    ms_mean, ms_deviation, pan_mean, pan_deviation = (
        torch.tensor(values, dtype=torch.float32)[:, None, None]
        for values in (statistics.ms_mean, statistics.ms_deviation, statistics.pan_mean, statistics.pan_deviation)
    )
    wide = F.interpolate(ms, size=pan.shape[-2:], mode="bilinear", align_corners=False) * ms_deviation + ms_mean
    detail = _relative(pan * pan_deviation + pan_mean, pan_mean) / _relative(wide, ms_mean)
    return torch.cat([(wide * detail - ms_mean) / ms_deviation, pan], dim=1)


def _relative(x: Tensor, mean: Tensor) -> Tensor:
    """Mean of the bands against its mean over the training area, (b, 1, H, W)."""
    return (x.mean(1, keepdim=True) / mean.mean()).clamp_min(_DARKEST)


@dataclass(frozen=True)
class UNetClassifier(TrainedNetwork):
    """A trained U-Net with the statistics of its training area. border: MS pixels of mirrored ground around a scene."""

    network: UNet
    statistics: BandStatistics
    border: int
    drawn_shares: tuple[float, ...]

    @torch.inference_mode()
    def logits(self, pixels: Pixels, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(K, h, w), see `Classifier`; the whole scene at once, in about 2 kB of memory per PAN pixel."""
        ratio = pixels.pan_valid.shape[0] // pixels.ms_valid.shape[0]
        ms, pan = self.statistics.standardise(*pixels)
        ms = with_border(ms, self.border, repeat_edge=True)
        pan = with_border(pan, self.border * ratio, repeat_edge=True)
        chosen = to_classify(pixels, where)
        return on_map(_apply(self.network, ms, pan, self.statistics, self.border)[:, chosen], chosen)


def fit_unet(
    area: TrainingArea, pixels: Pixels, bands: BandRoles, *, seed: int, steps: int = 500, side: int | None = None
) -> UNetClassifier:
    """Train on tiles of the area, in which test and validation ground is hidden; `pixels` and `bands` are not used.

    side: MS pixels of a tile inside its border, otherwise chosen by the ratio. Takes some minutes of one core.
    """
    border = area.reach
    side = side or max(_SMALLEST, _PAN_SIDE // area.ratio - 2 * border)
    weight = torch.tensor(area.tile_weights(BALANCE, side, anchors=_ANCHORS), dtype=torch.float32)
    held = area.validation_label >= 0
    drawn_shares = shares_drawn(area)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the first weights
        network = UNet(len(area.ms) + len(area.pan), len(weight))

        def loss() -> Tensor:
            drawn = area.draw_tiles(rng, _TILES, side, labelled=True, augment=True, anchors=_ANCHORS)
            stack = brovey(torch.from_numpy(drawn.ms), torch.from_numpy(drawn.pan), area.statistics)
            halo = (drawn.ms.shape[-1] - side) // 2  # may be less than the border of the area
            with torch.autocast("cpu", torch.bfloat16):
                scores = network(stack)
            logits = _without_border(scores.float(), halo * area.ratio)
            label = torch.from_numpy(drawn.label.repeat(area.ratio, 1).repeat(area.ratio, 2))
            return F.cross_entropy(logits, label, weight, ignore_index=-1)

        def validation_kappa() -> float:
            logits = _apply(network, area.ms, area.pan, area.statistics, border)[:, held]
            return kappa_at_tau_1(logits, area.validation_label[held], area, drawn_shares)

        train(network, Recipe(steps, 1e-3, 0.01), loss, validation_kappa if area.has_validation else None)
    return UNetClassifier(network, area.statistics, border, drawn_shares)


def _apply(
    network: UNet, ms: NDArray[np.float32], pan: NDArray[np.float32], statistics: BandStatistics, border: int
) -> NDArray[np.float32]:
    """Standardised images with a border -> logits (K, h, w) of the MS pixels inside it."""
    ratio = pan.shape[-1] // ms.shape[-1]
    stack = brovey(torch.from_numpy(ms)[None], torch.from_numpy(pan)[None], statistics)
    logits = F.avg_pool2d(_without_border(network(stack), border * ratio), ratio)
    return np.asarray(logits[0].numpy(), np.float32)


def _without_border(x: Tensor, border: int) -> Tensor:
    return x[..., border:-border, border:-border]
