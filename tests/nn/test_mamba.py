"""The Mamba block: an independent implementation, streams, its own initialisation."""

import pytest
import torch
from mambapy.mamba import MambaBlock, MambaConfig
from torch import nn
from torch.testing import assert_close

from adcdnet.nn import Mamba


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
    mamba = Mamba(7, 5, d_state=3, d_conv=d_conv).double()
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


def test_own_initialisation_survives_a_global_loop_by_reset_parameters():
    mamba = Mamba(32, d_state=4)
    for module in mamba.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    in_proj = mamba.in_proj.weight.clone()
    mamba.reset_parameters()
    delta = nn.functional.softplus(mamba.dt_proj.bias)
    assert delta.min() >= 0.999e-3
    assert delta.max() <= 0.1001
    assert delta.std() > 0.01  # spread over time scales, not one value
    assert mamba.dt_proj.weight.abs().max() <= 2**-0.5  # rank ⌈32/16⌉ = 2
    assert_close(mamba.A, -torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(64, 4))
    assert (mamba.D == 1).all()
    assert (mamba.in_proj.weight == in_proj).all()  # the loop's choice for the other layers stays


def test_every_parameter_receives_a_gradient():
    mamba = Mamba(6, 3)
    mamba(torch.randn(2, 9, 6)).square().sum().backward()
    for name, p in mamba.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("steps", [5, 33])
def test_block_compiles_in_one_piece_and_runs_under_autocast(steps):
    torch.manual_seed(4)
    mamba, x = Mamba(6, 3), torch.randn(2, steps, 6)
    assert_close(torch.compile(mamba, fullgraph=True, backend="aot_eager")(x), mamba(x))
    with torch.autocast("cpu", torch.bfloat16):
        rough = mamba(x)
    assert (rough - mamba(x)).abs().max() < 0.05 * mamba(x).abs().max()
