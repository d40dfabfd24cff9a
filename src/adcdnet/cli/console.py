"""What all commands share: options of one meaning, and how to say, tabulate and show progress.

Results go to files, summaries to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from adcdnet.files import refuse_overwriting, require_file_name

if TYPE_CHECKING:
    from adcdnet.geo.classes import ClassTable
    from adcdnet.metrics import Scores


class _Plain(Console):
    """Prints no character that would steer the terminal: texts come from files that anybody may have made."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*(visible(part) if isinstance(part, str) else part for part in objects), **how)


def visible(text: str) -> str:
    """A text in which what steers a terminal, or turns the direction of writing, shows as its code."""
    return _STEERS.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """A message without line ends, which a file's name may hold, and which would look like another message."""
    return text.replace("\n", "\\n")


_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
err = _Plain(stderr=True, soft_wrap=True, highlight=False)
out_console = _Plain(soft_wrap=True, highlight=False)


def file_to_write(path: Path | None) -> Path | None:
    """Of an option, before any work is done. InputError where no file can have the name, or a run has it."""
    if path is not None:
        require_file_name(path)
        refuse_overwriting([path])
    return path


MsOption = Annotated[Path, typer.Option("--ms", help="Coarse image, any number of bands.")]
PanOption = Annotated[Path, typer.Option("--pan", help="Fine image; a whole number of its pixels fit in an MS pixel.")]
MsFilesOption = Annotated[
    list[Path] | None, typer.Option("--ms", help="Coarse image, any number of bands; or --ms for each file of it.")
]
PanFilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--pan", help="Fine image, 1 to 32 of its pixels per MS pixel and axis; or --pan for each file of it."
    ),
]
MaskOption = Annotated[
    Path | None, typer.Option("--mask", help="Raster on the MS or PAN grid; neither image is valid where it is not 0.")
]
MaskValuesOption = Annotated[
    str | None, typer.Option("--mask-values", help="Only these values of the mask hide, e.g. 3,8,9,10 of an SCL.")
]
MaskBitsOption = Annotated[
    str | None, typer.Option("--mask-bits", help="Only these bits of the mask hide, e.g. 1,3,4 of a QA_PIXEL.")
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", callback=file_to_write, help="Also write all figures as JSON.")
]
MsBandsOption = Annotated[
    str | None, typer.Option("--ms-bands", help="MS bands to use, in order: numbers or descriptions, e.g. 1,2,nir.")
]
PanBandsOption = Annotated[str | None, typer.Option("--pan-bands", help="PAN bands to use, as --ms-bands.")]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
LabelsOption = Annotated[
    list[Path] | None,
    typer.Option("--labels", help="Polygons, points or a raster of classes (0: none); or --labels for each file."),
]
ColumnOption = Annotated[str | None, typer.Option(help="Column of a polygon file that holds the class.")]
LayerOption = Annotated[str | None, typer.Option(help="Layer of a file of polygons or points that has several.")]
MinShareOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1.0, help="Share of a pixel that its class must cover, above 0; see the how-to on labels."
    ),
]
TauOption = Annotated[
    float, typer.Option(min=0.0, help="How much class shares count. 1: as labelled; 0: all classes alike.")
]
PriorOption = Annotated[
    str, typer.Option(help="Expected class shares: natural (as labelled), balanced, or a CSV file value,share.")
]
FixShiftOption = Annotated[
    bool, typer.Option("--fix-shift", help="Measure the shift of PAN against MS and correct its whole pixels.")
]


def prior_of(text: str, classes: ClassTable) -> tuple[float, ...] | None:
    """The shares that --prior names; None: as labelled."""
    if text == "natural":
        return None
    from adcdnet.geo.classes import read_prior

    return (1 / len(classes),) * len(classes) if text == "balanced" else read_prior(Path(text), classes)


def bands_of(text: str | None) -> list[str] | None:
    """'1, nir' -> ['1', 'nir']."""
    return None if text is None else [band.strip() for band in text.split(",")]


def mask_rule(mask: Path | None, values: str | None, bits: str | None, *, alone: bool = False) -> dict[str, Any]:
    """Keyword arguments mask_values and mask_bits of '3,8' and '1'. alone: a mask of training may be meant."""
    if mask is None and not alone and (values or bits):
        raise typer.BadParameter("there is no --mask whose values or bits could hide", param_hint="--mask")
    return {"mask_values": _numbers(values, "--mask-values"), "mask_bits": _numbers(bits, "--mask-bits")}


def _numbers(text: str | None, option: str) -> tuple[int, ...]:
    try:
        return () if text is None else tuple(int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not whole numbers such as 3,8,9", param_hint=option) from None


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """First column to the left, the others to the right; never shortened, however narrow the terminal is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(text.rjust(n) for text, n in zip(others, widths[1:], strict=True))]
        out_console.print("  ".join(cells), markup=False)


def say(notes: Iterable[str]) -> None:
    for note in notes:
        err.print(f"note: {one_line(note)}", markup=False, style="yellow")


PROGRESS_AS_JSON = ContextVar("PROGRESS_AS_JSON", default=False)  # what `adcdnet --progress json` asks for


def write_progress(stage: str, step: int, steps: int, known: dict[str, float]) -> None:
    """One line of JSON to stderr. A figure that is no finite number is null: NaN is no JSON."""
    figures = {name: value if math.isfinite(value) else None for name, value in known.items()}
    line = json.dumps({"stage": visible(stage), "step": step, "steps": steps, **figures})
    sys.stderr.write(f"{line}\n")  # at once, for folds tell from a thread of their own
    sys.stderr.flush()


@contextmanager
def progress_bars() -> Iterator[Any]:
    """A function (stage, step, of how many, what is known) that draws bars on a terminal and is quiet elsewhere.

    Under `--progress json` it writes a line for each step instead.
    """
    if PROGRESS_AS_JSON.get():
        yield write_progress
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:8}", markup=False),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[known]}", markup=False),
    )
    with Progress(*columns, console=err, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, step: int, steps: int, known: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(visible(stage), total=steps, known="")
            unsaid = ("learning_rate", "fold", "folds")
            words = [f"{k.replace('_', ' ')} {v:.3g}" for k, v in known.items() if k not in unsaid]
            if "fold" in known:
                words = [f"fold {known['fold']} of {known['folds']}", *words]
            text = "  ".join(words)
            bars.update(tasks[stage], completed=step)
            if text:
                bars.update(tasks[stage], known=text)

        yield report


def score_table(scores: Scores, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Rows for a terminal: header, one per class, in the field's words."""

    def share(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.3f}"

    rows: list[tuple[str, ...]] = [("class", "pixels", "precision", "recall", "F1", "IoU")]
    for k, name in enumerate(names):
        values = (scores.precision[k], scores.recall[k], scores.f1[k], scores.iou[k])
        rows.append((name, str(scores.support[k]), *(share(v) for v in values)))
    return rows
