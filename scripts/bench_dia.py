"""Time of DIA against CBAM's spatial attention (7×7) on (32, 128, 64, 64), float32.

python scripts/bench_dia.py [--threads 2] [--device cpu] [--repeats 7]

Both are timed in turn in one run; the time is the best of the repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from adcdnet.benchmark.comparisons import SpatialAttention
from adcdnet.nn import DeformableInteractiveAttention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x = torch.randn(32, 128, 64, 64, device=args.device)
    modules = {"CBAM spatial 7×7": SpatialAttention(rectify=False), "DIA": DeformableInteractiveAttention()}

    def forward(module: nn.Module) -> None:
        with torch.no_grad():
            module(x)

    def forward_backward(module: nn.Module) -> None:
        module(x.detach().requires_grad_()).backward(x)

    def seconds(run: Callable[[nn.Module], None], module: nn.Module) -> float:
        start = time.perf_counter()
        run(module)
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    print(f"{args.device}, {args.threads} threads, torch {torch.__version__}; best of {args.repeats}\n")
    print("| pass | module | ms | DIA / CBAM |\n|---|---|---|---|")
    for name, run in (("forward", forward), ("forward + backward", forward_backward)):
        best = dict.fromkeys(modules, float("inf"))
        for _ in range(args.repeats):
            for label, module in modules.items():
                best[label] = min(best[label], seconds(run, module.to(args.device)))
        cbam, dia = best.values()
        print(
            f"| {name} | CBAM spatial 7×7 | {cbam * 1e3:.0f} | |\n| {name} | DIA | {dia * 1e3:.0f} | {dia / cbam:.2f} |"
        )


if __name__ == "__main__":
    main()
