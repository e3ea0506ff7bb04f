"""One child process of shardd: started, its stderr kept, started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from daemon import autogroup, logs
from daemon.config import EX_CONFIG
from daemon.supervisor.output import Output
from daemon.supervisor.policy import RestartPolicy, RestartRules

LONGEST_LINE = 1 << 16
LAST_WORDS_SECONDS = 1.0  # for stderr to end after the process did
# The last words of Python and of MLX when an allocation failed.
NO_MEMORY = ("MemoryError", "RuntimeError: [malloc", "RuntimeError: [metal::malloc")
log = logs.get("supervisor")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: `reason` for programs (signal, out-of-memory, exit, start), `detail` for
    people.
    """

    pid: int
    reason: str
    detail: str
    restarts: int
    retry_seconds: float | None


def explain(returncode: int, oom_kills: int, last_line: str) -> tuple[str, str]:
    """Reason and detail of an exit. `oom_kills`: how often the kernel's out-of-memory killer struck
    meanwhile.
    """
    if returncode == -signal.SIGKILL and oom_kills:
        return "out-of-memory", "ended by the kernel: out of memory"
    if returncode > 0 and last_line.startswith(NO_MEMORY):
        return "out-of-memory", f"exit code {returncode}: {last_line}"
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return "signal", f"signal {signal.Signals(-returncode).name}"
        return "signal", f"signal {-returncode}"
    detail = f"exit code {returncode}"
    return "exit", f"{detail}: {last_line}" if last_line and returncode else detail


def oom_kill_count() -> int:
    """Processes that the kernel ended for lack of memory since boot; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class Child:
    """It leads a process group of its own, which ends with it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        on_exit: Callable[[Exit], None],
        rules: RestartRules | None = None,
        nice: int = 0,
    ) -> None:
        """Where there are such things its session starts with this nice value, until it has taken
        that back itself (autogroup.py).
        """
        self.name = name
        self.pid = 0
        self._why = ""  # it was killed from here
        self._command = list(command)
        self._environment = dict(environment)
        self._output = Output(log_file)
        self._on_exit = on_exit
        self._policy = RestartPolicy(rules or RestartRules())
        self._nice = nice
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def lines(self) -> Iterable[str]:
        """The last lines of its stderr, of all its lives."""
        return self._output.lines

    async def run(self) -> None:
        """Keep the child running until `stop`, or until the breaker opens."""
        self._ended.clear()
        try:
            while not self._stopping.is_set():
                delay = await self._live()
                if delay is None:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)
        finally:
            self._output.close()
            self._ended.set()

    async def _live(self) -> float | None:
        """One life. Returns the seconds to wait before the next, None when there is none."""
        kills = oom_kill_count()
        code: int | None
        try:
            code = await self._process_ends()
        except OSError as error:
            code = None
            pid, reason, detail = 0, "start", f"cannot be started: {error}"
        else:
            pid = self.pid
            last = self._output.lines[-1] if self._output.lines else ""
            reason, detail = explain(code, oom_kill_count() - kills, last)
            detail = f"{detail}: {self._why}" if self._why else detail
        self.pid, self._process = 0, None
        stopped = self._stopping.is_set()
        hopeless = stopped or code == EX_CONFIG  # another start would find the same
        delay = None if hopeless else self._policy.ended(asyncio.get_running_loop().time())
        log.log(20 if stopped else 40, "%s (pid %d) ended: %s", self.name, pid, detail)
        self._on_exit(Exit(pid, reason, detail, self._policy.restarts, delay))
        return delay

    async def _process_ends(self) -> int:
        """Start the process and wait for its end. OSError when it cannot be started."""
        reader, writer = os.pipe()  # our own: asyncio's would wait for whoever else has it open
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=writer,
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._process, self.pid, self._why = process, process.pid, ""
        if self._nice:
            autogroup.change(self.pid, self._nice)
        log.info("%s started, pid %d", self.name, self.pid)
        output = asyncio.create_task(self._keep_output(os.fdopen(reader, "rb", buffering=0)))
        try:
            if self._stopping.is_set():  # `stop` came while it was being started
                self.kill()
            return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(output, LAST_WORDS_SECONDS)

    async def _keep_output(self, pipe: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=LONGEST_LINE)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        try:
            while True:
                try:
                    line = await stream.readline()
                except ValueError:  # above the limit: the rest of it follows as further lines
                    continue
                if not line:
                    return
                self._output.take(line)
        finally:
            transport.close()

    def kill(self, why: str = "") -> None:
        """End it with SIGKILL, also when it is stopped; `run` starts it again. `why` is told of its
        end.
        """
        if self._process and self._process.returncode is None:
            self._why = why
            self._process.kill()

    def kill_for_good(self) -> None:
        self._stopping.set()
        self.kill()

    async def stop(self, grace: float) -> None:
        """Ask it to end, wait `grace` seconds, then end it. Returns when nothing of it is left."""
        self._stopping.set()
        if self._process and self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._ended.wait(), grace)
        except TimeoutError:
            log.warning("%s did not end within %.0f s: killed", self.name, grace)
            self.kill()
            await self._ended.wait()
