"""DIA: golden values, the gradient factors, odd sizes, and everything a network does to its modules."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from adcdnet.nn import DeformableInteractiveAttention, scale_gradient
from conftest import DEVICES

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def dia() -> DeformableInteractiveAttention:
    """A module whose gates are no longer neutral."""
    torch.manual_seed(0)
    module = DeformableInteractiveAttention()
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("sensor", "factors"), [("ms", (0.4, 0.1)), ("pan", (0.1, 0.4))])
def test_dia_gives_the_golden_values_and_gradients(sensor, factors, device):
    golden = {name: torch.from_numpy(value).to(device) for name, value in np.load(GOLDEN / f"dia_{sensor}.npz").items()}
    module = DeformableInteractiveAttention(*factors).double().to(device)
    module.load_state_dict({name: golden[name] for name in module.state_dict()})
    x = golden["x"].requires_grad_()
    y = module(x)
    y.backward(golden["grad_y"])
    assert_close(y, golden["y"], rtol=0, atol=1e-9)
    assert_close(x.grad, golden["grad_x"], rtol=0, atol=1e-9)
    for name, p in module.named_parameters():
        assert_close(p.grad, golden[f"grad.{name}"], rtol=0, atol=1e-9, msg=name)


def test_fresh_module_by_hand():
    module = DeformableInteractiveAttention()  # gates start at 1/2
    for conv in (module.down_avg, module.down_max):
        nn.init.zeros_(conv.weight)
        nn.init.constant_(conv.bias, 2.0)  # a' = m' = 2, so both products are 1
    nn.init.zeros_(module.mask.weight)
    module.mask.weight.data[0, :, 1, 1] = torch.tensor([1.0, 3.0])
    nn.init.constant_(module.mask.bias, -4.0)  # 1·1 + 3·1 - 4 = 0: M = σ(0) = 1/2
    x = torch.tensor([3.0, -1.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 5)
    assert_close(module(x), torch.tensor([1.5, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 5))
    assert sum(p.numel() for p in module.parameters()) == 59


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_scale_gradient_leaves_every_bit_of_the_value(dtype):
    v = (torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e3).to(dtype).requires_grad_()
    scaled = scale_gradient(v, 0.1)
    assert (scaled == v).all()
    scaled.sum().backward()
    assert (v.grad == torch.tensor(0.1, dtype=dtype)).all()


@pytest.mark.parametrize(("path", "factor"), [("avg", 0.4), ("max", 0.1)])
def test_gate_passes_on_exactly_its_factor_and_keeps_its_own_gradient_whole(dia, path, factor):
    """The other gate is shut off from a' (its partner m' from a'), so a' is reached through its own gate alone."""
    scaled = dia.double()
    plain = copy.deepcopy(scaled)
    plain.global_scale = plain.local_scale = 1.0
    other = "max" if path == "avg" else "avg"
    through_gate = []
    for module in (scaled, plain):
        getattr(module, f"down_{other}").requires_grad_(False)
        nn.init.zeros_(getattr(module, f"gate_{other}").weight)
        nn.init.constant_(getattr(module, f"gate_{other}").bias, -1e9)  # g = 0: the product g·a' (or g·m') vanishes
        module(
            torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        ).sum().backward()
        through_gate.append(getattr(module, f"down_{path}").weight.grad)
    assert through_gate[1].abs().max() > 1e-6
    assert_close(through_gate[0], factor * through_gate[1], rtol=1e-12, atol=0)
    for name in ("weight", "bias"):
        own = [getattr(getattr(module, f"gate_{path}"), name).grad for module in (scaled, plain)]
        assert_close(own[0], own[1], rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (5, 9), (8, 3), (4, 4)])
def test_any_size_is_masked_by_half_resolution_cells(dia, size):
    x = torch.randn(2, 3, *size, requires_grad=True)
    y = dia(x)
    mask = dia.mask_of(x.mean(1, keepdim=True), x.amax(1, keepdim=True))
    assert mask.shape == (2, 1, *size)
    rows, cols = (torch.arange(n) // 2 * 2 for n in size)  # each cell of 2×2 pixels has one value
    assert_close(mask, mask[..., rows[:, None], cols], rtol=0, atol=0)
    assert_close(y, F.relu(x * mask), rtol=0, atol=0)
    y.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_mask_looks_4_to_6_pixels_far(dia):  # as its page says
    mean = torch.randn(1, 1, 31, 31, requires_grad=True)
    reached = set()
    for pixel in (14, 15):
        (gradient,) = torch.autograd.grad(dia.mask_of(mean, torch.randn(1, 1, 31, 31))[0, 0, pixel, pixel], mean)
        rows = gradient[0, 0].abs().amax(1).nonzero().flatten()
        reached |= {pixel - rows.min().item(), rows.max().item() - pixel}
    assert (min(reached), max(reached)) == (4, 6)


def test_every_parameter_receives_a_gradient_from_the_start():
    module = DeformableInteractiveAttention()
    module(torch.randn(2, 3, 7, 9)).square().sum().backward()
    for name, p in module.named_parameters():
        assert p.grad.abs().max() > 0, name


def test_input_is_not_changed(dia):
    x = torch.randn(2, 3, 7, 9)
    before = x.clone()
    dia(x)
    assert (x == before).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision(dia, dtype):
    x = torch.randn(2, 3, 7, 9)
    with torch.autocast("cpu", dtype):
        assert_close(dia(x), dia(x.float()).float(), rtol=0, atol=0.02)
        rough = dia(x)
    exact = dia(x)
    assert_close(rough.float(), exact, rtol=0.02, atol=0.02)
    half = copy.deepcopy(dia).to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    assert_close(half.float(), exact, rtol=0.05, atol=0.05)


def test_channels_last_stays_channels_last(dia):
    x = torch.randn(2, 3, 7, 9)
    last = dia(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_close(last, dia(x))


def test_compiles_in_one_piece(dia):
    x, x_plain = (torch.linspace(-2, 2, 378).reshape(2, 3, 7, 9).requires_grad_() for _ in range(2))
    y, y_plain = torch.compile(dia, fullgraph=True, backend="aot_eager")(x), dia(x_plain)
    y.sum().backward()
    y_plain.sum().backward()
    assert_close((y, x.grad), (y_plain, x_plain.grad))


FREE = {0: torch.export.Dim("b", max=64), 2: torch.export.Dim("h", min=3), 3: torch.export.Dim("w", min=3)}


def test_exports_with_free_batch_and_size(dia):
    program = torch.export.export(dia.eval(), (torch.randn(2, 3, 7, 9),), dynamic_shapes=(FREE,))
    for size in ((1, 3, 5, 4), (3, 3, 8, 13)):
        x = torch.randn(size)
        assert_close(program.module()(x), dia(x))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # raised inside PyTorch's exporter
def test_onnx_runtime_agrees_to_1e5_on_any_size(dia, tmp_path):
    file = tmp_path / "dia.onnx"
    torch.onnx.export(dia.eval(), (torch.randn(2, 3, 7, 9),), file, dynamo=True, verbose=False, dynamic_shapes=(FREE,))
    session = onnxruntime.InferenceSession(file)
    for size in ((2, 3, 7, 9), (1, 3, 8, 6), (3, 3, 5, 18)):
        x = torch.randn(size)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert_close(torch.from_numpy(y), dia(x).detach(), rtol=0, atol=1e-5)


def test_checkpointing_changes_no_gradient(dia):
    x = torch.randn(2, 3, 7, 9)
    x_plain, x_checked = x.clone().requires_grad_(), x.clone().requires_grad_()
    dia(x_plain).sum().backward()
    plain = [p.grad.clone() for p in dia.parameters()]
    dia.zero_grad()
    checkpoint(dia, x_checked, use_reentrant=False).sum().backward()
    assert_close([x_checked.grad, *(p.grad for p in dia.parameters())], [x_plain.grad, *plain])


def test_distributed_data_parallel_changes_no_gradient(dia, tmp_path):
    x = torch.randn(2, 3, 7, 9)
    dia(x).sum().backward()
    plain = {name: p.grad.clone() for name, p in dia.named_parameters()}
    dia.zero_grad()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(dia)
        wrapped(x).sum().backward()
        assert_close({name: p.grad for name, p in dia.named_parameters()}, plain)
    finally:
        torch.distributed.destroy_process_group()
