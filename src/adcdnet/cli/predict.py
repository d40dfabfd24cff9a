"""adcdnet predict"""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from adcdnet import alignment
from adcdnet.checkpoint import Model
from adcdnet.cli.console import DeviceOption, FixShiftOption, MsOption, PanOption, out_console, progress_bars, say
from adcdnet.inference import predict
from adcdnet.scene import Scene


def predict_command(
    model: Annotated[Path, typer.Argument(help="Run folder or model file.")],
    ms: MsOption,
    pan: PanOption,
    out: Annotated[Path, typer.Option(help="Map to write (GeoTIFF).")],
    probabilities: Annotated[Path | None, typer.Option(help="Also write a probability per class (GeoTIFF).")] = None,
    engine: Annotated[str | None, typer.Option(help="dense (default where the network allows) or patch.")] = None,
    tau: Annotated[
        float, typer.Option(min=0.0, help="1: classes as frequent as labelled; 0: all classes alike.")
    ] = 1.0,
    memory: Annotated[str, typer.Option(help="Resident memory to stay within, e.g. 2GB or 800MB.")] = "2GB",
    precision: Annotated[str, typer.Option(help="float32, or bf16: faster on processors that have it.")] = "float32",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished tiles until the map is whole; go on from those left before.")
    ] = False,
    fix_shift: FixShiftOption = False,
    sieve: Annotated[
        int, typer.Option(min=0, help="Give patches of fewer MS pixels to their largest neighbour (0: none).")
    ] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Map a scene.

    Example: adcdnet predict runs/first --ms ms.tif --pan pan.tif --out map.tif
    """
    if engine not in (None, "dense", "patch"):
        raise typer.BadParameter(f"{engine!r} is neither 'dense' nor 'patch'", param_hint="--engine")
    if precision not in ("float32", "bf16"):
        raise typer.BadParameter(f"{precision!r} is neither 'float32' nor 'bf16'", param_hint="--precision")
    budget = _bytes(memory)
    loaded = Model.load(model)
    with Scene.open(ms, pan) as scene:
        if fix_shift:
            alignment.fix_shift(scene)
        say(scene.notes)
        started = time.perf_counter()
        with progress_bars() as report:
            warnings = predict(
                loaded,
                scene,
                out=out,
                probabilities=probabilities,
                engine=engine,  # type: ignore[arg-type]
                tau=tau,
                memory=budget,
                precision=precision,  # type: ignore[arg-type]
                resume=resume,
                sieved=sieve,
                device=device,
                progress=lambda done, of: report("map", done, of, {}),
            )
        seconds = time.perf_counter() - started
        pixels = scene.grid.height * scene.grid.width
    say(warnings)
    out_console.print(f"map: {out} ({pixels} MS pixels in {seconds:.1f} s)", markup=False)
    if model.is_dir():
        line = shlex.join(map(str, ("adcdnet", "report", model, "--map", out, "--ms", ms, "--pan", pan)))
        out_console.print(f"report of it: {line}", markup=False)


def _bytes(text: str) -> int:
    """'2GB', '800 MB' -> bytes, powers of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])i?B", text.strip(), re.IGNORECASE)
    if not found:
        raise typer.BadParameter(f"{text!r} is not an amount such as 2GB or 800MB", param_hint="--memory")
    return int(float(found[1]) * 2 ** {"M": 20, "G": 30}[found[2].upper()])
