"""The hop from this stage to the next: the path that the coordinator wants, and ZeroMQ when RDMA
ends.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon import logs
from daemon import messages as msg
from daemon.hop_path import HopPath
from daemon.ring import Ring
from daemon.stage.heartbeat import Progress
from daemon.stage.place import Place

log = logs.get("stage")


class Hop:
    """Messages to be said go to `say`. A new place begins with ZeroMQ (Place.assign)."""

    def __init__(
        self,
        node: str,
        incarnation: str,
        ring: Ring,
        place: Place,
        progress: Progress,
        say: Callable[[msg.Message], object],
    ) -> None:
        self._node, self._incarnation = node, incarnation
        self._ring = ring
        self._place = place
        self._progress = progress
        self._say = say
        self._turn = (0, 0)  # term and number of the newest
        self._why = ""

    def take(self, asked: msg.TakePath) -> None:
        """Only in the layout that it was asked for: in another one the coordinator asks anew."""
        layout, turn = (asked.term, asked.epoch), (asked.term, asked.turn)
        if layout != self._place.number or turn < self._turn:
            return
        if turn > self._turn:
            self._turn, self._why = turn, self._went(asked, layout)
            self._progress.path = (self._ring.path.value, asked.turn)
            if self._why:
                log.warning("frames go on by %s: %s", self._ring.path, self._why)
        taken = (asked.epoch, asked.turn, self._ring.path.value, self._why)
        self._say(msg.PathTaken(self._node, self._incarnation, *taken))

    def look(self, now: float) -> None:
        """In every turn of the loop."""
        for lost in self._ring.look(now):
            if lost.sending:
                self._why = lost.why
                self._progress.path = (self._ring.path.value, self._progress.path[1])
            log.warning("RDMA %s (%s): %s", lost.reason, "out" if lost.sending else "in", lost.why)
            what = (self._place.number[1], lost.group, lost.sending, lost.reason, lost.why)
            self._say(msg.PathLost(self._node, self._incarnation, *what))

    def _went(self, asked: msg.TakePath, layout: tuple[int, int]) -> str:
        if asked.path == HopPath.RDMA:
            return self._ring.take_rdma(asked.group, asked.rank, layout, asked.turn)
        if asked.group:
            return self._ring.take_zmq(layout, asked.turn)
        self._ring.leave_rdma()
        return ""
