"""The variants that a benchmark compares: each builds, answers and is what its name says."""

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from adcdnet.benchmark.comparisons import SUBSTITUTES
from adcdnet.benchmark.methods_by_name import (
    ABLATIONS,
    ABLATIONS_OF_PAPER,
    method_name,
    parts_of,
    rules_of,
    settings_hash,
    settings_of,
)
from adcdnet.config import TrainConfig
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
from adcdnet.nn.parts import PUBLISHED

METHOD = Path(__file__).parents[2] / "docs" / "concepts" / "method.md"


def settings(name: str) -> TrainConfig:
    return TrainConfig.of_profile("patch").replace(ABLATIONS[name])


def network(name: str) -> ADCDNet:
    torch.manual_seed(0)
    return ADCDNet(settings(name).network, Layout(ms_bands=3, pan_bands=2, ratio=2, classes=4), parts_of(name)).eval()


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
    network = ADCDNet(config.network, layout, parts_of(name)).train()
    outputs = network(torch.randn(4, 3, 16, 16), torch.randn(4, 1, 64, 64), branches=1)
    assert outputs.main.shape == (4, 3)
    assert (outputs.ms is None) == (name == "paper-no-dtm") == (config.branch_weight == 0)
    sum(z.square().sum() for z in outputs if z is not None).backward()


def test_none_reaches_further_than_the_default():
    """Folds have the guard of the widest reach, so a wider one would be tested on other pixels than the rest."""
    assert max(settings(name).network.reach for name in ABLATIONS) == TrainConfig.of_profile("patch").network.reach


def test_no_two_are_the_same():
    assert len({json.dumps(rules_of(name, 0)) for name in ABLATIONS}) == len(ABLATIONS)


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
        first, second = rules_of(one, 0), rules_of(other, 0)
        first, second = (rules | rules.pop("network") for rules in (first, second))
        names = {k for k in first if first[k] != second.get(k)}
        if "parts" in names:
            mine, theirs = parts_of(one), parts_of(other)
            names |= {f.name for f in fields(mine) if getattr(mine, f.name) != getattr(theirs, f.name)}
        return names

    # all-parts is adcdnet where labels are few too
    assert differing("cbam", "all-parts") == {"parts", "attention"}
    assert differing("gru", "all-parts") == differing("attention", "all-parts") == {"parts", "reader"}
    assert differing("gate-fusion", "flatten-head") == differing("concat-fusion", "flatten-head") == {"parts", "fuse"}
    assert differing("zeros", "halo") == {"padding", "patch"}


def test_the_document_names_methods_that_there_are():
    chapter = METHOD.read_text("utf-8").split("## Others in their place")[1].split("\n## ")[0]
    rows = [line.split("|") for line in chapter.splitlines() if line.startswith("| ") and "`" in line]
    assert {row[4].strip(" `") for row in rows} == {"cbam", "gru", "attention", "gate-fusion", "concat-fusion", "zeros"}
    for row in rows:
        method = row[4].strip(" `")
        assert set(re.findall(r"`([^`]+)`", row[5])) <= set(ABLATIONS)
        what = re.findall(r"`([^`]+)`", row[2])
        if method in SUBSTITUTES:
            assert what == [what_of(method)]
            continue
        for setting in what:
            ((key, value),) = tomllib.loads(setting).items()
            assert getattr(settings(method).network, key) == value


def what_of(method: str) -> str:
    """The class that is exchanged, by its name."""
    parts = SUBSTITUTES[method]
    (changed,) = (f.name for f in fields(parts) if getattr(parts, f.name) != getattr(PUBLISHED, f.name))
    return type(getattr(parts, changed)(*((4,) if changed == "fuse" else (4, 4)))).__name__


def test_parts_of_a_method_under_the_settings_of_a_file(tmp_path):
    file = tmp_path / "fast.toml"
    file.write_text("seed = 3\nmixup = 0.0\n")
    method = f"gru+{file}"
    assert (settings_of(method, 5).mixup, settings_of(method, 5).seed) == (0.0, 5)
    assert parts_of(method) == SUBSTITUTES["gru"]
    assert parts_of(str(file)) == PUBLISHED
    assert method_name(method) == "fast"
    assert settings_hash(method) != settings_hash(str(file))
