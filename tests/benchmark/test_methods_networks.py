"""The networks we compare with: their sizes, where they look, what the loop keeps, and the pansharpening."""

import numpy as np
import pytest
import torch
from torch import nn

from adcdnet.benchmark.methods import BandRoles
from adcdnet.benchmark.methods.cnn import TwoBranchCNN
from adcdnet.benchmark.methods.dbaf import DBAFNet, _ChannelAttention, _HourGlass
from adcdnet.benchmark.methods.loop import Recipe, parameter_count, train
from adcdnet.benchmark.methods.mft import MFT
from adcdnet.benchmark.methods.patches import PatchMethod
from adcdnet.benchmark.methods.resnet import DualResNet
from adcdnet.benchmark.methods.unet import UNet, UNetClassifier, brovey
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.labels import Labels
from adcdnet.geo.scene import Pixels
from adcdnet.nn.architecture import Layout
from adcdnet.split.parts import TRAIN, Split
from adcdnet.training.area import TrainingArea

LAYOUT = Layout(ms_bands=4, pan_bands=1, ratio=4, classes=5)


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        (lambda: TwoBranchCNN(LAYOUT), 7.40),
        (lambda: DualResNet(LAYOUT), 1.42),
        (lambda: DualResNet(LAYOUT, width=64), 22.6),
        (lambda: MFT(LAYOUT), 0.252),
        (lambda: DBAFNet(LAYOUT), 4.28),
        (lambda: UNet(5, 5, width=64), 31.4),
    ],
)
def test_sizes_are_the_published_ones(network, millions):
    assert parameter_count(network()) / 1e6 == pytest.approx(millions, rel=5e-3)


def test_resnet_18_by_hand():
    # 3×3 stem of 4 bands, then per stage 4 convolutions; BatchNorm has 2 numbers a channel; 1×1 shortcuts widen
    stages = 4 * 9 * 16**2 + sum(9 * (c * 2 * c + 3 * (2 * c) ** 2) + 2 * c * c for c in (16, 32, 64))
    norms = 2 * (16 + 4 * 16 + 5 * (32 + 64 + 128))
    assert parameter_count(DualResNet(LAYOUT).ms) == 9 * 4 * 16 + stages + norms


@pytest.mark.parametrize("ratio", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("build", "side"), [(TwoBranchCNN, 8), (DualResNet, 16), (MFT, 16), (DBAFNet, 16)])
def test_networks_take_any_ratio_and_every_weight_learns(build, side, ratio):
    torch.manual_seed(ratio)
    network = build(Layout(ms_bands=3, pan_bands=2, ratio=ratio, classes=4))
    logits = network(torch.randn(2, 3, side, side), torch.randn(2, 2, side * ratio, side * ratio))
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def weights_given(y: torch.Tensor, kept: torch.Tensor, *, axes: tuple[int, ...]) -> torch.Tensor:
    """y / kept where kept is not 0, after a look that they are the same along these axes."""
    weight = (y / kept).where(kept > 0, torch.nan)
    known = ~weight.isnan()
    mean = weight.nanmean(axes, keepdim=True).expand_as(weight)
    assert torch.allclose(weight[known], mean[known])
    return weight[known]


def test_an_hour_glass_weighs_places_and_a_channel_attention_channels():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 14)
    glass, channels = _HourGlass(6).eval(), _ChannelAttention(6, 8).eval()
    of_places = weights_given(glass(x), glass.trunk(x), axes=(1,))
    of_channels = weights_given(channels(x), channels.features(x), axes=(2, 3))
    for weight, low in ((of_places, 1), (of_channels, 0)):
        assert low < weight.min() < weight.max() - 1e-2 < low + 1


@pytest.mark.parametrize("size", [(16, 16), (37, 50)])
def test_unet_keeps_odd_sizes(size):
    assert UNet(3, 4).eval()(torch.randn(1, 3, *size)).shape == (1, 4, *size)


# ---- where they look


