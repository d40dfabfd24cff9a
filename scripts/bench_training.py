"""Labelled pixels a second in stage II: tiles against single patches, same network, same machine, one run.

    python scripts/bench_training.py [--side 160] [--ratio 2]
    python scripts/bench_training.py --profiles --ratio 4      # seconds a step of both stages, of every profile

On a simulated scene labelled nearly everywhere. `patches` are 128 a step; tiles are 16 of 16×16 pixels, 4 of 32×32 or
one of 64×64, and all their labels; `default` takes 512 of the labels of 8 of the first. The DTM heads see 32 pixels a
step (`branch_targets`). The last line is the number of labelled pixels a tile of 16×16 must hold for both to cost the
same per labelled pixel. That tiles are faster does not make their networks better: docs/evidence.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from affine import Affine

from adcdnet.cli import _keep_memory
from adcdnet.config import TrainConfig
from adcdnet.demo.simulate import simulate
from adcdnet.geo.grid import Grid
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene import Pixels, Scene
from adcdnet.nn.architecture import Layout
from adcdnet.split.blocks import split_blocks
from adcdnet.training.area import TrainingArea
from adcdnet.training.stages.loop import History, build_network
from adcdnet.training.stages.schedule import schedule_of
from adcdnet.training.stages.stage2 import Supervision, losses_of
from adcdnet.training.stages.train import train_network

DRAWS = {
    "patches": {"sampling": "patch", "stage2": {"batch": 128}},
    "default": {"sampling": "dense"},
    "tiles of 16": {"sampling": "dense", "stage2": {"tile": 16, "tiles": 16, "targets": 4096}},
    "tiles of 32": {"sampling": "dense", "stage2": {"tile": 32, "tiles": 4, "targets": 4096}},
    "tile of 64": {"sampling": "dense", "stage2": {"tile": 64, "tiles": 1, "targets": 4096}},
}
FEW = (2, 8)  # steps


def step_cost(area: TrainingArea, layout: Layout, config: TrainConfig, repeats: int = 7) -> tuple[float, float]:
    """Seconds a step of stage II (forward, backward), and labelled pixels in it; the fastest of some."""
    network = build_network(config, layout, torch.device("cpu")).train()
    schedule, rng = schedule_of(area, config), np.random.default_rng(0)
    supervision = Supervision(area=area, config=config, schedule=schedule, rng=rng, history=History())
    stage = config.stage2
    labels = min(stage.targets, area.labels_per_tile(stage.tile) * stage.tiles) if schedule.dense else stage.batch
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        parts = losses_of(network, supervision)
        (parts[0] + 0.8 * sum(parts[1:], torch.zeros_like(parts[0]))).backward()
        times.append(time.perf_counter() - started)
    return min(times[1:]), labels


def profile_cost(area: TrainingArea, layout: Layout, config: TrainConfig, stage: str) -> float:
    """Seconds a step of one stage of a training as it is: a few steps more, against a few."""
    seconds = []
    for steps in (FEW[0], *FEW):  # the first call is slower
        course = {name: {"steps": steps if name == stage else 1} for name in ("stage1", "stage2")}
        shortened = config.replace({**course, "validations": 1})
        network = build_network(shortened, layout, torch.device("cpu"))
        seconds.append(train_network(network, area, shortened, History()).seconds.get(stage, 0.0))
    return (seconds[2] - seconds[1]) / (FEW[1] - FEW[0])


def print_profiles(scene: Scene, labels: Labels, pixels: Pixels, layout: Layout) -> None:
    print(f"{'profile':12}{'parameters':>12}{'stage I, s/step':>17}{'stage II, s/step':>18}{'all steps, min':>16}")
    for name in ("default", "plain", "patch", "paper-code", "paper"):
        every = {"precision": "bf16", "plain_if_few": False, "tiles_from": 1, "passes": 0.0}  # all steps
        config = TrainConfig.of_profile(name).replace(every)
        split = split_blocks(labels, pixels.valid, reach=config.guard, config=config.split, seed=0)
        area = TrainingArea.of(pixels, labels, split, config=config, ratio=scene.ratio)
        parameters = sum(p.numel() for p in build_network(config, layout, torch.device("cpu")).parameters())
        first, second = (profile_cost(area, layout, config, stage) for stage in ("stage1", "stage2"))
        schedule = schedule_of(area, config)
        minutes = (first * config.stage1.steps + second * schedule.stage2.steps) / 60
        print(f"{name:12}{parameters:12,}{first:17.3f}{second:18.3f}{minutes:16.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=160, help="MS pixels")
    parser.add_argument("--ratio", type=int, default=2)
    parser.add_argument("--profiles", action="store_true")
    arguments = parser.parse_args()
    _keep_memory()
    made = simulate(arguments.side, arguments.side, ratio=arguments.ratio, seed=0)
    grid = Grid(arguments.side, arguments.side, Affine(4, 0, 0, 0, -4, 0), None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_raster(folder / "ms.tif", made.ms, grid, nodata=None)
        write_raster(folder / "pan.tif", made.pan, grid.refine(arguments.ratio), nodata=None)
        write_raster(folder / "labels.tif", made.labels, grid, classes=made.class_table)
        with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
            labels = read_labels(folder / "labels.tif", scene.grid, classes=made.class_table)
            pixels = scene.read(scene.grid.window)
            layout = Layout(
                ms_bands=scene.ms_bands, pan_bands=scene.pan_bands, ratio=scene.ratio, classes=len(labels.classes)
            )
            print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, ratio {arguments.ratio}")
            if arguments.profiles:
                print_profiles(scene, labels, pixels, layout)
                return
            print(
                f"{'default network':18}{'a step draws':12}{'labels/step':>12}{'s/step':>9}{'labels/s':>10}{'times':>7}"
            )
            for what, network in (("all its parts", {}), ("without DTM", {"dtm": False})):
                rates, seconds = {}, {}
                for draw, settings in DRAWS.items():
                    config = TrainConfig.of_profile("patch").replace({**settings, "network": network})
                    split = split_blocks(labels, pixels.valid, reach=config.network.reach, config=config.split, seed=0)
                    area = TrainingArea.of(pixels, labels, split, config=config, ratio=scene.ratio)
                    seconds[draw], count = step_cost(area, layout, config)
                    rates[draw] = count / seconds[draw]
                    times = rates[draw] / rates["patches"]
                    print(f"{what:18}{draw:12}{count:12.0f}{seconds[draw]:9.3f}{rates[draw]:10.0f}{times:7.1f}")
                each = seconds["patches"] / DRAWS["patches"]["stage2"]["batch"]
                print(f"  break-even: {seconds['tiles of 16'] / 16 / each:.0f} labels a tile of 16×16")


if __name__ == "__main__":
    main()
