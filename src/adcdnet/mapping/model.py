"""A trained model as one safetensors file: weights, and as JSON in its metadata all that prediction needs.

The file is data: nothing in it is executed, and it does without the run folder it came from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from adcdnet.config import AnswerConfig
from adcdnet.errors import InputError, one_line
from adcdnet.files import MODEL_FILE, MODEL_KEY, digest_of_header, require_plain, write_whole
from adcdnet.geo.band_statistics import BandStatistics
from adcdnet.geo.classes import ClassTable
from adcdnet.mapping.applicability import Applicability
from adcdnet.mapping.members import Classifier, Member, feature_count_of
from adcdnet.mapping.record import RunRecord
from adcdnet.mapping.trees import Trees
from adcdnet.nn.architecture import Architecture, Layout
from adcdnet.nn.context import CONTEXT_REACH, ContextBranch
from adcdnet.nn.networks import Network, network_of
from adcdnet.nn.parts import PUBLISHED

FORMAT = 10
MOST_MEMBERS = 256
_AREA = "applicability"  # before the names of its arrays
_ARCHITECTURE: TypeAdapter[Architecture] = TypeAdapter(Annotated[Architecture, Field(discriminator="form")])
_LAYOUT = TypeAdapter(Layout)


@dataclass
class Model:
    """Classifiers that answer together, with what they were trained on.

    members: at least one. statistics: of the bands of all ground that trained. answers: what is done with the answers
    before they make a map. label_shares: π, the class shares of the training labels. record: how it was trained, for
    people and reports. temperature: see `posterior`. phase: of the scenes it was trained on, see `grid`; others are not
    for it. applicability: tells ground that is unlike all that was labelled; None where nothing was held out.
    """

    members: tuple[Member, ...]
    layout: Layout
    statistics: BandStatistics
    classes: ClassTable
    label_shares: tuple[float, ...]
    record: RunRecord = field(default_factory=RunRecord)
    temperature: float = 1.0
    answers: AnswerConfig = field(default_factory=AnswerConfig)
    phase: tuple[float, float] = (0.0, 0.0)
    applicability: Applicability | None = None

    @classmethod
    def of_network(
        cls,
        network: Network,
        statistics: BandStatistics,
        classes: ClassTable,
        label_shares: tuple[float, ...],
        drawn_shares: tuple[float, ...],
        **more: Any,
    ) -> Model:
        """Of a single member. more: record, temperature, answers and phase, as of the class."""
        member = Member(
            name="adcdnet",
            classifier=network,
            statistics=statistics,
            drawn_shares=drawn_shares,
            sensors=network.config.sensors,
        )
        return cls((member,), network.layout, statistics, classes, label_shares, **more)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those among the members."""
        return tuple(member.network for member in self.members if member.network is not None)

    @property
    def first_network(self) -> Member:
        """The first member that is one. InputError where all are trees and perceptrons."""
        for member in self.members:
            if member.network is not None:
                return member
        names = ", ".join(dict.fromkeys(member.name for member in self.members))
        raise InputError(f"a network is needed, this model has {names}; train one with adcdnet among its --members")

    @property
    def network(self) -> Network:
        """That of `first_network`."""
        network = self.first_network.network
        assert network is not None
        return network

    def of_first_network(self) -> Model:
        """The same with that member alone."""
        return replace(self, members=(replace(self.first_network, weight=1.0),))

    @property
    def grid(self) -> Literal["coarse", "fine"]:
        """That of its answers: of MS, or of PAN."""
        return self.networks[0].config.grid if self.networks else "coarse"

    @property
    def step(self) -> int:
        """Its answers per MS pixel and axis."""
        return self.layout.ratio if self.grid == "fine" else 1

    @property
    def repeat_edge(self) -> bool:
        """How images go on beyond the edge of their scene: see `Scene.read`."""
        return bool(self.networks and self.networks[0].config.repeat_edge)

    @property
    def border(self) -> int:
        """MS pixels that its members see on every side of a target."""
        return max(member.reach for member in self.members)

    @property
    def reach(self) -> int:
        """How far an answer depends on pixels, in MS pixels: what members see, of neighbours that count too."""
        return self.border + self.answers.margin

    @property
    def guard(self) -> int:
        """MS pixels between training and test ground, as `TrainConfig.guard`."""
        return max([CONTEXT_REACH, *(network.config.guard for network in self.networks)]) + self.answers.margin

    def save(self, path: Path) -> None:
        """Written beside the target and moved into place. InputError where that fails."""
        if any(network.parts != PUBLISHED for network in self.networks):
            raise ValueError("a network with exchanged parts serves comparisons; a model file could not rebuild it")
        arrays = self._arrays()
        header = self._header(arrays) | {"record": self.record.to_dict()}
        write_whole(path, save(arrays, {MODEL_KEY: json.dumps(header, ensure_ascii=False)}))

    @property
    def digest(self) -> str:
        """What tells it from others, however it is called: see `files.digest_of_header`. Maps carry it."""
        return digest_of_header(self._header(self._arrays()))

    def _arrays(self) -> dict[str, Tensor]:
        """What is kept of all members as tensors, by number and name."""
        arrays: dict[str, Tensor] = {}
        for number, member in enumerate(self.members):
            arrays |= {f"{number}.{name}": value for name, value in arrays_of(member.classifier).items()}
        if self.applicability is not None:
            own = self.applicability.arrays().items()
            arrays |= {f"{_AREA}.{name}": torch.from_numpy(np.ascontiguousarray(value)) for name, value in own}
        return arrays

    def _header(self, arrays: Mapping[str, Tensor]) -> dict[str, Any]:
        """What is kept as text, but for the record."""
        return {
            "format": FORMAT,
            "members": [header_of(member) for member in self.members],
            "answers": self.answers.model_dump(),
            "layout": asdict(self.layout),
            "statistics": asdict(self.statistics),
            "classes": {name: values for name, values in asdict(self.classes).items() if values},
            "label_shares": self.label_shares,
            "temperature": self.temperature,
            "weights_sha256": digest_of(arrays),
            **({"phase": self.phase} if any(self.phase) else {}),
        }

    @classmethod
    def load(cls, path: Path) -> Model:
        """From a model file or a run folder that holds one. InputError for anything else, and for a damaged one."""
        file = path / MODEL_FILE if path.is_dir() else path
        if not file.exists():
            raise InputError(f"{file} does not exist; name a model file or the folder that `adcdnet train` wrote")
        require_plain(file)
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
            arrays = load(file.read_bytes())  # get_tensor of `opened` keeps some memory for good, at each call
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} is not a model file, or is damaged ({error}); train again or copy it again"
            ) from error
        if MODEL_KEY not in metadata:
            raise InputError(f"{file} was not written by adcdnet; name a model.safetensors that `adcdnet train` wrote")
        try:
            header = json.loads(metadata[MODEL_KEY])
            if header["format"] == FORMAT:
                return cls._rebuild(header, arrays)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError, OverflowError) as error:
            raise InputError(f"{file} is damaged: {_reason(error)}; train again or copy it again") from error
        raise InputError(
            f"{file} has model format {header['format']}, this version reads {FORMAT}; "
            "use the version of adcdnet that wrote it, or train again"
        )

    @classmethod
    def _rebuild(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> Model:
        """ValueError and its like where something is not as a training leaves it."""
        layout = _LAYOUT.validate_python(header["layout"])
        if not 0 < len(header["members"]) <= MOST_MEMBERS:
            raise ValueError(f"it has {len(header['members'])} members, need 1 to {MOST_MEMBERS}")
        own: dict[str, dict[str, Tensor]] = {str(number): {} for number in range(len(header["members"]))}
        own[_AREA] = {}
        for name, value in arrays.items():
            number, _, inner = name.partition(".")
            own[number][inner] = value
        area = own.pop(_AREA)
        members = tuple(member_of(*each, layout) for each in zip(header["members"], own.values(), strict=True))
        if header["weights_sha256"] != digest_of(arrays):
            raise ValueError("its weights are not those that were saved (their checksum differs)")
        statistics = _statistics_of(header, layout)
        classes = ClassTable(**{name: tuple(values) for name, values in header["classes"].items()})
        if len(classes) != layout.classes:
            raise ValueError(f"the class table has {len(classes)} classes, the network {layout.classes}")
        phase = tuple(header.get("phase", (0.0, 0.0)))
        _check_numbers("phase", phase, 2)
        _check_numbers("label_shares", header["label_shares"], layout.classes, positive=True)
        _check_numbers("temperature", (header["temperature"],), 1, positive=True)
        if not any(member.weight for member in members):
            raise ValueError("the weights of all members are 0")
        model = cls(
            members,
            layout,
            statistics,
            classes,
            tuple(header["label_shares"]),
            RunRecord.from_dict(header["record"]),
            float(header["temperature"]),
            AnswerConfig.model_validate(header["answers"]),
            (float(phase[0]), float(phase[1])),
            _area_of(area, layout) if area else None,
        )
        grids = {(n.config.grid, n.config.repeat_edge) for n in model.networks}
        if len(grids) > 1 or (model.grid == "fine" and len(model.networks) < len(members)):
            raise ValueError("its members answer on different grids")
        return model


def arrays_of(classifier: Classifier) -> dict[str, Tensor]:
    """What is kept of a classifier as tensors, by name."""
    if isinstance(classifier, Trees):
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in classifier.arrays().items()}
    return {name: value.cpu().contiguous() for name, value in classifier.state_dict().items()}


