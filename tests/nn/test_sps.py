"""The distance of stage I against golden values; collapse measures by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from adcdnet.nn.sps import MetricNet, effective_rank, spread_loss, sps_loss

GOLDEN = Path(__file__).parent / "golden" / "sps.npz"


@pytest.fixture
def golden():
    return {name: torch.from_numpy(value) for name, value in np.load(GOLDEN).items()}


def test_golden_values_and_gradients(golden):
    metric = MetricNet(golden["ms"].shape[1]).double()
    metric.load_state_dict({f"conv{k}.weight": golden[f"conv{k}"] for k in (1, 2, 3)})
    ms, pan = golden["ms"].requires_grad_(), golden["pan"].requires_grad_()
    loss = sps_loss(metric, ms, pan)
    loss.backward()
    assert_close(metric(ms, pan), golden["per_level"], rtol=0, atol=1e-9)
    assert_close(loss, golden["loss"].reshape(()), rtol=0, atol=1e-9)
    assert_close(ms.grad, golden["grad.ms"], rtol=0, atol=1e-9)
    assert_close(pan.grad, golden["grad.pan"], rtol=0, atol=1e-9)


def test_metric_net_has_the_published_shape():
    metric = MetricNet(128)
    assert [tuple(p.shape) for p in metric.parameters()] == [(128, 128, 3, 3), (256, 128, 3, 3), (256, 256, 3, 3)]
    assert [tuple(level.shape) for level in metric.levels(torch.rand(1, 128, 8, 8))] == [
        (1, 128, 8, 8),
        (1, 256, 8, 8),
        (1, 256, 4, 4),
    ]


def test_each_level_lies_between_0_and_2():
    torch.manual_seed(0)
    metric = MetricNet(6)
    f, g = torch.rand(5, 6, 9, 7), torch.rand(5, 6, 9, 7) * 50
    distance = metric(f, g)
    assert distance.shape == (5, 3)
    assert (distance > 0).all()
    assert (distance <= 2).all()
    assert_close(metric(f, f), torch.zeros(5, 3))


def test_a_norm_of_1e_5_is_still_a_direction():
    metric = MetricNet(2).double()
    nn.init.dirac_(metric.conv1.weight)
    level = metric.levels(torch.tensor([0.5 + 0.5e-5, 0.5], dtype=torch.float64).view(1, 2, 1, 1))[0]
    assert_close(level.flatten(), torch.tensor([1 / (1 + 1e-5), 0.0], dtype=torch.float64))  # 1e-5 / (1e-5 + 1e-10)


def test_opposite_features_are_2_apart():
    metric = MetricNet(2)
    for conv in (metric.conv1, metric.conv2, metric.conv3):
        torch.nn.init.zeros_(conv.weight)
        for channel in range(2):
            conv.weight.data[channel, channel, 1, 1] = 1  # the identity on the first two channels
    f = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)  # 2F − 1 = (1, −1)
    assert_close(metric(f, 1 - f), torch.full((1, 3), 2.0))


def test_spread_loss_by_hand():
    # two dimensions that always agree: deviation sqrt(4/3 + 1e-4) > 1, covariance [[4/3, 4/3], [4/3, 4/3]]
    x = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert spread_loss(x).item() == pytest.approx(2 * (4 / 3) ** 2 / 2)
    # all equal: no covariance, deviation sqrt(1e-4)
    assert spread_loss(torch.ones(5, 3, dtype=torch.float64)).item() == pytest.approx(0.99)
    # spread and uncorrelated: nothing to complain of
    square = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
    assert spread_loss(square).item() == pytest.approx(0)


def test_spread_loss_moves_collapsed_features_apart():
    torch.manual_seed(0)
    x = (torch.randn(64, 1).double() @ torch.randn(1, 8).double() + 0.01 * torch.randn(64, 8).double()).requires_grad_()
    before = effective_rank(x.detach())
    for _ in range(300):
        (grad,) = torch.autograd.grad(spread_loss(x), x)
        x.data -= grad
    assert before < 1.5
    assert effective_rank(x.detach()) > 6


def test_effective_rank_by_hand():
    line = torch.arange(5.0)[:, None] @ torch.tensor([[1.0, -2.0, 3.0]])
    assert effective_rank(line) == pytest.approx(1)
    cross = torch.cat([torch.eye(4), -torch.eye(4)])  # the same spread in 4 directions
    assert effective_rank(cross) == pytest.approx(4)
    # singular values 3 and 1: shares 3/4 and 1/4
    two = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(two) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))
    assert effective_rank(two + 1000) == pytest.approx(effective_rank(two), rel=1e-4)  # the mean does not count
    assert effective_rank(torch.full((6, 3), 0.1)) == 0
