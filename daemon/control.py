"""The sockets of the control plane: DEALERs of shardd, stages and shardctl, one ROUTER at the
coordinator.
"""

from __future__ import annotations

from typing import Any

import zmq

from daemon import logs
from daemon.messages import MAX_MESSAGE_BYTES, Message, MessageError, decode, encode
from transports.address import Address
from transports.errors import AddressError
from transports.sockets import bind

LINGER_MS = 1000
QUEUE = 1000
log = logs.get("control")


def dealer_options(socket: zmq.Socket[Any], routing_id: str) -> None:
    """A send without a connection fails instead of queueing: what is said to a dead coordinator is
    stale
    when the next one hears it."""
    _options(socket)
    socket.setsockopt(zmq.ROUTING_ID, routing_id.encode())
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)


def say(socket: zmq.Socket[Any], message: Message) -> bool:
    """Without waiting. False when there is no connection, or no room: it is lost."""
    try:
        socket.send(encode(message), zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


class Listener:
    """What a child hears of the coordinator; what is of a lower `term` than the highest is not."""

    def __init__(self, socket: zmq.Socket[Any], term: int = 0) -> None:
        self.term = term
        self._socket = socket

    def hear(self) -> Message | None:
        """The next message that is to be obeyed; None when none is there."""
        while True:
            try:
                message = decode(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return None
            except MessageError as error:
                log.warning("dropped a control message: %s", error)
                continue
            term = getattr(message, "term", self.term)
            if term >= self.term:
                self.term = term
                return message
            log.warning("ignored %s of term %d", type(message).__name__, term)


def open_router(context: zmq.Context[Any], address: str) -> tuple[zmq.Socket[Any], str]:
    """The coordinator's socket and its address with the port that was bound. AddressError when it
    cannot be.
    """
    socket = context.socket(zmq.ROUTER)
    _options(socket)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unknown peer is an error, not a loss in silence
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a peer that reconnects keeps its routing id
    try:
        return socket, bind(socket, Address.parse(address).resolved())
    except AddressError:
        socket.close(linger=0)
        raise


def _options(socket: zmq.Socket[Any]) -> None:
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.SNDHWM, QUEUE)
    socket.setsockopt(zmq.RCVHWM, QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.IPV6, 1)
