"""What passed, for who asks how it goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from transports.shared.latency import Latency


@dataclass(slots=True)
class Counters:
    """Of what goes out one thread writes, of what comes in those that hold the stage's lock; any
    thread may read.
    """

    frames_out: int = 0
    bytes_out: int = 0
    frames_in: int = 0
    bytes_in: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    handover: Latency = field(default_factory=Latency)  # from the stage to this process
