"""Run the system's tools, and come back in time whatever they do.

A driver that is wedged makes `ibv_devinfo` hang, inside the kernel also against SIGKILL. So a tool
that hangs is a diagnosis: nobody waits for its end, and it is not started again before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = 5.0  # that a tool has
LAST_SECONDS = 0.5  # that a killed one has to go, and output to follow an end
MOST_BYTES = 4 << 20  # of output: one that never stops talking is cut
# A service has little on its PATH, but always these.
FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Output:
    """How a tool went: ok, missing, refused (it cannot be started), hangs, endless (it does not
    stop talking), crashed (by a signal) or failed (with a code). `detail` is for people.
    """

    how: str
    text: str = ""
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.how == "ok"

    @property
    def summary(self) -> str:
        return f"{self.how}: {self.detail}" if self.detail else self.how


class Runner:
    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._stuck: dict[str, Process] = {}

    async def run(self, command: Sequence[str]) -> Output:
        tool = command[0]
        stuck = self._stuck.get(tool)
        if stuck is not None and stuck.returncode is None:
            return Output("hangs", detail=f"pid {stuck.pid} of before still does, and lives on")
        self._stuck.pop(tool, None)
        folders = [os.environ.get("PATH", ""), *FOLDERS]
        path = shutil.which(tool, path=os.pathsep.join(folders))
        if path is None:
            return Output("missing")
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                path,
                *command[1:],
                env={**os.environ, "LC_ALL": "C"},
                stdin=DEVNULL,
                stdout=out_end,
                stderr=err_end,
                start_new_session=True,
            )
        except OSError as error:
            _close(out, err)
            return Output("refused", detail=error.strerror or str(error))
        except BaseException:
            _close(out, err)
            raise
        finally:
            _close(out_end, err_end)
        return await self._end(tool, process, Tail(out), Tail(err))

    async def _end(self, tool: str, process: Process, out: Tail, err: Tail) -> Output:
        readers = [asyncio.create_task(tail.read()) for tail in (out, err)]
        late = False
        try:
            await asyncio.wait_for(process.wait(), self._seconds)
            await asyncio.wait(readers, timeout=LAST_SECONDS)
        except TimeoutError:
            late = True
        finally:
            _kill_group(process)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), LAST_SECONDS)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        if process.returncode is None:
            self._stuck[tool] = process
        if out.full or err.full:
            return Output("endless", detail=f"more than {MOST_BYTES >> 20} MB")
        if late:
            left = ", and cannot be killed" if tool in self._stuck else ""
            return Output("hangs", detail=f"no answer in {self._seconds:g} s{left}")
        return _output(process.returncode or 0, out.text, err.text)


class Tail:
    """What comes out of one end of a tool, up to MOST_BYTES."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data = bytearray()

    @property
    def text(self) -> str:
        return self._data.decode("utf-8", "replace")

    @property
    def full(self) -> bool:
        return len(self._data) >= MOST_BYTES

    async def read(self) -> None:
        """To its end, or until it is full: who writes more has nobody who reads it."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(self._descriptor, "rb", 0)
        )
        try:
            while not self.full and (piece := await stream.read(1 << 16)):
                self._data += piece
        finally:
            transport.close()


def _output(code: int, text: str, complaint: str) -> Output:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return Output("crashed", text, f"signal {name}")
    if code:
        words = (complaint.strip() or text.strip()).splitlines()
        return Output(
            "failed", text, f"exit code {code}" + (f", {words[-1][:160]}" if words else "")
        )
    return Output("ok", text)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _kill_group(process: Process) -> None:
    """With whatever it has started. Nothing is left of one that has ended well."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
