"""One connection to the coordinator: requests, streams, and how silence is told from failure.

No reconnecting: a stream is bound to its connection, so losing it is an answer, not a nuisance. To
go on over another connection is for `ctl.resumable`.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

import zmq

from ctl import reach
from ctl.endpoint import Endpoint
from ctl.errors import CommandError, ExitCode
from daemon.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    Chunk,
    Failure,
    MessageError,
    Reply,
    Request,
    decode,
    encode,
)

ALIVE_SECONDS = 2.0
CANCEL_SECONDS = 2.0
LINGER_MS = 500
_MONITORED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class Watch(Protocol):
    """Something else to wait for while a stream runs: an output that may break."""

    def descriptors(self) -> list[tuple[int, int]]:
        """File descriptors and the zmq poll flags to watch each for."""

    def check(self) -> None:
        """Called when one of them stirs; raises to end the stream."""


class Client:
    """A DEALER socket to one coordinator. `timeout` bounds connecting and each short request; a
    stream may be silent for twice as long, and is asked for a sign of life in between.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self.timeout = timeout
        self._silence = 2 * timeout
        self._requests = 0
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, LINGER_MS),
            (zmq.RECONNECT_IVL, -1),
            (zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES),
            (zmq.HANDSHAKE_IVL, int(timeout * 1000)),
        ):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(_MONITORED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._alive: set[int] = set()
        self._active: int | None = None
        self._sequence: str | None = None

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def again(self) -> Client:
        """Another one to the same coordinator, not connected yet."""
        return Client(self._endpoint, self.timeout)

    def close(self) -> None:
        """What was sent still leaves, within half a second."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
        self._context.term()

    def request(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask, and wait for the one answer."""
        number = self._send(verb, arguments)
        deadline = time.monotonic() + self.timeout
        while True:
            message = self._receive(deadline)
            if message is None:
                if time.monotonic() < deadline:
                    continue
                raise reach.silent(self._endpoint, self.timeout)
            if message.request == number and isinstance(message, Reply):
                return message.data

    def stream(
        self, verb: str, arguments: dict[str, Any], watch: Watch | None = None
    ) -> Iterator[Chunk | Reply]:
        """Chunks as they come, then the Reply. Says `alive` meanwhile; the coordinator's answers
        to that tell a long wait from a dead coordinator.
        """
        self._sequence = None
        number = self._active = self._send(verb, arguments)
        interval = min(ALIVE_SECONDS, self.timeout / 2)
        heard = time.monotonic()
        next_alive = heard + interval
        while True:
            now = time.monotonic()
            if now - heard >= self._silence:
                raise reach.silent(self._endpoint, self._silence)
            if now >= next_alive:
                self._alive.add(self._send("alive", {}))
                next_alive = now + interval
            message = self._receive(min(next_alive, heard + self._silence), watch)
            if message is None:
                continue
            heard = time.monotonic()
            if message.request != number:
                continue
            if isinstance(message, Chunk):
                self._sequence = message.data.get("sequence") or self._sequence
            else:
                self._active = None
            yield message
            if isinstance(message, Reply):
                return
            heard = time.monotonic()

    def cancel_stream(self) -> bool:
        """End the running stream on the coordinator; True when it has confirmed that. Waits a
        little for the sequence's id when the stream has only just been asked for.
        """
        if self._active is None:
            return True
        deadline = time.monotonic() + CANCEL_SECONDS
        try:
            while self._sequence is None:
                message = self._receive(deadline)
                if message is None:
                    if time.monotonic() < deadline:
                        continue
                    return False
                if message.request == self._active:
                    if isinstance(message, Reply):
                        return True
                    self._sequence = message.data.get("sequence")
            number = self._send("cancel", {"sequence": self._sequence})
            while True:
                message = self._receive(deadline)
                if message is None:
                    if time.monotonic() < deadline:
                        continue
                    return False
                if isinstance(message, Reply) and message.request in (number, self._active):
                    return True
        except CommandError as error:
            # A lost connection leaves it open; a refusal means that there is nothing to cancel.
            return error.code != ExitCode.UNREACHABLE

    def _connect(self) -> None:
        reach.probe(self._endpoint, self.timeout)
        self._socket.connect(self._endpoint.address)
        deadline = time.monotonic() + self.timeout
        while (left := deadline - time.monotonic()) > 0:
            if not self._monitor.poll(int(left * 1000) + 1):
                break
            event = self._event()
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            raise reach.unreachable(
                self._endpoint,
                "something listens there, but it is not a coordinator",
                self._endpoint.hint(),
            )
        raise reach.unreachable(
            self._endpoint,
            f"the port is open, but nothing answered in {self.timeout:g} s",
            "if the coordinator is stopped or overloaded, wait or raise --timeout",
        )

    def _event(self) -> int:
        """The monitor's next event. (zmq.utils.monitor would import all of asyncio for this.)"""
        number, _ = struct.unpack("=Hi", self._monitor.recv_multipart()[0])
        return int(number)

    def _send(self, verb: str, arguments: dict[str, Any]) -> int:
        self._requests += 1
        data = encode(Request(PROTOCOL, self._requests, verb, arguments))
        if len(data) > MAX_MESSAGE_BYTES:
            raise CommandError(
                ExitCode.FAILED,
                f"the request has {len(data)} bytes",
                f"the coordinator takes at most {MAX_MESSAGE_BYTES}",
                "shorten the prompt",
            )
        try:
            self._socket.send(data, zmq.DONTWAIT)
        except zmq.Again as error:
            raise reach.lost(self._endpoint) from error
        return self._requests

    def _receive(self, deadline: float, watch: Watch | None = None) -> Chunk | Reply | None:
        """The next message, or None when there was none, at the latest at the deadline. Raises
        CommandError for a Failure of any request but `alive`.
        """
        extra = watch.descriptors() if watch is not None else []
        for descriptor, flags in extra:
            self._poller.register(descriptor, flags)
        try:
            left = max(0.0, deadline - time.monotonic())
            ready: dict[Any, int] = dict(self._poller.poll(int(left * 1000) + 1))
        finally:
            for descriptor, _ in extra:
                self._poller.unregister(descriptor)
        if watch is not None and any(descriptor in ready for descriptor, _ in extra):
            watch.check()
        if self._socket in ready:
            return self._decode(self._socket.recv(zmq.DONTWAIT))
        if self._monitor in ready and self._event() in (
            zmq.EVENT_DISCONNECTED,
            zmq.EVENT_CLOSED,
        ):
            raise reach.lost(self._endpoint)
        return None

    def _decode(self, data: bytes) -> Chunk | Reply:
        try:
            message = decode(data)
        except MessageError as error:
            raise CommandError(
                ExitCode.REFUSED,
                f"the coordinator at {self._endpoint.address} speaks another protocol",
                f"{error} (this shardctl speaks {PROTOCOL})",
                "install the same version of shardbus on both sides",
            ) from error
        if isinstance(message, Failure):
            if message.request in self._alive:
                return Reply(message.request, {})  # refused or not, it is a sign of life
            if message.request == self._active:
                self._active = None
            code = message.code if 1 <= message.code <= ExitCode.TIMEOUT else ExitCode.FAILED
            raise CommandError(code, message.what, message.why, message.todo)
        if not isinstance(message, Chunk | Reply):
            raise CommandError(
                ExitCode.REFUSED,
                f"the peer at {self._endpoint.address} is not a coordinator",
                f"it sent a {type(message).__name__}",
                "give the coordinator's address with --endpoint",
            )
        return message
