"""The connection to the stage of this node: looked for again whenever there is none."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from daemon import logs
from transports.errors import AddressError
from transports.shared.greeting import GreetingError, Peer
from transports.shared.lanes import Hangup
from transports.shared.region import RegionDamaged
from transports.shared.stage_end import StageEnd, connect

log = logs.get("rdma")
PATIENCE_SECONDS = 60.0  # a stage that computes or loads answers when it has done so
AGAIN_SECONDS = 0.05
BROKEN = (Hangup, RegionDamaged)


class StageLink(threading.Thread):
    """One thread reads from it (`reading`), those that write hold `lock`."""

    def __init__(self, path: Path, peer: Peer) -> None:
        super().__init__(name="stage", daemon=True)
        self.lock = threading.Lock()
        self._path = path
        self._peer = peer
        self._end: StageEnd | None = None
        self._changed = threading.Condition()

    @property
    def end(self) -> StageEnd | None:
        """That of now."""
        return self._end

    def beat(self) -> None:
        if end := self._end:
            end.beat()

    def run(self) -> None:
        said = ""
        while True:
            try:
                end = connect(self._path, self._peer, PATIENCE_SECONDS)
            except AddressError as error:
                if str(error) != said:
                    said = str(error)
                    log.error("no connection to the stage: %s", said)
                time.sleep(AGAIN_SECONDS)
                continue
            except (OSError, GreetingError):
                time.sleep(AGAIN_SECONDS)
                continue
            log.info("connected to the stage")
            with self._changed:
                self._end = end
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._end is None)
            with self.lock:
                end.close()

    def reading(self) -> StageEnd:
        """The connection, once there is one: for the thread that reads."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None)
            assert self._end
            return self._end

    def lost(self, end: StageEnd, why: Exception) -> None:
        """The one who reads has found it broken, and will not use it any more."""
        log.warning("the connection to the stage has ended: %s", why)
        with self._changed:
            self._end = None
            self._changed.notify_all()
