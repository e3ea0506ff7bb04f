"""The reign of one coordinator over a state_dir: its lock, and its term, a number that grows with
every start, so that two coordinators are never taken for one.

On one machine the lock keeps them apart: who was left behind, stopped or without its shardd, is
ended by who follows. A state_dir that a second machine uses as well (a lock may be lost there, and
nobody can end a process elsewhere) is guarded by the term's file alone: whoever finds another's in
its place acts no more.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from pathlib import Path

import psutil

from daemon import logs

log = logs.get("coordinator")

LEAVING_SECONDS = 3.0  # that a coordinator before this one may take to end by itself
POLL_SECONDS = 0.05
_TERM_DIGITS = 15  # of a term that is believed: a start each second comes to ten


class Occupied(Exception):
    """Another coordinator has the state_dir. The operator's fault; the text says what to do."""


class Reign:
    """From construction to the end of the process."""

    def __init__(self, folder: Path) -> None:
        """Occupied when another coordinator acts there, OSError when the folder cannot be used."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "term"
        self._lock = _locked(folder / "coordinator.lock")
        self._file = -1
        self.term = self.next_term()

    def next_term(self, at_least: int = 1) -> int:
        """A higher term, on disk before anybody hears of it."""
        self.term = max(_last(self._path) + 1, at_least)
        fresh = self._path.with_suffix(".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(file, str(self.term).encode())
        os.fsync(file)
        fresh.replace(self._path)
        if self._file >= 0:
            os.close(self._file)
        self._file = file  # while it is open, no other file has its inode
        self._inode = os.fstat(file).st_ino
        return self.term

    def lasts(self) -> bool:
        """Whether no other coordinator has taken a term here. Cheap: asked before every deed."""
        try:
            return os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            return True  # somebody has tidied up: no other coordinator has written one


def _last(path: Path) -> int:
    """The term that the file names; 0 where there is none, or it is damaged: the stages' hellos
    raise it above what they have obeyed. OSError when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            term = int(file.read(_TERM_DIGITS + 1))
    except (FileNotFoundError, ValueError):
        return 0
    return term if 0 < term < 10**_TERM_DIGITS else 0


def _locked(path: Path) -> int:
    """The lock's file, which names who holds it. It stays open."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _taken(file, LEAVING_SECONDS):
            _end(path, os.pread(file, 200, 0).decode("utf-8", "replace"))
            if not _taken(file, LEAVING_SECONDS):
                raise Occupied(f"{path} is still locked after its holder was killed; ask again")
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    except BaseException:
        os.close(file)
        raise
    return file


def _taken(file: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)


def _end(path: Path, holder: str) -> None:
    """Kill who was left behind: a coordinator that is stopped, or whose shardd is gone. Occupied
    when it is neither, or cannot be told to be.
    """
    pid, _, host = holder.strip().partition(" ")
    todo = "stop its shardd, or give this node a node.state_dir of its own"
    if host != socket.gethostname() or not pid.isdecimal():
        raise Occupied(f"{path} is locked by {holder.strip()!r}, which is not here; {todo}")
    try:
        process = psutil.Process(int(pid))
        words = process.cmdline()
        stopped = process.status() == psutil.STATUS_STOPPED
        orphan = str(process.ppid()) != words[-1]
    except (psutil.Error, IndexError):
        return  # it ends just now
    if "daemon.coordinator" not in words or not (stopped or orphan):
        raise Occupied(f"a coordinator (pid {pid}) runs with {path.parent} already; {todo}")
    log.warning("a coordinator (pid %s) was left behind here: killed", pid)
    os.kill(int(pid), signal.SIGKILL)
