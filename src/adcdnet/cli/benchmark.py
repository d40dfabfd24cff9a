"""adcdnet benchmark"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adcdnet.cli.choices import NETWORKS, Protocol
from adcdnet.cli.console import out_console, progress_bars
from adcdnet.cli.helpers import Helpers, SchedulerOption, TaskSecondsOption, WorkersOption, helpers_of
from adcdnet.errors import InputError

if TYPE_CHECKING:
    from adcdnet.benchmark.pool import Elsewhere

_MEMORY = 2**32  # bytes that a training may hold
_KNOWN = f"{NETWORKS}, or baselines (see the documentation), or TOML files of settings"


def benchmark_command(
    scenes: Annotated[Path, typer.Argument(help="scenes.toml: ms, pan and labels of one scene or more.")],
    out: Annotated[Path, typer.Option(help="Folder of results; finished trainings in it are not repeated.")],
    methods: Annotated[str, typer.Option(help=f"Separated by commas: {_KNOWN}.")] = "adcdnet,forest,boosting",
    reference: Annotated[str, typer.Option(help="The method that the others are compared with.")] = "forest",
    folds: Annotated[int, typer.Option(min=2, help="Parts of the scene that are tested in turn.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="How many partitions into folds.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every method on every fold.")] = 1,
    split: Annotated[
        Protocol,
        typer.Option(
            help="What is tested: blocks (squares from all over); strips (ground beyond all labels, north to south, "
            "in the second repeat west to east); random (single pixels, as in many papers; leaks); scenes (whole ones, "
            "all trained together); or given (once, as part and split in scenes.toml say)."
        ),
    ] = "blocks",
    labels_per_class: Annotated[str, typer.Option(help="Training labels of each class, e.g. 25,50,100,all.")] = "all",
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time, on the same processor cores.")] = 1,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    task_seconds: TaskSecondsOption = None,
    device: Annotated[
        str,
        typer.Option(help="auto, cpu or cuda, for the ADCD-Nets; other methods run on the processor."),
    ] = "auto",
) -> None:
    """Compare methods on your own scenes by repeated spatial cross-validation.

    Every scene is divided into folds by itself; --split scenes and --split given train on all together.

    Example: adcdnet benchmark scenes.toml --methods adcdnet,forest,boosting --seeds 3 --out runs/benchmark
    """
    from adcdnet.benchmark.methods_by_name import method_name
    from adcdnet.benchmark.tables import benchmark, markdown
    from adcdnet.geo.scene_files import read_scenes

    helpers = helpers_of(workers, scheduler, task_seconds, memory=_MEMORY)
    numbers = [None if text.strip() == "all" else _number(text) for text in labels_per_class.split(",")]
    with progress_bars() as report:
        rows = benchmark(
            read_scenes(scenes),
            methods=[name.strip() for name in methods.split(",")],
            reference=reference,
            out=out,
            folds=folds,
            repeats=repeats,
            seeds=seeds,
            protocol=split,
            labels_per_class=numbers,
            jobs=jobs,
            device=device,
            elsewhere=None if helpers is None else _elsewhere(helpers),
            progress=report,
        )
    out_console.print(markdown(rows, reference=method_name(reference)), markup=False)
    if split == "random":
        shares = [r.overlapping for r in rows if r.overlapping is not None]
        out_console.print(
            f"random pixels: the windows of {max(shares):.0%} of the test pixels overlap windows of training pixels; "
            "these figures say how well the scene is remembered, not how well new ground is mapped",
            markup=False,
        )
    out_console.print(f"tables and figure: {out}", markup=False)


def _elsewhere(helpers: Helpers) -> Elsewhere:
    """InputError at the end where some trainings fail."""

    def make(function: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> Iterator[int]:
        from adcdnet.cluster.engine import Failed

        reasons = []
        for number, result in helpers.run(function, calls, what="trainings", hours=24):
            if isinstance(result, Failed):
                reasons.append(result.reason)
            else:
                yield number
        if reasons:
            raise InputError(
                f"{len(reasons)} of {len(calls)} trainings failed: {reasons[0]}; "
                "the same command makes only these again"
            )

    return make


def _number(text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number of labels nor 'all'", param_hint="--labels-per-class")
    return int(text)
