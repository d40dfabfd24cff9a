"""Attacks on what users trust: trainings and predictions killed at any moment, and a thousand predictions in a row.

    python scripts/attack.py kills [--of train predict] [--n 20] [--seed 0]
    python scripts/attack.py soak [--n 1000]

kills: a small training of two folds, or a prediction of 25 tiles or so, is killed at a random moment by a random signal,
often more than once, and goes on with --resume, a training by one process or by two. An older run or map lies in its
place. Printed is how often the files are those of an undisturbed one, and what else went wrong.
soak: one process makes the same map again and again. Printed are its memory and its open files on the way.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from adcdnet.config import TrainConfig
from adcdnet.demo.run import SCENE, write_scene
from adcdnet.files import MODEL_FILE

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
SETTINGS = {
    "network": {"widths": [4, 5, 6], "hidden": 7, "token_dims": [6, 8], "patch": 9},
    "members": ["adcdnet"],
    "split": {"folds": 2, "block": 16},
    "stage1": {"steps": 10, "tiles": 4, "tile": 16, "batch": 16, "targets": 64},
    "stage2": {"steps": 80, "tiles": 4, "tile": 16, "batch": 16, "targets": 512},
    "passes": 0.0,
    "validations": 3,
}
MOST_SECONDS = 5.0  # that a training may take to end


@dataclass
class Trial:
    """kills: signals by name, with the seconds after which they came. wrong: what went wrong, in words."""

    kills: list[str] = field(default_factory=list)
    same: bool = False
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    """Parse, attack, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=["kills"])
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kills(Path(folder), given.n, given.seed)


def kills(folder: Path, n: int, seed: int) -> None:
    """n trials, one line each, and a sum."""
    command = command_of(folder)
    started = time.monotonic()
    subprocess.run([*command, "--out", folder / "whole" / "run", "--jobs", "1"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    expected = (folder / "whole" / "run" / MODEL_FILE).read_bytes()
    older = folder / "older"
    shutil.copytree(folder / "whole" / "run", older)
    (older / MODEL_FILE).write_bytes(b"an older model")
    rng, trials = random.Random(seed), []
    for number in range(n):
        trial = killed_and_resumed(command, folder / str(number) / "run", older, expected, seconds, rng)
        trials.append(trial)
        print(
            f"{number + 1:3} {', '.join(trial.kills):60} {'same' if trial.same else 'OTHER'} {'; '.join(trial.wrong)}"
        )
        sys.stdout.flush()
    same, wrong = sum(trial.same for trial in trials), sum(bool(trial.wrong) for trial in trials)
    count = sum(len(trial.kills) for trial in trials)
    print(
        f"{same} of {n} killed trainings ended with the same model file, after {count} kills; {wrong} with a complaint"
    )


def command_of(folder: Path) -> list[str | Path]:
    """Of a training on a simulated scene, which is written here; without its --out."""
    write_scene(folder / "scene", seed=0, size=64, ratio=2)
    (folder / "settings.toml").write_text(TrainConfig.of_profile("patch").replace(SETTINGS).to_toml())
    files = [word for option, name in zip(("--ms", "--pan", "--labels"), SCENE, strict=True) for word in (option, name)]
    named = [folder / "scene" / word if word in SCENE else word for word in files]
    start = [sys.executable, "-m", "adcdnet.cli", "train", *named]
    return [*start, "--config", folder / "settings.toml", "--device", "cpu"]


def killed_and_resumed(
    command: list[str | Path], out: Path, older: Path, expected: bytes, seconds: float, rng: random.Random
) -> Trial:
    """seconds: that an undisturbed training takes."""
    trial = Trial()
    shutil.copytree(older, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for _ in range(rng.choice([1, 1, 2, 3])):
        name, after = rng.choice(SIGNALS), rng.uniform(0, 0.8 * seconds)
        process = subprocess.Popen(
            [*command, "--out", out, "--resume", "--jobs", rng.choice("112")],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            process.wait(after)
            break  # it was done before
        except subprocess.TimeoutExpired:
            trial.kills.append(f"{name} after {after:.1f} s")
        sent, whole_group = time.monotonic(), name in ("SIGINT", "SIGHUP")  # which terminals send to all processes
        (os.killpg if whole_group else os.kill)(process.pid, getattr(signal, name))
        said = process.communicate()[1].decode()
        took = time.monotonic() - sent
        at_start = process.returncode == -getattr(signal, name)  # before the command could take signals
        if process.returncode not in (0, 130, -signal.SIGINT) and not at_start:
            trial.wrong.append(f"exit code {process.returncode} after {name}: {said.strip()}")
        if process.returncode == 130 and "--resume" not in said:
            trial.wrong.append(f"nothing is said of --resume, but {said.strip()!r}")
        if took > MOST_SECONDS:
            trial.wrong.append(f"it took {took:.1f} s to end")
        time.sleep(1)
        left = [p.pid for p in psutil.process_iter() if is_of(p, process.pid)]
        if left:
            trial.wrong.append(f"{len(left)} processes are left")
        now = {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")}
        if process.returncode and now != before and now[MODEL_FILE] != expected:
            trial.wrong.append("the older run has changed")
    done = subprocess.run(
        [*command, "--out", out, "--resume", "--jobs", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        trial.wrong.append(f"going on failed: {done.stderr.decode().strip()}")
    trial.same = (out / MODEL_FILE).read_bytes() == expected
    if len(list(out.parent.iterdir())) > 1 or any(path.name.startswith(".") for path in out.iterdir()):
        trial.wrong.append("hidden folders are left")
    return trial


def is_of(process: psutil.Process, session: int) -> bool:
    """Whether a process belongs to a session and still runs."""
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


if __name__ == "__main__":
    main()
