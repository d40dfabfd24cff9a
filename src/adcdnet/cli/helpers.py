"""Options of commands that worker processes can help, here or on other machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adcdnet.cli.console import err
from adcdnet.mapping.progress import Progress, silent

if TYPE_CHECKING:
    from adcdnet.cluster.engine import Failed

WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes of this machine that share the work, by dask.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(help="tcp://HOST:8786 of a dask scheduler whose workers share the work.")
]
TaskSecondsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Seconds after which a task of --workers or --scheduler is ended and made again; default 1 hour for a "
        "part of a scene, 6 for a scene, 24 for a training.",
    ),
]


@dataclass(frozen=True)
class Helpers:
    """Who shares the work: `count` processes of this machine, or those of a scheduler.

    memory: bytes of a task. seconds: that a task may take, where the user says so.
    """

    count: int | None
    scheduler: str | None
    memory: int
    seconds: int | None = None

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        what: str,
        hours: float,
        progress: Progress = silent,
    ) -> Iterator[tuple[int, Any | Failed]]:
        """See `run_all`; says where to watch it. hours: that a call may take, unless the user says otherwise.

        InputError without dask.
        """
        from adcdnet.cluster.engine import Workers, run_all

        count = self.count or 1
        threads = max(1, (os.cpu_count() or 1) // count)
        workers = Workers(
            scheduler=self.scheduler or "",
            count=count,
            threads=threads,
            memory=self.memory,
            limit=self.seconds or 3600 * hours,
        )

        def begun(client: Any) -> None:
            err.print(f"watch it at {client.dashboard_link} (needs bokeh where the scheduler runs)", markup=False)

        return run_all(workers, function, calls, what=what, progress=progress, begun=begun)


def helpers_of(count: int | None, scheduler: str | None, seconds: int | None, *, memory: int) -> Helpers | None:
    """None where this process does the work alone."""
    if count is not None and scheduler is not None:
        raise typer.BadParameter(
            "are processes here, and a scheduler has its own; give one of the two", param_hint="--workers"
        )
    if count is None and scheduler is None:
        if seconds is not None:
            raise typer.BadParameter(
                "is for tasks of workers; give --workers or --scheduler too", param_hint="--task-seconds"
            )
        return None
    return Helpers(count, scheduler, memory, seconds)
