"""The heartbeat of a stage process: its own thread and socket, so that it goes on while the process
computes.

It sends counters, not "I am alive": the coordinator judges progress. It also keeps the offset to
the coordinator's clock, and ends the process when its shardd is gone.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
import zmq

from daemon import logs
from daemon import messages as msg
from daemon.control import dealer_options, say
from daemon.hop_path import HopPath

ENDING_SECONDS = 10.0  # from SIGTERM to SIGKILL when shardd is gone
log = logs.get("heartbeat")


@dataclass(slots=True)
class Progress:
    """Written by the compute thread, read by the heartbeat: plain counters, each written whole."""

    frames_received: int = 0
    frames_started: int = 0
    frames_finished: int = 0
    microbatch: int = 0
    busy_since: float = 0.0
    loading: bool = False
    bytes_loaded: int = 0
    bytes_total: int = 0
    sequences: int = 0
    kv_bytes: int = 0
    move: tuple[int, int] = (0, 0)  # term and number
    held: tuple[str, int, int] | None = None
    epoch: int = 0
    link: str = ""
    path: tuple[str, int] = (HopPath.ZMQ.value, 0)  # and since which turn
    dropped: dict[str, int] = field(default_factory=dict)


class Clock:
    """The coordinator's monotonic clock as seen from here: the offset of the quickest exchange so
    far (Cristian 1989).

    Drift between two machines is some µs a second, so a quick exchange counts less the older it is.
    """

    AGEING = 50e-6

    def __init__(self) -> None:
        self._offset = 0.0
        self._spread = float("inf")
        self._at = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._offset

    def exchange(self, sent: float, theirs: float, received: float) -> None:
        """A message left at `sent` and its answer, written at `theirs`, came at `received`."""
        spread = (received - sent) / 2
        if spread <= self._spread + self.AGEING * (received - self._at):
            offset = theirs - (sent + received) / 2
            # No offset that could be zero is one: processes of one machine share the clock.
            self._offset = 0.0 if abs(offset) <= spread else offset
            self._spread, self._at = spread, received


class Heartbeat(threading.Thread):
    """`parent` is the pid of the shardd that started this process: it may be gone already."""

    def __init__(
        self,
        context: zmq.Context[Any],
        coordinator: str,
        node: str,
        incarnation: str,
        interval: float,
        progress: Progress,
        clock: Clock,
        rejoin: Callable[[], None],
        parent: int,
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._context = context
        self._coordinator = coordinator
        self._node = node
        self._incarnation = incarnation
        self._interval = interval
        self._progress = progress
        self._clock = clock
        self._rejoin = rejoin
        self._parent = parent
        self._stopping = threading.Event()
        self._process = psutil.Process()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        socket = self._context.socket(zmq.DEALER)
        dealer_options(socket, f"beat:{self._node}:{self._incarnation}")
        socket.connect(self._coordinator)
        try:
            while not self._stopping.is_set():
                if os.getppid() != self._parent:
                    log.warning("shardd is gone: ending")
                    end_process()
                    return
                self._beat(socket)
                self._listen(socket, time.monotonic() + self._interval)
        finally:
            socket.close(linger=0)

    def _beat(self, socket: zmq.Socket[Any]) -> None:
        p, now = self._progress, time.monotonic()
        microbatch, since = p.microbatch, p.busy_since
        beat = msg.Heartbeat(
            self._node,
            self._incarnation,
            os.getpid(),
            now,
            p.epoch,
            *(p.held or ("", 0, 0)),
            p.frames_received,
            p.frames_started,
            p.frames_finished,
            microbatch,
            max(0.0, now - since) if microbatch else 0.0,
            p.loading,
            p.bytes_loaded,
            p.bytes_total,
            p.sequences,
            p.kv_bytes,
            *p.move,
            self._process.memory_info().rss,
            dict(p.dropped),
            p.link,
            *p.path,
        )
        if not say(socket, beat):
            log.debug("coordinator unreachable")

    def _listen(self, socket: zmq.Socket[Any], until: float) -> None:
        """Take answers until the next beat is due."""
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            if not socket.poll(max(1, int(left * 1000))):
                return
            received = time.monotonic()
            try:
                message = msg.decode(socket.recv())
            except msg.MessageError as error:
                log.warning("dropped a control message: %s", error)
                continue
            match message:
                case msg.HeartbeatAck():
                    self._clock.exchange(message.clock, message.coordinator_clock, received)
                case msg.Identify():
                    self._rejoin()
                case _:
                    log.warning("dropped an unexpected %s", type(message).__name__)


def end_process() -> None:
    """Ask the compute thread to end; it may hang, and then nobody else would end the process."""
    insist = threading.Timer(ENDING_SECONDS, os.kill, (os.getpid(), signal.SIGKILL))
    insist.daemon = True
    insist.start()
    os.kill(os.getpid(), signal.SIGTERM)
