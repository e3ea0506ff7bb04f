"""Saved KV as the compute thread sees it: makes views of caches for the bulk thread to write, and
caches of what it has read.

Every method returns at once, with the messages that are to be said. What is written keeps memory
alive beside the account of KV, whatever becomes of its sequence: so only one is written at a time,
and the others wait by name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon import logs
from daemon import messages as msg
from daemon.engine.caches import SequenceCache
from daemon.engine.errors import CacheError
from daemon.engine.snapshot import put, take
from daemon.fidelity import Fidelity
from daemon.layers import LayerRange
from daemon.stage.bulk import Bulk
from daemon.stage.jobs import (
    Abandon,
    Drop,
    Installed,
    LayerRead,
    Peer,
    Restore,
    Restored,
    Save,
    Saved,
    Survey,
    Surveyed,
)
from daemon.stage.worker import Worker
from daemon.storage.content import LayerParts
from daemon.storage.folder import StoredFile
from daemon.storage.manifest import Identity

log = logs.get("stage")

MAX_STORED_BYTES = 4 << 20  # of tokens in one KvStored
MAX_PEERS = 64
RELEASED = "it was released meanwhile"


@dataclass(frozen=True, slots=True)
class _Going:
    """What is being written. The arrays behind `parts` are let go of by the thread that made
    them."""

    asked: msg.SaveKv
    parts: Sequence[LayerParts]


@dataclass(frozen=True, slots=True)
class _Coming:
    """What is being read; `first` is the first of the layers that are loaded."""

    asked: msg.LoadKv
    first: int
    cache: SequenceCache


class SavedKv:
    def __init__(self, node: str, incarnation: str, bulk: Bulk) -> None:
        self._node = node
        self._incarnation = incarnation
        self._bulk = bulk
        self._last = 0
        self._to_save: deque[msg.SaveKv] = deque()
        self._going: _Going | None = None
        self._coming: dict[int, _Coming] = {}

    @property
    def pollable(self) -> int:
        """Readable when `finish` has something to do."""
        return self._bulk.reports.fd

    def hear(
        self, asked: msg.SaveKv | msg.LoadKv | msg.DropKv | msg.DiskQuery, worker: Worker | None
    ) -> list[msg.Message]:
        match asked:
            case msg.SaveKv():
                self._to_save.append(asked)
                return self._save_next(worker)
            case msg.LoadKv():
                return self._load(asked, worker)
            case msg.DropKv():
                self._bulk.ask(Drop(asked.digest, asked.entry))
            case msg.DiskQuery():
                self._bulk.ask(Survey(asked.digest))
        return []

    def _save_next(self, worker: Worker | None) -> list[msg.Message]:
        """Have the next one written, if none is; says which before it cannot be."""
        said: list[msg.Message] = []
        while self._to_save and self._going is None:
            asked = self._to_save.popleft()
            try:
                self._going = self._save(asked, worker)
            except (CacheError, KeyError, TypeError, ValueError) as error:
                said.append(self._not_saved(asked, str(error)))
        return said

    def _save(self, asked: msg.SaveKv, worker: Worker | None) -> _Going:
        """Only takes references: the sequence may be computed with, or released, right after."""
        if worker is None or asked.sequence not in worker.caches:
            raise CacheError("it is no longer held")
        cache = worker.caches[asked.sequence]
        parts = take(cache, asked.length)
        tokens = worker.ledger.tokens(asked.sequence)[: asked.length]
        token_hash = worker.ledger.hash_at(asked.sequence, asked.length)
        fidelity = Fidelity.from_wire(asked.fidelity)
        if fidelity.kv_bits != cache.kv_bits:
            raise CacheError(f"it is held in {cache.kv_bits} bits, not {fidelity.kv_bits}")
        identity = Identity(worker.digest, fidelity, asked.length, token_hash)
        self._bulk.ask(Save(identity, worker.stage.layers, tokens, parts))
        return _Going(asked, parts)

    def _not_saved(self, asked: msg.SaveKv, why: str) -> msg.KvSaved:
        return msg.KvSaved(asked.query, self._node, 0, 0, 0.0, why)

    def _load(self, asked: msg.LoadKv, worker: Worker | None) -> list[msg.Message]:
        try:
            if worker is None:
                raise CacheError("no layers are loaded")
            peers = [_peer(source) for source in asked.sources[:MAX_PEERS]]
            fidelity = Fidelity.from_wire(asked.fidelity)
            forms = worker.stage.kv_forms(fidelity.kv_bits)
            cache = worker.stage.new_cache(fidelity.kv_bits)
        except (CacheError, ValueError, KeyError, TypeError) as error:
            return [self._not_restored(asked, f"it cannot be: {error}")]
        self._last += 1
        self._coming[self._last] = _Coming(asked, worker.stage.layers.start, cache)
        identity = Identity(worker.digest, fidelity, asked.tokens, asked.token_hash)
        self._bulk.ask(Restore(self._last, identity, worker.stage.layers, forms, peers))
        return []

    # --- what has been done ---

    def finish(self, worker: Worker | None) -> list[msg.Message]:
        """Take one report of the bulk thread."""
        report = self._bulk.reports.take()
        match report:
            case Saved():
                going, self._going = self._going, None
                saved = [self._saved(report, going.asked)] if going else []
                return [*saved, *self._save_next(worker)]
            case LayerRead():
                answers = self._install(report, worker)
                self._bulk.ask(Installed())
                return answers
            case Restored():
                return self._restored(report, worker)
            case Surveyed():
                files = list(_told(report.files))
                told = msg.KvStored(
                    self._node, self._incarnation, report.digest, self._bulk.address, files
                )
                return [told]

    def _saved(self, report: Saved, asked: msg.SaveKv) -> msg.KvSaved:
        tokens = 0 if report.why else asked.length
        return msg.KvSaved(
            asked.query, self._node, tokens, report.nbytes, report.seconds, report.why
        )

    def _install(self, read: LayerRead, worker: Worker | None) -> list[msg.Message]:
        coming = self._coming.get(read.number)
        if coming is None:
            return []
        if worker is None or not worker.ledger.awaits(coming.asked.sequence):
            return [self._abandon(read.number, RELEASED)]
        put(coming.cache.own[read.layer - coming.first], read.content, coming.asked.tokens)
        return []

    def _restored(self, report: Restored, worker: Worker | None) -> list[msg.Message]:
        coming = self._coming.pop(report.number, None)
        if coming is None:
            return []
        asked, history = coming.asked, report.history
        if history is None:
            return [self._not_restored(asked, report.why)]
        coming.cache.restored(len(history))
        if worker is None or not worker.adopt(asked.sequence, history, coming.cache):
            return [self._not_restored(asked, RELEASED)]
        tokens, nbytes = len(history), report.nbytes
        return [msg.KvRestored(asked.query, self._node, tokens, nbytes, report.seconds, "")]

    def unloaded(self) -> list[msg.Message]:
        """The layers are gone, and what was held with them. What is being written still is."""
        why = "the layers were unloaded meanwhile"
        return [self._abandon(number, why) for number in list(self._coming)]

    def _abandon(self, number: int, why: str) -> msg.KvRestored:
        """Its memory is free from now on."""
        self._bulk.ask(Abandon(number))
        return self._not_restored(self._coming.pop(number).asked, why)

    def _not_restored(self, asked: msg.LoadKv, why: str) -> msg.KvRestored:
        log.warning("saved KV of %d tokens is not restored: %s", asked.tokens, why)
        return msg.KvRestored(asked.query, self._node, 0, 0, 0.0, why)


def _peer(source: Mapping[str, Any]) -> Peer:
    """From a message; raises for what is none."""
    start, end = source["start"], source["end"]
    if type(start) is not int or type(end) is not int:
        raise ValueError("layers are whole numbers")
    return Peer(str(source["address"]), LayerRange(start, end))


def _told(files: Sequence[StoredFile]) -> Iterator[dict[str, Any]]:
    """The most recently used ones, as many as one message may hold."""
    total = 0
    for file in files:
        tokens = np.asarray(file.tokens, "<i4").tobytes()
        total += len(tokens)
        if total > MAX_STORED_BYTES:
            return
        yield {
            **file.identity.fidelity.to_wire(),
            "tokens": tokens,
            "token_hash": file.identity.token_hash,
            "start": file.layers.start,
            "end": file.layers.end,
            "bytes": file.nbytes,
            "used": file.used,
        }
