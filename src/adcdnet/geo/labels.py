"""Labels of a scene, from rasters or from polygons, as one class index for each MS pixel of the common extent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.label_rasters import read_raster
from adcdnet.geo.polygons import burn
from adcdnet.geo.raster import is_raster
from adcdnet.geo.shapes import holds_points


@dataclass(frozen=True)
class Labels:
    """What is known of a scene.

    index (h, w) int16 on the MS grid of the common extent: class index 0..K-1, −1 where unlabelled.
    polygons (h, w) int32: which polygon, counted from 0 over all files, a labelled pixel lies in; −1 in none; None
    where some labels are a raster. notes: what a user should know, one sentence each. contested: pixels that different
    classes claim, which stay unlabelled. paths, layer, column, min_share: where they were read from, and how.
    """

    index: NDArray[np.int16]
    classes: ClassTable
    notes: tuple[str, ...] = ()
    polygons: NDArray[np.int32] | None = None
    paths: tuple[Path, ...] = ()
    column: str | None = None
    contested: int = 0
    layer: str | None = None
    min_share: float | None = None

    def coarsen(self, ratio: int) -> Labels:
        """On a grid `ratio` times coarser, each pixel as the one in it whose class is rarest, so that none is lost."""
        h, w = (n // ratio for n in self.index.shape)
        counts = np.bincount(self.index[self.index >= 0], minlength=len(self.classes))
        rank = np.append(counts.argsort(kind="stable").argsort(), len(counts))  # unlabelled pixels, −1, come last

        def cells(x: NDArray[Any]) -> NDArray[Any]:
            return x.reshape(h, ratio, w, ratio).swapaxes(1, 2).reshape(h, w, -1)

        chosen = rank[cells(self.index)].argmin(axis=2)[:, :, None]
        index, *polygons = (
            np.take_along_axis(cells(x), chosen, axis=2)[:, :, 0] for x in (self.index, self.polygons) if x is not None
        )
        return replace(self, index=index, polygons=polygons[0] if polygons else None)


def read_labels(
    paths: Path | str | Sequence[Path | str],
    grid: Grid,
    *,
    classes: ClassTable | None = None,
    column: str | None = None,
    layer: str | None = None,
    min_share: float | None = None,
    nameless: str | None = None,
) -> Labels:
    """Labels on a grid (of a scene's MS, its PAN or a map), from a raster on any grid or from any polygon file.

    paths: of one file, or of several, such as one for each year; a pixel that two label differently stays unlabelled.
    classes: without a table, the values of a raster or the names of polygons, in alphabetical order, are the classes;
    numbers outside 1..255 are numbered 1..K with the number as name. With one, names match names and numbers values.
    column: which column of a polygon file holds the class, chosen by its name where not given; layer: of several.
    min_share: the share of a pixel that its class must cover, above 0 up to 1; if two cover as much there is no label.
    None: half of it where labels are a raster; a polygon labels the pixels whose centre lies in it, and one between
    centres the pixel in which most of it lies. A raster in another coordinate system is looked up at points.
    nameless: what the labels are for, where that has class values without names: then labels with names are refused.
    Raises InputError.
    """
    if min_share is not None and not 0 < min_share <= 1:
        raise InputError(f"the least share of a pixel is {min_share:g}; it must lie above 0 and at most at 1")
    several = [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]
    if not several:
        raise InputError("no file of labels is named; at least one is needed")
    read = [_read(path, grid, classes, column, layer, min_share, nameless) for path in several]
    labels = read[0] if len(read) == 1 else _together(read, several)
    name = ", ".join(str(path) for path in several)
    present = np.unique(labels.index[labels.index >= 0])
    if present.size == 0:
        why = "check that it lies on the same ground"
        if labels.contested:
            why = f"{labels.contested} lie in polygons of different classes; let these not overlap"
        elif labels.polygons is None:
            why = f"{why}, and that its values are classes"
        if min_share is not None:
            why += f"; a class must cover {min_share:g} of a pixel (--min-share)"
        raise InputError(f"{name} labels no pixel of the scene; {why}")
    if len(labels.classes) == 1:  # of a table of several, the other scenes of a training may have the rest
        only = labels.classes.names[0]
        raise InputError(f"{name} labels only the class {only!r} in this scene; two classes at least are needed")
    return replace(labels, paths=tuple(several), column=column, layer=layer, min_share=min_share)


def _read(
    path: Path,
    grid: Grid,
    classes: ClassTable | None,
    column: str | None,
    layer: str | None,
    min_share: float | None,
    nameless: str | None,
) -> Labels:
    """Of one file, which may label no pixel."""
    if is_raster(path) and not holds_points(path):
        return Labels(*read_raster(path, grid, classes, min_share, nameless))
    burnt = burn(path, grid, classes, column, layer, min_share, nameless)
    return Labels(burnt.index, burnt.classes, burnt.notes, burnt.polygons, contested=burnt.contested)


def _together(read: Sequence[Labels], paths: Sequence[Path]) -> Labels:
    """The labels of several files; where two differ there is none."""
    table = _one_table([labels.classes for labels in read], paths)
    index = np.full(read[0].index.shape, -1, np.int16)
    differ = np.zeros(index.shape, bool)
    polygons: NDArray[np.int32] | None = np.full(index.shape, -1, np.int32)
    before = 0
    for labels in read:
        place = np.array([table.names.index(name) for name in labels.classes.names] + [-1], np.int16)
        own = place[labels.index]
        known = own >= 0
        differ |= known & (index >= 0) & (own != index)
        if polygons is not None and labels.polygons is not None:
            polygons = np.where(known, labels.polygons + before, polygons)
            before += int(labels.polygons.max(initial=-1)) + 1
        else:
            polygons = None
        index = np.where(known, own, index)
    index[differ] = -1
    notes = tuple(note for labels in read for note in labels.notes)
    if differ.any():
        names = ", ".join(path.name for path in paths)
        notes += (f"{int(differ.sum())} pixels that {names} label differently stay unlabelled",)
    if polygons is not None:
        polygons = np.where(differ, np.int32(-1), polygons)
    contested = sum(labels.contested for labels in read)
    return Labels(index, table, tuple(dict.fromkeys(notes)), polygons, contested=contested)


def _one_table(tables: Sequence[ClassTable], paths: Sequence[Path]) -> ClassTable:
    """All classes of several files, by their names. InputError where some have names and others numbers only."""
    if all(table == tables[0] for table in tables):
        return tables[0]
    numbered = [all(name == str(value) for value, name in zip(t.values, t.names, strict=True)) for t in tables]
    if any(numbered) and not all(numbered):
        with_names, without = (paths[numbered.index(kind)].name for kind in (False, True))
        raise InputError(
            f"{with_names} names its classes and {without} has numbers; say with --classes which number is which class "
            "(CSV: value,name)"
        )
    if all(numbered):
        values = sorted({value for table in tables for value in table.values})
        return ClassTable.of(values, [str(value) for value in values])
    names = {name for table in tables for name in table.names}
    return ClassTable.numbered(sorted(names))
