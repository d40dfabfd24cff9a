"""Both stages: the prior network without labels, then ADCDNet with them, its context branch first and by itself.

Randomness: one seed gives the split, the draws of each stage and the first weights; two runs with it give the same
files. The moving average of the weights at the end is the model. The validation part shows on the way what it is worth
and gives the temperature; it chooses nothing, for it is too small for that: where few labels validate, the look that
did best there was a tenth of kappa worse than the end (docs/trials.md). Nothing of the test part is read after the
split has been written.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.config import StageConfig, TrainConfig
from adcdnet.errors import InputError
from adcdnet.files import write_whole
from adcdnet.geo.grid import tiles
from adcdnet.geo.labels import Labels
from adcdnet.geo.raster_writer import write_raster
from adcdnet.geo.scene import Scene
from adcdnet.mapping import memory
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.local_priors import LocalShares
from adcdnet.mapping.model import Model, Run
from adcdnet.mapping.posterior import fit_temperature, posterior
from adcdnet.mapping.smoothing import smooth
from adcdnet.metrics import confusion_matrix, expected_calibration_error, scores
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
from adcdnet.nn.context import ContextBranch
from adcdnet.nn.mamba import StepProjection
from adcdnet.nn.parts import PUBLISHED, Parts
from adcdnet.nn.prior import PriorNet
from adcdnet.nn.sps import MetricNet, effective_rank, spread_loss, sps_loss
from adcdnet.nn.tile_sharing import Targets
from adcdnet.split.parts import PART_NAMES, Split
from adcdnet.training import provenance as inputs
from adcdnet.training.area import Drawn, Guessed, TrainingArea, training_area, training_statistics
from adcdnet.training.scenes import LabelledScene, check_alike, divide, on_ms_grid, total_leakage
from adcdnet.training.transfer import begin_from, notes_of, settings_of

DENSE_FROM = 15.0  # labelled targets a tile must hold to be cheaper than patches (scripts/bench_training.py)
STEPS_OF_PATCHES = 2  # of stage II, in whose place one of tiles is
CONTEXT_STEPS, CONTEXT_BATCH = 3, 4  # of the context branch: times those of stage II by patches
MOST_SINGLE = 2**18  # labelled pixels that the context branch draws from, or others that a second round does
_WINDOW = 64  # MS pixels per side that are classified at once
COLLAPSED = 1.5  # effective rank below which the features of stage I are useless

Progress = Callable[[str, int, int, dict[str, float]], None]  # stage, step, of how many, what is known


def train(
    scene: Scene | Sequence[LabelledScene],
    labels: Labels | None = None,
    *,
    out: Path | str,
    config: TrainConfig | None = None,
    init: Model | Run | Path | str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Train both stages and leave a run folder: model, settings, history, split, metrics, timing.

    scene: one, with its labels; or several `LabelledScene`s, which must agree in bands, ratio and classes, and may
    differ in size and coordinate system. Labels must be on their scene's grid (`read_labels`): `scene.grid`, or
    `scene.fine_grid` where the settings of the network say grid "fine". Raises InputError for
    settings or labels that cannot be used, for a collapse in stage I and for a folder that cannot be written.
    KeyboardInterrupt in stage II ends it early: the run is then complete with the weights so far, and says so.
    init: a model, a run or its folder to begin from: its weights, prior and band statistics are taken over, and its
    network settings where no config is given. Stage I goes on from its prior, or keeps it where its steps are 0.
    """
    if init is not None:
        init = init.model if isinstance(init, Run) else init if isinstance(init, Model) else Model.load(Path(init))
        config = config or settings_of(init)
    config = config or TrainConfig()
    if isinstance(scene, Scene):
        if labels is None:
            raise InputError("a scene without labels cannot be trained on; give read_labels(path, scene.grid)")
        scene = [LabelledScene(scene, labels)]
    elif labels is not None or not scene:
        raise InputError("several scenes are given as a list of LabelledScene, at least one, each with its own labels")
    folder = Path(out)
    with _whole_run(folder) as part:
        model = _train(scene, part, folder.name, config, init, pick_device(device), progress)
    return Run(folder, model)


