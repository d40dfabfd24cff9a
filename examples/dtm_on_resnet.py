"""A DTM head that supervises the depths of a small ResNet, on handwritten digits: with and without.

python examples/dtm_on_resnet.py

Images as in dia_in_resnet.py. The DTM head's loss is added with the weight λ = 0.8 of the paper; afterwards the usual
head decides, or the DTM head, so its row says what the head itself reaches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dia_in_resnet import misplaced
from resnet import SmallResNet
from study import Row, arguments, cross_entropy, digits, table, train
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.nn import DeepTemporalMamba

SETTINGS = {"samples": 600, "epochs": 16}  # per seed

LAMBDA = 0.8


class Supervised(nn.Module):
    """A ResNet and a DTM head over its three depths; forward is the DTM head's decision."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = SmallResNet(1, 10)
        self.head = DeepTemporalMamba((8, 16, 32), d_model=32, num_classes=10, d_out=32)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.resnet.depths(x))
        return logits


def both_losses(network: nn.Module, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
    assert isinstance(network, Supervised)
    depths = network.resnet.depths(inputs[0])
    main = F.cross_entropy(network.resnet.classifier(depths[-1].mean((2, 3))), labels)
    return main + LAMBDA * F.cross_entropy(network.head(depths), labels)


def run(seeds: Sequence[int], *, samples: int, epochs: int) -> list[Row]:
    """Accuracy and cost with and without the DTM head, for each seed."""
    rows = []
    for seed in seeds:
        learn, test = (misplaced(part, seed + k) for k, part in enumerate(digits(samples, seed)))
        torch.manual_seed(seed)
        alone = SmallResNet(1, 10)
        seconds = train(alone, learn, epochs=epochs, seed=seed, loss=cross_entropy)
        rows.append(Row.of("without DTM", alone, test, seconds))
        torch.manual_seed(seed)
        supervised = Supervised()
        seconds = train(supervised, learn, epochs=epochs, seed=seed, loss=both_losses)
        rows.append(Row.of("with DTM, usual head decides", supervised.resnet, test, seconds))
        rows.append(Row.of("with DTM, DTM head decides", supervised, test, seconds))
    return rows


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    print(table(run(args.seeds, samples=args.samples, epochs=args.epochs)))
