"""Long-lived measuring processes: one JSON object a line in, one out; between requests they block
on their input.

A worker pins itself to its core before it imports MLX, so that every thread it makes inherits the
pin.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A measuring process ended or answered with an error."""


class Worker(AbstractContextManager["Worker"]):
    """A child `python -m module`; `send` and `receive` are apart so that several can work."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        core: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = module
        pin = [] if core is None else ["--core", str(core)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *pin, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, **request: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(f"{self.name} ended with code {self._process.wait()}") from error

    def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name} ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        self.send(**request)
        return self.receive()

    def close(self) -> None:
        """End the process: by closing its input, or by force after five seconds."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                self._process.stdin = None
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def ask_all(workers: Sequence[Worker], **request: Any) -> list[dict[str, Any]]:
    """The same request to all, answered by all: they work at the same time."""
    for worker in workers:
        worker.send(**request)
    return [worker.receive() for worker in workers]


def pin_self(core: int | None) -> None:
    """Only on systems that can (Linux); elsewhere the processes are unpinned, and the machine's
    description says so.
    """
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def serve(handlers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests from standard input until it ends. Everything else that is printed goes to
    standard error.
    """
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        answer = handlers[request.pop("op")](**request)
        out.write(json.dumps(answer) + "\n")
        out.flush()


def free_ports(count: int) -> list[int]:
    """Ports free at this moment; all held open together so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
