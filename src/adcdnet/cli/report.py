"""adcdnet report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adcdnet.cli.console import (
    ColumnOption,
    FixShiftOption,
    LabelsOption,
    LayerOption,
    MaskBitsOption,
    MaskOption,
    MaskValuesOption,
    MinShareOption,
    MsBandsOption,
    MsFilesOption,
    PanBandsOption,
    PanFilesOption,
    bands_of,
    file_to_write,
    mask_rule,
    out_console,
    progress_bars,
)


def report_command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    map_path: Annotated[
        Path | None,
        typer.Option("--map", help="Map of the scene. Default: map.tif of the run; without one, the scene is mapped."),
    ] = None,
    probabilities: Annotated[Path | None, typer.Option(help="Probabilities of the map (GeoTIFF).")] = None,
    ms: MsFilesOption = None,
    pan: PanFilesOption = None,
    mask: MaskOption = None,
    mask_values: MaskValuesOption = None,
    mask_bits: MaskBitsOption = None,
    ms_bands: MsBandsOption = None,
    pan_bands: PanBandsOption = None,
    labels: LabelsOption = None,
    column: ColumnOption = None,
    layer: LayerOption = None,
    min_share: MinShareOption = None,
    scene: Annotated[
        str | None, typer.Option(help="Which scene of a run that was trained on several. Default: the first.")
    ] = None,
    fix_shift: FixShiftOption = False,
    sample: Annotated[
        Path | None, typer.Option(help="Points of `adcdnet sample` with their classes, for adjusted areas.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(callback=file_to_write, help="Page to write. Default: report.html in the run folder.")
    ] = None,
) -> None:
    """Write one page on a run and its map, to read, sign and hand on: a single HTML file that needs no network.

    Images, mask, bands and labels are those that the run was trained with, where no others are named.

    Example: adcdnet report runs/first --map map.tif
    """
    from adcdnet.report.write import write_report

    with progress_bars() as report:
        page = write_report(
            run,
            map_path=map_path,
            probabilities=probabilities,
            ms=ms,
            pan=pan,
            mask=mask,
            **mask_rule(mask, mask_values, mask_bits, alone=True),
            ms_bands=bands_of(ms_bands),
            pan_bands=bands_of(pan_bands),
            labels=labels,
            column=column,
            layer=layer,
            min_share=min_share,
            scene=scene,
            fix_shift=fix_shift,
            sample=sample,
            out=out,
            progress=report,
        )
    out_console.print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)", markup=False)
