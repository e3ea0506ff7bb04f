"""One worker takes the place of another: with other layers, and what both have of the KV."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from daemon.engine.caches import SequenceCache
from daemon.engine.stage import Stage
from daemon.history import History
from daemon.stage.codecs import RowCoder
from daemon.stage.worker import Worker

Given = Iterable[tuple[bytes, History, SequenceCache]]


def newcomer(
    stage: Stage,
    coder: RowCoder,
    clock: Callable[[], float],
    digest: str,
    hidden_bytes: int,
    given: Given,
) -> Worker:
    """Of a stage that held nothing: it has what it was `given`, of all its layers."""
    worker = Worker(stage, coder, 0, clock, digest, hidden_bytes)
    for sequence, history, cache in given:
        cache.restored(len(history))
        worker.adopt(sequence, history, cache)
    return worker


def successor(old: Worker, stage: Stage, coder: RowCoder, given: Given) -> Worker:
    """Of `old`, which stays as it is as long as the new one computes nothing. Sequences whose KV of
    the layers that `old` lacks was not `given`, of just the tokens that `old` holds, are lost.
    """
    before, after = old.stage.layers, stage.layers
    kept = range(max(before.start, after.start), min(before.end, after.end))
    gains = len(kept) < len(after)
    whole = {sequence: (history, cache) for sequence, history, cache in given}
    caches: dict[bytes, SequenceCache] = {}
    for sequence, cache in old.caches.items():
        if not gains:
            fresh = stage.new_cache(cache.kv_bits)
        elif sequence in whole:
            history, fresh = whole[sequence]
            token_hash = old.ledger.hash_at(sequence, cache.length)
            same = len(history) == cache.length and history.hash_at(cache.length) == token_hash
            if not same or fresh.kv_bits != cache.kv_bits:
                continue
        else:
            continue
        held = {n - after.start: cache.own[n - before.start] for n in kept}
        caches[sequence] = fresh.joined(held, cache.length)
    return old.succeeded(stage, coder, caches)
