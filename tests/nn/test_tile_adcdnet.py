"""The network over tiles: shapes, what it sees, that tiles agree wherever they begin, and that every part learns."""

import pytest
import torch
from torch.testing import assert_close

from adcdnet.nn.architecture import Layout, TileArchitecture, differences
from adcdnet.nn.context import ContextBranch, feature_count
from adcdnet.nn.streams import Down, pan_strides, pan_widths
from adcdnet.nn.tile_adcdnet import TileADCDNet
from adcdnet.nn.tile_sharing import Targets

SMALL = {"detail": 4, "stream": 8, "widths": (8, 12, 16), "token_dims": (8, 8), "hidden": 8}


def network(ratio: int = 2, *, ms_bands: int = 3, pan_bands: int = 1, **changes: object) -> TileADCDNet:
    """In float64, with BatchNorm statistics that are not those of a start, so that each of them counts."""
    torch.manual_seed(0)
    config = TileArchitecture(**SMALL | changes)  # type: ignore[arg-type]
    made = TileADCDNet(config, Layout(ms_bands=ms_bands, pan_bands=pan_bands, ratio=ratio, classes=4)).double()
    for name, value in made.state_dict().items():
        if "running_mean" in name:
            value.normal_(0, 0.2)
        if "running_var" in name or name in ("prior.deviation",):
            value.uniform_(0.5, 2)
    for module in made.modules():  # gates start at zero, and a part that is zero would hide what it sees
        for parameter in module.parameters(recurse=False):
            if not parameter.any():
                torch.nn.init.normal_(parameter, 0, 0.3)
    return made.eval()


def images(height: int, width: int, ratio: int = 2, *, seed: int = 1, ms_bands: int = 3, pan_bands: int = 1):
    generator = torch.Generator().manual_seed(seed)
    ms = torch.randn(1, ms_bands, height, width, generator=generator, dtype=torch.float64)
    return ms, torch.randn(1, pan_bands, height * ratio, width * ratio, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 6, 15, 32])
@pytest.mark.parametrize("grid", ["coarse", "fine"])
def test_every_ratio_has_its_answers(ratio, grid):
    made = network(ratio, pan_bands=2, grid=grid, widths=(8,))
    logits = made(*images(7, 5, ratio, pan_bands=2))
    step = ratio if grid == "fine" else 1
    assert logits.shape == (1, 4, 7 * step, 5 * step)


def test_strides_of_a_ratio():
    strides = {1: [1, 1], 2: [1, 2], 4: [1, 2, 2], 6: [1, 2, 3], 8: [1, 2, 2, 2]}
    strides |= {9: [3, 3], 12: [2, 2, 3], 15: [3, 5], 31: [31, 1], 32: [4, 2, 2, 2]}  # never more than 8 PAN pixels
    for ratio, expected in strides.items():
        assert pan_strides(ratio) == expected
    assert pan_widths(TileArchitecture(detail=16, stream=32), 1) == [16, 32]
    assert pan_widths(TileArchitecture(detail=16, stream=32), 4) == [16, 32, 32]
    assert pan_widths(TileArchitecture(detail=4, stream=32), 8) == [4, 8, 16, 32]


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_step_down_lies_evenly_about_its_cell(factor):
    """Turned images give turned maps if the kernel is turned too: nothing leans to a side."""
    down = Down(1, 1, factor).double().eval()
    x = torch.randn(1, 1, 4 * factor, 4 * factor, dtype=torch.float64)
    straight = down(x)
    down.conv.weight.data = torch.flip(down.conv.weight, (2, 3))
    assert_close(torch.flip(down(torch.flip(x, (2, 3))), (2, 3)), straight)


@pytest.mark.parametrize("grid", ["coarse", "fine"])
@pytest.mark.parametrize("attention", ["dia", "none"])
@pytest.mark.parametrize(("ratio", "widths"), [(1, (8,)), (2, (8, 12)), (4, (8, 12, 16)), (3, (8, 8, 8, 8))])
def test_it_sees_as_far_as_it_says_and_no_further(ratio, widths, attention, grid):
    made = network(ratio, widths=widths, attention=attention, grid=grid, context_branch=0.0)
    reach, step, furthest = made.config.reach, made.config.targets_per_pixel(ratio), 0
    for origin in ((0, 0), (1, 3), (6, 5)):
        side = 2 * (reach + 12) + 1
        ms, pan = (x.requires_grad_() for x in images(side, side, ratio))
        logits = made(ms, pan, border=reach + 4, origin=origin)
        middle = (side - 2 * (reach + 4)) // 2 * step + step // 2
        for x, r in zip(torch.autograd.grad(logits[0, :, middle, middle].sum(), (ms, pan)), (1, ratio), strict=True):
            seen = x.abs().sum((0, 1)).nonzero() // r - side // 2
            furthest = max(furthest, int(seen.abs().max()))
    assert reach - 12 <= furthest <= reach  # the lattice and bilinear maps are counted at their widest


