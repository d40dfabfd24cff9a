"""Both kinds of network, and one of them by its settings."""

from __future__ import annotations

from typing import Union

from .adcdnet import ADCDNet
from .architecture import Architecture, Layout, PatchArchitecture
from .parts import PUBLISHED, Parts
from .tile_adcdnet import TileADCDNet

Network = Union[ADCDNet, TileADCDNet]  # noqa: UP007


def network_of(config: Architecture, layout: Layout, parts: Parts = PUBLISHED) -> Network:
    """At its start. ValueError where settings and data do not go together."""
    if isinstance(config, PatchArchitecture):
        return ADCDNet(config, layout, parts)
    return TileADCDNet(config, layout, parts)
