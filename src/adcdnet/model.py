"""The two networks: PriorNet, which stage I trains, and ADCDNet, which stage II trains and which makes the map.

n target pixels | B bands of ms, B' of pan | r ratio | p patch side | g cells a side (9 for p = 17) | c channels
K classes
context (n, K) log likelihoods of the context branch, w its weight; it learns by itself, the rest learns without it
F_ms, F_pan (n, c, g, g) features after DIA     W = σ(F of the prior network) prior masks     s prior tokens

    F'   = ReLU(W·F + F)                                        both sensors
    main = decision(head(F'_ms, F'_pan)) + w · context          the answer; the map is made of this alone
    L    = L_main + λ (L_ms + L_pan)                            L_ms, L_pan: cross-entropy of the DTM branches

Source: ADCD-Net, IEEE TGRS 2025. Deviations of the `default` profile, each with its reason, are in docs/method.md.

Every network can be applied in two ways that give the same numbers: to patches, one per target pixel (`forward`, the
definition), and `on_tile`, which convolves a tile once for all target pixels in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.config import NetworkConfig
from adcdnet.nn.backbone import Backbone
from adcdnet.nn.cbam import SpatialAttention
from adcdnet.nn.context import CONTEXT_REACH, Context, ContextBranch
from adcdnet.nn.dia import DeformableInteractiveAttention
from adcdnet.nn.dtm import DeepTemporalMamba, MapDepth, MapToken, to_grid
from adcdnet.nn.fusion import fusion_of
from adcdnet.nn.shared import Attention, Masks, Places, Targets, as_map, box_mean, cells_of, mask_operator

CORE = 3  # cells a side around the target that the centre head looks at


class View(NamedTuple):
    """What one sensor's encoder gives the main branch for n patches."""

    tap: Tensor  # (n, c_1) the first depth at the target pixel itself, full coarse resolution
    attended: Tensor  # (n, c, g, g) F


class SensorMaps(NamedTuple):
    """What the target pixels of a tile share of one sensor, at every position."""

    depths: list[Tensor]  # (b, c_k, h_k, w_k); the prior network keeps none
    cells: Tensor  # (b, c, h, w) ReLU of the last depth; F is this times the attention's mask, which is positive
    pooled: Tensor  # (b, 2, h, w) mean and maximum over the channels of the last depth, for the attention
    mask: Masks | None  # None without attention


