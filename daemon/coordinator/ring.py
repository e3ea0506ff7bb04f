"""The coordinator's ends of the ring: frames go to the first stage, results come from the last."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import zmq

from daemon.config import Config
from daemon.hops import hop_limits, hop_options, plain_allowed
from transports.address import Address
from transports.base import LinkReceiver, LinkSender, LinkState
from transports.errors import LinkDown
from transports.factory import open_receiver, open_sender
from transports.frame import Frame
from transports.limits import FrameLimits

SEND_SECONDS = 0.05  # the coordinator must not wait for one stage while others need it
CONNECT_SECONDS = 1.0


class Ring:
    def __init__(self, context: zmq.Context[Any], config: Config) -> None:
        self._context = context
        # The stage of this node has the configured port.
        self._address = str(replace(Address.parse(config.node.data_address), port=0))
        self._options = hop_options(SEND_SECONDS)
        self._networks = config.security.plain_networks
        self._limits: FrameLimits | None = None
        self._receiver: LinkReceiver | None = None
        self._sender: LinkSender | None = None

    def open(self, hidden_size: int, vocabulary: int) -> str:
        """For this model: what was open is closed. Returns the address for results."""
        self.close(0.0)
        self._limits = hop_limits(hidden_size, vocabulary)
        self._receiver = open_receiver(
            self._address,
            self._limits,
            self._options,
            context=self._context,
            allow_plain=plain_allowed(self._address, self._networks),
        )
        return self._receiver.address

    def connect(self, first_stage: str) -> None:
        """Send to this address from now on."""
        assert self._limits, "the ring is not open"
        if self._sender and self._sender.address == first_stage:
            return
        if self._sender:
            self._sender.close(0.0)
            self._sender = None
        self._sender = open_sender(
            first_stage,
            self._limits,
            self._options,
            context=self._context,
            allow_plain=plain_allowed(first_stage, self._networks),
        )
        waited_until = time.monotonic() + CONNECT_SECONDS
        while self._sender.state is LinkState.CONNECTING and time.monotonic() < waited_until:
            zmq.select([self._sender.pollable], [], [], CONNECT_SECONDS)

    def look(self) -> None:
        """Take in what happened on the links; to be called now and then, also when idle."""
        for end in (self._sender, self._receiver):
            if end:
                _ = end.state

    @property
    def pollable(self) -> Any:
        """What to poll for results; None while nothing is open."""
        return self._receiver.pollable if self._receiver else None

    def send(self, frame: Frame) -> None:
        """A TransportError means that it was not handed over."""
        if self._sender is None:
            raise LinkDown("the first stage is not known")
        self._sender.send(frame)

    def receive(self) -> Frame | None:
        return self._receiver.receive(0) if self._receiver else None

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
