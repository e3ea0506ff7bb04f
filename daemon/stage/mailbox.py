"""From one thread to another, with a file descriptor that a poller can wait for."""

from __future__ import annotations

import os
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A pipe with one byte for each item. Any thread may put; one takes."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        self._items.append(item)
        os.write(self._write, b"\0")

    def take(self) -> T:
        """The oldest item; waits for one."""
        os.read(self.fd, 1)
        return self._items.popleft()

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._write)
