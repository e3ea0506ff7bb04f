"""The nice value of a session."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import autogroup
from daemon.supervisor.child import Child, Exit
from daemon.supervisor.policy import RestartRules

OURS = Path("/proc/self/autogroup")
SCRIPT = """
import sys
from daemon import autogroup
print("up", flush=True)
sys.stdin.readline()
while autogroup._nice(autogroup.os.getpid()):
    autogroup.take_back()
print(open("/proc/self/autogroup").read().split()[-1])
"""


@pytest.mark.skipif(not OURS.exists(), reason="threads are not grouped by session here")
def test_a_session_is_nice_until_it_takes_that_back() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        while not autogroup.change(process.pid, 7):
            pass  # another process has changed its own just now
        assert Path(f"/proc/{process.pid}/autogroup").read_text().endswith(" 7\n")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "0\n"


@pytest.mark.parametrize("nice", [0, 7])
def test_a_child_is_started_nice(
    nice: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[Exit] = []
    changed: list[tuple[int, int]] = []
    monkeypatch.setattr(autogroup, "change", lambda *of: changed.append(of))
    command, once = [sys.executable, "-c", ""], RestartRules(burst=0)
    child = Child("c", command, dict(os.environ), tmp_path / "log", exits.append, once, nice)
    asyncio.run(child.run())
    assert changed == ([(exits[0].pid, nice)] if nice else [])


def test_a_kernel_that_is_busy_is_asked_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "autogroup"
    file.write_text("/autogroup-1 nice 10\n")
    busy, write = [1, 2], Path.write_text

    def write_text(path: Path, text: str) -> int:
        if busy:
            busy.pop()
            raise BlockingIOError
        return write(path, text)

    monkeypatch.setattr(autogroup, "_file", lambda pid: file)
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    monkeypatch.setattr(Path, "write_text", write_text)
    for wanted in ("/autogroup-1 nice 10\n", "/autogroup-1 nice 10\n", "0", "0"):
        autogroup.take_back()
        assert file.read_text() == wanted


def test_the_session_of_others_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(pid: int, nice: int) -> bool:
        raise AssertionError("changed")

    monkeypatch.setattr(autogroup, "change", change)
    monkeypatch.setattr(autogroup, "_nice", lambda pid: 10)
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid() + 1)
    autogroup.take_back()


def test_without_such_groups_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(autogroup, "_file", lambda pid: tmp_path / "none" / "autogroup")
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    assert not autogroup.change(os.getpid(), 10)
    autogroup.take_back()
