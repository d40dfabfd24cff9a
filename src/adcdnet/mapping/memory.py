"""How much memory this process holds, and how much of a scene is worked on at once with what it may take."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import psutil

from adcdnet.errors import InputError
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.backbone import MobileUnit
from adcdnet.nn.context import feature_count
from adcdnet.nn.encoder import Encoder
from adcdnet.nn.networks import Network
from adcdnet.nn.streams import pan_strides, pan_widths
from adcdnet.nn.tile_adcdnet import TileADCDNet

if TYPE_CHECKING:
    from adcdnet.mapping.model import Model
if sys.platform != "win32":
    import resource


def resident() -> int:
    """Bytes that the process holds now."""
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Hand memory that was freed, but is kept for later, back to the system: what a training leaves is no one's."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak() -> int:
    """The most bytes that the process has held so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


Engine = Literal["dense", "patch"]
SMALLEST_TILE, LARGEST_TILE = 16, 512  # MS pixels
LARGEST_BATCH = 256
_OVERHEAD = 220 * 2**20  # bytes for the cells that are worked on, blocks of open files and the libraries' own buffers


class Sizes(NamedTuple):
    """tile: side in MS pixels of what is read and written at once. batch: patches at once of engine `patch`."""

    tile: int
    batch: int


def sizes_of_model(model: Model, memory: int, *, used: int, engine: Engine) -> Sizes:
    """Those with which prediction by all members, one after another, stays within `memory` bytes."""
    reach, layout = model.reach, model.layout
    sizes = [sizes_within(network, memory, reach=reach, used=used, engine=engine) for network in model.networks]
    if len(model.networks) < len(model.members):
        values = 10 * (layout.ms_bands + layout.pan_bands * layout.ratio**2)  # as of networks
        values += 3 * feature_count(layout.ms_bands, layout.pan_bands) + 6 * layout.classes
        sizes.append(_sizes(4 * values, 0, memory, reach=reach, used=used))
    return Sizes(min(each.tile for each in sizes), min(each.batch for each in sizes))


def sizes_within(network: Network, memory: int, *, reach: int, used: int, engine: Engine) -> Sizes:
    """The largest batch, then the largest tile, with which prediction stays within `memory` bytes, `used` included.

    InputError with the smallest amount that works if not even a tile of 16 pixels, patch by patch, fits.
    """
    per_patch = bytes_per_patch(network) if engine == "patch" and isinstance(network, ADCDNet) else 0
    return _sizes(_bytes_per_position(network, engine), per_patch, memory, reach=reach, used=used)


def _sizes(each: int, per_patch: int, memory: int, *, reach: int, used: int) -> Sizes:
    """each: bytes of one MS pixel of a tile with its halo."""
    halo = 2 * reach
    free = memory - used - _OVERHEAD
    least = each * (SMALLEST_TILE + halo) ** 2
    if free < least + per_patch:
        needed = used + _OVERHEAD + least + per_patch
        raise InputError(
            f"{memory / 2**20:.0f} MB are too little for one tile with its halo of {reach} MS pixels; "
            f"--memory {-(-needed // 2**20)}MB is the smallest that works here"
        )
    batch = min(LARGEST_BATCH, (free - least) // per_patch) if per_patch else LARGEST_BATCH
    side = int(((free - batch * per_patch) / each) ** 0.5) - halo
    return Sizes(max(SMALLEST_TILE, min(side, LARGEST_TILE)), batch)


def _bytes_per_position(network: Network, engine: Engine) -> int:
    """Of one MS pixel of a tile with its halo."""
    config, layout = network.config, network.layout
    # pixels: as read twice (read-ahead), standardised in float64, as tensors
    raw = 10 * (layout.ms_bands + layout.pan_bands * layout.ratio**2)
    answer = 6 * layout.classes * config.targets_per_pixel(layout.ratio) ** 2
    if isinstance(network, TileADCDNet):
        return 4 * (raw + answer + _values_of_tile(network))
    if engine == "patch":
        return 4 * (raw + answer)
    # float32 at every position: the maps of both sensors (on the fine grid those of pan twice, of one phase and the
    # next), the cells of both in the prior, three copies of the widest map while a unit works, context statistics
    units = network.sensors.ms.backbone.units
    widest = max(max(config.widths), *(u.expand.out_channels for u in units if isinstance(u, MobileUnit)), 0)
    sensors = 3 if config.grid == "fine" else 2
    kept = sum(config.widths) + config.widths[-1] * (1 + config.prior)
    maps = sensors * kept + 3 * widest + 5 * layout.ms_bands + 10 * layout.pan_bands
    return 4 * (maps + raw + answer)


def _values_of_tile(network: TileADCDNet) -> int:
    """That a network over tiles holds of one MS pixel: what the streams of both networks keep, the encoder's levels,
    and the most that the decoder works on.
    """
    config, layout = network.config, network.layout
    side, pan, finest = layout.ratio, 0, 0
    for width, stride in zip(pan_widths(config, layout.ratio), pan_strides(layout.ratio), strict=True):
        side //= stride
        pan += width * side**2
        finest = max(finest, 3 * width * side**2)  # a unit reads one map and writes one; BatchNorm is in its weights
    streams: int = (2 + config.prior) * (2 * config.stream + pan)
    levels = sum((width >> 2 * k) + 1 for k, width in enumerate(config.widths))
    wide: int = 3 * (config.widths[0] + max(config.widths[:2]))
    statistics = 3 * (5 * layout.ms_bands + 10 * layout.pan_bands) if config.context_branch else 0
    if config.grid == "fine":
        finest += 2 * (config.detail + min(config.stream, 2 * config.detail)) * layout.ratio**2
    return streams + finest + levels + wide + statistics + 256 * bool(config.context_branch)


def bytes_per_patch(network: ADCDNet) -> int:
    """Of one patch of engine `patch`: its pixels, the maps of both networks and sensors, and three copies of the
    largest map inside a unit while that works.
    """
    config, layout = network.config, network.layout
    side = config.size
    pixels = (layout.ms_bands + layout.pan_bands * layout.ratio**2) * side**2
    (ms, ms_inside), (pan, pan_inside) = (
        _map_sizes(network.sensors.ms, config.widths, side),
        _map_sizes(network.sensors.pan, config.widths, side * layout.ratio),
    )
    nets = 2 if config.prior else 1
    return 4 * (pixels + nets * (ms + pan) + 3 * max(ms_inside, pan_inside))


def _map_sizes(encoder: Encoder, widths: Sequence[int], side: int) -> tuple[int, int]:
    """Of a patch of `side` pixels of this sensor: values of all depths, the stem's included, and of the largest map
    inside a unit.
    """
    backbone = encoder.backbone
    kept = inside = 0
    if backbone.stem is not None:
        side //= backbone.stem.conv.stride[0]
        kept = inside = backbone.stem.conv.out_channels * side**2
    for unit, width, stride in zip(backbone.units, widths, backbone.strides, strict=True):
        if isinstance(unit, MobileUnit):
            inside = max(inside, unit.expand.out_channels * side**2)
        side = (side - 3) // stride + 1 if encoder.valid else (side - 1) // stride + 1
        kept += width * side**2
        inside = max(inside, width * side**2)
    return kept, inside
