"""Two rings in one process: the second takes what the first sends, by ZeroMQ or by a pump that
stands for the rdma processes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import zmq

from daemon.ring import Lost, Ring
from tests.shared.pump import Pump
from transports.frame import Frame, FrameKind
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.shared.port import SharedPort

LAYOUT = (1, 1)
WATCHDOG_S = 0.4
PATIENCE_S = 20.0


def numbered(number: int) -> Frame:
    return Frame(FrameKind.WORK, *LAYOUT, number)


class End:
    """A ring that is polled as a stage polls it. `got` are the numbers of the frames that came."""

    def __init__(self, context: zmq.Context[Any], port: SharedPort) -> None:
        self.port = port
        self.poller = zmq.Poller()
        self.ring = Ring(
            context, "tcp://127.0.0.1:0", (), 2.0, self.poller, PATIENCE_S, port=self.port
        )
        self.address = self.ring.open(64, 100)
        self.got: list[int] = []
        self.lost: list[Lost] = []

    def step(self, most: int) -> None:
        ready = dict(self.poller.poll(self.ring.wait_ms(most)))
        if self.ring.readable(ready) and (frame := self.ring.receive()):
            self.got.append(frame.microbatch)
        self.lost += self.ring.look()

    def close(self) -> None:
        self.ring.close(0.0)
        self.port.close()


class Hop:
    """`a` sends to `b`, which are ranks 0 and 1 of group 1."""

    def __init__(self, context: zmq.Context[Any], one: SharedPort, other: SharedPort) -> None:
        self.a, self.b = End(context, one), End(context, other)
        self.a.ring.connect(self.b.address)
        self.turn = 0
        self.sent = 0

    def until(self, condition: Any) -> None:
        """Both ends go on until it holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it never comes"
            self.a.step(0)
            self.b.step(1)

    def joined(self) -> None:
        self.until(lambda: self.a.port.peer and self.b.port.peer)

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.a.ring.send(numbered(self.sent))
            self.sent += 1

    def switch(self) -> str:
        """To the other path."""
        self.turn += 1
        if self.a.ring.path == "zmq":
            return self.a.ring.take_rdma(1, 1, LAYOUT, self.turn)
        return self.a.ring.take_zmq(LAYOUT, self.turn)

    def all_came(self) -> None:
        """In order."""
        self.until(lambda: len(self.b.got) >= self.sent)
        assert self.b.got == list(range(self.sent))

    def close(self) -> None:
        self.a.close()
        self.b.close()


class Rig(Hop):
    """With a pump in place of the rdma processes."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        folder.chmod(0o700)
        options = LinkOptions(send_timeout_s=WATCHDOG_S)
        limits = FrameLimits(max_tensor_bytes=1 << 16)
        ports = [SharedPort(folder / name, limits, WATCHDOG_S, options) for name in "ab"]
        super().__init__(self.context, *ports)
        self.pump = Pump([folder / name for name in "ab"])

    def close(self) -> None:
        self.pump.stop()
        super().close()
        self.context.term()
