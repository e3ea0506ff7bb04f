"""Reads the saved layers of one stage together, from whichever files and nodes have them."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any

import zmq

from daemon import logs
from daemon.history import History
from daemon.layers import LayerRange
from daemon.ring import Network
from daemon.stage.exchange import RemoteFile
from daemon.stage.jobs import LayerRead, Peer, Report, Restore, Restored
from daemon.stage.mailbox import Mailbox
from daemon.storage.content import (
    Source,
    check_identity,
    read_layer,
    read_manifest,
    read_tokens,
)
from daemon.storage.errors import StorageError
from daemon.storage.folder import KvFolder, LocalFile
from transports.errors import AddressError

log = logs.get("bulk")


class Handover:
    """Layers go to the compute thread one at a time: what is read faster than it is installed would
    pile up.
    """

    def __init__(self, reports: Mailbox[Report]) -> None:
        self.free = True
        self._reports = reports

    def put(self, layer: LayerRead) -> None:
        self.free = False
        self._reports.put(layer)


class Restoring:
    """One `Restore`, from this node's files first. A file that is not good is told of and left
    out; what it should have had is read elsewhere.
    """

    def __init__(
        self,
        job: Restore,
        folder: KvFolder,
        context: zmq.Context[Any],
        networks: Sequence[Network],
        handover: Handover,
    ) -> None:
        self._job = job
        self._folder = folder
        self._context = context
        self._networks = networks
        self._handover = handover
        self._missing = set(range(job.layers.start, job.layers.end))
        self._history: History | None = None
        self._nbytes = 0
        self._why = ""

    def steps(self) -> Generator[bool | None, None, Restored]:
        """Yields True while there is nothing to do until the last layer is installed."""
        began, identity = time.monotonic(), self._job.identity
        for layers, path in self._folder.find(identity.digest, identity.entry).items():
            if self._wanted(layers):
                try:
                    file = LocalFile(path)
                    try:
                        yield from self._read(file, layers)
                    finally:
                        file.close()
                except StorageError as error:
                    self._why = str(error)
                    self._folder.refuse(path, error)
        for peer in self._job.peers:
            if self._wanted(peer.layers):
                try:
                    yield from self._read_from(peer)
                except (StorageError, AddressError) as error:
                    log.warning("saved KV is not read: %s", error)
                    self._why = str(error)
        self._folder.touch(identity.digest, identity.entry)
        if self._missing:
            why = f"layers {sorted(self._missing)} are not to be had"
            why += f" ({self._why})" if self._why else ""
            return self.failed(why)
        seconds = time.monotonic() - began
        return Restored(self._job.number, self._history, self._nbytes, seconds)

    def failed(self, why: str) -> Restored:
        return Restored(self._job.number, None, 0, 0.0, why)

    def _wanted(self, layers: LayerRange) -> list[int]:
        return [n for n in range(layers.start, layers.end) if n in self._missing]

    def _read_from(self, peer: Peer) -> Generator[bool | None, None, None]:
        identity, networks = self._job.identity, self._networks
        file = RemoteFile(
            self._context, peer.address, networks, identity.digest, identity.entry, peer.layers
        )
        try:
            yield from file.open()
            yield from self._read(file, peer.layers)
        finally:
            file.close()

    def _read(self, source: Source, layers: LayerRange) -> Generator[bool | None, None, None]:
        """Those layers of a file that are missing."""
        job = self._job
        manifest = yield from read_manifest(source)
        check_identity(source.name, manifest, job.identity, layers)
        if self._history is None:
            self._history = yield from read_tokens(source, manifest)
        for layer in self._wanted(layers):
            while not self._handover.free:
                yield True
            form = job.forms[layer - job.layers.start]
            content = yield from read_layer(source, manifest, layer, form)
            self._handover.put(LayerRead(job.number, layer, content))
            del content
            self._missing.discard(layer)
            self._nbytes += manifest.layer(layer).nbytes
