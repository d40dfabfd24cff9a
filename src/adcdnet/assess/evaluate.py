"""A finished map against labels: scores with intervals, what separates them from training, and class areas.

Labels are either whatever was mapped by hand, which judge their own ground, or a probability sample (`sample`), which
judges the whole map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adcdnet.assess.areas import Estimate, estimate
from adcdnet.assess.sample import Sample, places, read_sample
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.files import MODEL_FILE, MODEL_TAG, model_digest
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import PHASE_TOLERANCE, Grid
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.maps import read_classes, read_map
from adcdnet.geo.pixel_area import PixelArea, pixel_area
from adcdnet.geo.raster import RasterReader, read_band
from adcdnet.metrics import Scores, scores
from adcdnet.metrics.intervals import NO_INTERVAL, Interval, Intervals, block_bootstrap, confusion_by_block
from adcdnet.split.blocks import block_numbers, block_side
from adcdnet.split.parts import PART_NAMES, TRAIN, Leakage, check_of_model, leakage

_Z = 1.959964  # standard errors on each side of an estimate that make 95 %
_FEW_POINTS = 10  # of a class, below which its intervals hold the truth less often than they say


@dataclass(frozen=True)
class ClassAreas:
    """mapped (K,): pixels of the map. adjusted (K,): pixels that truly are of each class, estimated from a probability
    sample; None without one. pixel: what one measures."""

    mapped: tuple[int, ...]
    adjusted: tuple[Estimate, ...] | None
    pixel: PixelArea

    def to_dict(self, classes: ClassTable) -> list[dict[str, Any]]:
        """One record a class; hectares are None where the map does not measure them."""
        size = self.pixel.hectares

        def hectares(pixels: float) -> float | None:
            return None if size is None else pixels * size

        records: list[dict[str, Any]] = []
        for k, (value, name, mapped) in enumerate(zip(classes.values, classes.names, self.mapped, strict=True)):
            record = {"value": value, "name": name, "mapped_pixels": mapped, "mapped_hectares": hectares(mapped)}
            if self.adjusted is not None:
                pixels, error = self.adjusted[k]
                record |= {"adjusted_pixels": pixels, "adjusted_pixels_error": error}
                record |= {"adjusted_hectares": hectares(pixels), "adjusted_hectares_error": hectares(error)}
            records.append(record)
        return records


@dataclass(frozen=True)
class Evaluation:
    """confusion (K, K + 1): rows labels, columns map, last column where the map has no class; pixels, or points.

    blocks, block: how many blocks hold labels, and their side in map pixels, or 0 for a probability sample, whose
    scores are estimates for the whole map. intervals: at 95 %, None where the labels lie in too few blocks.
    training_ground: of the split, whether the network saw it while it made the map: the map has classes there, or has
    none because a mask hid it. None without a split. folds: of a map of held-out answers, how many there were; such a
    map shows labelled ground alone, so that nothing is said of areas.
    """

    classes: ClassTable
    confusion: NDArray[np.int64]
    scores: Scores
    part: str | None
    notes: tuple[str, ...]
    intervals: Intervals | None = None
    blocks: int = 0
    block: int = 0
    leakage: Leakage | None = None
    areas: ClassAreas | None = None
    training_ground: Literal["seen", "hidden"] | None = None
    folds: int | None = None

    @property
    def of_sample(self) -> bool:
        """Whether the labels are a probability sample."""
        return self.areas is not None and self.areas.adjusted is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "part": self.part,
            "classes": [{"value": v, "name": n} for v, n in zip(self.classes.values, self.classes.names, strict=True)],
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
            **self.scores.to_dict(),
            "probability_sample": self.of_sample,
            "intervals": self.intervals and self.intervals.to_dict(),
            "blocks": self.blocks,
            "block": self.block,
            "leakage": self.leakage and self.leakage.to_dict(),
            "training_ground": self.training_ground,
            "folds": self.folds,
            "areas": self.areas and self.areas.to_dict(self.classes),
        }


def evaluate(
    map_path: Path | str,
    labels: Path | str | Sequence[Path | str],
    *,
    split: Path | str | None = None,
    part: str | None = None,
    classes: ClassTable | None = None,
    column: str | None = None,
    layer: str | None = None,
    min_share: float | None = None,
    block: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Scores of a map over the labelled pixels of one part of a split, or over all of them.

    labels: files as for training, or the file of `sample` with classes filled in; column, layer, min_share: as of
    `read_labels`. block: map pixels per side of the blocks that intervals are made from; those of the split if there
    is one, otherwise chosen from the map's size. seed: of their resamples.
    Raises InputError if labels or split do not lie on the map, if they hold classes the map does not know, or if no
    labelled pixel is left. Names match names and numbers match values. classes: which value of a map without class
    names is which class; needed where the labels have names.
    """
    check_part(split, part)
    values, grid = read_map(map_path)
    place = f"the map {map_path}"
    table = _names_of_map(map_path, classes)
    read = read_labels(
        labels,
        grid,
        classes=table,
        column=column,
        layer=layer,
        min_share=min_share,
        nameless=None if table else place,
    )
    read = replace(read, notes=read.notes + _strange(values, read.classes))
    value_to_index = np.full(256, -1, np.int16)
    value_to_index[list(read.classes.values)] = np.arange(len(read.classes))
    mapped = value_to_index[values]
    counts = [int((values == value).sum()) for value in read.classes.values]
    areas = ClassAreas(tuple(counts), None, pixel_area(grid))
    for path in read.paths:
        drawn = read_sample(path)
        if drawn is None:
            continue
        if split is not None:
            raise InputError(f"{path} is a probability sample, which judges the whole map; leave --split out")
        if len(read.paths) > 1:
            raise InputError(f"{path} is a probability sample, which judges alone; leave the other --labels out")
        return _on_sample(mapped, read, drawn, places(drawn, grid, place), path.name, areas)
    cut = None if split is None else _read_split(split, grid, place)
    truth = read.index if cut is None else np.where(cut.part == PART_NAMES.index(part), read.index, np.int16(-1))
    with RasterReader(map_path) as file:
        tags = file.tags
    folds, beside = tags.get("ADCDNET_FOLDS"), Path(split or map_path).parent / MODEL_FILE
    if split is not None and MODEL_TAG in tags and model_digest(beside) not in ("", tags[MODEL_TAG]):
        other = f"the map was made by another model than {beside.parent} holds"
        said = f"{other}: it may have trained where this split tests, and these are not that run's scores"
        read = replace(read, notes=(*read.notes, said))
    if folds:  # what no fold could answer, for want of valid pixels, judges none
        truth = np.where(values > 0, truth, np.int16(-1))
    if not (truth >= 0).any():
        raise InputError(f"no labelled pixel in the {part or 'map'}{' part' if part else ''}; nothing to evaluate")
    side = block or (cut and cut.block) or block_side(*grid.shape, reach=TrainConfig().guard)
    by_block = _by_block(truth, mapped, len(read.classes), side)
    confusion = by_block.sum(axis=0)
    return Evaluation(
        read.classes,
        confusion,
        scores(confusion),
        part,
        read.notes,
        block_bootstrap(by_block, rng=np.random.default_rng(seed)),
        blocks=len(by_block),
        block=side,
        leakage=leakage(cut.part, truth >= 0, reach=cut.reach) if cut and cut.reach else None,
        areas=None if folds else areas,
        training_ground=None if cut is None else "seen" if values[cut.part == TRAIN].any() else "hidden",
        folds=int(folds) if folds else None,
    )


