"""Whole-scene prediction: is it exact, how fast is it, how much memory does it take?

    python scripts/bench_scene.py equality [--data DIR]    the dense engine against the patch engine
    python scripts/bench_scene.py speed                    both engines, the machine's peak, and a U-Net, in one run
    python scripts/bench_scene.py gpu                      the same on a GPU, in bf16 too, and how near to its limits
    python scripts/bench_scene.py scale [--sides 4000 20000] [--folder DIR]   memory and time of large scenes

Networks have random weights, random BatchNorm statistics and random DIA gates: accuracy plays no part here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.utils._pytree as pytree
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from adcdnet.cli import _keep_memory
from adcdnet.config import TrainConfig
from adcdnet.demo.simulate import simulate, simulate_tiles
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, tiles
from adcdnet.geo.raster_writer import RasterWriter, write_raster
from adcdnet.geo.scene import Scene
from adcdnet.mapping.engine import Precision, _dense, _patch_by_patch, inference, scene_logits
from adcdnet.mapping.model import Model
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout, PatchArchitecture

NETWORKS = {
    "default": PatchArchitecture(),
    "plain": TrainConfig.of_profile("plain").network,
    "default, flatten head": PatchArchitecture(head="flatten"),
    "paper's widths, flatten head": PatchArchitecture(head="flatten", widths=(128, 256, 128)),
}


def random_network(config: PatchArchitecture, layout: Layout, seed: int = 0) -> ADCDNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ADCDNet(config, layout)
        for name, p in network.named_parameters():
            if ".attention." in name:
                nn.init.normal_(p)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)
        if network.prior is not None:
            nn.init.uniform_(network.prior.mean, 0, 0.5)
            nn.init.uniform_(network.prior.deviation, 0.5, 1.5)
    return network.eval()


def random_model(config: PatchArchitecture, scene: Scene, classes: int = 5) -> Model:
    layout = Layout(ms_bands=scene.ms_bands, pan_bands=scene.pan_bands, ratio=scene.ratio, classes=classes)
    side = min(256, *scene.grid.shape)
    pixels = scene.read(next(tiles(scene.grid.height, scene.grid.width, side)))
    statistics = BandStatistics.measure(pixels.ms, pixels.pan, pixels.ms_valid, pixels.pan_valid)
    shares = (1 / classes,) * classes
    table = ClassTable.numbered([f"class {k + 1}" for k in range(classes)])
    return Model.of_network(random_network(config, layout), statistics, table, shares, shares)


# ---- equality


def equality(data: Path, folder: Path, sampled: int = 3000) -> None:
    odd = simulate(61, 47, ratio=3, seed=1)
    grid = Grid(61, 47, Affine(12, 0, 0, 0, -12, 0), "EPSG:32631")
    holes = odd.ms.copy()
    holes[:, 20:23, 30:40] = 0
    write_raster(folder / "ms.tif", holes, grid, nodata=0)
    write_raster(folder / "pan.tif", odd.pan, grid.refine(3), nodata=0)
    scenes = {
        "North Carolina, ratio 2": (data / "nc_landsat7_x2/ms.tif", data / "nc_landsat7_x2/pan.tif"),
        "North Carolina, ratio 4": (data / "nc_landsat7_x4/ms.tif", data / "nc_landsat7_x4/pan.tif"),
        "Sentinel-2, ratio 2": (data / "rcv_sentinel2/coarse.tif", data / "rcv_sentinel2/fine.tif"),
        "simulated 61 × 47, ratio 3, holes": (folder / "ms.tif", folder / "pan.tif"),
    }
    print(f"largest difference of logits, dense against patch engine at {sampled} random pixels (or all, if fewer);")
    print("'clear': pixels whose two best logits differ by more than 1e-3, and how many of them change class")
    print(f"{'scene':36}{'network':24}{'float32':>9}{'float64':>9}{'clear':>8}{'change':>7}  tiles 13/64/200/whole")
    for name, (ms, pan) in scenes.items():
        if not ms.exists():
            print(f"{name:36}not here: {ms}")
            continue
        with Scene.open(ms, pan) as scene:
            for kind in ("default", "plain", "default, flatten head"):
                model = random_model(NETWORKS[kind], scene)
                print(f"{name:36}{kind:24}" + _compare(model, scene, sampled))


def _compare(model: Model, scene: Scene, sampled: int) -> str:
    reach = model.network.config.reach
    pixels = scene.read(scene.grid.window.grow(reach))
    ms, pan = (torch.from_numpy(x) for x in model.statistics.standardise(*pixels))
    row, col = np.nonzero(pixels.valid[reach:-reach, reach:-reach])
    chosen = np.random.default_rng(0).permutation(len(row))[:sampled]
    row, col = row[chosen], col[chosen]
    with torch.inference_mode():
        patch = _patch_by_patch(model.network, ms, pan, row, col, 128).numpy()
        dense = _dense(model.network, ms, pan, row, col).numpy()
        few = slice(0, 300)
        twin = random_network(model.network.config, model.network.layout).double()
        exact = [
            engine(twin, ms.double(), pan.double(), row[few], col[few], *rest).numpy()
            for engine, rest in ((_patch_by_patch, (64,)), (_dense, ()))
        ]
    best = np.sort(patch, axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-3
    changed = (patch.argmax(1) != dense.argmax(1))[clear].sum()
    whole = _stitch(model, scene, max(scene.grid.shape))
    by_tile = [float(np.nanmax(np.abs(_stitch(model, scene, t) - whole))) for t in (13, 64, 200)]
    far = float(np.abs(patch - dense).max())
    tiny = float(np.abs(exact[0] - exact[1]).max())
    return f"{far:9.1e}{tiny:9.1e}{clear.sum():8}{changed:7}  " + " ".join(f"{d:.1e}" for d in by_tile)


def _stitch(model: Model, scene: Scene, tile: int) -> NDArray[np.float32]:
    logits = np.empty((len(model.classes), *scene.grid.shape), np.float32)
    for window, _, part in scene_logits(model, scene, engine="dense", tile=tile):
        assert part is not None
        logits[:, *window.slices] = part
    return logits


# ---- speed


class UNet(nn.Module):
    """Width 32, four levels, BatchNorm, bilinear upsampling: what one would run on a pansharpened stack."""

    def __init__(self, bands: int, classes: int, width: int = 32) -> None:
        super().__init__()
        sizes = [width * 2**k for k in range(5)]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([bands, *sizes[:-1]], sizes, strict=True))
        self.up = nn.ModuleList(_double(a + b, b) for a, b in zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for k, block in enumerate(self.down):
            x = block(x if k == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), skip], 1))
        logits: Tensor = self.last(x)
        return logits


def _double(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
        nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
    )  # fmt: skip


def best_time(work: Callable[[], object], repeats: int = 3) -> float:
    work()
    times = []
    for _ in range(repeats):
        _wait()
        started = time.perf_counter()
        work()
        _wait()
        times.append(time.perf_counter() - started)
    return min(times)


def _wait() -> None:
    """Until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.inference_mode()
