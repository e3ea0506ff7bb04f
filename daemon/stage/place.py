"""What a stage process holds, and its place in the ring."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import mlx.core as mx

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.engine import kernels
from daemon.engine.errors import LoadError
from daemon.engine.stage import Stage
from daemon.layers import LayerRange
from daemon.ring import Ring
from daemon.service import settle, unsettle
from daemon.stage.background import Background
from daemon.stage.fence import Fence
from daemon.stage.heartbeat import Clock, Progress
from daemon.stage.loading import Ready, load_stage
from daemon.stage.saving import SavedKv
from daemon.stage.worker import Worker
from transports.errors import AddressError
from transports.frame import Frame

log = logs.get("stage")


class Place:
    """`worker` computes with the layers that `held` describes, both None when none are loaded;
    `assigned` is the newest place. Messages to be said go to `say`.
    """

    def __init__(
        self,
        config: Config,
        incarnation: str,
        ring: Ring,
        fence: Fence,
        saved: SavedKv,
        progress: Progress,
        clock: Clock,
        say: Callable[[msg.Message], object],
    ) -> None:
        self.worker: Worker | None = None
        self.held: msg.Loaded | None = None
        self.assigned: msg.Assign | None = None
        self.clock = clock
        self._config = config
        self._node = config.node.name
        self._incarnation = incarnation
        self._ring = ring
        self._fence = fence
        self._saved = saved
        self._progress = progress
        self._say = say
        self._refused: tuple[str, str] | None = None  # the last load that failed: model, why

    @property
    def layers(self) -> LayerRange | None:
        return self.worker.stage.layers if self.worker else None

    @property
    def number(self) -> tuple[int, int]:
        """Term and epoch of the place."""
        return self._fence.term, self._fence.epoch

    @property
    def data_address(self) -> str:
        """Where frames are taken; empty while they are not."""
        return self._ring.address

    def uses(self, stage: Stage) -> bool:
        return self.worker is not None and self.worker.stage is stage

    def folder(self, name: str, told: str) -> Path:
        """Where this node has the model."""
        return Path(self._config.models.get(name, told))

    # --- weights ---

    def load(self, load: msg.Load, reading: Callable[[int, int], None]) -> None:
        """In place of what is held. What `reading` raises passes through."""
        asked = (load.digest, load.start, load.end)
        if self.held and self._progress.held == asked:
            self._say(self.held)
            return
        self.unload()
        progress = self._progress
        progress.loading, progress.bytes_loaded = True, 0

        def loading(done: int, total: int) -> None:
            progress.bytes_loaded, progress.bytes_total = done, total
            reading(done, total)

        try:
            folder = self.folder(load.model, load.folder)
            with self._warming(load, reading):
                ready = load_stage(load, folder, self._config.node, loading)
            self.open_ring(ready)
        except LoadError as error:
            cause = error.__cause__
            self._load_failed(load, str(error.path), error.cause, error.remedy, cause)
            return
        except AddressError as error:
            self._load_failed(load, self._config.node.data_address, error.why, error.hint)
            return
        finally:
            progress.loading = False
        self._refused = None
        worker = Worker(ready.stage, ready.coder, 0, self.clock, load.digest, ready.hidden)
        self.hold(worker, self.told(ready, load.digest))
        settle()

    @staticmethod
    def _warming(
        load: msg.Load, reading: Callable[[int, int], None]
    ) -> AbstractContextManager[None]:
        """This thread computes nothing while nothing is held; another load may be compiling."""
        if Background.any_runs():
            return nullcontext()
        return kernels.warming(f"{load.digest} {load.start}-{load.end}", lambda: reading(0, 0))

    def told(self, ready: Ready, digest: str) -> msg.Loaded:
        return ready.told(self._node, self._incarnation, digest, self._ring.address)

    def open_ring(self, ready: Ready) -> str:
        """Where frames are taken; AddressError when it cannot be had."""
        if not self._ring.address:
            info = ready.stage.info
            self._ring.open(info.hidden_size, info.vocab_size)
        return self._ring.address

    def hold(self, worker: Worker, held: msg.Loaded) -> None:
        """Compute with this from now on. The coordinator is told."""
        if self.worker is not None:
            worker.place(self.worker.index)
            for answer in self._saved.unloaded():  # what is being read is of the layers before
                self._say(answer)
        self.worker, self.held = worker, held
        self._progress.held = (held.digest, held.start, held.end)
        self._say(held)

    def _load_failed(
        self,
        load: msg.Load,
        what: str,
        why: str,
        todo: str,
        cause: BaseException | None = None,
    ) -> None:
        """It is asked for again and again: what fails as it did is one line, without the cause."""
        refused = (load.model, f"{what}: {why}")
        if refused == self._refused:
            log.error("cannot load %s: %s, as before", *refused)
        else:
            log.error("cannot load %s: %s; %s", *refused, todo, exc_info=cause)
        self._refused = refused
        self.unload()
        asked = (load.digest, load.start, load.end)
        self._say(msg.LoadFailed(self._node, self._incarnation, *asked, what, why, todo))

    def unload(self) -> None:
        self._ring.close(0.0)
        self.worker = self.held = self.assigned = None
        for answer in self._saved.unloaded():
            self._say(answer)
        self._fence.clear()
        self._progress.held = None
        self._progress.sequences = self._progress.kv_bytes = 0
        self._progress.link = ""
        unsettle()
        mx.clear_cache()

    # --- the ring ---

    def assign(self, assign: msg.Assign) -> list[Frame]:
        """Take this place with the layers that are held. Returns frames that came before."""
        worker = self.worker
        if worker is None or worker.stage.layers != LayerRange(assign.start, assign.end):
            return []  # the next heartbeat says what is held
        try:
            self._ring.connect(assign.next_address)
        except AddressError as error:
            log.error("cannot send to the next stage: %s", error)
            return []  # the coordinator asks again, and shows that this stage is not in its place
        if (assign.term, assign.epoch) > self.number:  # it is said anew which path to take
            self._ring.leave_rdma()
            self._progress.path = (self._ring.path.value, 0)
        self.assigned = assign
        worker.place(assign.stage)
        worker.ledger.obey(assign.term)
        early = self._fence.assign(assign.term, assign.epoch)
        self._progress.epoch = assign.epoch
        self._say(msg.Assigned(self._node, self._incarnation, assign.epoch))
        return early

    def link_failed(self, microbatch: int, why: str) -> None:
        if a := self.assigned:
            log.warning("frame not handed over: %s", why)
            where = (a.epoch, a.stage, microbatch)
            self._say(msg.LinkFailed(self._node, self._incarnation, *where, why))
