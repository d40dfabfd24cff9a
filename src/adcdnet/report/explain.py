"""Why the DTM heads answered as they did: which depth gave how much, over the labelled pixels of a scene.

b pixels | l tokens: depths 1..3, attended F, prior | e inner channels | K classes | t = l the read-out position
x[i] (e) token i as projected into the Mamba block          c[j] = Σ_i w[j−i] x[i] + bias   causal convolution
u[j] = σ(c[j]) c[j] input of the scan at position j         y = Σ_j M[t, j] u[j] + D u[t]   output of the scan

The answer of a head is the winner at operating point tau 1, as that of the map is. Its evidence is the winner's logit
minus the mean logit. For the given gates (Δ, B, C, σ(c), SiLU(z)), spread of the LayerNorm and pattern of the ReLU the
evidence is linear, so it falls into parts that add up exactly, at two places:

    scan positions   M[t, j] u[j], the skip D u[t] counted to j = t. u[j] already mixes up to four tokens.
    tokens           the same, carried back through the convolution: what x[i] itself adds.

A share is the size of a part over the sum of sizes; the biases belong to no token. Shares do not count what is held
fixed: the last token also sets the gate z, and every token its own Δ, B and C. So a third figure does without any of
this: how many answers change when a token is replaced by its mean over the explained pixels.
"""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from adcdnet.assess.evaluate import labels_in_part
from adcdnet.errors import InputError
from adcdnet.files import refuse_overwriting, write_whole
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid, tiles
from adcdnet.geo.labels import Labels
from adcdnet.geo.raster import read_band
from adcdnet.geo.scene import Scene
from adcdnet.mapping.engine import check_scene, cut_patches, default_engine, logits_of, read_window, tensors_of
from adcdnet.mapping.model import Model, folds_name
from adcdnet.mapping.progress import Progress, silent
from adcdnet.nn.adcdnet import ADCDNet, Outputs, Shared
from adcdnet.nn.dtm import DeepTemporalMamba, Explanation
from adcdnet.nn.heads import Decision
from adcdnet.nn.networks import Network
from adcdnet.nn.tile_adcdnet import TileADCDNet, TileMaps
from adcdnet.nn.tile_sharing import Targets
from adcdnet.report.explanation_figure import EXPLAINED, HeadSummary, explanation_figure
from adcdnet.split.parts import check_of_model

_TILE = 64  # MS pixels
_MATRICES = 2**25  # bytes of scan matrices and their decays at once
_KEPT = 2**28  # bytes of tokens up to which they are kept until their mean is known; of more the network is asked twice


