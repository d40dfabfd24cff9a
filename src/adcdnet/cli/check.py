"""adcdnet check"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcdnet.cli.console import (
    ColumnOption,
    JsonOption,
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
    print_table,
    say,
)
from adcdnet.errors import InputError

if TYPE_CHECKING:
    from adcdnet.assess.check import CheckReport, ImageFacts
    from adcdnet.geo.registration import Registration

_SHOWN = 20  # suspected labels


def check_command(
    ms: MsFilesOption = None,
    pan: PanFilesOption = None,
    labels: LabelsOption = None,
    classes: Annotated[Path | None, typer.Option(help="CSV with the columns value, name, color.")] = None,
    column: ColumnOption = None,
    layer: LayerOption = None,
    min_share: MinShareOption = None,
    mask: MaskOption = None,
    mask_values: MaskValuesOption = None,
    mask_bits: MaskBitsOption = None,
    ms_bands: MsBandsOption = None,
    pan_bands: PanBandsOption = None,
    run: Annotated[
        Path | None, typer.Option(help="A run of several folds, alone: which of its labels are likely wrong?")
    ] = None,
    scene: Annotated[
        str | None, typer.Option(help="With --run: which scene of a run that was trained on several.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(callback=file_to_write, help="With --run: GeoPackage to write suspected labels to.")
    ] = None,
    json_path: JsonOption = None,
) -> None:
    """Tell whether these images can be used together: their contents, their alignment, and what to fix.

    Example: adcdnet check --ms ms.tif --pan pan.tif --labels polygons.gpkg
    """
    if run is not None:
        if ms or pan or labels or mask:
            raise typer.BadParameter("a run names its own images and labels; leave these out", param_hint="--run")
        _check_labels(run, scene, out, json_path)
        return
    if scene is not None or out is not None:
        raise typer.BadParameter("it belongs to --run", param_hint="--scene" if scene is not None else "--out")
    from adcdnet.assess.check import check
    from adcdnet.files import as_json, refuse_overwriting, write_whole
    from adcdnet.geo.classes import ClassTable

    if not ms or not pan:
        raise typer.BadParameter("both --ms and --pan are needed", param_hint="--ms")
    if json_path is not None:
        refuse_overwriting([json_path], (*ms, *pan, *(labels or ()), classes, mask))
    table = ClassTable.read(classes) if classes else None
    report = check(
        ms,
        pan,
        labels,
        classes=table,
        column=column,
        layer=layer,
        min_share=min_share,
        mask=mask,
        **mask_rule(mask, mask_values, mask_bits),
        ms_bands=bands_of(ms_bands),
        pan_bands=bands_of(pan_bands),
    )
    if json_path is not None:
        write_whole(json_path, as_json(report.to_dict()))
    say(report.notes)
    print_report(report)
    if report.verdict == "cannot be used":
        raise typer.Exit(1)


def _check_labels(run: Path, name: str | None, out: Path | None, json_path: Path | None) -> None:
    """Which labels of a run are likely wrong."""
    from dataclasses import asdict

    from adcdnet.assess.suspects import suspect, write_suspects
    from adcdnet.files import as_json, refuse_overwriting, write_whole
    from adcdnet.geo.labels import read_labels
    from adcdnet.geo.raster import RasterReader
    from adcdnet.report.sources import read_run

    files = read_run(run, {}, name)
    answers = files.held_out[1]
    if not answers.exists() or not files.labels:
        why = "its labels are gone" if answers.exists() else "it was trained with one split; train with --folds 5"
        raise InputError(f"{run} has no answers to labels that were held out: {why}")
    refuse_overwriting([path for path in (out, json_path) if path is not None], files.labels)
    classes = files.model.classes
    with files.open() as scene, RasterReader(answers) as probabilities:
        grid = scene.grid_of(files.model.grid)
        labels = read_labels(files.labels, grid, classes=classes, **files.reading)
        found = suspect(labels, probabilities.read(probabilities.grid.window))
    if out is not None:
        write_suspects(found, classes, grid, out)
    if json_path is not None:
        listed = [
            asdict(one) | {"label": classes.names[one.label], "likely": classes.names[one.likely]}
            for one in found.ranked
        ]
        write_whole(json_path, as_json({"judged": found.judged, "suspects": listed}))
    what = "patches" if found.of_patches else "polygons"
    rows: list[tuple[str, ...]] = [
        ("label", "likely", "pixels", "surely other", "advantage", "at row, column", "polygon")
    ]
    for one in found.ranked[:_SHOWN]:
        sure = f"{one.confident:.0%}", f"{one.advantage:+.2f}"
        place = f"{one.row}, {one.col}", "–" if found.of_patches else str(one.number + 1)
        rows.append((classes.names[one.label], classes.names[one.likely], str(one.pixels), *sure, *place))
    if found.ranked:
        print_table(rows)
    more = f", the likeliest {_SHOWN} shown" if len(found.ranked) > _SHOWN else ""
    out_console.print(
        f"{len(found.ranked)} of {found.judged} {what} look more like another class than their own{more}", markup=False
    )
    if out is not None:
        out_console.print(f"suspects: {out}   look at each before you change it", markup=False)


def print_report(report: CheckReport) -> None:
    ms, pan = report.ms, report.pan
    print_table(
        [
            ("", "MS", "PAN"),
            ("file", _file(ms), _file(pan)),
            ("pixels, rows × columns", f"{ms.height}×{ms.width}", f"{pan.height}×{pan.width}"),
            ("size of a pixel", *(f"{p[0]:.6g} × {p[1]:.6g}" for p in (ms.pixel, pan.pixel))),
            ("coordinate system", ms.crs or "none", pan.crs or "none"),
            ("without data", f"{ms.invalid:.1%}", f"{pan.invalid:.1%}"),
        ]
    )
    out_console.print(
        f"common extent: {report.height}×{report.width} MS pixels, {report.ratio} PAN pixels on each per axis; "
        f"figures of bands from {report.seen:.0%} of it"
    )
    bands: list[tuple[str, ...]] = [
        ("band", "type", "lowest", "highest", "mean", "deviation", "at lowest", "at highest")
    ]
    for image, facts in (("MS", ms), ("PAN", pan)):
        for b in facts.bands:
            figures = (f"{v:.5g}" for v in (b.lowest, b.highest, b.mean, b.deviation))
            bands.append((f"{image} {b.name}", b.type, *figures, f"{b.at_lowest:.2%}", f"{b.at_highest:.2%}"))
    print_table(bands)
    if report.registration is not None:
        _print_registration(report.registration)
    if report.labelled is not None:
        print_table([("class", "labelled MS pixels"), *((name, str(n)) for name, n in report.labelled.items())])
    for finding in report.findings:
        word = "PROBLEM" if finding.fatal else "warning"
        mend = f"; {finding.mend}" if finding.mend else ""
        out_console.print(f"{word}: {finding.what}{mend}", markup=False)
    out_console.print(f"verdict: {report.verdict}")


def _file(facts: ImageFacts) -> str:
    first, *more = (Path(path).name for path in facts.paths)
    return f"{first} and {len(more)} more" if more else first


def _print_registration(shift: Registration) -> None:
    out_console.print("correction of PAN, in its pixels, rows down and columns right positive (± 95 %):")
    rows: list[tuple[str, ...]] = [
        ("", "rows", "columns"),
        ("by the fit of PAN by MS", *_with_errors((shift.row, shift.col), shift.errors)),
        ("by the phase of the spectra", f"{shift.phase_row:+.2f}", f"{shift.phase_col:+.2f}"),
    ]
    if shift.drift is not None and shift.drift_errors is not None:
        for k, edge in enumerate(("lower", "right")):
            drifts, errors = ((of[0][k], of[1][k]) for of in (shift.drift, shift.drift_errors))
            rows.append((f"more at the {edge} edge", *_with_errors(drifts, errors)))
    print_table(rows)
    out_console.print(f"share of PAN that MS explains: {shift.fit_as_given:.3f} as given, {shift.fit:.3f} corrected")
    grid = [list(row) for _, row in groupby(shift.windows, key=lambda place: place[0].row)]
    if len(shift.windows) > 1:
        out_console.print("in windows from upper left to lower right (rows, columns; – where too little is seen):")
        cells = [[f"{s.row:+.2f} {s.col:+.2f}" if s else "–" for _, s in row] for row in grid]
        print_table([("", *row) for row in cells])


def _with_errors(values: tuple[float, float], errors: tuple[float, float]) -> tuple[str, ...]:
    return tuple(f"{value:+.2f} ± {2 * error:.2f}" for value, error in zip(values, errors, strict=True))
