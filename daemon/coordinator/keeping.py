"""What is kept for reuse, as clients see and steer it: the verbs `kv.pin` and `kv.evict`, and the
coordinator's part of `kv`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from daemon.coordinator.answer import EXIT_FAILED, EXIT_REFUSED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, conversation_name, typed
from daemon.scheduler.prefix import Entry

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator


class Keeping:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator

    def view(self, now: float) -> dict[str, Any]:
        """Entries of the index, counters, and what the account says of each stage's memory."""
        residency = self._of.scheduler.residency
        entries, names = list(residency.index), self._of.clients.conversations.names()
        memory, slots = residency.memory, self._of.cluster.slots
        kept = memory.bytes_of(entry.sequence for entry in residency.index.kept)
        disks = self._of.saved_kv.disks
        return {
            "entries": [
                _entry_view(entry, entries, names.get(entry.sequence, []), now)
                | {"disk_bytes": disks.saved_bytes(entry.fidelity, entry.tokens)}
                for entry in reversed(entries)
            ]
            + disks.views(),
            "counters": dict(residency.counts),
            "stages": [
                {
                    "stage": i,
                    "node": slots[i].node if i < len(slots) else None,
                    "disk_bytes": disks.node_bytes(slots[i].node) if i < len(slots) else None,
                    "budget_bytes": stage.budget_bytes,
                    "used_bytes": memory.used[i],
                    "kept_bytes": kept[i],
                }
                for i, stage in enumerate(memory.stages)
            ],
        }

    def pin(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """One that is pinned is not evicted to make room; an operator can still evict it."""
        pinned = typed(arguments, "pinned", bool, True)
        entry = self._named(arguments)
        self._of.scheduler.residency.pin(entry.sequence, pinned)
        answer.reply({"sequence": entry.sequence.hex(), "pinned": pinned})

    def evict(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """All means those that are neither running nor pinned."""
        if typed(arguments, "sequence", str, None) == "all":
            kept = self._of.scheduler.residency.index.kept
            found = [entry for entry in kept if not entry.pinned]
        else:
            found = [self._named(arguments)]
            if found[0].running:
                what, why = f"{found[0].sequence.hex()} is not evicted", "it runs"
                raise Refusal(EXIT_REFUSED, what, why, "cancel it, or wait for its end")
        evicted = [entry.sequence for entry in found if self._evicted(entry.sequence)]
        if len(found) == 1 and not evicted:
            what, why = (
                f"{found[0].sequence.hex()} is not evicted",
                "a request is beginning with it",
            )
            raise Refusal(EXIT_REFUSED, what, why, "ask again in a moment")
        answer.reply({"evicted": [sequence.hex() for sequence in evicted]})

    def _evicted(self, sequence: bytes) -> bool:
        self._of.perform(self._of.scheduler.evict(sequence, time.monotonic()))
        return sequence not in self._of.scheduler.residency.index

    def _named(self, arguments: dict[str, Any]) -> Entry:
        index = self._of.scheduler.residency.index
        if name := conversation_name(arguments):
            sequence = self._of.clients.conversations.sequence_of(name)
            if (entry := index.get(sequence) if sequence else None) is None:
                what, why = f"nothing is kept of {name}", "it was evicted, or never was"
                raise Refusal(EXIT_FAILED, what, why, "see `shardctl kv`")
            return entry
        wanted = typed(arguments, "sequence", str, None)
        if not wanted:
            raise BadArguments("which sequence? give its id, or the beginning of it")
        found = [entry for entry in index if entry.sequence.hex().startswith(wanted)]
        if not found:
            what, why = f"nothing is kept of {wanted}", "it was evicted, or never was"
            raise Refusal(EXIT_FAILED, what, why, "see `shardctl kv`")
        if len(found) > 1:
            raise BadArguments(f"{wanted} is the beginning of {len(found)} sequences")
        return found[0]


def _entry_view(entry: Entry, entries: list[Entry], names: list[str], now: float) -> dict[str, Any]:
    related = [
        other.sequence.hex()
        for other in entries
        if other.origin == entry.sequence or entry.origin == other.sequence
    ]
    return {
        "sequence": entry.sequence.hex(),
        "state": "running" if entry.running else "kept",
        "tokens": len(entry.tokens),
        **entry.fidelity.to_wire(),
        "pinned": entry.pinned,
        "age": now - entry.created,
        "idle": now - entry.used,
        "hits": entry.hits,
        "shared_with": related,
        "names": names,
    }
