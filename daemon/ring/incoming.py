"""The receiving end of the ring: frames of both paths, in the order in which they were sent."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Container
from typing import Any

import zmq

from daemon.hop_path import HopPath
from daemon.ring.junction import Junction
from transports.base import LinkReceiver, LinkState
from transports.frame import Frame
from transports.shared.port import SharedPort


class Incoming:
    """It keeps `poller` up to date with what is to be waited for: a path that is held is not.
    `stirred`: something but a frame has happened at the port since that was last set.
    """

    def __init__(self, receiver: LinkReceiver, port: SharedPort | None, poller: zmq.Poller) -> None:
        self.receiver = receiver
        self.stirred = False
        self._poller = poller
        self._junction = Junction()
        self._ends: dict[HopPath, LinkReceiver] = {HopPath.ZMQ: receiver}
        if port is not None:
            self._ends[HopPath.RDMA] = port
        self._polled: list[tuple[HopPath, Any]] = []
        self._ready: list[HopPath] = []
        self._served = HopPath.RDMA
        self._register()

    def readable(self, ready: Container[Any]) -> bool:
        """Whether one of those that are ready is ours; `receive` looks only there."""
        found: list[HopPath] = []
        for path, pollable in self._polled:
            if pollable in ready:
                found.append(path)
        self._ready = found
        if held := self._junction.held:
            self._awaited(held.other)
        return bool(found)

    def receive(self) -> Frame | None:
        """From each path in turn: one that always has a frame keeps no process from connecting to
        the other.
        """
        for path in sorted(self._ready, key=lambda path: path is self._served):
            while path is not self._junction.held:
                frame = self._ends[path].receive(0)
                if frame is None:
                    self.stirred |= path is HopPath.RDMA
                    break
                if (turn := frame.turn) is None:
                    self._served = path
                    return frame
                self._junction.turned(path, frame.term, turn)
                self._register()
        return None

    def connected(self, rdma: bool) -> None:
        """Whether there is an rdma process that frames may come from."""
        change = self._junction.opened if rdma else self._junction.closed
        change(HopPath.RDMA)
        self._register()

    @property
    def held(self) -> HopPath | None:
        """The path that is not read now."""
        return self._junction.held

    def wait_ms(self, most: int, now: float) -> int:
        """For how long to wait for something while a path is held, at most so long. Not at all
        before the other one was found empty: only from then on does time count.
        """
        until = self._junction.until
        return 0 if until == math.inf else max(0, min(most, math.ceil((until - now) * 1000)))

    @property
    def dropped(self) -> Counter[str]:
        """What came and was no frame, by cause."""
        return sum((end.stats.errors for end in self._ends.values()), Counter[str]())

    def close(self) -> None:
        """The port stays: it is the process's."""
        for _, pollable in self._polled:
            self._poller.unregister(pollable)
        self._polled = []
        self.receiver.close()

    def _awaited(self, path: HopPath) -> None:
        """The other one is held because of it: whether it has anything, as was just found."""
        if path in self._ready:
            self._junction.busy()
            return
        self._junction.empty(time.monotonic(), self._ends[path].state is LinkState.UP)
        self._register()

    def _register(self) -> None:
        wanted = [p for p in self._ends if p is not self._junction.held]
        if wanted == [path for path, _ in self._polled]:
            return
        polled = dict(self._polled)
        for path in polled.keys() - wanted:
            self._poller.unregister(polled[path])
        for path in wanted:
            if path not in polled:
                polled[path] = self._ends[path].pollable
                self._poller.register(polled[path], zmq.POLLIN)
        self._polled = [(path, polled[path]) for path in wanted]
