"""What a model file says of its training, for people and reports; nothing of it is needed to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from adcdnet.files import as_json


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """How a model was trained. Figures are None where there are none.

    name: of the run. scene: of the scene, or of all, separated by commas. settings: as in config.toml.
    chosen_bands: those asked for, of "ms" and "pan". pan_shift: rows and columns that PAN was moved by.
    folds: that tested in turn; 1: a single split. members: weight of each, and OA, AA and kappa of it alone at tau 1.
    local_priors: their weight, where folds chose it. labelled_pixels: by part of the split, or by fold.
    cross_validation: scores of all folds at tau 1; validation: of the validation part of a single split.
    block: side in MS pixels. guard: MS pixels between training and test ground. leakage: shares of the test pixels.
    applicability: accuracy inside and outside the area of applicability, and how the expected error agrees with the
    share that is wrong, as `training.applicability.judged_by_folds` says.
    effective_rank: of stage I's features. effective_radius: see `training.stages.radius`, in MS pixels.
    scenes: of each of several, labelled_pixels, block, part and pan_shift.
    """

    name: str = ""
    scene: str = ""
    version: str = ""
    torch: str = ""
    python: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    ms_bands: tuple[str | None, ...] = ()
    pan_bands: tuple[str | None, ...] = ()
    chosen_bands: Mapping[str, list[str]] = field(default_factory=dict)
    pan_shift: tuple[int, int] = (0, 0)
    folds: int = 1
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    local_priors: float | None = None
    labelled_pixels: Mapping[str, int] = field(default_factory=dict)
    block: int | None = None
    guard: int | None = None
    leakage: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sampling: str = ""
    labels_per_tile: float | None = None
    steps: int | None = None
    effective_rank: float | None = None
    effective_radius: int | None = None
    validation: Mapping[str, Any] | None = None
    cross_validation: Mapping[str, Any] | None = None
    calibration: Mapping[str, float] | None = None
    applicability: Mapping[str, Any] | None = None
    self_trained: int | None = None
    scenes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what there is none of is left out."""
        plain = asdict(self)
        missing = {f.name for f in fields(self) if f.default is None and plain[f.name] is None}
        missing |= set() if self.scenes else {"scenes"}
        return {name: value for name, value in plain.items() if name not in missing}

    def to_json(self) -> bytes:
        """The content of metrics.json: all but the settings, which config.toml holds."""
        return as_json({name: value for name, value in self.to_dict().items() if name != "settings"})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RunRecord:
        """What `to_dict` gave. TypeError for a field that is not known."""
        lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
        return cls(**{**content, **lists})
