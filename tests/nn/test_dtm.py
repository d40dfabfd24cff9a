"""DTM: which token is read where, and what each gave to the decision."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from adcdnet.nn import DeepTemporalMamba, Explanation, MapDepth, MapToken, SequenceDepth, SequenceToken
from adcdnet.nn.dtm import to_grid

DEPTHS = (3, MapDepth(2, (5, 7)), SequenceDepth(6))


def head(**settings) -> DeepTemporalMamba:
    torch.manual_seed(0)
    module = DeepTemporalMamba(DEPTHS, **({"d_model": 12, "num_classes": 5, "d_out": 9} | settings))
    for p in module.parameters():
        nn.init.normal_(p, mean=p.mean().item(), std=0.3)
    return module


def depths(b: int = 2) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(b, *size, generator=draw) for size in ((3, 9, 4), (2, 5, 7), (11, 6))]


def prior(b: int = 2) -> torch.Tensor:
    return torch.randn(b, 12, generator=torch.Generator().manual_seed(2))


def test_map_token_averages_by_hand_and_passes_a_4x4_map_unchanged():
    token = MapToken(1, 16)
    nn.init.eye_(token.linear.weight)
    nn.init.zeros_(token.linear.bias)
    small = torch.randn(2, 1, 4, 4)
    ripple = torch.tensor([[1.0, -2.0, 1.0], [-3.0, 2.0, 1.0]]).repeat(4, 4)  # of mean 0 in each cell of 2×3
    large = small.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3) + ripple  # 8×12
    expected = torch.relu(nn.functional.layer_norm(small.flatten(1), (16,)))
    assert_close(token(small), expected, rtol=0, atol=0)
    assert_close(token(large), expected)


def test_flatten_token_sees_every_pixel_and_needs_the_size():
    token = MapToken(2, 12, size=(5, 7), token="flatten")
    assert token.linear.in_features == 70
    x = torch.randn(1, 2, 5, 7, requires_grad=True)
    (token(x) * torch.randn(12)).sum().backward()
    assert (x.grad != 0).all()
    with pytest.raises(ValueError, match="needs the size"):
        MapToken(2, 12, token="flatten")
    with pytest.raises(ValueError, match="'max'"):
        MapToken(2, 12, token="max")


def test_sequence_token_keeps_early_apart_from_late():
    token = SequenceToken(2, 12)
    x = torch.randn(1, 11, 2)
    assert (token(x) - token(x.flip(1))).abs().max() > 1e-2
    long = torch.randn(1, 4, 2)
    assert_close(token(long.repeat_interleave(5, dim=1)), token(long))


@pytest.mark.parametrize("length", [1, 3, 4, 7, 11])
def test_padding_of_a_sequence_is_no_part_of_its_token(length):
    module = head()
    alone = [v[:, :length] if k == 2 else v for k, v in enumerate(depths())]
    padded = depths()
    padded[2][:, length:] = float("nan")
    lengths = [None, None, torch.tensor([length, length])]
    assert_close(module(padded, lengths=lengths), module(alone))
    assert_close(module.explain(padded, lengths=lengths).evidence, module.explain(alone).evidence)
    token = SequenceToken(1, 4)
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 9.0, 9.0]).view(1, 7, 1)  # 5 valid: parts 0-1, 1-2, 2-3, 3-4
    parts = torch.tensor([[1.5, 3.0, 6.0, 12.0]])
    assert_close(token(x, torch.tensor([5])), torch.relu(token.norm(token.linear(parts))))
    with pytest.raises(ValueError, match="1 lengths came for 3 depths"):
        module(depths(), lengths=[None])


@pytest.mark.parametrize("form", ["loop", "chunked", "parallel", "matrix"])
def test_form_is_passed_to_the_scan_and_a_loop_can_be_differentiated_twice(form):
    module = head(form=form)
    assert module.mamba.form == form
    assert_close(module(depths()), head()(depths()))
    if form == "loop":
        x = [v.requires_grad_() for v in depths()]
        (grad,) = torch.autograd.grad(module(x).square().sum(), x[0], create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), x[0])
        assert second.any()


@pytest.mark.parametrize("place", ["first", "last", None])
def test_prior_stands_where_it_is_said_to(place):
    module = head(prior=place)
    given = None if place is None else prior()
    sequence = module.sequence(depths(), given)
    own = torch.stack([token(depth) for token, depth in zip(module.tokens, depths(), strict=True)], dim=1)
    expected = {None: [own], "first": [prior()[:, None], own], "last": [own, prior()[:, None]]}[place]
    assert_close(sequence, torch.cat(expected, dim=1), rtol=0, atol=0)


def test_first_position_has_seen_the_first_token_alone_and_the_last_all():
    module = head(prior="first", num_classes=None)
    base = module(depths(), prior())
    assert base.shape == (2, 4, 9)
    changed = module([depths()[0] + 1, *depths()[1:]], prior())
    assert_close(base[:, 0], changed[:, 0], rtol=0, atol=1e-6)
    moved = module(depths(), prior() + torch.randn(12))
    for t in range(4):
        assert (base[:, t] - moved[:, t]).abs().max() > 1e-4


@pytest.mark.parametrize("read_out", ["last", "mean"])
def test_logits_are_read_where_they_are_said_to_be(read_out):
    module = head(read_out=read_out)
    out = module.mamba(module.norm(module.sequence(depths())))
    read = out[:, 2] if read_out == "last" else (out[:, 0] + out[:, 1] + out[:, 2]) / 3
    assert_close(module(depths()), module.classifier(torch.relu(module.out_norm(read))))


def test_every_parameter_receives_a_gradient():
    module = head(prior="last")
    module(depths(), prior()).square().sum().backward()
    for name, p in module.named_parameters():
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("place", ["first", "last", None])
@pytest.mark.parametrize("read_out", ["last", "mean"])
def test_explanation_adds_up_to_the_scan_and_to_the_logits(place, read_out):
    module = head(prior=place, read_out=read_out)
    given = None if place is None else prior()
    why = module.explain(depths(), given)
    x = module.norm(module.sequence(depths(), given))
    u, delta, B, C, _ = module.mamba.scan_inputs(x)
    assert_close(why.scan_input, u)
    output = torch.einsum("btje,bje->bte", why.matrix, why.scan_input) + why.skip
    assert_close(output, why.scan_output, rtol=0, atol=1e-6)
    h = torch.zeros(2, 12, 16)
    for t in range(u.shape[1]):  # the recurrence itself
        h = torch.exp(delta[:, t, :, None] * module.mamba.A) * h + (delta * u)[:, t, :, None] * B[:, t, None]
        assert_close(
            why.scan_output[:, t], (h * C[:, t, None]).sum(-1) + module.mamba.D * u[:, t], rtol=1e-5, atol=1e-5
        )
    assert (why.matrix.permute(0, 3, 1, 2).triu(1) == 0).all()
    assert_close(why.logits, module(depths(), given), rtol=0, atol=1e-5)
    assert_close(why.evidence.sum(1) + why.rest, why.logits)
    assert_close(why.shares.sum(1), torch.ones(2))


def test_shares_by_hand():
    evidence = torch.tensor([[[3.0, 0.0, 0.0], [1.0, 4.0, 1.0]]])  # means 1 and 2: leaves (2, -1, -1) and (-1, 2, -1)
    nothing = torch.zeros(1)
    for logits, shares in (([5.0, 4.0, 1.0], [2 / 3, 1 / 3]), ([1.0, 4.0, 1.0], [1 / 3, 2 / 3])):
        why = Explanation(("a", "b"), *[nothing] * 4, evidence, nothing, torch.tensor([logits]))
        assert_close(why.shares, torch.tensor([shares]))
    silent = Explanation(("a", "b"), *[nothing] * 4, torch.ones(1, 2, 3), nothing, torch.ones(1, 3))
    assert_close(silent.shares, torch.zeros(1, 2))  # all classes alike: nothing is decided


def test_half_precision_is_explained():
    module = head(prior="last").bfloat16()
    given = [v.bfloat16() for v in depths()], prior().bfloat16()
    why = module.explain(*given)
    assert_close(why.shares.sum(1).float(), torch.ones(2), rtol=0, atol=0.02)
    assert_close(why.logits.float(), module(*given).float(), rtol=0.1, atol=0.1)


def test_token_that_feeds_nothing_has_no_evidence():
    module = head(prior="first", d_conv=1)  # no convolution over time: each scan input is of its token alone
    nn.init.zeros_(module.norm.bias)  # LayerNorm turns a constant token into its bias
    nn.init.zeros_(module.mamba.conv1d.bias)
    why = module.explain(depths(), torch.full((2, 12), 3.0))
    assert why.tokens == ("prior", "depth 1", "depth 2", "depth 3")
    assert (why.evidence[:, 0] == 0).all()
    assert (why.shares[:, 0] == 0).all()
    assert (why.evidence[:, 1:].abs().amax((0, 2)) > 1e-4).all()


def test_before_training_the_last_token_decides_nearly_alone():  # as the page warns
    torch.manual_seed(0)
    shares = DeepTemporalMamba(DEPTHS, d_model=12, num_classes=5).explain(depths(16)).shares
    assert shares[:, -1].mean() > 0.9


def test_wrong_input_is_refused_with_what_was_needed():
    with pytest.raises(ValueError, match="2 depths came; this head was made for 3"):
        head()(depths()[:2])
    with pytest.raises(ValueError, match="prior token missing"):
        head(prior="last")(depths())
    with pytest.raises(ValueError, match="prior token given"):
        head()(depths(), prior())
    with pytest.raises(ValueError, match="no classes"):
        head(num_classes=None).explain(depths())
    with pytest.raises(ValueError, match="'middle'"):
        head(prior="middle")
    with pytest.raises(ValueError, match="'max'"):
        head(read_out="max")
    with pytest.raises(ValueError, match="no depths"):
        DeepTemporalMamba((), d_model=4, num_classes=2)
    for name in ("d_model", "num_classes", "d_out"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be a whole number"):
            head(**{name: 0})
    for depth in (0, MapDepth(0), SequenceDepth(0)):
        with pytest.raises(ValueError, match="channels is 0"):
            DeepTemporalMamba((depth,), d_model=4, num_classes=2)


def test_head_compiles_in_one_piece_and_runs_under_autocast():
    module = head(prior="last")
    assert_close(
        torch.compile(module, fullgraph=True, backend="aot_eager")(depths(), prior()), module(depths(), prior())
    )
    with torch.autocast("cpu", torch.bfloat16):
        rough = module(depths(), prior())
    assert (rough - module(depths(), prior())).abs().max() < 0.1 * module(depths(), prior()).abs().max()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # raised inside PyTorch's exporter
def test_head_of_pooled_maps_runs_in_onnx_runtime(tmp_path):
    torch.manual_seed(0)
    module = DeepTemporalMamba((3, 2), d_model=12, num_classes=5, prior="last").eval()
    given = ([torch.randn(2, 3, 9, 6), torch.randn(2, 2, 5, 7)], prior())
    torch.onnx.export(module, given, tmp_path / "dtm.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "dtm.onnx")
    names = [one.name for one in session.get_inputs()]
    (logits,) = session.run(None, dict(zip(names, [v.numpy() for v in (*given[0], given[1])], strict=True)))
    assert_close(torch.from_numpy(logits), module(*given).detach(), rtol=0, atol=1e-5)


def test_means_are_made_on_the_processor_whatever_the_device(monkeypatch):
    """MPS has no adaptive pooling of 9 cells to 4."""
    asked, pool = [], nn.functional.adaptive_avg_pool2d
    monkeypatch.setattr(
        nn.functional, "adaptive_avg_pool2d", lambda x, side: asked.append(x.device.type) or pool(x, side)
    )
    for side in (9, 40):
        assert to_grid(torch.zeros(2, 3, side, side, device="meta")).shape == (2, 3, 4, 4)
    assert asked == ["cpu", "cpu"]


@pytest.mark.parametrize("steps", [1, 3, 4, 6, 11])
def test_sequences_are_averaged_as_pytorch_does_without_its_pooling(steps, monkeypatch):
    """MPS has no adaptive pooling of 11 steps to 4, and on a GPU its gradients are not the same twice."""
    token, x = SequenceToken(2, 8).double(), torch.randn(3, steps, 2, dtype=torch.float64)
    defined = nn.functional.adaptive_avg_pool1d(x.mT, 4).flatten(1)
    monkeypatch.delattr(nn.functional, "adaptive_avg_pool1d")
    assert_close(token(x), torch.relu(token.norm(token.linear(defined))), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(9, 9), (5, 5), (4, 4), (3, 7), (17, 16), (40, 33)])
def test_maps_are_averaged_as_pytorch_does(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weight = torch.arange(16, dtype=torch.float64).view(4, 4)
    found, defined = to_grid(x), nn.functional.adaptive_avg_pool2d(x, 4)
    assert_close(found, defined, rtol=0, atol=1e-12)
    (mine,) = torch.autograd.grad((found * weight).sum(), x)
    (theirs,) = torch.autograd.grad((defined * weight).sum(), x)
    assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_gradients_of_each_sample_by_functional_transforms():
    module, given = head(prior="last").double(), [v.double() for v in (*depths(), prior())]
    parameters = dict(module.named_parameters())

    def loss(own, *sample):
        *maps, token = (v[None] for v in sample)
        return torch.func.functional_call(module, own, (maps, token)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0))(parameters, *given)
    for sample in range(2):
        module.zero_grad()
        *maps, token = (v[sample : sample + 1] for v in given)
        module(maps, token).square().sum().backward()
        for name, p in parameters.items():
            assert_close(each[name][sample], p.grad, rtol=1e-8, atol=1e-10, msg=name)


def test_exports_with_a_free_batch():
    module, batch = head(prior="last").eval(), torch.export.Dim("b", min=1, max=64)
    free = ([{0: batch}] * 3, {0: batch})
    program = torch.export.export(module, (depths(), prior()), dynamic_shapes=free)
    for b in (1, 7):
        assert_close(program.module()(depths(b), prior(b)), module(depths(b), prior(b)), rtol=0, atol=1e-6)


def test_maps_may_be_channels_last():
    module, given = head(), depths()
    last = [v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for v in given]
    assert_close(module(last), module(given))