def _train(
    scenes: Sequence[LabelledScene],
    folder: Path,
    name: str,
    config: TrainConfig,
    init: Model | None,
    device: torch.device,
    progress: Progress | None,
) -> Model:
    """The files of a run, in `folder`."""
    started = time.perf_counter()
    check_alike(scenes, fine=config.network.grid == "fine")
    first, labels, reach = scenes[0].scene, [one.labels for one in scenes], config.reach
    classes = labels[0].classes
    pixels = [one.scene.read(one.scene.grid.window) for one in scenes]
    coarse, usable = on_ms_grid(scenes, pixels, step=config.network.step(first.ratio))
    splits, notes = divide(coarse, usable, reach=reach, config=config.split, seed=config.seed)
    layout = Layout(ms_bands=first.ms_bands, pan_bands=first.pan_bands, ratio=first.ratio, classes=len(classes))
    if not config.network.stem and first.ratio != 4:
        raise InputError(
            f"the scene has {first.ratio} PAN pixels per MS pixel, the published network needs 4; use --profile default"
        )
    measured = training_statistics(list(zip(pixels, splits, strict=True)))
    statistics = measured if init is None else init.statistics
    area = training_area(pixels, labels, splits, config=config, ratio=first.ratio, statistics=statistics)
    del pixels
    if init is None and (suited := suited_to(area, config)) is not config:
        config = suited
        notes += ("few labels: trained without prior, DIA and DTM, which cost accuracy there (plain_if_few)",)
    for one, split in zip(scenes, splits, strict=True):
        tags = {"PARTS": json.dumps(PART_NAMES), "BLOCK": str(split.block), "REACH": str(reach)}
        file = "split.tif" if len(scenes) == 1 else f"split-{one.name}.tif"
        write_raster(folder / file, split.part, one.scene.grid, nodata=0, tags=tags)
    write_whole(folder / "config.toml", config.to_toml().encode())
    inputs.write(folder, _inputs(scenes), labels[0].column)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # of the first weights and of dropout
        trainer = Trainer(area, layout, config, device, progress)
        if init is not None:
            notes += tuple(notes_of(init, measured, begin_from(trainer.network, init, classes)))
        network = trainer.run()
    counts = {one.name: _labelled(one.labels, split) for one, split in zip(scenes, splits, strict=True)}
    record = {
        "name": name,
        "scene": ", ".join(one.name or one.scene.name for one in scenes),
        "version": version("adcdnet"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "settings": config.model_dump(),
        "ms_bands": list(first.ms_descriptions),
        "pan_bands": list(first.pan_descriptions),
        "chosen_bands": first.chosen,
        "pan_shift": list(first.pan_shift),
        "labelled_pixels": {part: sum(known[part] for known in counts.values()) for part in PART_NAMES},
        "block": splits[0].block,
        "leakage": total_leakage([one.labels for one in coarse], splits, reach=reach).to_dict(),
        "interrupted": trainer.interrupted,
        "notes": [*(n for one in scenes for n in one.notes), *(n for split in splits for n in split.notes), *notes],
        **trainer.found,
    }
    if len(scenes) > 1:
        record["scenes"] = {
            one.name: {
                "labelled_pixels": counts[one.name],
                "block": split.block,
                "part": one.part,
                "pan_shift": list(one.scene.pan_shift),
            }
            for one, split in zip(scenes, splits, strict=True)
        }
    shares = trainer.label_shares, trainer.drawn_shares
    model = Model(network, area.statistics, classes, *shares, record, trainer.temperature, config.answers)
    model.save(folder / "model.safetensors")
    write_whole(folder / "history.csv", trainer.history_csv())
    write_whole(folder / "metrics.json", _json({k: v for k, v in record.items() if k != "settings"}))
    timing = {**trainer.seconds, "total": time.perf_counter() - started, "peak_memory_bytes": memory.peak()}
    write_whole(folder / "timing.json", _json(timing))
    return model


def _inputs(scenes: Sequence[LabelledScene]) -> dict[str, inputs.Input]:
    """The files of all scenes by what they are, those of several behind the name of their scene."""
    known: dict[str, inputs.Input] = {}
    for one in scenes:
        files = {**one.scene.files, "labels": one.labels.path}
        before = "" if len(scenes) == 1 else f"{one.name}: "
        known |= {before + what: inputs.Input.of(path) for what, path in files.items() if path is not None}
    return known


def _labelled(labels: Labels, split: Split) -> dict[str, int]:
    """Labelled pixels in every part of a split, which may be coarser."""
    step = labels.index.shape[0] // split.part.shape[0]
    counts = np.bincount(split.part.repeat(step, 0).repeat(step, 1)[labels.index >= 0], minlength=len(PART_NAMES))
    return dict(zip(PART_NAMES, counts.tolist(), strict=True))


def suited_to(area: TrainingArea, config: TrainConfig) -> TrainConfig:
    """The settings themselves; or, where labels are few and all parts of the paper are there, the same without these.

    With few labels those parts cost accuracy (docs/evidence.md). Few are under some 5,000: with as many targets as a
    step of tiles can have, `passes` would end stage II early.
    """
    steps = _within_passes(config, config.stage2, len(area.labelled), math.inf).steps
    few = steps * STEPS_OF_PATCHES < config.stage2.steps
    return config.plain() if few and config.plain_if_few and config.whole else config


class Trainer:
    """The loop of both stages over one training area. `run` returns the trained network in eval mode on the CPU."""

    def __init__(
        self,
        area: TrainingArea,
        layout: Layout,
        config: TrainConfig,
        device: torch.device,
        progress: Progress | None,
        *,
        parts: Parts = PUBLISHED,
    ) -> None:
        self.area, self.config, self.device, self.progress = area, config, device, progress
        self.network = ADCDNet(config.network, layout, parts).to(device)
        if config.initialisation == "xavier":
            _xavier(self.network)
        labels = area.labels_per_tile(config.stage2.tile)
        by_patches, by_tiles = (
            _within_passes(config, config.stage2, len(area.labelled), each) for each in (None, labels)
        )
        enough = by_tiles.steps * STEPS_OF_PATCHES >= config.stage2.steps  # labels for all steps of tiles
        self.dense = config.network.sharable and (
            config.sampling == "dense" or (config.sampling == "auto" and labels >= DENSE_FROM and enough)
        )
        self.found: dict[str, Any] = {"sampling": "dense" if self.dense else "patch", "labels_per_tile": labels}
        self.label_shares = _shares(area.class_counts)
        self.drawn_shares = _shares(area.drawn_counts(config.class_balance))
        stage_seeds = np.random.SeedSequence(config.seed).spawn(3)
        self.rngs = [np.random.default_rng(s) for s in stage_seeds]
        self.stage2 = by_tiles if self.dense else by_patches
        self.found["steps"] = self.stage2.steps
        even = 2 * area.class_counts.min() >= area.class_counts.mean()
        # whether stage II has a second round
        few = not self.dense and self.stage2.steps < config.stage2.steps
        self.again = bool(config.self_training > 0 and few and even)
        weights = area.tile_weights(config.class_balance, config.stage2.tile)
        self.class_weight = torch.tensor(weights, dtype=torch.float32, device=device)
        self.history: list[dict[str, float | str]] = []
        self.seconds: dict[str, float] = {}
        self.interrupted = False
        self.temperature = 1.0

    def run(self) -> ADCDNet:
        with _repeatable(self.device):
            if self.network.prior is not None:
                self._stage1(self.network.prior)
            if self.network.context_branch is not None:
                self._train_context(self.network.context_branch)
            return self._stage2().cpu().eval()

    # Stage I ---------------------------------------------------------------------------------------------------------

    def _stage1(self, prior: PriorNet) -> None:
        started = time.perf_counter()
        stage = self.config.stage1
        metric = MetricNet(self.config.network.widths[-1]).to(self.device)
        if self.config.initialisation == "xavier":
            _xavier(metric)
        prior.requires_grad_(True).train()
        prior.mean.zero_()  # stage I learns from F itself
        prior.deviation.fill_(1)
        parameters = [*prior.parameters(), *metric.parameters()]
        optimizer, schedule = _optimizer(parameters, stage)
        rng = self.rngs[0]
        for step in range(1, stage.steps + 1):
            f_ms, f_pan = self._prior_features(prior, rng)
            loss = distance = sps_loss(metric, f_ms, f_pan)
            if self.config.spread:
                spread = sum((spread_loss(v) for v in (_centre(f_ms), _centre(f_pan))), torch.zeros_like(loss))
                loss = distance + self.config.spread * spread
            _step(loss, optimizer, schedule)
            if step % max(1, stage.steps // self.config.validations) == 0 or step == stage.steps:
                _check_finite(loss.item(), "stage I", step)
                rank = min(effective_rank(_centre(f).detach().float().cpu()) for f in (f_ms, f_pan))
                known = {"loss": loss.item(), "sps": distance.item(), "effective_rank": rank}
                self._note("stage1", step, stage.steps, **known, learning_rate=float(schedule.get_last_lr()[0]))
                if rank < COLLAPSED:
                    raise InputError(
                        f"stage I collapsed: after {step} steps its features have effective rank {rank:.2f} of "
                        f"{self.config.network.widths[-1]}; raise `spread`, lower its learning rate, or use --no-stage1"
                    )
                self.found["effective_rank"] = rank
        prior.requires_grad_(False).eval()
        if self.config.network.prior_mask == "standardised":
            self._measure_prior(prior, rng)
        self.seconds["stage1"] = time.perf_counter() - started

    def _prior_features(self, prior: PriorNet, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        stage, augment = self.config.stage1, self.config.augment
        if not self.dense:
            balance = 0.0 if self.config.stage1_labelled else None
            drawn = self.area.draw_patches(rng, stage.batch, balance=balance, augment=augment)
            features: tuple[Tensor, Tensor] = prior(*self._tensors(drawn)[:2])
            return features
        drawn = self.area.draw_tiles(rng, stage.tiles, stage.tile, labelled=False, augment=augment)
        ms, pan, _ = self._tensors(drawn)
        targets = self._some(drawn.label, stage.targets, rng)
        maps = prior.share(ms, pan)
        return prior.features(maps, targets)

    @torch.no_grad()
    def _measure_prior(self, prior: PriorNet, rng: np.random.Generator) -> None:
        """Mean and deviation of the features over training samples, so that the masks span (0, 1)."""
        batches = [self._prior_features(prior, rng) for _ in range(8)]
        for sensor in (0, 1):
            values = torch.cat([b[sensor] for b in batches]).float()
            prior.mean[sensor] = values.mean((0, 2, 3))
            prior.deviation[sensor] = values.std((0, 2, 3)).clamp_min(1e-3)

    # Context branch --------------------------------------------------------------------------------------------------

    def _train_context(self, branch: ContextBranch) -> None:
        """On single labelled pixels. Trained with the rest, by its loss or by one of its own, it was worth nothing."""
        started = time.perf_counter()
        stage = self.config.stage2
        changes = {"steps": CONTEXT_STEPS * stage.steps, "batch": CONTEXT_BATCH * stage.batch}
        stage = _within_passes(self.config, stage.model_copy(update=changes), len(self.area.labelled), None)
        rng = self.rngs[2]
        statistics, label = self._labelled_statistics(rng)
        weight = torch.tensor(self.drawn_shares) / torch.tensor(self.label_shares)
        weight = weight.to(self.device, torch.float32)
        # its answers are multiplied with those of the main branch, which expect the classes as often as drawn already:
        # what it expects of them is put on while it learns and taken off again
        expected = torch.tensor(self.drawn_shares, device=self.device).log()
        branch.classifier.bias.add_(expected)
        branch.requires_grad_(True).train()
        optimizer, schedule = _optimizer(list(branch.parameters()), stage)
        for step in range(1, stage.steps + 1):
            some = torch.from_numpy(rng.integers(len(label), size=stage.batch)).to(self.device)
            loss = F.cross_entropy(branch(statistics[some]), label[some], weight)
            _step(loss, optimizer, schedule)
            if step % max(1, stage.steps // self.config.validations) == 0 or step == stage.steps:
                _check_finite(loss.item(), "the context branch", step)
                self._note("context", step, stage.steps, loss=loss.item())
        branch.requires_grad_(False).eval()
        branch.classifier.bias.sub_(expected)
        self.seconds["context"] = time.perf_counter() - started

    @torch.no_grad()
    def _labelled_statistics(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Context statistics (n, f) and class indices (n,) of the labelled targets, or of `MOST_SINGLE` of them."""
        step, label = self.area.step, np.full_like(self.area.label, -1)
        chosen = tuple(self.area.labelled[rng.permutation(len(self.area.labelled))[:MOST_SINGLE]].T)
        label[chosen] = self.area.label[chosen]
        height, width = self.area.split.part.shape
        statistics, truth = [], []
        for window in tiles(height, width, _WINDOW):
            known = label[window.scale(step).slices]
            for phase in np.ndindex(step, step):
                row, col = np.nonzero(known[phase[0] :: step, phase[1] :: step] >= 0)
                if len(row):
                    ms, pan = (torch.from_numpy(x.copy())[None].to(self.device) for x in self.area.tile(window, phase))
                    statistics.append(self.network.context_statistics(ms, pan)[0][:, row, col].T)
                    truth.append(torch.from_numpy(known[row * step + phase[0], col * step + phase[1]]))
        return torch.cat(statistics), torch.cat(truth).to(self.device)

    # Stage II --------------------------------------------------------------------------------------------------------

    def _stage2(self) -> ADCDNet:
        """One round, or two where labels are few and spread evenly over the classes: the second also learns what the
        first says of ground without labels. Of labels as frequent as the classes are it made worse networks.

        Self-training with soft pseudo-labels, as a student that sees noise of a teacher that does not (Xie et al. 2020,
        arXiv:1911.04252, section 2; here the student is no larger than the teacher, and there is one generation).
        """
        started = time.perf_counter()
        unlabelled = self._unlabelled() if self.again else np.zeros(0, bool)
        again = bool(unlabelled.any())
        start = copy.deepcopy(self.network) if again else self.network
        average = self._round(lambda: None, before=0, last=not again)
        if again and not self.interrupted:
            first, found, temperature = average, dict(self.found), self.temperature
            self.network = start
            average = self._round(lambda: self._guess(first, unlabelled), before=self.stage2.steps, last=True)
            stopped = self.found.get("interrupted_at_step")
            if stopped is not None:  # a second round that has hardly begun is worth less than the first
                average, self.temperature = first, temperature
                self.found = found | {"interrupted_at_step": stopped}
        self.seconds["stage2"] = time.perf_counter() - started
        return average

    def _guess(self, teacher: ADCDNet, unlabelled: NDArray[np.bool_]) -> Guessed:
        """What a network says of the targets without a label."""
        places, logits = zip(*self._answers(teacher, unlabelled), strict=True)
        probability = F.softmax(torch.from_numpy(np.concatenate(logits, axis=1).T), dim=1).numpy()
        self.found["self_trained"] = probability.shape[0]
        where = np.concatenate([np.stack(at, axis=1) for at in places])
        return self.area.guessed(where, probability, self.config.class_balance)

    def _unlabelled(self) -> NDArray[np.bool_]:
        """Targets without a label; of more than `MOST_SINGLE`, those in some windows drawn at random."""
        wanted = self.area.target & (self.area.label < 0)
        if np.count_nonzero(wanted) <= MOST_SINGLE:
            return wanted
        height, width = self.area.split.part.shape
        windows = [window.scale(self.area.step).slices for window in tiles(height, width, _WINDOW)]
        kept, count = np.zeros_like(wanted), 0
        for k in self.rngs[1].permutation(len(windows)):
            kept[windows[k]] = wanted[windows[k]]
            count += int(np.count_nonzero(wanted[windows[k]]))
            if count >= MOST_SINGLE:
                break
        return kept

    def _round(self, guess: Callable[[], Guessed | None], *, before: int, last: bool) -> ADCDNet:
        """All steps from the network as it is; the moving average of its weights. Ctrl-C ends it.

        guess: makes what the round learns beside the labels. before: steps of an earlier round. last: none follows.
        """
        stage, network = self.stage2, self.network
        average = copy.deepcopy(network).eval()
        optimizer, schedule = _optimizer([p for _, p in network.trained_parameters()], stage)
        interval = max(1, stage.steps // self.config.validations)
        rng = self.rngs[1]
        step, total = 0, before + (1 if last else 2) * stage.steps
        try:
            guessed = guess()
            for step in range(1, stage.steps + 1):
                network.train()
                parts = self._supervised(rng, mixed=step <= self.config.mixup * stage.steps, guessed=guessed)
                loss = parts[0] + self.config.branch_weight * sum(parts[1:], torch.zeros_like(parts[0]))
                _step(loss, optimizer, schedule)
                _move_average(average, network, min(self.config.average, step / (step + 9)))
                if step % interval and step != stage.steps:
                    continue
                _check_finite(loss.item(), "stage II", step)
                known: dict[str, float] = {
                    "loss": loss.item(),
                    "main": parts[0].item(),
                    "learning_rate": float(schedule.get_last_lr()[0]),
                }
                if self.area.has_validation:
                    truth, p = self._validate(average)
                    found = scores(confusion_matrix(truth, p.argmax(0), len(p)))
                    known |= {"validation_kappa": found.kappa, "validation_aa": found.aa, "validation_oa": found.oa}
                    self.found["validation"] = found.to_dict()
                    self._calibrate(truth, p)
                self._note("stage2", before + step, total, **known)
        except KeyboardInterrupt:
            self.interrupted = True
            self.found["interrupted_at_step"] = before + step
        return average

    def _supervised(
        self, rng: np.random.Generator, *, mixed: bool = False, guessed: Guessed | None = None
    ) -> list[Tensor]:
        """Cross-entropy of the main head and of the DTM heads on one draw.

        guessed: targets without a label, from which a share of `self_training` of the patches is drawn.
        mixed: samples are averaged in pairs, by a share drawn evenly from 0 to 1, and so are the losses against their
        labels (mixup, Zhang et al. 2018, arXiv:1710.09412, with alpha 1).
        """
        stage, augment = self.stage2, self.config.augment
        network, branches = self.network, self.config.branch_weight > 0
        if self.dense:
            drawn = self.area.draw_tiles(rng, stage.tiles, stage.tile, labelled=True, augment=augment)
        else:
            guesses = 0 if guessed is None else round(self.config.self_training * stage.batch)
            drawn = self.area.draw_patches(
                rng,
                stage.batch,
                balance=self.config.class_balance,
                augment=augment,
                guessed=guessed,
                guesses=min(guesses, stage.batch - 1),
            )
        ms, pan, label = self._tensors(drawn)
        labels = [(1.0, label)]
        if mixed:
            share, partner = rng.random(), torch.from_numpy(rng.permutation(len(label))).to(self.device)
            ms, pan = (share * x + (1 - share) * x[partner] for x in (ms, pan))
            labels = [(share, label), (1 - share, label[partner])]
        if self.dense:
            targets = self._some(drawn.label, stage.targets, rng)
            few = Targets(*(i[: self.config.branch_targets] for i in targets)) if branches else None
            with self._precision():
                outputs = network.on_tile(ms, pan, targets, branch_targets=few)
            truths, weight = [(share, one[targets]) for share, one in labels], self.class_weight
        else:
            with self._precision():
                outputs = network(ms, pan, branches=branches and self.config.branch_targets)
            truths, weight = [(share, one.flatten()) for share, one in labels], torch.ones_like(self.class_weight)
        return [
            sum((share * self._loss(z, truth[: len(z)], weight) for share, truth in truths), z.new_zeros(()))
            for z in outputs
            if z is not None
        ]

    def _loss(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """Mean cross-entropy, weighted by class. A target of a tile may lie on no label of the tile mixed into it."""
        known = truth >= 0
        logits, truth = logits[known], truth[known]
        each = F.cross_entropy(logits.float(), truth, reduction="none", label_smoothing=self.config.label_smoothing)
        return (weight[truth] * each).sum() / weight[truth].sum().clamp_min(torch.finfo(weight.dtype).tiny)

    def _validate(self, network: ADCDNet) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Class indices (n,) of the validation part and probabilities (K, n) at tau 1, as in a map of that part alone.

        What lies around a pixel ends where the part does, but not where one of several scenes does: one after another
        they lie closer together than a window is wide.
        """
        shares, label = (self.label_shares, self.drawn_shares), self.area.validation_label
        local = LocalShares(label.shape, self.area.step, *shares, self.config.answers.local_priors)
        places, answers = zip(*self._answers(network, self.area.validation), strict=True)
        row, col = np.concatenate(places, axis=1)
        logits = np.concatenate(answers, axis=1)
        local.add(logits, row, col)
        known = label[row, col] >= 0
        row, col = row[known], col[known]
        return label[row, col], posterior(local.adapt(logits[:, known], row, col), *shares, tau=1.0)

    @torch.inference_mode()
    def _answers(
        self, network: ADCDNet, wanted: NDArray[np.bool_]
    ) -> Iterator[tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]]:
        """Rows and columns (n,) of the targets that are wanted, and their main logits (K, n), window by window.

        Logits are averaged with those of neighbours, as in a map, but only of neighbours that are wanted too.
        """
        step, answers = self.area.step, self.config.answers
        height, width = self.area.split.part.shape
        for window in tiles(height, width, _WINDOW):
            if not wanted[window.scale(step).slices].any():
                continue
            wide = window.grow(answers.margin).within(height, width)
            here = wanted[wide.scale(step).slices]
            logits = np.full((len(self.label_shares), *here.shape), np.nan, np.float32)
            for phase in np.ndindex(step, step):
                row, col = np.nonzero(here[phase[0] :: step, phase[1] :: step])
                if not len(row):
                    continue
                if network.config.sharable:  # the same numbers as patch by patch, however it trains
                    ms, pan = (torch.from_numpy(x.copy())[None].to(self.device) for x in self.area.tile(wide, phase))
                    places = (torch.from_numpy(i).to(self.device) for i in (np.zeros_like(row), row, col))
                    found = network.on_tile(ms, pan, Targets(*places)).main
                else:
                    at = (row + wide.row) * step + phase[0], (col + wide.col) * step + phase[1]
                    found = self._classify_patches(network, *at)
                logits[:, row * step + phase[0], col * step + phase[1]] = found.float().cpu().numpy().T
            own = window.shift(-wide.row, -wide.col).scale(step).slices
            row, col = np.nonzero(here[own])
            answer = smooth(logits, self.area.looks(wide), answers.smooth, answers.likeness)[:, *own]
            yield (row + window.row * step, col + window.col * step), answer[:, row, col]

    def _calibrate(self, truth: NDArray[np.int64], p: NDArray[np.float32]) -> None:
        """Temperature by the validation part, and how far probabilities are off there without and with it."""
        self.temperature = fit_temperature(p, truth)
        alike = (1.0,) * len(p)  # p has the shares in it
        tempered = posterior(np.log(np.maximum(p, np.finfo(p.dtype).tiny)), alike, alike, 1.0, self.temperature)
        self.found["calibration"] = {
            "temperature": self.temperature,
            "error_before": expected_calibration_error(p.T, truth),
            "error_after": expected_calibration_error(tempered.T, truth),
        }

    def _classify_patches(self, network: ADCDNet, row: NDArray[np.int64], col: NDArray[np.int64]) -> Tensor:
        parts = []
        for start in range(0, len(row), 256):
            patches = [
                self.area.patch(r, c) for r, c in zip(row[start : start + 256], col[start : start + 256], strict=True)
            ]
            ms, pan = (torch.from_numpy(np.stack(x)).to(self.device) for x in zip(*patches, strict=True))
            parts.append(network(ms, pan).main)
        return torch.cat(parts)

    # Both ------------------------------------------------------------------------------------------------------------

    def _some(self, label: NDArray[np.int64], count: int, rng: np.random.Generator) -> Targets:
        """At most `count` targets of tiles: neighbours say nearly the same, and each costs its masks and heads."""
        places = np.argwhere(label >= 0)
        chosen = places[rng.permutation(len(places))[:count]]
        return Targets(*(torch.from_numpy(i).to(self.device) for i in chosen.T.copy()))

    def _tensors(self, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
        ms, pan, label = (torch.from_numpy(x).to(self.device) for x in (drawn.ms, drawn.pan, drawn.label))
        return ms, pan, label

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _note(self, stage: str, step: int, steps: int, **known: float) -> None:
        self.history.append({"stage": stage, "step": step, **known})
        if self.progress is not None:
            self.progress(stage, step, steps, known)

    def history_csv(self) -> bytes:
        columns = list(dict.fromkeys(name for row in self.history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        return text.getvalue().encode()


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """One seed gives one file on a GPU too, where sums over gathered cells would otherwise be added in any order."""
    if device.type != "cuda":
        yield
        return
    # cuBLAS is repeatable with workspaces of its own only, and reads this when it is first used: it stays
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _within_passes(
    config: TrainConfig, stage: StageConfig, labelled: int, labels_per_tile: float | None
) -> StageConfig:
    """With no more steps than `passes` over the labelled pixels take; labels_per_tile: None patch by patch."""
    each, most = float(stage.batch), stage.steps
    if labels_per_tile is not None:
        each, most = min(stage.targets, stage.tiles * labels_per_tile), math.ceil(stage.steps / STEPS_OF_PATCHES)
    enough = math.ceil(config.passes * labelled / each) if config.passes else most
    return stage.model_copy(update={"steps": min(most, enough)})


def _check_finite(loss: float, stage: str, step: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"{stage} diverged: its loss is {loss} after {step} steps; lower its learning_rate, or look for extreme "
            "values in the images"
        )


def _centre(features: Tensor) -> Tensor:
    """The cell of the target pixel, (n, c)."""
    middle = features.shape[-1] // 2
    return features[:, :, middle, middle]


def _optimizer(
    parameters: Sequence[nn.Parameter], stage: StageConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[stage.optimizer]
    optimizer = kind(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay)
    if stage.schedule == "exponential":
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9995)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.learning_rate, total_steps=max(2, stage.steps))
    return optimizer, schedule


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    schedule.step()


@torch.no_grad()
def _move_average(average: ADCDNet, network: ADCDNet, decay: float) -> None:
    """average ← decay · average + (1 − decay) · network, parameters and BatchNorm statistics; the prior is copied."""
    theirs = network.state_dict()
    for name, mine in average.state_dict().items():
        if mine.is_floating_point() and not name.startswith("prior."):
            mine.lerp_(theirs[name], 1 - decay)
        else:
            mine.copy_(theirs[name])


def _xavier(network: nn.Module) -> None:
    """As published: Xavier-uniform on Conv2d and Linear; zero gates and Mamba's own start are none and stay."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | StepProjection):  # drawn there too: a seed keeps its weights
            nn.init.xavier_uniform_(module.weight)
    for module in network.modules():
        if isinstance(module, StepProjection):
            module.reset_parameters()


def _shares(counts: NDArray[Any]) -> tuple[float, ...]:
    shares: list[float] = (counts / counts.sum()).tolist()
    return tuple(shares)


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


@contextmanager
def _whole_run(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder` for the files of a run, which move into place together when all are written.

    A failure leaves an older run as it was, and no folder that was not there. InputError for a place that cannot be
    written.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder))
    except OSError as error:
        _remove(made)
        raise InputError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error
    try:
        yield part
        if not (part / "split.tif").exists():  # one of an older run would be taken for this one's
            (folder / "split.tif").unlink(missing_ok=True)
        for file in part.iterdir():
            file.replace(folder / file.name)
        made = []
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _remove(made)


def _remove(folders: Sequence[Path]) -> None:
    """Take away folders, innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
