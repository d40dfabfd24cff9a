"""adcdnet acquire"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adcdnet.cli.console import err, file_to_write, out_console, print_table, progress_bars, say
from adcdnet.errors import InputError

if TYPE_CHECKING:
    from adcdnet.acquire.choose import Candidate
    from adcdnet.acquire.run import Acquired


def acquire_command(
    out: Annotated[Path | None, typer.Option(help="Folder to make for the pair, its labels and scenes.toml.")] = None,
    bbox: Annotated[
        str | None, typer.Option(help="W,S,E,N in degrees; W above E crosses the antimeridian. Or --area.")
    ] = None,
    area: Annotated[Path | None, typer.Option(help="File of polygons around the ground that is wanted.")] = None,
    dates: Annotated[str | None, typer.Option(help="First and last day, e.g. 2024-05-01/2024-09-30.")] = None,
    sensor: Annotated[
        str, typer.Option(help="sentinel-2, landsat-8-9, or a TOML file that says which assets are MS, PAN and mask.")
    ] = "sentinel-2",
    labels: Annotated[
        str,
        typer.Option(
            help="worldcover, io-lulc, cdl or none; a file of a product as nlcd:FILE, corine:FILE, dynamic-world:FILE "
            "or osm:FILE; any FILE of classes; or a TOML file of other labels."
        ),
    ] = "worldcover",
    api: Annotated[
        str | None,
        typer.Option(
            help="earth-search, planetary-computer, usgs, or the address of a STAC API. Default: the sensor's."
        ),
    ] = None,
    mosaic: Annotated[
        int,
        typer.Option(min=1, help="Days at most; clouds of the best one are filled from the others, pixel by pixel."),
    ] = 1,
    erode: Annotated[int, typer.Option(min=0, help="MS pixels at the edges of classes that get no label.")] = 1,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Labelled pixels of each class at most, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of that draw.")] = 0,
    list_path: Annotated[
        Path | None,
        typer.Option(
            "--list", callback=file_to_write, help="Only show the days: a table, and pictures in this HTML file."
        ),
    ] = None,
    again: Annotated[
        Path | None, typer.Option(help="manifest.json of an earlier pair: make the same files again.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=32, help="Files read at once.")] = 8,
    yes: Annotated[bool, typer.Option("--yes", help="Go on with a large area.")] = False,
) -> None:
    """Fetch a labelled pair of a place from a STAC catalogue, on native grids, with licence and record.

    Then: adcdnet train DIR/scenes.toml --out runs/first. Needs pip install "adcdnet[acquire]".

    Example: adcdnet acquire --bbox 10.6,51.7,10.8,51.8 --dates 2024-05-01/2024-09-30 --out harz
    """
    from adcdnet.acquire.area import Area, Days
    from adcdnet.acquire.catalogue import find_api, find_labels, find_sensors
    from adcdnet.acquire.record import Request, read_manifest
    from adcdnet.acquire.run import LARGE, acquire, gigabytes, look

    if (out is None) == (list_path is None):
        raise typer.BadParameter("give a folder, or --list with an HTML file, one of the two", param_hint="--out")
    with progress_bars() as bars:

        def step(stage: str, done: int, of: int) -> None:
            bars(stage, done, of, {})

        if again is not None:
            if out is None or bbox or area or dates:
                raise typer.BadParameter("the manifest says place and days; give --out alone", param_hint="--again")
            kept = read_manifest(again)
            _print_acquired(acquire(kept.request, [kept.request.sensor], out, again=kept, threads=jobs, step=step))
            return
        if (bbox is None) == (area is None):
            raise typer.BadParameter("give a box or a file of polygons, one of the two", param_hint="--bbox")
        if dates is None:
            raise typer.BadParameter("give the first and the last day", param_hint="--dates")
        ground = Area.of_bbox(bbox) if bbox is not None else Area.of_file(Path(str(area)))
        days = Days.of(dates)
        ways = find_sensors(sensor, None if api is None else find_api(api))
        size = gigabytes(ways[0], ground)
        if size > LARGE and not yes and list_path is None:
            around = f"the box around the area, {ground.box_square_km:,.0f} km²"
            raise InputError(f"{around}, makes about {size:,.0f} GB; take a smaller one, or add --yes")
        if list_path is not None:
            _list(list_path, *look(ways, ground, days, threads=jobs, step=step), threads=jobs, step=step)
            return
        request = Request(
            area=ground.geojson,
            days=str(days),
            sensor=ways[0],
            labels=find_labels(labels),
            mosaic=mosaic,
            erode=erode,
            per_class=per_class,
            seed=seed,
        )
        assert out is not None
        made = acquire(request, ways, out, threads=jobs, step=step)
    _print_acquired(made)


def _list(path: Path, catalogue: Any, sensor: Any, found: list[Candidate], notes: tuple[str, ...], **how: Any) -> None:
    from adcdnet.acquire.quicklook import page
    from adcdnet.files import write_whole

    write_whole(path, page(catalogue, sensor, found, **how))
    say(notes)
    rows: list[tuple[str, ...]] = [("day", "items", "covered", "cloud over the area", "clear")]
    for one in found:
        cloud = "–" if one.cloud is None else f"{one.cloud:.0%}"
        rows.append((one.day, str(len(one.items)), f"{one.covered:.0%}", cloud, f"{one.clear:.0%}"))
    print_table(rows)
    out_console.print(f"pictures: {path}", markup=False)


def _print_acquired(made: Acquired) -> None:
    say(made.notes)
    if made.classes is not None:
        rows: list[tuple[str, ...]] = [("label", "pixels")]
        rows += [(name, str(count)) for name, count in zip(made.classes.names, made.pixels, strict=True)]
        print_table(rows)
        err.print("note: labels are a product, not the truth: scores will say how well it is repeated", style="yellow")
    height, width = made.size
    days = ", ".join(dict.fromkeys(item.day for item in made.items))
    out_console.print(f"pair: {made.folder} ({height}×{width} MS pixels, ratio {made.ratio}, {days})", markup=False)
    out_console.print(f"licence and what to cite: {made.folder / 'SOURCES.md'}", markup=False)
    if made.classes is not None:
        out_console.print(f"next: adcdnet train {made.folder / 'scenes.toml'} --out runs/first", markup=False)