def header_of(member: Member) -> dict[str, Any]:
    """What is kept of a member as text."""
    network = member.network
    kind = "network" if network is not None else "perceptron"
    return {
        "name": member.name,
        "kind": member.classifier.kind if isinstance(member.classifier, Trees) else kind,
        "weight": member.weight,
        "sensors": member.sensors,
        "statistics": asdict(member.statistics),
        "drawn_shares": member.drawn_shares,
        **({} if network is None else {"network": asdict(network.config)}),
    }


def member_of(header: dict[str, Any], arrays: dict[str, Tensor], layout: Layout) -> Member:
    """Of what `header_of` and `arrays_of` gave. ValueError and its like where that is not as a training leaves it."""
    kind, sensors = header["kind"], header["sensors"]
    _check_numbers("drawn_shares", header["drawn_shares"], layout.classes, positive=True)
    _check_numbers("weight", (header["weight"],), 1)
    if header["weight"] < 0:
        raise ValueError(f"a member weighs {header['weight']}; 0 or more is needed")
    classifier: Classifier
    if kind in ("network", "perceptron"):
        # shapes first: a few bytes of settings can ask for any amount of memory
        with torch.device("meta"):
            if kind == "network":
                classifier = network_of(_ARCHITECTURE.validate_python(header["network"]), layout)
            else:
                inputs = feature_count_of(sensors, layout.ms_bands, layout.pan_bands)
                classifier = ContextBranch(inputs, layout.classes)
        _check_weights(classifier.state_dict(), arrays)
        classifier.load_state_dict(arrays, assign=True)
        classifier.eval()
    else:
        inputs = feature_count_of(sensors, layout.ms_bands, layout.pan_bands)
        as_numpy = {name: array.numpy() for name, array in arrays.items()}
        classifier = Trees.checked(kind, inputs, layout.classes, as_numpy)
    return Member(
        name=str(header["name"]),
        classifier=classifier,
        statistics=_statistics_of(header, layout),
        drawn_shares=tuple(header["drawn_shares"]),
        weight=float(header["weight"]),
        sensors=sensors,
    )


