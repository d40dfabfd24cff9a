"""What helpers of `predict` gain and cost: real workers on this machine, and many simulated ones.

    python scripts/bench_cluster.py real [--side 1600] [--workers 1 2]
    python scripts/bench_cluster.py simulated --workers 12 100 400 [--seconds 1 10]
    python scripts/bench_cluster.py pins [--gigabytes 1]

real: a model of random weights and a scene of random values, in parts, each worker with one thread. simulated: tasks
that sleep so long, on workers that are threads of few processes: what is left is the work of scheduler and client.
pins: what it costs to tell one content of a file from another, as every part does, against a hash of all of it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
from affine import Affine
from distributed import Client, LocalCluster

from adcdnet.cluster.engine import Failed, Workers, run_all
from adcdnet.cluster.parts import Part, missing_parts, place_of_tiles
from adcdnet.cluster.scenes import Made, Work, make_part, map_scene
from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene_files import SceneFiles
from adcdnet.mapping.journal import _pin
from adcdnet.mapping.memory import peak
from adcdnet.mapping.model import Model
from adcdnet.mapping.record import RunRecord
from adcdnet.nn.architecture import Layout
from adcdnet.nn.networks import network_of

BANDS, RATIO, CLASSES = 6, 2, 5


def random_model() -> Model:
    config = TrainConfig.of_profile("default")
    layout = Layout(ms_bands=BANDS, pan_bands=1, ratio=RATIO, classes=CLASSES)
    shares = (1 / CLASSES,) * CLASSES
    return Model.of_network(
        network_of(config.network, layout).eval(),
        BandStatistics((500.0,) * BANDS, (200.0,) * BANDS, (500.0,), (200.0,)),
        ClassTable.of(range(1, CLASSES + 1), [f"class {k}" for k in range(CLASSES)]),
        shares,
        shares,
        record=RunRecord(name="random"),
        answers=config.answers,
    )


def random_scene(folder: Path, side: int) -> SceneFiles:
    rng = np.random.default_rng(0)
    files = {}
    for name, count, pixels in (("ms", BANDS, side), ("pan", 1, side * RATIO)):
        metres = 30.0 * side / pixels
        grid = Grid(pixels, pixels, Affine(metres, 0, 500_000, 0, -metres, 5_000_000), "EPSG:32633")
        files[name] = folder / f"{name}.tif"
        write_raster(files[name], rng.integers(1, 999, (count, pixels, pixels)).astype(np.uint16), grid)
    return SceneFiles(**files)


def make_and_weigh(work: Work, files: SceneFiles, part: Part, place: str) -> tuple[float, float, int]:
    """Seconds, those of a processor, and the most bytes held so far."""
    started, busy = time.perf_counter(), time.process_time()
    make_part(work, files, part, place)
    return time.perf_counter() - started, time.process_time() - busy, peak()


def real(side: int, counts: list[int], parts: int) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        model, files = random_model(), random_scene(folder, side)
        model.save(folder / "model.safetensors")
        work = Work(model=folder / "model.safetensors", digest=model.digest, memory=2**30, device="cpu")
        print(f"{side} × {side} MS pixels, {parts} parts, one thread a worker, --memory 1GB")
        print("| workers | s | tasks' s | tasks' CPU s | share of ideal | other s a task | MB a worker |")
        print("|---|---|---|---|---|---|---|")
        first = None
        for count in counts:
            out = folder / f"map-{count}.tif"
            place = place_of_tiles(out)
            calls = [(work, files, part, place) for part in missing_parts(place, (side, side), parts)]
            ready: list[float] = []
            told = run_all(
                Workers(count=count, threads=1, memory=work.memory),
                make_and_weigh,
                calls,
                begun=lambda _, ready=ready: ready.append(time.perf_counter()),
            )
            results = [result for _, result in told if not isinstance(result, Failed)]
            seconds = time.perf_counter() - ready[0]
            assert len(results) == len(calls), "some parts failed"
            own, busy, most = sum(r[0] for r in results), sum(r[1] for r in results), max(r[2] for r in results)
            first = first or seconds * count
            share, other = first / seconds / count, (seconds * count - own) / len(calls)
            figures = f"{seconds:.1f} | {own:.1f} | {busy:.1f} | {share:.2f} | {other:.2f} | {most / 2**20:.0f}"
            print(f"| {count} | {figures} |", flush=True)
            map_scene(work, files, Made(out), place=place)
        digests = {hashlib.sha256((folder / f"map-{count}.tif").read_bytes()).hexdigest() for count in counts}
        print(f"maps that differ: {len(digests) - 1}")


def rest(seconds: float, number: int) -> tuple[str, int]:
    """As long as a part, and what it returns."""
    time.sleep(seconds)
    return f"part {number}", number


def simulated(counts: list[int], lengths: list[float], each: int) -> None:
    print(f"{each} tasks a worker; workers are threads of 4 processes; scheduler and client share a core")
    print("| workers | s a task | tasks | s | share of ideal | tasks a second |\n|---|---|---|---|---|---|")
    for count in counts:
        with (
            LocalCluster(n_workers=4, threads_per_worker=count // 4, processes=True, dashboard_address=None) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            for seconds in lengths:
                workers = _Given(client, count)
                calls = [(seconds, number) for number in range(each * count)]
                started = time.perf_counter()
                done = sum(1 for _ in run_all(workers, rest, calls))
                took = time.perf_counter() - started
                figures = f"{done} | {took:.1f} | {seconds * each / took:.2f} | {done / took:.0f}"
                print(f"| {count} | {seconds:g} | {figures} |", flush=True)


class _Given(Workers):
    """A client that is connected already; threads count as workers."""

    def __init__(self, client: Client, count: int) -> None:
        super().__init__(count=count, limit=None)
        object.__setattr__(self, "client", client)

    def connected(self):  # type: ignore[no-untyped-def]
        return nullcontext(self.client)  # type: ignore[attr-defined]


def pins(gigabytes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.tif"
        block = np.random.default_rng(0).bytes(2**24)
        with file.open("wb") as opened:
            for _ in range(round(gigabytes * 64)):
                opened.write(block)
        print("| what | s |\n|---|---|")
        for name, work in (("size and 16 samples", lambda: _pin(file)), ("all of it", lambda: hash_all(file))):
            started = time.perf_counter()
            work()
            print(f"| {name} | {time.perf_counter() - started:.4f} |")


def hash_all(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("real", "simulated", "pins"))
    parser.add_argument("--side", type=int, default=1600)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    given = parser.parse_args()
    print(f"{psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    if given.what == "real":
        real(given.side, given.workers, given.parts)
    elif given.what == "simulated":
        simulated(given.workers, given.seconds, given.each)
    else:
        pins(given.gigabytes)


if __name__ == "__main__":
    main()
