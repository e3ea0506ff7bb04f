"""Layers loaded beside those that a stage computes with, in a thread that gives way to it."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from daemon import logs
from daemon import messages as msg
from daemon.config.sections import NodeConfig
from daemon.engine.errors import LoadError
from daemon.engine.model import read_model
from daemon.engine.stage import Stage
from daemon.stage.loading import Ready, load_stage
from daemon.stage.mailbox import Mailbox

log = logs.get("stage")

LOWEST = 10  # nice: a tenth of a core that is busy; 19 would get a hundredth, and not end
# How long a thread that builds a model in Python may keep the one that computes from going on.
SWITCH_SECONDS = 0.0005
_DARWIN_THREAD, _DARWIN_BACKGROUND = 3, 0x1000  # setpriority(2) of macOS


@dataclass(frozen=True, slots=True)
class Done:
    """`ready` is None when it failed, and `error` says why."""

    asked: msg.Prepare
    ready: Ready | None
    error: LoadError | None


class _Abandoned(Exception):
    """Nobody wants it any more."""


class Background(threading.Thread):
    """Puts one `Done` into `reports`, unless it was abandoned. What `held`, the stage that computes
    meanwhile, has of the layers is shared with it; for what it lacks there are `room` bytes, for
    weights and KV: its own layers have `kv_bytes` now, and those that come will have as much each.
    `bytes_loaded` and `bytes_total` show how far it is.
    """

    def __init__(
        self,
        asked: msg.Prepare,
        folder: Path,
        node: NodeConfig,
        held: Stage | None,
        room: int,
        kv_bytes: int,
        reports: Mailbox[Done],
    ) -> None:
        super().__init__(name="background load", daemon=True)
        self.asked = asked
        self.bytes_loaded = self.bytes_total = 0
        self._folder = folder
        self._node = node
        self._held = held
        self._room = room
        self._kv_bytes = kv_bytes
        self._reports = reports
        self._abandoned = False

    def abandon(self) -> None:
        """Its result is not wanted: it ends at the next weight."""
        self._abandoned = True

    @staticmethod
    def any_runs() -> bool:
        """Abandoned ones too: such a one may be compiling still."""
        return any(isinstance(thread, Background) for thread in threading.enumerate())

    def run(self) -> None:
        give_way()
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        ready = error = None
        try:
            self._check_room()
            ready = load_stage(self.asked, self._folder, self._node, self._loading, self._held)
        except LoadError as failure:
            log.error("cannot prepare: %s", failure, exc_info=failure.__cause__)
            error = failure
        except _Abandoned:
            return
        finally:
            sys.setswitchinterval(before)
            self._held = None
        if not self._abandoned:
            self._reports.put(Done(self.asked, ready, error))

    def _check_room(self) -> None:
        """Both must be held for a while."""
        if self._held is None:
            return  # as wherever layers are loaded
        info, asked, own = read_model(self._folder), self.asked, self._held.layers
        gained = [n for n in range(asked.start, asked.end) if not own.start <= n < own.end]
        weights = sum(info.layer_bytes[n] for n in gained)
        kv = self._kv_bytes * len(gained) // len(own)
        if weights + kv > self._room:
            raise LoadError(
                self._folder,
                f"{weights:,} bytes of layers and about {kv:,} of their KV are to be held beside "
                f"what is held, and {max(0, self._room):,} bytes of memory are left",
                "move fewer layers at a time, or free KV (`shardctl kv evict all`)",
            )

    def _loading(self, done: int, total: int) -> None:
        if self._abandoned:
            raise _Abandoned
        self.bytes_loaded, self.bytes_total = done, total


def give_way() -> None:
    """This thread, and those that it starts, compute when nobody else wants to."""
    try:
        if sys.platform == "darwin":
            os.setpriority(_DARWIN_THREAD, 0, _DARWIN_BACKGROUND)
        else:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
    except OSError as error:
        log.info("a load in the background has the priority of everything else: %s", error)
