"""A scripted coordinator in a thread, and shardctl as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zmq

from daemon.messages import Chunk, Failure, Message, Reply, Request, decode, encode

SEQUENCE = "0123456789abcdef0123456789abcdef"
WAIT_SECONDS = 20
Answer = Callable[["FakeCoordinator", bytes, Request], None]


class FakeCoordinator:
    """Answers each verb by its script and remembers what it was asked. `say` may be called by
    scripts only: they run in the thread that owns the socket.
    """

    def __init__(self, scripts: Mapping[str, Answer], endpoint: str = "") -> None:
        """At a port of its own, or where another one was."""
        self.scripts = {"alive": reply({}), "cancel": cancelled, **scripts}
        self.requests: list[Request] = []
        self._changed = threading.Condition()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint or "tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._stop = self._context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, peer: bytes, message: Message | bytes) -> None:
        data = message if isinstance(message, bytes) else encode(message)
        self._socket.send_multipart([peer, data])

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        stop = self._context.socket(zmq.PAIR)
        stop.connect("inproc://stop")
        stop.send(b"")
        self._thread.join(WAIT_SECONDS)
        stop.close()
        self._context.term()

    def wait_for(self, verb: str, count: int = 1) -> Request:
        """The `count`th request of that verb, once it is there."""

        def found() -> list[Request]:
            return [request for request in self.requests if request.verb == verb]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, WAIT_SECONDS), verb
            return found()[count - 1]

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._stop, zmq.POLLIN)
        while self._stop not in (ready := dict(poller.poll())):
            assert ready
            peer, data = self._socket.recv_multipart()
            request = decode(data)
            assert isinstance(request, Request)
            self.requests.append(request)  # whoever has the answer finds it there
            script = self.scripts.get(request.verb, unknown)
            script(self, peer, request)
            with self._changed:
                self._changed.notify_all()
        self._socket.close()
        self._stop.close()


def reply(data: dict[str, Any]) -> Answer:
    return lambda fake, peer, request: fake.say(peer, Reply(request.request, data))


def failure(code: int, what: str, why: str = "because", todo: str = "do this") -> Answer:
    return lambda fake, peer, request: fake.say(
        peer, Failure(request.request, code, what, why, todo)
    )


def silent(fake: FakeCoordinator, peer: bytes, request: Request) -> None:
    """No answer at all."""


def unknown(fake: FakeCoordinator, peer: bytes, request: Request) -> None:
    failure(2, f"unknown verb {request.verb}")(fake, peer, request)


def cancelled(fake: FakeCoordinator, peer: bytes, request: Request) -> None:
    reply({"cancelled": [request.arguments["sequence"]]})(fake, peer, request)


START = {"sequence": SEQUENCE, "prompt_tokens": 3, "cached_tokens": 1, "seed": 7}
END: dict[str, Any] = {
    "sequence": SEQUENCE,
    "text": "",
    "finish_reason": "stop",
    "prompt_tokens": 3,
    "cached_tokens": 1,
    "output_tokens": 2,
    "ttft": 0.25,
    "duration": 1.5,
    "tokens_per_second": 2.0,
    "prompt_tokens_per_second": 12.0,
    "reissues": 0,
}


def generation(*texts: str, end: bool = True, last: str = "") -> Answer:
    """Start, one delivery per text, and the end unless it is to stay open."""

    def answer(fake: FakeCoordinator, peer: bytes, request: Request) -> None:
        fake.say(peer, Chunk(request.request, START))
        for index, text in enumerate(texts):
            delivery = {"text": text, "tokens": [index + 10], "logprobs": None}
            fake.say(peer, Chunk(request.request, delivery))
        if end:
            fake.say(peer, Reply(request.request, {**END, "text": last}))

    return answer


def other_version(fake: FakeCoordinator, peer: bytes, request: Request) -> None:
    why = f"the coordinator speaks protocol 9, this shardctl {request.protocol}"
    failure(5, "another version", why, "install the same version")(fake, peer, request)


def environment(**changes: str) -> dict[str, str]:
    """Ours without what would steer shardctl."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SHARDBUS_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "XDG_"))
    }
    nowhere = {"XDG_CONFIG_HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent"}
    return {**kept, **nowhere, **changes}


def shardctl(
    *arguments: str, stdin: bytes | None = None, prelude: str = "", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. Output is checked to be UTF-8."""
    done = subprocess.run(
        command(*arguments, prelude=prelude),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env=environment(**changes),
        timeout=WAIT_SECONDS * 2,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def command(*arguments: str, prelude: str = "") -> list[str]:
    program = f"{prelude}\nfrom ctl.main import main\nmain()"
    return [sys.executable, "-c", program, *arguments]


@contextmanager
def running(
    *arguments: str, prelude: str = "", **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """shardctl as a process to talk to; killed at the end if need be."""
    process = subprocess.Popen(
        command(*arguments, prelude=prelude),
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": environment(),
            **options,
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        given = options.get("stdin")
        for stream in (process.stdin, process.stdout, process.stderr, given):
            if hasattr(stream, "close"):
                stream.close()
