"""A ZeroMQ socket's monitor, read without blocking, as the state of its link."""

from __future__ import annotations

import math
import struct
import time
from typing import Any

import zmq

from transports.base import LinkState, LinkStats

_EVENT = struct.Struct("=HI")
_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_SENDER = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _FAILED
_RECEIVER = zmq.EVENT_ACCEPTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED | _FAILED


class Monitor:
    """Follows one socket; `socket` becomes readable when something happened.

    A connecting socket is UP from its handshake on; its peer did not merely accept a connection. A
    binding one counts accepted connections, because ZeroMQ does not say whose handshake succeeded.
    libzmq blocks its I/O thread when nobody reads its monitor for about two thousand events: drain
    it as you go.
    """

    def __init__(self, watched: zmq.Socket[Any], stats: LinkStats) -> None:
        self._watched = watched
        self._stats = stats
        self.known = LinkState.CONNECTING
        self._binds = watched.type == zmq.PULL
        self._listener_closed = False
        self._accepted: set[int] = set()
        self.socket: zmq.Socket[Any] = watched.get_monitor_socket(
            _RECEIVER if self._binds else _SENDER
        )

    def state(self) -> LinkState:
        self.drain()
        return self.known

    def drain(self) -> None:
        """Take in everything that happened since the last call."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            head, _endpoint = self.socket.recv_multipart()
            event, value = _EVENT.unpack(head)
            self._apply(event, value)

    def _apply(self, event: int, value: int) -> None:
        if event & _FAILED:
            self._stats.count_error("handshake", f"handshake failed, event {event} value {value}")
        elif event == zmq.EVENT_DISCONNECTED:
            if value in self._accepted or self.known is LinkState.UP:
                self._stats.disconnects += 1  # and not a handshake of ours that failed
            self._accepted.discard(value)
            if not self._accepted and (self._binds or self.known is LinkState.UP):
                self.known = LinkState.DOWN
        elif event == zmq.EVENT_ACCEPTED:
            self._accepted.add(value)
            self._stats.connects += 1
            self.known = LinkState.UP
        elif event == zmq.EVENT_CLOSED:
            self._listener_closed = True
        elif not self._binds:
            self._stats.connects += 1
            self.known = LinkState.UP

    def wait_closed(self, timeout_s: float) -> None:
        """Wait until the listener of a binding socket is gone and its port is free."""
        deadline = time.monotonic() + timeout_s
        while not self._listener_closed:
            left = deadline - time.monotonic()
            if left <= 0 or not self.socket.poll(math.ceil(left * 1000)):
                return
            self.drain()

    def close(self) -> None:
        self._watched.disable_monitor()
        self.socket.close(linger=0)