@dataclass(frozen=True)
class SceneExplanation:
    """Rows of all arrays: the K classes of the labels, then all pixels together; nan for a class without pixels."""

    classes: ClassTable
    part: str | None
    pixels: NDArray[np.int64]  # (K + 1,)
    map_right: NDArray[np.float64]  # (K + 1,) where the main head gives the label
    heads: tuple[HeadSummary, ...]

    @property
    def row_names(self) -> tuple[str, ...]:
        return (*self.classes.names, "all")

    def rows(self) -> list[dict[str, Any]]:
        """One per head and class, in plain values; None where there is no pixel."""
        rows = []
        for head in self.heads:
            for k, name in enumerate(self.row_names):
                row = {"explains": EXPLAINED, "head": head.sensor, "class": name, "pixels": int(self.pixels[k])}
                row |= {f"share of {t}": _plain(s) for t, s in zip(head.tokens, head.token_shares[k], strict=True)}
                row |= {f"scan at {t}": _plain(s) for t, s in zip(head.tokens, head.scan_shares[k], strict=True)}
                row |= {f"changed without {t}": _plain(s) for t, s in zip(head.tokens, head.changed[k], strict=True)}
                row |= {"agrees with map": _plain(head.agreement[k]), "head right": _plain(head.right[k])}
                rows.append(row | {"map right": _plain(self.map_right[k])})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"explains": EXPLAINED, "part": self.part, "rows": self.rows()}

    def to_csv(self) -> str:
        rows = self.rows()
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))  # heads may read other tokens
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def explain(
    model: Model,
    scene: Scene,
    labels: Labels,
    *,
    split: Path | str | None = None,
    part: str | None = None,
    progress: Progress = silent,
) -> SceneExplanation:
    """Mean shares per true class over the labelled pixels of one part of a split, or over all of them.

    Works through windows of 64 MS pixels, shared where the network allows, patch by patch otherwise; twice where there
    are very many pixels, since the mean tokens must be known first. InputError if the model has no DTM heads, if scene,
    labels or split do not fit it, or if no labelled pixel is left.
    """
    network = model.network
    if not network.dtm:
        raise InputError(
            "the model has no DTM heads, so there is no decision of theirs to explain; train with --members adcdnet, "
            "and with plain_if_few = false in the settings where labels are few"
        )
    if network.config.grid == "fine":
        raise InputError("the model maps PAN pixels, and only MS pixels can be explained; train one with --grid coarse")
    check_scene(model, scene)
    if labels.classes.values != model.classes.values:
        raise InputError(
            f"the class table has the values {list(labels.classes.values)}, the model was trained with "
            f"{list(model.classes.values)}; give it the table of its training, or none"
        )
    index = labels_in_part(labels, scene.grid, f"the scene {scene.name}", split, part)
    heads = [_Head(network, sensor) for sensor in network.dtm if network.config.sensors in ("both", sensor)]
    few = max(16, _MATRICES // max(8 * head.length**2 * head.whole.mamba.A_log.numel() for head in heads))
    passes = 1 if np.count_nonzero(index >= 0) * sum(head.bytes for head in heads) <= _KEPT else 2
    expected = torch.log(torch.tensor(model.label_shares))
    shift = expected - torch.log(torch.tensor(model.first_network.drawn_shares))
    pixels = np.zeros(len(labels.classes), np.int64)
    sums = [np.zeros((len(pixels), 3 * head.length + 3)) for head in heads]
    with torch.inference_mode(), ExitStack() as listening:
        for head in heads:
            listening.enter_context(head.branch.norm.register_forward_pre_hook(head.listen))

        def seen(before: int) -> Iterator[tuple[NDArray[np.int16], NDArray[np.int64], list[Tensor]]]:
            """Truth (b,), the map's answer (b,) and the tokens of each head, some pixels at a time."""
            walk = _answers(model, scene, index, few, _counted(progress, before, passes))
            for truth, outputs in walk:
                yield truth, (outputs.main + expected).argmax(1).numpy(), [head.heard for head in heads]

        kept = []
        for some in seen(0):
            for head, tokens in zip(heads, some[2], strict=True):
                head.learn_mean(tokens)
            if passes == 1:
                kept.append(some)
        for truth, mapped, heard in kept if passes == 1 else seen(1):
            pixels += np.bincount(truth, minlength=len(pixels))
            for head, tokens, total in zip(heads, heard, sums, strict=True):
                answer, *parts = head.explain(tokens, shift)
                columns = *parts, answer == mapped, answer == truth, mapped == truth
                np.add.at(total, truth, np.column_stack(columns))
    if not pixels.any():
        raise InputError(
            f"no labelled pixel on valid ground{f' in the {part} part' if part else ''}; nothing to explain"
        )
    pixels = np.append(pixels, pixels.sum())
    with np.errstate(invalid="ignore"):
        means = [np.vstack((total, total.sum(0))) / pixels[:, None] for total in sums]
    return SceneExplanation(
        labels.classes, part, pixels, means[0][:, -1], tuple(h.summary(m) for h, m in zip(heads, means, strict=True))
    )


def held_out_labels(run: Path, labels: Labels, grid: Grid) -> Labels | None:
    """Those of the first fold of a run of several folds, where its first network did not train; None for other runs,
    and for a scene on another grid. InputError where the folds are not those of the run's model."""
    file = run / folds_name()
    if not file.exists():
        return None
    check_of_model(file)
    folds, own, _ = read_band(file)
    if (own.shape, own.transform) != (grid.shape, grid.transform):
        return None
    return replace(labels, index=np.where(folds == 1, labels.index, np.int16(-1)))


def token_evidence(
    head: DeepTemporalMamba, why: Explanation, depths: Sequence[Tensor], prior: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What each token itself adds to the evidence of the answer (b, l), and what the convolution's bias adds (b,).

    Both together are the evidence of all scan positions in `why`, exactly; formula at the top of the file. For a head
    that reads its last position.
    """
    mamba, norm, classifier = head.mamba, head.out_norm, head.classifier
    assert norm is not None
    assert classifier is not None
    x, z = mamba.in_proj(head.norm(head.sequence(depths, prior))).chunk(2, dim=-1)  # (b, l, e)
    c = mamba.conv1d(x.transpose(1, 2))[..., : x.shape[1]]  # (b, e, l)
    read = mamba.out_proj(why.scan_output[:, -1] * F.silu(z[:, -1]))
    spread = torch.sqrt(read.var(-1, correction=0, keepdim=True) + norm.eps)
    # which way in the space of `read` the evidence grows, and by that in the space of the scan's output
    weight = classifier.weight - classifier.weight.mean(0)
    way = weight[why.logits.argmax(-1)] * (norm(read) > 0) * norm.weight / spread  # (b, d_out)
    way = (way - way.mean(-1, keepdim=True)) @ mamba.out_proj.weight * F.silu(z[:, -1])  # (b, e)
    path = why.matrix[:, -1].transpose(1, 2).clone()  # (b, e, l), from each position to the last
    path[..., -1] += mamba.D
    slope = way[..., None] * path * torch.sigmoid(c)  # of the evidence, in c
    back = F.conv_transpose1d(slope, mamba.conv1d.weight, groups=mamba.d_inner)[..., mamba.d_conv - 1 :]
    bias = 0.0 if mamba.conv1d.bias is None else mamba.conv1d.bias
    return (back * x.transpose(1, 2)).sum(1), (slope.sum(-1) * bias).sum(-1)


class _Head:
    """A DTM branch with its decision as one classification head, explained on what the branch was last given."""

    def __init__(self, network: Network, sensor: str) -> None:
        branch = network.dtm[sensor]
        assert isinstance(branch, DeepTemporalMamba)
        shared = isinstance(network, ADCDNet) and network.config.shared_decision
        decision = network.decision if shared else network.branch_decision[sensor]
        assert isinstance(decision, Decision)
        # the parameters are handed over as already copied: the head shares them with the network
        self.whole = copy.deepcopy(branch, {id(p): p for p in branch.parameters()})
        self.whole.out_norm, self.whole.classifier = decision.norm, decision.classifier
        self.whole.tokens = nn.ModuleList(nn.Identity() for _ in branch.tokens)  # it is given what the branch made
        self.branch, self.sensor = branch, sensor
        self.tokens = tuple(network.token_names(sensor))
        self.length = len(self.tokens)
        self.seen, self.total = 0, torch.zeros(())

    @property
    def bytes(self) -> int:
        """Of the tokens of one pixel."""
        return 4 * self.length * math.prod(self.branch.norm.normalized_shape)

    def listen(self, _: nn.Module, given: tuple[Tensor]) -> None:
        """Tokens (b, l, d) of the branch, on their way into its LayerNorm."""
        (self.heard,) = given

    def learn_mean(self, tokens: Tensor) -> None:
        """Take some pixels' tokens (b, l, d) into the mean ones."""
        self.seen += len(tokens)
        self.total = self.total + tokens.sum(0, dtype=torch.float64)  # (l, d)

    def explain(self, sequence: Tensor, shift: Tensor) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Of tokens (b, l, d): answers (b,), and each (b, l) shares of the tokens, shares of the scan positions, and
        whether the answer changes without the token. shift (K,): from logits to the operating point.
        """
        depths = list(sequence.unbind(1))
        prior = depths.pop() if self.branch.prior else None
        why = self.whole.explain(depths, prior)
        why = replace(why, rest=why.rest + shift, logits=why.logits + shift)
        answer = why.logits.argmax(1)
        size = token_evidence(self.whole, why, depths, prior)[0].abs()
        shares = size / size.sum(1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
        mean = (self.total / self.seen).float()
        changed = []
        for i in range(self.length):
            without = sequence.clone()
            without[:, i] = mean[i]
            changed.append((_decide(self.whole, without) + shift).argmax(1) != answer)
        return answer.numpy(), shares.numpy(), why.shares.numpy(), torch.stack(changed, 1).numpy()

    def summary(self, means: NDArray[np.float64]) -> HeadSummary:
        *shares, (agreement, right, _) = np.split(means.T, [k * self.length for k in (1, 2, 3)])
        tokens, positions, changed = (part.T for part in shares)
        return HeadSummary(self.sensor.upper(), self.tokens, tokens, positions, changed, agreement, right)


def _counted(progress: Progress, before: int, passes: int) -> Progress:
    """Progress of one of several passes through the same windows."""
    return lambda what, done, of, figures: progress(what, before * of + done, passes * of, figures)


def _answers(
    model: Model, scene: Scene, index: NDArray[np.int16], few: int, progress: Progress
) -> Iterator[tuple[NDArray[np.int16], Outputs]]:
    """Class indices (b,) and answers of all heads, `few` labelled pixels at a time: logits of the DTM heads of the
    first network, and in the place of its main head log likelihoods as in a map, but for the shares of the classes
    around each pixel."""
    network, config = model.network, model.network.config
    drawn = torch.log(torch.tensor(model.first_network.drawn_shares))
    single = len(model.members) == 1 and not model.answers.smooth and isinstance(network, ADCDNet)
    windows = [w for w in tiles(index.shape[0], index.shape[1], _TILE) if (index[w.slices] >= 0).any()]
    for done, window in enumerate(windows, start=1):
        pixels = read_window(model, scene, window)
        row, col = np.nonzero((index[window.slices] >= 0) & pixels.inner(model.reach).valid)
        mapped = None
        if len(row) and not single:
            mapped = logits_of(model, pixels, engine=default_engine(network), corner=(window.row, window.col))
        ms, pan = tensors_of(model, pixels)
        shared: Shared | TileMaps | None = None
        if len(row) and isinstance(network, TileADCDNet):
            first = window.row - config.reach, window.col - config.reach
            shared = network.share(ms[None], pan[None], border=config.reach, origin=first)
        elif len(row) and isinstance(network, ADCDNet) and network.config.sharable:
            shared = network.share(ms[None], pan[None])
        for start in range(0, len(row), few):
            r, c = row[start : start + few], col[start : start + few]
            main = None if mapped is None else torch.from_numpy(mapped[:, r, c].T)
            if shared is not None:
                targets = Targets(*(torch.from_numpy(i) for i in (np.zeros_like(r), r, c)))
                own = network.classify(shared, targets) - drawn if main is None else main  # type: ignore[arg-type]
                outputs = Outputs(own, *network.classify_branches(shared, targets))  # type: ignore[arg-type]
            else:
                assert isinstance(network, ADCDNet)
                outputs = network(*cut_patches(network, ms, pan, r, c), branches=True)
                outputs = outputs._replace(main=outputs.main - drawn if main is None else main)
            yield index[window.slices][r, c], outputs
        progress("explain", done, len(windows), {})


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path | None]) -> None:
    """InputError for what cannot be written, before any work is done; the first output is the figure."""
    if outputs[0].suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{outputs[0]} must end in .png or .svg; name a figure of one of these kinds")
    refuse_overwriting(outputs, inputs)
    for path in outputs:
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: it is a folder or lies in none; name a file in a folder")


def write_explanation(explanation: SceneExplanation, out: Path, *, title: str) -> None:
    """The figure `out`, PNG or SVG by its suffix, and a CSV of the same name. InputError where that fails."""
    figure = explanation_figure(
        explanation.heads,
        rows=[f"{name} ({n} px)" for name, n in zip(explanation.row_names, explanation.pixels, strict=True)],
        map_right=explanation.map_right,
        title=title,
        kind=out.suffix[1:].lower(),
    )
    write_whole(out.with_suffix(".csv"), explanation.to_csv().encode())
    write_whole(out, figure)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _decide(head: DeepTemporalMamba, sequence: Tensor) -> Tensor:
    """Logits (b, K) of a head that reads its last position, from its tokens (b, l, d)."""
    assert head.out_norm is not None
    assert head.classifier is not None
    logits: Tensor = head.classifier(torch.relu(head.out_norm(head.mamba(head.norm(sequence))[:, -1])))
    return logits
