"""The stage process: MLX, its data sockets and its control socket, in one thread that either waits
or computes.

One blocking poll over control and data, control first. A frame goes from the network to the
computation without another thread or process in between.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import zmq

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.layers import LayerRange
from daemon.ring import Ring
from daemon.stage.arrivals import Arrivals
from daemon.stage.bulk import Bulk
from daemon.stage.control import Control
from daemon.stage.fence import Fence, Verdict
from daemon.stage.heartbeat import Clock, Heartbeat, Progress
from daemon.stage.hop import Hop, open_port
from daemon.stage.moving import Moving
from daemon.stage.place import Place
from daemon.stage.profiling import profile
from daemon.stage.saving import SavedKv
from daemon.storage.folder import KvFolder
from transports.errors import TransportError
from transports.frame import Barrier, Frame

log = logs.get("stage")
LOOK_SECONDS = 0.25  # how old what a heartbeat shows may be while frames follow each other
POLL_MS = 500  # how long a signal may wait when nothing arrives


class Stopped(Exception):
    """SIGTERM came while the process was loading."""


class StageProcess:
    def __init__(self, config: Config, node_incarnation: str, parent: int) -> None:
        self._config = config
        self._node = config.node.name
        self._node_incarnation = node_incarnation
        self._incarnation = secrets.token_hex(8)
        self._context: zmq.Context[Any] = zmq.Context()
        self._fence = Fence()
        self._control = Control(
            self._context, self._node, self._incarnation, self._fence, self._count
        )
        self._poller = zmq.Poller()
        self._port = open_port(config)
        self._ring = Ring(
            self._context,
            config.node.data_address,
            config.security.plain_networks,
            config.timeouts.send_s,
            self._poller,
            port=self._port,
        )
        folder = KvFolder(config.node.state_dir / "kv", config.node.kv_disk)
        self._bulk = Bulk(
            self._context, config.node.data_address, config.security.plain_networks, folder
        )
        self._saved = SavedKv(self._node, self._incarnation, self._bulk)
        self._progress = Progress()
        self._clock = Clock()
        self._place = Place(
            config,
            self._incarnation,
            self._ring,
            self._fence,
            self._saved,
            self._progress,
            self._clock,
            self._control.say,
        )
        who = (self._node, self._incarnation)
        self._hop = Hop(*who, self._ring, self._place, self._progress, self._control.say)
        self._moving = Moving(
            self._context,
            config,
            self._incarnation,
            self._place,
            self._poller,
            self._control.say,
        )
        self._arrivals = Arrivals()
        self._rejoin = False
        self._stopping = False
        self._looked_at = 0.0
        self._heartbeat = Heartbeat(
            self._context,
            config.coordinator.address,
            self._node,
            self._incarnation,
            config.timeouts.heartbeat_s,
            self._progress,
            self._clock,
            self._ask_rejoin,
            parent,
        )

    def stop(self) -> None:
        """From a signal handler: end after the frame at hand."""
        self._stopping = True

    def _ask_rejoin(self) -> None:
        """From the heartbeat's thread: a coordinator does not know us. Said at the next turn of the
        loop.
        """
        self._rejoin = True

    def run(self) -> None:
        self._control.connect(self._config.coordinator.address)
        self._poller.register(self._control.socket, zmq.POLLIN)
        self._poller.register(self._saved.pollable, zmq.POLLIN)
        self._bulk.start()
        self._heartbeat.start()
        welcome_due = True
        try:
            while not self._stopping:
                if welcome_due or self._rejoin:
                    welcome_due = not self._control.hello(self._node_incarnation, self._place.held)
                    self._rejoin = False
                self._go_on(self._moving.step())
                most = self._ring.wait_ms(self._moving.pause(POLL_MS))
                ready = self._arrivals.wait(self._poller.poll, most)
                if self._control.socket in ready:
                    self._take_control()
                elif self._ring.readable(ready):
                    self._take_frame()
                elif not ready:
                    self._look()
                self._hop.look()
                if self._saved.pollable in ready:  # one piece, however many frames there are
                    self._control.answer(self._saved.finish(self._place.worker))
                    self._arrivals.finished()
                if self._moving.reports.fd in ready:
                    self._moving.loaded()
                if self._moving.pollable in ready:
                    self._go_on(self._moving.piece())
                    self._arrivals.finished()
        except Stopped:
            log.info("stopped while loading")
        finally:
            self._close()

    def _look(self) -> None:
        """Take in what happened on the links, also when no frame comes, and show what is held."""
        progress = self._progress
        self._ring.refresh()
        progress.link = self._ring.sending
        progress.dropped.update(self._ring.dropped)
        progress.dropped.update(self._fence.dropped)
        if self._place.worker:
            progress.sequences = len(self._place.worker.caches)
            progress.kv_bytes = self._place.worker.kv_bytes
            progress.dropped.update(self._place.worker.dropped)
        progress.move = self._moving.move
        if loading := self._moving.loading:
            progress.bytes_loaded, progress.bytes_total = loading
        progress.loading = loading is not None
        self._looked_at = time.monotonic()

    def _close(self) -> None:
        self._heartbeat.stop()
        self._heartbeat.join(2.0)
        self._bulk.stop()
        self._moving.close()
        self._ring.close(1.0)
        if self._port:
            self._port.close()
        self._control.close()
        self._context.term()

    # --- control ---

    def _take_control(self) -> None:
        match message := self._control.hear():
            case None:
                return
            case msg.Welcome():
                log.info("joined cluster %s", message.cluster)
            case msg.Identify():
                self._rejoin = True
            case msg.Refused():
                log.error("refused: %s; %s; %s", message.what, message.why, message.todo)
                self._stopping = True
            case msg.Load():
                self._moving.reset()
                self._place.load(message, self._reading)
            case msg.Assign():
                self._assign(message)
            case msg.TakePath():
                self._hop.take(message)
            case msg.Unload():
                self._moving.reset()
                self._place.unload()
            case msg.Prepare():
                self._moving.prepare(message)
                self._progress.move = self._moving.move  # said before it is prepared
            case msg.Give():
                self._moving.give(message)
            case msg.Switch():
                self._go_on(self._moving.switch(message))
            case msg.Settle():
                self._moving.settle(message)
            case msg.Profile():  # for seconds: the coordinator asks none that serves
                folder = self._place.folder(message.model, message.folder)
                self._control.say(profile(message, folder, self._config.node, self._reading))
            case msg.Revoke():
                if self._place.worker:
                    self._place.worker.ledger.revoke(message.sequence, message.attempt)
            case msg.KvQuery():
                self._control.say(msg.KvReport(message.query, self._node, self._kv()))
            case msg.SaveKv() | msg.LoadKv() | msg.DropKv() | msg.DiskQuery():
                self._control.answer(self._saved.hear(message, self._place.worker))
            case _:
                self._count("control-unexpected")

    def _reading(self, done: int, total: int) -> None:
        if self._stopping:
            raise Stopped

    def _assign(self, assign: msg.Assign) -> None:
        layers = LayerRange(assign.start, assign.end)
        if self._place.layers != layers:
            self._moving.reclaim(layers)
        self._go_on(self._place.assign(assign))

    def _kv(self) -> list[dict[str, Any]]:
        worker = self._place.worker
        if worker is None:
            return []
        return [
            {"sequence": s.hex(), "tokens": c.length, "bytes": c.nbytes}
            | {"kind": c.kind, "kv_bits": c.kv_bits, "hidden_bytes": worker.log.bytes_of(s)}
            for s, c in worker.caches.items()
        ]

    # --- frames ---

    def _go_on(self, early: list[Frame]) -> None:
        """With frames that came before their place was taken."""
        for frame in early:
            self._compute(frame)

    def _take_frame(self) -> None:
        frame = self._ring.receive()
        if frame is None:
            self._look()
            return
        self._progress.frames_received += 1
        if self._fence.judge(frame) is Verdict.ADMIT:
            self._compute(frame)

    def _compute(self, frame: Frame) -> None:
        worker, progress = self._place.worker, self._progress
        if worker is None:
            self._count("frame-unplaced")
            return
        received = self._arrivals.at(frame, self._clock())
        began = progress.busy_since = time.monotonic()
        progress.microbatch = frame.microbatch
        progress.frames_started += 1
        onward = worker.handle(frame, received)
        try:
            self._ring.send(onward)
        except TransportError as error:
            self._count("link-failed")
            self._place.link_failed(frame.microbatch, str(error))
        progress.frames_finished += 1
        progress.microbatch = 0
        self._moving.went_on()
        if Barrier() in frame.commands:
            self._go_on(self._moving.passed_barrier(frame.term, frame.epoch))
        if began - self._looked_at > LOOK_SECONDS:
            self._look()
        self._arrivals.finished()

    def _count(self, cause: str) -> None:
        self._progress.dropped[cause] = self._progress.dropped.get(cause, 0) + 1
