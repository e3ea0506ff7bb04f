"""The connections beside the group: made with neighbours, whoever else comes."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from benchmarks.worker import free_ports
from daemon.rdma import beside
from daemon.rdma.ending import Ending
from tests.transports.contract import PATIENCE_S, eventually

GROUP = 7
WATCHDOG_S = 2.5


class Pair:
    """Ranks 0 and 1 of a group, each in a thread."""

    def __init__(self) -> None:
        self.hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self.found: dict[int, dict[int, socket.socket]] = {}
        self.ended: dict[int, Ending] = {}
        self.watchdog_s = WATCHDOG_S
        self._threads: list[threading.Thread] = []
        self._stack = ExitStack()

    def start(self, rank: int) -> None:
        thread = threading.Thread(target=self._run, args=(rank,))
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        assert not self.ended

    def stray(self) -> socket.socket:
        """Somebody who connects to rank 1, as soon as it listens."""
        came: list[socket.socket] = []

        def comes() -> bool:
            with suppress(ConnectionRefusedError):
                came.append(socket.create_connection(beside.split(self.hosts[1])))
            return bool(came)

        eventually(comes)
        return self._stack.enter_context(came[0])

    def close(self) -> None:
        self._stack.close()
        for connections in self.found.values():
            for connection in connections.values():
                connection.close()

    def _run(self, rank: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        try:
            self.found[rank] = beside.connect_neighbours(
                GROUP, rank, self.hosts, [1 - rank], deadline, self.watchdog_s
            )
        except Ending as error:
            self.ended[rank] = error


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(beside, "GREETING_SECONDS", 0.05)
    made = Pair()
    yield made
    made.close()


def connected(pair: Pair) -> bool:
    pair.found[0][1].sendall(b"a")
    return pair.found[1][0].recv(1) == b"a"


@pytest.mark.parametrize("says", [b"", b"GET / HTTP/1.1\r\n\r\n", b"SBBESIDE"])
def test_who_does_not_belong_to_it_is_sent_away(pair: Pair, says: bytes) -> None:
    pair.start(1)
    strays = [pair.stray() for _ in range(3)]
    for stray in strays:
        stray.sendall(says)
    pair.start(0)
    pair.join()
    assert connected(pair)


def test_who_goes_at_once_is_forgotten(pair: Pair) -> None:
    pair.start(1)
    pair.stray().close()
    pair.start(0)
    pair.join()
    assert connected(pair)


@pytest.mark.parametrize(("watchdog_s", "seconds"), [(2.5, 3), (0.5, 2)])
def test_a_dead_cable_breaks_them(pair: Pair, watchdog_s: float, seconds: int) -> None:
    pair.watchdog_s = watchdog_s
    for rank in (1, 0):
        pair.start(rank)
    pair.join()
    for connection in (pair.found[0][1], pair.found[1][0]):
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        tcp = [
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (beside.IDLE_OPTION, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        assert tcp == [1, 1, seconds - 1]
        if sys.platform == "linux":
            assert (
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == seconds * 1000
            )