def speed(side: int = 256, patches: int = 2048) -> None:
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; best of 3, everything in one process")
    x = torch.randn(1, 64, 256, 256).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3)
    convolution = 2 * 254**2 * 64 * 64 * 9 / best_time(lambda: F.conv2d(x, weight)) / 1e9
    a = torch.randn(2048, 2048)
    product = 2 * 2048**3 / best_time(lambda: a @ a) / 1e9
    print(
        f"peak of this machine, float32: convolution 64→64 3×3 {convolution:.0f} GFLOP/s, matrix {product:.0f} GFLOP/s"
    )
    header = ("patch px/s", "dense px/s", "times", "bf16 px/s", "same class", "GFLOP/s", "of peak")
    print(f"{'network, ratio':38}" + "".join(f"{h:>11}" for h in header))
    rates = {}
    for name, config in NETWORKS.items():
        for ratio in (2, 4):
            line, rates[name, ratio] = _speed_of(config, ratio, side, patches, convolution)
            print(f"{name + f', {ratio}':38}{line}")
    unet = UNet(7, 5).eval()
    stack = torch.randn(1, 7, 4 * 128, 4 * 128).contiguous(memory_format=torch.channels_last)
    rate = 128**2 / best_time(lambda: unet(stack))
    times = rates["default", 4] / rate
    print(f"U-Net on the pansharpened stack, ratio 4: {rate:.0f} MS px/s; default is {times:.1f} times as fast")


