"""Links over ZeroMQ: a PUSH that connects to one PULL that binds, over tcp or ipc.

An ipc receiver that lags by more than its queue loses the rest when the sender closes: libzmq
notices the hang-up before it reads on. Over tcp it reads on first.
"""

from __future__ import annotations

import math
import os
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
_LONGEST_WAIT_MS = 1000


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
        self._until_drain = _DRAIN_EVERY
        self._socket = context.socket(zmq.PUSH)
        configure(self._socket, address, limits, options)
        set_keys(self._socket, address, keys, server=False)
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
        self._until_drain -= 1
        if self._monitor.known is not LinkState.UP or self._until_drain <= 0:
            # Up and sending, the monitor is asked only now and then: a lost connection takes its
            # queue along, so that the next send finds no room, and asks.
            self._until_drain = _DRAIN_EVERY
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
        # Where ZeroMQ's own thread shares a core with this one, it writes to the network only when
        # it is let: the caller goes on to compute, for milliseconds.
        os.sched_yield()

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
            except zmq.ContextTerminated as e:
                raise LinkClosed(f"{self._address}: the ZeroMQ context was terminated") from e
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
        self._copy_below = options.copy_below
        self._stats = LinkStats()
        self._closed = False
        self._until_drain = _DRAIN_EVERY
        self._wait_ms = 0
        address = address.resolved()
        self._address = str(address)
        self._socket = context.socket(zmq.PULL)
        configure(self._socket, address, limits, options)
        set_keys(self._socket, address, keys, server=True)
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
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else 0.0
        drops = 0
        while True:
            parts = self._take(timeout_s)
            if parts is not None:
                frame = self._decode(parts)
                if frame is not None:
                    return frame
                drops += 1
            else:
                self._drain_events()
            timeout_s = deadline - time.monotonic() if deadline else 0.0
            if timeout_s <= 0 and (parts is None or deadline or drops >= _DROPS_PER_CALL):
                return None

    def _decode(self, parts: list[Buffer]) -> Frame | None:
        """The frame, counted; or None for what is dropped, counted too."""
        try:
            frame = decode(parts, self._limits)
        except FrameError as e:
            self._stats.count_error(e.cause, str(e))
            return None
        self._stats.frames += 1
        self._stats.bytes += sum(map(len, parts))
        return frame

    def _take(self, timeout_s: float) -> list[Buffer] | None:
        """One message, or None if none comes in time, or in a second, after which the monitor is
        due.

        At most one part more than is legal is kept, for `decode` to refuse; the rest is read and
        thrown away.
        """
        wait_ms = min(math.ceil(timeout_s * 1000), _LONGEST_WAIT_MS)
        if wait_ms > 0 and wait_ms != self._wait_ms:
            self._socket.setsockopt(zmq.RCVTIMEO, wait_ms)
            self._wait_ms = wait_ms
        try:
            part = self._socket.recv(0 if wait_ms > 0 else zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        except zmq.ContextTerminated as e:
            raise LinkClosed(f"{self._address}: the ZeroMQ context was terminated") from e
        parts: list[Buffer] = [part.bytes]
        while part.more:
            part = self._socket.recv(copy=False)
            if len(parts) <= self._limits.max_tensors + 1:
                # A short part may lie anywhere in a shared buffer: its copy is aligned, and quick.
                parts.append(part.bytes if len(part) < self._copy_below else part.buffer)
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
