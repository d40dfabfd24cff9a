"""Which hidden folders may be removed: only those whose holder has ended, whatever ended it."""

import subprocess
import sys

from adcdnet.files import HeldFolder, remove_left
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
