"""What trainings wrap around modules changes no answer and no gradient; the pages name a test for what they say."""

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from adcdnet.nn import DIA, BiMamba, DeepTemporalMamba, Mamba
from conftest import ROOT

PAGES = ("dia", "dtm")


class Head(nn.Module):
    """A DTM head over one map."""

    def __init__(self) -> None:
        super().__init__()
        self.head = DeepTemporalMamba((3,), d_model=8, num_classes=2)

    def forward(self, x):
        return self.head([x])


MODULES = {
    "DIA": (DIA, (2, 3, 7, 9)),
    "Mamba": (Mamba, (2, 33, 6)),
    "Mamba, chunks side by side": (lambda width: Mamba(width, form="parallel"), (2, 33, 6)),
    "BiMamba": (BiMamba, (2, 33, 6)),
    "DTM": (lambda _: Head(), (2, 3, 7, 9)),
}


@pytest.fixture(params=MODULES)
def pair(request):
    """Two equal modules and their input."""
    torch.manual_seed(0)
    made, size = MODULES[request.param]
    module = made(size[-1])
    return module, copy.deepcopy(module), torch.randn(size)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def assert_as_plain(y, gradients, plain, x):
    expected = plain(x)
    expected.square().sum().backward()
    assert_close(y, expected)
    assert_close(gradients, [p.grad for p in plain.parameters()])


def test_wrapped_in_distributed_data_parallel(pair, alone):
    module, plain, x = pair
    y = DistributedDataParallel(module)(x)
    y.square().sum().backward()
    assert_as_plain(y, [p.grad for p in module.parameters()], plain, x)


@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="PyTorch has it from 2.6 on")
def test_fully_sharded_over_one_process(pair, alone):
    module, plain, x = pair
    fsdp.fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    y = module(x)
    y.square().sum().backward()
    assert_as_plain(y, [p.grad.full_tensor() for p in module.parameters()], plain, x)


def test_recomputed_from_a_checkpoint(pair):
    module, plain, x = pair
    y = checkpoint(module, x, use_reentrant=False)
    y.square().sum().backward()
    assert_as_plain(y, [p.grad for p in module.parameters()], plain, x)


def undecayed(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if getattr(p, "_no_weight_decay", False)}


def assigned(mamba):
    mamba.load_state_dict({name: p.detach().clone() for name, p in mamba.state_dict().items()}, assign=True)
    return mamba


OTHER_PARAMETERS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda mamba: pickle.loads(pickle.dumps(mamba)),
    "half": lambda mamba: copy.deepcopy(mamba).half(),
    "meta and back": lambda mamba: mamba.to("meta").to_empty(device="cpu"),
    "load_state_dict(assign=True)": assigned,
}


@pytest.mark.parametrize("way", OTHER_PARAMETERS)
def test_marks_against_weight_decay_survive_where_parameters_are_exchanged(way):
    assert undecayed(OTHER_PARAMETERS[way](Mamba(6))) == {"A_log", "D"}


@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="PyTorch has it from 2.6 on")
def test_marks_against_weight_decay_survive_sharding_and_a_step(alone):
    network = Head()
    fsdp.fully_shard(network, mesh=init_device_mesh("cpu", (1,)))
    marked = {"head.reader.A_log", "head.reader.D"}
    assert undecayed(network) == marked
    network(torch.randn(2, 3, 7, 9)).sum().backward()
    assert undecayed(network) == marked


def works_with(page: str) -> list[tuple[str, str]]:
    """What a page says its modules work with, and the last column, which names the tests."""
    text = (ROOT / "docs" / "concepts" / f"{page}.md").read_text("utf-8")
    section = re.search(r"^## What (?:it works|they work) with\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)[1]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[-1].strip()) for row in rows[1:]]


@pytest.mark.parametrize("page", PAGES)
def test_each_row_of_what_works_with_what_names_a_test_or_says_that_it_was_not_run(page):
    there = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))
    rows = works_with(page)
    assert len(rows) >= 10
    for what, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named or tests == "not run", what
        assert set(named) <= there, what
