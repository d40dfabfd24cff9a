"""What a network over whole tiles is built from. Plain values, no PyTorch.

r ratio | level k the k-th map of encoder and decoder, 2^(k−1) MS pixels a cell, k = 1 ... n

A tile is any window of MS pixels with its PAN pixels. The network answers all of its targets at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Union

from .architecture import PatchArchitecture

_ATTENTION_REACH = 6  # MS pixels: three 3 × 3 convolutions, two of them on maps of half the size


@dataclass(frozen=True, kw_only=True)
class TileArchitecture:
    """Shape of both networks; all that is needed, with a `Layout`, to build them again. ValueError for what cannot be.

    reach: how far the network sees from a target, to every side, in MS pixels. Windows are read with so much around
    them, so that no answer depends on where a window ends. Most of what it sees that far away hardly counts: `guard`.
    """

    form: Literal["tile"] = "tile"  # all targets of a tile are classified together
    detail: int = 16  # channels of PAN at its own resolution
    stream: int = 32  # channels of each sensor on the MS grid
    widths: tuple[int, ...] = (64, 96, 128)  # channels of the levels
    grid: Literal["coarse", "fine"] = "coarse"  # of the targets and the map: that of MS, or of PAN
    dropout: float = 0.3  # of the heads
    sensors: Literal["both", "ms", "pan"] = "both"  # "ms" or "pan": the other one is replaced by zeros
    attention: Literal["dia", "none"] = "dia"  # on the last depth of both sensors, in both stages
    dtm: bool = True
    token_dims: tuple[int, int] = (64, 64)  # d of the DTM branches, MS and PAN
    hidden: int = 64  # width of the DTM outputs
    prior: bool = True  # stage I serves stage II
    prior_mask: Literal["standardised", "raw"] = "standardised"
    context_branch: float = 0.5  # weight of that branch's logits; 0: there is none
    guard: int = 8  # MS pixels between training and test ground
    border: int = 0  # MS pixels that a tile of training carries around its targets

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # for settings files, which pydantic reads

    def __post_init__(self) -> None:
        numbers = {"detail": self.detail, "stream": self.stream, "hidden": self.hidden}
        numbers |= {f"widths {self.widths}": min(self.widths, default=0)}
        numbers |= {f"token_dims {self.token_dims}": min(self.token_dims)}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if len(self.widths) > 5:
            raise ValueError(f"widths {self.widths} are {len(self.widths)} levels; 5 are the most")
        if min(self.guard, self.border) < 0:
            raise ValueError(f"guard {self.guard} and border {self.border}: neither can be below 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if not 0 <= self.context_branch <= 1:
            raise ValueError(f"context_branch is {self.context_branch}; it must be at least 0, at most 1")
        if self.attention not in ("dia", "none"):
            raise ValueError(f"attention is {self.attention!r}; it must be 'dia' or 'none'")

    @property
    def levels(self) -> int:
        return len(self.widths)

    @property
    def lattice(self) -> int:
        """MS pixels that cells of the coarsest map lie apart: tiles are laid out so that these fall on one grid, which
        begins where the scene does."""
        return max(2 if self.attention == "dia" else 1, 1 << (self.levels - 1))

    @property
    def reach(self) -> int:
        streams = 2 + (_ATTENTION_REACH if self.attention == "dia" else 0)
        # down: a kernel of 4 cells of the level above, then 3 × 3; up: bilinear, then two of 3 × 3
        down = 2 + sum((1 << (k - 1)) + (1 << k) for k in range(1, self.levels))
        up = sum((1 << k) + 2 * (1 << (k - 1)) for k in range(1, self.levels))
        context = 4 if self.context_branch else 0
        return max(streams + down + up + self.lattice - 1 + 2 * (self.grid == "fine"), context)

    @property
    def sharable(self) -> bool:
        """A tile is classified at once."""
        return True

    @property
    def repeat_edge(self) -> bool:
        """Images are mirrored at their borders with the outermost pixel twice, which keeps PAN on MS."""
        return True

    @property
    def turns(self) -> bool:
        """Whether a sample may be turned."""
        return True

    def targets_per_pixel(self, ratio: int) -> int:
        """Targets per MS pixel and axis: 1, or `ratio` where they are PAN pixels."""
        return ratio if self.grid == "fine" else 1


Architecture = Union[PatchArchitecture, TileArchitecture]  # noqa: UP007


def differences(mine: Architecture, theirs: Architecture) -> list[str]:
    """'name mine against theirs' for every setting that differs."""
    if mine.form != theirs.form:
        return [f"form {mine.form} against {theirs.form}"]
    pairs = ((f.name, getattr(mine, f.name), getattr(theirs, f.name)) for f in fields(mine))
    return [f"{name} {own} against {other}" for name, own, other in pairs if own != other]
