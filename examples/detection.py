"""A small YOLO-like detector on the simulated scene: an attention before its head, a DTM over its pyramid.

python examples/detection.py

Water, settlements and orchards are found as boxes in 64×64 pixels of 2 m, from six MS bands, repeated, and PAN. Each of
8×8 cells says whether the middle of a box lies in it, and which (Redmon et al., arXiv:1506.02640). Two comparisons:
what stands before the head on the coarsest level, and how three levels of the pyramid are read at each location, by
the mean of their tokens or by a DTM over them. Figures are the mean average precision at an overlap of 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage
from study import IMAGE, Part, Row, arguments, ground, table, train
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.benchmark.comparisons import SpatialAttention
from adcdnet.nn import DIA, DeepTemporalMamba, MapDepth, MapToken

SETTINGS = {"samples": 300, "epochs": 20}  # per seed

KINDS = ("water", "orchard", "settlement")
CELL, SMALLEST, USUAL = 8, 6, 16  # pixels: of a cell, the smallest box, and the usual one
WIDTHS = (16, 32, 48)
MEASURE = "mean average precision, %"
ANSWERS = 5 + len(KINDS)  # is one here?, row and column in the cell, log of height and width, kind


def unit(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


class Detector(nn.Module):
    """Images (b, 7, 64, 64) -> answers (b, 8, 8, 5 + K)."""

    def __init__(self, last: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.levels = nn.ModuleList(unit(a, b, 2) for a, b in zip((7, *WIDTHS[:2]), WIDTHS, strict=True))
        self.levels[-1].append(unit(WIDTHS[-1], WIDTHS[-1]))
        self.attention, self.head = last, head

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for level in self.levels:
            x = level(x)
            levels.append(x)
        levels[-1] = self.attention(x)
        answers: Tensor = self.head(levels)
        return answers


class Coarsest(nn.Module):
    """The usual head, on the last level alone."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Conv2d(WIDTHS[-1], ANSWERS, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return self.answer(levels[-1]).permute(0, 2, 3, 1)


