"""One shardd of a local cluster: starting it, and knowing it again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from daemon.local.errors import LocalError

SHARDD: tuple[str, ...] = (sys.executable, "-m", "daemon")
START_TOLERANCE = 2.0  # create_time moves with the system clock; a pid comes back much later
TAIL_LINES = 8
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class LocalNode:
    """One shardd. `started` is its process's start time, which tells it from a later process with
    the same pid.
    """

    name: str
    config: Path
    log: Path
    pid: int = 0
    started: float = 0.0

    def process(self) -> psutil.Process | None:
        """The running process, or None when it has ended and the pid may be somebody else's."""
        if self.pid <= 0:
            return None
        try:
            process = psutil.Process(self.pid)
            same = (
                abs(process.create_time() - self.started) < START_TOLERANCE
                and str(self.config) in process.cmdline()
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return None
        return process if same else None


def spawn(node: LocalNode, children: list[subprocess.Popen[bytes]]) -> LocalNode:
    """Start it in a session of its own, so that the terminal's Ctrl-C does not reach it. The child
    is in `children` before anything else can fail.
    """
    root = str(Path(__file__).resolve().parents[2])
    given = os.environ.get("PYTHONPATH")
    # Variables that override the configuration are meant for this machine's own daemon.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHARDBUS_")}
    environment["PYTHONPATH"] = f"{root}{os.pathsep}{given}" if given else root
    try:
        with node.log.open("ab") as log:
            child = subprocess.Popen(
                [*SHARDD, "--config", str(node.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
    except OSError as error:
        why = error.strerror or str(error)
        raise LocalError(f"node {node.name} cannot be started", why, f"see {node.log}") from error
    children.append(child)
    try:
        started = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:
        started = 0.0  # it has ended already; the caller sees that from its exit status
    return replace(node, pid=child.pid, started=started)


def leads_session(pid: int) -> bool:
    """Whether a process `pid` exists and leads its session: then that session is not an old one of
    ours, whose leader has ended.
    """
    try:
        return os.getsid(pid) == pid
    except (ProcessLookupError, PermissionError):
        return False


def size_of(file: Path) -> int:
    """Bytes in a file; 0 when there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def tail(file: Path, offset: int) -> list[str]:
    """The last lines that were written after `offset`."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(offset, size_of(file) - TAIL_BYTES))
            lines = deque(stream.read().decode("utf-8", "replace").splitlines(), TAIL_LINES)
    except OSError:
        return []
    return list(lines)
