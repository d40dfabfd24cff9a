"""The public modules at work in a copy of their folder, by Python and PyTorch alone; prints what it ran on.

    cp -r src/adcdnet/nn FOLDER/copied && cd FOLDER && python THIS_FILE

Runs from Python 3.9 and PyTorch 2.1 on. `test_portable.py` runs it with its own Python.
"""

import sys

sys.path.insert(0, ".")

import copied
import torch
from torch.testing import assert_close

torch.manual_seed(0)


def derivatives(module, *given):
    """The answer of a module, and the gradients of its square."""
    y = module(*given)
    return [y, *torch.autograd.grad(y.square().sum(), list(module.parameters()))]


x = torch.randn(2, 4, 7, 9)
dia = copied.DIA(4).double()
copied.DIA(8, 8, in_channels=8, gated=False, rectify=False)(torch.randn(1, 8, 5, 5))
y, *gradients = derivatives(dia, x.double())
assert y.shape == x.shape
assert all(g.isfinite().all() for g in gradients)
published = {"conv": dia.mask, "downavg": dia.down_avg, "downmax": dia.down_max}
published.update({"d_conv": dia.gate_avg, "d_conv1": dia.gate_max})
published = {f"{name}.{kind}": p for name, layer in published.items() for kind, p in layer.named_parameters()}
assert_close(copied.DIA.from_published(published)(x), y.float())

steps = torch.randn(3, 70, 6, dtype=torch.float64)
weights = copied.Mamba(6).double().state_dict()
expected = None
for form in ("loop", "chunked", "parallel", "matrix", "auto"):
    mamba = copied.Mamba(6, form=form).double()
    mamba.load_state_dict(weights)
    found = derivatives(mamba, steps)
    expected = expected or found
    assert_close(found, expected, rtol=1e-9, atol=1e-10)
    first, state = mamba(steps[:, :20], return_state=True)
    assert_close(torch.cat((first, mamba(steps[:, 20:], state)), 1), expected[0])
both = copied.BiMamba(6).double()
mask = torch.rand(3, 70) < 0.7
mask[:, 0] = True
assert_close(both(steps, mask=mask)[1, mask[1]], both(steps[1:2, mask[1]])[0])
assert_close(both.packed(steps[0], torch.tensor([30, 40]))[30:], both(steps[:1, 30:])[0])

depths = (4, copied.MapDepth(4, (7, 9)), copied.SequenceDepth(6))
head = copied.DeepTemporalMamba(depths, d_model=12, num_classes=3, prior="last").double()
given = [x.double(), x.double(), steps[:2]], torch.randn(2, 12, dtype=torch.float64)
why = head.explain(*given)
assert_close(why.logits, head(*given))
assert all(g.isfinite().all() for g in derivatives(head, *given))

assert not any(name.split(".")[0] == "adcdnet" for name in sys.modules)
print(f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}: passed")
