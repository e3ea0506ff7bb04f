"""A process's two ends of the ring: frames come from the one before it and go to the next."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from daemon.hop_path import HopPath
from daemon.ring.incoming import Incoming
from daemon.ring.networks import Network, plain_allowed
from daemon.ring.outgoing import Outgoing
from transports.base import LinkState
from transports.errors import LinkDown
from transports.factory import open_receiver, open_sender
from transports.frame import Frame
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.shared.port import SharedPort

MAX_CHUNK_TOKENS = 4096  # the longest prefill chunk a frame may ask for
WIDEST_ELEMENT = 4  # bytes: float32
RECONNECT_SECONDS = 0.5
LOOK_SECONDS = 0.1  # between two looks whether an rdma process that is connected still works
LINGER_SECONDS = 1.0  # for what was sent to the process that was the next one until now
NOT_OPEN = "no model is loaded"


@dataclass(frozen=True, slots=True)
class Lost:
    """RDMA ended: frames may be lost that were on their way to here, or (`sending`) from here."""

    group: int
    sending: bool
    reason: str
    why: str


class Ring:
    """For one thread, which waits with `poller`. `address` is where frames are taken, its port may
    be 0; `connect_s` is how long `connect` waits for the next process, and `send_s` how long `send`
    does. `port`: where an rdma process may connect; it is not closed here.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        plain_networks: Sequence[Network],
        send_s: float,
        poller: zmq.Poller,
        connect_s: float = 0.0,
        port: SharedPort | None = None,
    ) -> None:
        self._context = context
        self._address = address
        self._networks = plain_networks
        self._options = LinkOptions(send_timeout_s=send_s, reconnect_max_s=RECONNECT_SECONDS)
        self._poller = poller
        self._connect_s = connect_s
        self._port = port
        self._group = 0  # of the rdma process that is connected
        self._look_at = 0.0
        self._limits: FrameLimits | None = None
        self._incoming: Incoming | None = None
        self._outgoing: Outgoing | None = None

    def open(self, hidden_size: int, vocabulary: int) -> str:
        """For a model whose hidden states have `hidden_size` elements: what was open is closed.
        Returns the address that frames are taken at. AddressError when it cannot be had.
        """
        self.close(0.0)
        self._limits = FrameLimits.for_model(
            hidden_size * WIDEST_ELEMENT, MAX_CHUNK_TOKENS, vocabulary
        )
        receiver = open_receiver(
            self._address,
            self._limits,
            self._options,
            context=self._context,
            allow_plain=plain_allowed(self._address, self._networks),
        )
        if self._port:
            self._port.limits = self._limits
        self._incoming = Incoming(receiver, self._port, self._poller)
        self._incoming.connected(rdma=self._group > 0)
        return receiver.address

    def connect(self, address: str) -> None:
        """Send to this address from now on, by ZeroMQ. AddressError when it can never be."""
        assert self._limits, "the ring is not open"
        if self._outgoing and self._outgoing.sender.address == address:
            return
        if self._outgoing:
            self._outgoing.close(LINGER_SECONDS)
            self._outgoing = None
        sender = open_sender(
            address,
            self._limits,
            self._options,
            context=self._context,
            allow_plain=plain_allowed(address, self._networks),
        )
        self._outgoing = Outgoing(sender, self._port)
        waited_until = time.monotonic() + self._connect_s
        while sender.state is LinkState.CONNECTING and time.monotonic() < waited_until:
            zmq.select([sender.pollable], [], [], self._connect_s)

    # --- paths ---

    @property
    def path(self) -> HopPath:
        """By which frames go on."""
        return self._outgoing.path if self._outgoing else HopPath.ZMQ

    def take_rdma(self, group: int, rank: int, layout: tuple[int, int], turn: int) -> str:
        """Send by RDMA from now on; nothing is lost or overtaken. Returns why not."""
        if self._outgoing is None:
            return NOT_OPEN
        return self._outgoing.take_rdma(group, rank, layout, turn)

    def take_zmq(self, layout: tuple[int, int], turn: int) -> str:
        """The same the other way."""
        return self._outgoing.take_zmq(layout, turn) if self._outgoing else ""

    def leave_rdma(self) -> None:
        """Send by ZeroMQ from now on, whatever becomes of what went by RDMA."""
        if self._outgoing:
            self._outgoing.leave()

    def look(self) -> list[Lost]:
        """Take in what happened to the paths; to be called in every turn of the loop. Where RDMA
        has ended, frames go by ZeroMQ from now on.
        """
        if self._port is None or not self._stirred():
            return []
        now = time.monotonic()
        lost: list[Lost] = []
        if self._outgoing and (broken := self._outgoing.broken):
            self._outgoing.broken = None
            lost.append(Lost(self._group, True, broken.reason.value, broken.why))
        while loss := self._port.look(now):
            if self.path is HopPath.RDMA:
                self.leave_rdma()
                lost.append(Lost(loss.group, True, loss.reason, loss.why))
            lost.append(Lost(loss.group, False, loss.reason, loss.why))
        self._look_at = now + LOOK_SECONDS
        group = self._peer_group
        if group != self._group:
            self._group = group
            if self._incoming:
                self._incoming.connected(rdma=group > 0)
        return lost

    def _stirred(self) -> bool:
        """Whether something may have happened at the port. While frames follow each other it is
        looked at no more often than its watchdog needs.
        """
        stirred = self._peer_group != self._group
        if self._incoming:
            stirred |= self._incoming.stirred
            self._incoming.stirred = False
        if self._outgoing and self._outgoing.broken:
            return True
        return stirred or (self._group > 0 and time.monotonic() >= self._look_at)

    @property
    def _peer_group(self) -> int:
        peer = self._port.peer if self._port else None
        return peer.group if peer else 0

    def refresh(self) -> None:
        """Take in what happened on the links over ZeroMQ; to be called now and then, also when
        idle.
        """
        if self._outgoing:
            _ = self._outgoing.sender.state
        if self._incoming:
            _ = self._incoming.receiver.state

    def wait_ms(self, most: int) -> int:
        """For how long to wait for something, at most so long, until the next look."""
        if self._group:
            most = min(most, int(LOOK_SECONDS * 1000))
        if self._incoming and self._incoming.held:
            most = self._incoming.wait_ms(most, time.monotonic())
        return most

    # --- frames ---

    @property
    def address(self) -> str:
        """Where frames are taken; empty while nothing is open."""
        return self._incoming.receiver.address if self._incoming else ""

    @property
    def next_address(self) -> str:
        """Where they go, over ZeroMQ."""
        return self._outgoing.sender.address if self._outgoing else ""

    def readable(self, ready: Container[Any]) -> bool:
        """Whether frames are there, as the poller says that these are ready."""
        return self._incoming is not None and self._incoming.readable(ready)

    def send(self, frame: Frame) -> None:
        """A TransportError means that it was not handed over."""
        if self._outgoing is None:
            raise LinkDown("the next process is not known")
        self._outgoing.send(frame)

    def receive(self) -> Frame | None:
        """The next frame of what was `readable`."""
        return self._incoming.receive() if self._incoming else None

    @property
    def sending(self) -> str:
        """State of the link to the next process; empty while there is none."""
        return self._outgoing.state if self._outgoing else ""

    @property
    def dropped(self) -> Counter[str]:
        """What came and was no frame, by cause."""
        return self._incoming.dropped if self._incoming else Counter()

    def close(self, linger: float) -> None:
        if self._outgoing:
            self._outgoing.close(linger)
        if self._incoming:
            self._incoming.close()
        self._outgoing = self._incoming = None