def _names_of_map(map_path: Path | str, given: ClassTable | None) -> ClassTable | None:
    """Which value of the map is which class: as it says or, where it does not, as given. InputError if they differ."""
    own = read_classes(map_path)
    if given is None:
        return own
    if own is None and given.codes:
        raise InputError(
            f"the class table has the values {list(given.codes)}, the map {map_path} can only have some in 1..255; "
            "give a table of the map's own values"
        )
    names = dict(zip(given.values, given.names, strict=True))
    for value, name in [] if own is None else zip(own.values, own.names, strict=True):
        if names.get(value, name) != name:
            raise InputError(
                f"the map {map_path} calls its value {value} {name!r}, the class table {names[value]!r}; "
                "leave --classes out"
            )
    return given if own is None or given.values == own.values else own


def _strange(values: NDArray[np.uint8], classes: ClassTable) -> tuple[str, ...]:
    """A note on values of the map that are no class here."""
    counts = np.bincount(values.ravel(), minlength=256)
    strange = [value for value in np.flatnonzero(counts).tolist() if value and value not in classes.values]
    if not strange:
        return ()
    shown = ", ".join(f"{value} ({counts[value]} pixels)" for value in strange[:8])
    return (f"values of the map that are no class of the labels or the table count as 'no class': {shown}",)


