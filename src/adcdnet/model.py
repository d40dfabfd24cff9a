"""The two networks: PriorNet, which stage I trains, and ADCDNet, which stage II trains and which makes the map.

n target pixels | B bands of ms, B' of pan | r ratio | p patch side | g cells a side (9 for p = 17) | c channels
K classes
F_ms, F_pan (n, c, g, g) features after DIA     W = σ(F of the prior network) prior masks     s prior tokens

    F'   = ReLU(W·F + F)                                        both sensors
    main = decision(head(F'_ms, F'_pan))                        the answer; the map is made of this alone
    L    = L_main + λ (L_ms + L_pan)                            L_ms, L_pan: cross-entropy of the DTM branches

Source: ADCD-Net, IEEE TGRS 2025. Deviations of the `default` profile, each with its reason, are in docs/method.md.

Every network can be applied in two ways that give the same numbers: to patches, one per target pixel (`forward`, the
definition), and `on_tile`, which convolves a tile once for all target pixels in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.config import NetworkConfig
from adcdnet.nn.backbone import Backbone
from adcdnet.nn.context import CONTEXT_REACH, Context
from adcdnet.nn.dia import DeformableInteractiveAttention
from adcdnet.nn.dtm import DeepTemporalMamba, MapDepth, MapToken

CORE = 3  # cells a side around the target that the centre head looks at


class Targets(NamedTuple):
    """Pixels of a batch of tiles to classify: index of the tile, row and column in it, each (n,) int64."""

    tile: Tensor
    row: Tensor
    col: Tensor


class View(NamedTuple):
    """What one sensor's encoder gives for n target pixels."""

    tap: Tensor  # (n, c_1) the first depth at the target pixel itself, full coarse resolution
    depths: list[Tensor]  # the depths over the patch as the DTM takes them; empty if it is not run
    attended: Tensor  # (n, c, g, g) F, or only its core (n, c, 3, 3) if that is all the answer needs


