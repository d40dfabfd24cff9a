"""A training from scenes to a run folder: folds, members, their weights, and all that is written.

One seed gives the folds, the draws of each stage and the first weights; two runs with it give the same files.
Each labelled pixel is judged once, by members that trained neither on it nor near it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.files import as_json, write_whole
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import tiles
from adcdnet.geo.labels import Labels
from adcdnet.geo.masks import PLAIN
from adcdnet.geo.raster_writer import RasterWriter, write_raster
from adcdnet.geo.scene import Scene
from adcdnet.mapping import memory
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.model import Model, Run, folds_name, held_out_name, split_name
from adcdnet.mapping.progress import Progress, silent
from adcdnet.mapping.record import RunRecord
from adcdnet.metrics import scores
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.split.parts import PART_NAMES, TEST, TRAIN, UNUSED, Split
from adcdnet.training import provenance
from adcdnet.training.area import training_statistics
from adcdnet.training.borders import refine
from adcdnet.training.committee.cross_fit import CrossFit, cross_fit
from adcdnet.training.committee.folds import Ground
from adcdnet.training.folder import whole_run
from adcdnet.training.scenes import LabelledScene, check_alike, folds_of, on_ms_grid, total_leakage
from adcdnet.training.stages.loop import to_csv
from adcdnet.training.stages.schedule import suited_to
from adcdnet.training.transfer import notes_of, settings_of

_WRITTEN = 1024  # pixels per side that are written at once


def train(
    scene: Scene | Sequence[LabelledScene],
    labels: Labels | None = None,
    *,
    out: Path | str,
    config: TrainConfig | None = None,
    init: Model | Run | Path | str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    progress: Progress = silent,
    command: Sequence[str] = (),
) -> Run:
    """Train all members on all folds and leave a run folder: model, settings, history, folds or split, metrics, timing.

    scene: one, with its labels; or several `LabelledScene`s, which must agree in bands, ratio, phase and classes,
    and may differ in size and coordinate system. Labels must be on their scene's grid (`read_labels`): `scene.grid`, or
    `scene.fine_grid` where the settings of the network say grid "fine". Raises InputError for
    settings or labels that cannot be used, for a collapse in stage I and for a folder that cannot be written.
    KeyboardInterrupt ends a training of several folds without a trace. Of a single split, in stage II, it ends that
    stage early: the run is then complete with the weights so far, and says so.
    init: a model, a run or its folder to begin from: the weights, prior and band statistics of its first network are
    taken over, and its settings where no config is given. Stage I goes on from its prior, or keeps it where its steps
    are 0. jobs: folds trained at once, in processes of their own; None: as many as there are processors.
    command: the words of the command line, for the record; none where training is called from Python.
    """
    if init is not None:
        init = init.model if isinstance(init, Run) else init if isinstance(init, Model) else Model.load(Path(init))
        config = config or settings_of(init)
    if isinstance(scene, Scene):
        if labels is None:
            raise InputError("a scene without labels cannot be trained on; give read_labels(path, scene.grid)")
        scene = [LabelledScene(scene, labels)]
    elif labels is not None or not scene:
        raise InputError("several scenes are given as a list of LabelledScene, at least one, each with its own labels")
    started, folder = time.perf_counter(), Path(out)
    with whole_run(folder) as part:
        prepared = _prepare(scene, config or TrainConfig(), init)
        _write_inputs(part, scene, prepared, command)
        fitted = cross_fit(
            prepared.ground,
            prepared.splits,
            prepared.config,
            pick_device(device),
            jobs=jobs or _processors(),
            progress=progress,
            init=init,
        )
        notes = prepared.notes
        if init is not None:
            measured = fitted.results[0].statistics
            notes += tuple(notes_of(init, measured, fitted.results[0].new_classes))
        model = _model(folder.name, scene, prepared, fitted, init, notes)
        model.save(part / "model.safetensors")
        if len(prepared.splits) > 1:
            _write_answers(part, scene, prepared, fitted, model)
        write_whole(part / "history.csv", to_csv(_history(fitted)))
        write_whole(part / "metrics.json", model.record.to_json())
        seconds = sum((Counter(result.seconds) for result in fitted.results), Counter())
        timing = {**seconds, "total": time.perf_counter() - started, "peak_memory_bytes": memory.peak()}
        write_whole(part / "timing.json", as_json(timing))
    return Run(folder, model)


def _processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Prepared:
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


def _prepare(scenes: Sequence[LabelledScene], config: TrainConfig, init: Model | None) -> _Prepared:
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
        sum(_labelled(one.labels, split)[PART_NAMES[TRAIN]] for one, split in zip(coarse, of_fold, strict=True))
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
    return _Prepared(
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
        sum(_labelled(one, split)[PART_NAMES[TEST]] for one, split in zip(labels, of_fold, strict=True))
        for of_fold in splits
    ]
    if not any(tested):
        return {"holding": None, "overlapping": None}
    found = [total_leakage(labels, of_fold, reach=reach) for of_fold in splits]
    return {
        name: sum(n * getattr(each, name) for n, each in zip(tested, found, strict=True) if n) / sum(tested)
        for name in ("holding", "overlapping")
    }


def _write_inputs(folder: Path, scenes: Sequence[LabelledScene], prepared: _Prepared, command: Sequence[str]) -> None:
    """Folds or splits, settings, and which files the run is made from: all that is known before the first step."""
    for k, labelled in enumerate(scenes):
        name = labelled.name if len(scenes) > 1 else ""
        of_folds = [of_fold[k] for of_fold in prepared.splits]
        tags = {"BLOCK": str(of_folds[0].block), "REACH": str(prepared.config.guard)}
        if any(labelled.scene.phase):
            tags["PHASE"] = " ".join(map(str, labelled.scene.phase))
        if len(of_folds) == 1:
            tags["PARTS"] = json.dumps(PART_NAMES)
            file, values = split_name(name), of_folds[0].part
        else:
            file, values = folds_name(name), folds_raster(of_folds)
        write_raster(folder / file, values, labelled.scene.grid, nodata=0, tags=tags)
    write_whole(folder / "config.toml", prepared.config.to_toml().encode())
    provenance.write(folder, _inputs(scenes), scenes[0].labels.column, scenes[0].labels.layer, command)


def folds_raster(splits: Sequence[Split]) -> NDArray[np.uint8]:
    """(H, W): the fold that tests a pixel, from 1; 0 where none does."""
    fold = np.zeros(splits[0].part.shape, np.uint8)
    for number, split in enumerate(splits, start=1):
        fold[split.part == TEST] = number
    return fold


def _write_answers(
    folder: Path, scenes: Sequence[LabelledScene], prepared: _Prepared, fitted: CrossFit, model: Model
) -> None:
    """The map of labelled ground in which every pixel is answered by members that did not train near it, and its
    probabilities, as `predict` writes both."""
    assert fitted.judgement is not None
    values = np.asarray(model.classes.values, np.uint8)
    tags = {"ADCDNET_MODEL": model.record.name, "ADCDNET_FOLDS": str(len(prepared.splits))}
    for labelled, answered in zip(scenes, fitted.judgement.answered, strict=True):
        name, grid = labelled.name if len(scenes) > 1 else "", labelled.scene.grid_of(model.grid)
        row, col, p = (np.concatenate(parts, axis=-1) for parts in zip(*answered, strict=True))
        soft: dict[str, Any] = {"count": len(values), "dtype": "float32", "descriptions": model.classes.names}
        with (
            RasterWriter(folder / held_out_name(name), grid, classes=model.classes, tags=tags) as classes,
            RasterWriter(
                folder / held_out_name(name, soft=True), grid, nodata=float("nan"), tags=tags, **soft
            ) as probabilities,
        ):
            for window in tiles(grid.height, grid.width, _WRITTEN):
                here = (row // _WRITTEN == window.row // _WRITTEN) & (col // _WRITTEN == window.col // _WRITTEN)
                at = row[here] - window.row, col[here] - window.col
                best = np.zeros((window.height, window.width), np.uint8)
                best[at] = values[p[:, here].argmax(0)]
                likely = np.full((len(values), *best.shape), np.nan, np.float32)
                likely[:, *at] = p[:, here]
                classes.write(best, window)
                probabilities.write(likely, window)


def _history(fitted: CrossFit) -> list[dict[str, float | str]]:
    """Of all folds, which a column tells apart where there are several."""
    if len(fitted.results) == 1:
        return [dict(row) for row in fitted.results[0].history]
    return [{"fold": k, **row} for k, result in enumerate(fitted.results, start=1) for row in result.history]


def _model(
    name: str,
    scenes: Sequence[LabelledScene],
    prepared: _Prepared,
    fitted: CrossFit,
    init: Model | None,
    notes: Sequence[str],
) -> Model:
    config, single = prepared.config, len(prepared.splits) == 1
    shares = fitted.results[0].label_shares if single else prepared.label_shares
    return Model(
        fitted.members,
        prepared.ground.layout,
        prepared.statistics if init is None else init.statistics,
        prepared.classes,
        shares,
        _record(name, scenes, prepared, fitted, notes),
        fitted.temperature,
        config.answers,
        prepared.ground.phase,
    )


def _record(
    name: str, scenes: Sequence[LabelledScene], prepared: _Prepared, fitted: CrossFit, notes: Sequence[str]
) -> RunRecord:
    first, config, folds = scenes[0].scene, prepared.config, prepared.splits
    counts = [_counts(labelled.labels, [of_fold[k] for of_fold in folds]) for k, labelled in enumerate(scenes)]
    own = [note for labelled in scenes for note in labelled.notes]
    trained = next(iter(fitted.results[0].trained.values()), None)
    radii = [t.effective_radius for result in fitted.results for t in result.trained.values()]
    radius = max((r for r in radii if r is not None), default=None)
    if radius is not None and radius > config.guard:
        own.append(f"the network looks {radius} MS pixels far, more than the guard band of {config.guard}")
    judged = fitted.judgement
    seen: dict[str, Any] | None = None
    if judged is not None:
        intervals = judged.intervals and judged.intervals.to_dict()
        seen = {**scores(judged.confusion).to_dict(), "confusion": judged.confusion.tolist(), "intervals": intervals}
    single = len(folds) == 1
    interrupted = None if trained is None else trained.stage2.interrupted_at
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
        labelled_pixels={part: sum(count[part] for count in counts) for part in counts[0]},
        block=folds[0][0].block,
        guard=prepared.guard,
        leakage=prepared.leakage,
        interrupted=interrupted is not None,
        notes=(*own, *(note for of_fold in folds for split in of_fold for note in split.notes), *notes),
        sampling="" if trained is None else "dense" if trained.schedule.dense else "patch",
        labels_per_tile=None if trained is None else trained.schedule.labels_per_tile,
        steps=None if trained is None else trained.schedule.stage2.steps,
        effective_rank=None if trained is None else trained.effective_rank,
        effective_radius=radius,
        validation=seen if single else None,
        cross_validation=None if single else seen,
        calibration=None
        if judged is None
        else {"temperature": fitted.temperature, "error_after": judged.calibration_error},
        self_trained=None if trained is None else trained.stage2.self_trained,
        interrupted_at_step=interrupted,
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
        return _labelled(labels, splits[0])
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


def _inputs(scenes: Sequence[LabelledScene]) -> dict[str, provenance.Input]:
    """The files of all scenes by what they are, those of several behind the name of their scene."""
    inputs: dict[str, provenance.Input] = {}
    for labelled in scenes:
        files = {**labelled.scene.files, "labels": labelled.labels.path}
        before = "" if len(scenes) == 1 else f"{labelled.name}: "
        for what, path in files.items():
            if path is not None:
                rule = labelled.scene.mask_rule if what == "mask" else PLAIN
                inputs[before + what] = provenance.Input.of(path, rule)
    return inputs


def _indices(labels: Labels, split: Split, part: int) -> NDArray[np.int16]:
    """Class indices of the labelled pixels in one part of a split, which may be coarser."""
    step = labels.index.shape[0] // split.part.shape[0]
    index: NDArray[np.int16] = labels.index[(labels.index >= 0) & refine(split.part == part, step)]
    return index


def _labelled(labels: Labels, split: Split) -> dict[str, int]:
    """Labelled pixels in every part of a split, which may be coarser."""
    step = labels.index.shape[0] // split.part.shape[0]
    counts = np.bincount(split.part.repeat(step, 0).repeat(step, 1)[labels.index >= 0], minlength=len(PART_NAMES))
    return dict(zip(PART_NAMES, counts.tolist(), strict=True))
