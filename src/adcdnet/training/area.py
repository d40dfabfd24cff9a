"""What training may look at, and how it draws from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.config import TrainConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.grid import Window
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.smoothing import looks
from adcdnet.nn.architecture import Architecture, PatchArchitecture
from adcdnet.split.parts import TEST, TRAIN, UNUSED, VALIDATION, Split
from adcdnet.training.borders import refine, stack, with_border, without
from adcdnet.training.turning import Turning, turned


@dataclass(frozen=True)
class Drawn:
    """A batch: ms (n, B, h, w) and pan (n, B', h·r, w·r), standardised, and label (n, side, side) int64, −1 none.

    For patches side is 1: the target pixel.
    """

    ms: NDArray[np.float32]
    pan: NDArray[np.float32]
    label: NDArray[np.int64]


@dataclass(frozen=True)
class Guessed:
    """Targets without a label: places (n, 2), probabilities of their classes (n, K), chances to be drawn (n,)."""

    places: NDArray[np.int64]
    probability: NDArray[np.float32]
    chance: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TrainingArea:
    """All that training may look at: standardised pixels, with test and invalid ones set to 0, and who is a target.

    ms (B, H + 2·reach, W + 2·reach) and pan (B', ...·r, ...·r), with a mirrored border of `reach`; target (H, W) bool:
    a valid pixel of the train part; label (H, W): class index of labelled targets, −1 elsewhere; validation,
    validation_label: the same of the validation part. Windows of targets hold no validation pixel (guard band); tiles
    can, and have them set to 0 as they are drawn: shown and shown_fine (1, ...), as ms and pan, are 0 there. training
    (H + 2·reach, W + 2·reach): ground of the train part.

    step: targets per MS pixel and axis; where PAN pixels are the targets, target and label are (H·ratio, W·ratio), and
    targets are counted on that grid. All targets of one tile are then of one phase (`Window.around`), so that its
    labels lie on it as those of MS pixels do.

    phase: of the scenes, see `grid`. A draw is flipped and turned only in ways that keep it (`turning`).
    """

    network: Architecture
    reach: int
    ratio: int
    classes: int
    statistics: BandStatistics
    split: Split
    ms: NDArray[np.float32]
    pan: NDArray[np.float32]
    shown: NDArray[np.float32]
    shown_fine: NDArray[np.bool_]
    training: NDArray[np.bool_]
    target: NDArray[np.bool_]
    label: NDArray[np.int64]
    validation: NDArray[np.bool_]
    validation_label: NDArray[np.int64]
    phase: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(
        cls,
        pixels: Pixels,
        labels: Labels,
        split: Split,
        *,
        config: TrainConfig,
        ratio: int,
        phase: tuple[float, float] = (0.0, 0.0),
        statistics: BandStatistics | None = None,
    ) -> TrainingArea:
        """Of one scene. labels: on the grid of the targets. statistics: measured over the train part if not given."""
        network, step = config.network, config.network.targets_per_pixel(ratio)
        reach = config.reach + any(phase)  # a flip may want the PAN pixel before those that the network sees
        train, test = split.part == TRAIN, (split.part == TEST) & split.hides_test
        statistics = statistics or training_statistics([(pixels, split)])
        ms, pan = statistics.standardise(*without(pixels, test))
        repeat_edge = network.repeat_edge
        shown = ((split.part != VALIDATION) | (not split.hides_test)).astype(np.float32)[None]
        shown = with_border(shown, reach, repeat_edge=repeat_edge)
        valid = pixels.valid_targets(step)
        index = np.where(valid, labels.index, -1).astype(np.int64)
        target, validation = (refine(part, step) & valid for part in (train, split.part == VALIDATION))
        return cls(
            network=network,
            reach=reach,
            ratio=ratio,
            classes=len(labels.classes),
            statistics=statistics,
            split=split,
            ms=with_border(ms, reach, repeat_edge=repeat_edge),
            pan=with_border(pan, reach * ratio, repeat_edge=repeat_edge),
            shown=shown,
            shown_fine=refine(shown.astype(bool), ratio),
            training=with_border(train.astype(np.float32)[None], reach, repeat_edge=repeat_edge)[0] > 0,
            target=target,
            label=np.where(target, index, -1),
            validation=validation,
            validation_label=np.where(validation, index, -1),
            phase=phase,
        )

    @classmethod
    def joined(cls, areas: Sequence[TrainingArea]) -> TrainingArea:
        """Of several scenes, standardised alike, one under another: ms and pan hold each with its border; label,
        target and the parts of the split lie 2 reach MS rows apart."""
        first = areas[0]
        if len(areas) == 1:
            return first
        gap = 2 * first.reach
        between = gap * first.step  # targets

        def under(name: str, gap: int = 0, fill: float = 0) -> Any:
            return stack([getattr(area, name) for area in areas], gap=gap, fill=fill)

        parts = stack([area.split.part for area in areas], gap=gap, fill=UNUSED)
        return replace(
            first,
            split=Split(parts, first.split.block, ()),
            ms=under("ms"),
            pan=under("pan"),
            shown=under("shown"),
            shown_fine=under("shown_fine"),
            training=under("training"),
            target=under("target", between),
            validation=under("validation", between),
            label=under("label", between, -1),
            validation_label=under("validation_label", between, -1),
        )

    @property
    def step(self) -> int:
        return self.network.targets_per_pixel(self.ratio)

    @property
    def _moves(self) -> int:
        """Positions per MS pixel and axis that PAN is moved to: one for each target of a network over patches."""
        return self.step if isinstance(self.network, PatchArchitecture) else 1

    @cached_property
    def _turning(self) -> Turning:
        return Turning(self.phase, self.step)

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """(n, 2): row and column of the labelled targets."""
        return np.argwhere(self.label >= 0)

    @cached_property
    def unlabelled(self) -> NDArray[np.int64]:
        """(n, 2): row and column of all targets."""
        return np.argwhere(self.target)

    @cached_property
    def class_counts(self) -> NDArray[np.int64]:
        """(K,) labelled targets of each class."""
        return np.bincount(self.label[self.label >= 0], minlength=self.classes)

    @cached_property
    def has_validation(self) -> bool:
        return bool((self.validation_label >= 0).any())

    def drawn_counts(self, balance: float) -> NDArray[np.float64]:
        """(K,): how often training meets each class, up to a factor: n_k^(1 − balance). Its shares are ρ."""
        return np.asarray(np.power(self.class_counts.astype(float), 1 - balance))

    def tile_weights(self, balance: float, side: int, *, anchors: float = 0.0) -> NDArray[np.float64]:
        """(K,) loss weights with which tiles of `side` meet class k ∝ n_k^(1 − balance), mean 1. anchors: see
        `draw_tiles`.

        A tile around one label brings the labels near it, so that clustered classes come more often than scattered
        ones of the same size; the weights undo that.
        """
        labelled = self.label >= 0
        near = self._near(side, self._anchor_weight(anchors))
        met = np.bincount(self.label[labelled], weights=near[labelled], minlength=len(self.class_counts))
        weights = self.drawn_counts(balance) / met
        return np.asarray(weights / weights.mean())

    def labels_per_tile(self, side: int) -> float:
        """Mean number of labelled targets in a tile of `side` MS pixels around a random one."""
        return float(self._near(side, self._anchor_weight(0.0))[self.label >= 0].mean() * side**2)

    def _anchor_weight(self, anchors: float) -> NDArray[np.float64]:
        """At each target, how likely a tile is laid around it, up to a factor; 0 without a label."""
        weight = np.power(np.maximum(self.class_counts, 1).astype(float), -anchors)
        return np.where(self.label >= 0, weight[self.label], 0.0)

    def _near(self, side: int, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """At each target, the mean weight of those near it, by how many tiles hold both: a triangular window, which is
        a square one applied twice."""
        share = weight
        side *= self.step
        for origin in (0, -1 if side % 2 == 0 else 0):  # an even window leans to one side, two lean both ways
            share = ndimage.uniform_filter(share, side, mode="constant", origin=origin)
        return share

    def draw_tiles(
        self, rng: np.random.Generator, count: int, side: int, *, labelled: bool, augment: bool, anchors: float = 0.0
    ) -> Drawn:
        """Tiles of side × side MS pixels and a halo, each around a random (labelled) target.

        Without labels, `label` is 0 at targets and −1 elsewhere. anchors: tiles are laid around labels of class k as
        often as n_k^(1 − anchors) says, so that rare classes are met at all.
        """
        height, width = self.split.part.shape
        tall, wide = min(side, height), min(side, width)
        around = self.labelled if labelled else self.unlabelled
        if labelled and anchors:
            drawn = np.searchsorted(self._anchor_chances(anchors), rng.random(count), side="right")
        else:
            drawn = rng.integers(len(around), size=count)
        chosen, phases = np.divmod(around[drawn], self.step)
        phases %= self._moves  # 0 where all targets of an MS pixel are answered at once
        row = np.clip(chosen[:, 0] - rng.integers(tall, size=count), 0, height - tall)
        col = np.clip(chosen[:, 1] - rng.integers(wide, size=count), 0, width - wide)
        label = self.label if labelled else self.target.astype(np.int8) - 1
        cuts = []
        for r, c, phase in zip(row, col, phases, strict=True):
            window = Window(r, c, tall, wide)
            if self._moves == self.step:
                labels_here = label[phase[0] :: self.step, phase[1] :: self.step][window.slices].astype(np.int64)
            else:
                labels_here = label[window.scale(self.step).slices].astype(np.int64)
            cuts.append((*self._drawn(self._with_halo(window), phase), labels_here))
        return self._stack(cuts, rng, augment=augment and tall == wide)

    def _anchor_chances(self, anchors: float) -> NDArray[np.float64]:
        """(n,) cumulated chances of the labelled targets."""
        chances = self._anchor_weight(anchors)[tuple(self.labelled.T)].cumsum()
        return np.asarray(chances / chances[-1])

    def guessed(self, places: NDArray[np.int64], probability: NDArray[np.float32], balance: float) -> Guessed:
        """Targets (n, 2) without a label, and what a network says of them (n, K).

        The ground holds the classes in other shares than training meets them in. Targets are drawn so that their
        likeliest classes come in the shares in which `draw_patches` draws the labelled ones by `balance`.
        """
        likeliest = probability.argmax(1)
        counts = np.bincount(likeliest, minlength=len(self.class_counts))
        chance = (self.drawn_counts(balance) / np.maximum(counts, 1))[likeliest]
        return Guessed(places, probability, chance / chance.sum())

    def draw_patches(
        self,
        rng: np.random.Generator,
        count: int,
        *,
        balance: float | None,
        augment: bool,
        guessed: Guessed | None = None,
        guesses: int = 0,
    ) -> Drawn:
        """Single targets; of labelled ones class k is drawn ∝ n_k^(1 − balance). balance None: any target, label 0.

        guesses: how many of them come from `guessed` instead, each with a class drawn by its probabilities.
        """
        if balance is None:
            chosen = self.unlabelled[rng.integers(len(self.unlabelled), size=count)]
            label = np.zeros(count, np.int64)
        else:
            of_class = self.label[tuple(self.labelled.T)]
            weight = np.power(self.class_counts[of_class].astype(float), -balance)
            drawn = rng.choice(len(self.labelled), size=count - guesses, p=weight / weight.sum())
            chosen, label = self.labelled[drawn], of_class[drawn]
        if guessed is not None:
            drawn = rng.choice(len(guessed.places), size=guesses, p=guessed.chance)
            below = guessed.probability[drawn].cumsum(1)
            guess = (below > rng.random((guesses, 1)) * below[:, -1:]).argmax(1)
            chosen, label = np.append(chosen, guessed.places[drawn], 0), np.append(label, guess)
        cuts = []
        for (r, c), k in zip(chosen, label, strict=True):
            phase = (r % self.step, c % self.step)
            cuts.append((*self._drawn(self._of_target(r, c), phase), np.full((1, 1), k)))
        # flips and turns keep the target in place only where it is the centre of its patch
        return self._stack(cuts, rng, augment=augment and self.network.turns)

    def tile(
        self, window: Window, phase: tuple[int, int] = (0, 0), *, border: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """ms and pan of a window of MS pixels inside the scene, for the targets of one phase, with such a border."""
        return self._cut(window.shift(self.reach, self.reach).grow(border), phase)

    def images(self, window: Window, *, hide_training: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """ms and pan of a window of MS pixels inside the scene, with a halo of the network's reach.

        hide_training: with 0, the training mean, in place of training ground: what is judged is then answered without
        a look at ground that was learnt.
        """
        wide = window.shift(self.reach, self.reach).grow(self.network.reach)
        ms, pan = self.ms[:, *wide.slices].copy(), self.pan[:, *wide.scale(self.ratio).slices].copy()
        if hide_training:
            known = self.training[wide.slices]
            ms[:, known] = 0
            pan[:, refine(known, self.ratio)] = 0
        return ms, pan

    def looks(self, window: Window) -> NDArray[np.float32]:
        """By what the targets in a window of MS pixels are compared, see `smoothing`."""
        own = window.shift(self.reach, self.reach)
        return looks(
            self.ms[:, *own.slices], self.pan[:, *own.scale(self.ratio).slices], self.step, sensors=self.network.sensors
        )

    def patch(self, row: int, col: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """ms and pan that the network sees of one target."""
        return self._cut(self._of_target(row, col), (row % self.step, col % self.step))

    def _with_halo(self, window: Window) -> Window:
        """Where a window of the scene and its halo lie in ms, which has a border of `reach`."""
        return window.shift(self.reach, self.reach).grow(self.network.border)

    def _of_target(self, row: int, col: int) -> Window:
        """Where the patch of a target lies in ms. ValueError for a network that has no patches."""
        if not isinstance(self.network, PatchArchitecture):
            raise ValueError("a network over tiles has no patches; draw tiles")
        first, size = self.reach - self.network.before, self.network.size
        return Window(row // self.step + first, col // self.step + first, size, size)

    def _cut(self, window: Window, phase: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A window of ms, and pan on it for the targets of one phase."""
        return self.ms[:, *window.slices], self.pan[:, *window.around(self.ratio, self._moves, phase).slices]

    def _drawn(self, window: Window, phase: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `_cut`, but without validation pixels, and ready to be turned.

        In pan of an even step a target lies behind the middle, and in front of it once turned; one more row and column
        put it into the middle, and `_stack` takes them off again. Those before the first, see `turning`.
        """
        around = window.around(self.ratio, self._moves, phase)
        spare = 1 - self._moves % 2
        coarse = window.slices
        top, left = self._turning.spare
        fine = Window(
            around.row - top, around.col - left, around.height + spare + top, around.width + spare + left
        ).slices
        return self.ms[:, *coarse] * self.shown[:, *coarse], self.pan[:, *fine] * self.shown_fine[:, *fine]

    def _stack(
        self,
        cuts: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]],
        rng: np.random.Generator,
        *,
        augment: bool,
    ) -> Drawn:
        """One batch of all cuts, each flipped and turned at random if wanted."""
        batch = []
        for cut in cuts:
            way = self._turning.draw(rng) if augment else (0, 0)
            ms, pan, label = (turned(x, way) for x in cut)
            pan = self._turning.without_spare(pan, *(n * self.ratio for n in ms.shape[1:]))
            batch.append((ms, pan, label))
        return Drawn(*(np.stack(arrays) for arrays in zip(*batch, strict=True)))


def training_statistics(scenes: Sequence[tuple[Pixels, Split]]) -> BandStatistics:
    """Of the valid pixels of the train parts of all scenes together."""
    ms, pan = [], []
    for pixels, split in scenes:
        train = split.part == TRAIN
        ratio = pixels.pan.shape[1] // pixels.ms.shape[1]
        ms.append(pixels.ms[:, pixels.ms_valid & train])
        pan.append(pixels.pan[:, pixels.pan_valid & refine(train, ratio)])
    ms_all, pan_all = (np.concatenate(bands, axis=1)[:, None] for bands in (ms, pan))
    return BandStatistics.measure(ms_all, pan_all, *(np.ones(x.shape[1:], bool) for x in (ms_all, pan_all)))
