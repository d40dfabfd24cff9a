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
    ABLATIONS_OF_PATCH,
    NETWORKS,
    method_name,
    parts_of,
    rules_of,
    settings_hash,
    settings_of,
)
from adcdnet.config import TrainConfig
from adcdnet.errors import InputError
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout
from adcdnet.nn.networks import Network, network_of
from adcdnet.nn.parts import PUBLISHED
from adcdnet.nn.tile_sharing import Targets

METHOD = Path(__file__).parents[2] / "docs" / "concepts" / "method.md"


def network(name: str) -> Network:
    torch.manual_seed(0)
    layout = Layout(ms_bands=3, pan_bands=2, ratio=2, classes=4)
    return network_of(settings_of(name, 0).network, layout, parts_of(name)).eval()


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_answers_as_asked(name):
    found, config = network(name), settings_of(name, 0).network
    assert config.form == "tile"
    side = 5 + 2 * config.reach
    ms, pan = torch.randn(2, 3, side, side), torch.randn(2, 2, 2 * side, 2 * side)
    targets = Targets(*torch.tensor([[0, 1, 1], [0, 2, 4], [4, 2, 0]]))
    with torch.inference_mode():
        main = found(ms, pan, border=config.reach)
        shared = found.share(ms, pan, border=config.reach)
        with torch.autocast("cpu", torch.bfloat16):
            half = found(ms, pan, border=config.reach)
        branches = found.classify_branches(shared, targets) if config.dtm else ()
    assert main.shape == (2, 4, 5, 5)
    assert (half - main).abs().max() < 0.1
    assert [logits.shape for logits in branches] == ([] if name in ("no-dtm", "tiles-plain") else [(3, 4), (3, 4)])
    assert (shared.statistics is None) == (name == "no-context")
    assert (shared.prior is None) == (name in ("no-stage1", "tiles-plain"))


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_learns(name):
    """Gradients of all that stage II trains, the parts that are exchanged among them."""
    config, layout = settings_of(name, 0).network, Layout(ms_bands=3, pan_bands=1, ratio=2, classes=3)
    found = network_of(config, layout, parts_of(name)).train()
    ms, pan = torch.randn(2, 3, 16, 16), torch.randn(2, 1, 32, 32)
    targets = Targets(*torch.tensor([[0, 1], [3, 9], [8, 2]]))
    outputs = found.on_tile(ms, pan, targets, branch_targets=targets)
    assert outputs.main.shape == (2, 3)
    assert (outputs.ms is None) == (name in ("no-dtm", "tiles-plain")) == (settings_of(name, 0).branch_weight == 0)
    sum(z.square().sum() for z in outputs if z is not None).backward()
    assert not [n for n, p in found.trained_parameters() if p.grad is None]


@pytest.mark.parametrize("name", ABLATIONS_OF_PATCH)
def test_each_over_patches_answers_as_asked(name):
    found, config = network(name), settings_of(name, 0).network
    assert config.form == "patch"
    side = config.before + 1 + config.after
    ms, pan = torch.randn(5, 3, side, side), torch.randn(5, 2, 2 * side, 2 * side)
    with torch.inference_mode():
        outputs = found(ms, pan, branches=True)
        with torch.autocast("cpu", torch.bfloat16):
            half = found(ms, pan).main
    assert outputs.main.shape == (5, 4)
    assert (half - outputs.main).abs().max() < 0.1
    assert (outputs.ms is None) == (not config.dtm)
    assert config.sharable == (name != "patch-zeros")


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


def test_none_wants_a_wider_guard_than_the_default():
    """Folds have the widest guard, so a network with a wider one would be tested on other pixels than the rest."""
    assert max(settings_of(name, 0).guard for name in NETWORKS) == TrainConfig().guard
    assert max(settings_of(name, 0).for_few_labels().guard for name in NETWORKS) == TrainConfig().guard


def test_none_over_patches_reaches_further_than_the_guard():
    """The guard keeps all that a network over patches sees of test ground out of training."""
    for name in ("patch", "paper", *ABLATIONS_OF_PATCH, *ABLATIONS_OF_PAPER):
        assert settings_of(name, 0).reach == settings_of(name, 0).guard <= TrainConfig().guard


@pytest.mark.parametrize("names", [ABLATIONS, ("patch", *ABLATIONS_OF_PATCH), ("paper", *ABLATIONS_OF_PAPER)])
def test_no_two_are_the_same(names):
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(json.dumps(rules_of(name, 0)), []).append(name)
    assert not [alike for alike in same.values() if len(alike) > 1]


