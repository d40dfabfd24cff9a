"""Backbone and attention of one sensor, and what the target pixels of a tile share of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architecture import STRIDES, STRIDES_WITHOUT_STEM, Layout, PatchArchitecture
from .backbone import Backbone
from .dtm import GRID, to_grid
from .parts import PUBLISHED, Attention, Parts
from .tile_sharing import Masks, Places, Targets, as_map, box_mean


class View(NamedTuple):
    """What one sensor's encoder gives the main branch for n patches."""

    tap: Tensor  # (n, c_1) the first depth at the target pixel itself, full coarse resolution
    attended: Tensor  # (n, c, g, g) F


class SensorMaps(NamedTuple):
    """What the target pixels of a tile share of one sensor, at every position."""

    depths: list[Tensor]  # (b, c_k, h_k, w_k); the prior network keeps none
    cells: Tensor  # (b, c, h, w) ReLU of the last depth; F is this times the attention's mask, which is positive
    pooled: Tensor  # (b, 2, h, w) mean and maximum over the channels of the last depth, for the attention
    mask: Masks | None  # None without attention


class Encoder(nn.Module):
    """Backbone and attention of one sensor. `ratio` marks the fine sensor of a network with a stem."""

    def __init__(
        self,
        bands: int,
        config: PatchArchitecture,
        *,
        ratio: int | None,
        strides: Sequence[int],
        scales: tuple[float, float],
        parts: Parts,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(
            bands,
            config.widths,
            strides=strides,
            unit=config.backbone,
            padding=config.padding,
            ratio=ratio,
            squeeze_excite=config.squeeze_excite,
            hard_swish=config.hard_swish,
        )
        self.attention: Attention | None = parts.attention(*scales) if config.attention == "dia" else None
        self.config, self.cells = config, config.cells
        self.valid, self.pool = config.padding == "valid", config.token == "pool"

    def attend(self, cells: Tensor) -> Tensor:
        """F of whole patches (n, c, g, g)."""
        return F.relu(cells) if self.attention is None else self.attention(cells)

    # Patch by patch: x (n, bands, h, w), one patch per target pixel

    def view(self, depths: list[Tensor]) -> View:
        middle = depths[0].shape[-1] // 2
        return View(depths[0][:, :, middle, middle], self.attend(depths[-1]))

    def tokens(self, depths: list[Tensor], attended: Tensor) -> list[Tensor]:
        """The maps that the DTM reads: every depth over the patch, then F."""
        maps = [*depths, attended]
        if self.valid:
            maps = [crop(m, side) for m, side in zip(maps, (*self.config.sides, self.cells), strict=True)]
        return [to_grid(m) for m in maps] if self.pool else maps

    # Shared: maps of whole tiles, of which the values around each target are read

    def share(self, x: Tensor) -> SensorMaps:
        """Tiles (b, bands, h, w) with a halo of the network's reach. ValueError if the network cannot be shared."""
        depths = self.backbone.shared(x)
        last = depths[-1]
        pooled = torch.stack((last.mean(1), last.amax(1)), dim=1)
        mask = None if self.attention is None else self.attention.mask_operator(self.cells)
        return SensorMaps(depths, last if self.backbone.rectified else F.relu(last), pooled, mask)

    def _before(self, depth: int) -> int:
        """By how many MS pixels the map of a depth begins before the first target of a tile."""
        return self.config.before - self.config.radii[depth]

    def tap_at(self, maps: SensorMaps, places: Places) -> Tensor:
        """The first depth at every target itself, (*p, c_1)."""
        return places.cells(maps.depths[0], side=1, step=1, reach=self._before(0))[0]

    def cells_at(self, maps: SensorMaps, places: Places, side: int) -> Sequence[Tensor]:
        """The central side × side cells of every target before attention, (*p, c) each."""
        return places.cells(maps.cells, side=side, step=self.config.apart[-1], reach=self._before(-1))

    def masks_at(self, maps: SensorMaps, places: Places, side: int) -> Sequence[Tensor] | None:
        """The attention's masks of these cells, (*p, 1) each; None without attention."""
        if maps.mask is None:
            return None
        pooled = places.windows(maps.pooled, side=self.cells, step=self.config.apart[-1], reach=self._before(-1))
        return torch.split(maps.mask(pooled, side=side).view(*places.shape, side**2), 1, dim=-1)

    def attended_at(self, maps: SensorMaps, places: Places, side: int) -> Iterator[Tensor]:
        """F in the central side × side cells of every target, (*p, c) each."""
        cells, masks = self.cells_at(maps, places, side), self.masks_at(maps, places, side)
        return iter(cells) if masks is None else map(torch.mul, cells, masks)

    def tokens_at(self, maps: SensorMaps, targets: Targets, attended: Tensor) -> list[Tensor]:
        tokens = []
        for k, (depth, step, side) in enumerate(zip(maps.depths, self.config.apart, self.config.sides, strict=True)):
            reach = self._before(k)
            if self.pool and len(targets.tile) * side**2 > depth.numel() // depth.shape[1]:
                # many targets: means of all places first. The 4×4 windows of the pooling overlap by one cell; with
                # p = 8 m + 1 they lie 2 m pixels apart
                apart = self.config.patch // GRID
                means = box_mean(depth, apart // step + 1, step)
                tokens.append(as_map(targets.cells(means, side=GRID, step=apart, reach=reach - apart // 2), GRID))
            else:
                whole = as_map(targets.cells(depth, side=side, step=step, reach=reach), side)
                tokens.append(to_grid(whole) if self.pool else whole)
        return [*tokens, to_grid(attended) if self.pool else attended]


def crop(x: Tensor, side: int) -> Tensor:
    """The central side × side positions of (..., h, w), a view."""
    trim = (x.shape[-1] - side) // 2
    return x[..., trim : trim + side, trim : trim + side]


class TwoSensors(nn.Module):
    """An encoder for each sensor. MS and PAN differ in the strides and in which part of DIA is damped."""

    def __init__(self, config: PatchArchitecture, layout: Layout, parts: Parts = PUBLISHED) -> None:
        super().__init__()
        fine_strides, stem = (STRIDES, layout.ratio) if config.stem else (STRIDES_WITHOUT_STEM, None)
        if stem is None and layout.ratio != 4:
            raise ValueError(f"a network without a stem works at ratio 4 only, got {layout.ratio}; use stem = true")
        self.ms = Encoder(layout.ms_bands, config, ratio=None, strides=STRIDES, scales=(0.4, 0.1), parts=parts)
        self.pan = Encoder(layout.pan_bands, config, ratio=stem, strides=fine_strides, scales=(0.1, 0.4), parts=parts)
