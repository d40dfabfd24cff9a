"""The scenes of a training, read and dealt to folds, before anything is learnt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.mapping.model import Model
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.split.parts import PART_NAMES, TEST, TRAIN, UNUSED, Split
from adcdnet.training.area import training_statistics
from adcdnet.training.borders import refine
from adcdnet.training.committee.folds import Ground
from adcdnet.training.scenes import LabelledScene, check_alike, folds_of, on_ms_grid, total_leakage
from adcdnet.training.stages.schedule import suited_to


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The scenes of one training, read and divided.

    config: the settings, without the paper's parts where labels are few. splits: of each fold, of each scene.
    statistics: of all ground that trains in some fold. leakage, notes: for the record.
    """

    config: TrainConfig
    ground: Ground
    splits: Sequence[Sequence[Split]]
    statistics: BandStatistics
    label_shares: tuple[float, ...]
    guard: int
    leakage: Mapping[str, float | None]
    notes: tuple[str, ...]

    @property
    def classes(self) -> ClassTable:
        return self.ground.classes

    def fingerprint(self, init: Model | None, device: torch.device) -> str:
        """Of all that the training depends on: settings, versions, images and labels as they were read, the split, the
        model to begin from, the kind of device."""
        digest = hashlib.sha256()
        libraries = [version(name) for name in ("adcdnet", "torch", "numpy", "scikit-learn")]
        begun = None if init is None else (init.digest, init.statistics, init.classes)
        told = (libraries, self.config.model_dump(), self.ground.layout, self.ground.phase, self.classes, begun)
        digest.update(repr((*told, device.type)).encode())
        arrays: list[NDArray[Any]] = [x for pixels in self.ground.pixels for x in pixels]
        arrays += [labels.index for labels in self.ground.labels]
        for array in (*arrays, *(split.part for of_fold in self.splits for split in of_fold)):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def prepare(scenes: Sequence[LabelledScene], config: TrainConfig, init: Model | None) -> Prepared:
    """Read and divide. InputError for scenes that cannot be trained on together, or so."""
    check_alike(scenes, fine=config.network.grid == "fine")
    first, labels = scenes[0].scene, [labelled.labels for labelled in scenes]
    pixels = [labelled.scene.read(labelled.scene.grid.window) for labelled in scenes]
    coarse, usable = on_ms_grid(scenes, pixels, step=config.network.targets_per_pixel(first.ratio))
    # wide enough for patches too, which may take the place of tiles once it is known how many labels train
    guard = config.guard if init is not None else max(config.guard, config.over_patches().guard)
    splits, notes = folds_of(coarse, usable, reach=guard, config=config.split, seed=config.seed)
    if isinstance(config.network, PatchArchitecture) and not config.network.stem and first.ratio != 4:
        raise InputError(
            f"the scene has {first.ratio} PAN pixels per MS pixel, the published network needs 4; use --profile default"
        )
    trained_on = min(
        sum(labelled_pixels(one.labels, split)[PART_NAMES[TRAIN]] for one, split in zip(coarse, of_fold, strict=True))
        for of_fold in splits
    )
    if init is None and (suited := suited_to(trained_on, first.ratio, config)) is not config:
        if suited.network.form != config.network.form and first.ratio < config.tiles_from:
            notes += (f"ratio {first.ratio}: over patches, which serve better below {config.tiles_from} (tiles_from)",)
        if suited.network.prior != config.network.prior:
            notes += ("few labels: over patches, without prior, DIA and DTM, which serves better there (plain_if_few)",)
        config = suited
    layout = Layout(
        ms_bands=first.ms_bands, pan_bands=first.pan_bands, ratio=first.ratio, classes=len(labels[0].classes)
    )
    learnt = [_trains_somewhere([of_fold[k] for of_fold in splits]) for k in range(len(scenes))]
    counts = np.zeros(layout.classes)
    for one, split in zip(scenes, learnt, strict=True):
        counts += np.bincount(_indices(one.labels, split, TRAIN), minlength=layout.classes)
    return Prepared(
        config=config,
        ground=Ground(pixels, labels, layout, first.phase),
        splits=splits,
        statistics=training_statistics(list(zip(pixels, learnt, strict=True))),
        label_shares=tuple((counts / counts.sum()).tolist()),
        guard=guard,
        leakage=_leakage([labelled.labels for labelled in coarse], splits, reach=config.guard),
        notes=notes,
    )


def _trains_somewhere(splits: Sequence[Split]) -> Split:
    """The ground that is in the train part of any fold."""
    part = np.where(np.any([split.part == TRAIN for split in splits], axis=0), TRAIN, UNUSED).astype(np.uint8)
    return Split(part, splits[0].block, ())


def _leakage(labels: Sequence[Labels], splits: Sequence[Sequence[Split]], *, reach: int) -> dict[str, float | None]:
    """Of the test pixels of all folds together."""
    tested = [
        sum(labelled_pixels(one, split)[PART_NAMES[TEST]] for one, split in zip(labels, of_fold, strict=True))
        for of_fold in splits
    ]
    if not any(tested):
        return {"holding": None, "overlapping": None}
    found = [total_leakage(labels, of_fold, reach=reach) for of_fold in splits]
    return {
        name: sum(n * getattr(each, name) for n, each in zip(tested, found, strict=True) if n) / sum(tested)
        for name in ("holding", "overlapping")
    }


def folds_raster(splits: Sequence[Split]) -> NDArray[np.uint8]:
    """(H, W): the fold that tests a pixel, from 1; 0 where none does."""
    fold = np.zeros(splits[0].part.shape, np.uint8)
    for number, split in enumerate(splits, start=1):
        fold[split.part == TEST] = number
    return fold


def _indices(labels: Labels, split: Split, part: int) -> NDArray[np.int16]:
    """Class indices of the labelled pixels in one part of a split, which may be coarser."""
    step = labels.index.shape[0] // split.part.shape[0]
    index: NDArray[np.int16] = labels.index[(labels.index >= 0) & refine(split.part == part, step)]
    return index


def labelled_pixels(labels: Labels, split: Split) -> dict[str, int]:
    """Labelled pixels in every part of a split, which may be coarser."""
    step = labels.index.shape[0] // split.part.shape[0]
    counts = np.bincount(split.part.repeat(step, 0).repeat(step, 1)[labels.index >= 0], minlength=len(PART_NAMES))
    return dict(zip(PART_NAMES, counts.tolist(), strict=True))
