"""From a request to a folder with a pair, its labels and a record: everything there, or nothing.

What is being made lies in a hidden folder beside the target. Tiles that were read stay there if a run ends early, and
the same request goes on from them. At the end the folder is moved into place as a whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adcdnet.acquire.area import Area, Days
from adcdnet.acquire.catalogue import LabelFile, LabelProduct, Sensor
from adcdnet.acquire.choose import Candidate, Step, candidates
from adcdnet.acquire.items import Item
from adcdnet.acquire.label_files import file_labels
from adcdnet.acquire.labels import (
    NoLabels,
    ProductLabels,
    find_items,
    product_labels,
    thinned,
    valid_pixels,
    write_labels,
)
from adcdnet.acquire.pair import Misfit, Opened, Plan, lay, open_item
from adcdnet.acquire.record import MANIFEST, Again, Request, cited, manifest, remarks, sources
from adcdnet.acquire.remote import RemoteRaster
from adcdnet.acquire.search import Catalogue
from adcdnet.acquire.store import TileStore
from adcdnet.errors import InputError
from adcdnet.files import HeldFolder, as_json, sha256, write_whole
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.masks import PLAIN
from adcdnet.geo.raster_writer import RasterWriter
from adcdnet.geo.scene_files import SceneFiles, write_scenes

LARGE = 4.0  # GB of pixels from which a request must be confirmed
_CLEAR = 0.999  # of the area: no further day is wanted
_MANY = 0.01  # of the values: more that an offset brings below 0 are a sign of a wrong one


class Acquired(NamedTuple):
    """What was written. classes: None without labels; pixels: how many each class labels."""

    folder: Path
    items: tuple[Item, ...]
    size: tuple[int, int]
    ratio: int
    classes: ClassTable | None
    pixels: tuple[int, ...]
    notes: tuple[str, ...]


def gigabytes(sensor: Sensor, area: Area) -> float:
    """About how much a pair of the box around an area is, two bytes a number."""
    of_ms, of_pan = (
        len(names) / metres**2 for names, metres in zip((sensor.ms, sensor.pan), sensor.metres, strict=True)
    )
    return area.box_square_km * 1e6 * 2 * (of_ms + of_pan) / 1e9


def require_account(sensor: Sensor) -> None:
    """InputError where the files need an account that no variable names."""
    needs = sensor.api.needs
    if needs and not any(os.environ.get(name) for name in needs):
        raise InputError(
            f"no account is set for the files of {sensor.api.name or sensor.api.address}: {sensor.api.account}"
        )


def search(
    catalogue: Catalogue, ways: Sequence[Sensor], area: Area, days: Days
) -> tuple[Sensor, list[Item], tuple[str, ...]]:
    """The first way to a sensor by which there are items, and these. InputError where there are none."""
    there = [sensor for sensor in ways if catalogue.has(sensor.collection)]
    if not there:
        names = ", ".join(dict.fromkeys(sensor.collection for sensor in ways))
        raise InputError(f"{catalogue.api.address} has no collection {names}; name another API or sensor")
    lacking: list[tuple[int, str]] = []
    for sensor in there:
        found, notes = catalogue.search(sensor.collection, area=area, days=days)
        items = [item for item in found if item.has(sensor.where)]
        whole = [item for item in items if set(sensor.assets) <= set(item.assets)]
        if whole:
            if len(whole) < len(items):
                notes += (f"{len(items) - len(whole)} items lack assets and are left out",)
            return sensor, whole, notes
        if items:
            missing = sorted(set(sensor.assets) - set(items[0].assets))
            lacking.append((len(missing), f"; {items[0].id} and others lack the assets {', '.join(missing)}"))
    lacks = min(lacking)[1] if lacking else ""
    names = " and ".join(dict.fromkeys(sensor.collection for sensor in there))
    raise InputError(
        f"{names} at {catalogue.api.address}: no item over the area from {days.first} to {days.last}{lacks}; take "
        "other dates, another sensor or another API"
    )


def look(
    ways: Sequence[Sensor], area: Area, days: Days, *, threads: int, step: Step
) -> tuple[Catalogue, Sensor, list[Candidate], tuple[str, ...]]:
    """The days that could give a pair, the best first. InputError for none."""
    require_account(ways[0])
    catalogue = Catalogue(ways[0].api)
    sensor, items, notes = search(catalogue, ways, area, days)
    found, more = candidates(catalogue, items, sensor, area, threads=threads, step=step)
    if not found:
        raise InputError(
            f"none of the {len(items)} items covers a pixel of the area; take other dates or a larger area"
        )
    return catalogue, sensor, found, (*notes, *more)


def acquire(
    request: Request,
    ways: Sequence[Sensor],
    out: Path,
    *,
    again: Again | None = None,
    threads: int = 8,
    step: Step = lambda *_: None,
) -> Acquired:
    """Write the pair that a request describes into a new folder.

    ways: sensors of which the first that has items counts. again: take the items of a manifest.
    Raises InputError; nothing is then at `out`, and the same call goes on where this one ended.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; name another folder")
    require_account(ways[0])
    area, days = Area.of_geojson(request.area), Days.of(request.days)
    notes: tuple[str, ...]
    if again is None:
        catalogue, sensor, found, notes = look(ways, area, days, threads=threads, step=step)
        items, more = _chosen(found, request.mosaic)
        notes += more
    else:
        sensor = again.request.sensor
        catalogue = Catalogue(sensor.api)
        items, notes = _named(catalogue, sensor.collection, again.ids)
    request = request.model_copy(update={"sensor": sensor})
    with ExitStack() as stack:
        opened, left_out = _open(catalogue, items, sensor, threads, stack)
        plan = lay(opened, area.onto, sensor)
        if again is None:
            left_out += _elsewhere(found, items, area, plan)
        work = _hold(out)
        try:
            maker = _Maker(request, catalogue, plan, area, work.path, again, threads, step)
            made = maker.make((*notes, *left_out, *plan.notes))
            _move(work.path / "files", out)
            work.remove()
        finally:
            if not any(work.path.glob("tiles-*/*.npz")):  # nothing to go on from
                work.remove()
            work.release()
    return made._replace(folder=out)


