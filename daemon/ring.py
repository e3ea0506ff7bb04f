"""A process's two ends of the ring: frames come from the one before it and go to the next."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import zmq

from transports.address import Address
from transports.base import LinkReceiver, LinkSender, LinkState
from transports.errors import AddressError, LinkDown
from transports.factory import open_receiver, open_sender
from transports.frame import Frame
from transports.limits import FrameLimits
from transports.options import LinkOptions

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_CHUNK_TOKENS = 4096  # the longest prefill chunk a frame may ask for
WIDEST_ELEMENT = 4  # bytes: float32
RECONNECT_SECONDS = 0.5
LINGER_SECONDS = 1.0  # for what was sent to the process that was the next one until now


class Ring:
    """For one thread. `address` is where frames are taken, its port may be 0; `connect_s` is how
    long `connect` waits for the next process, and `send_s` how long `send` does.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        plain_networks: Sequence[Network],
        send_s: float,
        connect_s: float = 0.0,
    ) -> None:
        self._context = context
        self._address = address
        self._networks = plain_networks
        self._options = LinkOptions(send_timeout_s=send_s, reconnect_max_s=RECONNECT_SECONDS)
        self._connect_s = connect_s
        self._limits: FrameLimits | None = None
        self._receiver: LinkReceiver | None = None
        self._sender: LinkSender | None = None

    def open(self, hidden_size: int, vocabulary: int) -> str:
        """For a model whose hidden states have `hidden_size` elements: what was open is closed.
        Returns the address that frames are taken at. AddressError when it cannot be had.
        """
        self.close(0.0)
        self._limits = FrameLimits.for_model(
            hidden_size * WIDEST_ELEMENT, MAX_CHUNK_TOKENS, vocabulary
        )
        self._receiver = open_receiver(
            self._address,
            self._limits,
            self._options,
            context=self._context,
            allow_plain=plain_allowed(self._address, self._networks),
        )
        return self._receiver.address

    def connect(self, address: str) -> None:
        """Send to this address from now on. AddressError when it can never be."""
        assert self._limits, "the ring is not open"
        if self._sender and self._sender.address == address:
            return
        if self._sender:
            self._sender.close(LINGER_SECONDS)
            self._sender = None
        self._sender = open_sender(
            address,
            self._limits,
            self._options,
            context=self._context,
            allow_plain=plain_allowed(address, self._networks),
        )
        waited_until = time.monotonic() + self._connect_s
        while self._sender.state is LinkState.CONNECTING and time.monotonic() < waited_until:
            zmq.select([self._sender.pollable], [], [], self._connect_s)

    def look(self) -> None:
        """Take in what happened on the links; to be called now and then, also when idle."""
        for end in (self._sender, self._receiver):
            if end:
                _ = end.state

    @property
    def address(self) -> str:
        """Where frames are taken; empty while nothing is open."""
        return self._receiver.address if self._receiver else ""

    @property
    def pollable(self) -> Any:
        """What to poll for frames; None while nothing is open."""
        return self._receiver.pollable if self._receiver else None

    def send(self, frame: Frame) -> None:
        """A TransportError means that it was not handed over."""
        if self._sender is None:
            raise LinkDown("the next process is not known")
        self._sender.send(frame)

    def receive(self) -> Frame | None:
        return self._receiver.receive(0) if self._receiver else None

    @property
    def sending(self) -> str:
        """State of the link to the next process; empty while there is none."""
        return self._sender.state.value if self._sender else ""

    @property
    def dropped(self) -> Counter[str]:
        """What came and was no frame, by cause."""
        return self._receiver.stats.errors if self._receiver else Counter()

    def close(self, linger: float) -> None:
        if self._sender:
            self._sender.close(linger)
        if self._receiver:
            self._receiver.close()
        self._sender = self._receiver = None


def plain_allowed(address: str, networks: Sequence[Network]) -> bool:
    """Whether these networks allow ZeroMQ without CURVE there; loopback needs no word."""
    try:
        host = ipaddress.ip_address(Address.parse(address).resolved().host)
    except ValueError:
        return False
    return any(host in network for network in networks)


def kv_address(address: str, networks: Sequence[Network]) -> Address:
    """Where KV is sent to or read from, beside the ring. AddressError when it may not travel
    there.
    """
    where = Address.parse(address)
    if where.scheme != "tcp":
        raise AddressError(address, "KV travels over TCP", "give a tcp:// address")
    if not where.is_loopback and not plain_allowed(address, networks):
        why = "plain ZeroMQ is not allowed there"
        raise AddressError(address, why, "see security.plain_networks")
    return where.resolved()
