"""One child process of shardd: started, its stderr kept, started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon import logs
from daemon.supervisor.policy import RestartPolicy, RestartRules

KEPT_LINES = 2000
LONGEST_LINE = 1 << 16
LOG_FILE_BYTES = 16 << 20
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
    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        on_exit: Callable[[Exit], None],
        rules: RestartRules | None = None,
    ) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.pid = 0
        self._command = list(command)
        self._environment = dict(environment)
        self._log_file = log_file
        self._on_exit = on_exit
        self._policy = RestartPolicy(rules or RestartRules())
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self) -> None:
        """Keep the child running until `stop`, or until the breaker opens."""
        loop = asyncio.get_running_loop()
        while not self._stopping:
            kills = oom_kill_count()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                    limit=LONGEST_LINE,
                )
            except OSError as error:
                pid, reason, detail = 0, "start", f"cannot be started: {error}"
            else:
                pid = self.pid = self._process.pid
                log.info("%s started, pid %d", self.name, pid)
                await self._keep_stderr(self._process)
                code = await self._process.wait()
                last = self.lines[-1] if self.lines else ""
                reason, detail = explain(code, oom_kill_count() - kills, last)
            self.pid, self._process = 0, None
            delay = None if self._stopping else self._policy.ended(loop.time())
            log.log(20 if self._stopping else 40, "%s (pid %d) ended: %s", self.name, pid, detail)
            self._on_exit(Exit(pid, reason, detail, self._policy.restarts, delay))
            if delay is None:
                return
            await asyncio.sleep(delay)

    async def _keep_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as file:
            while True:
                try:
                    line = await process.stderr.readline()
                except (
                    ValueError
                ):  # a line above the limit: the rest of it follows as further lines
                    continue
                if not line:
                    return
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                try:
                    if file.tell() < LOG_FILE_BYTES:
                        file.write(line)
                        file.flush()
                    else:
                        file.truncate(0)
                except OSError as error:  # a full disk costs the log file, not the child
                    log.warning("cannot write %s: %s", self._log_file, error)

    def kill(self) -> None:
        """End it with SIGKILL, also when it is stopped; `run` starts it again."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    def kill_for_good(self) -> None:
        self._stopping = True
        self.kill()

    async def stop(self, grace: float) -> None:
        """Ask it to end, wait `grace` seconds, then end it."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            log.warning("%s did not end within %.0f s: killed", self.name, grace)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
