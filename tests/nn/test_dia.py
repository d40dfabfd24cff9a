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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from adcdnet.nn import DIA, DeformableInteractiveAttention, scale_gradient
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
    module = DeformableInteractiveAttention(global_scale=factors[0], local_scale=factors[1]).double().to(device)
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


# ---- what researchers pass


@pytest.mark.parametrize("given", [(), (64,), (64, 64)])
def test_channels_are_accepted_and_change_nothing(given):
    torch.manual_seed(0)
    module = DIA(*given)
    assert (module.global_scale, module.local_scale) == (0.4, 0.1)
    torch.manual_seed(0)
    assert_close(module.state_dict(), DIA(in_channels=3).state_dict(), rtol=0, atol=0)
    assert DIA is DeformableInteractiveAttention


@pytest.mark.parametrize("name", ["global_scale", "local_scale"])
@pytest.mark.parametrize("factor", [-0.1, 1.1, 64, float("nan"), float("inf")])
def test_a_factor_outside_0_to_1_is_refused(name, factor):
    with pytest.raises(ValueError, match=rf"{name} is {factor}.*\[0, 1\]"):
        DIA(**{name: factor})


@pytest.mark.parametrize("given", [(0.4, 0.1), (0.4,), (0,), (64, 32), (True,)])
def test_factors_by_position_and_other_numbers_of_channels_are_refused(given):
    with pytest.raises(ValueError, match="by name"):
        DIA(*given)
    assert (DIA(global_scale=0, local_scale=1).global_scale, DIA(local_scale=1).local_scale) == (0, 1)


def test_settings_are_shown():
    text = repr(nn.Sequential(DIA(8, global_scale=0.2, gated=False)))
    assert "global_scale=0.2, local_scale=0.1, gated=False" in text
    assert "rectify" not in text
    assert "rectify=False" in repr(DIA(rectify=False))


def test_without_gates_mean_and_maximum_are_mixed_as_they_are():
    torch.manual_seed(0)
    module, x = DIA(gated=False), torch.randn(2, 3, 7, 9)
    assert sum(p.numel() for p in module.parameters()) == 39
    assert not [name for name in module.state_dict() if "gate" in name]
    mean, top = module.down_avg(x.mean(1, keepdim=True)), module.down_max(x.amax(1, keepdim=True))
    mixed = module.mask(torch.cat((top, mean), 1))
    mask = torch.sigmoid(F.interpolate(mixed, (7, 9)))
    assert_close(module.attention(x), mask)
    assert_close(module(x), F.relu(x * mask))
    module.rectify = False
    assert_close(module(x), x * mask)


def published(x: torch.Tensor, weights: dict[str, torch.Tensor], scales: tuple[float, float] | None) -> torch.Tensor:
    """The published module in functions, for even sizes; scales None: without modulation."""

    def conv(name, v, stride=1):
        return F.conv2d(v, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, 1)

    avg, top = conv("downavg", x.mean(1, keepdim=True), 2), conv("downmax", x.amax(1, keepdim=True), 2)
    pair = (top, avg)
    if scales is not None:
        gates = [
            torch.sigmoid(conv(name, v.detach() + s * (v - v.detach())))
            for name, v, s in zip(("d_conv", "d_conv1"), (avg, top), scales, strict=True)
        ]
        pair = (gates[0] * top, gates[1] * avg)
    return F.relu(x * torch.sigmoid(F.interpolate(conv("conv", torch.cat(pair, 1)), scale_factor=2)))


@pytest.mark.parametrize("scales", [(0.4, 0.1), (0.1, 0.4), None])
def test_weights_of_the_published_module_are_loaded_by_its_names(scales):
    torch.manual_seed(0)
    layers = {"conv": 2, "downavg": 1, "downmax": 1} | ({"d_conv": 1, "d_conv1": 1} if scales else {})
    weights = {f"{name}.weight": torch.randn(1, bands, 3, 3) for name, bands in layers.items()}
    weights |= {f"{name}.bias": torch.randn(1) for name in layers}
    named = {} if scales is None else {"global_scale": scales[0], "local_scale": scales[1]}
    network = {f"branch.dct_ms.{name}": value for name, value in weights.items()} | {"branch.bn1.weight": torch.ones(3)}
    module = DIA.from_published(network, prefix="branch.dct_ms.", **named)
    assert module.gated == (scales is not None)
    x, x_published = (torch.linspace(-2, 2, 2 * 3 * 48).reshape(2, 3, 6, 8).requires_grad_() for _ in range(2))
    y, y_published = module(x), published(x_published, weights, scales)
    assert_close(y, y_published)
    y.square().sum().backward()
    y_published.square().sum().backward()
    assert_close(x.grad, x_published.grad)
    del weights["downmax.bias"]
    with pytest.raises(ValueError, match=r"missing downmax\.bias, unknown none"):
        DIA.from_published(weights)
    with pytest.raises(ValueError, match=r"unknown branch\.bn1\.weight"):
        DIA.from_published(network)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(("g", "core"), [(9, 3), (8, 8), (5, 1)])
def test_masks_of_many_patches_are_those_of_each(g, core, gated):
    torch.manual_seed(g)
    module = DIA(gated=gated).double()
    for p in module.parameters():
        nn.init.normal_(p)
    pooled = torch.randn(7, 2, g, g, dtype=torch.float64)
    trim = (g - core) // 2
    whole = module.mask_of(pooled[:, :1], pooled[:, 1:])[..., trim : g - trim, trim : g - trim]
    found = module.mask_operator(g)(pooled.permute(0, 2, 3, 1).flatten(1), side=core).view(-1, 1, core, core)
    assert_close(found, whole, rtol=0, atol=1e-12)
    parameters = list(module.parameters())
    mine, theirs = (torch.autograd.grad(m.square().sum(), parameters) for m in (found, whole))
    assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_of_equal_maxima_one_hears_of_the_mask(dia):
    x = torch.tensor([2.0, 2.0, 2.0, -1.0]).view(1, 4, 1, 1).requires_grad_()
    grad = torch.autograd.grad(dia.attention(x).sum(), x)[0].flatten()
    through_mean, through_maximum = grad[3], grad - grad[3]  # the mean tells all alike
    assert through_mean != 0
    assert (through_maximum != 0).tolist() == [True, False, False, False]


def test_without_gradients_the_mask_is_the_same_to_the_last_bit_and_no_place_of_the_maximum_is_sought(dia):
    x = torch.randn(2, 5, 7, 9).round(decimals=1)  # with equal maxima
    with_gradients = dia.attention(x)
    with torch.no_grad(), Calls() as calls:
        assert_close(dia.attention(x), with_gradients, rtol=0, atol=0)
    assert "aten.amax.default" in calls.names
    assert "aten.max.dim" not in calls.names


class Calls(TorchDispatchMode):
    """Notes which of PyTorch's operators ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("loop", [nn.init.ones_, nn.init.xavier_uniform_])
def test_neutral_gates_survive_a_loop_over_all_convolutions(loop):
    module = DIA()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            loop(layer.weight)
    assert not any(p.any() for gate in (module.gate_avg, module.gate_max) for p in gate.parameters())


def test_functional_transforms(dia):
    x, parameters = torch.randn(3, 4, 7, 9), dict(dia.named_parameters())

    def loss(own, sample):
        return torch.func.functional_call(dia, own, (sample[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for sample in range(3):
        dia.zero_grad()
        dia(x[sample : sample + 1]).square().sum().backward()
        for name, p in parameters.items():
            assert_close(each[name][sample], p.grad, rtol=1e-4, atol=1e-5, msg=name)
