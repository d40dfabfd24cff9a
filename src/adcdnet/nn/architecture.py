"""What the networks are built from: settings, and what they must know of their data. Plain values, no PyTorch.

p patch side in MS pixels | s_k stride of depth k, MS branch | r ratio
level k of a network over tiles: the k-th map of its encoder and decoder, 2^(k−1) MS pixels a cell, k = 1 ... n

A network over patches answers each target from a patch of its own. All its geometry follows from the strides of three
depths, whose kernels are 3 × 3: values of depth k lie s_1 ... s_k MS pixels apart (`apart`), and one of them sees
`radii[k]` MS pixels to every side. A network over tiles answers all targets of a window of MS pixels at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Union

STRIDES = (1, 2, 1)  # of the three depths, on the MS grid
STRIDES_WITHOUT_STEM = (2, 2, 2)  # of PAN where no stem brings it onto the MS grid: ratio 4


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a network must know of its data."""

    ms_bands: int
    pan_bands: int
    ratio: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class PatchArchitecture:
    """Shape of both networks; all that is needed, with a `Layout`, to build them again. ValueError for what cannot be.

    reach: how far the network sees from the MS pixel of its target, to every side, in MS pixels. How far an answer
    depends on pixels is more than that where the answers of neighbours are averaged: `TrainConfig.reach`.
    """

    form: Literal["patch"] = "patch"  # every target is classified from a patch of its own
    backbone: Literal["conv", "mobilenetv3"] = "conv"
    squeeze_excite: bool = False  # mobilenetv3 only; pools over the patch, so the network runs patch by patch only
    hard_swish: bool = True  # mobilenetv3 only; False: ReLU
    widths: tuple[int, int, int] = (32, 64, 64)  # channels of the three depths, both sensors
    padding: Literal["valid", "zeros"] = "valid"
    patch: int = 9  # MS pixels per side, halo not counted
    grid: Literal["coarse", "fine"] = "coarse"  # of the targets and the map: that of MS, or of PAN
    stem: bool = True  # PAN reaches the MS grid at once; False: by strides 2, 2, 2 (zeros, ratio 4 only)
    head: Literal["centre", "flatten"] = "centre"
    hidden: int = 64  # width of the classification net and of the DTM outputs
    dropout: float = 0.3
    sensors: Literal["both", "ms", "pan"] = "both"  # "ms" or "pan": the other one is replaced by zeros
    attention: Literal["dia", "none"] = "dia"  # on the last depth of both sensors, in both stages
    dtm: bool = True
    token: Literal["pool", "flatten"] = "pool"
    token_dims: tuple[int, int] = (64, 64)  # d of the DTM branches, MS and PAN
    shared_decision: bool = False  # one LayerNorm and classifier for the three heads
    prior: bool = True  # stage I serves stage II
    prior_mask: Literal["standardised", "raw"] = "standardised"
    learn_prior_token: bool = True  # False leaves it a random projection, as published
    context_branch: float = 0.3  # of head 'centre': weight of that branch's logits; 0: there is none

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # for settings files, which pydantic reads

    def __post_init__(self) -> None:
        for name, low, high in (("patch", 2, None), ("hidden", 1, None), ("dropout", 0, 1), ("context_branch", 0, 1)):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                raise ValueError(
                    f"{name} is {value}; it must be at least {low}" + (f", at most {high}" if high else "")
                )
        if min(*self.widths, *self.token_dims) < 1:
            raise ValueError(f"widths {self.widths} and token_dims {self.token_dims}: each must be at least 1")
        if self.dropout == 1:
            raise ValueError("dropout is 1, which leaves nothing; it must be below 1")
        if self.attention not in ("dia", "none"):
            raise ValueError(f"attention is {self.attention!r}; it must be 'dia' or 'none'")
        self._check_together()

    def _check_together(self) -> None:
        """ValueError where settings that are each allowed do not go together."""
        if self.padding == "valid" and self.patch % 8 != 1:
            raise ValueError(f"patch {self.patch}: a network without padding needs 9, 17, 25, ... MS pixels")
        if self.padding == "zeros" and self.patch % 2 != 0:
            raise ValueError(f"patch {self.patch}: a zero-padded network needs an even number of MS pixels")
        if self.padding == "zeros" and self.grid == "fine":
            raise ValueError("grid 'fine' needs padding 'valid', where the target is the centre of its patch")
        if self.padding == "zeros" and self.head == "centre":
            raise ValueError("head 'centre' needs padding 'valid'; choose head 'flatten' or padding 'valid'")
        if self.padding == "valid" and not self.stem:
            raise ValueError("a network without padding needs its stem; leave stem = true or choose padding 'zeros'")
        if self.squeeze_excite and self.backbone != "mobilenetv3":
            raise ValueError("squeeze_excite belongs to backbone 'mobilenetv3'")

    # Geometry of the MS branch, and of PAN behind its stem -----------------------------------------------------------

    @property
    def apart(self) -> tuple[int, int, int]:
        """MS pixels between neighbouring values of each depth."""
        first, second, third = STRIDES
        return first, first * second, first * second * third

    @property
    def radii(self) -> tuple[int, int, int]:
        """MS pixels that a value of each depth sees to every side: 3 × 3 kernels add one value of the depth before."""
        first, second, _ = self.apart
        return 1, 1 + first, 1 + first + second

    @property
    def halo(self) -> int:
        """MS pixels that a patch carries around itself: what the last depth sees, unless zeros stand for it."""
        return self.radii[-1] if self.padding == "valid" else 0

    @property
    def sides(self) -> tuple[int, int, int]:
        """Values of each depth along one side of a patch, its halo not counted."""
        odd = int(self.padding == "valid")  # then the target is the centre
        first, second, third = ((self.patch - odd) // step + odd for step in self.apart)
        return first, second, third

    @property
    def cells(self) -> int:
        """Values of the last depth along one side of a patch."""
        return self.sides[-1]

    @property
    def before(self) -> int:
        """MS pixels the network sees above (and left of) its target pixel."""
        return self.patch // 2 + self.halo if self.padding == "valid" else self.patch // 2 - 1

    @property
    def after(self) -> int:
        """MS pixels the network sees below (and right of) its target pixel."""
        return self.patch // 2 + self.halo

    @property
    def size(self) -> int:
        """MS pixels along one side of what the network sees of one target."""
        return self.before + 1 + self.after

    @property
    def reach(self) -> int:
        """8 for both profiles; one more on the fine grid, where PAN is centred on a PAN pixel."""
        return max(self.before, self.after) + (self.grid == "fine")

    @property
    def guard(self) -> int:
        """MS pixels between training and test ground: all that the network sees."""
        return self.reach

    @property
    def border(self) -> int:
        """MS pixels around the targets of a tile in training."""
        return max(self.before, self.after)

    @property
    def repeat_edge(self) -> bool:
        """How images are mirrored at their borders: with the outermost pixel twice, which keeps PAN on MS."""
        return self.padding == "valid"

    @property
    def turns(self) -> bool:
        """Whether a sample may be turned: the target is the centre of its patch."""
        return self.before == self.after

    def targets_per_pixel(self, ratio: int) -> int:
        """Targets per MS pixel and axis: 1, or `ratio` where they are PAN pixels."""
        return ratio if self.grid == "fine" else 1

    @property
    def sharable(self) -> bool:
        """Whether neighbouring patches may share their convolutions with the same result."""
        return self.padding == "valid" and not self.squeeze_excite


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