def _on_sample(
    mapped: NDArray[np.int16],
    labels: Labels,
    drawn: Sample,
    pixel: tuple[NDArray[np.int64], NDArray[np.int64]],
    name: str,
    areas: ClassAreas,
) -> Evaluation:
    """Estimates for all of the map from points at the rows and columns `pixel`, as far as they have a class."""
    classes, points = len(labels.classes), len(drawn.x)
    truth, answer = labels.index[pixel], mapped[pixel]
    known = truth >= 0
    stray = int((labels.index >= 0).sum()) - len(set(zip(*(axis[known].tolist() for axis in pixel), strict=True)))
    if stray:
        raise InputError(
            f"{name} has points with a class at {stray} pixels that were not drawn; points of a probability sample "
            "must not be moved or added: take them out"
        )
    n = np.zeros((len(drawn.values), classes + 1, classes), np.int64)
    np.add.at(n, (drawn.stratum[known], np.where(answer < 0, classes, answer)[known], truth[known]), 1)
    thin = (n.sum(axis=(1, 2)) < 2) & (n.sum(axis=(1, 2)) < drawn.pixels)
    if thin.any():
        raise InputError(
            f"{name}: of the points drawn where the map's value is {drawn.values[thin].tolist()} fewer than two have a "
            "class, and nothing can be said of that ground; fill in more of them"
        )
    notes = labels.notes
    if not known.all():
        notes += (
            f"the {known.sum()} points with a class stand for the {(~known).sum()} without one, which is right only if "
            "those were left for reasons that have nothing to do with their class",
        )
    of_values = np.array([*labels.classes.values, 0])[answer]
    strangers = int((of_values != drawn.values[drawn.stratum]).sum()) if drawn.values.any() else 0
    if strangers:
        notes += (
            f"this is not the map that the sample was drawn from: {strangers} of {points} points have another class in "
            "it; the estimates hold all the same, with somewhat larger errors",
        )
    notes += _few_points(n, drawn.pixels, labels.classes)
    found = estimate(n, drawn.pixels)
    confusion = n.sum(axis=0).T
    support = tuple(confusion.sum(axis=1).tolist())
    intervals = Intervals(
        oa=_interval(found.oa),
        aa=NO_INTERVAL,
        kappa=NO_INTERVAL,
        macro_f1=NO_INTERVAL,
        precision=tuple(map(_interval, found.precision)),
        recall=tuple(map(_interval, found.recall)),
        f1=(NO_INTERVAL,) * classes,
    )
    total = int(drawn.pixels.sum())
    adjusted = tuple(Estimate(share * total, error * total) for share, error in found.area)
    return Evaluation(
        labels.classes,
        confusion,
        replace(scores(found.matrix), support=support, unmapped=int(confusion[:, -1].sum())),
        None,
        notes,
        intervals,
        areas=replace(areas, adjusted=adjusted),
    )


