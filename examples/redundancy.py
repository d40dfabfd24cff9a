"""Less redundancy, less information lost? Features before and after an attention, measured.

python examples/redundancy.py

The networks of two sensors of dia_two_sensors.py, trained; F are the features before an attention of mask M, on the
test part. Compared are ReLU(F) and ReLU(F·M) = ReLU(F)·M, so that nothing but the mask lies between them.

rank          effective rank of the channels at all positions, 1 to 16: the lower, the more redundant (Roy and Vetterli
              2007)
between       mutual information of two channels, mean over all pairs, in bits, as if they were normal:
              -log2(1 - correlation²)/2
of the cover  mutual information of the mean over positions and the cover, in bits: at least the entropy of the covers
              less the cross-entropy of a logistic regression, fitted on the training part
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from dia_two_sensors import COVERS, VARIANTS, TwoSensors, patches
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from study import Part, arguments, train
from torch import Tensor

from adcdnet.nn.sps import effective_rank

SETTINGS = {"samples": 1000, "epochs": 12}  # per seed

COMPARED = ("no attention", "CBAM spatial", "DIA")
MEASURES = ("rank", "between", "of the cover")


@dataclass(frozen=True)
class Measured:
    """Each of the measures before and after the attention, for one seed and sensor."""

    variant: str
    sensor: str
    before: tuple[float, float, float]
    after: tuple[float, float, float]


@torch.no_grad()
def features(network: TwoSensors, part: Part, sensor: str) -> tuple[Tensor, Tensor]:
    """ReLU(F) and ReLU(F·M), (n, c, h, w) each."""
    branch = getattr(network.eval(), sensor)
    f = branch[:-1](part.inputs[0 if sensor == "optical" else 1])
    return f.relu(), branch[-1](f).relu()


def between_channels(f: Tensor) -> float:
    """Mean mutual information of two channels in bits, as if normal."""
    spread = f.transpose(0, 1).flatten(1)
    living = spread[spread.std(1) > 1e-6]
    correlation = torch.corrcoef(living.double())
    pairs = correlation[tuple(torch.triu_indices(*correlation.shape, 1))].square().clamp(max=1 - 1e-9)
    return float((-torch.log2(1 - pairs) / 2).mean())


def of_the_cover(learn: Tensor, learn_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """A lower bound, in bits, of what the mean over positions knows of the cover."""
    scaler = StandardScaler().fit(learn.mean((2, 3)))
    model = LogisticRegression(max_iter=2000).fit(scaler.transform(learn.mean((2, 3))), learn_labels)
    share = model.predict_proba(scaler.transform(test.mean((2, 3))))[np.arange(len(test)), test_labels]
    return float(np.log2(COVERS) + np.log2(share).mean())


def measured(network: TwoSensors, learn: Part, test: Part, sensor: str) -> list[tuple[float, float, float]]:
    """The measures before and after."""
    found = []
    for own, other in zip(features(network, learn, sensor), features(network, test, sensor), strict=True):
        rank = effective_rank(other.movedim(1, -1).flatten(0, 2))
        found.append((rank, between_channels(other), of_the_cover(own, learn.labels, other, test.labels)))
    return found


def run(seeds: Sequence[int], *, samples: int, epochs: int) -> list[Measured]:
    """The measures of each variant and sensor for each seed."""
    rows = []
    for seed in seeds:
        learn, test = patches(samples, 2 * seed + 1), patches(2000, 2 * seed + 2)
        for name in COMPARED:
            torch.manual_seed(seed)
            network = TwoSensors(VARIANTS[name])
            train(network, learn, epochs=epochs, seed=seed)
            for sensor in ("optical", "radar"):
                rows.append(Measured(name, sensor, *measured(network, learn, test, sensor)))
    return rows


def table(rows: Sequence[Measured]) -> str:
    """Mean ± sd over the seeds, before -> after."""
    lines = [f"| sensor, attention | {' | '.join(MEASURES)} |", "|---|---|---|---|"]
    for sensor, variant in dict.fromkeys((row.sensor, row.variant) for row in rows):
        own = [row for row in rows if (row.sensor, row.variant) == (sensor, variant)]
        cells = []
        for k in range(len(MEASURES)):
            before, after = (np.array([getattr(row, side)[k] for row in own]) for side in ("before", "after"))
            cells.append(_cell(before) if (before == after).all() else f"{_cell(before)} → {_cell(after)}")
        lines.append(f"| {sensor}, {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: np.ndarray) -> str:
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


if __name__ == "__main__":
    args = arguments(__doc__, **SETTINGS)
    print(table(run(args.seeds, samples=args.samples, epochs=args.epochs)))
