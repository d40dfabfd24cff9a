"""DIA in a network of two sensors that is not ADCD-Net: optical and radar patches of one size.

python examples/dia_two_sensors.py

Simulated patches of 16×16 pixels: a field of one cover in surroundings of another, the label is the cover at the
centre. Of six covers, pairs look alike in the optical bands and differ in radar brightness. Optical: 4 bands with noise
and, in a third of the patches, a cloud; radar: 1 band with speckle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from study import Part, Row, arguments, table, train
from torch import Tensor, nn

from adcdnet.benchmark.comparisons import SpatialAttention
from adcdnet.nn import DIA

SETTINGS = {"samples": 1000, "epochs": 12}  # per seed

COVERS, BANDS, SIDE = 6, 4, 16
Pair = Callable[[], tuple[nn.Module, nn.Module]]

VARIANTS: dict[str, Pair] = {
    "no attention": lambda: (nn.Identity(), nn.Identity()),
    "CBAM spatial": lambda: (SpatialAttention(rectify=False), SpatialAttention(rectify=False)),
    "DIA": lambda: (DIA(global_scale=0.4, local_scale=0.1), DIA(global_scale=0.1, local_scale=0.4)),
    "DIA, whole gradients": lambda: (DIA(global_scale=1, local_scale=1), DIA(global_scale=1, local_scale=1)),
}


class TwoSensors(nn.Module):
    """A branch of three convolutions per sensor, each ending in its attention; summed, averaged, classified."""

    def __init__(self, attention: Pair, width: int = 16) -> None:
        super().__init__()
        self.optical, self.radar = (
            nn.Sequential(
                nn.Conv2d(bands, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, 2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), last,
            )
            for bands, last in zip((BANDS, 1), attention(), strict=True)
        )  # fmt: skip
        self.classifier = nn.Linear(width, COVERS)

    def forward(self, optical: Tensor, radar: Tensor) -> Tensor:
        fused = torch.relu(self.optical(optical)) + torch.relu(self.radar(radar))
        logits: Tensor = self.classifier(fused.mean((2, 3)))
        return logits


def patches(samples: int, seed: int) -> Part:
    """Optical (samples, 4, 16, 16), radar (samples, 1, 16, 16) and the cover at the centre."""
    truth = torch.Generator().manual_seed(0)  # what the covers look like is the same for every part
    spectra = torch.rand(COVERS // 2, BANDS, generator=truth).repeat_interleave(2, dim=0)
    backscatter = torch.tensor([0.5, 1.0]).repeat(COVERS // 2)
    draw = torch.Generator().manual_seed(seed)
    inner, outer = torch.randint(COVERS, (2, samples), generator=draw)
    radius = 3 + 4 * torch.rand(samples, 1, 1, generator=draw)
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    row, col = axis[:, None], axis[None, :]
    inside = (row**2 + col**2).sqrt() < radius  # (samples, 16, 16)
    cover = torch.where(inside, inner[:, None, None], outer[:, None, None])
    optical = spectra[cover].movedim(-1, 1) + 0.15 * torch.randn(samples, BANDS, SIDE, SIDE, generator=draw)
    cloud_row, cloud_col = SIDE * torch.rand(2, samples, 1, 1, generator=draw) - SIDE / 2
    cloud = ((row - cloud_row) ** 2 + (col - cloud_col) ** 2).sqrt() < 5
    cloudy = cloud & (torch.rand(samples, 1, 1, generator=draw) < 1 / 3)
    optical = torch.where(cloudy[:, None], 1.2, optical)
    looks = 4  # speckle: the mean of 4 looks, each exponential
    speckle = -torch.log(1 - torch.rand(looks, samples, SIDE, SIDE, generator=draw)).mean(0)
    radar = (backscatter[cover] * speckle)[:, None]
    return Part((optical, radar), inner)


def run(seeds: Sequence[int], *, samples: int, epochs: int) -> list[Row]:
    """Accuracy and cost of each variant for each seed."""
    rows = []
    for seed in seeds:
        learn, test = patches(samples, 2 * seed + 1), patches(2000, 2 * seed + 2)
        for name, attention in VARIANTS.items():
            torch.manual_seed(seed)
            network = TwoSensors(attention)
            seconds = train(network, learn, epochs=epochs, seed=seed)
            rows.append(Row.of(name, network, test, seconds))
    return rows


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    print(table(run(args.seeds, samples=args.samples, epochs=args.epochs)))
