"""Ends this process when its shardd is gone, also while it computes or loads."""

from __future__ import annotations

import os
import threading

from daemon import logs
from daemon.stage.heartbeat import end_process

log = logs.get("draft")


class Watch(threading.Thread):
    """`parent` is the pid of the shardd that started this process: it may be gone already."""

    def __init__(self, parent: int, interval: float) -> None:
        super().__init__(name="watch", daemon=True)
        self._parent = parent
        self._interval = interval
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while os.getppid() == self._parent:
            if self._stopping.wait(self._interval):
                return
        log.warning("shardd is gone: ending")
        end_process()
