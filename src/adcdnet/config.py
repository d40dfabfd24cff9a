"""Every setting of a run, in frozen records that are validated once; profiles `default`, `plain` and `paper`.

A run's folder keeps the resolved settings as config.toml, which can be edited and handed to `adcdnet train --config`.
"""

from __future__ import annotations

import tomllib
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adcdnet.errors import InputError

Profile = Literal["default", "plain", "paper"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkConfig(_Settings):
    """Shape of both networks; all that is needed, with band counts, ratio and classes, to build them again."""

    backbone: Literal["conv", "mobilenetv3"] = "conv"
    squeeze_excite: bool = False  # mobilenetv3 only; pools over the patch, so the network runs patch by patch only
    widths: tuple[int, int, int] = (32, 64, 64)  # channels of the three depths, both sensors
    padding: Literal["valid", "zeros"] = "valid"
    patch: int = Field(9, ge=2)  # MS pixels per side, halo not counted
    grid: Literal["coarse", "fine"] = "coarse"  # of the targets and the map: that of MS, or of PAN
    stem: bool = True  # PAN reaches the MS grid at once; False: by strides 2, 2, 2 (zeros, ratio 4 only)
    head: Literal["centre", "flatten"] = "centre"
    fusion: Literal["sum", "gate", "concat"] = "sum"  # of head 'flatten'; head 'centre' reads the sensors side by side
    hidden: int = Field(64, ge=1)  # width of the classification net and of the DTM outputs
    dropout: float = Field(0.3, ge=0, lt=1)
    sensors: Literal["both", "ms", "pan"] = "both"  # "ms" or "pan": the other one is replaced by zeros
    attention: Literal["dia", "cbam", "none"] = "dia"  # on the last depth of both sensors, in both stages
    dtm: bool = True
    reader: Literal["mamba", "gru", "attention"] = "mamba"  # of the DTM's tokens
    token: Literal["pool", "flatten"] = "pool"
    token_dims: tuple[int, int] = (64, 64)  # d of the DTM branches, MS and PAN
    shared_decision: bool = False  # one LayerNorm and classifier for the three heads
    prior: bool = True  # stage I serves stage II
    prior_mask: Literal["standardised", "raw"] = "standardised"
    learn_prior_token: bool = True  # False leaves it a random projection, as published
    context_branch: float = Field(0.3, ge=0, le=1)  # of head 'centre': weight of that branch's logits; 0: there is none
    smooth: float = Field(2.0, ge=0, le=4)  # deviation, in targets, of the Gaussian that averages neighbours' logits
    likeness: float = Field(0.2, ge=0)  # of the one that weighs how unlike they look, in training deviations; 0: not
    local_shares: float = Field(0.75, ge=0, le=1)  # weight of how often classes seem to lie around a pixel; 0: none

    @model_validator(mode="before")
    @classmethod
    def _dia_was_a_switch(cls, given: Any) -> Any:
        """Settings written before there was `attention` say dia = true or false."""
        if not isinstance(given, dict) or not isinstance(given.get("dia"), bool):
            return given
        kept = {name: value for name, value in given.items() if name != "dia"}
        return kept | {"attention": "dia" if given["dia"] else "none"}

    @model_validator(mode="after")
    def _consistent(self) -> NetworkConfig:
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
        if self.head == "centre" and self.fusion != "sum":
            raise ValueError(
                f"fusion {self.fusion!r} needs head 'flatten'; head 'centre' fuses nothing before its Linear"
            )
        if self.reader == "attention" and any(d % 2 for d in self.token_dims):
            raise ValueError(f"token_dims {self.token_dims}: reader 'attention' has two heads and needs even numbers")
        if self.squeeze_excite and self.backbone != "mobilenetv3":
            raise ValueError("squeeze_excite belongs to backbone 'mobilenetv3'")
        return self

    @property
    def before(self) -> int:
        """MS pixels the network sees above (and left of) its target pixel."""
        return self.patch // 2 + 4 if self.padding == "valid" else self.patch // 2 - 1

    @property
    def after(self) -> int:
        """MS pixels the network sees below (and right of) its target pixel."""
        return self.patch // 2 + 4 if self.padding == "valid" else self.patch // 2

    @property
    def reach(self) -> int:
        """How far from the MS pixel of its target an answer depends on pixels, in MS pixels: 10 for `default`, 8 for
        `paper`.

        One more than the network sees on the fine grid, where PAN is centred on a PAN pixel and not on an MS pixel; and
        more by the neighbours whose logits are averaged.
        """
        return max(self.before, self.after) + (self.grid == "fine") + self.margin

    @property
    def margin(self) -> int:
        """MS pixels around a window whose logits are needed as well: those of the neighbours that are averaged."""
        return ceil(self.smooth)

    def step(self, ratio: int) -> int:
        """Targets per MS pixel and axis: 1, or `ratio` where they are PAN pixels."""
        return ratio if self.grid == "fine" else 1

    @property
    def sharable(self) -> bool:
        """Whether neighbouring patches may share their convolutions with the same result."""
        return self.padding == "valid" and not self.squeeze_excite


class StageConfig(_Settings):
    """One training stage. A step draws `batch` single pixels (patch sampling) or `tiles` tiles (dense sampling).

    Of tiles stage II takes half as many steps: one of them costs more, and its targets are many.
    """

    steps: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    optimizer: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["one-cycle", "exponential"] = "one-cycle"
    batch: int = Field(64, ge=2)
    tiles: int = Field(8, ge=1)
    tile: int = Field(16, ge=1)  # target MS pixels per side of a training tile
    targets: int = Field(512, ge=2)  # pixels of the tiles of a step that count


class SplitConfig(_Settings):
    """Blocks or polygons, each wholly in one part, with a guard band of the network's reach between the parts.

    Or single pixels at random without a guard, as in many papers: to compare with those, not to be believed.
    """

    unit: Literal["blocks", "polygons", "random"] = "blocks"  # what stays in one part
    block: int | None = Field(None, ge=1)  # MS pixels per side; None: chosen from the scene
    validation: float = Field(0.15, ge=0, lt=1)
    test: float = Field(0.25, ge=0, lt=1)

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing for training")
        return self


class TrainConfig(_Settings):
    """All settings of one training."""

    profile: str = "default"  # the name of the profile these settings began with, for the record
    seed: int = Field(0, ge=0)
    network: NetworkConfig = NetworkConfig()
    split: SplitConfig = SplitConfig()
    stage1: StageConfig = StageConfig(steps=100, learning_rate=1e-3, targets=128)
    stage2: StageConfig = StageConfig(steps=1200, learning_rate=2e-3)
    passes: float = Field(60.0, ge=0)  # stage II ends when it has seen each label so often on average; 0: only by steps
    initialisation: Literal["pytorch", "xavier"] = "pytorch"  # xavier: Xavier-uniform on Conv2d and Linear
    sampling: Literal["auto", "dense", "patch"] = "auto"  # auto: tiles where labels lie close and are not few
    stage1_labelled: bool = False  # stage I draws labelled pixels only; where it draws patches
    spread: float = Field(10.0, ge=0)  # weight of the variance-covariance term of stage I; 0: as published
    branch_targets: int = Field(32, ge=1)  # of the targets of a step, those that the DTM heads classify too
    branch_weight: float = Field(0.2, ge=0)  # λ of L = L_main + λ (L_ms + L_pan)
    class_balance: float = Field(0.25, ge=0, le=1)  # classes weigh in as (frequency)^-class_balance
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    mixup: float = Field(0.6, ge=0, le=1)  # of the steps of stage II, the share that mixes samples; the first ones do
    plain_if_few: bool = True  # of fewer than some 5,000 labels prior, DIA and DTM are left out
    self_training: float = Field(0.75, ge=0, lt=1)  # few, even labels: of a step of a second round, what has none
    average: float = Field(0.99, ge=0, lt=1)  # decay of the moving average of the weights; 0: none
    augment: bool = True  # flips and quarter turns
    validations: int = Field(10, ge=1)  # how often the validation part is looked at
    precision: Literal["float32", "bf16"] = "float32"

    @classmethod
    def of_profile(cls, profile: Profile) -> TrainConfig:
        """`default`: ADCD-Net with every departure that helps. `plain`: the same without prior, DIA and DTM.

        `paper`: as published (ratio 4 only); protocol and split are always ours.
        """
        if profile == "default":
            return cls()
        if profile == "plain":
            return cls(profile="plain").plain()
        return cls(
            profile="paper",
            network=NetworkConfig(
                widths=(128, 256, 128),
                padding="zeros",
                patch=16,
                stem=False,
                head="flatten",
                dropout=0.5,
                token="flatten",
                token_dims=(256, 512),
                shared_decision=True,
                prior_mask="raw",
                learn_prior_token=False,
                context_branch=0.0,
                smooth=0.0,
                local_shares=0.0,
            ),
            # the published 5 and 20 epochs over a few thousand training pixels, batch 32
            stage1=StageConfig(
                steps=500, learning_rate=5e-4, weight_decay=5e-4, optimizer="adam", schedule="exponential", batch=32
            ),
            stage2=StageConfig(
                steps=2000, learning_rate=5e-4, weight_decay=5e-4, optimizer="adam", schedule="exponential", batch=32
            ),
            initialisation="xavier",
            sampling="patch",
            stage1_labelled=True,
            spread=0.0,
            class_balance=0.0,
            label_smoothing=0.0,
            mixup=0.0,
            plain_if_few=False,
            self_training=0.0,
            passes=0.0,
            branch_weight=0.8,
            branch_targets=32,  # all of a step
            average=0.0,
            augment=False,
        )

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """From TOML; settings that are not named keep the profile's value. Raises InputError."""
        try:
            with path.open("rb") as file:
                given = tomllib.load(file)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"settings {path} cannot be read: {error}") from error
        profile = given.get("profile", "default")
        if profile not in get_args(Profile):
            raise InputError(f"settings {path}: profile is {profile!r}, must be one of {', '.join(get_args(Profile))}")
        return cls.of_profile(profile).replace(given)

    def replace(self, changes: dict[str, Any]) -> TrainConfig:
        """A copy with some settings changed, e.g. {"seed": 1, "network": {"dia": False}}. Raises InputError."""
        try:
            return TrainConfig.model_validate(_merge(self.model_dump(), changes))
        except ValidationError as error:
            raise InputError(f"settings: {one_line(error)}") from error

    @property
    def whole(self) -> bool:
        """Whether the parts of the paper are all there, as in `default`."""
        full = NetworkConfig()
        return all(
            getattr(self.network, part) == getattr(full, part) for part in ("attention", "dtm", "prior", "reader")
        )

    def plain(self) -> TrainConfig:
        """A copy without prior (and stage I), DIA and DTM."""
        return self.replace({"network": {"attention": "none", "dtm": False, "prior": False}, "branch_weight": 0.0})

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def one_line(error: ValidationError) -> str:
    """The first complaint of a validation error: where and what."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'settings'}: {first['msg'].removeprefix('Value error, ')}"


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
