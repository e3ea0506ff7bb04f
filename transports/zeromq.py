"""Links over ZeroMQ: a PUSH that connects to one PULL that binds, over tcp or ipc.

An ipc receiver that lags by more than its queue loses the rest when the sender closes: libzmq
notices the hang-up before it reads on. Over tcp it reads on first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import zmq

from transports.address import Address
from transports.base import LinkState, LinkStats
from transports.errors import (
    AddressError,
    EncodeError,
    FrameError,
    LinkClosed,
    LinkDown,
    LinkStalled,
)
from transports.frame import Frame
from transports.limits import FrameLimits
from transports.monitor import Monitor
from transports.options import CurveKeys, LinkOptions
from transports.records import Buffer
from transports.sockets import bind, configure, set_keys
from transports.wire import decode, encode

_DROPS_PER_CALL = 64
_DRAIN_EVERY = 256
_UNBIND_S = 1.0


class ZmqSender:
    """LinkSender over a PUSH socket. It connects in the background, for as long as it is open."""

    def __init__(
        self,
        context: zmq.Context[Any],
        address: Address,
        limits: FrameLimits,
        options: LinkOptions,
        keys: CurveKeys | None = None,
    ) -> None:
        self._address = str(address)
        self._limits = limits
        self._options = options
        self._stats = LinkStats()
        self._closed = False
        self._socket = context.socket(zmq.PUSH)
        configure(self._socket, address, limits, options)
        set_keys(self._socket, keys, server=False)
        self._monitor = Monitor(self._socket, self._stats)
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as e:
            self.abort()
            raise AddressError(self._address, str(e), "check host and port") from e

    @property
    def address(self) -> str:
        return self._address

    @property
    def state(self) -> LinkState:
        return LinkState.CLOSED if self._closed else self._monitor.state()

    @property
    def stats(self) -> LinkStats:
        return self._stats

    @property
    def pollable(self) -> Any:
        return self._monitor.socket

    def send(self, frame: Frame) -> None:
        if self._closed:
            raise LinkClosed(f"{self._address}: this end is closed")
        if self._monitor.state() is LinkState.DOWN:
            raise self._down("the connection is gone")
        try:
            parts = encode(frame, self._limits)
        except EncodeError as e:
            self._stats.count_error("encode", str(e))
            raise
        if not self._start(parts):
            self._wait_for_room()
            if not self._start(parts):
                raise self._down("the connection went away")
        self._stats.frames += 1
        self._stats.bytes += sum(map(len, parts))

    def _start(self, parts: Sequence[Buffer]) -> bool:
        """Hand all parts over without waiting; False if there was no room for the first.

        Room for the first is room for all: ZeroMQ counts whole messages. If the connection goes
        while the parts are being handed over, the rest must still be offered: the socket throws it
        away up to the last part.
        """
        last = len(parts) - 1
        lost = False
        for i, part in enumerate(parts):
            flags = zmq.DONTWAIT | (zmq.SNDMORE if i < last else 0)
            try:
                self._socket.send(part, flags, copy=len(part) < self._options.copy_below)
            except zmq.Again:
                if i == 0:
                    return False
                lost = True
        if lost:
            raise self._down("the connection went away while a frame was handed over")
        return True

    def _wait_for_room(self) -> None:
        """Wait for a place in the queue for at most the send timeout, and end early when the
        connection goes.
        """
        deadline = time.monotonic() + self._options.send_timeout_s
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLOUT)
        poller.register(self._monitor.socket, zmq.POLLIN)
        while True:
            left = deadline - time.monotonic()
            ready = dict(poller.poll(max(0, math.ceil(left * 1000))))
            if self._socket in ready:
                return
            state = self._monitor.state()
            if state is LinkState.DOWN:
                raise self._down("the connection went away")
            if left <= 0:
                waited = f"within {self._options.send_timeout_s:g} s"
                if state is LinkState.CONNECTING:
                    raise self._down(f"no connection {waited}")
                error = LinkStalled(f"{self._address}: the peer took nothing {waited}")
                self._stats.count_error("stalled", str(error))
                raise error

    def _down(self, why: str) -> LinkDown:
        error = LinkDown(f"{self._address}: {why}")
        self._stats.count_error("down", str(error))
        return error

    def close(self, linger_s: float = 1.0) -> None:
        if not self._closed:
            self._closed = True
            self._monitor.close()
            self._socket.close(linger=int(linger_s * 1000))

    def abort(self) -> None:
        self.close(0.0)


class ZmqReceiver:
    """LinkReceiver over a PULL socket. Several senders may connect; their frames are interleaved
    fairly.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: Address,
        limits: FrameLimits,
        options: LinkOptions,
        keys: CurveKeys | None = None,
    ) -> None:
        self._limits = limits
        self._stats = LinkStats()
        self._closed = False
        self._until_drain = _DRAIN_EVERY
        address = address.resolved()
        self._address = str(address)
        self._socket = context.socket(zmq.PULL)
        configure(self._socket, address, limits, options)
        set_keys(self._socket, keys, server=True)
        self._monitor = Monitor(self._socket, self._stats)
        try:
            self._address = bind(self._socket, address)
        except AddressError:
            self.close()
            raise

    @property
    def address(self) -> str:
        return self._address

    @property
    def state(self) -> LinkState:
        return LinkState.CLOSED if self._closed else self._monitor.state()

    @property
    def stats(self) -> LinkStats:
        if not self._closed:
            self._monitor.drain()
        return self._stats

    @property
    def pollable(self) -> Any:
        return self._socket

    def receive(self, timeout_s: float = 0.0) -> Frame | None:
        if self._closed:
            raise LinkClosed(f"{self._address}: this end is closed")
        self._until_drain -= 1
        if self._until_drain <= 0:
            self._drain_events()
        deadline: float | None = None
        drops = 0
        while drops < _DROPS_PER_CALL or timeout_s > 0:
            parts = self._take()
            if parts is None:
                self._drain_events()
                now = time.monotonic()
                deadline = now + timeout_s if deadline is None else deadline
                if now >= deadline or not self._socket.poll(math.ceil((deadline - now) * 1000)):
                    return None
                continue
            try:
                if len(parts) > self._limits.max_tensors + 1:
                    raise FrameError("parts", f"more than {len(parts) - 1} parts")
                frame = decode(parts, self._limits)
            except FrameError as e:
                self._stats.count_error(e.cause, str(e))
                drops += 1
                deadline = time.monotonic() + timeout_s if deadline is None else deadline
                if timeout_s > 0 and time.monotonic() >= deadline:
                    return None
                continue
            self._stats.frames += 1
            self._stats.bytes += sum(map(len, parts))
            return frame
        return None

    def _take(self) -> list[Buffer] | None:
        """The parts of one message, at most one more than is legal; the rest is read and thrown
        away.
        """
        try:
            part = self._socket.recv(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        parts: list[Buffer] = [part.bytes]
        while part.more:
            part = self._socket.recv(copy=False)
            if len(parts) <= self._limits.max_tensors + 1:
                parts.append(part.buffer)
        return parts

    def _drain_events(self) -> None:
        self._until_drain = _DRAIN_EVERY
        self._monitor.drain()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(zmq.ZMQError):  # nothing was bound
                self._socket.unbind(self._address)
                self._monitor.wait_closed(_UNBIND_S)
            self._monitor.close()
            self._socket.close(linger=0)

    def abort(self) -> None:
        self.close()