@pytest.mark.parametrize("changes", [{}, {"grid": "fine"}, {"prior": False, "attention": "none"}, {"widths": (8,)}])
def test_answers_do_not_depend_on_where_a_tile_begins(changes):
    made = network(2, **changes)
    reach, step = made.config.reach, made.config.targets_per_pixel(2)
    height, width = 29, 23
    ms, pan = images(height + 2 * reach, width + 2 * reach)
    whole = made(ms, pan, border=reach, origin=(-reach, -reach))
    assert whole.shape == (1, 4, height * step, width * step)
    for row, col, h, w in ((0, 0, 13, 13), (5, 3, 13, 7), (16, 10, 13, 13), (28, 22, 1, 1)):
        rows, cols = slice(row, row + h + 2 * reach), slice(col, col + w + 2 * reach)
        fine = slice(2 * rows.start, 2 * rows.stop), slice(2 * cols.start, 2 * cols.stop)
        tile = made(ms[:, :, rows, cols], pan[:, :, fine[0], fine[1]], border=reach, origin=(row - reach, col - reach))
        expected = whole[:, :, row * step : (row + h) * step, col * step : (col + w) * step]
        assert_close(tile, expected, rtol=0, atol=1e-9)


def test_a_tile_that_is_laid_out_elsewhere_answers_otherwise():
    """The law above is one of the lattice: a wrong origin is seen."""
    made = network(2)
    reach = made.config.reach
    ms, pan = images(9 + 2 * reach, 9 + 2 * reach)
    right, wrong = (made(ms, pan, border=reach, origin=(first, 0)) for first in (0, 1))
    assert (right - wrong).abs().max() > 1e-6


@pytest.mark.parametrize("grid", ["coarse", "fine"])
def test_every_parameter_learns(grid):
    made = network(4, grid=grid).train()
    ms, pan = images(16, 16, 4)
    step = made.config.targets_per_pixel(4)
    targets = Targets(*(torch.tensor(i) for i in ([0, 0, 0], [1, 7, 15 * step], [0, 9, 3])))
    outputs = made.on_tile(ms, pan, targets, branch_targets=targets)
    assert outputs.main.shape == outputs.ms.shape == outputs.pan.shape == (3, 4)
    sum(z.square().sum() for z in outputs).backward()
    without = [name for name, p in made.trained_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad is None for p in made.prior.parameters())


def test_the_context_branch_adds_its_weighted_logits():
    made = network(2, context_branch=0.5)
    reach = made.config.reach
    ms, pan = images(5 + 2 * reach, 5 + 2 * reach)
    shared = made.share(ms, pan, border=reach)
    by_hand = made.context_branch(shared.statistics[0, :, 2, 3])
    assert_close(made(ms, pan, border=reach)[0, :, 2, 3], shared.main[0, :, 2, 3] + 0.5 * by_hand)
    assert isinstance(made.context_branch, ContextBranch)
    assert shared.statistics.shape[1] == feature_count(3, 1) == 25
    assert network(2, context_branch=0.0).context_branch is None


def test_prior_masks_weigh_features_and_add_them():
    """F' = W·F + F: without features of its own (all 0) a prior lets half more through, W = σ(0) = 1/2."""
    made = network(2, context_branch=0.0)
    without = network(2, context_branch=0.0, prior=False)
    without.load_state_dict({k: v for k, v in made.state_dict().items() if k in without.state_dict()}, strict=False)
    ms, pan = images(12, 12)
    with torch.no_grad():
        for conv in (made.prior.ms[-1].conv, made.prior.pan[-1].conv):
            conv.weight.zero_()
        made.prior.mean.zero_()
        for norm in (made.prior.ms[-1].norm, made.prior.pan[-1].norm):
            norm.bias.zero_(), norm.running_mean.zero_()
    # the first units of the levels are linear in their input up to BatchNorm's shift, so scale their weights instead
    without.levels.down[0][0].conv.weight.data *= 1.5
    assert_close(made(ms, pan), without(ms, pan))


