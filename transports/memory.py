"""Links inside one process, `memory://name`, with faults on demand.

A transport like the others, with the same contract. The simulator runs whole clusters on it: with
send_timeout_s=0 and receive(0) nothing ever waits, and with a seeded `rng` and a fake `clock` every
run is the same.
"""

from __future__ import annotations

import time
from typing import Any

from transports.address import Address
from transports.base import LinkState, LinkStats
from transports.channel import Cargo
from transports.errors import (
    AddressError,
    EncodeError,
    FrameError,
    LinkClosed,
    LinkDown,
    LinkError,
    LinkStalled,
)
from transports.frame import Frame
from transports.limits import FrameLimits
from transports.network import MemoryNetwork
from transports.options import LinkOptions
from transports.wakeup import Wakeup
from transports.wire import decode, encode


class MemorySender:
    """LinkSender into a channel of a MemoryNetwork."""

    def __init__(
        self, network: MemoryNetwork, address: Address, limits: FrameLimits, options: LinkOptions
    ) -> None:
        self._address = str(address)
        self._network = network
        self._limits = limits
        self._options = options
        self._stats = LinkStats()
        self._wakeup: Wakeup | None = None
        self._state = LinkState.CONNECTING
        self._number = network.number_sender()
        self._channel = network.channel(address.name)
        with network.lock:
            self._channel.senders[self._number] = self
            self._channel.changed()

    @property
    def address(self) -> str:
        return self._address

    @property
    def state(self) -> LinkState:
        with self._network.lock:
            if self._wakeup is not None and self._state is not LinkState.CLOSED:
                self._wakeup.set(False)
            return self._state

    @property
    def stats(self) -> LinkStats:
        return self._stats

    @property
    def pollable(self) -> Any:
        if self._wakeup is None:
            self._wakeup = Wakeup()
            self._wakeup.set(True)
        return self._wakeup.fd

    def channel_changed(self) -> None:
        before = self._state
        if self._channel.connected:
            self._state = LinkState.UP
        elif before is LinkState.UP:
            self._state = LinkState.DOWN
        if self._state is not before:
            up = self._state is LinkState.UP
            self._stats.connects += up
            self._stats.disconnects += not up
            if self._wakeup is not None:
                self._wakeup.set(True)

    def send(self, frame: Frame) -> None:
        if self._state is LinkState.CLOSED:
            raise LinkClosed(f"{self._address}: this end is closed")
        try:
            parts = encode(frame, self._limits) if self._network.codec else None
        except EncodeError as e:
            self._stats.count_error("encode", str(e))
            raise
        with self._network.lock:
            self._wait_for_room()
            cargo: Cargo = frame if parts is None else parts
            self._channel.put(self._number, cargo, self._network.clock(), self._network.rng)
            self._network.lock.notify_all()
        self._stats.frames += 1
        self._stats.bytes += _size(cargo)

    def _wait_for_room(self) -> None:
        deadline = time.monotonic() + self._options.send_timeout_s
        while True:
            if self._state is LinkState.DOWN:
                raise self._failed("down", LinkDown(f"{self._address}: the connection is gone"))
            up = self._state is LinkState.UP
            if up and self._channel.waiting_of(self._number) < self._options.queue:
                return
            left = deadline - time.monotonic()
            waited = f"within {self._options.send_timeout_s:g} s"
            if left > 0:
                self._network.lock.wait(left)
            elif up:
                text = f"{self._address}: the peer took nothing {waited}"
                raise self._failed("stalled", LinkStalled(text))
            else:
                raise self._failed("down", LinkDown(f"{self._address}: no connection {waited}"))

    def _failed(self, cause: str, error: LinkError) -> LinkError:
        self._stats.count_error(cause, str(error))
        return error

    def close(self, linger_s: float = 1.0) -> None:
        """What was handed over stays until the receiver takes it, unless `linger_s` is 0."""
        with self._network.lock:
            if self._state is not LinkState.CLOSED:
                self._state = LinkState.CLOSED
                del self._channel.senders[self._number]
                self._channel.changed()
                if self._wakeup is not None:
                    self._wakeup.close()
            if linger_s <= 0:
                self._channel.drop(self._number)

    def abort(self) -> None:
        self.close(0.0)


class MemoryReceiver:
    """LinkReceiver out of a channel of a MemoryNetwork."""

    def __init__(self, network: MemoryNetwork, address: Address, limits: FrameLimits) -> None:
        self._address = str(address)
        self._network = network
        self._limits = limits
        self._stats = LinkStats()
        self._wakeup: Wakeup | None = None
        self._state = LinkState.CONNECTING
        self._channel = network.channel(address.name)
        with network.lock:
            if self._channel.receiver is not None:
                raise AddressError(self._address, "the name is in use", "choose another")
            self._channel.receiver = self
            self._channel.changed()
            network.lock.notify_all()

    @property
    def address(self) -> str:
        return self._address

    @property
    def state(self) -> LinkState:
        with self._network.lock:
            return self._state

    @property
    def stats(self) -> LinkStats:
        return self._stats

    @property
    def pollable(self) -> Any:
        with self._network.lock:
            if self._wakeup is None:
                self._wakeup = Wakeup()
                self._wakeup.set(self._channel.readable)
            return self._wakeup.fd

    def channel_changed(self) -> None:
        before = self._state
        if self._channel.connected and self._channel.senders:
            self._state = LinkState.UP
        elif before is LinkState.UP:
            self._state = LinkState.DOWN
        if self._state is not before:
            up = self._state is LinkState.UP
            self._stats.connects += up
            self._stats.disconnects += not up
        if self._wakeup is not None:
            self._wakeup.set(self._channel.readable)

    def receive(self, timeout_s: float = 0.0) -> Frame | None:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._network.lock:
                cargo = self._take(deadline)
            if cargo is None:
                return None
            try:
                frame = cargo if isinstance(cargo, Frame) else decode(cargo, self._limits)
            except FrameError as e:
                self._stats.count_error(e.cause, str(e))
                continue
            self._stats.frames += 1
            self._stats.bytes += _size(cargo)
            return frame

    def _take(self, deadline: float) -> Cargo | None:
        while True:
            if self._state is LinkState.CLOSED:
                raise LinkClosed(f"{self._address}: this end is closed")
            cargo = self._channel.take(self._network.clock())
            if cargo is not None:
                self._network.lock.notify_all()
                return cargo
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            # A parcel held back or late is looked for again soon; nothing else happens unannounced.
            self._network.lock.wait(min(left, 0.001) if self._channel.readable else left)

    def close(self) -> None:
        with self._network.lock:
            if self._state is LinkState.CLOSED:
                return
            self._state = LinkState.CLOSED
            self._channel.receiver = None
            self._channel.drop()
            self._network.lock.notify_all()
            if self._wakeup is not None:
                self._wakeup.close()

    def abort(self) -> None:
        self.close()


def _size(cargo: Cargo) -> int:
    if isinstance(cargo, Frame):
        return sum(t.nbytes for t in cargo.tensors)
    return sum(map(len, cargo))
