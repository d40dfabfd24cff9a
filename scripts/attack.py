"""Attacks on what users trust: trainings and predictions killed at any moment, and a thousand predictions in a row.

    python scripts/attack.py kills [--of train predict] [--n 20] [--seed 0]
    python scripts/attack.py soak [--n 1000]

kills: a small training of two folds, or a prediction of some tiles, is killed at a random moment by a random signal,
often more than once, and goes on with --resume, a training by one process or by two. An older run or map lies in its
place. Printed is how often the files are those of an undisturbed one, and what else went wrong.
soak: one process makes the same map again and again. Printed are its memory and its open files on the way.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import adcdnet as ad
from adcdnet.config import TrainConfig
from adcdnet.demo.run import SCENE, write_scene
from adcdnet.mapping.memory import give_back

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
MOST_SECONDS = 5.0  # that a command may take to end
OWN_WORDS = {"timing.json", "inputs.json"}  # times, and the command as it was typed


@dataclass(frozen=True)
class Work:
    """command: without --out. name: of the run or map. files: what it leaves undisturbed, by path in the folder of the
    work; older: what lies there before. seconds: that it takes. jobs: what --jobs may be."""

    command: list[str | Path]
    name: str
    files: dict[Path, bytes]
    older: dict[Path, bytes]
    seconds: float
    jobs: str = ""


@dataclass
class Trial:
    """kills: signals by name, with the seconds after which they came. wrong: what went wrong, in words."""

    kills: list[str] = field(default_factory=list)
    same: bool = False
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    """Parse, attack, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=["kills", "soak"])
    parser.add_argument("--of", nargs="+", choices=("train", "predict"), default=("train", "predict"))
    parser.add_argument("--n", type=int, help="trials of each kind, or predictions")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        train, run = training(folder)
        if given.attack == "soak":
            soak(folder, run, given.n or 1000)
            return
        for kind in given.of:
            work = train if kind == "train" else prediction(folder, run)
            kills(kind, work, folder / kind, given.n or 20, random.Random(given.seed))


