"""Two network namespaces that a cable joins, whose speed can be set (Linux, as root)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

PREFIX = "shardbus-bench-"
HOSTS = ("10.77.0.1", "10.77.0.2")
NAMESPACES = Path("/var/run/netns")
CLONE_NEWNET = 0x40000000
BURST_BYTES = 16 << 10  # what passes at once: little, so that small frames are shaped as well
LATENCY = "400ms"  # of what the filter queues; TCP slows down when that is full


class CableError(Exception):
    """The system does not let us."""


class Cable(AbstractContextManager["Cable"]):
    """`ends` are the namespaces' names; each has its address of HOSTS. What an earlier run that was
    killed has left is removed first. Raises CableError.
    """

    def __init__(self) -> None:
        missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
        if missing:
            raise CableError(f"there is no {missing[0]} on this machine")
        _remove_left()
        name = f"{PREFIX}{os.getpid()}"
        self.ends = (f"{name}-a", f"{name}-b")
        self._devices = (f"sb{os.getpid()}a", f"sb{os.getpid()}b")
        try:
            self._lay()
        except BaseException:
            self._remove()
            raise

    def shape(self, mbit: int | None) -> None:
        """Both directions; None: as fast as the machine is."""
        for end, device in zip(self.ends, self._devices, strict=True):
            if mbit is None:
                if "tbf" in _run("tc", "-n", end, "qdisc", "show", "dev", device):
                    _run("tc", "-n", end, "qdisc", "del", "dev", device, "root")
                continue
            kind = ["tbf", "rate", f"{mbit}mbit", "burst", str(BURST_BYTES), "latency", LATENCY]
            _run("tc", "-n", end, "qdisc", "replace", "dev", device, "root", *kind)

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _lay(self) -> None:
        for end in self.ends:
            _run("ip", "netns", "add", end)
        (a, b), (one, other) = self.ends, self._devices
        peer = ["type", "veth", "peer", "name", other, "netns", b]
        _run("ip", "link", "add", one, "netns", a, *peer)
        for end, device, host in zip(self.ends, self._devices, HOSTS, strict=True):
            _run("ip", "-n", end, "addr", "add", f"{host}/24", "dev", device)
            _run("ip", "-n", end, "link", "set", "lo", "up")
            _run("ip", "-n", end, "link", "set", device, "up")

    def _remove(self) -> None:
        """The cable goes with its ends."""
        for end in self.ends:
            if (NAMESPACES / end).exists():
                _run("ip", "netns", "del", end)


def enter(namespace: str) -> None:
    """This thread, and all threads and processes that it starts from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / namespace).open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")


def _remove_left() -> None:
    for left in NAMESPACES.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            _run("ip", "netns", "del", left.name)


def _run(*command: str) -> str:
    """In a session of its own: a Ctrl-C must not end it half-way."""
    done = subprocess.run(
        command, capture_output=True, text=True, start_new_session=True, check=False
    )
    if done.returncode:
        raise CableError(f"`{' '.join(command)}` says: {done.stderr.strip()}")
    return done.stdout
