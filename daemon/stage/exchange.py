"""Saved KV between nodes: a stage reads the files of another one, over sockets of their own.

The reader asks for pieces of a file by their place and never has more than CREDIT of them on their
way, so neither side ever waits in a send, and a decode frame never waits behind one. The owner
keeps nothing about its readers. What comes is checked as if it came from a disk of one's own
(daemon/storage), and only then used.

    request     msgpack [number, digest, entry, first layer, end, offset, count]
    answer      msgpack [number, size of the file, why not]  and the bytes
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgpack
import zmq

from daemon import logs
from daemon.layers import LayerRange
from daemon.ring import Network, kv_address
from daemon.storage.content import SLICE, Buffer
from daemon.storage.errors import CannotRead, StorageError
from daemon.storage.folder import KvFolder, LocalFile
from transports.address import Address
from transports.errors import AddressError
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.sockets import bind, configure

log = logs.get("exchange")

CREDIT = 4  # pieces under way
PATIENCE_SECONDS = 5.0  # without any answer, until another node is given up
_OPTIONS = LinkOptions(queue=4 * CREDIT)
_LIMITS = FrameLimits(max_tensor_bytes=SLICE)
_WAIT_MS = 1
_REQUEST = (int, str, str, int, int, int, int)
_ANSWER = (int, int, str)


class Shelf:
    """Where other nodes read this one's files. Bound by any thread, then used by one."""

    def __init__(self, context: zmq.Context[Any], address: str, networks: Sequence[Network]):
        """`address` is that of the node's data, whose port is not used. AddressError."""
        where = kv_address(address, networks)
        self.socket = context.socket(zmq.ROUTER)
        configure(self.socket, where, _LIMITS, _OPTIONS)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.address = bind(self.socket, Address(where.scheme, where.host, 0))
        except AddressError:
            self.socket.close(linger=0)
            raise

    def serve(self, folder: KvFolder) -> None:
        """Answer one request, if there is one."""
        try:
            peer, *parts = self.socket.recv_multipart(zmq.NOBLOCK)
            request = _list_of(_REQUEST, parts[0]) if len(parts) == 1 else None
            if request is not None:
                self.socket.send_multipart([peer, *_answer(folder, *request)], zmq.NOBLOCK)
        except zmq.ZMQError:
            return  # nothing there after all, or its reader has gone, or takes nothing

    def close(self) -> None:
        self.socket.close(linger=0)


def _answer(
    folder: KvFolder,
    number: int,
    digest: str,
    entry: str,
    start: int,
    end: int,
    at: int,
    count: int,
) -> tuple[bytes, bytes | memoryview]:
    try:
        path = next(
            (p for r, p in folder.find(digest, entry).items() if (r.start, r.end) == (start, end)),
            None,
        )
        if path is None or not 0 <= count <= SLICE:
            raise CannotRead(entry, "there is no such file here")
        file = LocalFile(path)
        try:
            data = memoryview(bytearray(min(count, max(0, file.size - at))))
            for _ in file.read(at, data):
                pass
            return msgpack.packb([number, file.size, ""]), data
        finally:
            file.close()
    except StorageError as error:
        return msgpack.packb([number, 0, error.cause]), b""


class RemoteFile:
    """A file of another node. `open` before `read`; CannotRead when the node does not give it."""

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        networks: Sequence[Network],
        digest: str,
        entry: str,
        layers: LayerRange,
    ) -> None:
        """AddressError for an address that may not be read from; CannotRead when there are no more
        sockets.
        """
        where = kv_address(address, networks)
        self.name = f"{address} layers {layers} of {entry}"
        self.size = 0
        self._file = (digest, entry, layers.start, layers.end)
        with _not_read(self.name):
            self._socket = context.socket(zmq.DEALER)
            configure(self._socket, where, _LIMITS, _OPTIONS)
            self._socket.connect(str(where))
        self._last = 0

    def open(self) -> Iterator[None]:
        yield from self.read(0, memoryview(bytearray(8)))

    def read(self, offset: int, into: Buffer) -> Iterator[None]:
        under_way: dict[int, Buffer] = {}
        asked = 0
        heard = time.monotonic()
        while under_way or asked < len(into):
            if asked < len(into) and len(under_way) < CREDIT:
                piece = into[asked : asked + SLICE]
                if self._ask(offset + asked, len(piece)):
                    under_way[self._last] = piece
                    asked += len(piece)
                    continue
            answer = self._take()
            if answer is not None:
                number, size, data = answer
                heard = time.monotonic()
                self._fill(under_way.pop(number, None), size, data)
            elif time.monotonic() - heard > PATIENCE_SECONDS:
                raise CannotRead(self.name, f"no answer for {PATIENCE_SECONDS:g} s")
            yield

    def _ask(self, offset: int, count: int) -> bool:
        request = [self._last + 1, *self._file, offset, count]
        with _not_read(self.name):
            try:
                self._socket.send(msgpack.packb(request), zmq.NOBLOCK)
            except zmq.Again:
                return False  # not connected yet
        self._last += 1
        return True

    def _take(self) -> tuple[int, int, Buffer] | None:
        with _not_read(self.name):
            if not self._socket.poll(_WAIT_MS):
                return None
            parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        head = _list_of(_ANSWER, parts[0].buffer) if len(parts) == 2 else None
        if head is None:
            raise CannotRead(self.name, "its node answers with something else")
        number, size, why = head
        if why:
            raise CannotRead(self.name, f"its node says: {why:.200}")
        return number, size, parts[1].buffer

    def _fill(self, piece: Buffer | None, size: int, data: Buffer) -> None:
        if piece is None:
            return  # an answer to what was given up
        if len(data) != len(piece) or size != (self.size or size):
            raise CannotRead(self.name, "has changed while it was read")
        self.size = size
        piece[:] = data

    def close(self) -> None:
        self._socket.close(linger=0)


@contextmanager
def _not_read(name: str) -> Iterator[None]:
    try:
        yield
    except zmq.ZMQError as error:
        raise CannotRead(name, str(error).lower()) from error


def _list_of(types: tuple[type, ...], data: bytes | memoryview) -> list[Any] | None:
    """A msgpack list of exactly these types, or None: nothing of a socket is believed."""
    try:
        value = msgpack.unpackb(data, max_array_len=len(types), max_map_len=0, max_ext_len=0)
    except (ValueError, msgpack.exceptions.UnpackException):
        return None
    if not isinstance(value, list) or [type(one) for one in value] != list(types):
        return None
    return value if all(one >= 0 for one in value if isinstance(one, int)) else None
