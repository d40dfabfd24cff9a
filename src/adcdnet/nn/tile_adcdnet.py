"""TileADCDNet: ADCD-Net over whole tiles, which sees fine detail of PAN and far around a pixel.

b tiles | B bands of ms, B' of pan | h, w MS pixels | r ratio | n targets | c channels of a stream | K classes
F_ms, F_pan (b, c, h, w) streams behind their attention     W = σ(features of the prior network) prior masks

    F'   = W·F + F                                              both sensors
    main = Linear(levels([F'_ms, F'_pan])) + v · context        at every position; the map is made of this alone
    L    = L_main + λ (L_ms + L_pan)                            L_ms, L_pan: cross-entropy of the DTM branches

A DTM branch reads, at one MS pixel, the depths of its sensor's stream, F, the levels of the encoder, and the prior
token, last. v, context: weight and logits of the context branch, which learns by itself.
Source: ADCD-Net, IEEE TGRS 2025, brought from patches to tiles; docs/concepts/method.md says how and why.

Values of a tile depend on what lies within `reach` MS pixels alone, if the tile is laid out on the lattice: `origin`
says where its first pixel lies in the scene, and what is missing to the next lattice line is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .adcdnet import Outputs, SecondStage
from .architecture import Layout, TileArchitecture
from .context import CONTEXT_REACH, ContextBranch, context_statistics, feature_count
from .dia import DeformableInteractiveAttention
from .dtm import DeepTemporalMamba, MapDepth, MapToken
from .heads import Decision
from .levels import Levels, enlarged
from .parts import PUBLISHED, Parts
from .streams import Stream, Streams, TilePrior, pan_strides, pan_widths, unit
from .tile_sharing import Targets


class TileMaps(NamedTuple):
    """What the targets of a batch of tiles share: `TileADCDNet.share` makes it, `classify` reads it."""

    main: Tensor  # (b, K, h, w) logits of the targets, without the context branch; (b, K, h·r, w·r) of PAN pixels
    depths: tuple[list[Tensor], list[Tensor]]  # of each sensor's DTM branch, tile and border, on the lattice
    prior: tuple[Tensor, Tensor] | None  # features of the prior network, likewise
    statistics: Tensor | None  # (b, f, h, w) context statistics of the MS pixels
    first: tuple[int, int]  # row and column of the first target's MS pixel in depths and prior


class TileADCDNet(SecondStage):
    """The network of stage II over tiles. The prior network inside it is frozen and always in eval mode.

    forward(ms, pan): tiles with `border` MS pixels around their targets -> main logits (b, K, h, w), or
    (b, K, h·r, w·r) where PAN pixels are the targets. origin: row and column in the scene of the border's first pixel.
    In training mode main is without the context branch, and so it is in a border too narrow for its statistics.
    parts: what may be exchanged for a comparison; a model file holds none of it but the published.
    """

    config: TileArchitecture
    prior: TilePrior | None

    def __init__(self, config: TileArchitecture, layout: Layout, parts: Parts = PUBLISHED) -> None:
        super().__init__()
        self.config, self.layout, self.parts = config, layout, parts
        self.streams = Streams(config, layout, parts)
        self.prior = TilePrior(config, layout, parts).requires_grad_(False).eval() if config.prior else None
        self.levels = Levels(2 * config.stream, config.widths)
        self.refine = nn.ModuleList()
        wide = config.widths[0]
        if config.grid == "fine":
            for channels in reversed(pan_widths(config, layout.ratio)[:-1]):
                self.refine.append(unit(wide + channels, channels))
                wide = channels
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(wide, layout.classes, 1)
        self.context_branch: ContextBranch | None = None
        if config.context_branch:
            features = feature_count(layout.ms_bands, layout.pan_bands)
            self.context_branch = ContextBranch(features, layout.classes).requires_grad_(False)
        self.dtm = nn.ModuleDict()
        self.branch_decision = nn.ModuleDict()
        self.prior_token = nn.ModuleDict()
        if config.dtm:
            streams = [config.stream, config.stream], pan_widths(config, layout.ratio)
            for sensor, d, own in zip(("ms", "pan"), config.token_dims, streams, strict=True):
                self._add_branch(sensor, d, [*own, config.stream, *config.widths])

    def _add_branch(self, sensor: str, d: int, channels: Sequence[int]) -> None:
        one = (1, 1)  # a token of one position
        self.dtm[sensor] = DeepTemporalMamba(
            [MapDepth(c, one) for c in channels],
            d_model=d,
            num_classes=None,
            d_out=self.config.hidden,
            prior="last" if self.config.prior else None,
            token="flatten",
            reader=self.parts.reader,
        )
        if self.config.prior:
            self.prior_token[sensor] = MapToken(self.config.stream, d, size=one, token="flatten")
        self.branch_decision[sensor] = Decision(self.config.hidden, self.layout.classes, self.config.dropout)

    def token_names(self, sensor: str) -> list[str]:
        """What the tokens of a DTM branch are made of, in the order they are read."""
        stages = 2 if sensor == "ms" else len(pan_widths(self.config, self.layout.ratio))
        names = [f"{sensor} {k}" for k in range(1, stages + 1)] + ["attended"]
        names += [f"level {k}" for k in range(1, self.config.levels + 1)]
        return [*names, *(["prior"] if self.config.prior else [])]

    def forward(self, ms: Tensor, pan: Tensor, *, border: int = 0, origin: tuple[int, int] = (0, 0)) -> Tensor:
        shared = self.share(ms, pan, border=border, origin=origin)
        if shared.statistics is None or self.context_branch is None:
            return shared.main
        context = self.context_branch(shared.statistics.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        step = self.config.targets_per_pixel(self.layout.ratio)
        context = context.repeat_interleave(step, 2).repeat_interleave(step, 3)
        logits: Tensor = shared.main + self.config.context_branch * context
        return logits

    def share(self, ms: Tensor, pan: Tensor, *, border: int, origin: tuple[int, int] = (0, 0)) -> TileMaps:
        """Tiles as for `forward` -> what their targets share."""
        statistics = None
        if self.context_branch is not None and not self.training and border >= CONTEXT_REACH:
            statistics = self.context_statistics(ms, pan, border=border)
        height, width = (side - 2 * border for side in ms.shape[2:])
        ms, pan, first = self._laid_out(ms, pan, border, origin)
        streams, prior = self.streams(ms, pan), None
        lifted = [stream.attended for stream in streams]
        if self.prior is not None:
            with torch.no_grad():
                prior = self.prior.features(ms, pan)
            lifted = [torch.addcmul(f, f, torch.sigmoid(g)) for f, g in zip(lifted, prior, strict=True)]
        x, encoded = self.levels(torch.cat(lifted, dim=1))
        x = self._refined(x, streams[1])
        step = self.config.targets_per_pixel(self.layout.ratio)
        top, left = (step * place for place in first)
        x = x[:, :, top : top + step * height, left : left + step * width]
        depths = [[*stream.depths, stream.attended, *encoded] for stream in streams]
        return TileMaps(self.classifier(self.dropout(x)), (depths[0], depths[1]), prior, statistics, first)

    def _laid_out(
        self, ms: Tensor, pan: Tensor, border: int, origin: tuple[int, int]
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Tiles filled up to the lattice, and row and column of their first target's MS pixel."""
        lattice, ratio = self.config.lattice, self.layout.ratio
        top, left = (first % lattice for first in origin)
        bottom, right = (-(before + n) % lattice for before, n in zip((top, left), ms.shape[2:], strict=True))
        edges = [left, right, top, bottom]
        ms, pan = self.silenced(F.pad(ms, edges), F.pad(pan, [ratio * edge for edge in edges]))
        # the channels of one position side by side: convolutions are twice as fast on a processor
        ms, pan = (x.contiguous(memory_format=torch.channels_last) for x in (ms, pan))
        return ms, pan, (top + border, left + border)

    def _refined(self, x: Tensor, pan: Stream) -> Tensor:
        """The decoder's map, carried on to the grid of PAN where its pixels are the targets."""
        if not self.refine:
            return x
        first, *strides = pan_strides(self.layout.ratio)
        for layer, finer, stride in zip(self.refine, reversed(pan.depths[:-1]), reversed(strides), strict=True):
            x = layer(torch.cat([x if stride == 1 else enlarged(x, stride), finer], dim=1))
        return x if first == 1 else enlarged(x, first)

    def masks(self, ms: Tensor, pan: Tensor, *, border: int, origin: tuple[int, int] = (0, 0)) -> dict[str, Tensor]:
        """Of one tile as for `forward`, what attention and prior let through at each MS pixel (h, w), by its name."""
        height, width = (side - 2 * border for side in ms.shape[2:])
        ms, pan, (top, left) = self._laid_out(ms, pan, border, origin)
        masks: dict[str, Tensor] = {}
        attentions = self.streams.attention_ms, self.streams.attention_pan
        for name, attention, stream in zip(("MS", "PAN"), attentions, self.streams(ms, pan), strict=True):
            if isinstance(attention, DeformableInteractiveAttention):
                masks[f"DIA mask, {name}"] = attention.attention(stream.depths[-1])[0, 0]
        if self.prior is not None:
            for name, features in zip(("MS", "PAN"), self.prior.features(ms, pan), strict=True):
                masks[f"prior mask, {name}"] = torch.sigmoid(features)[0].mean(0)
        return {name: mask[top : top + height, left : left + width] for name, mask in masks.items()}

    def classify(self, shared: TileMaps, targets: Targets) -> Tensor:
        """Main logits (n, K), without the context branch."""
        return targets.windows(shared.main, side=1, step=1, reach=0)

    def classify_branches(self, shared: TileMaps, targets: Targets) -> tuple[Tensor, Tensor]:
        """Logits (n, K) of the DTM branches, MS and PAN, at MS pixels."""
        logits = []
        for i, sensor in enumerate(("ms", "pan")):
            tokens = [self._at(depth, shared, targets) for depth in shared.depths[i]]
            token = None
            if shared.prior is not None:
                token = self.prior_token[sensor](self._at(shared.prior[i], shared, targets))
            sequence = self.dtm[sensor](tokens, token)
            logits.append(self.branch_decision[sensor](sequence[:, -1]))
        return logits[0], logits[1]

    def on_tile(self, ms: Tensor, pan: Tensor, targets: Targets, *, branch_targets: Targets | None = None) -> Outputs:
        """Share and classify in one go, of tiles as training draws them; the DTM branches only at `branch_targets`."""
        shared = self.share(ms, pan, border=self.config.border)
        main = self.classify(shared, targets)
        if branch_targets is None or not self.dtm:
            return Outputs(main, None, None)
        return Outputs(main, *self.classify_branches(shared, branch_targets))

    def context_statistics(self, ms: Tensor, pan: Tensor, *, border: int) -> Tensor:
        """Tiles with such a border -> (b, f, h, w) at their MS pixels."""
        trim = border - CONTEXT_REACH
        coarse, fine = (slice(trim * r, -trim * r or None) for r in (1, self.layout.ratio))
        ms, pan = self.silenced(ms, pan)
        return context_statistics(ms[:, :, coarse, coarse], pan[:, :, fine, fine], self.layout.ratio)

    def _at(self, x: Tensor, shared: TileMaps, targets: Targets) -> Tensor:
        """Values (n, c, 1, 1) of a map at MS pixels: the mean of finer cells, that of the coarser cell they lie in."""
        step = self.config.targets_per_pixel(self.layout.ratio)
        row, col = targets.row // step + shared.first[0], targets.col // step + shared.first[1]
        height = shared.depths[0][0].shape[2]
        if x.shape[2] > height:
            x = F.avg_pool2d(x, x.shape[2] // height)
        coarser = height // x.shape[2]
        return x.permute(0, 2, 3, 1)[targets.tile, row // coarser, col // coarser][:, :, None, None]
