"""Whether two images can be used together, and with these labels: what they are, how they lie, and what to mend.

Figures of bands come from at most 64 windows spread over the common extent, of both images alike, so that memory and
time stay bounded on any scene; labels are counted wherever they lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adcdnet.errors import InputError
from adcdnet.geo.alignment import TOO_UNSURE
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, Window, tiles
from adcdnet.geo.image import Files
from adcdnet.geo.labels import Labels, read_labels
from adcdnet.geo.registration import Registration, measure
from adcdnet.geo.scene import MUCH_HIDDEN, Scene
from adcdnet.split.parts import FEWEST_LABELS, FEWEST_TO_VALIDATE

_SIDE, _MOST = 256, 64  # MS pixels of a window, and how many of them are looked at
_CLIPPED = 0.01  # share of pixels at the lowest or highest value from which that is no chance
_HOW_TO_HIDE_LESS = "if that is not meant, name what hides with --mask-values or --mask-bits"
_OFF = 0.5  # PAN pixels of correction or drift, and between the two ways to measure it, that deserve a word
_FRACTION = 0.25  # PAN pixels beyond the whole ones that deserve resampling

Verdict = Literal["fine", "usable, with warnings", "cannot be used"]


@dataclass(frozen=True)
class Band:
    """Values over valid pixels, in the units of the file; nan in a band without any.

    at_lowest, at_highest: share of the pixels that have just that value.
    """

    name: str
    type: str
    lowest: float
    highest: float
    mean: float
    deviation: float
    at_lowest: float
    at_highest: float


@dataclass(frozen=True)
class ImageFacts:
    """One image, of one file or several. height, width: pixels; pixel: height and width of one, in units of the system;
    invalid: share."""

    paths: tuple[str, ...]
    height: int
    width: int
    pixel: tuple[float, float]
    crs: str | None
    invalid: float
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Finding:
    """Something wrong, and how to mend it ("" where `what` says so). fatal: training would refuse."""

    what: str
    mend: str
    fatal: bool = False


@dataclass(frozen=True)
class CheckReport:
    """All that `check` found. height, width: MS pixels of the common extent; seen: share of it that was looked at.

    labelled: valid labelled MS pixels per class, None without labels; contested: MS pixels that polygons of different
    classes claim. registration: None where it cannot be measured.
    """

    ms: ImageFacts
    pan: ImageFacts
    ratio: int
    height: int
    width: int
    seen: float
    registration: Registration | None
    labelled: dict[str, int] | None
    contested: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        if any(finding.fatal for finding in self.findings):
            return "cannot be used"
        return "usable, with warnings" if self.findings else "fine"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; nan becomes None."""
        known = asdict(self) | {"verdict": self.verdict}
        plain: dict[str, Any] = _plain(known)
        return plain


def check(
    ms: Files,
    pan: Files,
    labels: Path | str | Sequence[Path | str] | None = None,
    *,
    classes: ClassTable | None = None,
    column: str | None = None,
    layer: str | None = None,
    min_share: float | None = None,
    mask: Path | str | None = None,
    mask_values: Sequence[int] | None = None,
    mask_bits: Sequence[int] | None = None,
    ms_bands: Sequence[str] | None = None,
    pan_bands: Sequence[str] | None = None,
) -> CheckReport:
    """What two images and their labels are, how they lie on each other, and what stands in the way of their use.

    classes, column, layer, min_share: as for `read_labels`; the others: as for `Scene.open`. InputError where the
    images do not make a scene at all; labels that cannot be used are a finding.
    """
    masked: dict[str, Any] = {"mask": mask, "mask_values": mask_values, "mask_bits": mask_bits}
    with Scene.open(ms, pan, **masked, ms_bands=ms_bands, pan_bands=pan_bands) as scene:
        ms_facts, pan_facts, seen = _images(scene)
        findings = [*_about_bands("MS", ms_facts), *_about_bands("PAN", pan_facts)]
        if scene.hidden > MUCH_HIDDEN:
            findings.append(Finding(f"the mask hides {scene.hidden:.0%} of the scene", _HOW_TO_HIDE_LESS))
        registration = measure(scene.read, *scene.grid.shape, phase=scene.phase)
        findings += _about_registration(registration, scene.ratio)
        notes, labelled, contested = scene.notes, None, 0
        if labels:
            try:
                found = read_labels(
                    labels, scene.grid, classes=classes, column=column, layer=layer, min_share=min_share
                )
            except InputError as error:
                findings.append(Finding(str(error), "", fatal=True))
            else:
                labelled, contested = _count(scene, found), found.contested
                notes += found.notes
                findings += _about_labels(labelled, contested)
        height, width = scene.grid.shape
    return CheckReport(
        ms=ms_facts,
        pan=pan_facts,
        ratio=scene.ratio,
        height=height,
        width=width,
        seen=seen,
        registration=registration,
        labelled=labelled,
        contested=contested,
        notes=notes,
        findings=tuple(findings),
    )


