"""Having KV saved and read again, by all stages together.

Nothing here decides over a request: what cannot be saved is noted, what cannot be read is computed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon import messages as msg
from daemon.coordinator.disks import Disks
from daemon.coordinator.rounds import Rounds
from daemon.fidelity import Fidelity
from daemon.history import History
from daemon.layers import LayerRange
from daemon.scheduler.stored import MIN_STORED, Stored, Told, pack, unpack
from daemon.storage.manifest import Identity

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

SAVE_SECONDS = 600.0  # nobody waits for it
LOAD_SECONDS = 60.0
RETRY_SECONDS = 60.0  # before a request waits again for what could not be read


@dataclass(frozen=True, slots=True)
class Held:
    """The first tokens of a sequence that every stage holds."""

    sequence: bytes
    fidelity: Fidelity
    tokens: tuple[int, ...]

    def identity(self, digest: str) -> Identity:
        length = len(self.tokens)
        return Identity(digest, self.fidelity, length, History(self.tokens).hash_at(length))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went, all stages together. `why` is "" when it went well."""

    entry: str
    sequence: bytes
    tokens: int
    nbytes: int
    seconds: float
    why: str = ""


Then = Callable[[Outcome], object]
WENT_DOWN = "the pipeline went down meanwhile"


class SavedKv:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self.disks = Disks(coordinator)
        self._saving: dict[str, bytes] = {}  # by entry, its tokens
        self._forgotten: set[str] = set()  # of these
        self._loading: dict[str, list[Then]] = {}  # by entry
        self._not_before: dict[str, float] = {}  # entries that could not be read
        self._refused = False  # whether the last save was
        # Not from 1: stages may still answer a coordinator that was here before.
        self._saves: Rounds[msg.KvSaved] = Rounds(secrets.randbits(48))
        self._loads: Rounds[msg.KvRestored] = Rounds(secrets.randbits(48))

    def tick(self, now: float) -> None:
        self.disks.tick(now)
        self._saves.tick(now)
        self._loads.tick(now)

    # --- saving ---

    def keep(self, sequence: bytes) -> None:
        """A turn has ended whose next one is likely to come: have what is kept of it saved, in the
        background.
        """
        entry = self._of.scheduler.residency.index.get(sequence)
        if entry is None or entry.running or not self._of.config.node.kv_disk:
            return
        held = Held(sequence, entry.fidelity, entry.tokens)
        known = self.disks.index.entries.get(held.identity(self.disks.digest).entry)
        enough = len(entry.tokens) >= MIN_STORED
        if enough and self._of.cluster.up and not (known and known.covers(self.disks.layers)):
            self.save(held)

    def save(self, held: Held, then: Then | None = None) -> None:
        """Have every stage write what it holds, in the background. What goes wrong is a note, once
        until something goes well again.
        """
        began = time.monotonic()
        slots, identity = self._of.cluster.slots, held.identity(self.disks.digest)
        self._saving[identity.entry] = pack(held.tokens)
        self._forgotten.discard(identity.entry)

        def ended(
            reports: Mapping[str, msg.KvSaved], silent: Collection[str], given_up: bool
        ) -> None:
            why = WENT_DOWN if given_up else _trouble(reports, silent)
            self.disks.changed(slot.node for slot in slots)
            self._saving.pop(identity.entry, None)
            if identity.entry in self._forgotten:
                self._forgotten.discard(identity.entry)
                self._drop(identity.digest, identity.entry, self._of.cluster.members)
            elif identity.digest == self.disks.digest:
                layers = {slot.node: slot.layers for slot in slots}
                for node, report in reports.items():
                    if not report.why:
                        file = _told(held, identity, layers[node], report.bytes)
                        self.disks.index.saved(node, file)
            if why and not self._refused:
                self._of.note("kv-not-saved", "", f"{held.sequence.hex()[:8]}: {why}")
            self._refused = bool(why)
            if not why:
                self._drop_superfluous(identity.entry)
            if then:
                nbytes = sum(report.bytes for report in reports.values())
                seconds = time.monotonic() - began
                tokens = len(held.tokens)
                then(Outcome(identity.entry, held.sequence, tokens, nbytes, seconds, why))

        number = self._saves.begin([slot.node for slot in slots], began + SAVE_SECONDS, ended)
        asked = msg.SaveKv(
            self._of.cluster.term,
            number,
            held.sequence,
            held.fidelity.to_wire(),
            len(held.tokens),
        )
        for slot in slots:
            self._of.to_stage(slot.node, asked)

    def _drop_superfluous(self, entry: str) -> None:
        """Entries that the new one can be used instead of, if caches can be cut anywhere."""
        stored = self.disks.index.entries.get(entry)
        if stored is None or self._of.scheduler.residency.memory.reach is not None:
            return
        for shorter in self.disks.index.prefixes(stored):
            nodes = {piece.node for piece in shorter.pieces}
            self._drop(self.disks.digest, shorter.entry, nodes)

    def _drop(self, digest: str, entry: str, nodes: Iterable[str]) -> None:
        for node in nodes:
            self._of.to_stage(node, msg.DropKv(self._of.cluster.term, digest, entry))
        self.disks.index.drop(entry)

    def forget(self, digest: str, fidelity: Fidelity, tokens: tuple[int, ...]) -> None:
        """Have every node delete what is saved of these tokens, and of what they begin with. Of a
        model that is not loaded only what all of them left is known.
        """
        ends = (tokens, tokens[:-1])  # the last one need not have been computed
        entries = {Held(b"", fidelity, end).identity(digest).entry for end in ends}
        if digest == self.disks.digest:
            packed = pack(tokens)
            known = {name: stored.tokens for name, stored in self.disks.index.entries.items()}
            known |= self._saving
            entries |= {name for name, saved in known.items() if packed.startswith(saved)}
        self._forgotten |= entries & self._saving.keys()
        for entry in entries:
            self._drop(digest, entry, self._of.cluster.members)

    def saved(self, message: msg.KvSaved) -> None:
        self._saves.report(message.query, message.node, message)

    # --- loading ---

    def worth_loading(
        self, fidelity: Fidelity, tokens: tuple[int, ...]
    ) -> tuple[Stored, int] | None:
        """What is saved of these tokens, and how many more of them it has than the stages hold;
        None when these are few, and for a while when it could not be read.
        """
        if not self.disks.index.entries or not self._of.cluster.up:
            return None
        residency = self._of.scheduler.residency
        reach = residency.memory.reach
        held = residency.index.match(fidelity, tokens, reach)
        found = self.disks.index.match(fidelity, tokens, self.disks.layers, reach)
        if found is None or (more := found[1] - (held[1] if held else 0)) < MIN_STORED:
            return None
        failing = time.monotonic() < self._not_before.get(found[0].entry, float("-inf"))
        return None if failing else (found[0], more)

    def load(self, stored: Stored, then: Then) -> None:
        """Have every stage hold the entry, under a new id. When one cannot, none is to. What is
        being read already is not read twice.
        """
        entry, began = stored.entry, time.monotonic()
        if entry in self._loading:
            self._loading[entry].append(then)
            return
        slots, sequence = self._of.cluster.slots, self._of.new_sequence()
        fidelity, expected = stored.fidelity, self._of.scheduler.residency.expected
        if not expected.begin(sequence, fidelity, stored.length):
            then(Outcome(entry, sequence, 0, 0, 0.0, "there is no memory for it"))
            return
        self._loading[entry] = [then]

        def ended(
            reports: Mapping[str, msg.KvRestored], silent: Collection[str], given_up: bool
        ) -> None:
            now, why = time.monotonic(), WENT_DOWN if given_up else _trouble(reports, silent)
            if why:
                expected.failed(sequence)
            else:
                expected.came(sequence, fidelity, unpack(stored.tokens), now)
            if why and not given_up:
                self._cannot_load(stored, why, now)
            self._of.perform(self._of.scheduler.tick(now))
            nbytes = sum(report.bytes for report in reports.values())
            outcome = Outcome(entry, sequence, stored.length, nbytes, now - began, why)
            with ExitStack() as all_of_them:  # also when one fails
                for waits in reversed(self._loading.pop(entry)):
                    all_of_them.callback(waits, outcome)

        number = self._loads.begin([slot.node for slot in slots], began + LOAD_SECONDS, ended)
        for slot in slots:
            asked = msg.LoadKv(
                self._of.cluster.term,
                number,
                sequence,
                fidelity.to_wire(),
                stored.length,
                stored.token_hash,
                self.disks.sources(stored, slot.node),
            )
            self._of.to_stage(slot.node, asked)

    def _cannot_load(self, stored: Stored, why: str, now: float) -> None:
        """It stays listed: the nodes are asked what they have now, and requests do not wait for it
        again so soon.
        """
        self._of.note("kv-not-loaded", "", f"saved entry {stored.entry[:8]}: {why}")
        self.disks.changed(piece.node for piece in stored.pieces)
        failing = {entry: due for entry, due in self._not_before.items() if due > now}
        self._not_before = failing | {stored.entry: now + RETRY_SECONDS}

    def restored(self, message: msg.KvRestored) -> None:
        self._loads.report(message.query, message.node, message)

    def pipeline_down(self) -> None:
        """Stages that are gone answer nothing; what they were to hold, nobody holds."""
        self._saves.give_up()
        self._loads.give_up()


def _told(held: Held, identity: Identity, layers: LayerRange, nbytes: int) -> Told:
    return Told(
        identity.entry,
        identity.fidelity,
        pack(held.tokens),
        identity.token_hash,
        layers.start,
        layers.end,
        nbytes,
        time.time(),
    )


def _trouble(reports: Mapping[str, msg.KvSaved | msg.KvRestored], silent: Collection[str]) -> str:
    """What went wrong on which node, "" when nothing did."""
    said = [f"{node}: {report.why}" for node, report in sorted(reports.items()) if report.why]
    return "; ".join([*said, *(f"{node} did not answer" for node in silent)])
