"""The network over tiles: is it the same by any tile, how fast is it, how near to the machine's peak?

    python scripts/bench_tiles.py [--side 512] [--ratios 2 4] [--networks default plain ...]

Networks have random weights: accuracy plays no part here. `halo` is what a tile of --side MS pixels computes more than
it keeps. The peak is that of a 3×3 convolution, channels last, timed in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from adcdnet.cli import _keep_memory
from adcdnet.nn.architecture import Layout, TileArchitecture
from adcdnet.nn.tile_adcdnet import TileADCDNet

PLAIN = replace(TileArchitecture(), attention="none", dtm=False, prior=False)
NETWORKS = {
    "default": TileArchitecture(),
    "plain": PLAIN,
    "plain, one level": replace(PLAIN, widths=(64,)),
    "plain, two levels": replace(PLAIN, widths=(64, 96)),
    "plain, fine grid": replace(PLAIN, grid="fine"),
}


def best_time(work: Callable[[], object], repeats: int = 3) -> float:
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def images(side: int, ratio: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ms = torch.randn(1, 6, side, side, generator=generator).to(dtype)
    return ms, torch.randn(1, 1, side * ratio, side * ratio, generator=generator).to(dtype)


@torch.inference_mode()
def equality(config: TileArchitecture, dtype: torch.dtype) -> float:
    """The largest difference of logits between one tile of 150 × 150 and tiles of 13 and 64."""
    torch.manual_seed(0)
    network = TileADCDNet(config, Layout(ms_bands=6, pan_bands=1, ratio=2, classes=5)).to(dtype).eval()
    reach, step, size, worst = config.reach, config.targets_per_pixel(2), 150, 0.0
    ms, pan = images(size + 2 * reach, 2, dtype)
    whole = network(ms, pan, border=reach, origin=(-reach, -reach))
    for tile in (13, 64):
        for row, col in ((0, 0), (tile, 2 * tile), (size - tile, 3)):
            far = tile + 2 * reach
            window = ms[..., row : row + far, col : col + far]
            fine = pan[..., 2 * row : 2 * (row + far), 2 * col : 2 * (col + far)]
            found = network(window, fine, border=reach, origin=(row - reach, col - reach))
            expected = whole[..., row * step : (row + tile) * step, col * step : (col + tile) * step]
            worst = max(worst, float((found - expected).abs().max()))
    return worst


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--ratios", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    given = parser.parse_args()
    side = given.side
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; best of 3, everything in one process")
    x = torch.randn(1, 64, 512, 512).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
    peak = 2 * 510**2 * 64 * 64 * 9 / best_time(lambda: F.conv2d(x, weight)) / 1e9
    print(f"convolution 64→64 3×3, channels last, float32: {peak:.0f} GFLOP/s")
    titles = ("reach", "halo", "MS px/s", "bf16 px/s", "GFLOP/s", "of peak", "float32", "float64")
    print(f"{'network, ratio':26}" + "".join(f"{title:>11}" for title in titles))
    for name in given.networks:
        config = NETWORKS[name]
        far = [equality(config, dtype) for dtype in (torch.float32, torch.float64)]
        for ratio in given.ratios:
            torch.manual_seed(0)
            network = TileADCDNet(config, Layout(ms_bands=6, pan_bands=1, ratio=ratio, classes=5)).eval()
            reach = config.reach
            ms, pan = images(side + 2 * reach, ratio)

            def work(network: TileADCDNet = network, ms: Tensor = ms, pan: Tensor = pan, reach: int = reach) -> Tensor:
                return network(ms, pan, border=reach)

            seconds = best_time(work)
            with FlopCounterMode(display=False) as counter:
                work()
            with torch.autocast("cpu", torch.bfloat16):
                half = best_time(work)
            flops = counter.get_total_flops() / seconds / 1e9
            more = ((side + 2 * reach) / side) ** 2 - 1
            print(
                f"{f'{name}, {ratio}':26}{reach:11}{more:11.0%}{side**2 / seconds:11.0f}{side**2 / half:11.0f}"
                f"{flops:11.0f}{flops / peak:11.2f}{far[0]:11.1e}{far[1]:11.1e}",
                flush=True,
            )


if __name__ == "__main__":
    _keep_memory()
    main()
