"""The rdma process's end of a connection to the stage of its node."""

from __future__ import annotations

import os
import select
import socket
import threading
from pathlib import Path

from transports.shared.folder import check, check_listener
from transports.shared.greeting import Peer, pack_hello, read_welcome
from transports.shared.lanes import Hangup, LaneReader, LaneWriter
from transports.shared.layout import ALIVE, down, up
from transports.shared.region import Region

_PATIENCE_S = 2.0  # for a stage to answer a hello: it may be computing, then there is a next time
_SLICE_S = 0.0005


class StageEnd:
    """`reader` belongs to one thread, `writer` to another; `beat` to a third."""

    def __init__(self, capacity: int, fds: list[int]) -> None:
        """Takes over the descriptors. OSError, ValueError."""
        memory, down_fd, up_fd = fds
        down_bell, up_bell = socket.socket(fileno=down_fd), socket.socket(fileno=up_fd)
        try:
            self.region = Region(memory, capacity)
        except (OSError, ValueError):
            down_bell.close()
            up_bell.close()
            raise
        finally:
            os.close(memory)
        self.reader = LaneReader(self.region, down(capacity), down_bell)
        self.writer = LaneWriter(self.region, up(capacity), up_bell)
        self.open = True
        self._closing = threading.Lock()
        self._beats = 0

    def beat(self) -> None:
        """The main loop has turned."""
        self._beats += 1
        self.region.words[ALIVE] = self._beats

    def wait(self) -> None:
        """A moment, for the stage to make room. Hangup."""
        bell = self.writer.bell
        try:
            gone = select.select([bell], [], [], _SLICE_S)[0] and not bell.recv(1)
        except OSError as error:
            raise Hangup(str(error)) from error
        if gone:
            raise Hangup("the stage has closed its end")

    def hang_up(self) -> None:
        """By any thread, also while others wait in it: they find it closed."""
        with self._closing:
            self.open = False
            for bell in (self.reader.bell, self.writer.bell):
                try:
                    bell.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed by the other side

    def close(self) -> None:
        """By the last that uses it."""
        self.hang_up()
        self.reader.bell.close()
        self.writer.bell.close()


def connect(path: Path, peer: Peer, patience_s: float = _PATIENCE_S) -> StageEnd:
    """To the stage that listens at `path`, as `peer`. OSError or GreetingError when none does, or
    it does not answer in time; AddressError when others can listen there, or do.
    """
    check(path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience_s)
        connection.connect(str(path))
        check_listener(path, connection)
        connection.sendall(pack_hello(peer))
        capacity, fds = read_welcome(connection)
    try:
        return StageEnd(capacity, fds)
    except ValueError as error:
        raise OSError(str(error)) from error
