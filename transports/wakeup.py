"""A file descriptor that is readable while set, so that a poller can wait for something inside this
process.
"""

from __future__ import annotations

import os


class Wakeup:
    """A pipe with at most one byte in it."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        self._is_set = False

    def set(self, wanted: bool) -> None:
        if wanted and not self._is_set:
            os.write(self._write, b"\0")
        elif self._is_set and not wanted:
            os.read(self.fd, 1)
        self._is_set = wanted

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._write)
