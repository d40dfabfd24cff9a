"""DIA in the place of CBAM's spatial attention, in a small ResNet on handwritten digits.

python examples/dia_in_resnet.py

The digits (8×8, from scikit-learn, no download) are enlarged to 20×20 and put at a random place in a noisy 24×24 image,
so that where to look is part of the task. Only the attention differs between the variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from resnet import SmallResNet
from study import Part, Row, arguments, digits, table, train
from torch import nn
from torch.nn import functional as F

from adcdnet.benchmark.comparisons import SpatialAttention
from adcdnet.nn import DeformableInteractiveAttention

SETTINGS = {"samples": 1200, "epochs": 12}  # per seed

VARIANTS = {
    "no attention": nn.Identity,
    "CBAM spatial": partial(SpatialAttention, rectify=False),
    "DIA": DeformableInteractiveAttention,
}


def misplaced(part: Part, seed: int, side: int = 24, digit: int = 20, noise: float = 0.3) -> Part:
    """Each digit enlarged and put somewhere in a (side, side) image of noise."""
    draw = torch.Generator().manual_seed(seed)
    images = noise * torch.randn(len(part), 1, side, side, generator=draw)
    enlarged = F.interpolate(part.inputs[0], size=(digit, digit), mode="bilinear")
    places = torch.randint(side - digit + 1, (len(part), 2), generator=draw).tolist()
    for image, one, (row, col) in zip(images, enlarged, places, strict=True):
        image[:, row : row + digit, col : col + digit] += one
    return Part((images,), part.labels)


def run(seeds: Sequence[int], *, samples: int, epochs: int) -> list[Row]:
    """Accuracy and cost of each variant for each seed."""
    rows = []
    for seed in seeds:
        learn, test = (misplaced(part, seed + k) for k, part in enumerate(digits(samples, seed)))
        for name, attention in VARIANTS.items():
            torch.manual_seed(seed)
            network = SmallResNet(1, 10, attention)
            seconds = train(network, learn, epochs=epochs, seed=seed)
            rows.append(Row.of(name, network, test, seconds))
    return rows


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    print(table(run(args.seeds, samples=args.samples, epochs=args.epochs)))
