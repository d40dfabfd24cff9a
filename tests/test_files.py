"""Whose temporary files may be removed: only those of processes that have ended for sure."""

import os
import sys

import pytest

from adcdnet import files as module
from adcdnet.files import is_gone, owner
from conftest import ended_process


@pytest.mark.skipif(sys.platform == "win32", reason="processes of others cannot be asked for there")
def test_a_process_that_ended_is_gone_and_one_that_runs_is_not():
    machine, number = owner().split("-")
    assert number == str(os.getpid())
    assert is_gone(ended_process())
    assert not is_gone(owner())
    assert not is_gone(f"{machine}-1")  # another user's


def test_nothing_is_said_of_other_machines_or_of_no_owner_at_all(monkeypatch):
    ended = ended_process()
    assert not is_gone("")
    assert not is_gone(ended.split("-")[0])
    assert not is_gone(f"{ended}x")
    monkeypatch.setattr(module.platform, "node", lambda: "elsewhere")
    assert not is_gone(ended)


def test_a_platform_without_signals_keeps_everything(monkeypatch):
    ended = ended_process()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", None)  # where it ends the process instead of asking
    assert not is_gone(ended)
