"""When frames reached a stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transports.frame import Frame


class Arrivals:
    """When a frame reached this stage, although nobody looked while it computed.

    A frame that was waited for arrived now. One that was already there when the stage came back
    from computing has queued: it arrived as long after its sender's stamp as the quickest frame did
    that was waited for.
    """

    def __init__(self) -> None:
        self._quickest = float("inf")
        self._came_back = False

    def wait(
        self, poll: Callable[[int], list[tuple[Any, int]]], milliseconds: int
    ) -> dict[Any, int]:
        """What is ready, within so long: whether it was there at once is what counts."""
        if ready := poll(0):
            return dict(ready)
        self._came_back = False
        return dict(poll(milliseconds))

    def finished(self) -> None:
        self._came_back = True

    def at(self, frame: Frame, now: float) -> float:
        if not frame.traces:
            return now
        sent = frame.traces[-1].sent
        if self._came_back and self._quickest < float("inf"):
            return min(now, sent + max(0.0, self._quickest))
        self._quickest = min(self._quickest, now - sent)
        return now
