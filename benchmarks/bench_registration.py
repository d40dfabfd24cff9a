"""How well the correction of PAN is measured on simulated pairs of known shift; one row of a table per ratio.

python benchmarks/bench_registration.py [--pairs 12] [--height 161] [--width 133]

Each pair is another landscape. PAN comes from a finer one, moved by whole fine pixels and averaged: shifts from −3 to 3
PAN pixels in steps of 1/2 to 1/8, drawn with seed 0.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from adcdnet.grid import Window
from adcdnet.register import measure
from adcdnet.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--height", type=int, default=161)
    parser.add_argument("--width", type=int, default=133)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{args.pairs} pairs of {args.height}×{args.width} MS pixels per ratio; all figures in PAN pixels\n")
    print("| ratio | largest error | root mean square | over its standard error | largest by phase | seconds |")
    print("|---|---|---|---|---|---|")
    for ratio in (1, 2, 3, 4, 8):
        finer = 2 if ratio > 2 else 8 // ratio
        finer = 1 if ratio == 8 else finer  # the simulator goes no further than 8: whole shifts there
        off, over, by_phase, seconds = [], [], [], 0.0
        for seed in range(args.pairs):
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
        print(" | ".join(f"{v:.2f}" for v in figures[2:]) + " |", flush=True)


def _rms(values: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


if __name__ == "__main__":
    main()
