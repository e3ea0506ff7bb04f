"""The stage process: MLX, its data sockets and its control socket, in one thread that either waits
or computes.

One blocking poll over control and data, control first. A frame goes from the network to the
computation without another thread or process in between.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import zmq

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.engine.errors import LoadError
from daemon.ring import Ring
from daemon.service import settle, unsettle
from daemon.stage.arrivals import Arrivals
from daemon.stage.bulk import Bulk
from daemon.stage.control import Control
from daemon.stage.fence import Fence, Verdict
from daemon.stage.heartbeat import Clock, Heartbeat, Progress
from daemon.stage.loading import load_stage
from daemon.stage.profiling import profile
from daemon.stage.saving import SavedKv
from daemon.stage.worker import Worker
from daemon.storage.folder import KvFolder
from transports.errors import AddressError, TransportError
from transports.frame import Frame

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
        self._ring = Ring(
            self._context,
            config.node.data_address,
            config.security.plain_networks,
            config.timeouts.send_s,
        )
        folder = KvFolder(config.node.state_dir / "kv", config.node.kv_disk)
        self._bulk = Bulk(
            self._context, config.node.data_address, config.security.plain_networks, folder
        )
        self._saved = SavedKv(self._node, self._incarnation, self._bulk)
        self._progress = Progress()
        self._clock = Clock()
        self._poller = zmq.Poller()
        self._worker: Worker | None = None
        self._held: msg.Loaded | None = None
        self._assigned: msg.Assign | None = None
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
                    welcome_due = not self._control.hello(self._node_incarnation, self._held)
                    self._rejoin = False
                ready = self._arrivals.wait(self._poller.poll, POLL_MS)
                if self._control.socket in ready:
                    self._take_control()
                elif self._ring.pollable in ready:
                    self._take_frame()
                elif not ready:
                    self._look()
                if self._saved.pollable in ready:  # one piece, however many frames there are
                    self._control.answer(self._saved.finish(self._worker))
                    self._arrivals.finished()
        except Stopped:
            log.info("stopped while loading")
        finally:
            self._close()

    def _look(self) -> None:
        """Take in what happened on the links, also when no frame comes, and show what is held."""
        progress = self._progress
        self._ring.look()
        progress.link = self._ring.sending
        progress.dropped.update(self._ring.dropped)
        progress.dropped.update(self._fence.dropped)
        if self._worker:
            progress.sequences = len(self._worker.caches)
            progress.kv_bytes = self._worker.kv_bytes
            progress.dropped.update(self._worker.dropped)
        self._looked_at = time.monotonic()

    def _close(self) -> None:
        self._heartbeat.stop()
        self._heartbeat.join(2.0)
        self._bulk.stop()
        self._ring.close(1.0)
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
                self._load(message)
            case msg.Assign():
                self._assign(message)
            case msg.Unload():
                self._unload()
            case msg.Profile():  # for seconds: the coordinator asks none that serves
                folder = Path(self._config.models.get(message.model, message.folder))
                self._control.say(profile(message, folder, self._config.node, self._reading))
            case msg.Revoke():
                if self._worker:
                    self._worker.ledger.revoke(message.sequence, message.attempt)
            case msg.KvQuery():
                self._control.say(msg.KvReport(message.query, self._node, self._kv()))
            case msg.SaveKv() | msg.LoadKv() | msg.DropKv() | msg.DiskQuery():
                self._control.answer(self._saved.hear(message, self._worker))
            case _:
                self._count("control-unexpected")

    def _kv(self) -> list[dict[str, Any]]:
        caches = self._worker.caches if self._worker else {}
        return [
            {"sequence": s.hex(), "tokens": c.length, "bytes": c.nbytes}
            | {"kind": c.kind, "kv_bits": c.kv_bits}
            for s, c in caches.items()
        ]

    # --- weights ---

    def _load(self, load: msg.Load) -> None:
        asked = (load.digest, load.start, load.end)
        if self._held and self._progress.held == asked:
            self._control.say(self._held)
            return
        self._unload()
        folder = Path(self._config.models.get(load.model, load.folder))
        self._progress.loading, self._progress.bytes_loaded = True, 0
        try:
            ready = load_stage(load, folder, self._config.node, self._loading)
            info = ready.stage.info
            address = self._ring.open(info.hidden_size, info.vocab_size)
        except LoadError as error:
            self._load_failed(load, str(error.path), error.cause, error.remedy)
            return
        except AddressError as error:
            self._load_failed(load, self._config.node.data_address, error.why, error.hint)
            return
        finally:
            self._progress.loading = False
        self._poller.register(self._ring.pollable, zmq.POLLIN)
        self._worker = Worker(ready.stage, ready.coder, 0, self._clock, load.digest)
        self._progress.held = asked
        self._held = ready.told(self._node, self._incarnation, load.digest, address)
        self._control.say(self._held)
        settle()

    def _load_failed(self, load: msg.Load, what: str, why: str, todo: str) -> None:
        log.error("cannot load %s: %s: %s; %s", load.model, what, why, todo)
        self._unload()
        asked = (load.digest, load.start, load.end)
        self._control.say(msg.LoadFailed(self._node, self._incarnation, *asked, what, why, todo))

    def _loading(self, done: int, total: int) -> None:
        self._progress.bytes_loaded, self._progress.bytes_total = done, total
        self._reading(done, total)

    def _reading(self, done: int, total: int) -> None:
        if self._stopping:
            raise Stopped

    def _unload(self) -> None:
        if self._ring.pollable is not None:
            self._poller.unregister(self._ring.pollable)
        self._ring.close(0.0)
        self._worker = self._held = self._assigned = None
        self._control.answer(self._saved.unloaded())
        self._fence.clear()
        self._progress.held = None
        self._progress.sequences = self._progress.kv_bytes = 0
        self._progress.link = ""
        unsettle()
        mx.clear_cache()

    def _assign(self, assign: msg.Assign) -> None:
        if self._worker is None:
            return  # it was unloaded meanwhile: the next heartbeat says so
        try:
            self._ring.connect(assign.next_address)
        except AddressError as error:
            log.error("cannot send to the next stage: %s", error)
            return  # the coordinator asks again, and shows that this stage is not in its place
        self._assigned = assign
        self._worker.place(assign.stage)
        early = self._fence.assign(assign.term, assign.epoch)
        self._progress.epoch = assign.epoch
        self._control.say(msg.Assigned(self._node, self._incarnation, assign.epoch))
        for frame in early:
            self._compute(frame)

    # --- frames ---

    def _take_frame(self) -> None:
        frame = self._ring.receive()
        if frame is None:
            self._look()
            return
        self._progress.frames_received += 1
        if self._fence.judge(frame) is Verdict.ADMIT:
            self._compute(frame)

    def _compute(self, frame: Frame) -> None:
        worker, progress = self._worker, self._progress
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
            self._report_link(frame.microbatch, str(error))
        progress.frames_finished += 1
        progress.microbatch = 0
        if began - self._looked_at > LOOK_SECONDS:
            self._look()
        self._arrivals.finished()

    def _report_link(self, microbatch: int, why: str) -> None:
        self._count("link-failed")
        if self._assigned:
            a = self._assigned
            log.warning("frame not handed over: %s", why)
            place = (self._node, self._incarnation, a.epoch, a.stage)
            self._control.say(msg.LinkFailed(*place, microbatch, why))

    def _count(self, cause: str) -> None:
        self._progress.dropped[cause] = self._progress.dropped.get(cause, 0) + 1
