"""Which pixels train, validate and test, and how training draws from them.

A split gives every valid MS pixel one part. Parts are made of whole spatial blocks, with a guard band between them: no
pixel of an earlier part lies within `reach` MS pixels (rows and columns alike) of a later part, so the window of a
training pixel holds no validation or test pixel, and the window of a validation pixel holds no test pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adcdnet.bands import BandStatistics
from adcdnet.classes import ClassTable
from adcdnet.config import NetworkConfig, SplitConfig
from adcdnet.errors import InputError
from adcdnet.grid import Window, mirror
from adcdnet.labels import Labels
from adcdnet.scene import Pixels
from adcdnet.smoothing import looks

UNUSED, TRAIN, VALIDATION, TEST, GUARD = range(5)
PART_NAMES = ("unused", "train", "validation", "test", "guard")
FEWEST_LABELS = 5  # labelled pixels a class must have to be learnt and tested at all
FEWEST_TO_VALIDATE = 30  # below this in any class, all that is not test goes into training
_TRIALS = 1500


@dataclass(frozen=True)
class Split:
    """part (H, W) uint8: 0 unused (invalid), 1 train, 2 validation, 3 test, 4 guard."""

    part: NDArray[np.uint8]
    block: int  # MS pixels per side
    notes: tuple[str, ...]
    hides_test: bool = True  # training sees zeros in place of test and validation pixels


def split_blocks(labels: Labels, valid: NDArray[np.bool_], *, reach: int, config: SplitConfig, seed: int) -> Split:
    """Assign blocks to parts so that every class is in every part where possible and shares agree.

    valid (H, W) says which MS pixels can be used at all. Many random assignments are drawn; the one is kept that
    spreads the labelled pixels of each class as asked and loses fewest of them to the guard. No image value and no
    prediction takes part in the choice. Raises InputError for a class with too few labelled pixels.
    """
    index = np.where(valid, labels.index, -1)
    totals = check_counts(index, labels.classes)
    wanted, notes = shares_wanted(totals, labels.classes, config)
    height, width = valid.shape
    largest = config.block or block_side(height, width, reach=reach)
    sides = [largest] if config.block else [max(1, largest), max(1, largest * 2 // 3)]
    rng = np.random.default_rng(seed)
    # assignments are weighed on squares of this side, at most about 40,000 of them; the chosen one is made exactly
    cell = max(1, reach // 3, int((height * width / 40_000) ** 0.5))
    counts = cell_counts(index, len(totals), cell)
    best: tuple[float, int, NDArray[np.uint8]] | None = None
    for side in sides:
        block = block_numbers(height, width, side)
        of_cell = block_of_cells(block, cell, counts.shape[1:])
        weight = np.bincount(block[index >= 0], minlength=int(block.max()) + 1).astype(float)
        leader: tuple[float, NDArray[np.uint8]] | None = None
        for trial in range(_TRIALS):
            if leader is None or trial < _TRIALS // 3:
                part = draw_parts(weight, wanted, rng)
            else:  # then exchange blocks of the best so far
                part = leader[1].copy()
                a, b = rng.integers(part.size, size=2)
                part[[a, b]] = part[[b, a]]
            cost = cost_of_parts(part[of_cell], counts, totals, wanted, -(-reach // cell))
            if leader is None or cost < leader[0]:
                leader = (cost, part)
        assert leader is not None
        if best is None or leader[0] < best[0]:
            best = (leader[0], side, leader[1])
    assert best is not None
    _, side, part = best
    parts = add_guard(part[block_numbers(height, width, side)], valid, reach)
    notes += check_parts(parts, index, labels.classes, [n for n, share in wanted.items() if share > 0], reach)
    return Split(parts, side, tuple(notes))


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


def block_of_cells(block: NDArray[np.int64], cell: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The block number in the middle of every cell × cell square; the last squares may be narrower than half of one."""
    middle = block[cell // 2 :: cell, cell // 2 :: cell]
    return np.pad(middle, ((0, shape[0] - middle.shape[0]), (0, shape[1] - middle.shape[1])), mode="edge")


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


def block_side(height: int, width: int, *, reach: int) -> int:
    """MS pixels per side of a block where none are asked for: a quarter of the shorter side of the scene, but enough
    for a window to lie in it (2 reach) and no more than 16 reach."""
    return int(np.clip(round(min(height, width) / 4), 2 * reach, 16 * reach))


def block_numbers(height: int, width: int, side: int) -> NDArray[np.int64]:
    """Block number of every pixel, from 0; blocks are as equal as possible, about side × side."""
    rows, cols = max(1, round(height / side)), max(1, round(width / side))
    row = np.arange(height) * rows // height
    col = np.arange(width) * cols // width
    return row[:, None] * cols + col[None, :]


def cell_counts(index: NDArray[np.int16], classes: int, cell: int) -> NDArray[np.int64]:
    """Labelled pixels of every class in every cell × cell square, (K, h, w)."""
    rows, cols = -(-index.shape[0] // cell), -(-index.shape[1] // cell)
    row, col = np.nonzero(index >= 0)
    flat = (index[row, col].astype(np.int64) * rows + row // cell) * cols + col // cell
    return np.bincount(flat, minlength=classes * rows * cols).reshape(classes, rows, cols)


def draw_parts(weight: NDArray[np.float64], wanted: dict[int, float], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random assignment of blocks: test and validation are filled up to their share of labelled pixels.

    Half of the draws order the blocks at random, half grow a part from neighbouring numbers (less guard).
    """
    order = rng.permutation(weight.size)
    if rng.random() < 0.5:
        order = np.roll(np.arange(weight.size), rng.integers(weight.size))
    order = order[weight[order] > 0]
    part = np.full(weight.size, TRAIN, np.uint8)
    start = 0
    for number, share in wanted.items():
        total = np.cumsum(weight[order[start:]]) / weight.sum()
        take = int(np.searchsorted(total, share, side="left")) + 1 if share > 0 else 0
        part[order[start : start + take]] = number
        start += take
    return part


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


def cost_of_parts(
    part: NDArray[np.uint8], counts: NDArray[np.int64], totals: NDArray[np.int64], wanted: dict[int, float], reach: int
) -> float:
    """Deviation from the wanted shares, summed over classes and parts; a missing class weighs most."""
    guarded = add_guard(part, np.ones(part.shape, bool), reach)
    cost = 0.0
    for number in (TRAIN, VALIDATION, TEST):
        share = wanted.get(number, 1 - sum(wanted.values()))
        if share == 0:
            continue
        found = counts[:, guarded == number].sum(1) / totals
        cost += float(np.abs(found - share).mean()) + (20.0 if number == TRAIN else 5.0) * float((found == 0).sum())
    return cost


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


class TrainingArea:
    """All that training may look at: standardised pixels, with test and invalid ones set to 0, and who is a target.

    ms (B, H + 2·reach, W + 2·reach) and pan (B', ...·r, ...·r), with a mirrored border of the network's reach; target
    (H, W) bool: a valid pixel of the train part; label (H, W): class index of labelled targets, −1 elsewhere;
    validation, validation_label: the same of the validation part; labelled, unlabelled (n, 2): row and column of
    labelled targets, of all targets; class_counts (K,). Windows of targets hold no validation pixel (guard band); tiles
    can, and have them set to 0 as they are drawn. statistics: measured over the train part where not given.

    step: targets per MS pixel and axis; where PAN pixels are the targets, target and label, and with them the labels
    that are given, are (H·ratio, W·ratio), and targets are counted on that grid. All targets of one tile are then of
    one phase (`Window.around`), so that its labels lie on it as those of MS pixels do.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Labels,
        split: Split,
        *,
        network: NetworkConfig,
        ratio: int,
        statistics: BandStatistics | None = None,
    ) -> None:
        train = split.part == TRAIN
        test = (split.part == TEST) & split.hides_test
        self.statistics = statistics or training_statistics([(pixels, split)])
        ms, pan = self.statistics.standardise(
            pixels.ms, pixels.pan, pixels.ms_valid & ~test, pixels.pan_valid & ~_refine(test, ratio)
        )
        self.network, self.ratio, self.split = network, ratio, split
        self.step = network.step(ratio)
        repeat_edge = network.padding == "valid"
        self.ms = with_border(ms, network.reach, repeat_edge=repeat_edge)
        self.pan = with_border(pan, network.reach * ratio, repeat_edge=repeat_edge)
        shown = ((split.part != VALIDATION) | (not split.hides_test)).astype(np.float32)[None]
        self._shown = with_border(shown, network.reach, repeat_edge=repeat_edge)
        self._shown_fine = _refine(self._shown.astype(bool), ratio)
        valid = pixels.valid_targets(self.step)
        index = np.where(valid, labels.index, -1).astype(np.int64)
        self.target = _refine(train, self.step) & valid
        self.label = np.where(self.target, index, -1)
        self.validation = _refine(split.part == VALIDATION, self.step) & valid
        self.validation_label = np.where(self.validation, index, -1)
        self.has_validation = bool((self.validation_label >= 0).any())
        self.labelled = np.argwhere(self.label >= 0)
        self.unlabelled = np.argwhere(self.target)
        self.class_counts = np.bincount(self.label[self.label >= 0], minlength=len(labels.classes))

    def drawn_counts(self, balance: float) -> NDArray[np.float64]:
        """(K,): how often training meets each class, up to a factor: n_k^(1 − balance). Its shares are ρ."""
        return np.asarray(np.power(self.class_counts.astype(float), 1 - balance))

    def tile_weights(self, balance: float, side: int) -> NDArray[np.float64]:
        """(K,) loss weights with which tiles of `side` meet class k ∝ n_k^(1 − balance), mean 1.

        A tile around one label brings the labels near it, so that clustered classes come more often than scattered
        ones of the same size; the weights undo that.
        """
        labelled = self.label >= 0
        met = np.bincount(self.label[labelled], weights=self._near(side)[labelled], minlength=len(self.class_counts))
        weights = self.drawn_counts(balance) / met
        return np.asarray(weights / weights.mean())

    def labels_per_tile(self, side: int) -> float:
        """Mean number of labelled targets in a tile of `side` MS pixels around a random one."""
        return float(self._near(side)[self.label >= 0].mean() * side**2)

    def _near(self, side: int) -> NDArray[np.float64]:
        """At each target, the share of labelled ones near it, weighted by how many tiles hold both: a triangular
        window, which is a square one applied twice."""
        share = (self.label >= 0).astype(np.float64)
        side *= self.step
        for origin in (0, -1 if side % 2 == 0 else 0):  # an even window leans to one side, two lean both ways
            share = ndimage.uniform_filter(share, side, mode="constant", origin=origin)
        return share

    def draw_tiles(self, rng: np.random.Generator, count: int, side: int, *, labelled: bool, augment: bool) -> Drawn:
        """Tiles of side × side MS pixels and a halo, each around a random (labelled) target.

        Without labels, `label` is 0 at targets and −1 elsewhere.
        """
        height, width = self.split.part.shape
        tall, wide = min(side, height), min(side, width)
        anchors = self.labelled if labelled else self.unlabelled
        chosen, phases = np.divmod(anchors[rng.integers(len(anchors), size=count)], self.step)
        row = np.clip(chosen[:, 0] - rng.integers(tall, size=count), 0, height - tall)
        col = np.clip(chosen[:, 1] - rng.integers(wide, size=count), 0, width - wide)
        label = self.label if labelled else self.target.astype(np.int8) - 1
        cuts = []
        for r, c, phase in zip(row, col, phases, strict=True):
            window = Window(r, c, tall, wide)
            known = label[phase[0] :: self.step, phase[1] :: self.step][window.slices].astype(np.int64)
            cuts.append((*self._drawn(self._with_halo(window), phase), known))
        return self._stack(cuts, rng, augment=augment and tall == wide)

    def guessed(self, places: NDArray[np.int64], probability: NDArray[np.float32], balance: float) -> Guessed:
        """Targets (n, 2) without a label, and what a network says of them (n, K).

        The ground holds the classes in other shares than training meets them in. Targets are drawn so that their
        likeliest classes come in the shares in which `draw_patches` draws the labelled ones by `balance`.
        """
        likeliest = probability.argmax(1)
        found = np.bincount(likeliest, minlength=len(self.class_counts))
        chance = (self.drawn_counts(balance) / np.maximum(found, 1))[likeliest]
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
        return self._stack(cuts, rng, augment=augment and self.network.before == self.network.after)

    def tile(self, window: Window, phase: tuple[int, int] = (0, 0)) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """ms and pan of a window of MS pixels inside the scene, for the targets of one phase, with their halo."""
        return self._cut(self._with_halo(window), phase)

    def looks(self, window: Window) -> NDArray[np.float32]:
        """By what the targets in a window of MS pixels are compared, see `smoothing`."""
        own = window.shift(self.network.reach, self.network.reach)
        return looks(
            self.ms[:, *own.slices], self.pan[:, *own.scale(self.ratio).slices], self.step, sensors=self.network.sensors
        )

    def patch(self, row: int, col: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """ms and pan that the network sees of one target."""
        return self._cut(self._of_target(row, col), (row % self.step, col % self.step))

    def _with_halo(self, window: Window) -> Window:
        """Where a window of the scene and its halo lie in ms, which has a border of `reach`."""
        halo = max(self.network.before, self.network.after)
        return window.shift(self.network.reach, self.network.reach).grow(halo)

    def _of_target(self, row: int, col: int) -> Window:
        """Where the patch of a target lies in ms."""
        first, size = self.network.reach - self.network.before, self.network.before + 1 + self.network.after
        return Window(row // self.step + first, col // self.step + first, size, size)

    def _cut(self, window: Window, phase: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A window of ms, and pan on it for the targets of one phase."""
        return self.ms[:, *window.slices], self.pan[:, *window.around(self.ratio, self.step, phase).slices]

    def _drawn(self, window: Window, phase: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `_cut`, but without validation pixels, and ready to be turned.

        In pan of an even step a target lies behind the middle, and in front of it once turned; one more row and column
        put it into the middle, and `_stack` takes them off again.
        """
        around = window.around(self.ratio, self.step, phase)
        spare = 1 - self.step % 2
        coarse = window.slices
        fine = Window(around.row, around.col, around.height + spare, around.width + spare).slices
        return self.ms[:, *coarse] * self._shown[:, *coarse], self.pan[:, *fine] * self._shown_fine[:, *fine]

    def _stack(
        self,
        cuts: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]],
        rng: np.random.Generator,
        *,
        augment: bool,
    ) -> Drawn:
        """One batch of all cuts, each flipped and turned at random if wanted."""
        turned = []
        for cut in cuts:
            turns, flip = (int(rng.integers(4)), int(rng.integers(2))) if augment else (0, 0)
            ms, pan, label = (np.rot90(x[..., ::-1] if flip else x, turns, axes=(-2, -1)) for x in cut)
            turned.append((ms, pan[:, : ms.shape[1] * self.ratio, : ms.shape[2] * self.ratio], label))
        return Drawn(*(np.stack(arrays) for arrays in zip(*turned, strict=True)))


def training_statistics(scenes: Sequence[tuple[Pixels, Split]]) -> BandStatistics:
    """Of the valid pixels of the train parts of all scenes together."""
    ms, pan = [], []
    for pixels, split in scenes:
        train = split.part == TRAIN
        ratio = pixels.pan.shape[1] // pixels.ms.shape[1]
        ms.append(pixels.ms[:, pixels.ms_valid & train])
        pan.append(pixels.pan[:, pixels.pan_valid & _refine(train, ratio)])
    ms_all, pan_all = (np.concatenate(bands, axis=1)[:, None] for bands in (ms, pan))
    return BandStatistics.measure(ms_all, pan_all, *(np.ones(x.shape[1:], bool) for x in (ms_all, pan_all)))


def with_border(x: NDArray[np.float32], border: int, *, repeat_edge: bool) -> NDArray[np.float32]:
    """(bands, h, w) with `border` mirrored pixels on every side."""
    row, col = (mirror(np.arange(-border, n + border), n, repeat_edge=repeat_edge) for n in x.shape[1:])
    return x[:, row[:, None], col[None, :]]


def _refine(x: NDArray[Any], ratio: int) -> NDArray[Any]:
    """Every coarse value (..., h, w) repeated over its fine pixels."""
    return x.repeat(ratio, -2).repeat(ratio, -1)