def _speed_of(config: PatchArchitecture, ratio: int, side: int, patches: int, peak: float) -> tuple[str, float]:
    """A line of the table, and MS pixels a second of the dense engine in float32. peak: GFLOP/s of a convolution."""
    network = random_network(config, Layout(ms_bands=6, pan_bands=1, ratio=ratio, classes=5))
    rng = np.random.default_rng(0)
    full = side + 2 * config.reach
    ms = torch.from_numpy(rng.standard_normal((6, full, full), np.float32))
    pan = torch.from_numpy(rng.standard_normal((1, full * ratio, full * ratio), np.float32))
    row, col = (i.flatten() for i in np.indices((side, side)))
    few = rng.permutation(len(row))[:patches]

    def by_patch(batch: int) -> Tensor:
        return _patch_by_patch(network, ms, pan, row[few], col[few], batch)

    def dense() -> Tensor:
        return _dense(network, ms, pan, row, col)

    patch = max(patches / best_time(partial(by_patch, batch), 1) for batch in (16, 64, 256))
    seconds = best_time(dense)
    with FlopCounterMode(display=False) as counter:
        plain = dense()
    with torch.autocast("cpu", torch.bfloat16):
        half_seconds, half = best_time(dense), dense()
    same = float((plain.argmax(1) == half.float().argmax(1)).float().mean())
    rate, flops = side**2 / seconds, counter.get_total_flops() / seconds / 1e9
    line = f"{patch:11.0f}{rate:11.0f}{rate / patch:11.1f}{side**2 / half_seconds:11.0f}"
    return line + f"{same:11.4f}{flops:11.0f}{flops / peak:11.2f}", rate


# ---- on a GPU


class _Bytes(TorchDispatchMode):
    """Counts the bytes that operations read and write, as if no value stayed in a cache between two of them."""

    total, operations = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            leaves = pytree.tree_leaves((args, kwargs, found))
            self.total += sum(x.numel() * x.element_size() for x in leaves if isinstance(x, Tensor))
            self.operations += 1
        return found


