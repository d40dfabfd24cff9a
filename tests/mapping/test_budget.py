"""Tile and batch from an amount of memory, against sizes worked out by hand."""

import re
from dataclasses import replace

import pytest
import torch

from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.mapping.memory import bytes_per_patch, sizes_within
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout, PatchArchitecture

MB = 2**20
LAYOUT = Layout(ms_bands=4, pan_bands=1, ratio=4, classes=7)
# values of the maps of a 16 × 16 patch and its 64 × 64 pan pixels, widths 128, 256, 128; ms strides 1 2 1, pan 2 2 2
REACH = 10  # MS pixels
PAPER_MS = 128 * 16**2 + 256 * 8**2 + 128 * 8**2
PAPER_PAN = 128 * 32**2 + 256 * 16**2 + 128 * 8**2
PAPER_PIXELS = 4 * 16**2 + 64**2


def network_of(config: PatchArchitecture) -> ADCDNet:
    with torch.device("meta"):
        return ADCDNet(config, LAYOUT)


@pytest.fixture(scope="module")
def paper() -> ADCDNet:
    return network_of(TrainConfig.of_profile("paper-code").network)


@pytest.fixture(scope="module")
def default() -> ADCDNet:
    return network_of(PatchArchitecture())


def test_a_patch_of_the_published_network_by_hand(paper):
    largest = 128 * 32**2
    assert bytes_per_patch(paper) == 4 * (PAPER_PIXELS + 2 * (PAPER_MS + PAPER_PAN) + 3 * largest) == 3_690_496


def test_without_the_prior_network_the_maps_count_once(paper):
    alone = network_of(replace(paper.config, prior=False))
    assert bytes_per_patch(paper) - bytes_per_patch(alone) == 4 * (PAPER_MS + PAPER_PAN)


def test_a_patch_of_the_recommended_network_by_hand(default):
    # 17 pixels a side, without padding: 15, 7, 5; pan comes onto that grid by its stem first
    maps = 32 * 15**2 + 64 * 7**2 + 64 * 5**2
    stem = 32 * 17**2
    assert bytes_per_patch(default) == 4 * (17**2 * (4 + 16) + 2 * (2 * maps + stem) + 3 * stem)


@pytest.mark.parametrize("unit", ["conv", "mobilenetv3"])
@pytest.mark.parametrize("profile", ["patch", "paper-code"])
def test_maps_are_as_large_as_counted(profile, unit):
    config = replace(TrainConfig.of_profile(profile).network, backbone=unit, prior=False)
    network, side = network_of(config), config.before + 1 + config.after
    kept, inside = [], []
    for encoder in (network.sensors.ms, network.sensors.pan):
        for part in [encoder.backbone.stem, *encoder.backbone.units]:
            if part is not None:
                part.register_forward_hook(lambda _, __, out: kept.append(out.numel()))
                for inner in part.children():
                    inner.register_forward_hook(lambda _, __, out: inside.append(out.numel()))
    network.sensors.ms.backbone(torch.empty(1, 4, side, side, device="meta"))
    network.sensors.pan.backbone(torch.empty(1, 1, 4 * side, 4 * side, device="meta"))
    largest = max(kept + inside)
    assert bytes_per_patch(network) == 4 * (side**2 * (4 + 16) + sum(kept) + 3 * largest)


def test_the_batch_of_patches_follows_the_budget(paper):
    one = bytes_per_patch(paper)
    smallest = smallest_for(paper, "patch")
    for more, used, batch in ((0, 0, 1), (41, 0, 42), (41, 20, 22)):
        sizes = sizes_within(paper, smallest + more * one, reach=REACH, used=100 * MB + used * one, engine="patch")
        assert sizes.batch == batch
        assert 16 <= sizes.tile < 40  # what is left is less than one patch more would take
    assert sizes_within(paper, 16 * 1024 * MB, reach=REACH, used=100 * MB, engine="patch") == (512, 256)


@pytest.mark.parametrize("engine", ["dense", "patch"])
def test_a_budget_too_small_for_a_tile_names_the_smallest_that_works(default, engine):
    smallest = smallest_for(default, engine)
    tile, _ = sizes_within(default, smallest, reach=REACH, used=100 * MB, engine=engine)
    assert tile >= 16
    assert sizes_within(default, 4 * smallest, reach=REACH, used=100 * MB, engine=engine).tile > tile
    with pytest.raises(InputError, match="is the smallest that works here"):
        sizes_within(default, smallest - MB, reach=REACH, used=100 * MB, engine=engine)


def smallest_for(network: ADCDNet, engine: str) -> int:
    """What the refusal of a tiny budget names, in bytes."""
    with pytest.raises(InputError, match=r"--memory (\d+)MB is the smallest") as refused:
        sizes_within(network, 100 * MB, reach=REACH, used=100 * MB, engine=engine)
    return int(re.search(r"--memory (\d+)MB", str(refused.value))[1]) * MB
