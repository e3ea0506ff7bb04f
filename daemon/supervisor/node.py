"""shardd: one machine's part of the cluster. Supervises its children and speaks for the node. Never
imports MLX.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil
import zmq
import zmq.asyncio

from daemon import logs
from daemon import messages as msg
from daemon.config import Config, ConfigError, load
from daemon.control import dealer_options
from daemon.engine import blas
from daemon.service import Demand, Notifier, handle_signals, watchdog_interval
from daemon.supervisor import reports
from daemon.supervisor.child import Child, Exit
from daemon.supervisor.ports import Ports
from daemon.supervisor.rdma import machine
from daemon.supervisor.rdma.part import RdmaPart
from daemon.supervisor.recent import RecentLines
from daemon.supervisor.standstill import Standstill

EXIT_FAILED = 1
UNSAID = 100  # exits of children that are kept for a coordinator that is away
STOP_MARGIN_S = 5.0
# glibc gives buffers above 128 KB back to the kernel when they are freed, and a stage frees and
# asks for many in every pass: kept, a step of four sequences takes 3 or 4 % less. Other systems'
# allocators do not look at these.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the most that glibc allows
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
FENCED = (msg.Welcome, msg.Identify, msg.KillStage, msg.RdmaStart, msg.RdmaStop)
log = logs.get("supervisor")


class Shardd:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._name = config.node.name
        self._incarnation = secrets.token_hex(8)
        self._context = zmq.asyncio.Context()
        self._control: zmq.asyncio.Socket = self._context.socket(zmq.DEALER)
        self._children: dict[str, Child] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()
        self._code = 0
        self._welcomed = False
        self._term = 0  # the highest seen
        self._unsaid: deque[msg.ChildExited] = deque(maxlen=UNSAID)
        self._notifier = Notifier.from_environment()
        self._recent = RecentLines()
        self._ports = Ports(self._name, self._send)
        self._rdma = RdmaPart(
            config,
            self._incarnation,
            lambda message: self._welcomed and self._send(message),
            lambda end: self._exited("rdma", end),
            self._task,
            lambda child: self._children.update(rdma=child),
            lambda: machine.find(self._ports.looker),
        )
        # Half: it is looked at with every heartbeat, and its end may take a moment.
        self._standstill = Standstill(config.timeouts.dead_after_s / 2)

    async def run(self) -> int:
        """Until a signal asks to end, or it cannot go on. Returns the exit code."""
        config = self._config
        try:
            resolved = reports.write_resolved(config)
        except OSError as error:
            log.error("cannot write to node.state_dir: %s", error)
            self._context.destroy(linger=0)
            return EXIT_FAILED
        dealer_options(self._control, f"node:{self._name}:{self._incarnation}")
        self._control.connect(config.coordinator.address)
        handle_signals(self._demanded, asyncio.get_running_loop())
        if config.coordinator.run:
            self._start("coordinator", [str(resolved), str(os.getpid())], dict(os.environ))
        found = await asyncio.to_thread(blas.find_blas, config.node.state_dir / "blas")
        log.info("stage processes multiply with %s", found.name)
        environment = {**ALLOCATOR, **os.environ, **blas.environment(found)}
        for name in ("stage", "draft") if config.node.draft else ("stage",):
            self._start(name, [str(resolved), self._incarnation, str(os.getpid())], environment)
        self._task(self._listen())
        self._task(self._beat())
        self._task(self._rdma.look())
        self._notifier.ready(f"node {self._name} is up")
        await self._stop.wait()
        await self._leave()
        return self._code

    def _start(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", f"daemon.{name}", *arguments]
        log_file = Path(self._config.node.state_dir) / "logs" / f"{name}.log"
        child = Child(name, command, environment, log_file, lambda e: self._exited(name, e))
        self._children[name] = child
        self._task(child.run())

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("shardd failed", exc_info=error)
            self._fail()

    def _fail(self) -> None:
        """End, and let the service manager start it again."""
        self._code = EXIT_FAILED
        self._stop.set()

    def _demanded(self, demand: Demand) -> None:
        match demand:
            case Demand.STOP:
                self._stop.set()
            case Demand.NOW:
                self._stop.set()
                self._drained.set()
                for child in self._children.values():
                    child.kill_for_good()
            case Demand.RELOAD:
                self._reload()

    def _reload(self) -> None:
        """The log level changes at once; what else differs is named, and takes a restart."""
        try:
            fresh = load(self._config.file)
        except ConfigError as error:
            log.error("not reloaded: %s", error)
            return
        logs.set_level(fresh.log.level)
        others = [path for path in self._config.differences(fresh) if path != "log.level"]
        restart = f"; restart for {', '.join(others)}" if others else ""
        log.info("reloaded: log level %s%s", fresh.log.level, restart)

    # --- the coordinator ---

    def _send(self, message: msg.Message) -> bool:
        """Never waits. What cannot be sent now is said again: hello and heartbeat at the next
        beat, exits of children when the coordinator is back; who asked for log lines asks again.
        """
        sent = asyncio.ensure_future(self._control.send(msg.encode(message), zmq.NOBLOCK))
        return sent.done() and not sent.cancelled() and sent.exception() is None

    def _hello(self) -> msg.NodeHello:
        return reports.hello(self._config, self._incarnation, self._term)

    async def _beat(self) -> None:
        interval = self._config.timeouts.heartbeat_s
        if allowed := watchdog_interval():
            interval = min(interval, allowed)
        while True:
            if not self._welcomed:
                self._send(self._hello())
            free = psutil.virtual_memory().available
            stage = self._children.get("stage")
            stage_pid = stage.pid if stage else 0
            if not self._send(msg.NodeHeartbeat(self._name, self._incarnation, free, stage_pid)):
                self._welcomed = False  # whoever comes next may not know us
            self._rdma.beat(time.monotonic())
            self._notifier.watchdog()
            self._end_stopped_coordinator()
            await asyncio.sleep(interval)

    def _end_stopped_coordinator(self) -> None:
        """Of stages and drafts that are silent the coordinator makes sure; of it nobody else."""
        coordinator = self._children.get("coordinator")
        if coordinator is None or self._stop.is_set():
            return
        if seconds := self._standstill.look(coordinator.pid, time.monotonic()):
            why = f"it was stopped for {seconds:.1f} s"
            log.error("ending the coordinator process: %s", why)
            coordinator.kill(why)

    async def _listen(self) -> None:
        while True:
            data = await self._control.recv()
            try:
                message = msg.decode(data)
            except msg.MessageError as error:
                log.warning("dropped a control message: %s", error)
                continue
            if self._obeys(message):
                self._heard(message)

    def _obeys(self, message: msg.Message) -> bool:
        """Not a coordinator that was replaced: its term is lower than the highest seen."""
        if not isinstance(message, FENCED):
            return True
        if message.term < self._term:
            name = type(message).__name__
            log.warning("ignored %s of term %d after %d", name, message.term, self._term)
            return False
        self._term = message.term
        return True

    def _heard(self, message: msg.Message) -> None:
        match message:
            case msg.Welcome():
                if not self._welcomed:
                    log.info("joined cluster %s", message.cluster)
                self._welcomed = True
                self._tell_exits()
                self._rdma.tell()
            case msg.Identify():
                self._welcomed = False
                self._send(self._hello())
            case msg.Refused():
                log.error("refused: %s; %s; %s", message.what, message.why, message.todo)
                self._fail()
            case msg.KillStage():
                for child in self._children.values():
                    if child.name != "coordinator" and child.pid == message.pid:
                        log.warning("ending the %s process: %s", child.name, message.why)
                        child.kill(message.why)
            case msg.RdmaStart() | msg.RdmaStop():
                self._rdma.hear(message)
            case msg.LogsQuery():
                self._send(msg.LogsReport(message.query, self._name, self._log_lines(message)))
            case msg.PortsQuery():
                self._ports.ask(message)
            case msg.Drained():
                self._drained.set()
            case _:
                log.warning("dropped an unexpected %s", type(message).__name__)

    def _log_lines(self, query: msg.LogsQuery) -> list[str]:
        if query.child == "shardd":
            return reports.fitting(self._recent.last(query.lines))
        child = self._children.get(query.child)
        lines = list(child.lines) if child else []
        return reports.fitting(lines[max(0, len(lines) - query.lines) :])

    def _exited(self, name: str, end: Exit) -> None:
        report = msg.ChildExited(
            node=self._name,
            incarnation=self._incarnation,
            child=name,
            pid=end.pid,
            reason=end.reason,
            detail=end.detail,
            restarts=end.restarts,
            retry_seconds=-1.0 if end.retry_seconds is None else end.retry_seconds,
        )
        self._unsaid.append(report)
        if name == "coordinator":
            self._welcomed = False
        self._tell_exits()
        if name == "coordinator" and end.retry_seconds is None and not self._stop.is_set():
            log.error("the coordinator cannot run: %s", end.detail)
            self._fail()

    def _tell_exits(self) -> None:
        """To a coordinator that knows us; any other would not listen."""
        while self._welcomed and self._unsaid and self._send(self._unsaid[0]):
            self._unsaid.popleft()

    async def _drain(self, until: float) -> None:
        """Wait until no request needs this node. A coordinator that cannot be reached has none."""
        goodbye = msg.Goodbye(self._name, self._incarnation)
        while time.monotonic() < until and self._send(goodbye):
            try:
                await asyncio.wait_for(self._drained.wait(), 1.0)
                return
            except TimeoutError:
                continue
        log.warning("not drained: leaving")

    async def _leave(self) -> None:
        """Drain: running requests end first, then the children, the coordinator before stages."""
        drain, stop = self._config.timeouts.drain_s, self._config.timeouts.stop_s
        self._notifier.stopping("draining")
        self._notifier.extend_timeout(drain + stop + STOP_MARGIN_S)
        if "coordinator" in self._children:
            await self._children["coordinator"].stop(max(drain, 1.0))
        elif self._welcomed:
            await self._drain(time.monotonic() + drain)
        await asyncio.gather(*(c.stop(stop) for c in self._children.values()), self._ports.close())
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._context.destroy(linger=200)