class Shared(NamedTuple):
    """What the target pixels of a batch of tiles share: `ADCDNet.share` makes it, `classify` reads it."""

    sensors: tuple[SensorMaps, SensorMaps]
    prior: tuple[SensorMaps, SensorMaps] | None
    statistics: Tensor | None  # (b, f, h, w) context statistics of the inputs


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
    """Backbone and attention of one sensor. `ratio` marks the fine sensor of a network with a stem."""

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
        self.attention = _attention(config.attention, scales)
        self.patch, self.valid, self.pool = config.patch, config.padding == "valid", config.token == "pool"
        self.cells = config.patch // 2 + 1 if self.valid else config.patch // 2

    def attend(self, cells: Tensor) -> Tensor:
        """F of whole patches (n, c, g, g)."""
        return F.relu(cells) if self.attention is None else self.attention(cells)

    # Patch by patch: x (n, bands, h, w), one patch per target pixel

    def view(self, depths: list[Tensor]) -> View:
        middle = depths[0].shape[-1] // 2
        return View(depths[0][:, :, middle, middle], self.attend(depths[-1]))

    def tokens(self, depths: list[Tensor], attended: Tensor) -> list[Tensor]:
        """The maps that the DTM reads: every depth over the patch, then F."""
        maps = [*depths, attended]
        if self.valid:
            sides = (self.patch, self.cells, self.cells, self.cells)
            maps = [_crop(m, side) for m, side in zip(maps, sides, strict=True)]
        return [to_grid(m) for m in maps] if self.pool else maps

    # Shared: maps of whole tiles, of which the values around each target are read

    def share(self, x: Tensor) -> SensorMaps:
        """Tiles (b, bands, h, w) with a halo of the network's reach. ValueError if the network cannot be shared."""
        depths = self.backbone.shared(x)
        last = depths[-1]
        pooled = torch.stack((last.mean(1), last.amax(1)), dim=1)
        mask = None if self.attention is None else mask_operator(self.attention, self.cells)
        return SensorMaps(depths, last if self.backbone.rectified else F.relu(last), pooled, mask)

    def tap_at(self, maps: SensorMaps, places: Places) -> Tensor:
        """The first depth at every target itself, (*p, c_1)."""
        return places.cells(maps.depths[0], side=1, step=1, reach=self.patch // 2 + 3)[0]

    def cells_at(self, maps: SensorMaps, places: Places, side: int) -> Sequence[Tensor]:
        """The central side × side cells of every target before attention, (*p, c) each."""
        return places.cells(maps.cells, side=side, step=2, reach=self.patch // 2)

    def masks_at(self, maps: SensorMaps, places: Places, side: int) -> Sequence[Tensor] | None:
        """The attention's masks of these cells, (*p, 1) each; None without attention."""
        if maps.mask is None:
            return None
        pooled = places.windows(maps.pooled, side=self.cells, step=2, reach=self.patch // 2)
        return torch.split(maps.mask(pooled, side=side).view(*places.shape, side**2), 1, dim=-1)

    def attended_at(self, maps: SensorMaps, places: Places, side: int) -> Iterator[Tensor]:
        """F in the central side × side cells of every target, (*p, c) each."""
        cells, masks = self.cells_at(maps, places, side), self.masks_at(maps, places, side)
        return iter(cells) if masks is None else map(torch.mul, cells, masks)

    def tokens_at(self, maps: SensorMaps, targets: Targets, attended: Tensor) -> list[Tensor]:
        tokens = []
        for depth, cell, extra in zip(maps.depths, (1, 2, 2), (3, 2, 0), strict=True):
            reach, side = self.patch // 2 + extra, self.patch if cell == 1 else self.cells
            if self.pool and len(targets.tile) * side**2 > depth.numel() // depth.shape[1]:
                # many targets: means of all places first. The 4×4 windows of the pooling overlap by one cell; with
                # p = 8 m + 1 they lie 2 m pixels apart
                apart = self.patch // 4
                means = box_mean(depth, apart // cell + 1, cell)
                tokens.append(as_map(targets.cells(means, side=4, step=apart, reach=reach - apart // 2), 4))
            else:
                whole = as_map(targets.cells(depth, side=side, step=cell, reach=reach), side)
                tokens.append(to_grid(whole) if self.pool else whole)
        return [*tokens, to_grid(attended) if self.pool else attended]


def _attention(name: str, scales: tuple[float, float]) -> Attention | None:
    """scales: DIA's own."""
    match name:
        case "dia":
            return DeformableInteractiveAttention(*scales)
        case "cbam":
            return SpatialAttention()
        case "none":
            return None
    raise ValueError(f"attention is {name!r}; it must be 'dia', 'cbam' or 'none'")


def _crop(x: Tensor, side: int) -> Tensor:
    """The central side × side positions of (..., h, w), a view."""
    trim = (x.shape[-1] - side) // 2
    return x[..., trim : trim + side, trim : trim + side]


def _lift(f: Tensor, features: Tensor) -> Tensor:
    """F' = W·F + F. F >= 0 and the mask > 0, so that the ReLU of the formula changes nothing."""
    return torch.addcmul(f, f, torch.sigmoid(features))


class _TwoSensors(nn.Module):
    """An encoder for each sensor. MS and PAN differ in the strides and in which part of DIA is damped."""

    def __init__(self, config: NetworkConfig, layout: Layout) -> None:
        super().__init__()
        fine_strides, stem = ((1, 2, 1), layout.ratio) if config.stem else ((2, 2, 2), None)
        if stem is None and layout.ratio != 4:
            raise ValueError(f"a network without a stem works at ratio 4 only, got {layout.ratio}; use stem = true")
        self.ms = Encoder(layout.ms_bands, config, ratio=None, strides=(1, 2, 1), scales=(0.4, 0.1))
        self.pan = Encoder(layout.pan_bands, config, ratio=stem, strides=fine_strides, scales=(0.1, 0.4))


class PriorNet(_TwoSensors):
    """The network of stage I: F_ms and F_pan of a patch, standardised, of which the prior masks are the σ.

    `mean` and `deviation` (2, c), per sensor and channel, are measured on training samples at the end of stage I; 0 and
    1, as they begin, leave F as it is (the published mask).
    """

    def __init__(self, config: NetworkConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.register_buffer("mean", torch.zeros(2, config.widths[-1]))
        self.register_buffer("deviation", torch.ones(2, config.widths[-1]))
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """Patches -> (F_ms − mean) / deviation, the same of PAN."""
        f = self.ms.attend(self.ms.backbone(ms)[-1]), self.pan.attend(self.pan.backbone(pan)[-1])
        (scale, shift), image = self._affine(), (-1, 1, 1)
        standardised = [torch.addcmul(b.view(image), x, a.view(image)) for a, b, x in zip(scale, shift, f, strict=True)]
        return standardised[0], standardised[1]

    def share(self, ms: Tensor, pan: Tensor, *, of_ms: SensorMaps | None = None) -> tuple[SensorMaps, SensorMaps]:
        """Tiles -> maps, of which `features` takes what it needs at each target; their cells are scaled already.

        of_ms: the maps of these very ms, where they are known.
        """
        scale, _ = self._affine()
        if of_ms is None:
            of_ms = self.ms.share(ms)
            of_ms = of_ms._replace(depths=[], cells=of_ms.cells * scale[0].view(-1, 1, 1))
        of_pan = self.pan.share(pan)
        return of_ms, of_pan._replace(depths=[], cells=of_pan.cells * scale[1].view(-1, 1, 1))

    def features_at(
        self, maps: tuple[SensorMaps, SensorMaps], places: Places, side: int
    ) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
        """What `forward` gives, in the central side × side cells of targets of tiles, (*p, c) each, to be read once."""
        found = []
        for encoder, own, shift in zip((self.ms, self.pan), maps, self._affine()[1], strict=True):
            cells, masks = encoder.cells_at(own, places, side), encoder.masks_at(own, places, side)
            found.append(map(shift.add, cells) if masks is None else map(partial(torch.addcmul, shift), cells, masks))
        return found[0], found[1]

    def features(self, maps: tuple[SensorMaps, SensorMaps], targets: Targets) -> tuple[Tensor, Tensor]:
        """What `forward` gives, for targets of tiles."""
        side = self.ms.cells
        of_ms, of_pan = self.features_at(maps, targets, side)
        return as_map(of_ms, side), as_map(of_pan, side)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """scale and shift, (2, c) each, with which F becomes standardised."""
        scale = 1 / self.deviation
        return scale, -self.mean * scale


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
    """The published fusion: flatten(F'_ms + F'_pan) -> Linear -> (n, hidden); or another `fusion` than the sum.

    Flattened cell by cell, the channels of a cell side by side: a sum over cells, each with its part of the weights.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        cells = config.patch // 2 + (config.padding == "valid")
        self.cells = cells**2
        self.fuse = fusion_of(config.fusion, config.widths[-1])
        self.linear = nn.Linear(config.widths[-1] * cells**2, config.hidden)

    def forward(self, f_ms: Iterable[Tensor], f_pan: Iterable[Tensor]) -> Tensor:
        """Cells of patches, (*p, c) each -> (n, hidden)."""
        hidden: Tensor = self.linear.bias
        weight = self.linear.weight.view(len(hidden), self.cells, -1).unbind(1)
        for own, ms, pan in zip(weight, f_ms, f_pan, strict=True):
            fused = self.fuse(*(f.flatten(0, -2)[:, :, None, None] for f in (ms, pan))).flatten(1)
            if torch.is_autocast_enabled(fused.device.type):  # products in bf16, their sum in float32
                hidden = hidden + fused @ own.T
            else:
                hidden = torch.addmm(hidden, fused, own.T)
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

    def forward(
        self, f_ms: Iterable[Tensor], f_pan: Iterable[Tensor], tap_ms: Tensor, tap_pan: Tensor, statistics: Tensor
    ) -> Tensor:
        """The 3×3 cells around targets, (*p, c) each, taps (*p, c_1) and statistics (n, f) -> (n, hidden)."""
        parts = [tap_ms, tap_pan, *_moments(f_ms), *_moments(f_pan)]
        context = self.context(statistics).view(*tap_ms.shape[:-1], -1)
        hidden: Tensor = self.linear(torch.cat([*parts, context], dim=-1).flatten(0, -2))
        return hidden


def _moments(cells: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The one in the middle, mean and deviation of 3×3 cells (*p, c), which are read once, one after the other.

    Summed in float32 at least: of near values, squares rounded to bf16 leave nothing when the mean is taken off.
    """
    rest = iter(cells)
    middle = total = next(rest)
    total = total.to(torch.promote_types(total.dtype, torch.float32))
    squares = total * total
    for k, cell in enumerate(rest, start=1):
        total, squares = total + cell, torch.addcmul(squares, cell.to(total.dtype), cell.to(total.dtype))
        middle = cell if k == CORE**2 // 2 else middle
    mean = total / CORE**2
    return middle, mean, (squares / CORE**2 - mean * mean).clamp_min(0).add(1e-3).sqrt()


class ADCDNet(nn.Module):
    """The network of stage II. The prior network inside it is frozen and always in eval mode.

    forward(ms, pan): patches (n, B, h, h) and (n, B', h·r, h·r), h = before + 1 + after of the settings.
    branches: run the DTM branches too (training and explanation), on all patches or on so many of the first; the map
    needs the main logits only. In training mode main is without the context branch.
    ValueError for a network without a stem at a ratio other than 4.
    """

    def __init__(self, config: NetworkConfig, layout: Layout) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        self.sensors = _TwoSensors(config, layout)
        self.prior = PriorNet(config, layout).requires_grad_(False).eval() if config.prior else None
        self.centre = CentreHead(config, layout) if config.head == "centre" else None
        self.context_branch = None
        if self.centre is not None and config.context_branch:
            branch = ContextBranch(self.centre.context.features, layout.classes)
            self.context_branch = branch.requires_grad_(False)
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
        if not config.stem and sensor == "pan":  # strides 2, 2, 2 from ratio 4
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
            reader=config.reader,
        )
        if config.prior:
            token = MapToken(config.widths[-1], (cells, cells), d, config.token)
            self.prior_token[sensor] = token.requires_grad_(config.learn_prior_token)
        if not config.shared_decision:
            self.branch_decision[sensor] = Decision(config.hidden, self.layout.classes, config.dropout)

    def train(self, mode: bool = True) -> ADCDNet:
        super().train(mode)
        if self.prior is not None:
            self.prior.eval()
        return self

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that stage II changes."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def forward(self, ms: Tensor, pan: Tensor, *, branches: bool | int = False) -> Outputs:
        ms, pan = self._silence(ms, pan)
        depths = self.sensors.ms.backbone(ms), self.sensors.pan.backbone(pan)
        views = self.sensors.ms.view(depths[0]), self.sensors.pan.view(depths[1])
        prior = None
        if self.prior is not None:
            with torch.no_grad():
                prior = self.prior(ms, pan)
        statistics = None
        if self.centre is not None:
            side = self.config.before + 1 + self.config.after
            statistics = self.context_statistics(_crop(ms, side), _crop(pan, side * self.layout.ratio)).flatten(1)
        taps = views[0].tap, views[1].tap
        cells = self._cells_of(views[0].attended), self._cells_of(views[1].attended)
        lifting = None if prior is None else (self._cells_of(prior[0]), self._cells_of(prior[1]))
        main = self._main(cells, lifting, taps, statistics)
        if not (branches and self.dtm):
            return Outputs(main, None, None)
        first = slice(len(ms) if branches is True else branches)
        tokens = [
            encoder.tokens([depth[first] for depth in own], view.attended[first])
            for encoder, own, view in zip((self.sensors.ms, self.sensors.pan), depths, views, strict=True)
        ]
        known = None if prior is None else (prior[0][first], prior[1][first])
        return Outputs(main, *self._branches((tokens[0], tokens[1]), known))

    # Shared. In eval mode equal to `forward` on the patches around the targets; in training mode BatchNorm takes its
    # statistics from the tiles.

    def share(self, ms: Tensor, pan: Tensor, *, same_ms: Shared | None = None) -> Shared:
        """Tiles (b, B, h, w) and (b, B', h·r, w·r), each with a halo of `before` MS pixels on every side.

        same_ms: what these very ms shared with another pan; their maps are taken from it.
        ValueError if the network cannot be shared.
        """
        ms, pan = self._silence(ms, pan)
        prior = None
        if self.prior is not None:
            with torch.no_grad():
                known = None if same_ms is None or same_ms.prior is None else same_ms.prior[0]
                prior = self.prior.share(ms, pan, of_ms=known)
        statistics = None if self.centre is None else self.context_statistics(ms, pan)
        of_ms = self.sensors.ms.share(ms) if same_ms is None else same_ms.sensors[0]
        return Shared((of_ms, self.sensors.pan.share(pan)), prior, statistics)

    def classify(self, shared: Shared, places: Places) -> Tensor:
        """Main logits (n, K) at targets anywhere, or at those of some rows, row by row."""
        side = CORE if self.centre is not None else self.sensors.ms.cells
        (ms, pan), (of_ms, of_pan) = (self.sensors.ms, self.sensors.pan), shared.sensors
        cells = ms.attended_at(of_ms, places, side), pan.attended_at(of_pan, places, side)
        prior = None
        if self.prior is not None and shared.prior is not None:
            with torch.no_grad():  # masks now, cells when they are read: both are frozen, so neither has a gradient
                prior = self.prior.features_at(shared.prior, places, side)
        statistics = None
        if shared.statistics is not None:
            statistics = places.windows(shared.statistics, side=1, step=1, reach=0)
        return self._main(cells, prior, (ms.tap_at(of_ms, places), pan.tap_at(of_pan, places)), statistics)

    def classify_branches(self, shared: Shared, targets: Targets) -> tuple[Tensor, Tensor]:
        """Logits (n, K) of the DTM branches, MS and PAN. They cost far more than the main branch."""
        tokens = []
        for encoder, maps in zip((self.sensors.ms, self.sensors.pan), shared.sensors, strict=True):
            attended = as_map(encoder.attended_at(maps, targets, encoder.cells), encoder.cells)
            tokens.append(encoder.tokens_at(maps, targets, attended))
        prior = None
        if self.prior is not None and shared.prior is not None:
            with torch.no_grad():
                prior = self.prior.features(shared.prior, targets)
        return self._branches((tokens[0], tokens[1]), prior)

    def on_tile(self, ms: Tensor, pan: Tensor, targets: Targets, *, branch_targets: Targets | None = None) -> Outputs:
        """Share and classify in one go; the DTM branches only at `branch_targets`."""
        shared = self.share(ms, pan)
        main = self.classify(shared, targets)
        if branch_targets is None or not self.dtm:
            return Outputs(main, None, None)
        return Outputs(main, *self.classify_branches(shared, branch_targets))

    def context_statistics(self, ms: Tensor, pan: Tensor) -> Tensor:
        """Tiles as for `share` -> (b, f, h, w) at their targets. ValueError for a head that has none."""
        if self.centre is None:
            raise ValueError("context statistics belong to head 'centre'")
        trim = self.config.before - CONTEXT_REACH
        coarse, fine = slice(trim, -trim), slice(trim * self.layout.ratio, -trim * self.layout.ratio)
        ms, pan = self._silence(ms, pan)
        return self.centre.context.statistics(ms[:, :, coarse, coarse], pan[:, :, fine, fine])

    def _silence(self, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros, the training mean, in place of a sensor that this network is to do without."""
        only = self.config.sensors
        return ms if only != "pan" else torch.zeros_like(ms), pan if only != "ms" else torch.zeros_like(pan)

    def _cells_of(self, x: Tensor) -> Sequence[Tensor]:
        """The cells (n, c) of maps (n, c, g, g) that the head looks at."""
        return cells_of(x if self.centre is None else _crop(x, CORE))

    def _main(
        self,
        cells: tuple[Iterable[Tensor], Iterable[Tensor]],
        prior: tuple[Iterable[Tensor], Iterable[Tensor]] | None,
        taps: tuple[Tensor, Tensor],
        statistics: Tensor | None,
    ) -> Tensor:
        """Logits (n, K) from F cell by cell and, likewise, the features of the prior network, of which W is the σ."""
        f_ms, f_pan = cells if prior is None else (map(_lift, f, g) for f, g in zip(cells, prior, strict=True))
        if self.centre is not None and statistics is not None:
            hidden = self.centre(f_ms, f_pan, *taps, statistics)
        else:
            assert self.flatten is not None
            hidden = self.flatten(f_ms, f_pan)
        logits: Tensor = self.decision(hidden)
        if self.context_branch is not None and not self.training:
            logits = logits + self.config.context_branch * self.context_branch(statistics)
        return logits

    def _branches(
        self, tokens: tuple[list[Tensor], list[Tensor]], prior: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the DTM branches: what the tokens of the last position, which has read all, decide."""
        logits = []
        for i, sensor in enumerate(("ms", "pan")):
            token = None
            if self.prior is not None and prior is not None:
                features = to_grid(prior[i]) if self.config.token == "pool" else prior[i]
                token = self.prior_token[sensor](features)
            sequence = self.dtm[sensor](tokens[i], token)
            decide = self.decision if self.config.shared_decision else self.branch_decision[sensor]
            logits.append(decide(sequence[:, -1]))
        return logits[0], logits[1]
