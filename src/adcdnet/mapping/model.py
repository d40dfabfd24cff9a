"""A trained model as one safetensors file: weights, and as JSON in its metadata all that prediction needs.

The file is data: nothing in it is executed, and it does without the run folder it came from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adcdnet.config import AnswerConfig
from adcdnet.errors import InputError, one_line
from adcdnet.files import write_whole
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.mapping.record import RunRecord
from adcdnet.nn.architecture import Architecture, Layout
from adcdnet.nn.networks import Network, network_of
from adcdnet.nn.parts import PUBLISHED

FORMAT = 8
_KEY = "adcdnet"
_ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Annotated[Architecture, Field(discriminator="form")])
_LAYOUT = TypeAdapter(Layout)


@dataclass
class Model:
    """A network with what it was trained on. `network` is in eval mode.

    answers: what is done with its answers before they make a map.
    label_shares: π, the class shares of the training labels. drawn_shares: ρ, the shares in which training met them.
    record: how it was trained, for people and reports. temperature: see `posterior`.
    phase: of the scenes it was trained on, see `grid`; others are not for it.
    """

    network: Network
    statistics: BandStatistics
    classes: ClassTable
    label_shares: tuple[float, ...]
    drawn_shares: tuple[float, ...]
    record: RunRecord = field(default_factory=RunRecord)
    temperature: float = 1.0
    answers: AnswerConfig = field(default_factory=AnswerConfig)
    phase: tuple[float, float] = (0.0, 0.0)

    @property
    def reach(self) -> int:
        """How far an answer depends on pixels, in MS pixels: what the network sees, of neighbours that count too."""
        return self.network.config.reach + self.answers.margin

    @property
    def guard(self) -> int:
        """MS pixels between training and test ground, as `TrainConfig.guard`."""
        return self.network.config.guard + self.answers.margin

    def save(self, path: Path) -> None:
        """Written beside the target and moved into place. InputError where that fails."""
        if self.network.parts != PUBLISHED:
            raise ValueError("a network with exchanged parts serves comparisons; a model file could not rebuild it")
        weights = {name: value.contiguous() for name, value in self.network.cpu().state_dict().items()}
        header = {
            "format": FORMAT,
            "network": asdict(self.network.config),
            "answers": self.answers.model_dump(),
            "layout": asdict(self.network.layout),
            "statistics": asdict(self.statistics),
            "classes": {name: values for name, values in asdict(self.classes).items() if values},
            "label_shares": self.label_shares,
            "drawn_shares": self.drawn_shares,
            "temperature": self.temperature,
            "record": self.record.to_dict(),
            "weights_sha256": _digest(weights),
            **({"phase": self.phase} if any(self.phase) else {}),
        }
        write_whole(path, save(weights, {_KEY: json.dumps(header, ensure_ascii=False)}))

    @classmethod
    def load(cls, path: Path) -> Model:
        """From a model file or a run folder that holds one. InputError for anything else, and for a damaged one."""
        file = path / "model.safetensors" if path.is_dir() else path
        if not file.exists():
            raise InputError(f"{file} does not exist; name a model file or the folder that `adcdnet train` wrote")
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
                weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} is not a model file, or is damaged ({error}); train again or copy it again"
            ) from error
        if _KEY not in metadata:
            raise InputError(f"{file} was not written by adcdnet; name a model.safetensors that `adcdnet train` wrote")
        try:
            header = json.loads(metadata[_KEY])
            if header["format"] == FORMAT:
                return cls._rebuild(header, weights)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError, OverflowError) as error:
            raise InputError(f"{file} is damaged: {_reason(error)}; train again or copy it again") from error
        raise InputError(
            f"{file} has model format {header['format']}, this version reads {FORMAT}; "
            "use the version of adcdnet that wrote it, or train again"
        )

    @classmethod
    def _rebuild(cls, header: dict[str, Any], weights: dict[str, Tensor]) -> Model:
        """ValueError and its like where something is not as a training leaves it."""
        architecture, layout = (
            _ARCHITECTURE.validate_python(header["network"]),
            _LAYOUT.validate_python(header["layout"]),
        )
        # shapes first: a few bytes of settings can ask for any amount of memory
        with torch.device("meta"):
            network = network_of(architecture, layout)
        _check_weights(network.state_dict(), weights)
        if header["weights_sha256"] != _digest(weights):
            raise ValueError("its weights are not those that were saved (their checksum differs)")
        network.load_state_dict(weights, assign=True)
        statistics = BandStatistics(**{name: tuple(values) for name, values in header["statistics"].items()})
        classes = ClassTable(**{name: tuple(values) for name, values in header["classes"].items()})
        shares = tuple(header["label_shares"]), tuple(header["drawn_shares"])
        phase = tuple(header.get("phase", (0.0, 0.0)))
        _check_values(layout, statistics, classes, shares, header["temperature"], phase)
        return cls(
            network.eval(),
            statistics,
            classes,
            *shares,
            RunRecord.from_dict(header["record"]),
            float(header["temperature"]),
            AnswerConfig.model_validate(header["answers"]),
            (float(phase[0]), float(phase[1])),
        )


def _digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_weights(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """ValueError unless names, shapes and types are those of the network, and all values are finite."""
    if odd := sorted(set(wanted) ^ set(weights)):
        raise ValueError(f"weights and settings do not belong together (for one, {odd[0]})")
    for name, value in weights.items():
        if value.shape != wanted[name].shape or value.dtype != wanted[name].dtype:
            raise ValueError(
                f"{name} is {value.dtype} {tuple(value.shape)}, its settings need {wanted[name].dtype} "
                f"{tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} holds values that are no finite numbers")


def _check_values(
    layout: Layout,
    statistics: BandStatistics,
    classes: ClassTable,
    shares: tuple[tuple[float, ...], tuple[float, ...]],
    temperature: float,
    phase: tuple[float, ...],
) -> None:
    """ValueError where a number is not finite or out of its range, or there are too few or too many."""
    ms, pan, k = layout.ms_bands, layout.pan_bands, layout.classes
    numbers: dict[str, tuple[Sequence[float], int, bool]] = {  # values, how many are needed, whether above 0
        "ms_mean": (statistics.ms_mean, ms, False),
        "ms_deviation": (statistics.ms_deviation, ms, True),
        "pan_mean": (statistics.pan_mean, pan, False),
        "pan_deviation": (statistics.pan_deviation, pan, True),
        "label_shares": (shares[0], k, True),
        "drawn_shares": (shares[1], k, True),
        "temperature": ((temperature,), 1, True),
        "phase": (phase, 2, False),
    }
    for name, (values, count, positive) in numbers.items():
        if len(values) != count:
            raise ValueError(f"{name} holds {len(values)} numbers, {count} are needed")
        wrong = [v for v in values if not math.isfinite(v) or (positive and v <= 0)]
        if wrong:
            raise ValueError(f"{name} holds {wrong[0]}; a finite number{' above 0' if positive else ''} is needed")
    if len(classes) != k:
        raise ValueError(f"the class table has {len(classes)} classes, the network {k}")


def _reason(error: Exception) -> str:
    """What is wrong with a header, in one line. PyTorch names the tensors in the last of several."""
    if isinstance(error, ValidationError):
        return one_line(error)
    return f"no {error} in it" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()


def split_name(scene: str = "") -> str:
    """The file in a run's folder with the parts of a scene; scene: its name in a run of several."""
    return f"split-{scene}.tif" if scene else "split.tif"


@dataclass
class Run:
    """What one training left: the model, and the folder with its files."""

    folder: Path
    model: Model

    def split(self, scene: str = "") -> Path:
        """The raster of the parts of its scene, or of one of several by name."""
        return self.folder / split_name(scene)

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        record = self.model.record
        facts = {"classes": ", ".join(self.model.classes.names), "scene": record.scene}
        seen = record.validation or {}
        facts |= {f"validation {name}": f"{seen[name]:.3f}" for name in ("oa", "kappa") if seen.get(name) is not None}
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(fact))}</td></tr>" for name, fact in facts.items())
        return f"<table><caption>run {escape(str(self.folder))}</caption>{rows}</table>"
