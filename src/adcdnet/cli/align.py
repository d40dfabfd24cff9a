"""adcdnet align"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from adcdnet.cli.choices import Resampled
from adcdnet.cli.console import file_to_write, out_console, say


def align_command(
    ms: Annotated[Path, typer.Option("--ms", help="Coarse image, any number of bands.")],
    pan: Annotated[Path, typer.Option("--pan", help="Fine image.")],
    out: Annotated[Path, typer.Option(callback=file_to_write, help="Copy to write (GeoTIFF, float32).")],
    resample: Annotated[Resampled, typer.Option(help="Which image: pan or ms. The other one stays as it is.")] = "pan",
    shift: Annotated[
        str, typer.Option(help="Correction of PAN: auto (measured), or ROW,COL in its pixels, down and right positive.")
    ] = "0,0",
) -> None:
    """Resample one image onto a grid that fits the other's: for other pixel sizes, edges, coordinate systems, shifts.

    Example: adcdnet align --ms ms.tif --pan pan.tif --shift auto --out pan_on_ms.tif
    """
    import numpy as np

    from adcdnet.geo.alignment import align, contrast_left

    copy = align(ms, pan, out=out, resample=resample, shift=_shift(shift))
    say(copy.notes)
    if copy.measured:
        measured = copy.measured
        out_console.print(
            f"correction of PAN: {measured.row:+.2f} rows, {measured.col:+.2f} columns (± {measured.largest_error:.2f})"
        )
    height, width = copy.grid.shape
    out_console.print(f"{out}: {height}×{width} pixels by cubic convolution, ratio {copy.ratio}", markup=False)
    name = resample.upper()
    half = float(contrast_left(np.array(0.5)))
    out_console.print(
        f"details 4 {name} pixels wide keep {copy.contrast:.0%} of their contrast; half a pixel off all over would "
        f"leave {half:.0%}, but `train` and `predict` take that without a copy"
    )
    pair = (ms, out) if resample == "pan" else (out, pan)
    out_console.print(f"use it with --ms {pair[0]} --pan {pair[1]}", markup=False)


def _shift(text: str) -> tuple[float, float] | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        row, col = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither auto nor ROW,COL such as 1,-0.5", param_hint="--shift") from None
    return row, col
