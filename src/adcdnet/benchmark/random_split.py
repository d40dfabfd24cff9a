"""What a split by random pixels would have claimed of the same training, beside what the run's own split says.

Test pixels dealt at random lie among training pixels, whose windows hold them: such a test says how well the scene is
remembered. The second training differs in nothing but its split, and only its scores are kept.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adcdnet.assess.evaluate import labels_in_part
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.files import as_json, write_whole
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.device import pick_device
from adcdnet.mapping.engine import default_engine, scene_logits, valid_targets
from adcdnet.mapping.model import Model, Run
from adcdnet.mapping.progress import Progress, silent
from adcdnet.metrics import Scores, confusion_matrix, scores
from adcdnet.training.run import train
from adcdnet.training.scenes import LabelledScene

TAUS = (1.0, 0.5)


@dataclass(frozen=True)
class Claim:
    """What the test part of a run says. scores: by tau; pixels: labelled ones; holding, overlapping: as `Leakage`."""

    scores: dict[float, Scores]
    pixels: int
    holding: float
    overlapping: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        by_tau = {
            f"tau {tau:g}": {name: content[name] for name in ("oa", "aa", "kappa")}
            for tau, content in ((tau, of_tau.to_dict()) for tau, of_tau in self.scores.items())
        }
        return {"pixels": self.pixels, **by_tau, "leakage": {"holding": self.holding, "overlapping": self.overlapping}}


def compare_random(
    run: Run,
    scenes: Sequence[LabelledScene],
    *,
    init: Model | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> tuple[Claim, Claim]:
    """Train once more with settings and seed of the run, on the same scenes divided pixel by pixel; returns what the
    test parts of both say, the run's own first, and adds it to the run's metrics.json as "random_split".

    scenes, init: as the run was trained with. InputError where a run has no labelled test pixel or was divided so.
    """
    config = TrainConfig.model_validate(run.model.record.settings)
    if config.split.unit == "random":
        raise InputError("the run's own split is of random pixels; compare a run of blocks or polygons with it")
    own = _claim(run, scenes, device)
    with tempfile.TemporaryDirectory() as folder:
        dealt = [replace(labelled, part=None, split=None) for labelled in scenes]
        config = config.replace({"split": {"unit": "random"}})
        other = train(dealt, out=Path(folder, "run"), config=config, init=init, device=device, progress=progress)
        random = _claim(other, scenes, device)
    file = run.folder / "metrics.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["random_split"] = {"own": own.to_dict(), "random": random.to_dict()}
    write_whole(file, as_json(content))
    return own, random


def _claim(run: Run, scenes: Sequence[LabelledScene], device: str) -> Claim:
    model, classes, where = run.model, len(run.model.classes), pick_device(device)
    confusions = np.zeros((len(TAUS), classes, classes + 1), np.int64)
    for labelled in scenes:
        step = model.step
        split = run.split("" if len(scenes) == 1 else labelled.name)
        grid = labelled.scene.grid_of(model.grid)
        truth = labels_in_part(labelled.labels, grid, "the scene", split, "test")
        answers, tested = Answers.of(model, grid.shape), []
        for window, _, logits in scene_logits(
            model, labelled.scene, engine=default_engine(*model.networks), device=where
        ):
            assert logits is not None  # no window is skipped
            valid, row, col = valid_targets(logits, window.scale(step))
            answers.add(valid, row, col)
            wanted = truth[row, col] >= 0
            tested.append((valid[:, wanted], row[wanted], col[wanted]))
        targets = [np.concatenate(parts, axis=-1) for parts in zip(*tested, strict=True)]
        for confusion, tau in zip(confusions, TAUS, strict=True):
            best = answers.probabilities(*targets, tau=tau).argmax(0)
            confusion += confusion_matrix(truth[targets[1], targets[2]], best, classes)
    if not confusions.any():
        raise InputError("the test part holds no labelled pixel, so there is nothing to compare; label more places")
    by_tau = {tau: scores(confusion) for tau, confusion in zip(TAUS, confusions, strict=True)}
    return Claim(by_tau, int(confusions[0].sum()), **_leakage(model))


def _leakage(model: Model) -> dict[str, float]:
    """Shares of the test pixels; nan where there is none."""
    return {name: float("nan") if share is None else share for name, share in model.record.leakage.items()}