def at_each_cell(levels: Sequence[Tensor]) -> list[Tensor]:
    """Levels -> maps of one cell (b·8·8, c, 1, 1); finer levels are averaged."""
    maps = [F.adaptive_avg_pool2d(level, IMAGE // CELL) for level in levels]
    return [m.permute(0, 2, 3, 1).reshape(-1, m.shape[1], 1, 1) for m in maps]


class MeanOfLevels(nn.Module):
    """At each location, the mean of a token per level."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.tokens = nn.ModuleList(MapToken(c, width, size=(1, 1), token="flatten") for c in WIDTHS)
        self.answer = nn.Linear(width, ANSWERS)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        tokens = [token(m) for token, m in zip(self.tokens, at_each_cell(levels), strict=True)]
        return self.answer(torch.stack(tokens).mean(0)).view(-1, IMAGE // CELL, IMAGE // CELL, ANSWERS)


class DTMOverLevels(nn.Module):
    """At each location, a DTM over a token per level, finest first."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        depths = [MapDepth(c, (1, 1)) for c in WIDTHS]
        self.dtm = DeepTemporalMamba(depths, d_model=width, d_out=width, num_classes=ANSWERS, token="flatten")

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return self.dtm(at_each_cell(levels)).view(-1, IMAGE // CELL, IMAGE // CELL, ANSWERS)


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "no attention": lambda: Detector(nn.Identity(), Coarsest()),
    "CBAM spatial": lambda: Detector(SpatialAttention(rectify=False), Coarsest()),
    "DIA": lambda: Detector(DIA(), Coarsest()),
    "pyramid, mean of levels": lambda: Detector(nn.Identity(), MeanOfLevels()),
    "pyramid, DTM": lambda: Detector(nn.Identity(), DTMOverLevels()),
}


def images(samples: int, seed: int) -> Part:
    """Images and targets (n, 8, 8, 6): 1 where the middle of a box lies, its place, log size, and kind."""
    x, classes, names = ground(samples, seed)
    return Part((x,), torch.stack([boxes_of(one, names) for one in classes]))


def boxes_of(classes: np.ndarray, names: Sequence[str]) -> Tensor:
    """The target of one image: a box around each piece of a kind, small ones left out; of two in a cell the larger."""
    target = torch.zeros(IMAGE // CELL, IMAGE // CELL, 6)
    for kind, name in enumerate(KINDS):
        pieces, _ = ndimage.label(classes == names.index(name) + 1)
        for rows, cols in ndimage.find_objects(pieces):
            size = torch.tensor([rows.stop - rows.start, cols.stop - cols.start], dtype=torch.float32)
            middle = torch.tensor([rows.stop + rows.start, cols.stop + cols.start]) / 2 / CELL
            row, col = middle.int().tolist()
            log_size = (size / USUAL).log()
            if size.min() >= SMALLEST and not (target[row, col, 0] and target[row, col, 3:5].sum() > log_size.sum()):
                target[row, col] = torch.tensor([1, *(middle % 1), *log_size, kind])
    return target


def detection_loss(network: nn.Module, inputs: Sequence[Tensor], target: Tensor) -> Tensor:
    answer = network(*inputs)
    here = target[..., 0] == 1
    found, wanted = answer[here], target[here]
    place = F.mse_loss(found[:, 1:3].sigmoid(), wanted[:, 1:3]) + F.smooth_l1_loss(found[:, 3:5], wanted[:, 3:5])
    kind = F.cross_entropy(found[:, 5:], wanted[:, 5].long())
    return 10 * F.binary_cross_entropy_with_logits(answer[..., 0], target[..., 0]) + 2 * place + kind


def corners(cells: Tensor) -> Tensor:
    """Row, column, log height and log width of each cell (8, 8, 4) -> first and last row and column (64, 4)."""
    axis = torch.arange(IMAGE // CELL)
    middle = CELL * (cells[..., :2] + torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1))
    half = USUAL * cells[..., 2:4].exp() / 2
    return torch.cat((middle - half, middle + half), -1).flatten(0, 1)


def overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box (4) with others (n, 4)."""
    both = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0).prod(-1)
    return both / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - both)


@torch.no_grad()
def average_precision(network: nn.Module, test: Part) -> float:
    """Mean over kinds in percent. Of boxes of a kind that overlap by half, the surest stays."""
    answers = torch.cat([network(x) for x in test.inputs[0].split(256)]).float()
    scores = answers[..., :1].sigmoid() * answers[..., 5:].softmax(-1)
    precisions = []
    for kind in range(len(KINDS)):
        hits: list[tuple[float, bool]] = []
        wanted = 0
        for answer, score, target in zip(answers, scores[..., kind].flatten(1), test.labels, strict=True):
            true = corners(target[..., 1:5])[((target[..., 0] == 1) & (target[..., 5] == kind)).flatten()]
            wanted += len(true)
            found = corners(torch.cat((answer[..., 1:3].sigmoid(), answer[..., 3:5]), -1))
            kept: list[int] = []
            for one in score.argsort(descending=True).tolist():
                if score[one] > 0.02 and not (len(kept) and bool((overlap(found[one], found[kept]) > 0.5).any())):
                    kept.append(one)
            for one in kept:
                shared = overlap(found[one], true)
                hit = len(true) > 0 and bool(shared.max() > 0.5)
                hits.append((float(score[one]), hit))
                if hit:
                    true = true[torch.arange(len(true)) != shared.argmax()]
        right = np.array([hit for _, hit in sorted(hits, key=lambda one: -one[0])], float)
        precision = right.cumsum() / np.arange(1, len(right) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
        precisions.append((best * right).sum() / max(wanted, 1))
    return 100 * float(np.mean(precisions))


def run(seeds: Sequence[int], *, samples: int, epochs: int) -> list[Row]:
    """Average precision and cost of each variant for each seed."""
    rows = []
    for seed in seeds:
        learn, test = images(samples, 2 * seed + 1), images(samples // 2, 2 * seed + 2)
        for name, made in VARIANTS.items():
            torch.manual_seed(seed)
            network = made()
            seconds = train(network, learn, epochs=epochs, seed=seed, loss=detection_loss)
            size = sum(p.numel() for p in network.eval().parameters())
            rows.append(Row(name, average_precision(network, test), size, seconds))
    return rows


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    print(table(run(args.seeds, samples=args.samples, epochs=args.epochs), MEASURE))
