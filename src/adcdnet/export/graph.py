"""A model as one graph on tensors: raw MS and PAN pixels in, probabilities out. `mapping.engine` is the definition.

b tiles | B bands of ms, B' of pan | r ratio | K classes | h, w MS pixels of a tile, its halo not counted
s targets per MS pixel and axis: 1, or r where PAN pixels are the targets

    ms  (b, B, h + 2·halo, w + 2·halo)          in the units of the files, nan where there is no data
    pan (b, B', (h + 2·halo)·r, (w + 2·halo)·r)
    probabilities (b, K, h·s, w·s)              nan where a target lacks data

Inside: standardisation, every member with its weight and shares, the average with like neighbours, temperature, and the
operating point. Local class priors are not: they need the whole scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.export.trees import TreeOperations
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.mapping.members import Member, columns_of
from adcdnet.mapping.model import Model
from adcdnet.mapping.trees import Trees
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.context import CONTEXT_REACH, context_statistics
from adcdnet.nn.tile_adcdnet import TileADCDNet


class Standardise(nn.Module):
    """(x − mean) / deviation per band, and 0 where there is no data, by n statistics at once: (n, b, bands, ...).

    In double precision, as files are read for training: a tree asks on which side of a threshold a value lies. kinds:
    statistics, and "both" or the one sensor that is read; the other one is 0 throughout.
    """

    def __init__(self, kinds: Sequence[tuple[BandStatistics, str]]) -> None:
        super().__init__()
        for sensor in ("ms", "pan"):
            for what in ("mean", "deviation"):
                values = [getattr(statistics, f"{sensor}_{what}") for statistics, _ in kinds]
                self.register_buffer(f"{sensor}_{what}", _images(torch.tensor(values, dtype=torch.float64)))
            read = torch.tensor([[sensors in ("both", sensor)] for _, sensors in kinds])
            self.register_buffer(f"{sensor}_read", _images(read))

    def forward(self, sensor: str, x: Tensor, there: Tensor) -> Tensor:
        """sensor: "ms" or "pan". there (b, 1, ...): where every band has data."""
        mean, deviation, read = (self.get_buffer(f"{sensor}_{what}") for what in ("mean", "deviation", "read"))
        scaled = ((torch.where(there, x, 0.0).double() - mean) / deviation).float()
        return torch.where(there & read, scaled, 0.0)


def _images(x: Tensor) -> Tensor:
    """(n, bands) -> (n, 1, bands, 1, 1)."""
    return x[:, None, :, None, None]


class OfTiles(nn.Module):
    """A network over tiles whose first target lies on its lattice.

    As `TileADCDNet.forward`, but a whole cell of the lattice is always added and what is too much cut off again: a
    graph whose sizes are free has no branch for tiles that end on a lattice line.
    """

    def __init__(self, network: TileADCDNet, margin: int) -> None:
        super().__init__()
        self.network, self.reach, self.ratio = network, network.config.reach, network.layout.ratio
        self.step = network.config.targets_per_pixel(self.ratio)
        self.lattice = network.config.lattice
        self.before = -(margin + self.reach) % self.lattice  # from a lattice line to the first pixel of the halo

    def forward(self, ms: Tensor, pan: Tensor, statistics: Tensor) -> Tensor:
        sides = [-(-(self.before + n) // self.lattice) * self.lattice for n in ms.shape[2:]]
        padded = []
        for x, scale in ((ms, 1), (pan, self.ratio)):
            x = F.pad(x, [scale * self.before, scale * self.lattice] * 2)
            padded.append(x[:, :, : scale * sides[0], : scale * sides[1]])
        logits = self.network.share(padded[0], padded[1], border=0).main
        first = self.step * (self.before + self.reach)
        height, width = (self.step * (n - 2 * self.reach) for n in ms.shape[2:])
        logits = _part(logits, (first, first), (height, width))
        branch = self.network.context_branch
        if branch is not None:
            context = branch(statistics.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            context = context.repeat_interleave(self.step, 2).repeat_interleave(self.step, 3)
            logits = logits + self.network.config.context_branch * context
        return logits


class OfPatches(nn.Module):
    """A network over patches: one is cut around every target, and all are classified together."""

    def __init__(self, network: ADCDNet) -> None:
        super().__init__()
        config = network.config
        self.network, self.reach, self.ratio = network, config.reach, network.layout.ratio
        self.step = config.targets_per_pixel(self.ratio)
        self.first, self.size = config.reach - config.before, config.size

    def forward(self, ms: Tensor, pan: Tensor, statistics: Tensor) -> Tensor:
        height, width = (side - 2 * self.reach for side in ms.shape[2:])
        first_pan = self.first * self.ratio - self.step // 2  # of the first phase, see `Window.around`
        of_ms = cut(ms, (height, width), self.size, first=self.first, apart=1)
        of_pan = cut(
            pan,
            (height * self.step, width * self.step),
            self.size * self.ratio,
            first=first_pan,
            apart=self.ratio // self.step,
        )
        if self.step > 1:
            of_ms = of_ms.repeat_interleave(self.step, 1).repeat_interleave(self.step, 2)
        logits = self.network(of_ms.flatten(0, 2), of_pan.flatten(0, 2)).main
        shape = (ms.shape[0], height * self.step, width * self.step, logits.shape[1])
        answered: Tensor = logits.view(shape).permute(0, 3, 1, 2)
        return answered


def cut(x: Tensor, targets: tuple[int, int], size: int, *, first: int, apart: int) -> Tensor:
    """Patches (b, h, w, bands, size, size) of x (b, bands, ...), one for each of h × w targets that lie `apart`."""
    rows, cols = (
        (first + apart * torch.arange(n, device=x.device)[:, None] + torch.arange(size, device=x.device)).flatten()
        for n in targets
    )
    height, width = targets
    x = x.index_select(2, rows).index_select(3, cols)
    return x.view(x.shape[0], x.shape[1], height, size, width, size).permute(0, 2, 4, 1, 3, 5)


class OfStatistics(nn.Module):
    """Trees or a perceptron, which see context statistics of MS pixels."""

    def __init__(self, member: Member, ms_bands: int, pan_bands: int) -> None:
        super().__init__()
        assert member.network is None
        classifier = member.classifier
        self.classifier = TreeOperations(classifier) if isinstance(classifier, Trees) else classifier
        self.columns = columns_of(member.sensors, ms_bands, pan_bands)

    def forward(self, ms: Tensor, pan: Tensor, statistics: Tensor) -> Tensor:
        statistics = statistics[:, self.columns]
        b, f, height, width = statistics.shape
        logits: Tensor = self.classifier(statistics.permute(0, 2, 3, 1).reshape(-1, f))
        return logits.view(b, height, width, -1).permute(0, 3, 1, 2)


class Graph(nn.Module):
    """A model at one operating point: forward(ms, pan) -> probabilities, see the top of the file.

    halo: MS pixels around a tile. lattice: the first target of a tile must lie at a multiple of so many MS pixels.
    tau, prior: as of `predict`.
    """

    def __init__(self, model: Model, *, tau: float = 1.0, prior: Sequence[float] | None = None) -> None:
        super().__init__()
        layout, answers = model.layout, model.answers
        self.ratio, self.step, self.border, self.margin = layout.ratio, model.step, model.border, answers.margin
        self.halo, self.classes = model.reach, layout.classes
        configs = (n.config for n in model.networks if isinstance(n, TileADCDNet))
        self.lattice = max((config.lattice for config in configs), default=1)
        self.smooth, self.likeness, self.temperature = answers.smooth, answers.likeness, model.temperature
        self.sensors = model.members[0].sensors
        members = [member for member in model.members if member.weight]
        kinds = [(model.statistics, self.sensors), *((member.statistics, member.sensors) for member in members)]
        different = list(dict.fromkeys(kinds))
        self.standardise = Standardise(different)
        self.reads = [different.index(kind) for kind in kinds[1:]]
        self.members = nn.ModuleList(_operations(member, model) for member in members)
        self.reaches, self.weights = [member.reach for member in members], [member.weight for member in members]
        drawn = np.array([member.drawn_shares for member in members], np.float32)
        self.register_buffer("drawn", torch.from_numpy(np.log(drawn))[:, :, None, None])
        shares = np.asarray(model.label_shares if prior is None else prior)
        shift = torch.from_numpy((tau * np.log(shares)).astype(np.float32))
        self.register_buffer("shift", shift[:, None, None])
        self.drawn: Tensor
        self.shift: Tensor
        self.eval().requires_grad_(False)

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        ms_there, pan_there = (torch.isfinite(x).all(1, keepdim=True) for x in (ms, pan))
        kinds, b = self.standardise("ms", ms, ms_there), ms.shape[0]
        of_ms, of_pan = kinds.flatten(0, 1), self.standardise("pan", pan, pan_there).flatten(0, 1)
        inner = self._inner(of_ms, of_pan, self.border - CONTEXT_REACH)
        statistics = context_statistics(*inner, self.ratio)
        statistics, of_pan = (x.view(len(kinds), b, *x.shape[1:]) for x in (statistics, of_pan))
        images = list(zip(kinds, of_pan, strict=True))
        total = torch.zeros(())
        each = zip(self.members, self.reaches, self.reads, self.weights, self.drawn, strict=True)
        for member, reach, reads, weight, drawn in each:
            inner = self._inner(*images[reads], self.border - reach)
            total = total + weight * (member(*inner, statistics[reads]) - drawn)
        given = _trimmed(self._given(ms_there, pan_there), self.border * self.step)
        if self.smooth:
            total = self._smoothed(total, self._looks(*images[0]), given)
            given = _trimmed(given, self.margin * self.step)
        z = (total - total.amax(1, keepdim=True) + self.shift) / self.temperature
        p = torch.softmax(z, 1)
        return torch.where(given, p, torch.full_like(p, torch.nan))

    def _inner(self, ms: Tensor, pan: Tensor, edge: int) -> tuple[Tensor, Tensor]:
        """Without so many MS pixels at every edge."""
        return _trimmed(ms, edge), _trimmed(pan, edge * self.ratio)

    def _given(self, ms_there: Tensor, pan_there: Tensor) -> Tensor:
        """(b, 1, ...) of the targets on all pixels: the MS pixel and all PAN pixels on a target have data."""
        missing = F.max_pool2d((~pan_there).float(), self.ratio // self.step)
        ms_missing = (~ms_there).float().repeat_interleave(self.step, 2).repeat_interleave(self.step, 3)
        return (missing + ms_missing) == 0

    def _looks(self, ms: Tensor, pan: Tensor) -> Tensor:
        """`mapping.smoothing.looks` of a batch."""
        seen = []
        if self.sensors != "pan":
            seen.append(ms.repeat_interleave(self.step, 2).repeat_interleave(self.step, 3))
        if self.sensors != "ms":
            seen.append(F.avg_pool2d(pan, self.ratio // self.step))
        return _trimmed(torch.cat(seen, 1), self.border * self.step)

    def _smoothed(self, logits: Tensor, look: Tensor, given: Tensor) -> Tensor:
        """`mapping.smoothing.smooth`, without the margin."""
        edge, counts, reach = self.margin * self.step, given.float(), ceil(self.smooth)
        scale = 1 / (self.likeness * sqrt(2 * look.shape[1])) if self.likeness else 0.0
        bands, values = look.shape[1], logits.shape[1] + 1
        layers = torch.cat((look * scale, logits * counts, counts), 1)
        height, width = (n - 2 * edge for n in layers.shape[2:])
        own, total = _trimmed(look * scale, edge), torch.zeros(())  # total: of values, then of weights
        across = torch.tensor([right**2 / (2 * self.smooth**2) for right in range(-reach, reach + 1)])
        across = across[:, None, None, None, None]
        for down in range(-reach, reach + 1):  # a row of neighbours together: every step of a graph takes long to write
            rows = layers.narrow(2, edge + down, height)
            shifted = torch.stack([rows.narrow(3, edge + right, width) for right in range(-reach, reach + 1)])
            unlike = (own - shifted.narrow(2, 0, bands)).square().sum(2, keepdim=True)
            weight = (-(across + down**2 / (2 * self.smooth**2)) - unlike).exp()
            total = total + (weight * shifted.narrow(2, bands, values)).sum(0)
        return total[:, :-1] / total[:, -1:].clamp_min(1.0)


def _trimmed(x: Tensor, edge: int) -> Tensor:
    """Without so many rows and columns at every edge."""
    return _part(x, (edge, edge), (x.shape[2] - 2 * edge, x.shape[3] - 2 * edge))


def _part(x: Tensor, first: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Rows and columns of images. Not by slices, which end where an image does: their sizes could not be followed."""
    return x.narrow(2, first[0], size[0]).narrow(3, first[1], size[1])


def _operations(member: Member, model: Model) -> nn.Module:
    network = member.network
    if isinstance(network, TileADCDNet):
        return OfTiles(network, model.answers.margin)
    if isinstance(network, ADCDNet):
        return OfPatches(network)
    return OfStatistics(member, model.layout.ms_bands, model.layout.pan_bands)
