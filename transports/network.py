"""The place where in-memory links live: names, faults, and one lock for all of it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from transports.channel import Channel
from transports.faults import Faults
from transports.records import Buffer

_INJECTED = -1


class MemoryNetwork:
    """The place where names live. Nothing is shared between two of them.

    With `codec` frames travel as bytes, as everywhere else; without, the objects themselves do,
    which is faster and tests less. Waiting (send and receive with a timeout) is in real time, only
    `latency_s` follows `clock`.
    """

    def __init__(
        self,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        codec: bool = True,
    ) -> None:
        self.rng = rng or random.Random(0)
        self.clock = clock
        self.codec = codec
        self.lock = threading.Condition(threading.RLock())
        self._channels: dict[str, Channel] = {}
        self._senders = 0

    def channel(self, name: str) -> Channel:
        with self.lock:
            return self._channels.setdefault(name, Channel())

    def number_sender(self) -> int:
        with self.lock:
            self._senders += 1
            return self._senders

    def faults(self, name: str) -> Faults:
        """The faults of the link to `name`, to be changed in place."""
        return self.channel(name).faults

    def sever(self, name: str) -> None:
        """Cut the link: what is under way is lost and senders are DOWN until `restore`."""
        self._change(name, severed=True)

    def restore(self, name: str) -> None:
        self._change(name, severed=False)

    def stall(self, name: str) -> None:
        """The receiver gets nothing until `resume`; senders find the queue full."""
        self._change(name, stalled=True)

    def resume(self, name: str) -> None:
        self._change(name, stalled=False)

    def inject(self, name: str, parts: list[Buffer]) -> None:
        """Put any bytes on the link, as a foreign program might."""
        with self.lock:
            channel = self.channel(name)
            if channel.connected:
                channel.put(_INJECTED, parts, self.clock(), self.rng)
            self.lock.notify_all()

    def _change(self, name: str, severed: bool | None = None, stalled: bool | None = None) -> None:
        with self.lock:
            channel = self.channel(name)
            channel.severed = channel.severed if severed is None else severed
            channel.stalled = channel.stalled if stalled is None else stalled
            if channel.severed:
                channel.drop()
            channel.changed()
            self.lock.notify_all()

    def check_integrity(self) -> None:
        with self.lock:
            for channel in self._channels.values():
                channel.check_integrity()
