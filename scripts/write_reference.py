"""Two pages of the reference, written from the code: every command with its options, every setting with its default.

    python scripts/write_reference.py            # writes docs/reference/commands.md and settings.md
    python scripts/write_reference.py --check    # writes nothing; exit code 1 where a page is not what it would write

Commands come from the command line's own parser. Settings come from the records of `TrainConfig`, whether these are
pydantic models or dataclasses: type, default, bounds, and the comment behind (or above) each field in the source.
tests/test_reference.py holds both pages to this script.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import io
import re
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from typer.models import ArgumentInfo, OptionInfo

from adcdnet.cli import app
from adcdnet.config import Profile, TrainConfig

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Written by scripts/write_reference.py from the code. Change the code, then run the script. -->"
EXAMPLE = re.compile(r"^Example: (.+)$", re.MULTILINE)


# Commands ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One argument or option of a command, from the signature that the command line is made of."""

    name: str
    info: Any  # typer's OptionInfo or ArgumentInfo
    kind: Any  # type, without None and typer's part
    default: Any  # inspect.Parameter.empty where one must be given

    @property
    def is_argument(self) -> bool:
        return isinstance(self.info, ArgumentInfo)

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def spelling(self) -> str:
        """As it is typed, e.g. `--stage1 / --no-stage1`."""
        if self.is_argument:
            return f"`{self.name.upper()}`"
        # inside Annotated the first spelling stands where a default would
        declared = [decl for decl in (self.info.default, *(self.info.param_decls or ())) if str(decl).startswith("-")]
        return " / ".join(f"`{one}`" for one in "/".join(declared or [f"--{self.name.replace('_', '-')}"]).split("/"))

    @property
    def value(self) -> str:
        """What may be given, e.g. 'file' or 'whole number, at least 2'."""
        several = get_origin(self.kind) is list
        kind = get_args(self.kind)[0] if several else self.kind
        if kind is bool:
            return "–"
        text = {Path: "file or folder", int: "whole number", float: "number"}.get(kind, "text")
        for bound, words in (("min", "at least"), ("max", "at most")):
            if (limit := getattr(self.info, bound, None)) is not None:
                text += f", {words} {limit:g}"
        return f"{text}; may be repeated" if several else text

    @property
    def shown_default(self) -> str:
        if self.required:
            return "required"
        if self.default is None or self.default is False:
            return "–"
        return self.spelling.split(" / ")[0] if self.default is True else f"`{self.default}`"


def options_of(command: Any) -> list[Option]:
    """Arguments and options of a command, in the order of its signature."""
    function = inspect.unwrap(command.callback)
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *infos = get_args(hints[name]) if get_origin(hints[name]) is typing.Annotated else (hints[name],)
        info = next((one for one in infos if isinstance(one, OptionInfo | ArgumentInfo)), None)
        if info is not None:
            found.append(Option(name, info, _without_none(kind), parameter.default))
    return found


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not types.NoneType)
    return kind


def commands_page() -> str:
    """Markdown: a chapter for each command, in the order of `adcdnet --help`."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("adcdnet", [], resilient_parsing=True)
    commands = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    lines = ["# Commands", "", NOTE, "", _one_line(group.help), ""]
    lines += ["Every command prints its options with `--help`. `adcdnet --install-completion` lets the shell complete"]
    lines += ["commands and options. Exit codes: 0 done, 1 failed, 2 wrong use.", ""]
    lines += ["| command | what it does |", "|---|---|"]
    lines += [f"| [{name}](#{name}) | {_cell(_paragraphs(command)[0])} |" for name, command in commands]
    lines += ["", "Options of `adcdnet` itself, before the command:", "", *_options(group)]
    lines += [
        "",
        "`--progress json` is for programs, and may stand behind the command as well. Stderr then has lines such as",
    ]
    lines += [
        '`{"stage": "stage2", "step": 40, "steps": 200, "loss": 0.31}`. Lines of other words are notes and errors.'
    ]
    for name, command in commands:
        lines += ["", *_command(name, command)]
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    yield from (f"## {name}", "")
    for paragraph in _paragraphs(command):
        yield from (paragraph, "")
    needed = [one.name.upper() if one.required else f"[{one.name.upper()}]" for one in _arguments(command)]
    needed += [f"{one.spelling.strip('`')} {one.name.upper()}" for one in options_of(command) if _is_needed(one)]
    yield from ("```sh", " ".join(["adcdnet", name, *needed, "[OPTIONS]"]), "```", "")
    for example in EXAMPLE.findall(command.help or ""):
        yield from ("For example:", "", "```sh", example, "```", "")
    yield from _options(command)


def _arguments(command: Any) -> list[Option]:
    return [one for one in options_of(command) if one.is_argument]


def _is_needed(option: Option) -> bool:
    return option.required and not option.is_argument


def _paragraphs(command: Any) -> list[str]:
    """The words of a command's help, its example left out."""
    text = EXAMPLE.sub("", inspect.cleandoc(command.help or command.short_help or ""))
    return [_one_line(part) for part in text.split("\n\n") if part.strip()] or [""]


