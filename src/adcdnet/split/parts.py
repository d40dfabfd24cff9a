"""Which pixels train, validate and test, and how training draws from them.

A split gives every valid MS pixel one part. Parts are made of whole spatial blocks, with a guard band between them: no
pixel of an earlier part lies within `reach` MS pixels (rows and columns alike) of a later part, so the window of a
training pixel holds no validation or test pixel, and the window of a validation pixel holds no test pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.config import SplitConfig
from adcdnet.errors import InputError
from adcdnet.files import MODEL_FILE, MODEL_TAG, model_digest
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.raster import RasterReader

UNUSED, TRAIN, VALIDATION, TEST, GUARD = range(5)
PART_NAMES = ("unused", "train", "validation", "test", "guard")
FEWEST_LABELS = 5  # labelled pixels a class must have to be learnt and tested at all
FEWEST_TO_VALIDATE = 30  # below this in any class, all that is not test goes into training


@dataclass(frozen=True)
class Split:
    """part (H, W) uint8: 0 unused (invalid), 1 train, 2 validation, 3 test, 4 guard."""

    part: NDArray[np.uint8]
    block: int  # MS pixels per side
    notes: tuple[str, ...]
    hides_test: bool = True  # training sees zeros in place of test and validation pixels


def check_of_model(raster: Path) -> None:
    """InputError for a run's raster of folds or parts beside a model of another training, as a kill between two files
    of the run leaves them. One that says nothing of its model, or lies beside none, is believed."""
    with RasterReader(raster) as file:
        whose = file.tags.get(MODEL_TAG)
    if whose and model_digest(raster.with_name(MODEL_FILE)) not in ("", whose):
        raise InputError(
            f"{raster} and the model beside it are of two trainings, the later of which was killed as it ended; give "
            "its adcdnet train command once more, with --resume"
        )


def check_parts(
    parts: NDArray[np.uint8], index: NDArray[np.integer], classes: ClassTable, asked: Sequence[int], reach: int
) -> list[str]:
    """Notes on classes that are missing in parts that were asked for. InputError where one is not left to train."""
    notes = []
    for number in (TRAIN, VALIDATION, TEST):
        if number != TRAIN and number not in asked:
            continue
        missing = [n for k, n in enumerate(classes.names) if not ((index == k) & (parts == number)).any()]
        if missing and number == TRAIN:
            raise InputError(
                f"no training pixel of class '{missing[0]}' is left beside the test part and its guard band of "
                f"{reach} pixels; label it in more places, or ask for a smaller test part or smaller blocks"
            )
        if missing:
            notes.append(f"not in the {PART_NAMES[number]} part: {', '.join(missing)}")
    return notes


def shares_wanted(
    totals: NDArray[np.int64], classes: ClassTable, config: SplitConfig
) -> tuple[dict[int, float], list[str]]:
    """Shares of the test and the validation part, and a note where a class has too few pixels for the latter."""
    if config.validation == 0 or totals.min() >= FEWEST_TO_VALIDATE:
        return {TEST: config.test, VALIDATION: config.validation}, []
    scarce = f"class '{classes.names[int(totals.argmin())]}' has only {totals.min()} labelled pixels"
    return {TEST: config.test, VALIDATION: 0.0}, [f"{scarce}: split into train and test only"]


def check_counts(index: NDArray[np.integer], classes: ClassTable) -> NDArray[np.int64]:
    """(K,) labelled pixels of every class. InputError for a class with too few."""
    totals = np.bincount(index[index >= 0], minlength=len(classes))
    if not totals.any():
        raise InputError(
            "no labelled pixel lies on valid ground: nothing is labelled, or the nodata values or NaN of MS or PAN, or "
            "the mask, hide all of it; `adcdnet check` shows how much of each image is valid"
        )
    for name, total in zip(classes.names, totals, strict=True):
        if total < FEWEST_LABELS:
            raise InputError(
                f"class '{name}' has {total} labelled pixels on valid ground; at least {FEWEST_LABELS} are needed; "
                "label more of it or take it out of labels and class table, or see what mask and nodata values hide"
            )
    return totals


@dataclass(frozen=True)
class Leakage:
    """What separates judged pixels from training, as shares of them; nan where there are none."""

    holding: float  # their window holds a training pixel, which the guard band prevents
    overlapping: float  # their window shares ground with that of a training pixel

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        return {name: None if np.isnan(share) else share for name, share in asdict(self).items()}


def leakage(part: NDArray[np.uint8], judged: NDArray[np.bool_], *, reach: int) -> Leakage:
    """How near judged pixels (H, W) come to the training pixels of a split's parts (H, W), exactly.

    A window reaches `reach` MS pixels from its pixel, rows and columns alike. All pixels of the training part train:
    unlabelled ones serve stage I.
    """
    train = part == TRAIN
    holding, overlapping = (near(train, distance)[judged] for distance in (reach, 2 * reach))
    if not judged.any():
        return Leakage(np.nan, np.nan)
    return Leakage(float(holding.mean()), float(overlapping.mean()))


def near(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Where any true pixel lies within reach, rows and columns alike."""
    return np.asarray(ndimage.maximum_filter(mask, size=2 * reach + 1, mode="constant", cval=0), bool)


def add_guard(part: NDArray[np.uint8], valid: NDArray[np.bool_], reach: int) -> NDArray[np.uint8]:
    guarded = part.copy()
    near_test = near(part == TEST, reach)
    guarded[near_test & (part != TEST)] = GUARD
    near_validation = near(guarded == VALIDATION, reach)
    guarded[near_validation & (guarded == TRAIN)] = GUARD
    guarded[~valid] = UNUSED
    return guarded