def _chosen(found: Sequence[Candidate], most: int) -> tuple[list[Item], tuple[str, ...]]:
    """The items of the best day and, of as many further days as are wanted, those in the same coordinate system."""
    best = found[0]
    days = [best]
    for other in found[1:]:
        if len(days) < most and other.crs == best.crs and max(day.clear for day in days) < _CLEAR:
            days.append(other)
    notes: tuple[str, ...] = ()
    if best.covered < _CLEAR and len(days) == 1:
        notes += (
            f"{best.day} covers {best.covered:.0%} of the area; --mosaic 2 fills it from another day, if one does",
        )
    if best.cloud is not None and best.cloud > 0.1 and len(days) == 1:
        notes += (f"clouds hide {best.cloud:.0%} of what {best.day} covers; other dates or --mosaic may do better",)
    return [item for day in days for item in day.items], notes


def _elsewhere(found: Sequence[Candidate], items: Sequence[Item], area: Area, plan: Plan) -> tuple[str, ...]:
    """What of the area lies in another zone alone, and how to have it: a pair has one coordinate system."""
    rest = area.beyond(plan.grid)
    if rest is None:
        return ()
    wanted = Area.of_bbox(rest).shape
    (zone,) = {one.crs for one in found if items[0] in one.items}
    others = [one for one in found if one.crs != zone and any(wanted.intersects(i.footprint) for i in one.items)]
    if not others:
        return ()
    return (
        f"the area lies over several zones; for the rest run the same command with --bbox {rest}, --dates "
        f"{min(others, key=lambda one: one.day != items[0].day).day} and another --out",
    )


