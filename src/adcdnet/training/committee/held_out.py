"""What members say of ground that they did not train on, with all training ground hidden from them.

M members | K classes | n targets
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adcdnet.config import AnswerConfig
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.grid import tiles
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.mapping.answers import Answers
from adcdnet.mapping.engine import likelihoods
from adcdnet.mapping.local_priors import SCALE
from adcdnet.mapping.members import Member
from adcdnet.mapping.smoothing import looks, smooth
from adcdnet.split.parts import TRAIN, Split, near
from adcdnet.training.borders import bordered, refine, without
from adcdnet.training.checkpoints import Piece

_WINDOW = 128  # MS pixels per side that are answered at once


@dataclass(frozen=True)
class HeldOut:
    """Targets of one scene that no member of a fold trained on.

    shape: of the scene's grid of targets. row, col (n,); truth (n,): class index, −1 without a label. likelihoods
    (M, K, n): log, up to a constant, averaged with like neighbours. label_shares (K,): of the fold's training labels.
    """

    shape: tuple[int, int]
    step: int
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    truth: NDArray[np.int64]
    likelihoods: NDArray[np.float32]
    label_shares: tuple[float, ...]

    def log_posteriors(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(M, K, n') with the class shares in them, and truth (n',), of the labelled targets."""
        known = self.truth >= 0
        expected = np.log(np.asarray(self.label_shares, np.float32))[:, None]
        return self.likelihoods[:, :, known] + expected, self.truth[known]

    def probabilities(
        self, weights: NDArray[np.float64], temperature: float, answers: AnswerConfig, *, tau: float = 1.0
    ) -> NDArray[np.float32]:
        """(K, n) of all members together, as a map of this ground alone would have them."""
        together = np.tensordot(weights, self.likelihoods, axes=1).astype(np.float32)
        alike = (1.0,) * len(self.label_shares)  # log likelihoods have no shares in them
        reading = Answers(
            self.shape,
            self.step,
            self.label_shares,
            alike,
            local_priors=answers.local_priors,
            temperature=temperature,
        )
        reading.add(together, self.row, self.col)
        return reading.probabilities(together, self.row, self.col, tau=tau)


_ARRAYS = ("row", "col", "truth", "likelihoods")


def piece_of(held_out: Sequence[HeldOut]) -> Piece:
    """Answers as a checkpoint."""
    arrays = {f"{k}.{name}": getattr(scene, name) for k, scene in enumerate(held_out) for name in _ARRAYS}
    scenes = [{"shape": s.shape, "step": s.step, "label_shares": s.label_shares} for s in held_out]
    return Piece({name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}, {"scenes": scenes})


def answers_of(piece: Piece) -> tuple[HeldOut, ...]:
    """What `piece_of` was given."""
    return tuple(
        HeldOut(
            shape=tuple(scene["shape"]),
            step=scene["step"],
            label_shares=tuple(scene["label_shares"]),
            **{name: piece.arrays[f"{k}.{name}"].numpy() for name in _ARRAYS},
        )
        for k, scene in enumerate(piece.figures["scenes"])
    )


def answer(
    members: Sequence[Member],
    pixels: Pixels,
    labels: Labels,
    split: Split,
    part: int,
    *,
    answers: AnswerConfig,
    statistics: BandStatistics,
    label_shares: tuple[float, ...],
    device: torch.device,
) -> HeldOut:
    """The labelled targets in one part of a scene, and where local priors count those around them.

    statistics: by which neighbours are compared. Ground of the train part is shown as the training mean.
    """
    ratio = pixels.pan_valid.shape[0] // pixels.ms_valid.shape[0]
    height, width = split.part.shape
    step, margin = labels.index.shape[0] // height, answers.margin
    border = max(member.reach for member in members)
    repeat_edge = any(m.network is not None and m.network.config.repeat_edge for m in members)
    judged = refine(split.part == part, step) & pixels.valid_targets(step)
    around = near((labels.index >= 0) & judged, (round(SCALE) if answers.local_priors else margin) * step) & judged
    shown = bordered(without(pixels, split.part == TRAIN), border, repeat_edge=repeat_edge)
    rows, cols, found = [], [], []
    for window in tiles(height, width, _WINDOW):
        wide = window.grow(margin).within(height, width)
        wanted = around[wide.scale(step).slices]
        own = window.shift(-wide.row, -wide.col).scale(step).slices
        row, col = np.nonzero(wanted[own])
        if not len(row):
            continue
        around_it = wide.shift(border, border).grow(border)
        here = Pixels(
            shown.ms[:, *around_it.slices],
            shown.pan[:, *around_it.scale(ratio).slices],
            shown.ms_valid[around_it.slices],
            shown.pan_valid[around_it.scale(ratio).slices],
        )
        look = looks(*statistics.standardise(*here.inner(border)), step, sensors=members[0].sensors)
        said = likelihoods(
            members,
            here,
            border=border,
            origin=(wide.row - border, wide.col - border),
            wanted=wanted,
            device=device,
        )
        averaged = [smooth(each, look, answers.smooth, answers.likeness)[:, *own][:, row, col] for _, each in said]
        found.append(np.stack(averaged))
        rows.append(row + window.row * step)
        cols.append(col + window.col * step)
    if not found:
        empty = np.zeros(0, np.int64)
        nothing = np.zeros((len(members), len(label_shares), 0), np.float32)
        return HeldOut(around.shape, step, empty, empty, empty, nothing, label_shares)
    at = np.concatenate(rows), np.concatenate(cols)
    truth = np.where(judged, labels.index, -1)[at].astype(np.int64)
    return HeldOut(around.shape, step, *at, truth, np.concatenate(found, axis=2), label_shares)
