"""What is on the nodes' disks: every stage is asked until it has told, and again when that may have
changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daemon import messages as msg
from daemon.fidelity import Fidelity
from daemon.scheduler.stored import Stored, StoredIndex, Told, pack
from daemon.storage.manifest import Identity

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

ASK_AGAIN_SECONDS = 2.0
SURVEY_SECONDS = 5.0  # between two questions to one that has told before
_FILE = {
    "tokens": bytes,
    "token_hash": int,
    "start": int,
    "end": int,
    "bytes": int,
    "used": float,
}


class Disks:
    """Of the model that is loaded, by its `digest`; "" without one."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self.index = StoredIndex()
        self.digest = ""
        self._told: dict[str, tuple[str, str]] = {}  # node -> incarnation and address of its stage
        self._asked_at: dict[str, float] = {}
        self._owing: set[str] = set()  # were asked, and have not answered
        self._changed: set[str] = set()  # since they were asked

    def changed(self, nodes: Iterable[str]) -> None:
        """These may have less than they told, or other files: a stage that saves removes what was
        used longest ago when its disk is full, and says nothing of it.
        """
        self._changed.update(nodes)

    def tick(self, now: float) -> None:
        """Ask every stage that has not yet said what its node has saved of this model now."""
        digest = self._of.model.spec.digest if self._of.model else ""
        if digest != self.digest:
            self.digest = digest
            self.index.clear()
            for known in (self._told, self._asked_at, self._owing, self._changed):
                known.clear()
        stages = {m.name: m.stage.incarnation for m in self._of.cluster.members.values() if m.stage}
        for node, (incarnation, _) in list(self._told.items()):
            if stages.get(node) != incarnation:
                del self._told[node]
                self._asked_at.pop(node, None)
                self.index.gone(node)
        for node in stages if digest else ():
            wait = SURVEY_SECONDS if node in self._told else ASK_AGAIN_SECONDS
            current = node in self._told and node not in self._owing | self._changed
            if not current and now - self._asked_at.get(node, float("-inf")) >= wait:
                self._asked_at[node] = now
                self._owing.add(node)
                self._changed.discard(node)
                self._of.to_stage(node, msg.DiskQuery(self._of.cluster.term, digest))

    def stored(self, message: msg.KvStored) -> None:
        """A stage says what its node has."""
        member = self._of.cluster.members.get(message.node)
        stage = member.stage if member else None
        if message.digest != self.digest or not stage or stage.incarnation != message.incarnation:
            return
        self._told[message.node] = message.incarnation, message.address
        self._owing.discard(message.node)
        files = [_read(self.digest, file) for file in message.files]
        self.index.told(message.node, [file for file in files if file])

    def views(self) -> list[dict[str, Any]]:
        """For `kv`, in the shape of entries that are held: the most recently used first."""
        stored = sorted(self.index.entries.values(), key=lambda one: -one.used)
        return [self._view(one) for one in stored]

    def _view(self, stored: Stored) -> dict[str, Any]:
        return {
            "sequence": None,
            "entry": stored.entry,
            "state": "saved",
            "tokens": stored.length,
            "bytes": stored.nbytes,
            **stored.fidelity.to_wire(),
            "nodes": sorted({piece.node for piece in stored.pieces}),
            "complete": stored.covers(self.layers),
            "pinned": False,
            "age": None,
            "idle": max(0.0, time.time() - stored.used),
            "hits": None,
            "shared_with": [],
            "names": [],
        }

    def saved_bytes(self, fidelity: Fidelity, tokens: Sequence[int]) -> int | None:
        """Of the entry with exactly these tokens; None when it is on no disk."""
        packed = pack(tokens)
        found = (s for s in self.index.entries.values() if s.tokens == packed)
        return next((s.nbytes for s in found if s.fidelity == fidelity), None)

    def node_bytes(self, node: str) -> int:
        """What this model's entries take on a node's disk."""
        pieces = (stored.pieces.items() for stored in self.index.entries.values())
        return sum(n for items in pieces for piece, n in items if piece.node == node)

    @property
    def layers(self) -> int:
        """Of the model."""
        return self._of.model.spec.layers if self._of.model else 0

    def sources(self, stored: Stored, node: str) -> list[dict[str, Any]]:
        """Where a node may read what it has not saved itself."""
        return [
            {"address": self._told[piece.node][1], "start": piece.start, "end": piece.end}
            for piece in stored.pieces
            if piece.node != node and piece.node in self._told
        ]


def _read(digest: str, file: Mapping[str, Any]) -> Told | None:
    """From a message: None for what is no file of ours."""
    for name, kind in _FILE.items():
        if type(file.get(name)) is not kind:
            return None
    tokens = file["tokens"]
    if len(tokens) % 4 or not 0 <= file["start"] < file["end"]:
        return None
    try:
        fidelity = Fidelity.from_wire(file)
    except (KeyError, TypeError, ValueError):
        return None
    identity = Identity(digest, fidelity, len(tokens) // 4, file["token_hash"])
    return Told(
        identity.entry,
        identity.fidelity,
        tokens,
        identity.token_hash,
        file["start"],
        file["end"],
        file["bytes"],
        file["used"],
    )
