"""One method trained on the ground of a cell, and what it says of the ground that tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.benchmark.methods import METHODS, BandRoles
from adcdnet.benchmark.methods_by_name import COMMITTEES, parts_of, trained_as
from adcdnet.config import AnswerConfig, TrainConfig
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.engine import default_engine, together, window_logits
from adcdnet.mapping.model import Model
from adcdnet.mapping.progress import silent
from adcdnet.nn.architecture import Layout
from adcdnet.split.parts import TEST, TRAIN, VALIDATION, Split
from adcdnet.training.area import TrainingArea
from adcdnet.training.borders import bordered, stack, with_border, without
from adcdnet.training.committee.cross_fit import cross_fit
from adcdnet.training.committee.folds import Ground
from adcdnet.training.scenes import LabelledScene, folds_of, training_area
from adcdnet.training.stages.loop import History, build_network
from adcdnet.training.stages.train import train_network


@dataclass(frozen=True)
class Place:
    """One scene of a cell, whole in memory. labels: those that training may use, and those that test."""

    labelled: LabelledScene
    pixels: Pixels
    labels: Labels
    split: Split

    @property
    def tested(self) -> NDArray[np.bool_]:
        return np.asarray((self.split.part == TEST) & self.pixels.valid)

    @property
    def trains(self) -> bool:
        """Whether it is a part of the training area."""
        return bool(_is_known(self).any())


@dataclass(frozen=True)
class Trained:
    """What a trained method says. logits: of each scene that tests, (K, H, W), of its test ground at least, training
    ground hidden from the method while it answers. seen: the same of a network that sees it, where that is asked for.
    """

    logits: Sequence[NDArray[np.float32]]
    seen: Sequence[NDArray[np.float32]] | None
    drawn_shares: tuple[float, ...]
    temperature: float
    parameters: int
    training_seconds: float
    pixels_per_second: float
    local_priors: float | None = None  # that it chose itself


def that_test(places: Sequence[Place]) -> list[Place]:
    return [place for place in places if place.tested.any()]


def area_of(places: Sequence[Place], config: TrainConfig) -> TrainingArea:
    """What a method may look at: all scenes that train or validate."""
    scene = places[0].labelled.scene
    return training_area(
        [place.pixels for place in places],
        [place.labels for place in places],
        [place.split for place in places],
        config=config,
        ratio=scene.ratio,
        phase=scene.phase,
    )


def train_and_answer(
    method: str,
    places: Sequence[Place],
    area: TrainingArea,
    config: TrainConfig,
    *,
    seed: int,
    device: str = "cpu",
    seen: bool = False,
) -> Trained:
    """config: of a network or committee; other methods know only what `area` was made by. seen: see `Trained`."""
    name = trained_as(method)
    if name in COMMITTEES:
        return _of_committee(places, config, seed, torch.device(device))
    if name in METHODS:
        return _of_baseline(name, places, area, seed)
    return _of_network(method, places, area, config, torch.device(device), seen=seen)


def _speed(places: Sequence[Place], since: float) -> float:
    """Pixels a second: these alone are answered."""
    return sum(int(place.tested.sum()) for place in places) / (time.perf_counter() - since)


def _layout(places: Sequence[Place]) -> Layout:
    scene, classes = places[0].labelled.scene, len(places[0].labels.classes)
    return Layout(ms_bands=scene.ms_bands, pan_bands=scene.pan_bands, ratio=scene.ratio, classes=classes)


def _of_baseline(name: str, places: Sequence[Place], area: TrainingArea, seed: int) -> Trained:
    started = time.perf_counter()
    bands = BandRoles.of_descriptions(places[0].labelled.scene.ms_descriptions)
    classifier = METHODS[name](area, _joined(places, area), bands, seed=seed)
    trained = time.perf_counter()
    logits = [classifier.logits(place.pixels, place.tested) for place in that_test(places)]
    return Trained(
        logits,
        None,
        classifier.drawn_shares,
        1.0,
        classifier.parameters,
        trained - started,
        _speed(places, trained),
    )


def _joined(places: Sequence[Place], area: TrainingArea) -> Pixels:
    """Pixels of all scenes of a training area on its grid, for methods that make features of them."""
    layers = [place.pixels for place in places if place.trains]
    gaps = (2 * area.reach, 2 * area.reach * area.ratio) * 2  # ms, pan, and the same of what is valid
    return Pixels(
        *(stack(of_all, gap=gap, fill=0) for of_all, gap in zip(zip(*layers, strict=True), gaps, strict=True))
    )


def _of_network(
    method: str,
    places: Sequence[Place],
    area: TrainingArea,
    config: TrainConfig,
    device: torch.device,
    *,
    seen: bool,
) -> Trained:
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    network = build_network(config, _layout(places), device, parts_of(method))
    model = train_network(network, area, config, History()).model(area, places[0].labels.classes, config)
    trained = time.perf_counter()

    def answers(*, hiding: bool) -> list[NDArray[np.float32]]:
        return [
            logits_of_test(
                model,
                place.pixels,
                place.tested,
                hidden=(place.split.part == TRAIN) if hiding else np.zeros_like(place.tested),
                device=device,
            )
            for place in that_test(places)
        ]

    logits = answers(hiding=True)
    speed = _speed(places, trained)
    return Trained(
        logits,
        answers(hiding=False) if seen else None,
        model.first_network.drawn_shares,
        model.temperature,
        sum(p.numel() for p in model.network.parameters()),
        trained - started,
        speed,
    )


def _of_committee(places: Sequence[Place], config: TrainConfig, seed: int, device: torch.device) -> Trained:
    """Cross-fitted on the train and validation ground of the cell; the test ground and its guard band are no ground at
    all meanwhile."""
    started = time.perf_counter()
    own = [place for place in places if place.trains]
    pixels = [without(place.pixels, ~_is_known(place)) for place in own]
    scenes = [replace(place.labelled, labels=_known_labels(place), part=None, split=None) for place in own]
    valid = [shown.valid for shown in pixels]
    splits, _ = folds_of(scenes, valid, reach=config.guard, config=config.split, seed=seed)
    layout = _layout(places)
    ground = Ground(pixels, [labelled.labels for labelled in scenes], layout, scenes[0].scene.phase)
    fitted = cross_fit(ground, splits, config, device, jobs=1, progress=silent)
    trained = time.perf_counter()
    border = max(member.reach for member in fitted.members)
    logits = [
        together(
            fitted.members,
            bordered(without(place.pixels, _is_known(place)), border),
            border=border,
            origin=(-border, -border),
            wanted=place.tested,
            device=device,
        )
        for place in that_test(places)
    ]
    return Trained(
        logits,
        None,
        (1.0,) * layout.classes,  # log likelihoods have no shares in them
        fitted.temperature,
        sum(member.parameters for member in fitted.members),
        trained - started,
        _speed(places, trained),
        fitted.answers.local_priors,
    )


def _is_known(place: Place) -> NDArray[np.bool_]:
    return np.isin(place.split.part, (TRAIN, VALIDATION))


def _known_labels(place: Place) -> Labels:
    return replace(place.labels, index=np.where(_is_known(place), place.labels.index, -1).astype(np.int16))


def logits_of_test(
    model: Model,
    pixels: Pixels,
    ground: NDArray[np.bool_],
    *,
    hidden: NDArray[np.bool_],
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Main logits (K, H, W) of the test ground of a whole scene, not averaged; nan elsewhere.

    hidden (H, W): ground in whose place the network sees the training mean.
    """
    network, ratio = model.network, pixels.pan.shape[1] // pixels.ms.shape[1]
    ms, pan = model.statistics.standardise(*without(pixels, hidden))
    reach, repeat_edge = network.config.reach, network.config.repeat_edge
    return window_logits(
        network.to(device),
        AnswerConfig(smooth=0.0),
        (with_border(ms, reach, repeat_edge=repeat_edge), with_border(pan, reach * ratio, repeat_edge=repeat_edge)),
        origin=(-reach, -reach),
        wanted=ground,
        look=ms,
        engine=default_engine(network),
    )