def test_branches_read_the_depths_at_their_own_pixel():
    """A change outside what a DTM branch can see of a pixel leaves its logits, one inside does not."""
    made = network(2, widths=(8,), attention="none", prior=False)
    ms, pan = images(33, 33)
    at = Targets(torch.tensor([0]), torch.tensor([16]), torch.tensor([16]))

    def branches(ms):
        return made.classify_branches(made.share(ms, pan, border=0), at)

    far, near = ms.clone(), ms.clone()
    far[..., 27, 16] += 1
    near[..., 16, 15] += 1
    for before, after_far, after_near in zip(branches(ms), branches(far), branches(near), strict=True):
        assert_close(after_far, before)
        assert not torch.allclose(after_near, before)


def test_tokens_have_their_names():
    made = network(4)
    assert made.token_names("ms") == ["ms 1", "ms 2", "attended", "level 1", "level 2", "level 3", "prior"]
    assert made.token_names("pan")[:4] == ["pan 1", "pan 2", "pan 3", "attended"]
    for sensor in ("ms", "pan"):
        assert len(made.dtm[sensor].tokens) + 1 == len(made.token_names(sensor))


@pytest.mark.parametrize(("only", "other"), [("ms", 1), ("pan", 0)])
def test_a_sensor_that_is_left_out_does_not_count(only, other):
    made = network(2, sensors=only)
    reach = made.config.reach
    pair = list(images(3 + 2 * reach, 3 + 2 * reach))
    before = made(*pair, border=reach)
    pair[other] = pair[other] + 1
    assert torch.equal(made(*pair, border=reach), before)
    pair[1 - other] = pair[1 - other] + torch.linspace(0, 3, pair[1 - other].shape[-1])
    assert not torch.allclose(made(*pair, border=reach), before)


def test_masks_are_those_of_each_pixel():
    made = network(2)
    reach = made.config.reach
    ms, pan = images(6 + 2 * reach, 4 + 2 * reach)
    masks = made.masks(ms, pan, border=reach, origin=(-reach, -reach))
    assert sorted(masks) == ["DIA mask, MS", "DIA mask, PAN", "prior mask, MS", "prior mask, PAN"]
    assert all(mask.shape == (6, 4) and mask.min() > 0 and mask.max() < 1 for mask in masks.values())
    assert network(2, attention="none", prior=False).masks(ms, pan, border=reach) == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"widths": ()}, "widths"),
        ({"widths": (8,) * 6}, "5 are the most"),
        ({"detail": 0}, "detail"),
        ({"token_dims": (0, 8)}, "token_dims"),
        ({"guard": -1}, "guard"),
        ({"dropout": 1.0}, "dropout"),
        ({"context_branch": 1.5}, "context_branch"),
        ({"attention": "cbam"}, "attention"),
    ],
)
def test_refusals_name_the_setting(changes, says):
    with pytest.raises(ValueError, match=says):
        TileArchitecture(**changes)


def test_differences_are_named():
    mine, theirs = TileArchitecture(), TileArchitecture(stream=8)
    assert differences(mine, theirs) == ["stream 32 against 8"]


def test_a_branch_reads_what_stands_at_its_target():
    """Finer maps are averaged over the MS pixel, coarser ones give the cell that it lies in."""
    made = network(2, context_branch=0.0)
    ms, pan = images(16, 16)
    read: dict[str, list[torch.Tensor]] = {}
    for sensor, dtm in made.dtm.items():
        dtm.register_forward_pre_hook(lambda _, given, sensor=sensor: read.update({sensor: [*given[0], given[1]]}))
    targets = Targets(torch.tensor([0]), torch.tensor([5]), torch.tensor([14]))
    shared = made.share(ms, pan, border=0)
    made.classify_branches(shared, targets)
    for i, sensor in enumerate(("ms", "pan")):
        *tokens, prior = read[sensor]
        assert len(tokens) == len(shared.depths[i])
        for token, depth in zip(tokens, shared.depths[i], strict=True):
            finer, coarser = max(1, depth.shape[2] // 16), max(1, 16 // depth.shape[2])
            rows, cols = (slice(k // coarser * finer, (k // coarser + 1) * finer) for k in (5, 14))
            assert_close(token[0, :, 0, 0], depth[0, :, rows, cols].mean((1, 2)))
        assert_close(prior, made.prior_token[sensor](shared.prior[i][:, :, 5, 14][:, :, None, None]))
