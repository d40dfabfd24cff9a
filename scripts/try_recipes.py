"""The recipes of docs/how-to/modules-in-your-network.md for other packages, run with the packages that are installed.

    python scripts/try_recipes.py

A recipe is the block of Python under the heading that names its package. Its network must hold DIA, and each parameter
of DIA must get a gradient. A package that is not installed is named and left out.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from adcdnet.nn import DIA

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "modules-in-your-network.md"


def recipes(text: str) -> dict[str, str]:
    """Package -> code."""
    return dict(re.findall(r"^### (\w+)\n.*?^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def tensors(answer: Any) -> list[Tensor]:
    """All tensors of what a network answered, in whatever it put them."""
    if isinstance(answer, Tensor):
        return [answer]
    inside = answer.values() if isinstance(answer, dict) else answer
    return [one for part in inside for one in tensors(part)]


def tried(code: str) -> str:
    """What a recipe did. ValueError where DIA is not there, or does not learn."""
    names: dict[str, Any] = {}
    exec(code, names)
    attentions = [module for module in names["network"].modules() if isinstance(module, DIA)]
    sum(y.float().square().mean() for y in tensors(names["y"])).backward()
    if not attentions or any(p.grad is None for module in attentions for p in module.parameters()):
        raise ValueError(f"{len(attentions)} DIA in the network; there must be one, and all must get gradients")
    return f"{len(attentions)} DIA, each with gradients"


def main() -> None:
    for package, code in recipes(PAGE.read_text("utf-8")).items():
        print(f"{package}: {tried(code) if find_spec(package) else 'not installed, left out'}")


if __name__ == "__main__":
    main()
