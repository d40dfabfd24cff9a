"""The two networks: PriorNet, which stage I trains, and ADCDNet, which stage II trains and which makes the map.

n target pixels | B bands of ms, B' of pan | r ratio | p patch side | g cells a side (9 for p = 17) | c channels
K classes
context (n, K) log likelihoods of the context branch, w its weight; it learns by itself, the rest learns without it
F_ms, F_pan (n, c, g, g) features after DIA     W = σ(F of the prior network) prior masks     s prior tokens

    F'   = ReLU(W·F + F)                                        both sensors
    main = decision(head(F'_ms, F'_pan)) + w · context          the answer; the map is made of this alone
    L    = L_main + λ (L_ms + L_pan)                            L_ms, L_pan: cross-entropy of the DTM branches

Source: ADCD-Net, IEEE TGRS 2025. Deviations of the `default` profile, each with its reason:
docs/concepts/method.md.

Every network can be applied in two ways that give the same numbers: to patches, one per target pixel (`forward`, the
definition), and `on_tile`, which convolves a tile once for all target pixels in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from .architecture import Layout, PatchArchitecture
from .context import CONTEXT_REACH, ContextBranch, context_statistics
from .dtm import DeepTemporalMamba, MapDepth, MapToken, to_grid
from .encoder import SensorMaps, TwoSensors, crop
from .heads import CORE, CentreHead, Decision, FlattenHead
from .parts import PUBLISHED, Parts
from .prior import PriorNet
from .tile_sharing import Places, Targets, as_map, cells_of

if TYPE_CHECKING:
    from typing import Self

    from .architecture import Architecture


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


def _lift(f: Tensor, features: Tensor) -> Tensor:
    """F' = W·F + F. F >= 0 and the mask > 0, so that the ReLU of the formula changes nothing."""
    return torch.addcmul(f, f, torch.sigmoid(features))


class SecondStage(nn.Module):
    """What both networks of stage II do. A prior network inside is frozen and always in eval mode."""

    config: Architecture
    prior: nn.Module | None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.prior is not None:
            self.prior.eval()
        return self

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that stage II changes."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def silenced(self, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros, the training mean, in place of a sensor that this network is to do without."""
        only = self.config.sensors
        return ms if only != "pan" else torch.zeros_like(ms), pan if only != "ms" else torch.zeros_like(pan)


class ADCDNet(SecondStage):
    """The network of stage II. The prior network inside it is frozen and always in eval mode.

    forward(ms, pan): patches (n, B, h, h) and (n, B', h·r, h·r), h = before + 1 + after of the settings.
    branches: run the DTM branches too (training and explanation), on all patches or on so many of the first; the map
    needs the main logits only. In training mode main is without the context branch.
    parts: what may be exchanged for a comparison; a model file holds none of it but the published.
    ValueError for a network without a stem at a ratio other than 4.
    """

    config: PatchArchitecture
    prior: PriorNet | None

    def __init__(self, config: PatchArchitecture, layout: Layout, parts: Parts = PUBLISHED) -> None:
        super().__init__()
        self.config, self.layout, self.parts = config, layout, parts
        self.sensors = TwoSensors(config, layout, parts)
        self.prior = PriorNet(config, layout, parts).requires_grad_(False).eval() if config.prior else None
        self.centre = CentreHead(config, layout) if config.head == "centre" else None
        self.context_branch = None
        if self.centre is not None and config.context_branch:
            branch = ContextBranch(self.centre.context.features, layout.classes)
            self.context_branch = branch.requires_grad_(False)
        self.flatten = FlattenHead(config, parts) if config.head == "flatten" else None
        self.decision = Decision(config.hidden, layout.classes, config.dropout)
        self.dtm = nn.ModuleDict()
        self.branch_decision = nn.ModuleDict()
        self.prior_token = nn.ModuleDict()
        if config.dtm:
            for sensor, d in zip(("ms", "pan"), config.token_dims, strict=True):
                self._add_branch(sensor, d)

    def _add_branch(self, sensor: str, d: int) -> None:
        config = self.config
        cells = config.cells
        sides = (*config.sides, cells)
        if not config.stem and sensor == "pan":  # from ratio 4 by strides 2, 2, 2
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
            reader=self.parts.reader,
        )
        if config.prior:
            token = MapToken(config.widths[-1], d, size=(cells, cells), token=config.token)
            self.prior_token[sensor] = token.requires_grad_(config.learn_prior_token)
        if not config.shared_decision:
            self.branch_decision[sensor] = Decision(config.hidden, self.layout.classes, config.dropout)

    def token_names(self, sensor: str) -> list[str]:
        """What the tokens of a DTM branch are made of, in the order they are read."""
        depths = [f"depth {k}" for k in range(1, len(self.config.widths) + 1)]
        return [*depths, "attended", *(["prior"] if self.config.prior else [])]

    def forward(self, ms: Tensor, pan: Tensor, *, branches: bool | int = False) -> Outputs:
        ms, pan = self.silenced(ms, pan)
        depths = self.sensors.ms.backbone(ms), self.sensors.pan.backbone(pan)
        views = self.sensors.ms.view(depths[0]), self.sensors.pan.view(depths[1])
        prior = None
        if self.prior is not None:
            with torch.no_grad():
                prior = self.prior(ms, pan)
        statistics = None
        if self.centre is not None:
            side = self.config.size
            statistics = self.context_statistics(
                crop(ms, side), crop(pan, side * self.layout.ratio), border=self.config.before
            ).flatten(1)
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
        lifted = None if prior is None else (prior[0][first], prior[1][first])
        return Outputs(main, *self._branches((tokens[0], tokens[1]), lifted))

    # Shared. In eval mode equal to `forward` on the patches around the targets; in training mode BatchNorm takes its
    # statistics from the tiles.

    def share(self, ms: Tensor, pan: Tensor, *, same_ms: Shared | None = None) -> Shared:
        """Tiles (b, B, h, w) and (b, B', h·r, w·r), each with a halo of `before` MS pixels on every side.

        same_ms: what these very ms shared with another pan; their maps are taken from it.
        ValueError if the network cannot be shared.
        """
        ms, pan = self.silenced(ms, pan)
        prior = None
        if self.prior is not None:
            with torch.no_grad():
                same = None if same_ms is None or same_ms.prior is None else same_ms.prior[0]
                prior = self.prior.share(ms, pan, of_ms=same)
        statistics = None if self.centre is None else self.context_statistics(ms, pan, border=self.config.before)
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

    def context_statistics(self, ms: Tensor, pan: Tensor, *, border: int) -> Tensor:
        """Tiles with such a border, at least 4 -> (b, f, h, w) at their targets. ValueError for a head without them."""
        if self.centre is None:
            raise ValueError("context statistics belong to head 'centre'")
        trim = border - CONTEXT_REACH
        coarse, fine = (slice(trim * r, -trim * r or None) for r in (1, self.layout.ratio))
        ms, pan = self.silenced(ms, pan)
        return context_statistics(ms[:, :, coarse, coarse], pan[:, :, fine, fine], self.layout.ratio)

    def _cells_of(self, x: Tensor) -> Sequence[Tensor]:
        """The cells (n, c) of maps (n, c, g, g) that the head looks at."""
        return cells_of(x if self.centre is None else crop(x, CORE))

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
