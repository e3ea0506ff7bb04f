"""Memory that two processes share, without a name that could be left over."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import tempfile
import threading

from transports.shared.layout import LANES, region_bytes


class RegionDamaged(Exception):
    """The other process wrote what cannot be there. Never leaves this package and its user."""


class Region:
    """A mapping of the memory behind `fd`, which may be closed afterwards. It is unmapped when
    nothing refers to it any more.
    """

    def __init__(self, fd: int, capacity: int) -> None:
        """OSError or ValueError when there is less memory than that."""
        self.capacity = capacity
        mapped = mmap.mmap(fd, region_bytes(capacity))
        self.memory = memoryview(mapped)
        self.words = self.memory[:LANES].cast("Q")  # each is read and written whole
        self._lock = threading.Lock()

    def fence(self) -> None:
        """What this thread did before is seen before what it does behind. Python has no fence, but
        a lock that is released and taken again orders memory on every processor.
        """
        lock = self._lock
        lock.acquire()
        lock.release()
        lock.acquire()
        lock.release()


def create(capacity: int) -> int:
    """A descriptor of zeroed memory for a region; its pages are used as they are written."""
    if sys.platform == "linux":
        fd = os.memfd_create("shardbus-rdma", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, region_bytes(capacity))
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd
    else:
        with tempfile.TemporaryFile() as file:
            os.ftruncate(file.fileno(), region_bytes(capacity))
            return os.dup(file.fileno())