class Probe(nn.Module):
    """Answers with what it sees at its target: the first MS band, and the mean of PAN over that MS pixel."""

    def __init__(self, side: int, ratio: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.at, self.ratio, self.seen = side // 2 - 1, ratio, []

    def forward(self, ms, pan):
        cells = slice(self.at * self.ratio, (self.at + 1) * self.ratio)
        found = torch.stack([ms[:, 0, self.at, self.at], pan[:, 0, cells, cells].mean((1, 2))], dim=1)
        if self.training:
            self.seen.append(found.detach())
        return found + self.unused


def numbered_area(ratio: int) -> tuple[TrainingArea, Pixels]:
    """Each MS pixel has its own number, in both images; every third of every third row is labelled."""
    number = np.arange(31 * 37, dtype=np.float32).reshape(1, 31, 37)
    pan = number.repeat(ratio, 1).repeat(ratio, 2)
    pixels = Pixels(number, pan, np.ones((31, 37), bool), np.ones(pan.shape[1:], bool))
    index = np.full((31, 37), -1, np.int16)
    index[1::3, ::3], index[1::6, ::3] = 0, 1
    split = Split(np.full((31, 37), TRAIN, np.uint8), block=1, notes=())
    labels = Labels(index, ClassTable.numbered(["a", "b"]))
    return TrainingArea.of(pixels, labels, split, config=TrainConfig.of_profile("patch"), ratio=ratio), pixels


@pytest.mark.parametrize(("side", "ratio"), [(8, 2), (16, 3)])
def test_a_patch_lies_around_its_target_in_training_and_prediction(side, ratio):
    area, pixels = numbered_area(ratio)
    probe = Probe(side, ratio)
    method = PatchMethod(lambda _: probe, side=side, batch=9, recipe=Recipe(steps=3, learning_rate=1e-9))
    classifier = method.fit(area, pixels, BandRoles(), seed=0)
    numbers = torch.cat(probe.seen).numpy() * area.statistics.ms_deviation[0] + area.statistics.ms_mean[0]
    assert np.allclose(numbers[:, 0], numbers[:, 1], atol=0.1)
    labelled = pixels.ms[0][area.label >= 0]
    assert np.isin(np.rint(numbers[:, 0]), labelled).all()
    logits = classifier.logits(pixels)
    assert np.allclose(logits, area.statistics.standardise(*pixels)[0][0], atol=1e-5)


def test_unet_averages_over_the_cells_of_a_pixel():
    rng = np.random.default_rng(0)
    pixels = Pixels(
        rng.random((2, 5, 7), np.float32) + 1,
        rng.random((1, 15, 21), np.float32) + 1,
        np.ones((5, 7), bool),
        np.ones((15, 21), bool),
    )
    statistics = BandStatistics((1.4, 1.6), (0.2, 0.3), (1.5,), (0.3,))
    answer = UNetClassifier(nn.Identity(), statistics, border=4, drawn_shares=(0.3, 0.3, 0.4)).logits(pixels)
    cells = (pixels.pan[0] - 1.5).reshape(5, 3, 7, 3) / 0.3
    assert np.allclose(answer[2], cells.mean((1, 3)), atol=1e-5)


# ---- pansharpening


def test_brovey_by_hand():
    statistics = BandStatistics((10.0, 30.0), (2.0, 5.0), (100.0,), (50.0,))
    ms, pan = torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 6, 6)  # all at the mean
    pan[..., 2, 2] = 1  # 150, half as much again as the mean
    sharp = brovey(ms, pan, statistics)
    assert sharp[0, :, 2, 2].tolist() == pytest.approx([2.5, 3, 1])  # 15 and 45, standardised; then pan itself
    sharp[..., 2, 2] = 0
    assert sharp.abs().max() < 1e-6  # what is 0 in both stays 0
    ms[:, :, 1, 1] = torch.tensor([1.0, 2.0])  # 12 and 40, intensity 1.3 of the mean, at half weight beside the centre
    dimmed = brovey(ms, torch.zeros(1, 1, 6, 6), statistics)
    wide = torch.tensor([10.0, 30.0]) + torch.tensor([2.0, 10.0]) * 0.75**2
    expected = (wide * 40 / wide.sum() - torch.tensor([10.0, 30.0])) / torch.tensor([2.0, 5.0])
    assert torch.allclose(dimmed[0, :2, 2, 2], expected, atol=1e-5)


def test_brovey_of_darkness_is_finite():
    statistics = BandStatistics((10.0,), (2.0,), (100.0,), (50.0,))
    assert brovey(torch.full((1, 1, 3, 3), -5.0), torch.full((1, 1, 9, 9), 4.0), statistics).abs().max() < 100


# ---- the loop


def test_the_best_look_is_kept():
    network, at_look = nn.Linear(1, 1), []
    answers = iter([0.1, 0.4, 0.3, 0.4, 0.2])

    def kappa() -> float:
        at_look.append(network.weight.item())
        assert not network.training
        return next(answers)

    train(network, Recipe(steps=10, learning_rate=0.1), lambda: network.weight.sum(), kappa)
    assert network.weight.item() == at_look[1]  # the first of equals
    assert len(set(at_look)) == 5


def test_without_validation_the_last_weights_are_kept():
    network = nn.Linear(1, 1)
    start = network.weight.item()
    train(network, Recipe(steps=3, learning_rate=0.1), lambda: network.weight.sum(), None)
    assert network.weight.item() < start
    assert not network.training


def test_divergence_is_said():
    network = nn.Linear(1, 1)
    with pytest.raises(InputError, match="Linear diverged: its loss is nan after 1 steps"):
        train(network, Recipe(steps=5, learning_rate=0.1), lambda: network.weight.sum() * torch.nan, None)
