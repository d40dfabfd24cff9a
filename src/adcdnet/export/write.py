"""A model as a folder that is handed on: graph, weights, classes, settings and card, laid out as model hubs take it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch._dynamo.config as tracing
import torch.fx.experimental._config as sizes
from torch.export import Dim, ExportedProgram

from adcdnet.errors import InputError
from adcdnet.export.card import card
from adcdnet.export.graph import Graph
from adcdnet.files import MODEL_FILE, as_json, hidden_part, write_whole
from adcdnet.mapping.model import Model, Run

Format = Literal["onnx", "pt2"]
INPUTS, OUTPUT = ("ms", "pan"), "probabilities"
_KEY = "adcdnet"  # of what a graph says of itself
_MORE = 5  # MS pixels of the example tile beyond its halo: sizes that are no special case


def export_model(
    model: Model | Run | Path | str,
    out: Path | str,
    *,
    format: Format = "onnx",
    tau: float = 1.0,
    prior: Sequence[float] | None = None,
    licence: str = "unknown",
) -> list[str]:
    """Leave a model as a graph in a new folder, with its card: raw MS and PAN pixels in, probabilities out.

    `model` may be a run, its folder or a model file. tau, prior: the operating point, as of `predict`. licence: an
    identifier as model hubs have it, such as "cc-by-4.0". Returns what the graph leaves out, one sentence each.
    InputError for a folder that holds anything, a package that is missing, or what cannot be written.
    """
    if isinstance(model, Run):
        model = model.model
    elif not isinstance(model, Model):
        model = Model.load(Path(model))
    out = Path(out)
    _require_packages(format)
    _require_room(out)
    graph, left_out = Graph(model, tau=tau, prior=prior), left_out_of(model)
    facts = facts_of(model, graph, tau=tau, prior=prior, format=format)
    with _whole_folder(out) as folder:
        # a memory of steps helps where steps repeat; with sizes that are free it takes longer than they do
        with _quiet(), tracing.patch(fake_tensor_cache_enabled=False):
            program = program_of(graph, model)
            _write_graph(program, folder / f"model.{format}", format, facts)
        model.save(folder / MODEL_FILE)
        write_whole(folder / "classes.csv", model.classes.to_csv())
        write_whole(folder / "config.json", as_json(facts))
        write_whole(
            folder / "README.md", card(model, facts, left_out, licence=licence, name=out.resolve().name).encode()
        )
    return left_out


def left_out_of(model: Model) -> list[str]:
    """What `predict` may do with this model and its graph does not, one sentence each."""
    words = []
    if model.answers.local_priors:
        words.append(
            f"local class priors (weight {model.answers.local_priors:g}) are not in the graph: they need a whole scene"
        )
    silent = sorted({member.name for member in model.members if not member.weight})
    if silent:
        words.append(f"members without weight are not in the graph: {', '.join(silent)}")
    return words


def facts_of(
    model: Model, graph: Graph, *, tau: float, prior: Sequence[float] | None, format: Format
) -> dict[str, Any]:
    """What a caller of the graph must know, as config.json has it."""
    members: dict[str, float] = {}
    for member in model.members:
        if member.weight:
            members[member.name] = members.get(member.name, 0.0) + member.weight
    return {
        "model_type": "adcdnet",
        "format": format,
        "adcdnet": version("adcdnet"),
        "torch": torch.__version__,
        "model_sha256": model.digest,
        "bands": {"ms": model.layout.ms_bands, "pan": model.layout.pan_bands},
        "ratio": model.layout.ratio,
        "phase": list(model.phase),
        "halo": graph.halo,
        "lattice": graph.lattice,
        "edge": "symmetric" if model.repeat_edge else "reflect",
        "targets_per_pixel": graph.step,
        "members": members,
        "tau": tau,
        "prior": None if prior is None else list(prior),
        "temperature": model.temperature,
        "smooth": model.answers.smooth,
        "classes": {
            str(value): {"name": name, "color": color}
            for value, name, color in zip(model.classes.values, model.classes.names, model.classes.colors, strict=True)
        },
    }


def program_of(graph: Graph, model: Model) -> ExportedProgram:
    """The graph with free numbers of tiles, rows and columns."""
    layout, least = model.layout, 2 * graph.halo + 1
    tiles, height, width = Dim("tiles", min=1), Dim("height", min=least), Dim("width", min=least)
    rows, cols = least + _MORE, least + 2 * _MORE
    example = (
        torch.zeros(2, layout.ms_bands, rows, cols),
        torch.zeros(2, layout.pan_bands, rows * layout.ratio, cols * layout.ratio),
    )
    fine = (layout.ratio * height, layout.ratio * width) if layout.ratio > 1 else (height, width)
    free = {"ms": {0: tiles, 2: height, 3: width}, "pan": {0: tiles, 2: fine[0], 3: fine[1]}}
    with sizes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # a tile of one target is no case of its own
        return torch.export.export(
            graph, example, dynamic_shapes=free, strict=False, prefer_deferred_runtime_asserts_over_guards=True
        )


def _write_graph(program: ExportedProgram, path: Path, format: Format, facts: dict[str, Any]) -> None:
    said = json.dumps(facts, ensure_ascii=False)
    if format == "pt2":
        torch.export.save(program, path, extra_files={f"{_KEY}.json": said})
        return
    made = torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        external_data=False,
        optimize=False,  # it takes as long as all the rest, and runtimes do so when they load a graph
    )
    assert made is not None
    made.model.metadata_props[_KEY] = said
    made.save(path, external_data=False)


def _require_packages(format: Format) -> None:
    if format not in ("onnx", "pt2"):
        raise InputError(f"format is {format!r}; onnx or pt2 are written")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if format == "onnx" and missing:
        raise InputError(
            f'format onnx needs {" and ".join(missing)}; install it with pip install "adcdnet[export]", or write pt2'
        )


def _require_room(out: Path) -> None:
    try:
        taken = min((path.name for path in out.iterdir()), default="") if out.exists() else ""
    except OSError as error:
        raise InputError(f"{out} is no folder for a model: {error.strerror}; name another one") from error
    if taken:
        raise InputError(f"{out} is not empty, it holds {taken}; name a new or an empty folder")


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that gets its name when all is written; a failure leaves nothing behind."""
    with hidden_part(out.parent, f"{out.name}.") as folder:
        yield folder
        try:
            if out.exists():
                out.rmdir()
            folder.rename(out)
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror}; name another folder") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch tells of packages that nobody asked for, and warns of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
