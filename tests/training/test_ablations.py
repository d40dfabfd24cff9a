"""The variants that a benchmark compares: each builds, answers and is what its name says."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from adcdnet.benchmark.methods_by_name import ABLATIONS, ABLATIONS_OF_PAPER, settings_of
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.geo.labels import Labels
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
from adcdnet.report.explain import explain
from conftest import build_model

METHOD = Path(__file__).parents[2] / "docs" / "concepts" / "method.md"


def settings(name: str) -> TrainConfig:
    return TrainConfig().replace(ABLATIONS[name])


def network(name: str) -> ADCDNet:
    torch.manual_seed(0)
    return ADCDNet(settings(name).network, Layout(ms_bands=3, pan_bands=2, ratio=2, classes=4)).eval()


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_answers_as_asked(name):
    found, config = network(name), settings(name).network
    side = config.before + 1 + config.after
    ms, pan = torch.randn(5, 3, side, side), torch.randn(5, 2, 2 * side, 2 * side)
    with torch.inference_mode():
        outputs = found(ms, pan, branches=True)
        with torch.autocast("cpu", torch.bfloat16):
            half = found(ms, pan).main
    assert outputs.main.shape == (5, 4)
    assert (half - outputs.main).abs().max() < 0.1
    assert (outputs.ms is None) == (not config.dtm)
    assert config.sharable == (name != "zeros")


@pytest.mark.parametrize("name", ABLATIONS_OF_PAPER)
def test_each_of_the_published_network_learns(name):
    small = {"network": {"widths": [4, 6, 4], "token_dims": [6, 8], "hidden": 8}}
    config = settings_of(name, 0).replace(small)
    layout = Layout(ms_bands=3, pan_bands=1, ratio=4, classes=3)
    outputs = ADCDNet(config.network, layout).train()(torch.randn(4, 3, 16, 16), torch.randn(4, 1, 64, 64), branches=1)
    assert outputs.main.shape == (4, 3)
    assert (outputs.ms is None) == (name == "paper-no-dtm") == (config.branch_weight == 0)
    sum(z.square().sum() for z in outputs if z is not None).backward()


def test_none_reaches_further_than_the_default():
    """Folds have the guard of the widest reach, so a wider one would be tested on other pixels than the rest."""
    assert max(settings(name).network.reach for name in ABLATIONS) == TrainConfig().network.reach


def test_no_two_are_the_same():
    assert len({settings(name).model_dump_json() for name in ABLATIONS}) == len(ABLATIONS)


def test_parts_that_are_exchanged_have_their_sizes():
    """Two sensors, in PriorNet and in the network that answers: four attentions; two DTM heads; one fusion."""
    count = {name: sum(p.numel() for p in network(name).parameters()) for name in ABLATIONS}
    assert count["adcdnet"] - count["no-dia"] == 4 * 59
    assert count["cbam"] - count["no-dia"] == 4 * 2 * 7 * 7
    mamba = 64 * 128 + 64 * 5 + 64 * (4 + 32) + (4 * 64 + 64) + 64 * 16 + 64 + 64 * 64
    assert count["gru"] - count["adcdnet"] == 2 * (3 * (64 * 64 + 64 * 64 + 64 + 64) - mamba)
    assert count["attention"] - count["adcdnet"] == 2 * (4 * 64 * 64 - mamba)
    assert count["gate-fusion"] - count["flatten-head"] == 128 * 64 + 64
    assert count["concat-fusion"] - count["flatten-head"] == 128 * 64
    assert count["zeros"] - count["halo"] == 64 * 64 * (4**2 - 5**2)


def test_what_is_compared_differs_in_its_part_alone():
    def differing(one: str, other: str) -> set[str]:
        first, second = settings(one).model_dump(), settings(other).model_dump()
        assert {k for k in first if first[k] != second[k]} == {"network"}
        return {k for k in first["network"] if first["network"][k] != second["network"][k]}

    assert differing("cbam", "adcdnet") == {"attention"}
    assert differing("gru", "adcdnet") == differing("attention", "adcdnet") == {"reader"}
    assert differing("gate-fusion", "flatten-head") == differing("concat-fusion", "flatten-head") == {"fusion"}
    assert differing("zeros", "halo") == {"padding", "patch"}


def test_the_document_names_methods_that_there_are():
    chapter = METHOD.read_text("utf-8").split("## Others in their place")[1].split("\n## ")[0]
    rows = [line.split("|") for line in chapter.splitlines() if line.startswith("| ") and "`" in line]
    assert {row[4].strip(" `") for row in rows} == {"cbam", "gru", "attention", "gate-fusion", "concat-fusion", "zeros"}
    for row in rows:
        method = row[4].strip(" `")
        assert set(re.findall(r"`([^`]+)`", row[5])) <= set(ABLATIONS)
        for setting in re.findall(r"`([^`]+)`", row[2]):
            ((key, value),) = tomllib.loads(setting).items()
            assert getattr(settings(method).network, key) == value


@pytest.mark.parametrize("reader", ["gru", "attention"])
def test_only_mamba_can_be_explained(reader, tiny_scene):
    model = build_model(Layout(ms_bands=3, pan_bands=2, ratio=2, classes=4), reader=reader)
    with pytest.raises(InputError, match=f"read by '{reader}', and only Mamba's way"):
        explain(model, tiny_scene, Labels(np.zeros(tiny_scene.grid.shape, np.int16), model.classes))
