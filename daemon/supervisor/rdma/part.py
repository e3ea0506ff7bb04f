"""shardd's part in RDMA: says what the node offers, starts the rdma process and ends it.

It is a child like no other: started when the coordinator asks, for one group, and never again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.supervisor.child import Child, Exit
from daemon.supervisor.policy import RestartRules
from daemon.supervisor.rdma import ending, machine
from daemon.supervisor.rdma.machine import Found
from daemon.supervisor.rdma.offer import Offered, bad_host, free_address, offered, wanted
from daemon.supervisor.rdma.starts import Starts

OFFER_SECONDS = 2.0
STOP_SECONDS = 1.0  # for a process to end by itself; one that is stopped or spins is killed then
LOOK_SECONDS = 60.0  # between two looks at the machine's devices
ONCE = RestartRules(burst=0)
NICE = 10  # while it starts: about a tenth of a core that the stage computes on
UNKNOWN = Found("", (), "it has not been looked at yet")
log = logs.get("supervisor")


class RdmaPart:
    """`say` sends to the coordinator, `exited` is told of the end of each process, `keep` runs a
    task, `adopt` is given each child. `find` and `built` look at the machine.
    """

    def __init__(
        self,
        config: Config,
        incarnation: str,
        say: Callable[[msg.Message], bool],
        exited: Callable[[Exit], None],
        keep: Callable[[Coroutine[Any, Any, None]], None],
        adopt: Callable[[Child], None],
        find: Callable[[], Awaitable[Found]],
        built: Callable[[], Awaitable[tuple[str, ...]]] = machine.built_backends,
    ) -> None:
        self._config = config
        self._name, self._incarnation = config.node.name, incarnation
        self._say, self._exited, self._keep, self._adopt = say, exited, keep, adopt
        self._find, self._built = find, built
        self._starts = Starts(config.node.state_dir / "rdma-starts.json", config.rdma.group_starts)
        self._found = UNKNOWN
        self._offered = Offered((), UNKNOWN.why_not)
        self._address = ""
        self._child: Child | None = None
        self._running: msg.RdmaStart | None = None
        self._next: msg.RdmaStart | None = None  # when the present one has ended
        self._stopped = ""  # why the present one was told to end
        self._ended, self._reason, self._detail = 0, "", ""
        self._said_at = float("-inf")

    async def look(self) -> None:
        """Find out what there is, and look again now and then."""
        built: tuple[str, ...] = ()
        backend = wanted(self._config.rdma.backend)
        while True:
            self._found = await self._find()
            if backend and not built and (backend != "jaccl" or self._found.devices):
                built = await self._built()
            self._offered = offered(self._config.rdma.backend, built, self._found)
            if not self._address:
                self._choose_address()
            self.tell()
            await asyncio.sleep(LOOK_SECONDS)

    def beat(self, now: float) -> None:
        """Time has passed."""
        if now - self._said_at >= OFFER_SECONDS:
            self.tell()

    def tell(self) -> None:
        if self._found is UNKNOWN:
            return  # who has not looked has nothing to say
        self._said_at = time.monotonic()
        self._say(self._offer())

    def hear(self, message: msg.RdmaStart | msg.RdmaStop) -> None:
        match message:
            case msg.RdmaStart():
                self._asked_to_start(message)
            case msg.RdmaStop(_, group, why):
                if self._running and self._running.group <= group:
                    self._end(why)
                elif group > self._ended:
                    self._note_end(group, "asked", why)
        self.tell()

    # --- the process ---

    def _asked_to_start(self, start: msg.RdmaStart) -> None:
        running = self._running
        if start.group <= max(self._ended, running.group if running else 0):
            return  # it runs, or has run
        if running:
            self._next = start
            self._end("another group is started")
        elif why := self._obstacle(start):
            self._note_end(start.group, "refused", why)
            log.error("group %d is not started: %s", start.group, why)
        else:
            self._start(start)

    def _obstacle(self, start: msg.RdmaStart) -> str:
        """Why this must not be started, or ""."""
        if start.backend not in self._offered.backends:
            return self._offered.why_not or f"{start.backend!r:.20} is not what this node offers"
        if not start.rank < len(start.hosts):
            return f"rank {start.rank} of {len(start.hosts)}"
        for host in start.hosts:
            if why := bad_host(self._config, host):
                return why
        if start.backend == "jaccl":
            rows = start.devices
            if len(rows) != len(start.hosts) or any(len(row) != len(rows) for row in rows):
                return "the matrix of devices is not one of this group"
            mine = {name for cell in rows[start.rank] for name in cell}
            if unknown := sorted(mine - set(self._found.devices)):
                return f"this machine has no {', '.join(unknown):.80}"
        if why := self._starts.obstacle(self._found.boot, start.backend):
            return why
        try:
            self._starts.count(self._found.boot, start.backend)
        except OSError as error:
            return f"the start cannot be written down: {error}"
        return ""

    def _start(self, start: msg.RdmaStart) -> None:
        config, self._running, self._stopped = self._config, start, ""
        command = [sys.executable, "-m", "daemon.rdma"]
        command += [str(config.node.state_dir / "config.resolved.yaml"), self._incarnation]
        command += [str(os.getpid()), msg.encode(start).hex()]
        file = Path(config.node.state_dir) / "logs" / "rdma.log"
        environment = dict(os.environ)
        self._child = Child("rdma", command, environment, file, self._has_ended, ONCE, NICE)
        self._adopt(self._child)
        self._keep(self._child.run())

    def _end(self, why: str) -> None:
        if self._child and not self._stopped:
            self._stopped = why or "it was asked to"
            self._keep(self._child.stop(STOP_SECONDS))

    def _has_ended(self, end: Exit) -> None:
        child, running = self._child, self._running
        if child is None or running is None:
            return
        reason, detail = ending.explain(end, child.lines)
        if self._stopped:
            reason, detail = "asked", self._stopped
        self._child = self._running = None
        self._note_end(running.group, reason, detail)
        self._choose_address()  # the one before may be taken for a while
        self._exited(Exit(end.pid, reason, detail, 0, None))
        following, self._next = self._next, None
        if following:
            self._asked_to_start(following)
        self.tell()

    def _note_end(self, group: int, reason: str, detail: str) -> None:
        self._ended, self._reason, self._detail = group, reason, detail

    # --- the offer ---

    def _choose_address(self) -> None:
        self._address = ""
        if not self._offered.backends:
            return
        try:
            self._address = free_address(self._config)
        except OSError as error:
            self._offered = Offered((), str(error))

    def _offer(self) -> msg.RdmaOffer:
        boot, told, running = self._found.boot, self._offered, self._running
        backend = told.backends[0] if told.backends else ""
        left = self._starts.left(boot, backend) if backend else 0
        spent = self._starts.obstacle(boot, backend) if backend else ""
        return msg.RdmaOffer(
            self._name,
            self._incarnation,
            boot,
            list(told.backends),
            self._address,
            list(self._found.devices),
            list(self._found.unplugged),
            left,
            told.why_not or spent,
            running.group if running else 0,
            running.backend if running else "",
            running.rank if running else 0,
            len(running.hosts) if running else 0,
            self._child.pid if self._child else 0,
            self._ended,
            self._reason,
            self._detail,
        )
