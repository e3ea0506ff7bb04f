"""A port and the other end of its connection, both in the test's hands."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from tests.transports.contract import LIMITS, OPTIONS, eventually
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.shared.greeting import Peer
from transports.shared.port import SharedPort
from transports.shared.stage_end import StageEnd, connect

CAPACITY = 2 << 20
WATCHDOG_S = 1.0


class Pair:
    """`port` is the stage's; `end` the rdma process's of rank 1, which reaches rank 2."""

    def __init__(
        self, folder: Path, options: LinkOptions = OPTIONS, limits: FrameLimits = LIMITS
    ) -> None:
        self.path = folder / "run" / "rdma.sock"
        self.port = SharedPort(self.path, limits, WATCHDOG_S, options, CAPACITY)
        self.ends: list[StageEnd] = []

    @property
    def end(self) -> StageEnd:
        return self.ends[-1]

    def connect(self, group: int = 7) -> StageEnd:
        """As a group's process does, in a thread: the port answers when it is looked at."""
        peer = Peer(group, 1, 3, frozenset({2}), os.getpid())
        before = len(self.ends)
        caller = threading.Thread(target=lambda: self.ends.append(connect(self.path, peer)))
        caller.start()
        eventually(lambda: (self.port.state, len(self.ends) > before)[1])
        caller.join()
        return self.end

    def look(self) -> object:
        return self.port.look(time.monotonic())

    def close(self) -> None:
        for end in self.ends:
            end.close()
        self.port.close()