def _options(command: Any) -> Iterator[str]:
    """A table of arguments and options, arguments first."""
    yield from ("| option | value | default | meaning |", "|---|---|---|---|")
    for one in sorted(options_of(command), key=lambda option: not option.is_argument):
        yield f"| {one.spelling} | {one.value} | {one.shown_default} | {_cell(one.info.help or '')} |"


WORDS = {  # of settings whose comment in the source is for those who read the source
    "profile": "Where these settings began: values that a file does not name are this profile's.",
    "seed": "Of the split, the first weights and all random draws.",
    "local_priors_tried": "Weights of local class priors that several folds choose among. Empty: as `answers` says.",
    "members": "What answers together in the map, each with a weight of its own.",
    "passes": "Stage II ends when it has seen each label this often on average. 0: it ends by `steps` alone.",
    "initialisation": "First weights: PyTorch's own, or Xavier-uniform on convolutions and linear layers.",
    "sampling": "What a training step draws: tiles, single patches, or whichever suits the labels.",
    "stage1_labelled": "Whether stage I draws labelled pixels only.",
    "spread": "Weight of the term that keeps the features of stage I from collapsing. 0: none, as published.",
    "branch_targets": "How many pixels of a step the DTM heads classify as well.",
    "branch_weight": "λ, the weight of the DTM heads in the loss L = L_main + λ (L_ms + L_pan).",
    "class_balance": "Classes weigh in training as (frequency)^-class_balance. 0: each label alike.",
    "label_smoothing": "Share of the target that is spread over all classes.",
    "mixup": "Share of the steps of stage II, from its beginning, in which samples are mixed in pairs.",
    "plain_if_few": "Whether few labels (under some 5,000) are learnt by patches, without prior, DIA and DTM.",
    "tiles_from": "PAN pixels per MS pixel and axis below which a network over patches is trained in its place.",
    "self_training": "Few, balanced labels: share of unlabelled pixels in a second round. 0: no such round.",
    "average": "Decay of the moving average of the weights. 0: no average.",
    "augment": "Whether training samples are flipped and turned by quarters.",
    "validations": "How often the validation part is looked at during stage II.",
    "precision": "Of the arithmetic in training.",
    "anchors": "Tiles are laid around labels of a class as often as (frequency)^(1 - anchors).",
    "jitter": "Standard deviation of the gains and offsets by which training samples differ in light. 0: none.",
    "form": "Which kind of network: over tiles or over patches.",
    "backbone": "Convolutions of the encoders: plain ones, or MobileNetV3 units.",
    "hard_swish": "For `mobilenetv3` only: h-swish between convolutions; otherwise ReLU.",
    "squeeze_excite": "For `mobilenetv3` only. It pools over the patch, so such a network runs patch by patch.",
    "widths": "Channels of the three depths, for both sensors.",
    "padding": "What convolutions see beyond the patch: real neighbours, or zeros as published.",
    "patch": "MS pixels per side of a patch, its halo not counted.",
    "grid": "Of labels and map: that of MS, or that of PAN.",
    "stem": "Whether PAN reaches the MS grid in one step. False: by three strides of 2, at ratio 4 with zeros only.",
    "head": "What decides: the centre of the patch and its surroundings, or the whole flattened patch.",
    "fusion": "How the flatten head joins both sensors. The centre head reads them side by side.",
    "hidden": "Width of the classifier and of what the DTM heads hand on.",
    "dropout": "Share of hidden values that training leaves out.",
    "sensors": "Which images are used; the other one is replaced by zeros.",
    "attention": "On the last depth of both sensors, in both stages.",
    "dtm": "Whether there are DTM heads.",
    "reader": "What reads the tokens of the DTM heads.",
    "token": "How a feature map becomes a token: averaged to 4×4 first, or flattened whole.",
    "token_dims": "Width of the tokens, for MS and for PAN.",
    "shared_decision": "Whether main head and DTM heads share LayerNorm and classifier.",
    "prior": "Whether stage I is trained and serves stage II.",
    "prior_mask": "Whether prior features are standardised before they become a mask.",
    "learn_prior_token": "Whether stage II trains the prior's token. False: a random projection, as published.",
    "context_branch": "Weight of the perceptron on context statistics, for the centre head. 0: none.",
    "smooth": "Standard deviation, in pixels of the map, of the Gaussian that averages neighbours' logits. 0: none.",
    "likeness": "How alike averaged neighbours must look, in standard deviations of training. 0: looks do not count.",
    "local_priors": "Weight of the local class priors. 0: none.",
    "folds": "Parts of the ground that test in turn. 1: a single split, by the shares below.",
    "unit": "What stays in one part of the split.",
    "block": "MS pixels per side of a block. Left out: chosen from the scene.",
    "validation": "Share of the labels that validates.",
    "test": "Share of the labels that tests.",
    "steps": "Training steps. By tiles, stage II takes half as many.",
    "learning_rate": "Highest learning rate of the stage.",
    "weight_decay": "Of the optimizer.",
    "optimizer": "Which optimizer.",
    "schedule": "How the learning rate changes: one cycle that ends at 0, or × 0.9995 after every step.",
    "batch": "Patches of a step, where training draws patches.",
    "tiles": "Tiles of a step, where training draws tiles.",
    "tile": "MS pixels per side of a training tile.",
    "targets": "Labelled pixels of a step's tiles that count in the loss.",
}


