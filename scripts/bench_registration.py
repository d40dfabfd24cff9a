"""How well the correction of PAN is measured on simulated pairs of known shift; one row of a table per ratio.

python scripts/bench_registration.py [--pairs 12] [--height 161] [--width 133] [--first 0]
python scripts/bench_registration.py --real ms.tif pan.tif [--real ms.tif pan.tif ...]

Each pair is another landscape. PAN comes from a finer one, moved by whole fine pixels and averaged: shifts from −3 to 3
PAN pixels in steps of 1/2 to 1/8, drawn with the seed `--first`, as the first landscape is. "within ±" counts the rows
and columns whose error is at most two standard errors, as 95 % should be. --real cuts images into pieces of 97×103 MS
pixels and says how the corrections of these scatter, and how that compares with the error that each claims.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from adcdnet.demo.simulate import simulate
from adcdnet.geo.grid import Window
from adcdnet.geo.registration import measure
from adcdnet.geo.scene import Scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--height", type=int, default=161)
    parser.add_argument("--width", type=int, default=133)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--real", type=Path, nargs=2, action="append", metavar=("MS", "PAN"))
    args = parser.parse_args()
    if args.real:
        pieces(args.real)
        return
    rng = np.random.default_rng(args.first)
    print(f"{args.pairs} pairs of {args.height}×{args.width} MS pixels per ratio; all figures in PAN pixels\n")
    print(
        "| ratio | largest error | root mean square | over its standard error | largest by phase | within ± | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for ratio in (1, 2, 3, 4, 8):
        finer = 2 if ratio > 2 else 8 // ratio
        finer = 1 if ratio == 8 else finer  # the simulator goes no further than 8: whole shifts there
        off, over, by_phase, seconds = [], [], [], 0.0
        for seed in range(args.first, args.first + args.pairs):
            moved = rng.integers(-3 * finer, 3 * finer + 1, 2)
            truth = moved / finer
            scene = simulate(args.height, args.width, ratio=ratio * finer, seed=seed)
            pan = np.roll(scene.pan[0].astype(np.float32), -moved, (0, 1))
            pan = pan.reshape(args.height * ratio, finer, args.width * ratio, finer).mean((1, 3))[None]
            ms = scene.ms.astype(np.float32)

            def read(window: Window, ms=ms, pan=pan, ratio=ratio):
                fine = window.scale(ratio)
                valid = np.ones((window.height, window.width), bool), np.ones((fine.height, fine.width), bool)
                return ms[:, *window.slices], pan[:, *fine.slices], *valid

            started = time.perf_counter()
            found = measure(read, args.height, args.width)
            seconds += time.perf_counter() - started
            off.append(np.array([found.row, found.col]) - truth)
            over.append(off[-1] / found.errors)
            by_phase.append(np.array([found.phase_row, found.phase_col]) - truth)
        figures = np.abs(off).max(), _rms(off), _rms(over), np.abs(by_phase).max(), seconds / args.pairs
        print(f"| {ratio} | " + " | ".join(f"{v:.3f}" for v in figures[:2]) + " | ", end="")
        within = f"{int((np.abs(over) <= 2).sum())} of {np.size(over)}"
        print(f"{figures[2]:.2f} | {figures[3]:.2f} | {within} | {figures[4]:.2f} |", flush=True)


def pieces(pairs: list[list[Path]], height: int = 97, width: int = 103) -> None:
    found, over = [], []
    for ms, pan in pairs:
        own = []
        with Scene.open(ms, pan) as scene:
            for row in range(0, scene.grid.height - height + 1, height):
                for col in range(0, scene.grid.width - width + 1, width):

                    def read(window: Window, row=row, col=col, scene=scene):
                        return scene.read(Window(row + window.row, col + window.col, window.height, window.width))

                    known = measure(read, height, width)
                    if known is not None:
                        own.append((known.row, known.col, *known.errors))
        values = np.array(own)
        found.append(values)
        over.append((values[:, :2] - values[:, :2].mean(axis=0)) / values[:, 2:])
    values, scale = np.concatenate(found), np.concatenate(over)
    freedom = np.sqrt(len(scale) / (len(scale) - len(found)))  # a mean of each image was taken off
    within = [_rms(list(image[:, :2] - image[:, :2].mean(axis=0))) for image in found]
    spread, times = freedom * _rms(within), freedom * _rms(list(scale))
    print(
        f"{len(values)} pieces of {height}×{width} MS pixels: {values[:, 0].mean():+.2f} rows, "
        f"{values[:, 1].mean():+.2f} columns; spread within an image {spread:.3f}, {times:.2f} times the standard "
        "error that each claims"
    )


def _rms(values: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


if __name__ == "__main__":
    main()
