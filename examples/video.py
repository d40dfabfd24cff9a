"""Video: which digit was there first? A DTM over the frames against a GRU, a Mamba and the mean.

python examples/video.py

Clips of 8 frames of 16×16 noisy pixels. A handwritten digit moves along a line; half-way another takes its place. The
label is the first one, so what is decided at the end was seen long before, and both are seen equally long. All variants
share the encoder of single frames. The DTM is made as over the depths of a network: with a token per frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from sequences import MambaLayer
from study import Part, Row, arguments, digits, table, train
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.nn import DeepTemporalMamba, MapToken

SETTINGS = {"samples": 1200, "epochs": 20}  # per seed

FRAMES, SIDE, DIGIT, CHANNELS = 8, 16, 12, 16


class Frames(nn.Module):
    """Clips (b, t, 1, 16, 16) -> a map per frame (b, t, 16, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, CHANNELS, 3, 2, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, 2, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Mean(nn.Module):
    """(b, t, d) -> the mean over t."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class LastOfGRU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.gru(x)[0][:, -1]
        return answer


class LastOfMamba(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = MambaLayer(width)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x)[:, -1]
        return answer


class OneToken(nn.Module):
    """The same token for every frame, (b, t, d), read by `reader`."""

    def __init__(self, reader: Callable[[int], nn.Module], width: int = 32) -> None:
        super().__init__()
        self.frames, self.token, self.reader = Frames(), MapToken(CHANNELS, width), reader(width)
        self.classifier = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.frames(x)
        tokens = self.token(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        logits: Tensor = self.classifier(self.reader(tokens))
        return logits


class DTM(nn.Module):
    """A DTM head over the frames, each with a token of its own."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.frames = Frames()
        self.head = DeepTemporalMamba([CHANNELS] * FRAMES, d_model=width, d_out=width, num_classes=10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.frames(x).unbind(1))
        return logits


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "mean over frames": lambda: OneToken(Mean),
    "GRU": lambda: OneToken(LastOfGRU),
    "Mamba": lambda: OneToken(LastOfMamba),
    "DTM": DTM,
}


def clips(part: Part, seed: int, noise: float = 0.2) -> Part:
    """A clip per digit of the part, which is seen first; some other digit of the part comes second."""
    draw = torch.Generator().manual_seed(seed)
    n, room = len(part), SIDE - DIGIT
    large = F.interpolate(part.inputs[0], size=(DIGIT, DIGIT), mode="bilinear")
    second = large[torch.randperm(n, generator=draw)]
    start, end = room * torch.rand(2, n, 2, generator=draw)
    frames = noise * torch.randn(n, FRAMES, 1, SIDE, SIDE, generator=draw)
    for t in range(FRAMES):
        places = (start + (end - start) * t / (FRAMES - 1)).round().int().tolist()
        shown = large if t < FRAMES // 2 else second
        for k, (row, col) in enumerate(places):
            frames[k, t, :, row : row + DIGIT, col : col + DIGIT] += shown[k]
    return Part((frames,), part.labels)


def run(seeds: Sequence[int], *, samples: int, epochs: int) -> list[Row]:
    """Accuracy and cost of each variant for each seed."""
    rows = []
    for seed in seeds:
        learn, test = (clips(part, seed + k) for k, part in enumerate(digits(samples, seed)))
        for name, made in VARIANTS.items():
            torch.manual_seed(seed)
            network = made()
            seconds = train(network, learn, epochs=epochs, seed=seed, rate=4e-3)
            rows.append(Row.of(name, network, test, seconds))
    return rows


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    print(table(run(args.seeds, samples=args.samples, epochs=args.epochs)))
