"""The bulk thread of a stage process: saved KV to and from the disk, and between nodes.

It sees bytes only, never an array of MLX: what it writes are views that the compute thread made,
what it has read it hands back as bytes. Jobs are done in steps of one slice; between two steps it
answers other nodes. What comes of a job is put into `reports`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from daemon import logs
from daemon.ring import Network
from daemon.stage.exchange import Shelf
from daemon.stage.jobs import (
    Abandon,
    Drop,
    Installed,
    Job,
    Report,
    Restore,
    Save,
    Saved,
    Survey,
    Surveyed,
)
from daemon.stage.mailbox import Mailbox
from daemon.stage.restoring import Handover, Restoring
from daemon.storage.content import Steps
from daemon.storage.errors import StorageError
from daemon.storage.folder import KvFolder
from transports.errors import AddressError

log = logs.get("bulk")

MOST_ENTRIES = 256  # that a stage tells of
PAUSE_MS = 1  # between two slices that are written: the core belongs to those who compute


@dataclass(frozen=True, slots=True)
class Task:
    """A job under way. A step that yields True had nothing to do, until something is asked for.
    `failed` makes the report of one that broke off, from the reason.
    """

    steps: Generator[bool | None, None, Report | None]
    failed: Callable[[str], Report | None]
    number: int = 0


class Lane:
    """Tasks that are done one after another, in steps; each ends with its report. What the disk,
    the memory or another node refuses one of them is no matter of the next.
    """

    def __init__(self, reports: Mailbox[Report]) -> None:
        self._tasks: deque[Task] = deque()
        self._reports = reports

    def add(self, task: Task) -> None:
        self._tasks.append(task)

    def abandon(self, number: int) -> None:
        for task in [task for task in self._tasks if task.number == number]:
            self._tasks.remove(task)
            task.steps.close()

    def step(self) -> bool:
        """False when there is nothing to do."""
        if not self._tasks:
            return False
        try:
            return not next(self._tasks[0].steps)
        except StopIteration as end:
            report = end.value
        except (StorageError, OSError, MemoryError) as error:
            log.warning("not done: %s", error)
            report = self._tasks[0].failed(str(error))
        # The task lets go of what it was given before anybody hears that it is done.
        self._tasks.popleft()
        if report is not None:
            self._reports.put(report)
        return True

    def close(self) -> None:
        for task in self._tasks:
            task.steps.close()


class Bulk(threading.Thread):
    def __init__(
        self,
        context: zmq.Context[Any],
        data_address: str,
        networks: Sequence[Network],
        folder: KvFolder,
    ) -> None:
        super().__init__(name="bulk", daemon=True)
        self.reports: Mailbox[Report] = Mailbox()
        self._jobs: Mailbox[Job | None] = Mailbox()
        self._context = context
        self._networks = networks
        self._folder = folder
        self._handover = Handover(self.reports)
        self._urgent, self._saves = Lane(self.reports), Lane(self.reports)
        self._shelf: Shelf | None = None
        try:
            self._shelf = Shelf(context, data_address, networks)
        except AddressError as error:
            log.error("other nodes cannot read this one's saved KV: %s", error)

    @property
    def address(self) -> str:
        """Where other nodes may ask for files; "" when it could not be had."""
        return self._shelf.address if self._shelf else ""

    def ask(self, job: Job) -> None:
        """From any thread."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End after the step at hand; what is half written is removed."""
        self._jobs.put(None)
        self.join()
        self._jobs.close()
        self.reports.close()

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._jobs.fd, zmq.POLLIN)
        if self._shelf:
            poller.register(self._shelf.socket, zmq.POLLIN)
        self._folder.clean()
        pause: int | None = None
        try:
            while True:
                ready = dict(poller.poll(pause))
                if self._jobs.fd in ready and not self._add(self._jobs.take()):
                    return
                if self._shelf and self._shelf.socket in ready:
                    self._shelf.serve(self._folder)
                pause = 0 if self._urgent.step() else PAUSE_MS if self._saves.step() else None
        finally:
            self._urgent.close()
            self._saves.close()
            if self._shelf:
                self._shelf.close()

    def _add(self, job: Job | None) -> bool:
        """Somebody waits for what is read; nobody for what is written. False: it is to end."""
        match job:
            case None:
                return False
            case Save():
                self._saves.add(Task(self._save(job), lambda why: Saved(0, 0.0, why)))
            case Restore():
                restoring = Restoring(
                    job, self._folder, self._context, self._networks, self._handover
                )
                self._urgent.add(Task(restoring.steps(), restoring.failed, job.number))
            case Survey():
                self._urgent.add(Task(self._survey(job), _nobody_waits))
            case Drop():
                self._urgent.add(Task(self._drop(job), _nobody_waits))
            case Installed():
                self._handover.free = True
            case Abandon():
                self._urgent.abandon(job.number)
        return True

    def _save(self, job: Save) -> Steps[Saved]:
        began = time.monotonic()
        size = yield from self._folder.save(job.identity, job.layers, job.tokens, job.parts)
        return Saved(size, time.monotonic() - began)

    def _survey(self, job: Survey) -> Steps[Surveyed]:
        files = yield from self._folder.scan(job.digest, MOST_ENTRIES)
        return Surveyed(job.digest, files)

    def _drop(self, job: Drop) -> Steps[None]:
        self._folder.drop(job.digest, job.entry)
        yield


def _nobody_waits(why: str) -> None:
    """What was asked for is asked for again, or is no loss."""
