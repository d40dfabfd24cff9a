"""adcdnet export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcdnet.cli.choices import ExportFormat
from adcdnet.cli.console import PriorOption, TauOption, out_console, prior_of, say


def export_command(
    model: Annotated[Path, typer.Argument(help="Run folder or model file.")],
    out: Annotated[Path, typer.Option(help="New folder for graph, weights, classes and model card.")],
    format: Annotated[ExportFormat, typer.Option(help="onnx, or pt2 for torch.export.load.")] = "onnx",
    tau: TauOption = 1.0,
    prior: PriorOption = "natural",
    licence: Annotated[
        str, typer.Option("--license", help="Licence of the model for its card, e.g. cc-by-4.0.")
    ] = "unknown",
) -> None:
    """Hand a model on: a graph that onnxruntime or PyTorch runs without adcdnet, with a model card.

    Format onnx needs pip install "adcdnet[export]". A committee takes minutes.

    Example: adcdnet export runs/first --out handed-on
    """
    from adcdnet.export.write import export_model
    from adcdnet.mapping.model import Model

    loaded = Model.load(model)
    left_out = export_model(loaded, out, format=format, tau=tau, prior=prior_of(prior, loaded.classes), licence=licence)
    say(left_out)
    size = (out / f"model.{format}").stat().st_size / 1e6
    out_console.print(f"model: {out / f'model.{format}'} ({size:.1f} MB)", markup=False)