# --- the images ------------------------------------------------------------------------------------------------------


class _Tally:
    """Running figures of the bands of one image."""

    def __init__(self, bands: int) -> None:
        self.pixels = self.valid = 0
        self.sums, self.squares = np.zeros((2, bands))
        self.lowest, self.highest = np.full(bands, np.inf), np.full(bands, -np.inf)
        self.at_lowest, self.at_highest = np.zeros((2, bands))

    def add(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """values (bands, h, w), valid (h, w)."""
        self.pixels += valid.size
        self.valid += int(valid.sum())
        for band, image in enumerate(values):
            some = image[valid]
            if not some.size:
                continue
            self.sums[band] += some.sum(dtype=np.float64)
            self.squares[band] += np.square(some, dtype=np.float64).sum()
            for extreme, counts, new in (
                (self.lowest, self.at_lowest, min(self.lowest[band], float(some.min()))),
                (self.highest, self.at_highest, max(self.highest[band], float(some.max()))),
            ):
                before = counts[band] if new == extreme[band] else 0
                extreme[band], counts[band] = new, before + (some == new).sum()

    def bands(self, names: Sequence[str | None], types: Sequence[str]) -> tuple[Band, ...]:
        n = self.valid or math.nan
        mean = self.sums / n
        deviation = np.sqrt(np.maximum(self.squares / n - mean**2, 0))
        figures = np.stack([self.lowest, self.highest, mean, deviation, self.at_lowest / n, self.at_highest / n])
        figures[:, [not self.valid] * len(mean)] = math.nan
        return tuple(
            Band(name or f"band {k + 1}", kind, *figures[:, k].tolist())
            for k, (name, kind) in enumerate(zip(names, types, strict=True))
        )


def _images(scene: Scene) -> tuple[ImageFacts, ImageFacts, float]:
    """Facts of both images and the share of the common extent that they come from."""
    ms, pan = _Tally(scene.ms_bands), _Tally(scene.pan_bands)
    for window in _some(list(tiles(*scene.grid.shape, _SIDE))):
        pixels = scene.read(window)
        ms.add(pixels.ms, pixels.ms_valid)
        pan.add(pixels.pan, pixels.pan_valid)

    def facts(what: str, grid: Grid, tally: _Tally, bands: tuple[Band, ...]) -> ImageFacts:
        pixel = (abs(grid.transform.e), abs(grid.transform.a))
        name = grid.crs and grid.crs.split('"')[1] if grid.crs and '"' in grid.crs else grid.crs
        paths = tuple(str(path) for name, path in scene.files.items() if name.split()[0] == what)  # "ms", or "ms 1"
        return ImageFacts(paths, *grid.shape, pixel, name, 1 - tally.valid / tally.pixels, bands)

    seen = ms.pixels / (scene.grid.height * scene.grid.width)
    return (
        facts("ms", scene.ms_full, ms, ms.bands(scene.ms_descriptions, scene.ms_types)),
        facts("pan", scene.pan_full, pan, pan.bands(scene.pan_descriptions, scene.pan_types)),
        seen,
    )


def _some(windows: list[Window]) -> Iterator[Window]:
    """All windows, or the most allowed ones, evenly spread."""
    for k in np.unique(np.linspace(0, len(windows) - 1, min(len(windows), _MOST)).round().astype(int)):
        yield windows[k]


def _about_bands(image: str, facts: ImageFacts) -> Iterator[Finding]:
    if facts.invalid == 1:
        yield Finding(f"{image} has no valid pixel on the common extent", "check its nodata value and mask", fatal=True)
        return
    for band in facts.bands:
        if band.lowest == band.highest:
            yield Finding(
                f"{image} {band.name} is {band.lowest:g} everywhere", f"leave it out: --{image.lower()}-bands"
            )
            continue
        if band.at_highest > _CLIPPED:
            yield Finding(
                f"{image} {band.name} is saturated: {band.at_highest:.1%} of its pixels are {band.highest:g}",
                "take an image with less gain or without clipping, or expect bright classes to look alike",
            )
        if band.at_lowest > _CLIPPED:
            yield Finding(
                f"{band.at_lowest:.1%} of the pixels of {image} {band.name} are {band.lowest:g}, its lowest value",
                f"if these hold no data say so, e.g. with gdal_edit -a_nodata {band.lowest:g}",
            )


# --- how they lie ----------------------------------------------------------------------------------------------------


def _about_registration(found: Registration | None, ratio: int) -> Iterator[Finding]:
    if found is None:
        yield Finding(
            "how PAN lies on MS cannot be measured: too few valid pixels, or too little that both images show",
            "look at both in a viewer, one over the other",
        )
        return
    if found.largest_error > TOO_UNSURE:
        yield Finding(
            f"how PAN lies on MS is measured only to ± {found.largest_error:.1f} PAN pixels",
            "make sure that both show the same place and season, and look at both in a viewer",
        )
        return
    rows, cols = found.whole
    text = f"PAN needs a correction of {found.row:+.2f} rows and {found.col:+.2f} columns of its pixels"
    if max(abs(found.row - rows), abs(found.col - cols)) > max(_FRACTION, found.largest_error):
        yield Finding(text, "resample it once with adcdnet align --shift auto")
    elif rows or cols:
        yield Finding(text, "train and predict with --fix-shift")
    if found.largest_drift > _OFF:
        yield Finding(
            f"the correction changes by {found.largest_drift:.1f} PAN pixels from the middle to the corners",
            "one image is rotated or stretched against the other: rectify both with the same terrain and ground points",
        )
    apart = max(abs(found.row - found.phase_row), abs(found.col - found.phase_col))
    if apart > _OFF + found.largest_error + ratio / 8:
        yield Finding(
            f"the two ways to measure the correction differ by {apart:.1f} PAN pixels",
            "look at both images in a viewer before a correction is applied",
        )


# --- the labels ------------------------------------------------------------------------------------------------------


def _count(scene: Scene, labels: Labels) -> dict[str, int]:
    """Labelled MS pixels on valid ground per class."""
    counts = np.zeros(len(labels.classes), np.int64)
    for window in tiles(*scene.grid.shape, _SIDE):
        index = labels.index[window.slices]
        if (index >= 0).any():
            counts += np.bincount(index[(index >= 0) & scene.read(window).valid], minlength=len(counts))
    return dict(zip(labels.classes.names, counts.tolist(), strict=True))


def _about_labels(labelled: dict[str, int], contested: int) -> Iterator[Finding]:
    for name, count in labelled.items():
        if count < FEWEST_LABELS:
            yield Finding(
                f"class '{name}' has {count} labelled pixels on valid ground; at least {FEWEST_LABELS} are needed",
                "label more of it, or take it out of the labels and the class table",
                fatal=True,
            )
    scarce = [f"{name} ({n})" for name, n in labelled.items() if FEWEST_LABELS <= n < FEWEST_TO_VALIDATE]
    if scarce:
        yield Finding(
            f"few labelled pixels: {', '.join(scarce)}; there will be no validation part",
            f"label at least {FEWEST_TO_VALIDATE} pixels of each class, in several places",
        )
    if contested:
        yield Finding(
            f"{contested} pixels lie in polygons of different classes and stay unlabelled",
            "cut the polygons so that they do not overlap",
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
