"""Files written whole, and which hidden folders may be removed: only those whose holder has ended."""

import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from affine import Affine

from adcdnet.errors import InputError
from adcdnet.files import HeldFolder, remove_left, write_whole
from adcdnet.geo.classes import ClassTable
from adcdnet.geo.grid import Grid
from adcdnet.geo.raster_writer import write_raster
from conftest import left_by_a_killed_process

HOLDS = """
import sys
from pathlib import Path
from adcdnet.files import HeldFolder
held = HeldFolder.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_removed_once_its_holder_was_killed_and_not_before(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    call = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert HeldFolder.hold(folder) is None
        remove_left([folder])
        assert folder.exists()
        holder.kill()
        holder.wait()
    remove_left([folder, tmp_path / "missing"])
    assert not folder.exists()


def test_this_process_holds_too_until_it_lets_go(tmp_path):
    held = HeldFolder.make(tmp_path, ".x.", ".part")
    assert held.path.name.startswith(".x.")
    assert held.path.name.endswith(".part")
    assert HeldFolder.hold(held.path) is None
    remove_left([held.path])
    assert held.path.exists()
    held.release()
    held.release()
    remove_left([held.path])
    assert not held.path.exists()


def test_other_folders_stay(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").write_text("")
    remove_left(tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "file"}


def test_what_a_killed_process_left_is_a_held_folder(tmp_path):
    assert HeldFolder.hold(left_by_a_killed_process(tmp_path / "b")) is not None


# ---- files written whole


@pytest.mark.parametrize("name", [".a.json.part", ".a.json.00.part"])
def test_a_link_laid_at_the_name_of_a_part_does_not_lead_to_its_victim(tmp_path, monkeypatch, name):
    """Whether or not the name is guessed."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / name).symlink_to(tmp_path / "victim")
    monkeypatch.setattr("adcdnet.files.secrets.token_hex", lambda _: "00")
    with nullcontext() if name == ".a.json.part" else pytest.raises(InputError, match="cannot be written: File exists"):
        write_whole(tmp_path / "a.json", b"new")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / name).is_symlink()


def write_map(path):
    grid = Grid(3, 5, Affine(1, 0, 0, 0, -1, 0), None)
    write_raster(path, np.ones((3, 5), np.uint8), grid, classes=ClassTable.numbered(["a"]))


@pytest.mark.parametrize("write", [lambda path: write_whole(path, b"new"), write_map])
def test_content_is_on_disk_before_a_file_has_its_name_and_then_the_name(tmp_path, monkeypatch, write):
    done, sync, replace = [], os.fsync, os.replace

    def record_sync(handle):
        done.append(("sync", os.fstat(handle).st_ino))
        sync(handle)

    def record_replace(part, path):
        done.append(("name", os.stat(part).st_ino))
        replace(part, path)

    monkeypatch.setattr("adcdnet.files.os.fsync", record_sync)
    monkeypatch.setattr("adcdnet.files.os.replace", record_replace)
    write(tmp_path / "a.tif")
    file = (tmp_path / "a.tif").stat().st_ino
    assert done[:3] == [("sync", file), ("name", file), ("sync", tmp_path.stat().st_ino)]


def test_a_file_has_the_rights_that_others_of_its_user_have(tmp_path):
    write_whole(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