def test_parts_that_are_exchanged_have_their_sizes():
    """Two sensors, in the prior network and in the one that answers: four attentions; two DTM heads; one fusion."""
    names = ("patch", *ABLATIONS, *ABLATIONS_OF_PATCH)
    count = {name: sum(p.numel() for p in network(name).parameters()) for name in names}
    mamba = 64 * 128 + 64 * 5 + 64 * (4 + 32) + (4 * 64 + 64) + 64 * 16 + 64 + 64 * 64
    for before, whole in (("", "adcdnet"), ("patch-", "patch")):
        assert count[whole] - count[f"{before}no-dia"] == 4 * 59
        assert count[f"{before}cbam"] - count[f"{before}no-dia"] == 4 * 2 * 7 * 7
        assert count[f"{before}gru"] - count[whole] == 2 * (3 * (64 * 64 + 64 * 64 + 64 + 64) - mamba)
        assert count[f"{before}attention"] - count[whole] == 2 * (4 * 64 * 64 - mamba)
        assert count[f"{before}learnt-token"] - count[whole] == 2 * 64
        assert count[f"{before}initial-state"] - count[whole] == 2 * 64 * (64 * 16)
    assert count["patch-gate-fusion"] - count["patch-flatten-head"] == 128 * 64 + 64
    assert count["patch-concat-fusion"] - count["patch-flatten-head"] == 128 * 64
    assert count["patch-zeros"] - count["patch-halo"] == 64 * 64 * (4**2 - 5**2)


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
    for before in ("", "patch-"):
        whole = f"{before}all-parts"
        assert differing(f"{before}cbam", whole) == {"parts", "attention"}
        for reader in ("gru", "attention", "learnt-token", "initial-state"):
            assert differing(f"{before}{reader}", whole) == {"parts", "reader"}
    for fusion in ("patch-gate-fusion", "patch-concat-fusion"):
        assert differing(fusion, "patch-flatten-head") == {"parts", "fuse"}
    assert differing("patch-zeros", "patch-halo") == {"padding", "patch"}


def test_the_fusions_and_the_padding_are_of_networks_over_patches():
    """A network over tiles has no place for them, so that a name without `patch-` is refused."""
    for name in ("flatten-head", "gate-fusion", "concat-fusion", "halo", "zeros"):
        assert f"patch-{name}" in NETWORKS
        with pytest.raises(InputError, match="is not known"):
            settings_of(name, 0)


def test_the_document_names_methods_that_there_are():
    chapter = METHOD.read_text("utf-8").split("## Others in their place")[1].split("\n## ")[0]
    rows = [line.split("|") for line in chapter.splitlines() if line.startswith("| ") and "`" in line]
    fusions = {"patch-gate-fusion", "patch-concat-fusion"}
    methods = {"cbam", "gru", "attention", "learnt-token", "initial-state", *fusions, "patch-zeros"}
    assert {row[4].strip(" `") for row in rows} == methods
    for row in rows:
        method = row[4].strip(" `")
        assert set(re.findall(r"`([^`]+)`", row[5])) <= set(NETWORKS)
        what = re.findall(r"`([^`]+)`", row[2])
        if method.removeprefix("patch-") in SUBSTITUTES:
            assert what == [what_of(method.removeprefix("patch-"))]
            continue
        for setting in what:
            ((key, value),) = tomllib.loads(setting).items()
            assert getattr(settings_of(method, 0).network, key) == value


def what_of(method: str) -> str:
    """The class that is exchanged, by its name."""
    parts = SUBSTITUTES[method]
    (changed,) = (f.name for f in fields(parts) if getattr(parts, f.name) != getattr(PUBLISHED, f.name))
    return type(getattr(parts, changed)(*((4,) if changed == "fuse" else (4, 4)))).__name__


def test_parts_of_a_method_under_the_settings_of_a_file(tmp_path):
    file = tmp_path / "fast.toml"
    file.write_text("seed = 3\nmixup = 0.3\n")
    method = f"gru+{file}"
    assert (settings_of(method, 5).mixup, settings_of(method, 5).seed) == (0.3, 5)
    assert TrainConfig().mixup != 0.3
    assert parts_of(method) == SUBSTITUTES["gru"]
    assert parts_of(str(file)) == PUBLISHED
    assert method_name(method) == "fast"
    assert settings_hash(method) != settings_hash(str(file))
