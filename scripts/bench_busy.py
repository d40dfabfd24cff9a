"""Processor time of three equal calls of `predict` by the API, while other processes keep every core busy.

    python scripts/bench_busy.py [--side 320]

Each row is a process of its own that imports PyTorch through this package, two threads, on a simulated scene and a
network of default settings with its first weights. Rows: how long OpenMP's threads spin before they sleep
(GOMP_SPINCOUNT; 300000 is what OpenMP does by itself), set before PyTorch is loaded; with what the package sets,
but PyTorch imported first, which is too late; and with the memory that is freed given back to the system.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CORES = os.cpu_count() or 1
CALLS = """
import resource, sys, time
from pathlib import Path
{first}
import adcdnet, torch
from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
torch.set_num_threads({threads})
torch.manual_seed(0)
folder = Path(sys.argv[1])
with adcdnet.Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
    layout = Layout(ms_bands=scene.ms_bands, pan_bands=scene.pan_bands, ratio=scene.ratio, classes=5)
    network = ADCDNet(TrainConfig.of_profile("patch").network, layout).eval()
    of_bands = [(value,) * n for n in (layout.ms_bands, layout.pan_bands) for value in (2000.0, 500.0)]
    table = adcdnet.ClassTable.numbered(list("abcde"))
    model = adcdnet.Model.of_network(network, BandStatistics(*of_bands), table, (0.2,) * 5, (0.2,) * 5)
    for _ in range(3):
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        adcdnet.predict(model, scene, out=folder / "map.tif")
        after = resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        seconds = time.perf_counter() - started
        print(f"{{user + system:.1f}} ({{seconds:.1f}} s, system {{system:.1f}})", end=" | ", flush=True)
"""
KEEP = "from adcdnet.cli import _keep_memory; _keep_memory()"
ROWS = {  # what comes first, threads, GOMP_SPINCOUNT
    "OpenMP's own": ("", 2, "300000"),
    "set by the package": ("", 2, None),
    "PyTorch imported first": ("import torch", 2, None),
    "PyTorch imported first, more threads than cores": ("import torch", CORES + 1, None),
    "PyTorch imported first, one thread": ("import torch", 1, None),
    "set by the package, freed memory is kept": (KEEP, 2, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=320, help="MS pixels")
    arguments = parser.parse_args()
    from adcdnet.demo.run import write_scene

    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_scene(Path(folder), seed=0, size=arguments.side, ratio=2)
            print("| CPU s of each call | 1st | 2nd | 3rd |\n|---|---|---|---|")
            for name, (first, threads, spins) in ROWS.items():
                print(f"| {name} | ", end="", flush=True)
                code = CALLS.format(first=first, threads=threads)
                environment = kept if spins is None else {**kept, "GOMP_SPINCOUNT": spins}
                subprocess.run([sys.executable, "-c", code, folder], env=environment, check=True)
                print()
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
