"""Every setting of a run, in frozen records that are validated once; and the profiles they begin with.

A run's folder keeps the resolved settings as config.toml, which can be edited and handed to `adcdnet train --config`.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adcdnet.errors import InputError, one_line
from adcdnet.files import read_text_file
from adcdnet.nn.architecture import Architecture, TileArchitecture

Profile = Literal["default", "plain", "patch", "paper", "paper-code"]
MemberName = Literal["adcdnet", "plain", "forest", "boosting", "perceptron"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnswerConfig(_Settings):
    """What is done with the answers of a network before they make a map."""

    smooth: float = Field(2.0, ge=0, le=4)  # deviation, in targets, of the Gaussian that averages neighbours' logits
    likeness: float = Field(0.2, ge=0)  # of the one that weighs how unlike they look, in training deviations; 0: not
    local_priors: float = Field(0.0, ge=0, le=1)  # weight of how often classes seem to lie around a pixel; 0: none

    @property
    def margin(self) -> int:
        """MS pixels around a window whose logits are needed as well: those of the neighbours that are averaged."""
        return ceil(self.smooth)


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
    """Blocks or polygons, each wholly in one part, with a guard band between the parts.

    Or single pixels at random without a guard, as in many papers: to compare with those, not to be believed.
    """

    unit: Literal["blocks", "polygons", "random"] = "blocks"  # what stays in one part
    block: int | None = Field(None, ge=1)  # MS pixels per side; None: chosen from the scene
    folds: int = Field(5, ge=1, le=20)  # each tests once, the others train; 1: a single split, by the shares below
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
    members: tuple[MemberName, ...] = Field(("plain", "boosting", "perceptron"), min_length=1)
    local_priors_tried: tuple[float, ...] = (0.0, 0.75)  # weights that several folds choose among; (): none
    network: Annotated[Architecture, Field(discriminator="form")] = TileArchitecture()
    answers: AnswerConfig = AnswerConfig()
    split: SplitConfig = SplitConfig()
    stage1: StageConfig = StageConfig(steps=100, learning_rate=1e-3, targets=128)
    stage2: StageConfig = StageConfig(steps=1200, learning_rate=2e-3, weight_decay=0.1, tile=32, targets=8192)
    passes: float = Field(60.0, ge=0)  # stage II ends when it has seen each label so often on average; 0: only by steps
    initialisation: Literal["pytorch", "xavier"] = "pytorch"  # xavier: Xavier-uniform on Conv2d and Linear
    sampling: Literal["auto", "dense", "patch"] = "auto"  # auto: tiles where labels lie close and are not few
    stage1_labelled: bool = False  # stage I draws labelled pixels only; where it draws patches
    spread: float = Field(10.0, ge=0)  # weight of the variance-covariance term of stage I; 0: as published
    branch_targets: int = Field(32, ge=1)  # of the targets of a step, those that the DTM heads classify too
    branch_weight: float = Field(0.2, ge=0)  # λ of L = L_main + λ (L_ms + L_pan)
    class_balance: float = Field(0.25, ge=0, le=1)  # classes weigh in as (frequency)^-class_balance
    anchors: float = Field(0.5, ge=0, le=1)  # tiles are laid around labels of a class as (frequency)^(1 - anchors)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0, le=1)  # of the steps of stage II, the share that mixes samples; the first ones do
    tiles_from: int = Field(4, ge=1)  # ratio below which a network over tiles gives way to one over patches
    plain_if_few: bool = True  # fewer than 5,000 labels: over patches, without prior, DIA and DTM
    self_training: float = Field(0.75, ge=0, lt=1)  # few, even labels: of a step of a second round, what has none
    average: float = Field(0.99, ge=0, lt=1)  # decay of the moving average of the weights; 0: none
    augment: bool = True  # flips and quarter turns
    jitter: float = Field(0.1, ge=0, le=1)  # deviation of gains and offsets by which samples differ in light
    validations: int = Field(10, ge=1)  # how often the validation part is looked at
    precision: Literal["float32", "bf16"] = "float32"

    @classmethod
    def of_profile(cls, profile: Profile) -> TrainConfig:
        """`default`: ADCD-Net over whole tiles, with every departure that helps. `plain`: without prior, DIA and DTM.

        `patch`: over patches of 9 MS pixels. `paper`: as the article says, `paper-code`: as its authors' code does;
        both at ratio 4 only, and protocol and split are always ours.
        """
        return cls(profile=profile).replace(_departures(profile))

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """From TOML; settings that are not named keep the profile's value. Raises InputError."""
        try:
            given = tomllib.loads(read_text_file(path).decode())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
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
            hint = "; networks over patches have profile = 'patch'" if "network.tile." in str(error) else ""
            raise InputError(f"settings: {one_line(error)}{hint}") from error

    @property
    def whole(self) -> bool:
        """Whether the parts of the paper are all there, as in `default`."""
        full = TileArchitecture()
        return all(getattr(self.network, part) == getattr(full, part) for part in ("attention", "dtm", "prior"))

    @property
    def plain(self) -> bool:
        """Whether none of the paper's parts is there."""
        return self.without_parts().network == self.network

    @property
    def reach(self) -> int:
        """How far an answer depends on pixels, in MS pixels: what the network sees of the target and of the neighbours
        it is averaged with."""
        return self.network.reach + self.answers.margin

    @property
    def guard(self) -> int:
        """MS pixels between the parts of a split. A network over patches sees no further; to one over tiles what lies
        beyond hardly counts (`adcdnet.training.stages.radius`)."""
        return self.network.guard + self.answers.margin

    def over_patches(self) -> TrainConfig:
        """The same over patches: what remains of settings over tiles is their parts, grid and sensors."""
        if self.network.form == "patch":
            return self
        patches = _departures("patch") | {"members": self.members}
        kept = ("grid", "sensors", "attention", "dtm", "prior")
        patches["network"] |= {name: getattr(self.network, name) for name in kept}
        return self.replace(patches)

    def without_parts(self) -> TrainConfig:
        """The same without prior, DIA and DTM."""
        return self.replace(_departures("plain"))

    def for_few_labels(self) -> TrainConfig:
        """What becomes of these settings where labels are few: a network over patches, without prior, DIA and DTM."""
        return self.over_patches().without_parts()

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def _departures(profile: Profile) -> dict[str, Any]:
    """What a profile changes of the default settings: its TOML file beside this one; nothing for `default`."""
    if profile == "default":
        return {}
    own = tomllib.loads((resources.files("adcdnet.config") / f"{profile}.toml").read_text("utf-8"))
    base = own.pop("base", "default")  # another profile, of which it changes the rest
    return _merge(_departures(base), own)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(inner, dict) and isinstance(value, dict) and value.get("form") in (None, inner.get("form")):
            merged[key] = _merge(inner, value)
        else:  # another form of network has settings of its own
            merged[key] = value
    return merged
