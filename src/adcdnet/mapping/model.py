"""A trained model as one safetensors file: weights, and as JSON in its metadata all that prediction needs.

The file is data: nothing in it is executed, and it does without the run folder it came from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adcdnet.config import AnswerConfig
from adcdnet.errors import InputError, one_line
from adcdnet.files import write_whole
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.nn.adcdnet import ADCDNet
from adcdnet.nn.architecture import Architecture, Layout

FORMAT = 7
_KEY = "adcdnet"
_ARCHITECTURE = TypeAdapter(Architecture)


@dataclass
class Model:
    """A network with what it was trained on. `network` is in eval mode.

    answers: what is done with its answers before they make a map.
    label_shares: π, the class shares of the training labels. drawn_shares: ρ, the shares in which training met them.
    record: how it was trained (seed, settings, versions, scores), for people and reports. temperature: see `posterior`.
    """

    network: ADCDNet
    statistics: BandStatistics
    classes: ClassTable
    label_shares: tuple[float, ...]
    drawn_shares: tuple[float, ...]
    record: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    answers: AnswerConfig = field(default_factory=AnswerConfig)

    @property
    def reach(self) -> int:
        """How far an answer depends on pixels, in MS pixels: what the network sees, of neighbours that count too."""
        return self.network.config.reach + self.answers.margin

    def save(self, path: Path) -> None:
        """Written beside the target and moved into place. InputError where that fails."""
        header = {
            "format": FORMAT,
            "network": asdict(self.network.config),
            "answers": self.answers.model_dump(),
            "layout": asdict(self.network.layout),
            "statistics": asdict(self.statistics),
            "classes": asdict(self.classes),
            "label_shares": self.label_shares,
            "drawn_shares": self.drawn_shares,
            "temperature": self.temperature,
            "record": self.record,
        }
        weights = {name: value.contiguous() for name, value in self.network.cpu().state_dict().items()}
        write_whole(path, save(weights, {_KEY: json.dumps(header, ensure_ascii=False)}))

    @classmethod
    def load(cls, path: Path) -> Model:
        """From a model file or a run folder that holds one. InputError for anything else."""
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
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{file} is damaged: {_reason(error)}; train again or copy it again") from error
        raise InputError(
            f"{file} has model format {header['format']}, this version reads {FORMAT}; "
            "use the version of adcdnet that wrote it, or train again"
        )

    @classmethod
    def _rebuild(cls, header: dict[str, Any], weights: dict[str, Tensor]) -> Model:
        network = ADCDNet(_ARCHITECTURE.validate_python(header["network"]), Layout(**header["layout"]))
        network.load_state_dict(weights)
        return cls(
            network.eval(),
            BandStatistics(**{name: tuple(values) for name, values in header["statistics"].items()}),
            ClassTable(**{name: tuple(values) for name, values in header["classes"].items()}),
            tuple(header["label_shares"]),
            tuple(header["drawn_shares"]),
            header["record"],
            float(header["temperature"]),
            AnswerConfig.model_validate(header["answers"]),
        )


def _reason(error: Exception) -> str:
    """What is wrong with a header, in one line. PyTorch names the tensors in the last of several."""
    if isinstance(error, ValidationError):
        return one_line(error)
    return f"no {error} in it" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()


@dataclass
class Run:
    """What one training left: the model, and the folder with its files."""

    folder: Path
    model: Model

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        record = self.model.record
        facts = {"classes": ", ".join(self.model.classes.names), "scene": record.get("scene", "")}
        seen = record.get("validation", {})
        facts |= {f"validation {name}": f"{seen[name]:.3f}" for name in ("oa", "kappa") if seen.get(name) is not None}
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(fact))}</td></tr>" for name, fact in facts.items())
        return f"<table><caption>run {escape(str(self.folder))}</caption>{rows}</table>"
