"""The context branch, trained first and by itself on single labelled pixels.

Trained with the rest of the network, by its loss or by one of its own, it was worth nothing. n pixels | f statistics
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adcdnet.config import TrainConfig
from adcdnet.geo.grid import tiles
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.context import CONTEXT_REACH, ContextBranch
from adcdnet.nn.networks import Network
from adcdnet.training.area import TrainingArea
from adcdnet.training.stages.loop import History, State, check_finite, looks_at, optimizer_of, update
from adcdnet.training.stages.schedule import Schedule, within_passes

STEPS, BATCH = 3, 4  # times those of stage II by patches
MOST_PIXELS = 2**18  # labelled pixels it draws from
_WINDOW = 64  # MS pixels per side whose statistics are computed at once


def train_context(
    network: Network,
    branch: ContextBranch,
    area: TrainingArea,
    config: TrainConfig,
    schedule: Schedule,
    rng: np.random.Generator,
    history: History,
) -> None:
    """Train the branch of a network in place and leave it frozen, in eval mode."""
    device = next(branch.parameters()).device
    changes = {"steps": STEPS * config.stage2.steps, "batch": BATCH * config.stage2.batch}
    stage = within_passes(config, config.stage2.model_copy(update=changes), len(area.labelled), None)
    statistics, label = labelled_statistics(network, area, rng, device)
    weight = torch.tensor(schedule.drawn_shares) / torch.tensor(schedule.label_shares)
    weight = weight.to(device, torch.float32)
    # its answers are multiplied with those of the main branch, which expect the classes as often as drawn already:
    # what it expects of them is put on while it learns and taken off again
    expected = torch.tensor(schedule.drawn_shares, device=device).log()
    with torch.no_grad():
        branch.classifier.bias.add_(expected)
    branch.requires_grad_(True).train()
    optimizer, rate = optimizer_of(list(branch.parameters()), stage)
    for step in history.steps("context", stage.steps, State({"branch": branch}, optimizer, rate, rng)):
        some = torch.from_numpy(rng.integers(len(label), size=stage.batch)).to(device)
        loss = F.cross_entropy(branch(statistics[some]), label[some], weight)
        update(loss, optimizer, rate)
        if looks_at(step, stage.steps, config.validations):
            check_finite(loss.item(), "the context branch", step)
            history.note("context", step, stage.steps, loss=loss.item())
    branch.requires_grad_(False).eval()
    branch.classifier.bias.sub_(expected)


@torch.no_grad()
def labelled_statistics(
    network: Network, area: TrainingArea, rng: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Context statistics (n, f) and class indices (n,) of the labelled targets, or of `MOST_PIXELS` of them."""
    step, label = area.step, np.full_like(area.label, -1)
    chosen = tuple(area.labelled[rng.permutation(len(area.labelled))[:MOST_PIXELS]].T)
    label[chosen] = area.label[chosen]
    height, width = area.split.part.shape
    moves = isinstance(network, ADCDNet)  # one over tiles gives all targets of an MS pixel the same
    statistics, truth = [], []
    for window in tiles(height, width, _WINDOW):
        here = label[window.scale(step).slices]
        for phase in np.ndindex(step, step):
            row, col = np.nonzero(here[phase[0] :: step, phase[1] :: step] >= 0)
            if len(row):
                images = area.tile(window, phase if moves else (0, 0), border=CONTEXT_REACH)
                ms, pan = (torch.from_numpy(x.copy())[None].to(device) for x in images)
                statistics.append(network.context_statistics(ms, pan, border=CONTEXT_REACH)[0][:, row, col].T)
                truth.append(torch.from_numpy(here[row * step + phase[0], col * step + phase[1]]))
    return torch.cat(statistics), torch.cat(truth).to(device)