def _named(catalogue: Catalogue, collection: str, ids: Sequence[str]) -> tuple[list[Item], tuple[str, ...]]:
    found, notes = catalogue.search(collection, ids=ids)
    by_id = {item.id: item for item in found}
    lost = [name for name in ids if name not in by_id]
    if lost:
        raise InputError(f"{collection} at {catalogue.api.address} has no item {', '.join(lost)} any more; search anew")
    return [by_id[name] for name in ids], notes


def _open(
    catalogue: Catalogue, items: Sequence[Item], sensor: Sensor, threads: int, stack: ExitStack
) -> tuple[list[Opened], tuple[str, ...]]:
    opened: list[Opened] = []
    misfits: list[Misfit] = []
    for item in items:
        try:
            opened.append(open_item(catalogue, item, sensor, threads))
            stack.callback(opened[-1].close)
        except Misfit as error:
            misfits.append(error)
    if not opened:
        raise misfits[0]
    return opened, tuple(f"{error}; left out" for error in misfits)


def _hold(out: Path) -> HeldFolder:
    """The hidden folder beside a target, for this process alone."""
    path = out.resolve().parent / f".{out.resolve().name}.acquire"
    try:
        path.mkdir(parents=True, exist_ok=True)
        held = HeldFolder.hold(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    if held is None:
        raise InputError(f"another process is writing {out} now; wait for it, or name another folder")
    return held


def _move(files: Path, out: Path) -> None:
    try:
        if out.exists():
            out.rmdir()  # which is empty
        files.replace(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Maker:
    """All that writing the files of one pair needs. work: the hidden folder."""

    request: Request
    catalogue: Catalogue
    plan: Plan
    area: Area
    work: Path
    again: Again | None
    threads: int
    step: Step

    def make(self, notes: tuple[str, ...]) -> Acquired:
        """All files, in the folder `files` below the hidden one."""
        store = TileStore(self.work, self.plan)
        store.fill(self.threads, self.step)
        files = self.work / "files"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        set_to_1, share = self._rasters(files, store)
        if share >= _MANY:
            notes += (
                f"{share:.0%} of the values would fall to 0 or below by the offset and were set to 1; the catalogue "
                "may be wrong about it: compare with another day or collection",
            )
        rule = self.plan.parts[0].opened.rule if self.request.sensor.mask else PLAIN
        scene = SceneFiles(
            ms=files / "ms.tif",
            pan=files / "pan.tif",
            mask=files / "mask.tif" if self.request.sensor.mask else None,
            mask_values=rule.values,
            mask_bits=rule.bits,
        )
        labels: ProductLabels | None = None
        classes: ClassTable | None = None
        pixels: tuple[int, ...] = ()
        if self.request.labels is not None:
            try:
                labels, classes, pixels = self._labels(files, scene, self.request.labels)
                notes += labels.notes
                scene = scene.model_copy(update={"labels": files / "labels.tif", "classes": files / "classes.csv"})
            except NoLabels as error:
                notes += (f"written without labels: {error}",)
        items = tuple(part.opened.item for part in self.plan.parts)
        write_whole(files / "SOURCES.md", sources(self.request, items, labels).encode())
        write_scenes(files / "scenes.toml", [(scene, remarks(self.request, items, labels))])
        notes = tuple(dict.fromkeys(notes))
        digests = {path.name: sha256(path) for path in sorted(files.iterdir())}
        record = manifest(self.request, self.plan, labels, digests, set_to_1, notes)
        write_whole(files / MANIFEST, as_json(record))
        if self.again is not None:
            notes += (_compared(self.again.files, digests),)
        return Acquired(files, items, self.plan.grid.shape, self.plan.ratio, classes, pixels, notes)

    def _rasters(self, files: Path, store: TileStore) -> tuple[int, float]:
        """Write ms, pan, mask and, of several items, source; how many values were set to 1, and their share."""
        plan, sensor = self.plan, self.request.sensor
        first = plan.parts[0].opened
        tags = {"SOURCE": f"{sensor.collection}: {', '.join(part.opened.item.id for part in plan.parts)}"}
        set_to_1 = numbers = 0
        writers: dict[str, RasterWriter] = {}
        with ExitStack() as stack:
            for done, (window, tile) in enumerate(store):
                self.step("write", done, len(store))
                fine = window.scale(plan.ratio)
                for name, values, grid, at, nodata, names in (
                    ("ms", tile.ms, plan.grid, window, plan.nodata[0], _band_names(sensor.ms, first.ms)),
                    ("pan", tile.pan, plan.pan_grid, fine, plan.nodata[1], _band_names(sensor.pan, first.pan)),
                    ("mask", tile.mask[None], plan.mask_grid, fine if plan.mask_fine else window, None, None),
                    ("source", tile.source[None], plan.grid, window, 0, None),
                ):
                    if (name == "mask" and not sensor.mask) or (name == "source" and len(plan.parts) == 1):
                        continue
                    if name not in writers:
                        writers[name] = stack.enter_context(
                            RasterWriter(
                                files / f"{name}.tif",
                                grid,
                                count=len(values),
                                dtype=values.dtype.name,
                                nodata=nodata,
                                descriptions=names,
                                tags=tags,
                            )
                        )
                    writers[name].write(values, at)
                set_to_1 += tile.below
                numbers += tile.ms.size + tile.pan.size
        self.step("write", len(store), len(store))
        return set_to_1, set_to_1 / numbers

    def _labels(
        self, files: Path, scene: SceneFiles, product: LabelProduct | LabelFile
    ) -> tuple[ProductLabels, ClassTable, tuple[int, ...]]:
        """Write labels.tif and classes.csv; the labels as the product has them, the classes left, pixels of each."""
        self.step("labels", 0, 1)
        native = self.work / "labels"
        native.mkdir(exist_ok=True)
        with scene.open() as opened:
            if isinstance(product, LabelFile):
                labels = file_labels(product, opened.grid, native)
            else:
                labels = self._of_catalogue(product, opened.grid, native)
            valid, grid = valid_pixels(opened), opened.grid
        request = self.request
        index, classes = thinned(labels, valid, erode=request.erode, per_class=request.per_class, seed=request.seed)
        tags = {
            "LABEL_PRODUCT": f"{product.name} {labels.year}".strip(),
            "LICENCE": product.licence,
            "CITATION": cited(product.citation, labels.year),
        }
        write_labels(files / "labels.tif", index, classes, grid, tags)
        write_whole(files / "classes.csv", classes.to_csv())
        self.step("labels", 1, 1)
        counts = np.bincount(index[index >= 0], minlength=len(classes))
        return labels, classes, tuple(counts.tolist())

    def _of_catalogue(self, product: LabelProduct, grid: Grid, native: Path) -> ProductLabels:
        catalogue = self.catalogue
        if product.api != catalogue.api and (catalogue.api.name or not catalogue.has(product.collection)):
            catalogue = Catalogue(product.api)
        ids = self.again.label_ids if self.again else None
        items, notes = find_items(catalogue, product, self.area, self.plan.parts[0].opened.item.day, ids)
        labels = product_labels(catalogue, product, items, grid, native)
        return replace(labels, notes=(*notes, *labels.notes))


def _compared(wanted: dict[str, str], digests: dict[str, str]) -> str:
    differ = [name for name, digest in wanted.items() if digests.get(name) != digest]
    if not differ:
        return "all files are those of the manifest"
    return f"{', '.join(differ)} differ from the manifest: files of the catalogue have changed, or the program has"


def _band_names(assets: Sequence[str], rasters: Sequence[RemoteRaster]) -> list[str]:
    """Of bands: that of the asset, or of the asset and the band where it has several."""
    found = []
    for asset, raster in zip(assets, rasters, strict=True):
        if raster.count == 1:
            found.append(asset)
        else:
            found += [name or f"{asset} {k}" for k, name in enumerate(raster.descriptions, 1)]
    return found
