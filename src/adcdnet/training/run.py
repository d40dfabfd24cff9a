"""A training from scenes to a run folder: folds, members, their weights, and all that is written.

One seed gives the folds, the draws of each stage and the first weights; two runs with it give the same files.
Each labelled pixel is judged once, by members that trained neither on it nor near it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.files import MODEL_FILE, MODEL_TAG, as_json, write_whole
from adcdnet.geo.grid import tiles
from adcdnet.geo.labels import Labels
from adcdnet.geo.masks import PLAIN
from adcdnet.geo.raster_writer import RasterWriter, write_raster
from adcdnet.geo.scene import Scene, named
from adcdnet.mapping import memory
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.model import Model, Run, folds_name, held_out_name, split_name
from adcdnet.mapping.progress import Progress, silent
from adcdnet.split.parts import PART_NAMES
from adcdnet.training import provenance
from adcdnet.training.applicability import applicability_of
from adcdnet.training.checkpoints import Checkpoints, held_beside
from adcdnet.training.committee.cross_fit import CrossFit, cross_fit, members_of
from adcdnet.training.folder import whole_run
from adcdnet.training.needs import needs_of, processors, require_disk
from adcdnet.training.prepare import Prepared, folds_raster, prepare
from adcdnet.training.record import record_of
from adcdnet.training.scenes import LabelledScene
from adcdnet.training.stages.loop import to_csv
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
    resume: bool = False,
    progress: Progress = silent,
    command: Sequence[str] = (),
) -> Run:
    """Train all members on all folds and leave a run folder: model, settings, history, folds or split, metrics, timing.

    scene: one, with its labels; or several `LabelledScene`s, which must agree in bands, ratio, phase and classes,
    and may differ in size and coordinate system. Labels must be on their scene's grid (`read_labels`): `scene.grid`, or
    `scene.fine_grid` where the settings of the network say grid "fine". Raises InputError for
    settings or labels that cannot be used, for a collapse in stage I and for a folder that cannot be written or has too
    little room.
    A training that is stopped or killed leaves an older run as it was, and what it has finished in a hidden folder
    beside the run. resume: go on from that; the model is then the same as of one undisturbed training. InputError where
    it is of another training, or another process works on this run.
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
    config = config or TrainConfig()
    require_disk(folder, needs_of(scene, config, jobs))
    with held_beside(folder) as kept:
        with whole_run(folder) as part:
            inputs = _inputs(scene)
            prepared = prepare(scene, config, init)
            where = pick_device(device)
            checkpoints = Checkpoints(kept, prepared.fingerprint(init, where))
            checkpoints.begin(resume=resume)
            fitted = cross_fit(
                prepared.ground,
                prepared.splits,
                prepared.config,
                where,
                jobs=jobs or processors(),
                progress=progress,
                init=init,
                checkpoints=checkpoints,
            )
            notes = prepared.notes
            if len(fitted.weights) < len(members_of(prepared.config)):
                notes += (f"no ground is held out to weigh members by: {next(iter(fitted.weights))} answers alone",)
            if init is not None:
                measured = fitted.results[0].statistics
                notes += tuple(notes_of(init, measured, fitted.results[0].new_classes))
            model = _model(folder.name, scene, prepared, fitted, init, notes)
            model.save(part / MODEL_FILE)
            digest = model.digest
            _write_splits(part, scene, prepared, digest)
            if len(prepared.splits) > 1:
                _write_answers(part, scene, prepared, fitted, model, digest)
            write_whole(part / "config.toml", prepared.config.to_toml().encode())
            provenance.write(part, inputs, command)
            write_whole(part / "history.csv", to_csv(_history(fitted)))
            write_whole(part / "metrics.json", model.record.to_json())
            seconds = sum((Counter(result.seconds) for result in fitted.results), Counter())
            timing = {**seconds, "total": time.perf_counter() - started, "peak_memory_bytes": memory.peak()}
            write_whole(part / "timing.json", as_json(timing))
        checkpoints.clear()
    return Run(folder, model)


def _write_splits(folder: Path, scenes: Sequence[LabelledScene], prepared: Prepared, digest: str) -> None:
    """Folds, or the parts of a single split, of each scene. digest: of the model that they belong to."""
    for k, labelled in enumerate(scenes):
        name = labelled.name if len(scenes) > 1 else ""
        of_folds = [of_fold[k] for of_fold in prepared.splits]
        tags = {"BLOCK": str(of_folds[0].block), "REACH": str(prepared.config.guard), MODEL_TAG: digest}
        if any(labelled.scene.phase):
            tags["PHASE"] = " ".join(map(str, labelled.scene.phase))
        if len(of_folds) == 1:
            tags["PARTS"] = json.dumps(PART_NAMES)
            file, values = split_name(name), of_folds[0].part
        else:
            file, values = folds_name(name), folds_raster(of_folds)
        write_raster(folder / file, values, labelled.scene.grid, nodata=0, tags=tags)


def _write_answers(
    folder: Path, scenes: Sequence[LabelledScene], prepared: Prepared, fitted: CrossFit, model: Model, digest: str
) -> None:
    """The map of labelled ground in which every pixel is answered by members that did not train near it, and its
    probabilities, as `predict` writes both."""
    assert fitted.judgement is not None
    values = np.asarray(model.classes.values, np.uint8)
    folds = str(len(prepared.splits))
    tags = {"ADCDNET_MODEL": model.record.name, "ADCDNET_FOLDS": folds, MODEL_TAG: digest}
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
    prepared: Prepared,
    fitted: CrossFit,
    init: Model | None,
    notes: Sequence[str],
) -> Model:
    single = len(prepared.splits) == 1
    statistics = prepared.statistics if init is None else init.statistics
    area, judged = None, None
    if fitted.judgement is not None and not single:
        block = prepared.splits[0][0].block * prepared.config.network.targets_per_pixel(prepared.ground.layout.ratio)
        area, judged = applicability_of(
            prepared.ground, fitted.judgement, statistics, prepared.config.seed, block=block
        )
    shares = fitted.results[0].label_shares if single else prepared.label_shares
    return Model(
        fitted.members,
        prepared.ground.layout,
        statistics,
        prepared.classes,
        shares,
        record_of(name, scenes, prepared, fitted, notes, judged),
        fitted.temperature,
        fitted.answers,
        prepared.ground.phase,
        area,
    )


def _inputs(scenes: Sequence[LabelledScene]) -> dict[str, provenance.Input]:
    """The files of all scenes by what they are, those of several behind the name of their scene."""
    inputs: dict[str, provenance.Input] = {}
    for labelled in scenes:
        labels = labelled.labels
        before = "" if len(scenes) == 1 else f"{labelled.name}: "
        for what, path in labelled.scene.files.items():
            rule = labelled.scene.mask_rule if what == "mask" else PLAIN
            inputs[before + what] = provenance.Input.of(path, rule)
        for what, path in named("labels", labels.paths).items():
            inputs[before + what] = provenance.Input.of(
                path, column=labels.column, layer=labels.layer, min_share=labels.min_share
            )
    return inputs