def _area_of(arrays: dict[str, Tensor], layout: Layout) -> Applicability:
    """ValueError where it is not as a training leaves it."""
    area = Applicability.of_arrays({name: array.numpy() for name, array in arrays.items()})
    wanted = feature_count_of("both", layout.ms_bands, layout.pan_bands)
    if len(area.scale) != wanted:
        raise ValueError(f"its area of applicability is of {len(area.scale)} statistics, these bands have {wanted}")
    return area


def _statistics_of(header: dict[str, Any], layout: Layout) -> BandStatistics:
    """ValueError where they are not those of so many bands."""
    statistics = BandStatistics(**{name: tuple(values) for name, values in header["statistics"].items()})
    for name, values in asdict(statistics).items():
        bands = layout.ms_bands if name.startswith("ms") else layout.pan_bands
        _check_numbers(name, values, bands, positive=name.endswith("deviation"))
    return statistics


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
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


def _check_numbers(name: str, values: Sequence[float], count: int, *, positive: bool = False) -> None:
    """ValueError where a number is not finite or out of its range, or there are too few or too many."""
    if len(values) != count:
        raise ValueError(f"{name} holds {len(values)} numbers, {count} are needed")
    wrong = [v for v in values if not math.isfinite(v) or (positive and v <= 0)]
    if wrong:
        raise ValueError(f"{name} holds {wrong[0]}; a finite number{' above 0' if positive else ''} is needed")


def _reason(error: Exception) -> str:
    """What is wrong with a header, in one line. PyTorch names the tensors in the last of several."""
    if isinstance(error, ValidationError):
        return one_line(error)
    return f"no {error} in it" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()


def split_name(scene: str = "") -> str:
    """The file in a run's folder with the parts of a scene; scene: its name in a run of several."""
    return f"split-{scene}.tif" if scene else "split.tif"


def folds_name(scene: str = "") -> str:
    """The file with the fold in which each pixel of a scene was tested."""
    return f"folds-{scene}.tif" if scene else "folds.tif"


def held_out_name(scene: str = "", *, soft: bool = False) -> str:
    """The map of a scene's labelled ground by members that did not train there; soft: its probabilities."""
    return f"held-out{'-probabilities' if soft else ''}{f'-{scene}' if scene else ''}.tif"


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
        seen, where = record.validation, "validation"
        if record.cross_validation is not None:
            seen, where = record.cross_validation, f"{record.folds} folds"
        scores = {name: (seen or {}).get(name) for name in ("oa", "kappa")}
        facts |= {f"{where} {name}": f"{value:.3f}" for name, value in scores.items() if value is not None}
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(fact))}</td></tr>" for name, fact in facts.items())
        return f"<table><caption>run {escape(str(self.folder))}</caption>{rows}</table>"
