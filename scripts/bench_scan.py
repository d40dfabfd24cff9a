"""Time and peak memory of the selective scan, forward and backward: the loop, the chunked form and mambapy's.

python scripts/bench_scan.py [--steps 5 1024 4096] [--threads 2] [--device cpu] [--repeats 5]

b 8, c 256, n 16, float32. Each row is a process of its own, so that its peak memory is its own; the time is the best of
the repeats, of which there are more where they are short. mambapy: the scan of its Mamba block ("parallel" is its
parallel scan). On a GPU, --forms can name mamba-ssm's kernel as well, if it is installed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

FORMS = ("loop", "chunked", "parallel", "mambapy parallel", "mambapy loop")
BATCH, CHANNELS, STATES = 8, 256, 16


def scan(form: str) -> Callable[..., Tensor]:
    """The scan of that name, as a function of u, delta, A, B, C and D."""
    from adcdnet.nn import selective_scan

    if form in ("loop", "chunked", "parallel"):
        return lambda *inputs: selective_scan(*inputs, form=form)
    if form == "mamba-ssm":
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        def fused(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
            return selective_scan_fn(*(v.mT.contiguous() for v in (u, delta)), A, B.mT, C.mT, D).mT

        return fused
    from mambapy.mamba import MambaBlock, MambaConfig

    block = MambaBlock(MambaConfig(d_model=CHANNELS, n_layers=1, expand_factor=1))
    return block.selective_scan if form == "mambapy parallel" else block.selective_scan_seq


def measure(form: str, steps: int, device: str, repeats: int) -> dict[str, float]:
    """Best time in seconds and peak memory beyond the inputs in MB."""
    torch.manual_seed(0)
    u, grad = torch.randn(2, BATCH, steps, CHANNELS, device=device)
    delta = torch.rand(BATCH, steps, CHANNELS, device=device) * 0.1
    A = -torch.arange(1.0, STATES + 1, device=device).expand(CHANNELS, STATES).contiguous()
    B, C = torch.randn(2, BATCH, steps, STATES, device=device)
    inputs = [
        v.requires_grad_() for v in (u, delta, A, B.contiguous(), C.contiguous(), torch.ones(CHANNELS).to(device))
    ]
    function, cuda = scan(form), device.startswith("cuda")

    def peak() -> float:
        return (
            torch.cuda.max_memory_allocated() / 1e6
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        )

    times, before = [], peak()
    while len(times) < repeats or sum(times) < 1:
        start = time.perf_counter()
        function(*inputs).backward(grad)
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "megabytes": peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 1024, 4096])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=(*FORMS, "mamba-ssm"))
    parser.add_argument("--one", nargs=2, metavar=("FORM", "STEPS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.device, args.repeats)))
        return
    print(
        f"{args.device}, {args.threads} threads, torch {torch.__version__}; "
        f"forward + backward, best of {args.repeats}\n"
    )
    print("| l | form | ms | peak MB | time / chunked | peak / chunked |\n|---|---|---|---|---|---|")
    settings = ["--threads", str(args.threads), "--device", args.device, "--repeats", str(args.repeats)]
    for steps in args.steps:
        rows = {}
        for form in args.forms:
            command = [sys.executable, __file__, "--one", form, str(steps), *settings]
            rows[form] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        base = rows.get("chunked", rows[args.forms[0]])
        for form, row in rows.items():
            time_ratio, memory_ratio = row["seconds"] / base["seconds"], row["megabytes"] / max(base["megabytes"], 1e-3)
            print(
                f"| {steps} | {form} | {row['seconds'] * 1e3:.1f} | {row['megabytes']:.0f} "
                f"| {time_ratio:.2f} | {memory_ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
