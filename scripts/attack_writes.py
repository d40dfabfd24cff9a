"""What becomes of a training and of a map when the process dies, the disk fills or the power fails at a write.

    python scripts/attack_writes.py kill|full|gone|power [--of train predict] [--every 1] [--seed 0]

Each call that changes a file is one moment: a write, creation, truncation, fsync, rename or removal (`traced.py`).
    kill   the process dies before it; every other write is torn, half of its bytes are there
    full   there is no room from then on (in turn no room and no quota), at every write and creation
    gone   the folder of the work is taken away
    power  what no fsync had put on disk is lost in part, at random: writes one by one, names from some moment on

In the place of the work lies an older one. It must stay whole until the new one is, nothing else may appear, an error
must be one line, and the same command with --resume must end with the same files as an undisturbed one. States are
kept at every step, and tiles are of 16 pixels, so that there are many moments. Linux on x86-64.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import traced
from attack_files import end_as
from traced import DONE, Call, Verdict

from adcdnet.config import TrainConfig
from adcdnet.demo.run import SCENE, write_scene
from adcdnet.files import MODEL_FILE
from adcdnet.mapping import memory
from adcdnet.training.stages import loop

SETTINGS = {
    "network": {"widths": [4, 5, 6], "hidden": 7, "token_dims": [6, 8], "patch": 9},
    "members": ["adcdnet", "perceptron"],
    "split": {"folds": 2, "block": 16},
    "stage1": {"steps": 2, "tiles": 2, "tile": 16, "batch": 8, "targets": 32},
    "stage2": {"steps": 3, "tiles": 2, "tile": 16, "batch": 8, "targets": 64},
    "passes": 0.0,
    "validations": 1,
}
OWN_WORDS = {"timing.json", "inputs.json"}  # times, and the command as it was typed
TAKES = ("write", "create", "allocate", "mkdir")  # room on the disk


@dataclass(frozen=True)
class Work:
    """words: the command, beside --out. place: the run or map it makes, under the folder it works in."""

    words: Sequence[str]
    place: str
    older: Path
    expected: Path

    def command(self, folder: Path, *, resume: bool = True) -> list[str]:
        return [*self.words, "--out", str(folder / self.place), *(["--resume"] if resume else [])]


@dataclass
class Sum:
    """ended: how trials ended, in words. bad: what must not be, each with its moment."""

    ended: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=list(ATTACKS))
    parser.add_argument("--of", nargs="+", choices=("train", "predict"), default=("train", "predict"))
    parser.add_argument("--every", type=int, default=1, help="only each of so many moments")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads of the parent would not live in its children
    loop.LEAST, loop.SHARE = 0.0, 1e9
    memory.SMALLEST_TILE = memory.LARGEST_TILE = 16
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        works = prepare(Path(name).resolve())
        for kind in given.of:
            found = Sum()
            moments = ATTACKS[given.attack](
                works[kind], Path(name).resolve() / "desk", found, given.every, random.Random(given.seed)
            )
            print(f"{given.attack} {kind}: {moments} moments, {sum(found.ended.values())} tried")
            for words, count in found.ended.most_common():
                print(f"  {count:5} {words}")
            for words in found.bad:
                print(f"  BAD {words}")
            wrong += len(found.bad)
            sys.stdout.flush()
    return int(wrong > 0)


def prepare(folder: Path) -> dict[str, Work]:
    """A training and a prediction, and what they leave undisturbed."""
    write_scene(folder / "scene", seed=0, size=64, ratio=2)
    settings = folder / "settings.toml"
    settings.write_text(TrainConfig.of_profile("patch").replace(SETTINGS).to_toml())
    pair = [word for k, option in enumerate(("--ms", "--pan")) for word in (option, str(folder / "scene" / SCENE[k]))]
    rest = ["--labels", str(folder / "scene" / SCENE[2]), "--config", str(settings), "--device", "cpu", "--jobs", "1"]
    train = Work(["train", *pair, *rest], "run", folder / "older" / "run", folder / "new" / "run")
    for seed, run in ((1, train.older), (0, train.expected)):
        ended, said = call([*train.words, "--seed", str(seed), "--out", str(run)], folder / "said")
        assert not ended, said
    train = Work([*train.words, "--seed", "0"], "run", train.older, train.expected)
    predict = ["predict", str(train.expected), *pair, "--device", "cpu"]
    maps = Work(predict, "map.tif", folder / "older-map", folder / "new-map")
    for run, made in ((train.older, maps.older), (train.expected, maps.expected)):
        made.mkdir()
        ended, said = call(["predict", str(run), *predict[2:], "--out", str(made / "map.tif")], folder / "said")
        assert not ended, said
    return {"train": train, "predict": maps}


def call(words: Sequence[str], said: Path) -> tuple[int, str]:
    """Exit code and words of a command that nobody disturbs, in a process of its own."""
    child = os.fork()
    if not child:
        end_as(words, said)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text("utf-8", "replace")


def files_of(folder: Path) -> dict[str, bytes]:
    """By name, of a run or of the maps in a folder; hidden ones and what each run has of its own left out."""
    if not folder.exists():
        return {}
    shown = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in OWN_WORDS)
    return {str(path.relative_to(folder)): path.read_bytes() for path in shown if not hidden(path, folder)}


def hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def fresh(work: Work, desk: Path) -> Path:
    """The folder of a trial, in which the older run or map lies."""
    shutil.rmtree(desk, ignore_errors=True)
    shutil.copytree(work.older, desk / work.place if work.place == "run" else desk)
    return desk


def made(work: Work, desk: Path) -> Path:
    return desk / work.place if work.place == "run" else desk


def judge(work: Work, desk: Path) -> str:
    """Which files lie in the place: 'older', 'new', 'mixed' (told apart by their digests), or what else is there."""
    now, older, new = (files_of(folder) for folder in (made(work, desk), work.older, work.expected))
    if now == new:
        return "the new one is there"
    if now == older:
        return "the older one is there"
    if set(now) <= {*older, *new} and all(now[name] in (older.get(name), new.get(name)) for name in now):
        model = now.get(MODEL_FILE)
        return (
            "files of both are there, the older model" if model == older.get(MODEL_FILE) else "files of both, the NEW"
        )
    return "DAMAGED files are there"


def resumed(work: Work, desk: Path) -> str | None:
    """What is wrong after the same command with --resume; None where all is as undisturbed."""
    said = desk.parent / "said"
    ended, words = call(work.command(desk), said)
    if ended:
        return f"--resume ends with {ended}: {words.strip()[-200:]}"
    if (found := judge(work, desk)) != "the new one is there":
        return f"after --resume {found}"
    left = [path.name for path in desk.rglob(".*")]
    return f"{left} are left" if left else None


def moments_of(work: Work, desk: Path) -> list[Call]:
    """All calls of an undisturbed run."""
    calls: list[Call] = []

    def look(one: Call) -> Verdict:
        calls.append(one)
        return DONE

    folder = fresh(work, desk)
    ended = traced.run(partial(end_as, work.command(folder), desk.parent / "said"), folder, look)
    assert not ended, (desk.parent / "said").read_text()
    assert judge(work, folder) == "the new one is there", judge(work, folder)
    return calls


def tried(
    work: Work, desk: Path, found: Sum, moments: Sequence[Call], every: int, decide: Callable[[Call], Verdict]
) -> Iterator[tuple[Call, int, str]]:
    """At each moment: the call before which it comes, how the process ended, and what it said."""
    said = desk.parent / "said"
    for moment in moments[::every]:
        folder = fresh(work, desk)

        def at_moment(one: Call, number: int = moment.number) -> Verdict:
            return decide(one) if one.number >= number else DONE

        ended = traced.run(partial(end_as, work.command(folder), said), folder, at_moment)
        yield moment, ended, said.read_text("utf-8", "replace").strip()


def kill(work: Work, desk: Path, found: Sum, every: int, rng: random.Random) -> int:
    moments = moments_of(work, desk)

    def decide(one: Call) -> Verdict:
        torn = one.kind == "write" and rng.random() < 0.5
        return Verdict(bytes=len(one.data) // 2) if torn else Verdict(kill=True)

    for moment, ended, _ in tried(work, desk, found, moments, every, decide):
        state = judge(work, desk)
        wrong = resumed(work, desk)
        found.ended[f"{state}; --resume {'FAILS' if wrong else 'ends with the same files'}"] += 1
        if ended != -9 or wrong or "NEW" in state or "DAMAGED" in state:
            found.bad.append(f"{named(moment, desk)}: ended {ended}, {state}, {wrong}")
    return len(moments)


def full(work: Work, desk: Path, found: Sum, every: int, rng: random.Random) -> int:
    moments = moments_of(work, desk)
    taking = [one for one in moments if one.kind in TAKES]
    error = [errno.ENOSPC]

    def decide(one: Call) -> Verdict:
        return Verdict(error=error[0]) if one.kind in TAKES else DONE

    for moment, ended, said in tried(work, desk, found, taking, every, decide):
        error[0] = errno.EDQUOT if error[0] == errno.ENOSPC else errno.ENOSPC
        judge_error(work, desk, found, moment, ended, said)
    return len(taking)


def gone(work: Work, desk: Path, found: Sum, every: int, rng: random.Random) -> int:
    moments, away = moments_of(work, desk), desk.with_name("away")

    def decide(one: Call) -> Verdict:
        if not away.exists():
            desk.rename(away)
        return DONE

    for moment, ended, said in tried(work, desk, found, moments, every, decide):
        if away.exists() and (ended or not desk.exists()):  # otherwise it made the folder anew, and all in it
            shutil.rmtree(desk, ignore_errors=True)
            away.rename(desk)
        shutil.rmtree(away, ignore_errors=True)
        judge_error(work, desk, found, moment, ended, said)
    return len(moments)


def judge_error(work: Work, desk: Path, found: Sum, moment: Call, ended: int, said: str) -> None:
    """A command whose write failed: one line and code 1, or done all the same where the write was of no matter."""
    state = judge(work, desk)
    line = (said.splitlines() or [""])[-1]
    clear = ended == 1 and line.startswith("adcdnet: ") and "Traceback" not in said
    done = ended == 0 and state == "the new one is there"
    wrong = resumed(work, desk)
    how = "one line" if clear else "done" if done else f"ENDED WITH {ended}"
    found.ended[f"{how}; {state}; --resume {'FAILS' if wrong else 'ends with the same files'}"] += 1
    if not (clear or done) or wrong or "NEW" in state or "DAMAGED" in state:
        found.bad.append(f"{named(moment, desk)}: {how}, {state}, {wrong}; {said[-300:]!r}")


def power(work: Work, desk: Path, found: Sum, every: int, rng: random.Random) -> int:
    folder = fresh(work, desk)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    folders = {path for path in (folder, *folder.rglob("*")) if path.is_dir()}
    moments = moments_of(work, desk)
    for cut in range(1, len(moments) + 2, every):
        lay_down(after_the_cut(moments[: cut - 1], before, folders, rng), desk)
        state = judge(work, desk)
        wrong = resumed(work, desk)
        found.ended[f"{state}; --resume {'FAILS' if wrong else 'ends with the same files'}"] += 1
        if wrong or "NEW" in state or "DAMAGED" in state:
            place = named(moments[cut - 1], desk) if cut <= len(moments) else "the end"
            found.bad.append(f"before {place}: {state}, {wrong}")
    return len(moments) + 1


Names = dict[Path, int | None]  # a file's number, or None for a folder


def after_the_cut(
    calls: Sequence[Call], before: dict[Path, bytes], folders: set[Path], rng: random.Random
) -> dict[Path, bytes | None]:
    """What a disk holds after the power failed: content by path, None for a folder.

    A file's bytes are there from its fsync on; of later writes each is there or not. Changes of names come one after
    another, and are there from the next fsync of any folder on; of later ones the first few are.
    """
    names: Names = dict.fromkeys(folders) | {path: k for k, path in enumerate(before)}
    now, content = dict(names), dict(enumerate(before.values()))
    later: dict[int, list[Call]] = {}
    changes: list[Names] = []
    for one in calls:
        path, number = one.paths[0], now.get(one.paths[0])
        if one.kind in ("write", "truncate", "allocate") and number is not None:
            later.setdefault(number, []).append(one)
        elif one.kind == "fsync" and path in now:
            if number is not None:
                for write in later.pop(number, []):
                    content[number] = written(content[number], write)
            else:
                names, changes = dict(now), []
        elif one.kind in ("create", "mkdir"):
            number = None if one.kind == "mkdir" else len(content)
            if number is not None:
                content[number] = b""
            now[path] = number
        elif one.kind in ("unlink", "rmdir"):
            now.pop(path, None)
        elif one.kind == "rename":
            moved = {p: now.pop(p) for p in list(now) if p == path or path in p.parents}
            now |= {one.paths[1] / p.relative_to(path): number for p, number in moved.items()}
        else:
            assert one.kind == "fsync", one
        if one.kind in ("create", "mkdir", "unlink", "rmdir", "rename"):
            changes.append(dict(now))
    kept = rng.randint(0, len(changes))
    names = changes[kept - 1] if kept else names
    for number, writes in later.items():
        for write in writes:
            if rng.random() < 0.5:
                content[number] = written(content[number], write)
    return {path: None if number is None else content[number] for path, number in names.items()}


def written(content: bytes, call: Call) -> bytes:
    if call.kind == "truncate":
        return content[: call.offset].ljust(call.offset, b"\0")
    return content.ljust(call.offset, b"\0")[: call.offset] + call.data + content[call.offset + len(call.data) :]


def lay_down(files: dict[Path, bytes | None], desk: Path) -> None:
    shutil.rmtree(desk, ignore_errors=True)
    desk.mkdir()
    for path in sorted(files):
        content = files[path]
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in [desk, *desk.rglob("*")]:
        os.utime(path, (0, 0))  # the power comes back some time later


def named(moment: Call, desk: Path) -> str:
    return f"{moment.number} {moment.kind} {' to '.join(os.path.relpath(path, desk) for path in moment.paths)}"


ATTACKS: dict[str, Callable[[Work, Path, Sum, int, random.Random], int]] = {
    "kill": kill,
    "full": full,
    "gone": gone,
    "power": power,
}

if __name__ == "__main__":
    sys.exit(main())
