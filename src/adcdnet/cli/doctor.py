"""adcdnet doctor"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from adcdnet.assess.doctor import Finding, Health, examine
from adcdnet.assess.machine import Bytes, Fact
from adcdnet.cli.console import file_to_write, out_console
from adcdnet.files import as_json, write_whole


def doctor_command(
    json_path: Annotated[
        Path | None, typer.Option("--json", callback=file_to_write, help="Also write all of it as JSON.")
    ] = None,
) -> None:
    """Whether this installation works: versions, devices, drivers, projections, memory. Text to paste into an issue.

    Values that look like secrets are not shown. Ends with 1 where something is broken, and says what to do.

    Example: adcdnet doctor
    """
    health = examine(*devices())
    if json_path is not None:
        write_whole(json_path, as_json(health.to_dict()))
    for line in lines(health):
        out_console.print(line, markup=False)
    if health.broken:
        raise typer.Exit(1)


def lines(health: Health) -> list[str]:
    """The report as text: a heading, then a line for each fact; what is wrong stands last."""
    text = []
    for heading, facts in health.sections.items():
        width = max(map(len, facts), default=0)
        text += [f"{heading}:", *(f"    {name.ljust(width)}  {value}" for name, value in facts.items()), ""]
    for finding in health.findings:
        text.append(f"{'PROBLEM' if finding.broken else 'warning'}: {finding.what}; {finding.mend}")
    return [*text, "verdict: broken" if health.broken else "verdict: works"]


def devices() -> tuple[dict[str, Fact], list[Finding]]:
    """What PyTorch can compute on, tried by a small sum on each, and what is wrong with it."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken library may raise anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        mend = "python -m pip install --force-reinstall torch"
        return {"PyTorch": "cannot be loaded"}, [Finding(f"torch cannot be loaded: {first}", mend)]
    facts: dict[str, Fact] = {
        "PyTorch built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
        "threads of PyTorch": torch.get_num_threads(),
    }
    wrong = []
    names = [f"cuda:{k}" for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    facts["CUDA"] = f"{len(names)} GPU" if names else "none seen"
    apple = torch.backends.mps.is_available()
    facts["MPS"] = "seen (only with --device mps)" if apple else "none seen"
    for name in ("cpu", *names):
        try:
            total = float(torch.ones(1000, device=name).sum())
        except RuntimeError as error:
            total, problem = 0.0, str(error).splitlines()[0]
        else:
            problem = f"a sum of 1000 ones is {total:g}"
        if total != 1000:
            mend = "add --device cpu to commands, or update the driver" if name != "cpu" else "reinstall torch"
            wrong.append(Finding(f"PyTorch cannot compute on {name}: {problem}", mend))
        if name != "cpu":
            known = torch.cuda.get_device_properties(name)
            facts[name] = f"{known.name}, {Bytes(known.total_memory)}, compute capability {known.major}.{known.minor}"
    return facts, wrong
