"""Both ways of applying a network give the same numbers; what it sees, what it trains and what it leaves alone."""

import copy
from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from adcdnet.config import TrainConfig
from adcdnet.nn import DeformableInteractiveAttention
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Layout, PatchArchitecture
from adcdnet.nn.encoder import SensorMaps
from adcdnet.nn.tile_sharing import Rectangle, Targets
from conftest import SMALL, build_model, liven

PAPER = TrainConfig.of_profile("paper-code").network
SMALL_PAPER = replace(PAPER, widths=(4, 5, 6), hidden=7, token_dims=(6, 8))
SMALL_ARTICLE = replace(SMALL_PAPER, widths=(24, 24, 24), backbone="mobilenetv3", squeeze_excite=True)


def build(config: PatchArchitecture, *, bands=3, pan_bands=1, ratio=2, classes=4, seed=0) -> ADCDNet:
    torch.manual_seed(seed)
    return ADCDNet(config, Layout(ms_bands=bands, pan_bands=pan_bands, ratio=ratio, classes=classes))


def small(**changes) -> PatchArchitecture:
    return TrainConfig.of_profile("patch").replace({"network": SMALL | changes}).network


def draw(network: ADCDNet, count: int, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ms (count, B, height, width) and pan that fit the network."""
    layout, generator = network.layout, torch.Generator().manual_seed(seed)
    ms = torch.randn(count, layout.ms_bands, height, width, generator=generator)
    size = height * layout.ratio, width * layout.ratio
    return ms, torch.randn(count, layout.pan_bands, *size, generator=generator)


def cut(network: ADCDNet, ms, pan, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """The patches around the targets of tiles."""
    side, r = 2 * network.config.before + 1, network.layout.ratio
    places = list(zip(*(i.tolist() for i in targets), strict=True))
    some_ms = [ms[t, :, i : i + side, j : j + side] for t, i, j in places]
    some_pan = [pan[t, :, i * r : (i + side) * r, j * r : (j + side) * r] for t, i, j in places]
    return torch.stack(some_ms), torch.stack(some_pan)


# ---- patches and tiles


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    ratio=st.integers(1, 4),
    pan_bands=st.integers(1, 3),
    changes=st.fixed_dictionaries(
        {
            "backbone": st.sampled_from(["conv", "mobilenetv3"]),
            "patch": st.sampled_from([9, 17]),
            "head": st.sampled_from(["centre", "flatten"]),
            "token": st.sampled_from(["pool", "flatten"]),
            "sensors": st.sampled_from(["both", "ms", "pan"]),
            "attention": st.sampled_from(["dia", "none"]),
            "dtm": st.booleans(),
            "prior": st.booleans(),
            "shared_decision": st.booleans(),
        }
    ),
    seed=st.integers(0, 99),
)
@example(ratio=8, pan_bands=1, changes={}, seed=0)
@example(ratio=2, pan_bands=1, changes={"patch": 25, "head": "flatten", "token": "pool"}, seed=1)
def test_a_tile_gives_the_numbers_of_its_patches(ratio, pan_bands, changes, seed):
    network = liven(build(small(**changes), pan_bands=pan_bands, ratio=ratio, seed=seed), seed).double()
    reach = network.config.before
    ms, pan = (x.double() for x in draw(network, 2, 2 * reach + 5, 2 * reach + 4, seed))
    targets = Targets(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 4, 2, 3]), torch.tensor([0, 3, 1, 0]))
    some = Targets(*(i[1:3] for i in targets))
    shared = network.on_tile(ms, pan, targets, branch_targets=some)
    defined = network(*cut(network, ms, pan, targets), branches=True)
    assert shared.main.shape == (4, 4)
    assert_close(shared.main, defined.main, rtol=0, atol=1e-9)
    for mine, theirs in ((shared.ms, defined.ms), (shared.pan, defined.pan)):
        assert (mine is None) == (theirs is None) == (not network.config.dtm)
        if mine is not None:
            assert_close(mine, theirs[1:3], rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 63])
def test_tokens_of_a_ramp_by_hand(count):
    """Many targets take them from means of all places, few from their own: of row + 100·col, either is the value in
    the middle of each of 4×4 windows, which lie at −3, −1, 1 and 3 from the target."""
    encoder = build(small()).double().sensors.ms
    depths = []
    for k in range(3):
        row, col = (torch.arange(n + 2 * encoder._before(k), dtype=torch.float64) - encoder._before(k) for n in (7, 9))
        depths.append((row[:, None] + 100 * col).expand(1, encoder.config.widths[k], -1, -1))
    places = torch.cartesian_prod(torch.arange(7), torch.arange(9))[-count:]
    maps = SensorMaps(depths, depths[-1], depths[-1], None)
    attended = torch.zeros(count, encoder.config.widths[-1], encoder.cells, encoder.cells, dtype=torch.float64)
    tokens = encoder.tokens_at(maps, Targets(torch.zeros(count, dtype=torch.long), *places.T), attended)
    apart = torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=torch.float64)
    row, col = (axis[:, None, None].double() for axis in places.T)
    expected = (row + apart[:, None]) + 100 * (col + apart)
    for token, width in zip(tokens[:3], encoder.config.widths, strict=True):
        assert_close(token, expected[:, None].expand(-1, width, -1, -1), rtol=0, atol=1e-9)
    assert not tokens[3].any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_rectangle_reads_what_its_targets_do(layout):
    x = torch.arange(3.0 * 14 * 15).view(1, 3, 14, 15).contiguous(memory_format=layout)
    place = Rectangle(top=1, left=2, height=3, width=4)
    row, col = torch.cartesian_prod(torch.arange(1, 4), torch.arange(2, 6)).T
    targets, how = Targets(torch.zeros_like(row), row, col), {"side": 3, "step": 2, "reach": 4}
    assert [tuple(places.shape) for places in (place, targets)] == [(3, 4), (12,)]
    for cell, theirs in zip(place.cells(x, **how), targets.cells(x, **how), strict=True):
        assert torch.equal(cell.flatten(0, 1), theirs)
    assert torch.equal(place.windows(x, **how), targets.windows(x, **how))
    assert torch.equal(targets.cells(x, **how)[4], x[0, :, row + 4, col + 4].T)  # the one in the middle


@pytest.mark.parametrize("changes", [{}, {"head": "flatten", "prior": False}, {"attention": "none", "prior": False}])
def test_products_in_bf16_are_summed_in_float32(changes):
    """Rounded after every cell instead, the second has 0.009 and the third 0.021."""
    network = liven(build(PatchArchitecture(**changes), bands=6, classes=5))
    ms, pan = draw(network, 1, 36, 36)
    logits = []
    for rounded in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            answers = network.classify(network.share(ms, pan), Rectangle(0, 0, 20, 20)).float()
            logits.append(answers - answers.mean(1, keepdim=True))
    assert 0 < (logits[1] - logits[0]).square().mean().sqrt() < 0.0075 * logits[0].std()


@pytest.mark.parametrize("changes", [{}, {"prior": False}, {"shared_decision": True}])
def test_branches_of_the_first_patches_are_as_of_all(changes):
    network = liven(build(small(**changes))).eval()
    side = network.config.before + 1 + network.config.after
    patches = draw(network, 5, side, side)
    whole, some = network(*patches, branches=True), network(*patches, branches=2)
    assert torch.equal(some.main, whole.main)
    for mine, theirs in ((some.ms, whole.ms), (some.pan, whole.pan)):
        assert mine.shape == (2, 4)
        assert_close(mine, theirs[:2])
    assert network(*patches, branches=7).ms.shape == (5, 4)  # there are no more
    assert network(*patches, branches=0)[1:] == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": "flatten", "token": "flatten"},
        {"attention": "none", "prior": False},
        {"head": "flatten", "attention": "none"},
    ],
)
def test_a_tile_gives_the_gradients_of_its_patches(changes):
    """Loss of all three heads, BatchNorm in eval mode, float64: backward is shared as exactly as forward."""
    network = liven(build(small(**changes), ratio=2)).double().eval()
    ms, pan = (x.double() for x in draw(network, 2, 2 * network.config.before + 5, 2 * network.config.reach + 4))
    targets = Targets(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 4, 2, 3]), torch.tensor([0, 3, 1, 0]))
    truth = torch.tensor([0, 2, 1, 3])
    gradients = []
    for outputs in (
        network.on_tile(ms, pan, targets, branch_targets=targets),
        network(*cut(network, ms, pan, targets), branches=True),
    ):
        network.zero_grad()
        sum(torch.nn.functional.cross_entropy(logits, truth) for logits in outputs).backward()
        gradients.append({name: p.grad.clone() for name, p in network.trained_parameters()})
    for name, shared in gradients[0].items():
        assert_close(shared, gradients[1][name], rtol=0, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
    assert max(float(g.abs().max()) for g in gradients[0].values()) > 1e-3


def test_the_same_in_single_precision():
    network = liven(build(PatchArchitecture()))
    ms, pan = draw(network, 1, 31, 33)
    targets = Targets(torch.zeros(63, dtype=torch.long), *torch.cartesian_prod(torch.arange(7), torch.arange(9)).T)
    assert_close(
        network.on_tile(ms, pan, targets).main, network(*cut(network, ms, pan, targets)).main, rtol=0, atol=1e-4
    )


def test_the_branches_run_only_when_asked_for():
    network = liven(build(small()))
    ms, pan = draw(network, 2, 25, 25)
    for head in network.dtm.values():
        head.register_forward_pre_hook(lambda *_: pytest.fail("a branch ran"))
    outputs = network(ms, pan)
    assert outputs.ms is None
    assert outputs.pan is None
    target = Targets(*torch.zeros(3, 1, dtype=torch.long))
    assert network.on_tile(ms, pan, target).pan is None


# ---- reach


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("patch", [9, 17])
def test_a_network_sees_its_reach_and_not_a_pixel_more(ratio, patch):
    network = liven(build(small(patch=patch), ratio=ratio)).double()
    reach = network.config.before
    side = 2 * reach + 3  # one pixel more than the window on every side
    ms, pan = (x.double().requires_grad_() for x in draw(network, 1, side, side))
    target = Targets(*(torch.full((1,), i) for i in (0, 1, 1)))
    outputs = network.on_tile(ms, pan, target, branch_targets=target)
    for logits in (outputs.main, sum(x.square().sum() for x in outputs)):
        grads = torch.autograd.grad(logits.square().sum(), (ms, pan), retain_graph=True)
        for grad, scale in zip(grads, (1, ratio), strict=True):
            seen = grad[0].abs().amax(0) > 0
            rows, cols = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
            for places in (rows, cols):  # the window is filled to its edges, and nothing lies outside
                assert places.min() // scale == 1
                assert places.max() // scale == side - 2


@pytest.mark.parametrize("poison", [1e6, float("nan")])
def test_a_pixel_beyond_the_reach_changes_nothing(poison):
    network = liven(build(small(), ratio=2))
    ms, pan = draw(network, 1, 29, 28)
    target = Targets(*(torch.full((1,), i) for i in (0, 2, 1)))
    before = network.on_tile(ms, pan, target, branch_targets=target)
    other_ms, other_pan = torch.full_like(ms, poison), torch.full_like(pan, poison)
    other_ms[..., 2:27, 1:26] = ms[..., 2:27, 1:26]
    other_pan[..., 4:54, 2:52] = pan[..., 4:54, 2:52]
    after = network.on_tile(other_ms, other_pan, target, branch_targets=target)
    for mine, theirs in zip(after, before, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("sensors", "ignored"), [("ms", 1), ("pan", 0)])
def test_a_silenced_sensor_is_ignored(sensors, ignored):
    network = liven(build(small(sensors=sensors)))
    inputs = list(draw(network, 2, 25, 25))
    before = network(*inputs, branches=True)
    inputs[1 - ignored] = inputs[1 - ignored] + 1
    assert not torch.equal(network(*inputs).main, before.main)
    inputs[1 - ignored] = inputs[1 - ignored] - 1
    inputs[ignored] = torch.full_like(inputs[ignored], 1e3)
    for mine, theirs in zip(network(*inputs, branches=True), before, strict=True):
        assert_close(mine, theirs)


# ---- what is trained


def training_loss(network: ADCDNet) -> torch.Tensor:
    """L = L_main + 0.8 (L_ms + L_pan) on random input."""
    if network.config.sharable:
        ms, pan = draw(network, 3, 2 * network.config.before + 6, 2 * network.config.before + 6)
        places = torch.cartesian_prod(torch.arange(3), torch.arange(6), torch.arange(6)).T
        outputs = network.on_tile(ms, pan, Targets(*places), branch_targets=Targets(*places))
    else:
        config = network.config
        side = config.before + 1 + config.after
        outputs = network(*draw(network, 24, side, side), branches=True)
    truth = torch.arange(len(outputs.main)) % network.layout.classes
    losses = [F.cross_entropy(logits, truth) for logits in outputs]
    return losses[0] + 0.8 * (losses[1] + losses[2])


NETWORKS = {
    "default": (PatchArchitecture(), 2),
    "flatten": (small(head="flatten", token="flatten"), 3),
    "mobilenetv3": (small(backbone="mobilenetv3"), 2),
    "squeeze-excite": (small(backbone="mobilenetv3", squeeze_excite=True), 2),
    "no prior": (small(prior=False, attention="none"), 1),
    "zeros": (small(padding="zeros", patch=16, head="flatten"), 3),
    "paper": (SMALL_ARTICLE, 4),
    "paper-code": (SMALL_PAPER, 4),
    "paper, mobilenetv3": (replace(SMALL_PAPER, **{"backbone": "mobilenetv3"}), 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_trained_parameter_gets_a_gradient_and_no_other(name):
    config, ratio = NETWORKS[name]
    network = build(config, ratio=ratio).train()
    trained = {name for name, _ in network.trained_parameters()}
    training_loss(network).backward()
    idle, touched = [], []
    for parameter_name, p in network.named_parameters():
        useful = p.grad is not None and bool(p.grad.isfinite().all()) and bool((p.grad != 0).any())
        if parameter_name in trained and not useful:
            idle.append(parameter_name)
        if parameter_name not in trained and p.grad is not None:
            touched.append(parameter_name)
    assert not idle, f"without a gradient: {idle}"
    assert not touched, f"frozen, yet with a gradient: {touched}"
    frozen = {n for n, _ in network.named_parameters()} - trained
    expected = {n for n, _ in network.named_parameters() if n.startswith(("prior.", "context_branch."))}
    if not config.learn_prior_token:
        expected |= {n for n, _ in network.named_parameters() if n.startswith("prior_token.")}
    assert frozen == expected


def test_the_context_branch_adds_its_logits_to_the_answer_but_not_in_training():
    layout = Layout(ms_bands=3, pan_bands=1, ratio=2, classes=4)
    network = build_model(layout, context_branch=0.3, dropout=0.0).network
    ms, pan = torch.randn(5, 3, 17, 17), torch.randn(5, 1, 34, 34)
    whole, own = network(ms, pan).main, network.context_branch
    for part in (own.classifier.weight, own.classifier.bias):
        part.data.zero_()
    bare = network(ms, pan).main
    assert not torch.allclose(whole, bare)
    said = torch.tensor([1.0, -2.0, 0.0, 5.0])
    trained = copy.deepcopy(network).train()(ms, pan).main
    own.classifier.bias.data.copy_(said)
    torch.testing.assert_close(network(ms, pan).main - bare, 0.3 * said.expand(5, 4))
    torch.testing.assert_close(network.train()(ms, pan).main, trained)
    for off in ({"context_branch": 0.0}, {"head": "flatten"}):
        assert build_model(layout, **off).network.context_branch is None


def test_the_prior_stays_as_it_was_while_stage_2_trains():
    network = liven(build(small(), ratio=2)).train()
    assert network.training
    assert not any(m.training for m in network.prior.modules())
    before = {name: value.clone() for name, value in network.prior.state_dict().items()}
    optimizer = torch.optim.AdamW([p for _, p in network.trained_parameters()], lr=0.1, weight_decay=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        training_loss(network).backward()
        optimizer.step()
    for name, value in network.prior.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(network.sensors.ms.backbone.units[0].norm.running_mean, torch.zeros(4))


def test_the_prior_matters():
    network = liven(build(small(), ratio=2))
    ms, pan = draw(network, 2, 25, 25)
    before = network(ms, pan).main
    network.prior.mean[1] += 1
    assert not torch.allclose(network(ms, pan).main, before)


def test_raw_prior_masks_are_the_sigmoid_of_the_features():
    prior = liven(build(small(), ratio=2)).prior
    ms, pan = draw(build(small(), ratio=2), 2, 25, 25)
    prior.mean.zero_()
    prior.deviation.fill_(1)  # as before stage I has measured them
    raw = prior.ms.attend(prior.ms.backbone(ms)[-1]), prior.pan.attend(prior.pan.backbone(pan)[-1])
    assert all(torch.equal(a, b) for a, b in zip(prior(ms, pan), raw, strict=True))
    prior.mean[1], prior.deviation[1] = 2.0, 4.0
    assert torch.equal(prior(ms, pan)[0], raw[0])
    assert_close(prior(ms, pan)[1], (raw[1] - 2) / 4)


def test_a_fresh_network_has_neutral_gates():
    for module in build(PatchArchitecture()).modules():
        if isinstance(module, DeformableInteractiveAttention):
            assert not any(p.any() for p in chain(module.gate_avg.parameters(), module.gate_max.parameters()))


def test_the_global_part_leads_in_ms_and_the_local_one_in_pan():
    network = build(PatchArchitecture())
    for sensors in (network.sensors, network.prior):
        factors = [(one.attention.global_scale, one.attention.local_scale) for one in (sensors.ms, sensors.pan)]
        assert factors == [(0.4, 0.1), (0.1, 0.4)]


# ---- the published network


def test_published_shapes():
    network = liven(build(SMALL_PAPER, bands=4, ratio=4, classes=5))
    ms, pan = draw(network, 3, 16, 16)
    assert pan.shape == (3, 1, 64, 64)
    outputs = network(ms, pan, branches=True)
    assert [tuple(x.shape) for x in outputs] == [(3, 5)] * 3
    assert [tuple(f.shape) for f in network.prior(ms, pan)] == [(3, 6, 8, 8)] * 2


def test_published_number_of_parameters():
    with torch.device("meta"):
        network = ADCDNet(PAPER, Layout(ms_bands=4, pan_bands=1, ratio=4, classes=11))

    def count(*modules: nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    answering = count(network.sensors, network.prior, network.flatten, network.decision)
    assert round(answering / 1e6, 1) == 2.9
    three_depths = count(*(token.linear for token in network.dtm["pan"].tokens[:3]))
    assert three_depths == 512 * (128 * 32**2 + 256 * 16**2 + 128 * 8**2 + 3)  # 105 M


@pytest.mark.parametrize("ratio", [1, 2, 3, 8])
def test_the_published_network_works_at_ratio_4_only(ratio):
    with pytest.raises(ValueError, match=f"ratio 4 only, got {ratio}"):
        build(SMALL_PAPER, ratio=ratio)


@pytest.mark.parametrize("ratio", [1, 3])
def test_zero_padding_with_a_stem_works_at_any_ratio(ratio):
    network = liven(build(small(padding="zeros", patch=16, head="flatten"), ratio=ratio))
    outputs = network(*draw(network, 3, 16, 16), branches=True)
    assert [tuple(x.shape) for x in outputs] == [(3, 4)] * 3


def test_a_zero_padded_network_cannot_be_shared():
    network = build(SMALL_PAPER, ratio=4)
    with pytest.raises(ValueError, match="patch by patch"):
        network.on_tile(*draw(network, 1, 20, 20), Targets(*torch.zeros(3, 1, dtype=torch.long)))
