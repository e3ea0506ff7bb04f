"""The hop from this stage to the next: the path that the coordinator wants, and ZeroMQ when RDMA
ends.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.hop_path import HopPath
from daemon.ring import Ring
from daemon.stage.heartbeat import Progress
from daemon.stage.place import Place
from transports.errors import AddressError
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.shared.folder import socket_path
from transports.shared.port import SharedPort

log = logs.get("stage")
_NO_FRAMES = FrameLimits(max_tensor_bytes=0)  # the ring sets others when a model is loaded


def open_port(config: Config) -> SharedPort | None:
    """Where this node's rdma process may connect; None where that is switched off, or cannot be."""
    if config.rdma.backend == "off":
        return None
    watchdog = config.rdma.watchdog_s
    options = LinkOptions(send_timeout_s=watchdog)
    try:
        return SharedPort(socket_path(config.node.state_dir), _NO_FRAMES, watchdog, options)
    except AddressError as error:
        log.warning("frames cannot go by RDMA: %s", error)
        return None


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

    def look(self) -> None:
        """In every turn of the loop."""
        for lost in self._ring.look():
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
