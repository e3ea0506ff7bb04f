"""The TCP connections between neighbours beside the group's own, made once when it stands.

Of two neighbours the lower rank connects to the address that the other has in the group: nobody
listens there any more once all have started. Both say who they are: magic 8, group 8, rank 4.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
import time
from collections.abc import Iterable, Sequence

from daemon.rdma.ending import START, Ending

AGAIN_SECONDS = 0.02
LEAST_SECONDS = 2  # without a sign of life: the kernel asks for one after a second of silence
GREETING_SECONDS = 1.0  # for who comes to say who it is: a neighbour does so at once
if sys.platform == "darwin":
    IDLE_OPTION = socket.TCP_KEEPALIVE
else:
    IDLE_OPTION = socket.TCP_KEEPIDLE
_BACKLOG = 16  # neighbours, and who else may come
_HELLO = struct.Struct("<8sQI")
_MAGIC = b"SBBESIDE"


def connect_neighbours(
    group: int,
    rank: int,
    hosts: Sequence[str],
    neighbours: Iterable[int],
    deadline: float,
    watchdog_s: float,
) -> dict[int, socket.socket]:
    """A connection for each, which breaks when its way is dead for `watchdog_s`, in whole seconds
    and at least two. Ending when one does not come about.
    """
    ours = _HELLO.pack(_MAGIC, group, rank)
    lower = [other for other in neighbours if other < rank]
    higher = [other for other in neighbours if other > rank]
    found: dict[int, socket.socket] = {}
    try:
        if lower:
            with _listen(hosts[rank]) as listener:
                while len(found) < len(lower):
                    other, connection = _accept(listener, group, ours, deadline)
                    if other in lower and other not in found:
                        found[other] = connection
                    else:
                        connection.close()
        for other in higher:
            found[other] = _reach(hosts[other], ours, group, other, deadline)
    except OSError as error:
        raise Ending(START, f"no connection beside the group: {error}") from error
    for connection in found.values():
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _break_when_dead(connection, watchdog_s)
    return found


def _break_when_dead(connection: socket.socket, seconds: float) -> None:
    """A cable that is pulled says nothing, and what is sent to it ends well in the kernel's buffer:
    both ends would wait for ever.
    """
    whole = max(LEAST_SECONDS, math.ceil(seconds))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (IDLE_OPTION, 1),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, whole - 1),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    if sys.platform == "linux":  # which does not probe while something is not acknowledged
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, whole * 1000)


def _listen(host: str) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):  # as MLX does, whose connections have this port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(split(host))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _accept(
    listener: socket.socket, group: int, ours: bytes, deadline: float
) -> tuple[int | None, socket.socket]:
    """The next that comes, and its rank. Who does not say it soon is none of the group: a neighbour
    that was held up finds its connection closed, and comes again.
    """
    while True:
        listener.settimeout(_left(deadline))
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:
            continue  # macOS tells who came and went before it was accepted
        return _greet(connection, group, ours, min(_left(deadline), GREETING_SECONDS)), connection


def _reach(host: str, ours: bytes, group: int, other: int, deadline: float) -> socket.socket:
    while True:
        try:
            connection = socket.create_connection(split(host), _left(deadline))
        except ConnectionRefusedError:
            time.sleep(AGAIN_SECONDS)  # it is not as far as we are
            continue
        # As long as it takes: the other may have to do with somebody else first.
        if _greet(connection, group, ours, _left(deadline)) == other:
            return connection
        connection.close()
        time.sleep(AGAIN_SECONDS)


def _greet(connection: socket.socket, group: int, ours: bytes, seconds: float) -> int | None:
    """The rank at the other end; None when it is not of this group, or does not say."""
    try:
        connection.settimeout(seconds)
        connection.sendall(ours)
        theirs = connection.recv(_HELLO.size, socket.MSG_WAITALL)
    except OSError:
        return None
    if len(theirs) != _HELLO.size:
        return None
    magic, their_group, rank = _HELLO.unpack(theirs)
    return rank if (magic, their_group) == (_MAGIC, group) else None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Ending(START, "a neighbour did not connect beside the group in time")
    return left


def split(host: str) -> tuple[str, int]:
    """`address:port`. ValueError."""
    address, _, port = host.rpartition(":")
    return address.strip("[]"), int(port)