OF_TILES = {  # the same, where a network over tiles means something else by a name
    "widths": "Channels of the levels, finest first; as many levels as numbers.",
    "hidden": "Width of what the DTM heads hand on.",
    "detail": "Channels of PAN at its own resolution.",
    "stream": "Channels of each sensor on the MS grid.",
    "context_branch": "Weight of the perceptron on context statistics. 0: none.",
    "guard": "MS pixels of the guard band, without those that averages of neighbours add.",
    "border": "MS pixels that a training tile carries around its targets.",
}


# Settings ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One line of a table. path: keys from the outermost table of the file."""

    path: tuple[str, ...]
    kind: str
    values: dict[str, Any]  # by profile, of those that have it
    meaning: str


def settings_page() -> str:
    """Markdown: a table of settings for each table of a settings file."""
    profiles: tuple[Any, ...] = get_args(Profile)
    records = {name: TrainConfig.of_profile(name) for name in profiles}
    lines = ["# Settings", "", NOTE, ""]
    lines += ["A settings file is TOML. Each run leaves its own as `config.toml`; edit it and hand it back with"]
    lines += ["`adcdnet train --config`. Settings that a file does not name keep the value of its `profile`.", ""]
    lines += [
        f"Profiles: {', '.join(f'`{name}`' for name in profiles)}. [Method](../concepts/method.md) says what sets"
    ]
    lines += ["them apart. Where profiles differ, the table gives the value of each. A run of few labels may leave out"]
    lines += ["more than its profile does; its `config.toml` has what was used.", ""]
    tables: dict[tuple[str, ...], list[Setting]] = {(): []}
    for setting in _settings(TrainConfig, records, ()):
        tables.setdefault(setting.path[:-1], []).append(setting)
    for table, settings in tables.items():
        if not settings:
            continue
        lines += [_heading(table), ""]
        summary = _record_at(TrainConfig, table)
        lines += [*(_one_line(part) + "\n" for part in _docstring(summary).split("\n\n") if part.strip())]
        lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        for s in settings:
            default = _of_profiles(s.values)
            lines.append(f"| `{s.path[-1]}` | {s.kind} | {default} | {_cell(s.meaning)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _heading(table: tuple[str, ...]) -> str:
    """Of a table of the file; behind a colon stands which of several records it holds."""
    if not table:
        return "## Outside any table"
    names, _, form = ".".join(table).partition(":")
    return f"## `[{names}]`" + (f' with `form = "{form}"`' if form else "")


def _settings(record: type, instances: dict[str, Any], path: tuple[str, ...]) -> Iterator[Setting]:
    """All fields of a record, by profile; nested records after its own."""
    hints = typing.get_type_hints(record, include_extras=True)
    comments = _comments(record)
    nested = []
    for name in _fields(record):
        values = {profile: getattr(instance, name) for profile, instance in instances.items()}
        inner = _records_of(hints[name])
        if inner:
            nested.append((name, inner, values))
        else:
            kind = _kind(hints[name], _bounds(record, name))
            meaning = WORDS.get(name) or comments.get(name, "")
            if path and path[-1].endswith(":tile"):
                meaning = OF_TILES.get(name) or meaning
            yield Setting((*path, name), kind, values, meaning)
    for name, inner, values in nested:
        for one in inner:
            own = {profile: value for profile, value in values.items() if isinstance(value, one)}
            yield from _settings(one, own, (*path, name if len(inner) == 1 else f"{name}:{_form(one)}"))


def _form(record: type) -> str:
    """What tells a record from the others that may stand in its place."""
    form: str = next(field.default for field in dataclasses.fields(record) if field.name == "form")
    return form


def _fields(record: type) -> list[str]:
    if issubclass(record, BaseModel):
        return list(record.model_fields)
    return [field.name for field in dataclasses.fields(record)]


def _records_of(hint: Any) -> list[type]:
    """The records that a field may hold, the default's first."""
    plain = get_args(hint)[0] if get_origin(hint) is typing.Annotated else hint
    kinds = get_args(plain) if get_origin(plain) in (typing.Union, types.UnionType) else (plain,)
    records = [k for k in kinds if isinstance(k, type) and (issubclass(k, BaseModel) or dataclasses.is_dataclass(k))]
    return (
        sorted(records, key=lambda record: record is not type(TrainConfig().network)) if len(records) > 1 else records
    )


def _record_at(record: type, path: tuple[str, ...]) -> type:
    for name in path:
        own, _, form = name.partition(":")
        inner = _records_of(typing.get_type_hints(record, include_extras=True)[own])
        record = next(one for one in inner if not form or _form(one) == form)
    return record


def _docstring(record: type) -> str:
    """What somebody wrote about a record; not what `dataclass` makes of its fields."""
    text = inspect.cleandoc(record.__doc__ or "")
    return "" if text.startswith(f"{record.__name__}(") else text


def _kind(hint: Any, bounds: str) -> str:
    """A type in words."""
    if get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(one, bounds) for one in inner if one is not types.NoneType) + ", may be left out"
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {_kind(inner[0], '')}s"
    if origin is tuple:
        return f"{len(inner)} × {_kind(inner[0], '')}"
    word = {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )
    return f"{word}{bounds}"


