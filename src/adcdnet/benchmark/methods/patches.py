"""Networks that classify one MS pixel from the patches around it: how all of them are trained and applied.

p side of the MS patch, even, with the target at index p/2 − 1 | r ratio | B, B' bands of ms and pan | n pixels
A network takes ms (n, B, p, p) and pan (n, B', p·r, p·r), standardised, and gives logits (n, K).

Deviation from all sources: few steps under one falling learning rate, so that a fit takes a minute and a half of one
core; draws that lift rare classes as ADCD-Net's do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.benchmark.methods.classifier import BALANCE, kappa_at_tau_1, on_map, shares_drawn, to_classify
from adcdnet.benchmark.methods.features import BandRoles
from adcdnet.benchmark.methods.loop import Recipe, TrainedNetwork, train
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.scene import Pixels
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.training.area import TrainingArea
from adcdnet.training.borders import with_border

_AT_ONCE = 128  # patches of a prediction: their maps stay below some 200 MB at ratio 4
_HELD_BACK = 600  # validation pixels that are looked at, drawn once


@dataclass(frozen=True)
class PatchMethod:
    """A network and the way to train it. build: from band counts, ratio and classes to the network."""

    build: Callable[[Layout], nn.Module]
    side: int
    batch: int
    recipe: Recipe

    def fit(
        self, area: TrainingArea, pixels: Pixels, bands: BandRoles, *, seed: int, steps: int | None = None
    ) -> PatchClassifier:
        """Train on patches of the area; `pixels` and `bands` are there since other methods need them.

        Takes 45 to 75 s of one core at ratio 2, up to two minutes at ratio 4.
        """
        layout = Layout(
            ms_bands=len(area.ms), pan_bands=len(area.pan), ratio=area.ratio, classes=len(area.class_counts)
        )
        recipe = self.recipe if steps is None else replace(self.recipe, steps=steps)
        rng = np.random.default_rng(seed)
        assert isinstance(area.network, PatchArchitecture)
        before = area.network.before
        drawn_shares = shares_drawn(area)
        held = np.argwhere(area.validation_label >= 0)
        held = held[rng.permutation(len(held))[:_HELD_BACK]]
        truth = area.validation_label[tuple(held.T)]
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # of the first weights and of dropout
            network = self.build(layout)

            def loss() -> Tensor:
                drawn = area.draw_patches(rng, self.batch, balance=BALANCE, augment=True)
                middle = before - (self.side // 2 - 1)
                ms = drawn.ms[:, :, middle:, middle:][:, :, : self.side, : self.side]
                fine, fine_side = middle * area.ratio, self.side * area.ratio
                pan = drawn.pan[:, :, fine:, fine:][:, :, :fine_side, :fine_side]
                return F.cross_entropy(network(_tensor(ms), _tensor(pan)), torch.from_numpy(drawn.label.flatten()))

            def validation_kappa() -> float:
                logits = _classify(network, area.ms, area.pan, held, self.side, area.reach)
                return kappa_at_tau_1(logits, truth, area, drawn_shares)

            train(network, recipe, loss, validation_kappa if area.has_validation else None)
        return PatchClassifier(network, self.side, area.statistics, drawn_shares)


@dataclass(frozen=True)
class PatchClassifier(TrainedNetwork):
    """A trained patch network with the statistics of its training area."""

    network: nn.Module
    side: int
    statistics: BandStatistics
    drawn_shares: tuple[float, ...]

    @torch.inference_mode()
    def logits(self, pixels: Pixels, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(K, h, w), see `Classifier`; patch by patch, beyond the border on mirrored ground."""
        chosen = to_classify(pixels, where)
        ratio = pixels.pan_valid.shape[0] // pixels.ms_valid.shape[0]
        ms, pan = self.statistics.standardise(*pixels)
        ms = with_border(ms, self.side, repeat_edge=True)
        pan = with_border(pan, self.side * ratio, repeat_edge=True)
        places = np.argwhere(chosen)
        if not len(places):
            return np.full((len(self.drawn_shares), *chosen.shape), np.nan, np.float32)
        return on_map(_classify(self.network, ms, pan, places, self.side, self.side), chosen)


def _classify(
    network: nn.Module,
    ms: NDArray[np.float32],
    pan: NDArray[np.float32],
    places: NDArray[np.int64],
    side: int,
    border: int,
) -> NDArray[np.float32]:
    """Logits (K, n) at rows and columns `places` (n, 2) of images with a border."""
    ratio = pan.shape[-1] // ms.shape[-1]
    ms_windows = sliding_window_view(ms, (side, side), axis=(1, 2))
    pan_windows = sliding_window_view(pan, (side * ratio, side * ratio), axis=(1, 2))
    corners = places + border - (side // 2 - 1)
    parts = []
    for start in range(0, len(corners), _AT_ONCE):
        row, col = corners[start : start + _AT_ONCE].T
        some_ms, some_pan = ms_windows[:, row, col], pan_windows[:, row * ratio, col * ratio]
        parts.append(network(_tensor(some_ms.swapaxes(0, 1)), _tensor(some_pan.swapaxes(0, 1))))
    return np.asarray(torch.cat(parts).numpy().T, np.float32)


def _tensor(x: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))
