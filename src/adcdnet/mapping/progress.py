"""How long work tells how far it is: one signature for training, prediction, reports and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Progress = Callable[[str, int, int, Mapping[str, float]], None]  # what is done, steps done, of how many, its figures


def silent(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """For work that nobody watches."""
