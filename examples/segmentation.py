"""Segmentation of the simulated scene by a U-Net: which attention, and does supervision by depth help?

python examples/segmentation.py

Each pixel of 64×64 images of 2 m is to get one of nine classes, from six MS bands, repeated, and PAN. An attention
stands at the end of each level, or on what passes beside, from down to up. Supervision adds a loss with the weight
λ = 0.8 while the network learns. Either a head on each level learns the shares of the classes in each of its pixels, or
a DTM, which reads the five levels of a location as time, those in 4×4 pixels. Afterwards the usual head alone decides.
Figures are the mean intersection over union of the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from study import Part, Row, arguments, cross_entropy, ground, table, train
from torch import Tensor, nn
from torch.nn import functional as F
from unet import SmallUNet

from adcdnet.benchmark.comparisons import SpatialAttention
from adcdnet.metrics import confusion_matrix, scores
from adcdnet.nn import DIA, DeepTemporalMamba, MapDepth

SETTINGS = {"samples": 144, "epochs": 12}  # per seed

MEASURE = "mean intersection over union, %"
BANDS, CLASSES, CELL, LAMBDA = 7, 9, 4, 0.8  # CELL: pixels a side of a location that the DTM answers for

CBAM = partial(SpatialAttention, rectify=False)


class HeadOnEachLevel(nn.Module):
    """Plain deep supervision (Lee et al., arXiv:1409.5185): levels -> logits of each, in its own size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(c, CLASSES, 1) for c in widths)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [head(x) for head, x in zip(self.heads, levels, strict=True)]


class DTMOverLevels(nn.Module):
    """Levels -> logits of each 4×4 pixels, one map, by a DTM over a token per level, in the order of computation."""

    def __init__(self, widths: Sequence[int], width: int = 32) -> None:
        super().__init__()
        depths = [MapDepth(c, (1, 1)) for c in widths]
        self.dtm = DeepTemporalMamba(depths, d_model=width, d_out=width, num_classes=CLASSES, token="flatten")

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        cells = levels[0].shape[-2] // CELL, levels[0].shape[-1] // CELL
        maps = [F.adaptive_avg_pool2d(x, cells).permute(0, 2, 3, 1) for x in levels]  # finer levels are averaged
        logits = self.dtm([m.reshape(-1, m.shape[-1], 1, 1) for m in maps])
        return [logits.view(-1, *cells, CLASSES).permute(0, 3, 1, 2)]


class Supervised(nn.Module):
    """A U-Net and what supervises its levels; forward is the U-Net's own decision."""

    def __init__(self, supervision: Callable[[Sequence[int]], nn.Module]) -> None:
        super().__init__()
        self.unet = SmallUNet(BANDS, CLASSES)
        self.supervision = supervision(self.unet.widths)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.unet(x)
        return logits


def both_losses(network: nn.Module, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
    assert isinstance(network, Supervised)
    levels = network.unet.depths(inputs[0])
    pixels = F.one_hot(labels, CLASSES).movedim(-1, 1).float()
    answers = network.supervision(levels)
    each = [F.cross_entropy(y, F.adaptive_avg_pool2d(pixels, y.shape[-2:])) for y in answers]
    return F.cross_entropy(network.unet.classifier(levels[-1]), labels) + LAMBDA * torch.stack(each).mean()


VARIANTS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "attention": {
        "no attention": lambda: SmallUNet(BANDS, CLASSES),
        "CBAM spatial, each level": lambda: SmallUNet(BANDS, CLASSES, at_ends=CBAM),
        "DIA, each level": lambda: SmallUNet(BANDS, CLASSES, at_ends=DIA),
        "CBAM spatial, beside": lambda: SmallUNet(BANDS, CLASSES, beside=CBAM),
        "DIA, beside": lambda: SmallUNet(BANDS, CLASSES, beside=DIA),
    },
    "supervision": {
        "of the last level alone": lambda: SmallUNet(BANDS, CLASSES),
        "a head on each level": lambda: Supervised(HeadOnEachLevel),
        "a DTM over the levels": lambda: Supervised(DTMOverLevels),
    },
}


def images(samples: int, seed: int) -> Part:
    """Images and the class of each pixel (n, 64, 64), from 0 on."""
    x, classes, _ = ground(samples, seed)
    return Part((x,), torch.tensor(classes, dtype=torch.long) - 1)


@torch.no_grad()
def mean_iou(network: nn.Module, test: Part) -> float:
    """Mean over the classes that occur, in percent."""
    network.eval()
    guesses = torch.cat([network(x).argmax(1) for x in test.inputs[0].split(64)])
    found = scores(confusion_matrix(test.labels.numpy(), guesses.numpy(), CLASSES)).iou
    return 100 * float(np.nanmean(found))


def run(study: str, seeds: Sequence[int], *, samples: int, epochs: int) -> list[Row]:
    """Mean intersection over union and cost of each variant of a study for each seed."""
    rows = []
    for seed in seeds:
        learn, test = images(samples, 2 * seed + 1), images(samples // 2, 2 * seed + 2)
        for name, made in VARIANTS[study].items():
            torch.manual_seed(seed)
            network = made()
            loss = both_losses if isinstance(network, Supervised) else cross_entropy
            seconds = train(network, learn, epochs=epochs, seed=seed, batch=8, rate=4e-3, loss=loss)
            size = sum(p.numel() for p in network.parameters())
            rows.append(Row(name, mean_iou(network, test), size, seconds))
    return rows


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    for study in VARIANTS:
        print(table(run(study, args.seeds, samples=args.samples, epochs=args.epochs), MEASURE))
