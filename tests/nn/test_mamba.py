"""The Mamba block: an independent implementation, streams, its own initialisation."""

import math

import onnxruntime
import pytest
import torch
from mambapy.mamba import MambaBlock, MambaConfig
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence, unpack_sequence
from torch.testing import assert_close

from adcdnet.nn import DIA, BiMamba, DeepTemporalMamba, Mamba, SequenceDepth, selective_scan
from adcdnet.nn.mamba import StepProjection

FORMS = ("loop", "chunked", "parallel", "matrix")


@pytest.mark.parametrize("steps", [1, 5, 40])
@pytest.mark.parametrize(("d_model", "d_state", "d_conv", "expand"), [(17, 16, 4, 2), (40, 5, 3, 1)])
def test_block_agrees_with_mambapy_under_the_same_parameter_names(steps, d_model, d_state, d_conv, expand):
    torch.manual_seed(1)
    ours = Mamba(d_model, d_state=d_state, d_conv=d_conv, expand=expand)
    theirs = MambaBlock(MambaConfig(d_model, 1, d_state=d_state, d_conv=d_conv, expand_factor=expand))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, steps, d_model)
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y_ours, y_theirs = ours(x_ours), theirs(x_theirs)
    assert_close(y_ours, y_theirs, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(y_ours)
    y_ours.backward(weight)
    y_theirs.backward(weight)
    assert_close(x_ours.grad, x_theirs.grad, rtol=1e-5, atol=1e-5)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        assert (p.grad - gradients[name]).abs().max() < 1e-5 * max(1, gradients[name].abs().max()), name


@pytest.mark.parametrize("d_conv", [1, 4])
def test_step_by_step_gives_what_the_whole_sequence_gives(d_conv):
    torch.manual_seed(2)
    mamba = Mamba(7, d_out=5, d_state=3, d_conv=d_conv).double()
    x = torch.randn(2, 37, 7, dtype=torch.float64)
    state, ys = mamba.start(2), []
    for t in range(37):
        y, state = mamba.step(x[:, t], state)
        ys.append(y)
    assert_close(torch.stack(ys, dim=1), mamba(x), rtol=0, atol=1e-12)


def test_output_depends_on_the_present_and_the_past_alone():
    torch.manual_seed(3)
    mamba = Mamba(6)
    x = torch.randn(2, 9, 6)
    y, changed = mamba(x), mamba(torch.cat((x[:, :5], x[:, 5:] + 1), dim=1))
    assert_close(y[:, :5], changed[:, :5], rtol=0, atol=1e-6)
    assert (y[:, 5] - changed[:, 5]).abs().max() > 1e-4


def has_its_own_start(mamba: Mamba) -> bool:
    """A = -1..-n, D = 1, and time scales spread over 0.001..0.1."""
    delta = nn.functional.softplus(mamba.dt_proj.bias)
    counted = torch.arange(1.0, mamba.d_state + 1).expand(mamba.d_inner, -1)
    return bool(
        (delta >= 0.999e-3).all()
        and (delta <= 0.1001).all()
        and delta.std() > 0.01  # not one value
        and mamba.dt_proj.weight.abs().max() <= mamba.dt_rank**-0.5
        and torch.allclose(mamba.A, -counted)
        and (mamba.D == 1).all()
    )


@pytest.mark.parametrize("initialise", [nn.init.xavier_uniform_, nn.init.ones_])
def test_own_start_survives_a_loop_over_all_layers(initialise):
    mamba = Mamba(32, d_state=4)
    for module in mamba.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):  # as timm and many trainings do
            initialise(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    assert has_its_own_start(mamba)


def test_time_scales_are_drawn_evenly_in_their_logarithm():
    torch.manual_seed(9)
    projection = StepProjection(2, 500)
    torch.manual_seed(9)
    torch.rand(500, 2)  # the weights come first
    drawn = torch.empty(500).uniform_(math.log(1e-3), math.log(1e-1)).exp()
    assert_close(nn.functional.softplus(projection.bias), drawn, rtol=1e-4, atol=0)


def orders(modules: list[nn.Module]) -> dict[str, list[nn.Module]]:
    return {"parents first": modules, "children first": modules[::-1], "mixed": modules[1::2] + modules[::2]}


@pytest.mark.parametrize("order", ["parents first", "children first", "mixed"])
def test_modules_made_on_meta_are_initialised_in_any_order(order):
    """PyTorch's contract: `reset_parameters` of every module sets its own parameters, and all are set in the end."""
    with torch.device("meta"):
        head = DeepTemporalMamba((3, SequenceDepth(2)), d_model=20, num_classes=2)
        network = nn.ModuleList((Mamba(32, d_state=4), DIA(), BiMamba(16), Mamba(24, expand=1), head))
    network.to_empty(device="cpu")
    for p in network.parameters():
        nn.init.constant_(p, float("nan"))
    for module in orders(list(network.modules()))[order]:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert all(p.isfinite().all() for p in network.parameters())
    assert all(has_its_own_start(m) for m in network.modules() if isinstance(m, Mamba))
    assert all(m.A_log._no_weight_decay and m.D._no_weight_decay for m in network.modules() if isinstance(m, Mamba))
    assert not network[1].gate_avg.weight.any()
    assert not network[1].gate_max.bias.any()
    assert network[1].mask.weight.any()


@pytest.mark.parametrize("made", [DIA, lambda **given: Mamba(6, **given), lambda **given: BiMamba(6, **given)])
def test_device_and_dtype_are_those_of_all_parameters_and_change_no_start(made):
    """As timm and mamba-ssm pass them."""
    assert {(p.device.type, p.dtype) for p in made(device="meta", dtype=torch.float64).parameters()} == {
        ("meta", torch.float64)
    }
    torch.manual_seed(0)
    plain = made().state_dict()
    torch.manual_seed(0)
    assert_close(made(device="cpu", dtype=torch.float32).state_dict(), plain, rtol=0, atol=0)


def test_every_parameter_receives_a_gradient():
    mamba = Mamba(6, d_out=3)
    mamba(torch.randn(2, 9, 6)).square().sum().backward()
    for name, p in mamba.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # inside torch.compile
@pytest.mark.parametrize("steps", [5, 33])
@pytest.mark.parametrize("network", [Mamba, BiMamba])
def test_block_compiles_in_one_piece_and_runs_under_autocast(network, steps):
    torch.manual_seed(4)
    mamba, x = network(6, d_out=3), torch.randn(2, steps, 6)
    assert_close(torch.compile(mamba, fullgraph=True, backend="aot_eager")(x), mamba(x))
    with torch.autocast("cpu", torch.bfloat16):
        rough = mamba(x)
    assert (rough - mamba(x)).abs().max() < 0.05 * mamba(x).abs().max()


# ---- what researchers pass


def test_what_could_be_taken_for_something_else_goes_by_name():
    with pytest.raises(TypeError):
        Mamba(64, 16)  # d_state in mamba-ssm
    with pytest.raises(TypeError):
        BiMamba(64, 16)


@pytest.mark.parametrize("name", ["d_model", "d_out", "d_state", "d_conv", "expand", "dt_rank"])
@pytest.mark.parametrize("size", [0, -4, 1.5, True, "8"])
def test_sizes_that_are_none_are_refused(name, size):
    with pytest.raises(ValueError, match=f"{name} is {size!r}; it must be a whole number"):
        Mamba(**{"d_model": 8, name: size})


def test_an_unknown_form_is_refused_when_the_block_is_made_and_the_form_is_shown():
    with pytest.raises(ValueError, match="'fast'; it must be one of 'auto'"):
        Mamba(6, form="fast")
    assert "form='parallel'" in repr(Mamba(6, form="parallel"))


@pytest.mark.parametrize("size", [(5, 6), (2, 5, 7), (2, 0, 6)])
def test_other_shapes_than_sequences_are_refused(size):
    with pytest.raises(ValueError, match=r"it must be \(b, l, 6\)"):
        Mamba(6)(torch.zeros(size))


def test_settings_of_mamba_ssm_by_hand():
    mamba = Mamba(20, d_state=3, expand=1, dt_rank=5, bias=True, conv_bias=False)
    shapes = {name: tuple(p.shape) for name, p in mamba.named_parameters()}
    assert shapes == {
        "A_log": (20, 3), "D": (20,), "in_proj.weight": (40, 20), "in_proj.bias": (40,), "conv1d.weight": (20, 1, 4),
        "x_proj.weight": (5 + 6, 20), "dt_proj.weight": (20, 5), "dt_proj.bias": (20,), "out_proj.weight": (20, 20),
        "out_proj.bias": (20,),
    }  # fmt: skip
    assert Mamba(20).dt_rank == Mamba(20, dt_rank="auto").dt_rank == 2
    assert [name for name, p in mamba.named_parameters() if getattr(p, "_no_weight_decay", False)] == ["A_log", "D"]
    x = torch.randn(2, 9, 20)
    state, ys = mamba.start(2), []
    for t in range(9):
        y, state = mamba.step(x[:, t], state)
        ys.append(y)
    assert_close(torch.stack(ys, dim=1), mamba(x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_stream_that_is_cut_goes_on_from_its_state_gradients_included(form, cut):
    """Prefill: the parts of a sequence give what the whole gives, and the first one hears of the loss of the second."""
    torch.manual_seed(5)
    mamba = Mamba(7, d_state=3, form=form).double()
    x = torch.randn(2, 41, 7, dtype=torch.float64, requires_grad=True)
    first, state = mamba(x[:, :cut], return_state=True)
    second, state = mamba(x[:, cut:], state, return_state=True)
    whole, last = mamba(x, return_state=True)
    assert_close(torch.cat((first, second), 1), whole, rtol=0, atol=1e-12)
    assert_close(tuple(state), tuple(last), rtol=0, atol=1e-12)
    loss, defined = second.square().sum() + state.h.sum(), whole[:, cut:].square().sum() + last.h.sum()
    parameters = (x, *mamba.parameters())
    mine, theirs = (torch.autograd.grad(v, parameters) for v in (loss, defined))
    assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    assert mine[0][:, :cut].any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", [Mamba, BiMamba])
def test_padding_reaches_neither_answer_nor_state(network, form):
    torch.manual_seed(6)
    module = network(6, d_out=5, form=form).double()
    x, lengths = torch.randn(4, 20, 6, dtype=torch.float64), torch.tensor([20, 1, 7, 2])
    for sample, length in enumerate(lengths.tolist()):
        x[sample, length:] = float("nan")
    y = module(x, lengths=lengths)
    for sample, length in enumerate(lengths.tolist()):
        assert_close(y[sample, :length], module(x[sample : sample + 1, :length])[0], rtol=0, atol=1e-12)
        assert not y[sample, length:].any()
    if network is Mamba:
        _, state = module(x, lengths=lengths, return_state=True)
        for sample, length in enumerate(lengths.tolist()):
            _, alone = module(x[sample : sample + 1, :length], return_state=True)
            assert_close([v[sample] for v in state], [v[0] for v in alone], rtol=0, atol=1e-12)
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    for wrong in (lengths.double(), lengths[:1]):  # one length is not meant for all samples
        with pytest.raises(ValueError, match=r"integers \(4,\)"):
            module(x, lengths=wrong)


@pytest.mark.parametrize("network", [Mamba, BiMamba])
def test_steps_that_a_mask_leaves_out_might_as_well_never_have_been(network):
    torch.manual_seed(6)
    module = network(6, d_out=5, bias=True).double()
    x = torch.randn(4, 9, 6, dtype=torch.float64)
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[0, :4] = mask[1, 5:] = mask[2, [0, 3, 4, 8]] = mask[3] = False  # in front, behind, amid, all
    x[~mask] = float("nan")
    y = module(x, mask=mask)
    for sample in range(3):
        alone = module(x[sample, mask[sample]][None])[0]
        assert_close(y[sample, mask[sample]], alone, rtol=0, atol=1e-12)
    assert not y[~mask].any()
    with pytest.raises(ValueError, match="lengths and mask"):
        module(x, mask=mask, lengths=torch.tensor([9, 9, 9, 9]))
    for wrong in (mask[:, :5], mask.int()):
        with pytest.raises(ValueError, match=r"mask is .* it must be bool \(4, 9\)"):
            module(x, mask=wrong)


def test_a_prompt_padded_in_front_leaves_the_state_that_it_leaves_alone():
    torch.manual_seed(6)
    module, x = Mamba(6, bias=True).double(), torch.randn(2, 9, 6, dtype=torch.float64)
    mask = torch.arange(9) >= torch.tensor([[7], [0]])  # two steps, and all
    _, state = module(x, mask=mask, return_state=True)
    for sample, first in enumerate((7, 0)):
        _, alone = module(x[sample : sample + 1, first:], return_state=True)
        assert_close([v[sample] for v in state], [v[0] for v in alone], rtol=0, atol=1e-12)


@pytest.mark.parametrize("network", [Mamba, BiMamba])
def test_sequences_laid_end_to_end_are_read_each_by_itself(network):
    torch.manual_seed(6)
    module, x = network(6, d_out=5).double(), torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    y = module.packed(x, torch.tensor([4, 1, 5]))
    alone = torch.cat([module(part[None])[0] for part in x.split([4, 1, 5])])
    assert_close(y, alone, rtol=0, atol=1e-12)
    mine, theirs = (torch.autograd.grad(v.square().sum(), (x, *module.parameters())) for v in (y, alone))
    assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="add up to 9, but x has 10"):
        module.packed(x, torch.tensor([4, 1, 4]))


def test_packed_sequences_of_pytorch_go_by_way_of_padding():  # as docs/concepts/dtm.md shows
    module = Mamba(6)
    given = pack_sequence([torch.randn(length, 6) for length in (3, 7, 1)], enforce_sorted=False)
    x, lengths = pad_packed_sequence(given, batch_first=True)
    y = pack_padded_sequence(module(x, lengths=lengths), lengths, batch_first=True, enforce_sorted=False)
    for own, alone in zip(unpack_sequence(y), unpack_sequence(given), strict=True):
        assert_close(own, module(alone[None])[0])


def test_both_ways_by_hand():
    torch.manual_seed(7)
    module, x = BiMamba(6, d_out=5), torch.randn(2, 9, 6)
    assert_close(module(x), module.onward(x) + module.back(x.flip(1)).flip(1))
    moved = module(x + (torch.arange(9) == 4)[:, None]) - module(x)
    assert (moved.abs().amax((0, 2)) > 1e-6).all()  # every output hears of every input


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_decays_by_rates_of_single(form):
    mamba, x = Mamba(6, d_state=16, form=form).bfloat16(), torch.randn(2, 33, 6).bfloat16()
    assert mamba.A.dtype == torch.float32
    assert_close(mamba.A[0], -mamba.A_log[0].float().exp(), rtol=0, atol=0)
    y, state = mamba(x, return_state=True)
    assert (y.dtype, state.h.dtype, state.inputs.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    y, _ = mamba.step(x[:, 0], mamba.start(2))
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("form", FORMS)
def test_form_is_that_of_the_scan(form, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "adcdnet.nn.mamba.scan_with_state",
        lambda *given, **named: asked.append(named["form"]) or (selective_scan(*given), None),
    )
    Mamba(6, form=form)(torch.randn(1, 4, 6))
    assert asked == [form]


# ---- works with


@pytest.mark.parametrize(("steps", "form"), [(5, "auto"), (33, "auto"), (33, "parallel")])
def test_functional_transforms_give_what_backward_gives(steps, form):
    torch.manual_seed(8)
    mamba, x = Mamba(6, form=form).double(), torch.randn(3, steps, 6, dtype=torch.float64)
    parameters = dict(mamba.named_parameters())

    def loss(own, sample):
        return torch.func.functional_call(mamba, own, (sample[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)  # a gradient per sample
    for sample in range(3):
        mamba.zero_grad()
        mamba(x[sample : sample + 1]).square().sum().backward()
        for name, p in parameters.items():
            assert_close(each[name][sample], p.grad, rtol=1e-9, atol=1e-12, msg=name)
    both = torch.func.stack_module_state([mamba, Mamba(6, form=form).double()])[0]  # an ensemble
    found = torch.func.vmap(lambda own: torch.func.functional_call(mamba, own, (x,)))(both)
    assert_close(found[0], mamba(x))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # inside torch.compile
def test_a_free_length_compiles_once_more_and_no_oftener():
    torch._dynamo.reset()
    mamba, seen = Mamba(6), []

    def count(graph, inputs):
        seen.append(len(inputs))
        return graph.forward

    compiled = torch.compile(mamba, fullgraph=True, backend=count)
    for steps in (3, 4, 5, 9, 16, 17, 20, 40, 100):
        x = torch.randn(2, steps, 6)
        assert_close(compiled(x), mamba(x))
    assert len(seen) == 2


BATCH, LENGTH = torch.export.Dim("b", min=1, max=64), torch.export.Dim("l", min=2, max=4096)
SIZES = [(1, 2), (3, 16), (2, 17), (5, 100)]


@pytest.mark.parametrize("form", ["auto", "parallel", "matrix"])
def test_exports_with_free_batch_and_length(form):
    mamba = Mamba(6, d_out=3, form=form).eval()
    program = torch.export.export(mamba, (torch.randn(2, 20, 6),), dynamic_shapes=({0: BATCH, 1: LENGTH},))
    for size in SIZES:
        x = torch.randn(*size, 6)
        assert_close(program.module()(x), mamba(x), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # raised inside PyTorch's exporter
def test_onnx_runtime_agrees_at_any_length(tmp_path):
    mamba, file = Mamba(6, d_out=3, form="matrix").eval(), tmp_path / "mamba.onnx"
    free = ({0: BATCH, 1: LENGTH},)
    torch.onnx.export(mamba, (torch.randn(2, 20, 6),), file, dynamo=True, verbose=False, dynamic_shapes=free)
    session = onnxruntime.InferenceSession(file)
    for size in SIZES:
        x = torch.randn(*size, 6)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert_close(torch.from_numpy(y), mamba(x).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("steps", "form"), [(5, "auto"), (33, "auto"), (33, "parallel")])
def test_a_batch_of_nothing(steps, form):
    mamba = Mamba(6, d_out=3, form=form)
    y = mamba(torch.randn(0, steps, 6))
    y.sum().backward()
    assert y.shape == (0, steps, 3)
    assert not mamba.A_log.grad.any()
