"""What a run says of its training: the content of metrics.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from adcdnet.geo.labels import Labels
from adcdnet.mapping.record import RunRecord
from adcdnet.metrics import scores
from adcdnet.split.parts import Split
from adcdnet.training.committee.cross_fit import CrossFit
from adcdnet.training.prepare import Prepared, folds_raster, labelled_pixels
from adcdnet.training.scenes import LabelledScene


def record_of(
    name: str,
    scenes: Sequence[LabelledScene],
    prepared: Prepared,
    fitted: CrossFit,
    notes: Sequence[str],
    applicability: Mapping[str, Any] | None,
) -> RunRecord:
    """applicability: as of `judged_by_folds`."""
    first, config, folds = scenes[0].scene, prepared.config, prepared.splits
    counts = [_counts(labelled.labels, [of_fold[k] for of_fold in folds]) for k, labelled in enumerate(scenes)]
    own = [note for labelled in scenes for note in labelled.notes]
    course = next(iter(fitted.results[0].courses.values()), None)
    radii = [course.effective_radius for result in fitted.results for course in result.courses.values()]
    radius = max((r for r in radii if r is not None), default=None)
    if radius is not None and radius > config.guard:
        own.append(f"the network looks {radius} MS pixels far, more than the guard band of {config.guard}")
    judged = fitted.judgement
    seen: dict[str, Any] | None = None
    if judged is not None:
        intervals = judged.intervals and judged.intervals.to_dict()
        seen = {**scores(judged.confusion).to_dict(), "confusion": judged.confusion.tolist(), "intervals": intervals}
    single = len(folds) == 1
    return RunRecord(
        name=name,
        scene=", ".join(labelled.name or labelled.scene.name for labelled in scenes),
        version=version("adcdnet"),
        torch=torch.__version__,
        python=platform.python_version(),
        settings=config.model_dump(),
        ms_bands=tuple(first.ms_descriptions),
        pan_bands=tuple(first.pan_descriptions),
        chosen_bands=first.chosen,
        pan_shift=first.pan_shift,
        folds=len(folds),
        members=_members(fitted),
        local_priors=None if single else fitted.answers.local_priors,
        labelled_pixels={part: sum(count[part] for count in counts) for part in counts[0]},
        block=folds[0][0].block,
        guard=prepared.guard,
        leakage=prepared.leakage,
        notes=(*own, *(note for of_fold in folds for split in of_fold for note in split.notes), *notes),
        sampling="" if course is None else "dense" if course.dense else "patch",
        labels_per_tile=None if course is None else course.labels_per_tile,
        steps=None if course is None else course.steps,
        effective_rank=None if course is None else course.effective_rank,
        effective_radius=radius,
        validation=seen if single else None,
        cross_validation=None if single else seen,
        calibration=None
        if judged is None
        else {"temperature": fitted.temperature, "error_after": judged.calibration_error},
        applicability=applicability,
        self_trained=None if course is None else course.self_trained,
        scenes={} if len(scenes) == 1 else _of_each(scenes, folds[0], counts),
    )


def _members(fitted: CrossFit) -> dict[str, dict[str, Any]]:
    """Weight of each member, and what it says alone where it was judged."""
    alone = {} if fitted.judgement is None else fitted.judgement.alone
    told = {name: scores(confusion).to_dict() for name, confusion in alone.items()}
    return {
        name: {"weight": weight, **{key: told[name][key] for key in ("oa", "aa", "kappa") if name in told}}
        for name, weight in fitted.weights.items()
    }


def _counts(labels: Labels, splits: Sequence[Split]) -> dict[str, int]:
    """Labelled pixels of one scene: of each part of a split, or of each fold, and of none."""
    if len(splits) == 1:
        return labelled_pixels(labels, splits[0])
    step = labels.index.shape[0] // splits[0].part.shape[0]
    fold = folds_raster(splits).repeat(step, 0).repeat(step, 1)[labels.index >= 0]
    counts = np.bincount(fold, minlength=len(splits) + 1).tolist()
    return {f"fold {k}": counts[k] for k in range(1, len(counts))} | {"unused": counts[0]}


def _of_each(
    scenes: Sequence[LabelledScene], splits: Sequence[Split], counts: Sequence[Mapping[str, int]]
) -> dict[str, dict[str, Any]]:
    """What the record says of each of several scenes."""
    return {
        labelled.name: {
            "labelled_pixels": dict(count),
            "block": split.block,
            "part": labelled.part,
            "pan_shift": list(labelled.scene.pan_shift),
        }
        for labelled, split, count in zip(scenes, splits, counts, strict=True)
    }