def training(folder: Path) -> tuple[Work, Path]:
    """On a simulated scene, which is written here; and the run that it made."""
    write_scene(folder / "scene", seed=0, size=64, ratio=2)
    (folder / "settings.toml").write_text(TrainConfig.of_profile("patch").replace(SETTINGS).to_toml())
    files = [word for option, name in zip(("--ms", "--pan", "--labels"), SCENE, strict=True) for word in (option, name)]
    named = [folder / "scene" / word if word in SCENE else word for word in files]
    command = [sys.executable, "-m", "adcdnet.cli", "train", *named]
    command += ["--config", folder / "settings.toml", "--device", "cpu"]
    place, older = folder / "whole", folder / "older"
    subprocess.run([*command, "--seed", "9", "--out", older / "run"], check=True, stdout=subprocess.DEVNULL)
    started = time.monotonic()
    subprocess.run([*command, "--out", place / "run", "--jobs", "1"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    return Work(command, "run", files_in(place), files_in(older), seconds, "112"), place / "run"


def prediction(folder: Path, run: Path) -> Work:
    """Of a larger scene, in as little memory as it can, so that there are many tiles."""
    write_scene(folder / "large", seed=1, size=384, ratio=2)
    pair = ["--ms", folder / "large" / SCENE[0], "--pan", folder / "large" / SCENE[1]]
    command = [sys.executable, "-m", "adcdnet.cli", "predict", run, *pair, "--device", "cpu", "--memory"]
    place, older = folder / "whole-map", folder / "older-map"
    for made in (place, older):
        made.mkdir()
    asked = subprocess.run([*command, "1MB", "--out", place / "map.tif"], check=False, capture_output=True, text=True)
    least = re.findall(r"--memory (\d+)MB is the smallest", asked.stderr)
    command.append(f"{int(least[0]) + 16}MB")  # what the process holds differs a little from start to start
    subprocess.run([*command, "--out", older / "map.tif", "--tau", "0"], check=True, stdout=subprocess.DEVNULL)
    started = time.monotonic()
    subprocess.run([*command, "--out", place / "map.tif"], check=True, stdout=subprocess.DEVNULL)
    return Work(command, "map.tif", files_in(place), files_in(older), time.monotonic() - started)


def kills(kind: str, work: Work, folder: Path, n: int, rng: random.Random) -> None:
    """n trials, one line each, and a sum."""
    trials = []
    for number in range(n):
        trial = killed_and_resumed(work, folder / str(number), rng)
        shutil.rmtree(folder / str(number))
        trials.append(trial)
        print(
            f"{number + 1:3} {', '.join(trial.kills):60} {'same' if trial.same else 'OTHER'} {'; '.join(trial.wrong)}"
        )
        sys.stdout.flush()
    same, wrong = sum(trial.same for trial in trials), sum(bool(trial.wrong) for trial in trials)
    killed, count = sum(bool(trial.kills) for trial in trials), sum(len(trial.kills) for trial in trials)
    print(
        f"{kind}: {killed} of {n} were killed, {count} times in all; {same} of {n} ended with the same files; {wrong} "
        "with a complaint"
    )


def killed_and_resumed(work: Work, folder: Path, rng: random.Random) -> Trial:
    trial = Trial()
    for path, content in work.older.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    command = [*work.command, "--out", folder / work.name, "--resume"]
    for _ in range(rng.choice([1, 1, 2, 3])):
        name, after = rng.choice(SIGNALS), rng.uniform(0, 0.9 * work.seconds)
        jobs = ["--jobs", rng.choice(work.jobs)] if work.jobs else []
        process = subprocess.Popen(
            [*command, *jobs], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
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
        if work.jobs and process.returncode == 130 and "--resume" not in said:
            trial.wrong.append(f"nothing is said of --resume, but {said.strip()!r}")
        if took > MOST_SECONDS:
            trial.wrong.append(f"it took {took:.1f} s to end")
        time.sleep(1)
        left = [p.pid for p in psutil.process_iter() if is_of(p, process.pid)]
        if left:
            trial.wrong.append(f"{len(left)} processes are left")
        if process.returncode and files_in(folder) not in (work.older, work.files):
            trial.wrong.append("the older one has changed")
    done = subprocess.run(
        [*command, *(["--jobs", "1"] if work.jobs else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        trial.wrong.append(f"going on failed: {done.stderr.decode().strip()}")
    trial.same = files_in(folder) == work.files
    if left_hidden := [path.name for path in folder.rglob(".*")]:
        trial.wrong.append(f"{left_hidden} are left")
    return trial


def files_in(folder: Path) -> dict[Path, bytes]:
    """By path; hidden ones and what each run has of its own left out."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in OWN_WORDS]
    shown = {path.relative_to(folder): path for path in paths}
    return {name: path.read_bytes() for name, path in shown.items() if not any(p.startswith(".") for p in name.parts)}


def is_of(process: psutil.Process, session: int) -> bool:
    """Whether a process belongs to a session and still runs."""
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def soak(folder: Path, run: Path, n: int) -> None:
    """Ten lines, and how far memory lies above that of the first tenth."""
    me, figures = psutil.Process(), []
    for number in range(1, n + 1):
        model = ad.Model.load(run)
        with ad.Scene.open(*(folder / "scene" / name for name in SCENE[:2])) as scene:
            ad.predict(model, scene, out=folder / "map.tif")
        if number % max(1, n // 10) == 0:
            give_back()
            figures.append((me.memory_info().rss / 2**20, me.num_fds(), me.num_threads()))
            print(f"{number:5} maps: {figures[-1][0]:.0f} MB, {figures[-1][1]} open files, {figures[-1][2]} threads")
            sys.stdout.flush()
    highest = max(memory for memory, _, _ in figures)
    print(f"memory rose by {100 * (highest / figures[0][0] - 1):.1f} % at most after the first {n // 10}")


if __name__ == "__main__":
    main()
