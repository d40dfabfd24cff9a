"""The command line: parses, calls, prints. One file a command.

What a command works with is imported inside its function. So help, completion and commands without a network start in
a fraction of a second, and this list of commands needs no second spelling. Types stand below `if TYPE_CHECKING`.
"""

from __future__ import annotations

import ctypes
import io
import platform
import sys
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from adcdnet.cli.acquire import acquire_command
from adcdnet.cli.align import align_command
from adcdnet.cli.benchmark import benchmark_command
from adcdnet.cli.check import check_command
from adcdnet.cli.compare import compare_command
from adcdnet.cli.console import PROGRESS_AS_JSON, err, one_line
from adcdnet.cli.demo import demo_command
from adcdnet.cli.doctor import doctor_command
from adcdnet.cli.evaluate import evaluate_command
from adcdnet.cli.explain import explain_command
from adcdnet.cli.export import export_command
from adcdnet.cli.predict import predict_command
from adcdnet.cli.report import report_command
from adcdnet.cli.sample import sample_command
from adcdnet.cli.scenes import scenes_command
from adcdnet.cli.stop import signals_taken, stoppable
from adcdnet.cli.suggest import suggest_command
from adcdnet.cli.train import train_command
from adcdnet.errors import InputError, is_out_of_memory

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Land-cover maps from a multispectral (MS) and a panchromatic (PAN) image, each at its own resolution.",
)
_COMMANDS: dict[str, Callable[..., None]] = {  # in the order of their use, which is that of --help
    "acquire": acquire_command,
    "scenes": scenes_command,
    "check": check_command,
    "align": align_command,
    "train": train_command,
    "predict": predict_command,
    "sample": sample_command,
    "evaluate": evaluate_command,
    "compare": compare_command,
    "explain": explain_command,
    "report": report_command,
    "suggest": suggest_command,
    "export": export_command,
    "benchmark": benchmark_command,
    "demo": demo_command,
    "doctor": doctor_command,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(stoppable(_command))


def main() -> None:
    """Entry point: one line for a user's error, exit code 1; typer itself ends wrong use with 2; stopped, it is 130."""
    debug = "--debug" in sys.argv
    _print_what_can_be_printed()
    _keep_memory()
    try:
        with signals_taken():
            app(args=_own_options_first(sys.argv[1:]))
    except InputError as error:
        if debug:
            raise
        err.print(f"adcdnet: {one_line(str(error))}", markup=False, style="red")
        raise SystemExit(1) from None
    except (MemoryError, RuntimeError) as error:
        if debug or not is_out_of_memory(error):
            raise
        said = f"out of memory ({(str(error).splitlines() or ['no more can be had'])[-1]})"
        err.print(
            f"adcdnet: {said}; give a smaller --memory, smaller tiles or a smaller image", markup=False, style="red"
        )
        raise SystemExit(1) from None


def _own_options_first(words: list[str]) -> list[str]:
    """What was typed, with --progress before the command even if it stood behind it, and without --debug."""
    first, rest = [], []
    left = iter(words)
    for word in left:
        if word == "--progress":
            first.append(f"{word}={next(left, '')}")
        elif word.startswith("--progress="):
            first.append(word)
        elif word != "--debug":
            rest.append(word)
    return [*first, *rest]


def _print_what_can_be_printed() -> None:
    """A pipe or file of another encoding than UTF-8, as on Windows, gets ? for arrows and letters that it has not."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _keep_memory() -> None:
    """Tell glibc to keep freed memory instead of handing pages back and faulting them in again for every tensor.

    It saves a twelfth of a large prediction's processor time and less of a training's (scripts/RESULTS.md). Only a
    process that is ours is told so: one that imports the package keeps what it has set.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"adcdnet {version('adcdnet')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    progress: Annotated[
        Literal["bars", "json"],
        typer.Option("--progress", help="bars, on a terminal; or json: a line of JSON to stderr for each step."),
    ] = "bars",
) -> None:
    PROGRESS_AS_JSON.set(progress == "json")
