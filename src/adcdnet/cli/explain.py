"""adcdnet explain"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcdnet.cli.console import (
    ColumnOption,
    JsonOption,
    LayerOption,
    MinShareOption,
    MsOption,
    PanOption,
    file_to_write,
    out_console,
    print_table,
    progress_bars,
    say,
)

if TYPE_CHECKING:
    from adcdnet.report.explain import SceneExplanation


def explain_command(
    model: Annotated[Path, typer.Argument(help="Run folder or model file.")],
    ms: MsOption,
    pan: PanOption,
    labels: Annotated[
        list[Path], typer.Option(help="Raster or polygons: the pixels to explain, by class; or --labels for each file.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            callback=file_to_write, help="Figure to write (.png or .svg); a CSV of the same name goes beside it."
        ),
    ],
    classes: Annotated[Path | None, typer.Option(help="CSV with other names for the model's classes.")] = None,
    column: ColumnOption = None,
    layer: LayerOption = None,
    min_share: MinShareOption = None,
    split: Annotated[Path | None, typer.Option(help="split.tif of a run.")] = None,
    part: Annotated[str | None, typer.Option(help="train, validation, test or guard.")] = None,
    json_path: JsonOption = None,
) -> None:
    """Show how much each depth and the prior gave to the answers of the DTM heads, by class and sensor.

    Example: adcdnet explain runs/first --ms ms.tif --pan pan.tif --labels labels.tif --out why.png
    """
    from adcdnet.files import as_json, write_whole
    from adcdnet.geo.classes import ClassTable
    from adcdnet.geo.labels import read_labels
    from adcdnet.geo.scene import Scene
    from adcdnet.mapping.model import Model
    from adcdnet.report.explain import check_outputs, explain, held_out_labels, write_explanation

    outputs = [out, out.with_suffix(".csv"), *([json_path] if json_path else [])]
    check_outputs(outputs, (model, ms, pan, *labels, classes, split))
    loaded = Model.load(model)
    table = ClassTable.read(classes) if classes else loaded.classes
    with Scene.open(ms, pan) as scene:
        read = read_labels(labels, scene.grid, classes=table, column=column, layer=layer, min_share=min_share)
        say((*scene.notes, *read.notes))
        if split is None and (tested := held_out_labels(model, read, scene.grid)) is not None:
            loaded, read = loaded.of_first_network(), tested
            say(["of a run of several folds, its first network is explained on the first fold, where it did not train"])
        with progress_bars() as report:
            explanation = explain(
                loaded,
                scene,
                read,
                split=split,
                part=part,
                progress=report,
            )
        where = f"{part} part of {scene.name}" if part else f"all labels of {scene.name}"
    write_explanation(explanation, out, title=f"{loaded.record.name or 'model'} on the {where}")
    if json_path is not None:
        write_whole(json_path, as_json(explanation.to_dict()))
    print_explanation(explanation)
    out_console.print(f"figure: {out}   table: {out.with_suffix('.csv')}", markup=False)


def print_explanation(explanation: SceneExplanation) -> None:
    from adcdnet.report.explanation_figure import EXPLAINED

    out_console.print(f"Explained: {EXPLAINED}.")
    for head in explanation.heads:
        share = [(f"{head.sensor} head, share of", "pixels", *head.tokens, "agrees with map", "right", "map right")]
        changed = [(f"{head.sensor} head, answers changed without", *head.tokens)]
        for k, name in enumerate(explanation.row_names):
            hits = head.agreement[k], head.right[k], explanation.map_right[k]
            share.append((name, str(explanation.pixels[k]), *_shares(*head.token_shares[k], *hits)))
            changed.append((name, *_shares(*head.changed[k])))
        print_table(share)
        print_table(changed)
        out_console.print(
            f"{head.sensor} head: {head.scan_shares[-1, -1]:.1%} of the evidence enters the scan at its last position, "
            "where the convolution has mixed the last four tokens"
        )


def _shares(*values: float) -> tuple[str, ...]:
    return tuple("–" if math.isnan(v) else f"{v:.3f}" for v in values)
