"""`python -m benchmarks.paced.relay`: the links of a paced run, all in one process.

A stage asks for a hop to where it would connect, and connects to what it is told instead. A frame
occupies its hop for as long as it takes, whatever the processes at the ends do; the next one waits.
It is let go a little early, so that the last socket's time is part of the hop's; who receives it
keeps it until the hop is over (`benchmarks.paced.ends`).
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import zmq

from benchmarks.paced.plan import PacedPlan
from transports.frame import FrameKind

KIND_AT = 6  # see transports.wire
QUEUE = 1000
AWAKE_SECONDS = 1e-3  # before a frame is due: a poll cannot wait for less


class Hop:
    """One frame at a time, in order."""

    def __init__(self, context: zmq.Context[Any], target: str, early: float) -> None:
        self.pull = context.socket(zmq.PULL)
        self._push = context.socket(zmq.PUSH)
        for socket in (self.pull, self._push):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, QUEUE)
            socket.setsockopt(zmq.RCVHWM, QUEUE)
        self._push.connect(target)
        self.address = f"tcp://127.0.0.1:{self.pull.bind_to_random_port('tcp://127.0.0.1')}"
        self._under_way: deque[tuple[float, list[bytes]]] = deque()
        self._free = 0.0
        self._early = early

    @property
    def due(self) -> float:
        return self._under_way[0][0] if self._under_way else float("inf")

    def take(self, parts: list[bytes], now: float, seconds: float) -> None:
        self._free = max(now, self._free) + seconds
        self._under_way.append((self._free - self._early, parts))

    def deliver(self) -> None:
        """The oldest."""
        self._push.send_multipart(self._under_way.popleft()[1])


class Relay:
    def __init__(self, plan: PacedPlan) -> None:
        self._plan = plan
        self._context: zmq.Context[Any] = zmq.Context()
        self._asked = self._context.socket(zmq.REP)
        self._asked.bind(plan.relay)
        self._poller = zmq.Poller()
        self._poller.register(self._asked, zmq.POLLIN)
        self._hops: dict[Any, Hop] = {}

    def run(self) -> None:
        """Until a signal ends the process."""
        while True:
            due = min((hop.due for hop in self._hops.values()), default=float("inf"))
            left = due - time.monotonic() - AWAKE_SECONDS
            ready = dict(self._poller.poll(int(max(0.0, min(left, 1.0)) * 1000)))
            now = time.monotonic()
            for socket, hop in self._hops.items():
                if socket in ready:
                    parts = socket.recv_multipart()
                    result = parts[0][KIND_AT] == FrameKind.RESULT
                    payload = sum(map(len, parts[1:]))
                    hop.take(parts, now, self._plan.hop_seconds(result, payload))
                while hop.due <= now:
                    hop.deliver()
            if self._asked in ready:
                self._asked.send_string(self._open(self._asked.recv_string()))

    def _open(self, target: str) -> str:
        hop = Hop(self._context, target, self._plan.early_seconds)
        self._hops[hop.pull] = hop
        self._poller.register(hop.pull, zmq.POLLIN)
        return hop.address


def open_hop(relay: str, target: str) -> str:
    """Where to connect to instead."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.setsockopt(zmq.RCVTIMEO, 5000)
    try:
        socket.connect(relay)
        socket.send_string(target)
        return str(socket.recv_string())
    finally:
        context.destroy(linger=0)


if __name__ == "__main__":
    Relay(PacedPlan.of_environment()).run()