def _few_points(n: NDArray[np.int64], pixels: NDArray[np.int64], classes: ClassTable) -> tuple[str, ...]:
    """A note on classes that few points turned out to be of; those of a stratum drawn whole leave nothing to doubt."""
    some = n[n.sum(axis=(1, 2)) < pixels]
    counts = some.sum(axis=(0, 1)).tolist()
    few = [f"{name} ({c})" for name, c in zip(classes.names, counts, strict=True) if c < _FEW_POINTS]
    if not len(some) or not few:
        return ()
    return (
        f"fewer than {_FEW_POINTS} points, classes drawn whole not counted, turned out to be of {', '.join(few)}: "
        "intervals of so rare a class hold the truth less often than 95 %; draw more points, or trust them less",
    )


def _interval(share: Estimate) -> Interval:
    """95 % by the normal distribution, within 0 and 1; none where the points all agree, which leaves no error."""
    if not share.error > 0:
        return NO_INTERVAL
    return Interval(max(0.0, share.value - _Z * share.error), min(1.0, share.value + _Z * share.error))


def _by_block(truth: NDArray[np.int16], mapped: NDArray[np.int16], classes: int, side: int) -> NDArray[np.int64]:
    """`confusion_by_block` in blocks of about side × side, a row of them at a time: counting takes the memory of many
    maps."""
    height, width = truth.shape
    row, col = block_numbers(height, 1, side)[:, 0], block_numbers(1, width, side)[0]
    found = []
    for number in range(int(row[-1]) + 1):
        rows = slice(*np.searchsorted(row, (number, number + 1)))
        block = np.broadcast_to(col, truth[rows].shape)
        found.append(confusion_by_block(truth[rows], mapped[rows], classes, block))
    return np.concatenate(found)


class _Split(NamedTuple):
    part: NDArray[np.uint8]
    block: int | None  # pixels per side, None in files of older versions
    reach: int | None


def _read_split(path: Path | str, grid: Grid, place: str) -> _Split:
    """A split on `grid`, or on one so many times coarser and then refined: block and reach are in pixels of `grid`.

    place: what has that grid, for the InputError of a split that does not lie on it.
    """
    check_of_model(Path(path))
    part, own, _ = read_band(path)
    step = max(1, grid.height // part.shape[0])
    part, own = part.repeat(step, 0).repeat(step, 1), own.refine(step)
    with RasterReader(path) as file:
        tags = file.tags
    if part.shape != grid.shape or not (
        own.transform == grid.transform or _is_off_by(own, grid, tags.get("PHASE", ""))
    ):
        raise InputError(
            f"{path} does not lie on {place}: {part.shape[0]}×{part.shape[1]} against "
            f"{grid.height}×{grid.width} pixels or another place; use the split.tif of the same scene"
        )
    block, reach = (int(tags[name]) * step if name in tags else None for name in ("BLOCK", "REACH"))
    return _Split(part, block, reach)


def _is_off_by(own: Grid, grid: Grid, phase: str) -> bool:
    """Whether a grid of PAN lies off its refined split by the phase "rows columns" that this was written with."""
    if not phase:
        return False
    row, col = map(float, phase.split())
    corners = [(0, 0), (grid.width, grid.height)]
    apart = [~own.transform @ (grid.transform @ corner) for corner in corners]
    return bool(np.allclose(apart, np.add(corners, (col, row)), rtol=0, atol=PHASE_TOLERANCE))


def check_part(split: Path | str | None, part: str | None) -> None:
    """InputError unless split and part come together and the part exists."""
    if (split is None) != (part is None):
        raise InputError(
            "a split and the name of one of its parts belong together; give --split and --part, or neither"
        )
    if part is not None and part not in PART_NAMES:
        raise InputError(f"part {part!r} is not one of {', '.join(PART_NAMES)}")


def labels_in_part(
    labels: Labels, grid: Grid, place: str, split: Path | str | None, part: str | None
) -> NDArray[np.int16]:
    """Class indices (h, w) on `grid` in one part of a split, or all of them without one; −1 elsewhere.

    place: what has that grid, for the InputError of a split that does not lie on it.
    """
    check_part(split, part)
    if split is None or part is None:
        return labels.index
    return np.where(_read_split(split, grid, place).part == PART_NAMES.index(part), labels.index, np.int16(-1))
