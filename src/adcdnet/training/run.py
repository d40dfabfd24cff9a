"""A training from scenes to a run folder: split, area, stage I, context branch, stage II, and all that is written.

Randomness: one seed gives the split, the draws of each stage and the first weights; two runs with it give the same
files. The moving average of the weights at the end is the model. The validation part shows on the way what it is worth
and gives the temperature; it chooses nothing, for it is too small for that: where few labels validate, the look that
did best there was a tenth of kappa worse than the end (docs/notes/trials.md). Nothing of the test part is read after
the split has been written.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.files import as_json, write_whole
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.geo.masks import PLAIN
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene import Scene
from adcdnet.mapping import memory
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.model import Model, Run, split_name
from adcdnet.mapping.progress import Progress, silent
from adcdnet.mapping.record import RunRecord
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.nn.networks import Network
from adcdnet.split.parts import PART_NAMES, TRAIN, Split
from adcdnet.training import provenance
from adcdnet.training.area import TrainingArea, training_statistics
from adcdnet.training.context import train_context
from adcdnet.training.folder import whole_run
from adcdnet.training.loop import History, build_network, repeatable
from adcdnet.training.radius import effective_radius
from adcdnet.training.scenes import LabelledScene, check_alike, divide, on_ms_grid, total_leakage, training_area
from adcdnet.training.schedule import Schedule, schedule_of, suited_to
from adcdnet.training.stage1 import train_prior
from adcdnet.training.stage2 import Stage2, Supervision, train_stage2
from adcdnet.training.transfer import begin_from, notes_of, settings_of


def train(
    scene: Scene | Sequence[LabelledScene],
    labels: Labels | None = None,
    *,
    out: Path | str,
    config: TrainConfig | None = None,
    init: Model | Run | Path | str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    command: Sequence[str] = (),
) -> Run:
    """Train both stages and leave a run folder: model, settings, history, split, metrics, timing.

    scene: one, with its labels; or several `LabelledScene`s, which must agree in bands, ratio, phase and classes,
    and may differ in size and coordinate system. Labels must be on their scene's grid (`read_labels`): `scene.grid`, or
    `scene.fine_grid` where the settings of the network say grid "fine". Raises InputError for
    settings or labels that cannot be used, for a collapse in stage I and for a folder that cannot be written.
    KeyboardInterrupt in stage II ends it early: the run is then complete with the weights so far, and says so.
    init: a model, a run or its folder to begin from: its weights, prior and band statistics are taken over, and its
    network settings where no config is given. Stage I goes on from its prior, or keeps it where its steps are 0.
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
    started, folder, history = time.perf_counter(), Path(out), History(progress)
    with whole_run(folder) as part:
        ground = _prepare(scene, config or TrainConfig(), init)
        _write_inputs(part, scene, ground, command)
        with torch.random.fork_rng():
            torch.manual_seed(ground.config.seed)  # of the first weights and of dropout
            network = build_network(ground.config, ground.layout, pick_device(device))
            notes = ground.notes
            if init is not None:
                notes += tuple(
                    notes_of(init, ground.measured, begin_from(network, init, ground.classes, phase=ground.area.phase))
                )
            trained = train_network(network, ground.area, ground.config, history)
        record = _record(folder.name, scene, ground, trained, notes)
        model = trained.model(ground.area, ground.classes, ground.config, record)
        model.save(part / "model.safetensors")
        write_whole(part / "history.csv", history.to_csv())
        write_whole(part / "metrics.json", record.to_json())
        timing = {**trained.seconds, "total": time.perf_counter() - started, "peak_memory_bytes": memory.peak()}
        write_whole(part / "timing.json", as_json(timing))
    return Run(folder, model)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What all stages left. network: on the CPU, in eval mode. effective_rank: of stage I, None without it.

    seconds: by stage.
    """

    network: Network
    schedule: Schedule
    effective_rank: float | None
    effective_radius: int | None
    stage2: Stage2
    seconds: Mapping[str, float]

    @property
    def temperature(self) -> float:
        """1 where nothing validates."""
        return 1.0 if self.stage2.validation is None else self.stage2.validation.temperature

    def model(
        self, area: TrainingArea, classes: ClassTable, config: TrainConfig, record: RunRecord | None = None
    ) -> Model:
        """The network with all that a map needs."""
        return Model.of_network(
            self.network,
            area.statistics,
            classes,
            self.schedule.label_shares,
            self.schedule.drawn_shares,
            record=record or RunRecord(),
            temperature=self.temperature,
            answers=config.answers,
            phase=area.phase,
        )


def train_network(network: Network, area: TrainingArea, config: TrainConfig, history: History) -> Trained:
    """All stages over one training area, from a network at its start, which changes."""
    schedule, seconds, rank = schedule_of(area, config), {}, None
    rng1, rng2, rng_context, rng_radius = (
        np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(4)
    )
    with repeatable(next(network.parameters()).device):
        started = time.perf_counter()
        if network.prior is not None:
            rank = train_prior(network.prior, area, config, schedule, rng1, history)
            seconds["stage1"] = time.perf_counter() - started
        started = time.perf_counter()
        if network.context_branch is not None:
            train_context(network, network.context_branch, area, config, schedule, rng_context, history)
            seconds["context"] = time.perf_counter() - started
        started = time.perf_counter()
        supervision = Supervision(area=area, config=config, schedule=schedule, rng=rng2, history=history)
        stage2 = train_stage2(network, supervision)
        seconds["stage2"] = time.perf_counter() - started
    average = stage2.network.cpu().eval()
    return Trained(
        network=average,
        schedule=schedule,
        effective_rank=rank,
        effective_radius=effective_radius(average, area, rng_radius),
        stage2=stage2,
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """The scenes of one training, divided, and what training may see of them.

    config: the settings, without the paper's parts where labels are few. measured: band statistics of the train part;
    those of the area are a model's own where training begins from it. leakage, notes: for the record.
    """

    config: TrainConfig
    classes: ClassTable
    layout: Layout
    splits: Sequence[Split]
    area: TrainingArea
    measured: BandStatistics
    leakage: Mapping[str, float | None]
    notes: tuple[str, ...]


def _prepare(scenes: Sequence[LabelledScene], config: TrainConfig, init: Model | None) -> _Ground:
    """Read, divide and standardise. InputError for scenes that cannot be trained on together, or so."""
    check_alike(scenes, fine=config.network.grid == "fine")
    first, labels = scenes[0].scene, [labelled.labels for labelled in scenes]
    classes = labels[0].classes
    pixels = [labelled.scene.read(labelled.scene.grid.window) for labelled in scenes]
    coarse, usable = on_ms_grid(scenes, pixels, step=config.network.targets_per_pixel(first.ratio))
    # wide enough for patches too, which may take the place of tiles once it is known how many labels train
    guard = config.guard if init is not None else max(config.guard, config.over_patches().guard)
    splits, notes = divide(coarse, usable, reach=guard, config=config.split, seed=config.seed)
    if isinstance(config.network, PatchArchitecture) and not config.network.stem and first.ratio != 4:
        raise InputError(
            f"the scene has {first.ratio} PAN pixels per MS pixel, the published network needs 4; use --profile default"
        )
    trained_on = sum(_labelled(one.labels, split)[PART_NAMES[TRAIN]] for one, split in zip(coarse, splits, strict=True))
    if init is None and (suited := suited_to(trained_on, first.ratio, config)) is not config:
        if suited.network.form != config.network.form and first.ratio < config.tiles_from:
            notes += (f"ratio {first.ratio}: over patches, which serve better below {config.tiles_from} (tiles_from)",)
        if suited.network.prior != config.network.prior:
            notes += ("few labels: over patches, without prior, DIA and DTM, which serves better there (plain_if_few)",)
        config = suited
    measured = training_statistics(list(zip(pixels, splits, strict=True)))
    statistics = measured if init is None else init.statistics
    area = training_area(
        pixels, labels, splits, config=config, ratio=first.ratio, phase=first.phase, statistics=statistics
    )
    return _Ground(
        config=config,
        classes=classes,
        layout=Layout(ms_bands=first.ms_bands, pan_bands=first.pan_bands, ratio=first.ratio, classes=len(classes)),
        splits=splits,
        area=area,
        measured=measured,
        leakage=total_leakage([labelled.labels for labelled in coarse], splits, reach=config.guard).to_dict(),
        notes=notes,
    )


def _write_inputs(folder: Path, scenes: Sequence[LabelledScene], ground: _Ground, command: Sequence[str]) -> None:
    """Splits, settings, and which files the run is made from: all that is known before the first step."""
    for labelled, split in zip(scenes, ground.splits, strict=True):
        tags = {"PARTS": json.dumps(PART_NAMES), "BLOCK": str(split.block), "REACH": str(ground.config.guard)}
        if any(labelled.scene.phase):
            tags["PHASE"] = " ".join(map(str, labelled.scene.phase))
        file = folder / split_name(labelled.name if len(scenes) > 1 else "")
        write_raster(file, split.part, labelled.scene.grid, nodata=0, tags=tags)
    write_whole(folder / "config.toml", ground.config.to_toml().encode())
    provenance.write(folder, _inputs(scenes), scenes[0].labels.column, scenes[0].labels.layer, command)


def _record(
    name: str, scenes: Sequence[LabelledScene], ground: _Ground, trained: Trained, notes: Sequence[str]
) -> RunRecord:
    first, stage2 = scenes[0].scene, trained.stage2
    counts = [_labelled(labelled.labels, split) for labelled, split in zip(scenes, ground.splits, strict=True)]
    own = [note for labelled in scenes for note in labelled.notes]
    if (radius := trained.effective_radius) is not None and radius > ground.config.guard:
        own.append(f"the network looks {radius} MS pixels far, more than the guard band of {ground.config.guard}")
    validation = stage2.validation
    return RunRecord(
        name=name,
        scene=", ".join(labelled.name or labelled.scene.name for labelled in scenes),
        version=version("adcdnet"),
        torch=torch.__version__,
        python=platform.python_version(),
        settings=ground.config.model_dump(),
        ms_bands=tuple(first.ms_descriptions),
        pan_bands=tuple(first.pan_descriptions),
        chosen_bands=first.chosen,
        pan_shift=first.pan_shift,
        labelled_pixels={part: sum(count[part] for count in counts) for part in PART_NAMES},
        block=ground.splits[0].block,
        leakage=ground.leakage,
        interrupted=stage2.interrupted_at is not None,
        notes=(*own, *(note for split in ground.splits for note in split.notes), *notes),
        sampling="dense" if trained.schedule.dense else "patch",
        labels_per_tile=trained.schedule.labels_per_tile,
        steps=trained.schedule.stage2.steps,
        effective_rank=trained.effective_rank,
        effective_radius=trained.effective_radius,
        validation=None if validation is None else validation.scores.to_dict(),
        calibration=None if validation is None else validation.calibration(),
        self_trained=stage2.self_trained,
        interrupted_at_step=stage2.interrupted_at,
        scenes={} if len(scenes) == 1 else _of_each(scenes, ground.splits, counts),
    )


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


def _labelled(labels: Labels, split: Split) -> dict[str, int]:
    """Labelled pixels in every part of a split, which may be coarser."""
    step = labels.index.shape[0] // split.part.shape[0]
    counts = np.bincount(split.part.repeat(step, 0).repeat(step, 1)[labels.index >= 0], minlength=len(PART_NAMES))
    return dict(zip(PART_NAMES, counts.tolist(), strict=True))