@torch.inference_mode()
def gpu(side: int = 512, patches: int = 4096) -> None:
    """MS pixels a second on a GPU, and what share of its measured limits that is."""
    kinds: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; best of 3, {side}×{side} MS pixels at once")
    a = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    copied = 2 * 2**30 / best_time(partial(b.copy_, a), 10)
    del a, b
    peaks = {}
    for precision, dtype in kinds.items():
        with inference("cuda", precision):
            a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
            product = 2 * 8192**3 / best_time(lambda a=a: a @ a)
            x = torch.randn(1, 64, 1024, 1024, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(64, 64, 3, 3, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
            convolution = 2 * 1022**2 * 64 * 64 * 9 / best_time(lambda x=x, w=weight: F.conv2d(x, w))
        peaks[precision] = convolution
        print(f"{precision}: matrix {product / 1e12:.0f}, convolution 64→64 3×3 {convolution / 1e12:.0f} TFLOP/s")
    print(f"memory: {copied / 1e12:.2f} TB/s read and written by a copy")
    header = (
        "patch px/s",
        "dense px/s",
        "times",
        "same class",
        "TFLOP/s",
        "of peak",
        "TB/s",
        "of memory",
        "operations",
    )
    print(f"{'network, ratio, precision':42}" + "".join(f"{h:>11}" for h in header))
    for name, config in NETWORKS.items():
        for ratio in (2, 4):
            network = random_network(config, Layout(ms_bands=6, pan_bands=1, ratio=ratio, classes=5)).cuda()
            rng = np.random.default_rng(0)
            full = side + 2 * config.reach
            ms = torch.from_numpy(rng.standard_normal((6, full, full), np.float32)).cuda()
            pan = torch.from_numpy(rng.standard_normal((1, full * ratio, full * ratio), np.float32)).cuda()
            row, col = (i.flatten() for i in np.indices((side, side)))
            few = rng.permutation(len(row))[:patches]
            with inference("cuda", "float32"):
                exact = _dense(network, ms, pan, row, col).argmax(1)
            for precision, peak in peaks.items():
                with inference("cuda", precision):
                    by_patch = partial(_patch_by_patch, network, ms, pan, row[few], col[few], 1024)
                    dense = partial(_dense, network, ms, pan, row, col)
                    patch, seconds = patches / best_time(by_patch, 1), best_time(dense)
                    with FlopCounterMode(display=False) as flops:
                        same = float((dense().argmax(1) == exact).float().mean())
                    with _Bytes() as moved:
                        dense()
                done, carried, rate = flops.get_total_flops() / seconds, moved.total / seconds, side**2 / seconds
                print(
                    f"{f'{name}, {ratio}, {precision}':42}{patch:11.0f}{rate:11.0f}{rate / patch:11.1f}{same:11.4f}"
                    f"{done / 1e12:11.1f}{done / peak:11.3f}{carried / 1e12:11.2f}{carried / copied:11.2f}"
                    f"{moved.operations:11}",
                    flush=True,
                )


# ---- scale


def scale(sides: list[int], folder: Path, memory: str) -> None:
    """Simulated scenes of side × side PAN pixels at ratio 4, mapped by the command line in a process of its own."""
    print(f"--memory {memory}; ratio 4; networks with random weights")
    print(f"{'PAN pixels':>16}{'seconds':>9}{'CPU s':>8}{'MS px/s':>9}{'peak MB':>9}{'µs per MS px':>14}")
    for side in sides:
        ms, pan, out = folder / f"ms_{side}.tif", folder / f"pan_{side}.tif", folder / f"map_{side}.tif"
        if not pan.exists():
            _stream(side // 4, ms, pan)
        with Scene.open(ms, pan) as scene:
            random_model(NETWORKS["default"], scene).save(folder / "model.safetensors")
        command = [sys.executable, "-m", "adcdnet.cli", "predict", str(folder / "model.safetensors")]
        command += ["--ms", str(ms), "--pan", str(pan), "--out", str(out), "--memory", memory]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"predict failed on {side} × {side}")
        seconds = time.perf_counter() - started
        cpu = usage.ru_utime + usage.ru_stime
        pixels = (side // 4) ** 2
        print(
            f"{side:>7} × {side:<6}{seconds:9.0f}{cpu:8.0f}{pixels / seconds:9.0f}{usage.ru_maxrss / 1024:9.0f}"
            f"{1e6 * seconds / pixels:14.1f}",
            flush=True,
        )


def _stream(side: int, ms: Path, pan: Path) -> None:
    grid = Grid(side, side, Affine(4, 0, 500_000, 0, -4, 5_000_000), "EPSG:32631")
    with (
        RasterWriter(ms, grid, count=6, dtype="uint16", nodata=None) as coarse,
        RasterWriter(pan, grid.refine(4), dtype="uint16", nodata=None) as fine,
    ):
        for window, part in simulate_tiles(side, side, ratio=4, seed=0):
            coarse.write(part.ms, window)
            fine.write(part.pan, window.scale(4))


def main() -> None:
    _keep_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("equality", "speed", "gpu", "scale"))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ADCDNET_DATA", "../shared/data")))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[4000, 20000], help="PAN pixels, multiples of 4")
    parser.add_argument("--memory", default="2GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.what == "equality":
            equality(arguments.data, folder)
        elif arguments.what == "speed":
            speed()
        elif arguments.what == "gpu":
            gpu()
        else:
            scale(arguments.sides, folder, arguments.memory)


if __name__ == "__main__":
    main()
