"""Saved KV as the compute thread sees it: makes views of caches for the bulk thread to write, and
caches of what it has read.

Every method returns at once, with the message that is to be said, if any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon import logs
from daemon import messages as msg
from daemon.engine.caches import SequenceCache
from daemon.engine.errors import CacheError
from daemon.engine.snapshot import put, take
from daemon.layers import LayerRange
from daemon.stage.bulk import Bulk
from daemon.stage.jobs import (
    Drop,
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


@dataclass(frozen=True, slots=True)
class _Going:
    """What is being written. The arrays behind `parts` are let go of by the thread that made
    them."""

    asked: msg.SaveKv
    parts: Sequence[LayerParts]


@dataclass(frozen=True, slots=True)
class _Coming:
    """What is being read, for the worker that was there when it was asked for."""

    asked: msg.LoadKv
    worker: Worker
    cache: SequenceCache


class SavedKv:
    def __init__(self, node: str, incarnation: str, bulk: Bulk) -> None:
        self._node = node
        self._incarnation = incarnation
        self._bulk = bulk
        self._last = 0
        self._going: dict[int, _Going] = {}
        self._coming: dict[int, _Coming] = {}

    @property
    def pollable(self) -> int:
        """Readable when `finish` has something to do."""
        return self._bulk.reports.fd

    def hear(
        self, asked: msg.SaveKv | msg.LoadKv | msg.DropKv | msg.DiskQuery, worker: Worker | None
    ) -> msg.Message | None:
        match asked:
            case msg.SaveKv():
                return self._save(asked, worker)
            case msg.LoadKv():
                return self._load(asked, worker)
            case msg.DropKv():
                self._bulk.ask(Drop(asked.digest, asked.entry))
            case msg.DiskQuery():
                self._bulk.ask(Survey(asked.digest))
        return None

    def _save(self, asked: msg.SaveKv, worker: Worker | None) -> msg.KvSaved | None:
        """Only takes references: the sequence may be computed with, or released, right after."""
        try:
            if worker is None or asked.sequence not in worker.caches:
                raise CacheError("the sequence is not held")
            cache = worker.caches[asked.sequence]
            parts = take(cache, asked.length)
        except CacheError as error:
            return msg.KvSaved(asked.query, self._node, 0, 0, 0.0, str(error))
        tokens = worker.ledger.tokens(asked.sequence)[: asked.length]
        token_hash = worker.ledger.hash_at(asked.sequence, asked.length)
        identity = Identity(worker.digest, cache.kv_bits, asked.length, token_hash)
        self._last += 1
        self._going[self._last] = _Going(asked, parts)
        self._bulk.ask(Save(self._last, identity, worker.stage.layers, tokens, parts))
        return None

    def _load(self, asked: msg.LoadKv, worker: Worker | None) -> msg.KvRestored | None:
        try:
            if worker is None:
                raise CacheError("no layers are loaded")
            peers = [_peer(source) for source in asked.sources[:MAX_PEERS]]
            forms = worker.stage.kv_forms(asked.kv_bits)
            cache = worker.stage.new_cache(asked.kv_bits)
        except (CacheError, ValueError, KeyError, TypeError) as error:
            return self._not_restored(asked, f"it cannot be: {error}")
        self._last += 1
        self._coming[self._last] = _Coming(asked, worker, cache)
        identity = Identity(worker.digest, asked.kv_bits, asked.tokens, asked.token_hash)
        self._bulk.ask(Restore(self._last, identity, worker.stage.layers, forms, peers))
        return None

    # --- what has been done ---

    def finish(self, worker: Worker | None) -> msg.Message | None:
        """Take one report of the bulk thread."""
        report = self._bulk.reports.take()
        match report:
            case Saved():
                asked = self._going.pop(report.number).asked
                tokens = 0 if report.why else asked.length
                return msg.KvSaved(
                    asked.query, self._node, tokens, report.nbytes, report.seconds, report.why
                )
            case LayerRead():
                coming = self._coming[report.number]
                own = coming.cache.own[report.layer - coming.worker.stage.layers.start]
                put(own, report.content, coming.asked.tokens)
                return None
            case Restored():
                return self._restored(report, worker)
            case Surveyed():
                files = list(_told(report.files))
                return msg.KvStored(
                    self._node, self._incarnation, report.digest, self._bulk.address, files
                )

    def _restored(self, report: Restored, worker: Worker | None) -> msg.KvRestored:
        coming = self._coming.pop(report.number)
        asked, history = coming.asked, report.history
        if history is None:
            return self._not_restored(asked, report.why)
        coming.cache.restored(len(history))
        if coming.worker is not worker:
            return self._not_restored(asked, "the layers were unloaded meanwhile")
        if not worker.adopt(asked.sequence, history, coming.cache):
            return self._not_restored(asked, "it was released meanwhile")
        return msg.KvRestored(
            asked.query, self._node, len(history), report.nbytes, report.seconds, ""
        )

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
            "kv_bits": file.identity.kv_bits,
            "tokens": tokens,
            "token_hash": file.identity.token_hash,
            "start": file.layers.start,
            "end": file.layers.end,
            "bytes": file.nbytes,
            "used": file.used,
        }
