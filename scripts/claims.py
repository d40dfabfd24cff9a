"""What the article claims of its parts, measured: see docs/evidence/claims.md.

    python scripts/claims.py alignment FOLDER [--seeds 3]    do both sensors say the same after stage I?
    python scripts/claims.py convergence FOLDER [--seeds 5]  does the prior make stage II converge faster?
    python scripts/claims.py factors FOLDER [--seeds 3]      do DIA's factors serve?

A FOLDER holds ms.tif, pan.tif, labels.tif and, in it or above it, classes.csv. About a third of its blocks judge, and
choose nothing; the rest trains, in bf16. Network and settings are those of `default`, which goes by the ratio and the
labels of the scene; --steps sets the length of stage II.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adcdnet.config import TrainConfig
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import read_labels
from adcdnet.geo.scene import Scene
from adcdnet.nn.architecture import Layout
from adcdnet.nn.dia import DeformableInteractiveAttention
from adcdnet.nn.parts import PUBLISHED, Parts
from adcdnet.nn.sps import effective_rank
from adcdnet.training.area import TrainingArea
from adcdnet.training.prepare import prepare
from adcdnet.training.scenes import LabelledScene, training_area
from adcdnet.training.stages.loop import History, build_network
from adcdnet.training.stages.schedule import schedule_of
from adcdnet.training.stages.stage1 import features_of_draw, train_prior
from adcdnet.training.stages.train import train_network

POSITIONS = 1000  # whose features are compared
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """A scene ready to train on, and the settings that suit it."""

    area: TrainingArea
    layout: Layout
    config: TrainConfig


def main() -> None:
    """One experiment, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=("alignment", "convergence", "factors"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    experiment = {"alignment": alignment, "convergence": convergence, "factors": factors}[given.experiment]
    experiment(given.folder, given.seeds, given.steps)


def setting(folder: Path, seed: int, steps: int, **changes: Any) -> Setting:
    """changes: of the settings of stage II's length and of `default`. The split is the same for every seed."""
    config = TrainConfig().replace(
        {
            "members": ["adcdnet"],
            "split": {"folds": 1, "validation": 0.35, "test": 0.0},
            "stage2": {"steps": steps},
            "passes": 0.0,
            "validations": 20,
            "plain_if_few": False,
            "precision": "bf16",
        }
    )
    table = next(path for path in (folder / "classes.csv", folder.parent / "classes.csv") if path.exists())
    with Scene.open(folder / "ms.tif", folder / "pan.tif") as scene:
        labels = read_labels(folder / "labels.tif", scene.grid, classes=ClassTable.read(table))
        prepared = prepare([LabelledScene(scene, labels)], config, None)
    ground, config = prepared.ground, prepared.config.replace({"seed": seed, **changes})
    area = training_area(
        ground.pixels,
        ground.labels,
        prepared.splits[0],
        config=config,
        ratio=ground.layout.ratio,
        phase=ground.phase,
        statistics=prepared.statistics,
    )
    return Setting(area, ground.layout, config)


def trained(own: Setting, parts: Parts = PUBLISHED) -> list[tuple[int, float, float]]:
    """(step, kappa, AA) of the judging ground on the way through stage II."""
    history = History()
    torch.manual_seed(own.config.seed)
    network = build_network(own.config, own.layout, CPU, parts)
    train_network(network, own.area, own.config, history)
    rows = [row for row in history.rows if "validation_kappa" in row]
    return [(int(row["step"]), float(row["validation_kappa"]), float(row["validation_aa"])) for row in rows]


def alignment(folder: Path, seeds: int, steps: int) -> None:
    """Likeness of F_ms and F_pan at the same places: linear CKA (Kornblith et al. 2019, arXiv:1905.00414), how often
    the nearest of the other sensor's vectors is that of the same place (cosine), and effective rank."""
    found: dict[str, list[tuple[float, ...]]] = {"before": [], "after": []}
    for seed in range(seeds):
        own = setting(folder, seed, steps)
        torch.manual_seed(seed)
        network = build_network(own.config, own.layout, CPU)
        prior, schedule = network.prior, schedule_of(own.area, own.config)
        assert prior is not None
        found["before"].append(_likeness(own, prior, seed))
        train_prior(prior, own.area, own.config, schedule, np.random.default_rng(seed), History())
        prior.mean.zero_()  # F itself, as before
        prior.deviation.fill_(1)
        found["after"].append(_likeness(own, prior, seed))
    print("| stage I | linear CKA | nearest is the same place | effective rank, MS | PAN |\n|---|---|---|---|---|")
    for when, values in found.items():
        print(f"| {when} | {' | '.join(_spread(column) for column in zip(*values, strict=True))} |")
    print(f"by chance the nearest is the same place in 1 of {POSITIONS}")


def _likeness(own: Setting, prior: Any, seed: int) -> tuple[float, ...]:
    rng, schedule = np.random.default_rng(1000 + seed), schedule_of(own.area, own.config)
    vectors: list[list[Tensor]] = [[], []]
    while sum(map(len, vectors[0])) < POSITIONS:
        with torch.no_grad():
            features, some = features_of_draw(prior, own.area, own.config, schedule, rng)
        for kept, f in zip(vectors, features, strict=True):
            kept.append(some(f).float())
    x, y = (torch.cat(kept)[:POSITIONS].double() for kept in vectors)
    x, y = x - x.mean(0), y - y.mean(0)
    cka = (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    near = (F.normalize(x, dim=1) @ F.normalize(y, dim=1).T).argmax(1)
    same = (near == torch.arange(len(x))).double().mean()
    return float(cka), float(same), effective_rank(x), effective_rank(y)


def convergence(folder: Path, seeds: int, steps: int) -> None:
    """Steps of stage II until the judging ground is answered nearly as well as without a prior at the end.

    A training that never gets there counts with all its steps; how many get there stands beside.
    """
    conditions = {
        "learnt prior": {},
        "random prior": {"stage1": {"steps": 0}},
        "no prior": {"network": {"prior": False}},
    }
    curves = {
        name: [trained(setting(folder, seed, steps, **changes)) for seed in range(seeds)]
        for name, changes in conditions.items()
    }
    goals = [share * mean(curve[-1][1] for curve in curves["no prior"]) for share in (0.9, 0.97)]
    print(f"| | steps to kappa {goals[0]:.3f} | to {goals[1]:.3f} | kappa at the end | AA |\n|---|---|---|---|---|")
    for name, own in curves.items():
        cells = []
        for goal in goals:
            there = sum(max(k for _, k, _ in curve) >= goal for curve in own)
            first = [next((s for s, k, _ in curve if k >= goal), curve[-1][0]) for curve in own]
            cells.append(f"{_spread(first, 0)} ({there} of {len(own)})")
        cells += [_spread(curve[-1][n] for curve in own) for n in (1, 2)]
        print(f"| {name} | {' | '.join(cells)} |")


def factors(folder: Path, seeds: int, steps: int) -> None:
    """Gradient factors of DIA, global and local, of MS; those of PAN are the other way round."""
    print("| factors, MS; PAN | kappa at the end | AA |\n|---|---|---|")
    for name, attention in _attentions():
        parts = replace(PUBLISHED, attention=attention)
        ends = [trained(setting(folder, seed, steps), parts)[-1][1:] for seed in range(seeds)]
        print(f"| {name} | {' | '.join(_spread(column) for column in zip(*ends, strict=True))} |", flush=True)


def _attentions() -> Iterator[tuple[str, Callable[[float, float], Any]]]:
    def scaled(change: Callable[[float, float], tuple[float, float]]) -> Callable[[float, float], Any]:
        def made(own: float, other: float) -> Any:
            first, second = change(own, other)
            return DeformableInteractiveAttention(global_scale=first, local_scale=second)

        return made

    yield "0.4 and 0.1; 0.1 and 0.4 (published)", scaled(lambda g, m: (g, m))
    yield "0.1 and 0.4; 0.4 and 0.1", scaled(lambda g, m: (m, g))
    yield "1 and 1; 1 and 1", scaled(lambda g, m: (1.0, 1.0))
    yield "0 and 0; 0 and 0", scaled(lambda g, m: (0.0, 0.0))


def _spread(values: Any, digits: int = 3) -> str:
    values = list(values)
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


if __name__ == "__main__":
    main()
