"""PriorNet, the network of stage I, which hands prior masks to stage II."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from .architecture import Layout, PatchArchitecture
from .encoder import SensorMaps, TwoSensors
from .parts import PUBLISHED, Parts
from .tile_sharing import Places, Targets, as_map


class PriorNet(TwoSensors):
    """The network of stage I: F_ms and F_pan of a patch, standardised, of which the prior masks are the σ.

    `mean` and `deviation` (2, c), per sensor and channel, are measured on training samples at the end of stage I; 0 and
    1, as they begin, leave F as it is (the published mask).
    """

    def __init__(self, config: PatchArchitecture, layout: Layout, parts: Parts = PUBLISHED) -> None:
        super().__init__(config, layout, parts)
        self.register_buffer("mean", torch.zeros(2, config.widths[-1]))
        self.register_buffer("deviation", torch.ones(2, config.widths[-1]))
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """Patches -> (F_ms − mean) / deviation, the same of PAN."""
        f = self.ms.attend(self.ms.backbone(ms)[-1]), self.pan.attend(self.pan.backbone(pan)[-1])
        (scale, shift), image = self._affine(), (-1, 1, 1)
        standardised = [torch.addcmul(b.view(image), x, a.view(image)) for a, b, x in zip(scale, shift, f, strict=True)]
        return standardised[0], standardised[1]

    def share(self, ms: Tensor, pan: Tensor, *, of_ms: SensorMaps | None = None) -> tuple[SensorMaps, SensorMaps]:
        """Tiles -> maps, of which `features` takes what it needs at each target; their cells are scaled already.

        of_ms: the maps of these very ms, where they are known.
        """
        scale, _ = self._affine()
        if of_ms is None:
            of_ms = self.ms.share(ms)
            of_ms = of_ms._replace(depths=[], cells=of_ms.cells * scale[0].view(-1, 1, 1))
        of_pan = self.pan.share(pan)
        return of_ms, of_pan._replace(depths=[], cells=of_pan.cells * scale[1].view(-1, 1, 1))

    def features_at(
        self, maps: tuple[SensorMaps, SensorMaps], places: Places, side: int
    ) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
        """What `forward` gives, in the central side × side cells of targets of tiles, (*p, c) each, to be read once."""
        features = []
        for encoder, own, shift in zip((self.ms, self.pan), maps, self._affine()[1], strict=True):
            cells, masks = encoder.cells_at(own, places, side), encoder.masks_at(own, places, side)
            features.append(
                map(shift.add, cells) if masks is None else map(partial(torch.addcmul, shift), cells, masks)
            )
        return features[0], features[1]

    def features(self, maps: tuple[SensorMaps, SensorMaps], targets: Targets) -> tuple[Tensor, Tensor]:
        """What `forward` gives, for targets of tiles."""
        side = self.ms.cells
        of_ms, of_pan = self.features_at(maps, targets, side)
        return as_map(of_ms, side), as_map(of_pan, side)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """scale and shift, (2, c) each, with which F becomes standardised."""
        scale = 1 / self.deviation
        return scale, -self.mean * scale
