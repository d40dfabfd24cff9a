"""The selective scan: by hand, golden values, and the fast forms against the loop that defines."""

import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from adcdnet.nn import scan, scan_form, scan_matrix, selective_scan
from adcdnet.nn.scan import chunked, operators, parallel
from conftest import DEVICES, ROOT

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("u", "delta", "A", "B", "C", "D")
FORMS = ("loop", "chunked", "parallel", "matrix")
FAST = ("chunked", "parallel")


def inputs(
    steps: int, *, b: int = 2, c: int = 5, n: int = 3, decay: float = 1.0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Random scan inputs; delta·A lies between -decay and -decay/20 a step."""
    draw = torch.Generator().manual_seed(steps)
    u, B, C = (torch.randn(b, steps, k, generator=draw, dtype=torch.float64) for k in (c, n, n))
    delta = 0.05 + 0.95 * torch.rand(b, steps, c, generator=draw, dtype=torch.float64)
    A = -decay * torch.rand(c, n, generator=draw, dtype=torch.float64)
    D = torch.randn(c, generator=draw, dtype=torch.float64)
    return [v.to(dtype) for v in (u, delta, A, B, C, D)]


def run(form: str, values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """y, and the gradients of an uneven sum of y."""
    leaves = [v.clone().requires_grad_() for v in values]
    y = selective_scan(*leaves, form=form)
    weight = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    y.backward(weight)
    return y.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("form", FORMS)
def test_scan_halves_an_impulse_each_step(form):  # by hand: 4 * 2 * 3 * 0.5, then / 2
    u, delta, C = (torch.full((1, 3, 1), v) for v in (4.0, 2.0, 0.5))
    B = torch.tensor([3.0, 0.0, 0.0]).reshape(1, 3, 1)  # the input is let in at step 0 only
    A = torch.full((1, 1), -math.log(2) / 2)  # exp(2 * A) = 1/2
    y = selective_scan(u, delta, A, B, C, torch.zeros(1), form=form)
    assert_close(y.flatten(), torch.tensor([12.0, 6.0, 3.0]))
    assert_close(selective_scan(u, delta, A, B, C, torch.ones(1), form=form), y + u)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [5, 67])
def test_scan_gives_the_golden_values_and_gradients(steps, form, device):
    golden = {
        name: torch.from_numpy(value).to(device) for name, value in np.load(GOLDEN / f"scan_l{steps}.npz").items()
    }
    leaves = [golden[name].requires_grad_() for name in NAMES]
    y = selective_scan(*leaves, form=form)
    assert_close(y, golden["y"], rtol=0, atol=1e-9)
    y.backward(golden["grad_y"])
    for name, leaf in zip(NAMES, leaves, strict=True):
        assert_close(leaf.grad, golden[f"grad.{name}"], rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("decay", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("steps", [1, 2, 31, 32, 33, 64, 200])
def test_fast_forms_agree_with_the_loop_gradients_included(steps, decay, form):
    values = inputs(steps, decay=decay)
    (y, gradients), (y_loop, gradients_loop) = run(form, values), run("loop", values)
    assert_close(y, y_loop, rtol=5e-11, atol=5e-11)
    for name, got, need in zip(NAMES, gradients, gradients_loop, strict=True):
        assert_close(got, need, rtol=5e-11, atol=5e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_a_batch_cut_into_uneven_parts_agrees_with_the_loop(monkeypatch):
    monkeypatch.setattr(chunked, "SHARED", 40)  # two samples of 15 states at once
    values = inputs(40, b=5)
    (y, gradients), (y_loop, gradients_loop) = run("chunked", values), run("loop", values)
    assert_close([y, *gradients], [y_loop, *gradients_loop], rtol=5e-11, atol=5e-11)


def test_the_batch_is_cut_for_the_caches_of_processors_alone():
    A = torch.empty(256, 16)
    assert chunked._parts(torch.empty(30, 5, 256), A) > 1
    assert chunked._parts(torch.empty(30, 5, 256, device="meta"), A) == 1


def test_chunks_side_by_side_cut_into_uneven_parts_agree_with_the_loop(monkeypatch):
    monkeypatch.setattr(parallel, "BUFFER", 3 * 32 * 15)  # three chunks of 32 steps of 15 states at once
    sizes, part = [], parallel.forward_part
    monkeypatch.setattr(parallel, "forward_part", lambda u, *rest: sizes.append(len(u)) or part(u, *rest))
    values = inputs(200)  # 14 chunks
    (y, gradients), (y_loop, gradients_loop) = run("parallel", values), run("loop", values)
    assert sizes == [3, 3, 3, 3, 2]
    assert_close([y, *gradients], [y_loop, *gradients_loop], rtol=5e-11, atol=5e-11)


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("decay", [0.01, 50.0])
def test_fast_forms_agree_with_the_loop_over_8192_steps(decay, form):
    values = inputs(8192, b=1, c=2, n=2, decay=decay)
    (y, gradients), (y_loop, gradients_loop) = run(form, values), run("loop", values)
    assert_close([y, *gradients], [y_loop, *gradients_loop], rtol=5e-11, atol=5e-11)


@pytest.mark.parametrize(("form", "limit"), [("chunked", 1e-5), ("parallel", 1e-6)])
@pytest.mark.parametrize("decay", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("steps", [7, 500, 8192])
def test_float32_stays_near_float64(steps, decay, form, limit):
    y, gradients = run(form, inputs(steps, decay=decay, dtype=torch.float32))
    y_exact, gradients_exact = run(form, inputs(steps, decay=decay))
    for got, need in zip((y, *gradients), (y_exact, *gradients_exact), strict=True):
        assert (got - need).abs().max() < limit * need.abs().max()


@pytest.mark.parametrize("form", FAST)
def test_total_forgetting_leaves_only_the_present_step(form):
    u, delta, _, B, C, D = inputs(40)
    A = torch.full((5, 3), -1e4, dtype=torch.float64)  # exp(delta A) = 0
    y, gradients = run(form, [u, delta, A, B, C, D])
    assert_close(y, (B * C).sum(-1, keepdim=True) * delta * u + D * u)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("form", FORMS)
def test_later_steps_change_nothing_before_them(form):
    u, delta, A, B, C, D = inputs(70)
    changed = [torch.cat((v[:, :50], v[:, 50:] * 0.5), dim=1) for v in (u, delta, B, C)]
    y = selective_scan(u, delta, A, B, C, D, form=form)
    y_changed = selective_scan(changed[0], changed[1], A, *changed[2:], D, form=form)
    assert_close(y[:, :50], y_changed[:, :50], rtol=0, atol=0)
    assert (y[:, 50] != y_changed[:, 50]).all()


@pytest.mark.parametrize("form", FAST)
def test_fast_forms_keep_a_small_part_of_the_states_for_the_backward_pass(form):
    values = [v.requires_grad_() for v in inputs(1024)]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        selective_scan(*values, form=form).sum()
    given = sum(v.numel() for v in values)
    assert sum(kept.values()) - given == (1024 // 32 + 1) * 2 * 5 * 3  # the state before each chunk of 32, and the last


def test_auto_takes_the_form_that_is_said(monkeypatch):
    taken = []
    loop, fast = scan._loop, operators.Scan.apply
    monkeypatch.setattr(scan, "_loop", lambda *given: taken.append("loop") or loop(*given))
    monkeypatch.setattr(operators.Scan, "apply", lambda *given: taken.append(given[-1]) or fast(*given))
    for steps in (1, 16, 17):
        selective_scan(*inputs(steps))
    assert taken == [scan_form(steps, "cpu") for steps in (1, 16, 17)] == ["loop", "loop", "chunked"]
    assert [scan_form(steps, torch.device("cuda")) for steps in (16, 17)] == ["loop", "parallel"]


class Kernels(TorchDispatchMode):
    """Notes the operations that compute or copy; each is a kernel on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not view and "empty" not in func.__name__:
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def kernels(form: str, steps: int) -> list[str]:
    """Of both passes, b 8, c 256, n 16, on the meta device: nothing is computed, and no batch is cut for caches."""
    forward, backward = operators.FORMS[form]
    with torch.device("meta"):
        u, delta, B, C = (torch.rand(8, steps, k) for k in (256, 256, 16, 16))
        A, D, h = torch.rand(256, 16), torch.rand(256), torch.rand(8, 16, 256)
    with Kernels() as counted:
        y, states = forward(u, delta, A, B, C, D, h)
        backward(y, h, u, delta, A, B, C, D, states)
    return counted.names


@pytest.mark.parametrize(("form", "steps"), [("chunked", 1024), ("parallel", 1024), ("parallel", 4096)])
def test_so_many_kernels_as_the_page_says(form, steps):
    text = (ROOT / "docs" / "concepts" / "dtm.md").read_text("utf-8")
    column = ("1,024", "4,096").index(f"{steps:,}")
    said = re.search(rf"^\| {form} \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)[1 + column]
    assert len(kernels(form, steps)) == int(said.replace(",", ""))


def test_no_operation_that_is_not_deterministic_on_a_gpu():
    assert not [name for name in kernels("parallel", 100) if name.startswith(("cumsum", "index_add", "scatter"))]


@pytest.mark.parametrize("steps", [3, 40])
def test_half_precision_keeps_its_state_in_float32(steps):
    values = inputs(steps, dtype=torch.bfloat16)
    y = selective_scan(*values)
    assert y.dtype == torch.bfloat16
    assert_close(y, selective_scan(*(v.float() for v in values)).bfloat16(), rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):  # nor does autocast round anything inside
        exact = [v.float() for v in inputs(steps)]
        under = selective_scan(*exact)
    assert_close(under, selective_scan(*exact), rtol=0, atol=0)


@pytest.mark.parametrize("form", FAST)
def test_operator_keeps_the_promises_that_compile_and_export_rely_on(form):
    given = [*inputs(33, b=1, c=2, n=2), torch.zeros(1, 2, 2, dtype=torch.float64), form]
    torch.library.opcheck(torch.ops.adcdnet_nn_scan.selective_scan.default, given)


@pytest.mark.parametrize("form", FAST)
def test_gradients_agree_with_finite_differences_and_are_not_differentiated_again(form):
    given = [v.requires_grad_() for v in (*inputs(35, b=1, c=2, n=2), torch.randn(1, 2, 2, dtype=torch.float64))]
    *sequence, state = given

    def run(*values):
        return scan.scan_with_state(*values[:-1], form=form, state=values[-1])

    assert torch.autograd.gradcheck(run, given)
    (grad,) = torch.autograd.grad(run(*sequence, state)[0].sum(), given[0], create_graph=True)
    with pytest.raises(RuntimeError, match="form='loop'"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # inside torch.compile
@pytest.mark.parametrize("form", FAST)
def test_long_scan_compiles_in_one_piece(form):
    values = inputs(40)
    compiled = torch.compile(partial(selective_scan, form=form), fullgraph=True, backend="aot_eager")
    leaves, leaves_plain = ([v.clone().requires_grad_() for v in values] for _ in range(2))
    y, y_plain = compiled(*leaves), selective_scan(*leaves_plain)
    assert_close(y, y_plain)
    y.sum().backward()
    y_plain.sum().backward()
    assert_close([v.grad for v in leaves], [v.grad for v in leaves_plain])


def test_matrix_is_lower_triangular_and_gives_the_scan():
    u, delta, A, B, C, D = inputs(7)
    matrix = scan_matrix(delta, A, B, C)  # (b, t, j, c)
    assert (matrix.permute(0, 3, 1, 2).triu(1) == 0).all()
    y = torch.einsum("btjc,bjc->btc", matrix, u) + D * u
    assert_close(y, selective_scan(u, delta, A, B, C, D), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_state_is_halved_and_handed_on(form):  # by hand: no input, exp(2 * A) = 1/2
    u, delta, C = torch.zeros(1, 3, 1), torch.full((1, 3, 1), 2.0), torch.full((1, 3, 1), 0.5)
    A, state = torch.full((1, 1), -math.log(2) / 2), torch.full((1, 1, 1), 16.0)
    y, last = scan.scan_with_state(u, delta, A, torch.ones(1, 3, 1), C, torch.zeros(1), form=form, state=state)
    assert_close(y.flatten(), torch.tensor([4.0, 2.0, 1.0]))
    assert_close(last.flatten(), torch.tensor([2.0]))


def test_matrix_stays_finite_where_the_sum_of_steps_is_large():
    """Without the clamp, what comes later would be exp(+600), times a 0 that does not save it."""
    delta, ones = torch.full((1, 3, 1), 300.0), torch.ones(1, 3, 1)
    matrix = scan_matrix(delta, torch.full((1, 1), -1.0), ones, ones)
    assert_close(matrix[0, :, :, 0], 300 * torch.eye(3))


def test_shapes_that_do_not_fit_are_named():
    u, delta, A, B, C, D = inputs(4)
    with pytest.raises(ValueError, match=r"B is \(2, 4, 2\); .* must be \(2, 4, 3\)"):
        selective_scan(u, delta, A, B[..., :2], C, D)
    with pytest.raises(ValueError, match=r"delta is \(2, 3, 5\)"):
        selective_scan(u, delta[:, :3], A, B, C, D)
    with pytest.raises(ValueError, match="no steps"):
        selective_scan(u[:, :0], delta[:, :0], A, B[:, :0], C[:, :0], D)
    with pytest.raises(ValueError, match="'fast'"):
        selective_scan(u, delta, A, B, C, D, form="fast")
