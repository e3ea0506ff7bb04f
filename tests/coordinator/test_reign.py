"""One coordinator at a time has a state_dir, and each has a higher term than the one before."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.coordinator import reign as module
from daemon.coordinator.reign import Occupied, Reign

# Holds the lock until it is ended; its last argument is the pid of its shardd.
HOLDER = """
import sys, time
from pathlib import Path
from daemon.coordinator.reign import Reign
reign = Reign(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def holder(folder: Path, parent: int) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", HOLDER, str(folder), "daemon.coordinator", str(parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


def test_terms_grow_and_survive_damage(tmp_path: Path) -> None:
    reign = Reign(tmp_path / "deep")
    assert (reign.term, reign.next_term(), reign.term) == (1, 2, 2)
    assert reign.next_term(at_least=9) == 9
    (tmp_path / "deep" / "term").write_text("not a number")
    assert reign.next_term(at_least=12) == 12
    assert (tmp_path / "deep" / "term").read_text() == "12"


@pytest.mark.parametrize(
    "damage", [b"9" * 16, b"9" * 5000, b"-4", b"", b"\xff\xfe", b"0x7", b"1e9"]
)
def test_a_term_that_is_none_is_not_believed(tmp_path: Path, damage: bytes) -> None:
    """With one that fits no frame nothing would work any more, at no restart either."""
    (tmp_path / "term").write_bytes(damage)
    assert Reign(tmp_path).term == 1


def test_who_finds_another_term_in_its_place_knows_it(tmp_path: Path) -> None:
    reign = Reign(tmp_path)
    assert reign.lasts()
    reign.next_term()
    assert reign.lasts()
    (tmp_path / "other").write_text("2")
    (tmp_path / "other").replace(tmp_path / "term")
    assert not reign.lasts(), "though the number is the same"
    (tmp_path / "term").unlink()
    assert reign.lasts()


def test_one_that_was_left_without_its_shardd_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVING_SECONDS", 0.0)
    with holder(tmp_path, parent=1) as left:
        monkeypatch.setattr(module, "_taken", patient_after_kill(left))
        assert Reign(tmp_path).term == 2
        assert left.wait() == -signal.SIGKILL


def test_one_that_is_stopped_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holder(tmp_path, parent=os.getpid()) as left:
        left.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, left.pid, os.WSTOPPED | os.WNOWAIT)
        monkeypatch.setattr(module, "_taken", patient_after_kill(left))
        assert Reign(tmp_path).term == 2
        assert left.wait() == -signal.SIGKILL


def test_one_that_runs_as_it_should_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVING_SECONDS", 0.0)
    with holder(tmp_path, parent=os.getpid()) as other:
        with pytest.raises(Occupied, match=rf"pid {other.pid}\) runs with .* already; stop its"):
            Reign(tmp_path)
        assert other.poll() is None
        assert (tmp_path / "term").read_text() == "1"


@pytest.mark.parametrize("written", ["", "17 elsewhere", f"x {socket.gethostname()}"])
def test_one_that_is_not_here_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setattr(module, "LEAVING_SECONDS", 0.0)
    path = tmp_path / "coordinator.lock"
    path.write_text(written)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Occupied, match="which is not here"):
            Reign(tmp_path)


def patient_after_kill(left: subprocess.Popen[str]):  # type: ignore[no-untyped-def]
    """The lock is asked for once, and again when its holder has ended."""
    taken, asked = module._taken, []

    def wait(file, seconds):  # type: ignore[no-untyped-def]
        if asked:
            left.wait()
        asked.append(seconds)
        return taken(file, 0.0)

    return wait