class Outputs(NamedTuple):
    """Logits (n, K). The DTM branches are None where they are not run."""

    main: Tensor
    ms: Tensor | None
    pan: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a network must know of its data."""

    ms_bands: int
    pan_bands: int
    ratio: int
    classes: int


class Encoder(nn.Module):
    """Backbone and DIA of one sensor. `ratio` marks the fine sensor of a 'valid' network."""

    def __init__(
        self,
        bands: int,
        config: NetworkConfig,
        *,
        ratio: int | None,
        strides: Sequence[int],
        scales: tuple[float, float],
    ) -> None:
        super().__init__()
        self.backbone = Backbone(
            bands,
            config.widths,
            strides=strides,
            unit=config.backbone,
            padding=config.padding,
            ratio=ratio,
            squeeze_excite=config.squeeze_excite,
        )
        self.dia = DeformableInteractiveAttention(*scales) if config.dia else None
        self.patch, self.valid, self.pool = config.patch, config.padding == "valid", config.token == "pool"
        self.cells = config.patch // 2 + 1 if self.valid else config.patch // 2

    def attend(self, cells: Tensor) -> Tensor:
        """F of whole patches (n, c, g, g)."""
        return F.relu(cells) if self.dia is None else self.dia(cells)

    def forward(self, x: Tensor, *, tokens: bool) -> View:
        """Patches (n, bands, h, w), one per target pixel."""
        depths = self.backbone(x)
        middle = depths[0].shape[-1] // 2
        maps = []
        if tokens:
            for depth, side in zip(depths, (self.patch, self.cells, self.cells), strict=True):
                maps.append(_crop(depth, side) if self.valid else depth)
        if tokens and self.pool:
            maps = [F.adaptive_avg_pool2d(m, 4) for m in maps]
        return View(depths[0][:, :, middle, middle], maps, self.attend(depths[-1]))

    def on_tile(self, x: Tensor, targets: Targets, *, tokens: bool, core: bool) -> View:
        """Tiles (b, bands, h, w) with a halo of the network's reach -> the same for each target pixel."""
        first, second, last = self.backbone.shared(x)
        tap = _gather(first, targets, side=1, step=1, reach=self.patch // 2 + 3)[:, :, 0, 0]
        maps = []
        if tokens:
            spread = self.patch // 8  # the pooled 4×4 windows lie 2·spread pixels apart and overlap by one cell
            for depth, cell, reach in ((first, 1, 3), (second, 2, 2), (last, 2, 0)):
                margin = self.patch // 2 + reach
                if self.pool:
                    window = 2 * spread // cell + 1
                    depth, margin = _box_mean(depth, window, cell), margin - spread
                    maps.append(_gather(depth, targets, side=4, step=2 * spread, reach=margin))
                else:
                    side = self.patch // cell + cell // 2 if cell == 2 else self.patch
                    maps.append(_gather(depth, targets, side=side, step=cell, reach=margin))
        reach = self.patch // 2
        if not core:
            return View(tap, maps, self.attend(_gather(last, targets, side=self.cells, step=2, reach=reach)))
        cells = _gather(last, targets, side=CORE, step=2, reach=reach)
        if self.dia is None:
            return View(tap, maps, F.relu(cells))
        pooled = torch.cat([last.mean(1, keepdim=True), last.amax(1, keepdim=True)], dim=1)
        mean, maximum = _gather(pooled, targets, side=self.cells, step=2, reach=reach).split(1, dim=1)
        return View(tap, maps, F.relu(cells * _crop(self.dia.mask_of(mean, maximum), CORE)))


def _crop(x: Tensor, side: int) -> Tensor:
    """The central side × side positions of (n, c, h, w)."""
    trim = (x.shape[-1] - side) // 2
    return F.pad(x, (-trim, -trim, -trim, -trim))


def _gather(x: Tensor, targets: Targets, *, side: int, step: int, reach: int) -> Tensor:
    """Values (n, c, side, side) around each target, `step` positions apart, from maps (b, c, h, w).

    reach: by how many positions the maps begin before the first target row and column of a tile.
    """
    _, c, h, w = x.shape
    offset = torch.arange(side, device=x.device) * step + reach - (side - 1) * step // 2
    row = (targets.tile * h + targets.row)[:, None] + offset  # (n, side)
    index = row[:, :, None] * w + (targets.col[:, None] + offset)[:, None, :]  # (n, side, side)
    flat = x.permute(0, 2, 3, 1).reshape(-1, c)
    return flat.index_select(0, index.flatten()).view(-1, side, side, c).permute(0, 3, 1, 2)


def _box_mean(x: Tensor, window: int, step: int) -> Tensor:
    """Mean over window × window values that lie `step` positions apart; 'valid'."""
    for axis in (2, 3):
        length = x.shape[axis] - (window - 1) * step
        total = x.narrow(axis, 0, length)
        for k in range(1, window):
            total = total + x.narrow(axis, k * step, length)
        x = total / window
    return x


class _TwoSensors(nn.Module):
    """An encoder for each sensor. MS and PAN differ in the strides and in which part of DIA is damped."""

    def __init__(self, config: NetworkConfig, layout: Layout) -> None:
        super().__init__()
        fine_strides, stem = ((1, 2, 1), layout.ratio) if config.padding == "valid" else ((2, 2, 2), None)
        if stem is None and layout.ratio != 4:
            raise ValueError(f"a zero-padded network works at ratio 4 only, got {layout.ratio}; use padding 'valid'")
        self.ms = Encoder(layout.ms_bands, config, ratio=None, strides=(1, 2, 1), scales=(0.4, 0.1))
        self.pan = Encoder(layout.pan_bands, config, ratio=stem, strides=fine_strides, scales=(0.1, 0.4))

    def views(self, ms: Tensor, pan: Tensor, *, tokens: bool) -> tuple[View, View]:
        return self.ms(ms, tokens=tokens), self.pan(pan, tokens=tokens)

    def views_on_tile(
        self, ms: Tensor, pan: Tensor, targets: Targets, *, tokens: bool, core: bool
    ) -> tuple[View, View]:
        return (
            self.ms.on_tile(ms, targets, tokens=tokens, core=core),
            self.pan.on_tile(pan, targets, tokens=tokens, core=core),
        )


class PriorNet(_TwoSensors):
    """The network of stage I: F_ms and F_pan of a patch, and the prior masks made of them.

    The masks are σ of the features standardised by `mean` and `deviation` per sensor and channel, which stage I
    measures on its training samples at its end (0 and 1 leave the features as they are: the published mask).
    """

    def __init__(self, config: NetworkConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.register_buffer("mean", torch.zeros(2, config.widths[-1]))
        self.register_buffer("deviation", torch.ones(2, config.widths[-1]))
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """Patches -> F_ms, F_pan."""
        view_ms, view_pan = self.views(ms, pan, tokens=False)
        return view_ms.attended, view_pan.attended

    def on_tile(self, ms: Tensor, pan: Tensor, targets: Targets, *, core: bool) -> tuple[Tensor, Tensor]:
        """Tiles -> the same at every target, or only its core."""
        view_ms, view_pan = self.views_on_tile(ms, pan, targets, tokens=False, core=core)
        return view_ms.attended, view_pan.attended

    def standardise(self, features: Tensor, sensor: int) -> Tensor:
        """F minus `mean`, over `deviation`; sensor 0 is ms, 1 is pan."""
        return (features - self.mean[sensor, :, None, None]) / self.deviation[sensor, :, None, None]


class Decision(nn.Module):
    """(n, hidden) -> LayerNorm, ReLU, Dropout, Linear -> logits (n, K)."""

    def __init__(self, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(F.relu(self.norm(x))))
        return logits


class FlattenHead(nn.Module):
    """The published fusion: flatten(F'_ms) + flatten(F'_pan) -> Linear -> (n, hidden)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        cells = config.patch // 2 + (config.padding == "valid")
        self.linear = nn.Linear(config.widths[-1] * cells**2, config.hidden)

    def forward(self, f_ms: Tensor, f_pan: Tensor) -> Tensor:
        hidden: Tensor = self.linear((f_ms + f_pan).flatten(1))
        return hidden


class CentreHead(nn.Module):
    """What lies at the target pixel counts most: the centre cell and the full-resolution tap of both sensors, mean and
    deviation of the 3×3 cells around it, and context statistics of the inputs -> Linear -> (n, hidden).
    """

    def __init__(self, config: NetworkConfig, layout: Layout) -> None:
        super().__init__()
        self.context = Context(layout.ms_bands, layout.pan_bands, layout.ratio, hidden=config.hidden)
        first, last = config.widths[0], config.widths[-1]
        self.linear = nn.Linear(2 * (3 * last + first) + config.hidden, config.hidden)

    def forward(self, f_ms: Tensor, f_pan: Tensor, tap_ms: Tensor, tap_pan: Tensor, statistics: Tensor) -> Tensor:
        parts = [tap_ms, tap_pan]
        for core in (_crop(f_ms, CORE), _crop(f_pan, CORE)):
            mean = core.mean((2, 3))
            deviation = ((core - mean[:, :, None, None]).square().mean((2, 3)) + 1e-4).sqrt()
            parts += [core[:, :, CORE // 2, CORE // 2], mean, deviation]
        hidden: Tensor = self.linear(torch.cat([*parts, self.context(statistics)], dim=1))
        return hidden


class ADCDNet(nn.Module):
    """The network of stage II. The prior network inside it is frozen and always in eval mode.

    forward(ms, pan): patches (n, B, h, h) and (n, B', h·r, h·r), h = before + 1 + after of the settings.
    branches: run the DTM branches too (training and explanation); the map needs the main logits only.
    ValueError for a zero-padded network at a ratio other than 4.
    """

    def __init__(self, config: NetworkConfig, layout: Layout) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        self.sensors = _TwoSensors(config, layout)
        self.prior = PriorNet(config, layout).requires_grad_(False).eval() if config.prior else None
        self.centre = CentreHead(config, layout) if config.head == "centre" else None
        self.flatten = FlattenHead(config) if config.head == "flatten" else None
        self.decision = Decision(config.hidden, layout.classes, config.dropout)
        self.dtm = nn.ModuleDict()
        self.branch_decision = nn.ModuleDict()
        self.prior_token = nn.ModuleDict()
        if config.dtm:
            for sensor, d in zip(("ms", "pan"), config.token_dims, strict=True):
                self._add_branch(sensor, d)

    def _add_branch(self, sensor: str, d: int) -> None:
        config = self.config
        cells = config.patch // 2 + (config.padding == "valid")
        sides = (config.patch, cells, cells, cells)
        if config.padding == "zeros" and sensor == "pan":  # strides 2, 2, 2 from ratio 4
            sides = (2 * config.patch, config.patch, cells, cells)
        widths = (*config.widths, config.widths[-1])
        depths = [MapDepth(c, (side, side)) for c, side in zip(widths, sides, strict=True)]
        self.dtm[sensor] = DeepTemporalMamba(
            depths,
            d_model=d,
            num_classes=None,
            d_out=config.hidden,
            prior="last" if config.prior else None,
            token=config.token,
        )
        if config.prior:
            token = MapToken(config.widths[-1], (cells, cells), d, config.token)
            self.prior_token[sensor] = token.requires_grad_(config.learn_prior_token)
        self.branch_decision[sensor] = (
            self.decision if config.shared_decision else Decision(config.hidden, self.layout.classes, config.dropout)
        )

    def train(self, mode: bool = True) -> ADCDNet:
        super().train(mode)
        if self.prior is not None:
            self.prior.eval()
        return self

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that stage II changes."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def forward(self, ms: Tensor, pan: Tensor, *, branches: bool = False) -> Outputs:
        branches = branches and bool(self.dtm)
        views = self.sensors.views(ms, pan, tokens=branches)
        prior = None
        if self.prior is not None:
            with torch.no_grad():
                prior = self.prior(ms, pan)
        statistics = None
        if self.centre is not None:
            side = 2 * CONTEXT_REACH + 1
            statistics = self.centre.context.statistics(_crop(ms, side), _crop(pan, side * self.layout.ratio))
            statistics = statistics.flatten(1)
        return self._answer(views, prior, statistics, branches=branches)

    def on_tile(self, ms: Tensor, pan: Tensor, targets: Targets, *, branches: bool = False) -> Outputs:
        """Tiles (b, B, h, w) and (b, B', h·r, w·r), each with a halo of `reach` on every side -> logits per target.

        Equal to `forward` on the patches around the targets (in eval mode; in training mode BatchNorm takes its
        statistics from the tiles). ValueError if the network cannot be shared.
        """
        branches = branches and bool(self.dtm)
        core = self.centre is not None and not branches
        views = self.sensors.views_on_tile(ms, pan, targets, tokens=branches, core=core)
        prior = None
        if self.prior is not None:
            with torch.no_grad():
                prior = self.prior.on_tile(ms, pan, targets, core=core)
        statistics = None
        if self.centre is not None:
            trim = self.config.reach - CONTEXT_REACH
            fine = trim * self.layout.ratio
            maps = self.centre.context.statistics(
                F.pad(ms, (-trim, -trim, -trim, -trim)), F.pad(pan, (-fine, -fine, -fine, -fine))
            )
            statistics = _gather(maps, targets, side=1, step=1, reach=0).flatten(1)
        return self._answer(views, prior, statistics, branches=branches)

    def _answer(
        self,
        views: tuple[View, View],
        prior: tuple[Tensor, Tensor] | None,
        statistics: Tensor | None,
        *,
        branches: bool,
    ) -> Outputs:
        fused = []
        for i, view in enumerate(views):
            f = view.attended
            if self.prior is not None and prior is not None:
                mask = torch.sigmoid(self.prior.standardise(prior[i], i))
                f = F.relu(mask * f + f)
            fused.append(f)
        if self.centre is not None and statistics is not None:
            hidden = self.centre(fused[0], fused[1], views[0].tap, views[1].tap, statistics)
        else:
            assert self.flatten is not None
            hidden = self.flatten(fused[0], fused[1])
        logits: list[Tensor | None] = [None, None]
        if branches:
            for i, sensor in enumerate(("ms", "pan")):
                token = None
                if self.prior is not None and prior is not None:
                    token = self.prior_token[sensor](self.prior.standardise(prior[i], i))
                sequence = self.dtm[sensor]([*views[i].depths, views[i].attended], token)
                logits[i] = self.branch_decision[sensor](sequence[:, -1])
        return Outputs(self.decision(hidden), logits[0], logits[1])
