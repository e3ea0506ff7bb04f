"""Both ends of a paced link: who sends says when, and who receives waits until the hop is over, if
the real one took less.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import Any

from benchmarks.paced.plan import Kept, PacedPlan
from benchmarks.paced.relay import open_hop
from daemon.ring import Ring
from transports.frame import SEQUENCE_ID_BYTES, Frame, FrameKind

TURN_SECONDS = 1e-3  # from the end of one frame's work to the next frame
SENT = bytes(SEQUENCE_ID_BYTES)  # as if it were a sequence, with the time for a constant


def stamped(frame: Frame) -> Frame:
    return replace(frame, constants={**frame.constants, SENT: {"at": time.monotonic()}})


class Arrivals:
    """Of one link. A frame occupies it for its time; the next one begins after it. One that is due
    while the process is at work waits, as it would without a pace.
    """

    def __init__(self, plan: PacedPlan, kept: Kept) -> None:
        self._plan, self._kept = plan, kept
        self._free = self._busy_until = 0.0

    def worked(self) -> None:
        """Until now."""
        self._busy_until = time.monotonic()

    def take(self, frame: Frame) -> Frame:
        """At the end of its hop. From where there is no hop comes no stamp."""
        if (sent := frame.constants.get(SENT)) is None:
            return frame
        payload = sum(tensor.nbytes for tensor in frame.tensors)
        seconds = self._plan.hop_seconds(frame.kind is FrameKind.RESULT, payload)
        self._free = max(float(sent["at"]), self._free) + seconds
        if self._free > self._busy_until + TURN_SECONDS:
            self._kept.keep(self._free)
        self.worked()
        rest = {key: value for key, value in frame.constants.items() if key != SENT}
        return replace(frame, constants=rest)


def pace_links(plan: PacedPlan, kept: Kept, onward: bool) -> None:
    """Of this process, whose one ring has one link that leads to it; `onward`: and a hop that leads
    from it. A hop that is too short for the relay is waited for at its end alone.
    """
    arrivals = Arrivals(plan, kept)
    connect, send, receive = Ring.connect, Ring.send, Ring.receive
    shortest = min(plan.hop_seconds(True, 0), plan.hop_seconds(False, 0))
    by_relay = onward and shortest > 2 * plan.early_seconds

    @cache
    def way(address: str) -> str:
        return open_hop(plan.relay, address) if by_relay else address

    def sent(ring: Ring, frame: Frame) -> None:
        send(ring, stamped(frame) if onward else frame)
        arrivals.worked()

    def received(ring: Ring) -> Frame | None:
        frame = receive(ring)
        return frame and arrivals.take(frame)

    replaced: dict[str, Any] = {
        "connect": lambda ring, address: connect(ring, way(address)),
        "send": sent,
        "receive": received,
    }
    for name, function in replaced.items():
        setattr(Ring, name, function)
