"""The rdma process: its main thread, which looks after the others."""

from __future__ import annotations

import os
import queue
import time
from typing import Any

import zmq

from daemon import autogroup, logs
from daemon import messages as msg
from daemon.config import Config
from daemon.rdma.control import Control
from daemon.rdma.counters import Counters
from daemon.rdma.downward import Downward
from daemon.rdma.ending import ORPHAN, STALLED, Ending
from daemon.rdma.forming import Formed, form
from daemon.rdma.inward import Inward
from daemon.rdma.probing import IDLE_SECONDS, Finding, Prober
from daemon.rdma.stage_link import StageLink
from daemon.rdma.watch import Operation, first_overdue
from transports.shared.folder import socket_path
from transports.shared.greeting import Peer

log = logs.get("rdma")
LONGEST_TURN_S = 0.1


class RdmaProcess:
    """`parent` is the pid of the shardd that started this process: it may be gone already."""

    def __init__(
        self, config: Config, node_incarnation: str, parent: int, start: msg.RdmaStart
    ) -> None:
        self._config = config
        self._start = start
        self._parent = parent
        self._watchdog_s = config.rdma.watchdog_s
        self._turn_s = min(LONGEST_TURN_S, self._watchdog_s / 8)
        self._context: zmq.Context[Any] = zmq.Context()
        self._control = Control(self._context, config.node.name, node_incarnation, start)
        self._counters = Counters()
        self._operations: list[Operation] = []
        self._findings: queue.SimpleQueue[Finding] = queue.SimpleQueue()
        self._stopping = False
        self._next_beat = 0.0

    def stop(self) -> None:
        """From a signal handler: end at the next turn of the loop."""
        self._stopping = True

    def run(self) -> None:
        """Until it is stopped. Ending when something goes wrong."""
        folder = self._config.node.state_dir / "run"
        formed = form(self._start, folder, self._config.rdma.start_s, self._watchdog_s)
        log.info("rank %d of a group over %s", self._start.rank, self._start.backend)
        self._control.socket.connect(self._config.coordinator.address)
        stage, prober = self._begin(formed)
        joined = False
        while not self._stopping:
            now = time.monotonic()
            stage.beat()
            self._judge(formed, prober, now)
            joined = joined or self._control.joined(formed.seconds, [*formed.lines])
            if now >= self._next_beat:
                self._next_beat = now + self._config.timeouts.heartbeat_s
                autogroup.take_back()
                self._control.beat(stage.end is not None, self._counters)
            while not self._findings.empty():
                self._control.probed(self._findings.get())
            if self._control.socket.poll(int(self._turn_s * 1000)):
                while message := self._control.hear():
                    joined = self._take(message, prober) and joined
        self._control.close()
        self._context.term()

    def _begin(self, formed: Formed) -> tuple[StageLink, Prober]:
        start, lines = self._start, formed.lines
        peer = Peer(start.group, start.rank, len(start.hosts), frozenset(lines), os.getpid())
        stage = StageLink(socket_path(self._config.node.state_dir), peer)
        prober = Prober(formed.group, lines, self._operation(), self._findings.put)
        downward = Downward(
            formed.group, lines, stage, self._operation(), self._counters, self._watchdog_s / 2
        )
        inward = [
            Inward(formed.group, line, stage, self._operation(), self._counters, prober.came)
            for line in lines.values()
        ]
        for thread in (prober, downward, *inward, stage):
            thread.start()
        return stage, prober

    def _operation(self) -> Operation:
        self._operations.append(operation := Operation())
        return operation

    def _judge(self, formed: Formed, prober: Prober, now: float) -> None:
        if os.getppid() != self._parent:
            raise Ending(ORPHAN, "shardd is gone")
        if late := first_overdue(self._operations, now, self._watchdog_s):
            raise Ending(STALLED, late)
        for line in formed.lines.values():
            line.check_alive()
            if line.rests_due(now, IDLE_SECONDS):
                prober.rest(line)

    def _take(self, message: msg.Message, prober: Prober) -> bool:
        """False when the coordinator has to be told again that the group stands."""
        match message:
            case msg.RdmaProbe() if message.group == self._start.group:
                prober.probe(message.probe, message.peer)
            case msg.RdmaStart() | msg.Identify():  # asked for twice, or by one that does not know
                return False
            case msg.Refused():
                log.error("refused: %s; %s; %s", message.what, message.why, message.todo)
                self._stopping = True
            case _:
                log.warning("dropped an unexpected %s", type(message).__name__)
        return True
