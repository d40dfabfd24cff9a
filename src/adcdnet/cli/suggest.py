"""adcdnet suggest"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcdnet.cli.console import (
    DeviceOption,
    MaskBitsOption,
    MaskOption,
    MaskValuesOption,
    MsFilesOption,
    PanFilesOption,
    file_to_write,
    mask_rule,
    out_console,
    print_table,
    progress_bars,
    say,
)

_SHOWN = 20  # places


def suggest_command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[
        Path,
        typer.Option(callback=file_to_write, help="New GeoPackage (.gpkg): squares with an empty column 'class'."),
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="How many places.")] = 20,
    side: Annotated[int, typer.Option(min=1, help="Map pixels per side of a place.")] = 5,
    ms: MsFilesOption = None,
    pan: PanFilesOption = None,
    mask: MaskOption = None,
    mask_values: MaskValuesOption = None,
    mask_bits: MaskBitsOption = None,
    scene: Annotated[
        str | None, typer.Option(help="Which scene of a run that was trained on several. Default: the first.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the places that are drawn.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Suggest places to label next: half where the model is unsure or nothing like it was labelled, half at random.

    Fill in the column 'class', then train again with both files: --labels polygons.gpkg --labels next.gpkg --init RUN

    Example: adcdnet suggest runs/first --n 20 --out next.gpkg
    """
    import tempfile

    from adcdnet.assess.suggest import suggest, write_places
    from adcdnet.files import refuse_overwriting
    from adcdnet.geo.labels import read_labels
    from adcdnet.geo.masks import MaskRule
    from adcdnet.geo.raster import RasterReader
    from adcdnet.mapping.predict import predict
    from adcdnet.mapping.trust import write_trust
    from adcdnet.report.sources import read_run

    given_rule = mask_rule(mask, mask_values, mask_bits, alone=True)
    rule = MaskRule.of(given_rule["mask_values"], given_rule["mask_bits"])
    given = {"ms": ms or (), "pan": pan or (), "mask": () if mask is None else (mask,)}
    files = read_run(run, given, scene, mask_rule=rule)
    model = files.model
    refuse_overwriting([out], [source.path for source in files.sources.values()])
    with files.open() as opened, tempfile.TemporaryDirectory() as folder, progress_bars() as report:
        soft, layer = Path(folder) / "probabilities.tif", Path(folder) / "trust.tif"
        say(predict(model, opened, out=Path(folder) / "map.tif", probabilities=soft, device=device, progress=report))
        grid = opened.grid_of(model.grid)
        trust, labelled = None, None
        if model.applicability is None:
            say(["this run has no area of applicability (one split only): places are chosen by probabilities alone"])
        else:
            write_trust(model, opened, soft, layer)
            with RasterReader(layer) as file:
                trust = file.read(file.grid.window)
        if files.labels:
            labelled = read_labels(files.labels, grid, classes=model.classes, **files.reading).index
        with RasterReader(soft) as file:
            probabilities = file.read(file.grid.window)
    places = suggest(probabilities, model.classes, n=n, side=side, trust=trust, labelled=labelled, seed=seed)
    write_places(places, side, grid, model.classes, out)
    rows = [("place", "row, column", "why")]
    rows += [(str(k), f"{place.row}, {place.col}", place.reason) for k, place in enumerate(places[:_SHOWN], 1)]
    print_table(rows)
    out_console.print(f"places: {out} ({len(places)})   fill in its column 'class'", markup=False)
