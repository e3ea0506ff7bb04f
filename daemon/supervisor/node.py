"""shardd: one machine's part of the cluster. Supervises its children and speaks for the node. Never
imports MLX.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Coroutine
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml
import zmq
import zmq.asyncio

from daemon import logs
from daemon import messages as msg
from daemon.config import Config, ConfigError, load
from daemon.control import dealer_options
from daemon.engine import blas
from daemon.service import Demand, Notifier, handle_signals, watchdog_interval
from daemon.supervisor.child import Child, Exit
from daemon.supervisor.recent import RecentLines

EXIT_FAILED, EXIT_REFUSED = 1, 5
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
        self._notifier = Notifier.from_environment()
        self._recent = RecentLines()

    async def run(self) -> int:
        """Until a signal asks to end. Returns the exit code."""
        config = self._config
        config.node.state_dir.mkdir(parents=True, exist_ok=True)
        resolved = config.node.state_dir / "config.resolved.yaml"
        resolved.write_text(yaml.safe_dump(_without_unset(config.to_mapping()), sort_keys=False))
        dealer_options(self._control, f"node:{self._name}:{self._incarnation}")
        self._control.connect(config.coordinator.address)
        handle_signals(self._demanded, asyncio.get_running_loop())
        if config.coordinator.run:
            self._start("coordinator", [str(resolved), str(os.getpid())], dict(os.environ))
        found = await asyncio.to_thread(blas.find_blas, config.node.state_dir / "blas")
        log.info("stage processes multiply with %s", found.name)
        environment = {**os.environ, **blas.environment(found)}
        self._start("stage", [str(resolved), self._incarnation, str(os.getpid())], environment)
        self._task(self._listen())
        self._task(self._beat())
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
        if not task.cancelled() and (error := task.exception()):
            log.error("shardd failed", exc_info=error)
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
        """Never waits: what cannot be sent now is lost, and said again with the next hello or
        heartbeat.
        """
        sent = asyncio.ensure_future(self._control.send(msg.encode(message), zmq.NOBLOCK))
        return sent.done() and not sent.cancelled() and sent.exception() is None

    def _hello(self) -> msg.NodeHello:
        return msg.NodeHello(
            msg.PROTOCOL,
            metadata.version("shardbus"),
            self._name,
            self._incarnation,
            os.getpid(),
            socket.gethostname(),
            f"{platform.system()} {platform.release()} {platform.machine()}",
            platform.python_version(),
            os.cpu_count() or 1,
            self._config.node.max_memory or psutil.virtual_memory().total,
        )

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
            self._send(msg.NodeHeartbeat(self._name, self._incarnation, free, stage_pid))
            self._notifier.watchdog()
            await asyncio.sleep(interval)

    async def _listen(self) -> None:
        while True:
            data = await self._control.recv()
            try:
                message = msg.decode(data)
            except msg.MessageError as error:
                log.warning("dropped a control message: %s", error)
                continue
            match message:
                case msg.Welcome():
                    self._welcomed = True
                    log.info("joined cluster %s", message.cluster)
                case msg.Identify():
                    self._send(self._hello())
                case msg.Refused():
                    log.error("refused: %s; %s; %s", message.what, message.why, message.todo)
                    self._code = EXIT_REFUSED
                    self._stop.set()
                case msg.KillStage():
                    stage = self._children["stage"]
                    if stage.pid == message.pid:
                        log.warning("ending the stage process: %s", message.why)
                        stage.kill()
                case msg.LogsQuery():
                    self._send(msg.LogsReport(message.query, self._name, self._log_lines(message)))
                case msg.Drained():
                    self._drained.set()
                case _:
                    log.warning("dropped an unexpected %s", type(message).__name__)

    def _log_lines(self, query: msg.LogsQuery) -> list[str]:
        if query.child == "shardd":
            return self._recent.last(query.lines)
        child = self._children.get(query.child)
        return list(child.lines)[-query.lines :] if child else []

    def _exited(self, name: str, end: Exit) -> None:
        retry = -1.0 if end.retry_seconds is None else end.retry_seconds
        who = (self._name, self._incarnation, name)
        how = (end.pid, end.reason, end.detail, end.restarts, retry)
        report = msg.ChildExited(*who, *how)
        self._send(report)
        if name == "coordinator" and end.retry_seconds is None and not self._stop.is_set():
            log.error("the coordinator cannot run: %s", end.detail)
            self._code = EXIT_FAILED
            self._stop.set()

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
        self._notifier.stopping("draining")
        grace = self._config.timeouts.drain_s
        began = time.monotonic()
        if "coordinator" in self._children:
            await self._children["coordinator"].stop(grace)
        elif self._welcomed:
            await self._drain(began + grace)
        left = max(1.0, grace - (time.monotonic() - began))
        await asyncio.gather(*(c.stop(left) for c in self._children.values()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.destroy(linger=200)


def _without_unset(mapping: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it is written in a file: what is not set does not stand there."""
    return {
        key: _without_unset(value) if isinstance(value, dict) else value
        for key, value in mapping.items()
        if value is not None
    }