def _bounds(record: type, name: str) -> str:
    """Bounds that pydantic checks, as ', at least 0, below 1'."""
    if not issubclass(record, BaseModel):
        return ""
    found = []
    for rule in record.model_fields[name].metadata:
        for key, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
            if (limit := getattr(rule, key, None)) is not None:
                found.append(f"{words} {limit:g}")
    return "".join(f", {one}" for one in found)


def _of_profiles(values: dict[str, Any]) -> str:
    """The first profile's value, and after it what others have in its place."""
    (_, first), *others = ((name, _toml(value)) for name, value in values.items())
    differing = [f"{name}: `{value}`" for name, value in others if value != first]
    return "; ".join([f"`{first}`", *differing])


def _toml(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _comments(record: type) -> dict[str, str]:
    """What the source says of each field: the comment behind it, or else those in the lines right above it."""
    found: dict[str, str] = {}
    for owner in reversed(record.__mro__):
        if owner is object or owner.__module__.startswith("pydantic"):
            continue
        source = textwrap.dedent(inspect.getsource(owner))
        comments = {
            token.start[0]: (token.string.lstrip("# ").strip(), token.line.lstrip().startswith("#"))
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        (tree,) = ast.parse(source).body
        assert isinstance(tree, ast.ClassDef)
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = _comment_of(node, comments)
        fields = getattr(owner, "model_fields", {}) if issubclass(owner, BaseModel) else {}
        found |= {name: field.description for name, field in fields.items() if field.description}
    return found


def _comment_of(node: ast.AnnAssign, comments: dict[int, tuple[str, bool]]) -> str:
    end = node.end_lineno or node.lineno
    behind = [text for line, (text, alone) in sorted(comments.items()) if node.lineno <= line <= end and not alone]
    if behind:
        return " ".join(behind)
    above, line = [], node.lineno - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    return " ".join(above)


# Both ----------------------------------------------------------------------------------------------------------------


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    """Text for a cell of a table; a first word of the language begins with a capital letter."""
    text = _one_line(text).replace("|", "\\|")
    first = text.split(" ")[0].rstrip(",;:")
    is_word = re.fullmatch("[a-z]{2,}", first) and first not in _NAMES
    return text[:1].upper() + text[1:] if is_word else text


_NAMES = {"xavier", "mobilenetv3", "auto", "default", "dense", "float32"}  # values, as they are written in files


def pages() -> dict[Path, str]:
    """What each page should hold."""
    return {FOLDER / "commands.md": commands_page(), FOLDER / "settings.md": settings_page()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say which pages differ")
    check = parser.parse_args().check
    differing = [path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in differing:
        print(f"{'differs' if check else 'written'}: {path}")
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
    sys.exit(1 if check and differing else 0)


if __name__ == "__main__":
    main()
