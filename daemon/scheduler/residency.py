"""Which sequences the stages hold, and may hold: those that run, and those that have ended and are
kept because others may begin as they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from daemon.scheduler.book import Book
from daemon.scheduler.expected import Expected
from daemon.scheduler.following import Following
from daemon.scheduler.memory import Memory, Shortage
from daemon.scheduler.outbox import Outbox
from daemon.scheduler.pipeline import Limits, Pipeline
from daemon.scheduler.prefix import MIN_REUSE, Entry, PrefixIndex
from daemon.scheduler.sequence import Prefix, Sequence

MAX_DOUBLINGS = 4
COUNTERS = ("hits", "misses", "hit_tokens", "evictions", "preemptions")


class Residency:
    """Nothing is sent from here: what the stages are to forget goes into the outbox. Memory counts
    as free from then on, because every stage executes a frame's commands before its spans.
    """

    def __init__(self, book: Book, outbox: Outbox, limits: Limits) -> None:
        self.index = PrefixIndex()
        self.memory = Memory()
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._book = book
        self._outbox = outbox
        self._max_kept, self._headroom = limits.max_kept, limits.headroom
        self._refused: tuple[bytes, int, Shortage] | None = None  # whom, at which memory.freed
        self.expected = Expected(self, outbox, limits.max_kept)
        self.following = Following(book, self.index)
        self.silent: set[int] = set()  # stages that have not yet said what they hold

    # --- layouts --------------------------------------------------------------------------------

    def configure(
        self,
        pipeline: Pipeline,
        held: Mapping[bytes, int] | None,
        lost: Collection[int],
        same: bool,
    ) -> None:
        """What is kept stays so in a new layout, as far as `held` says, if not all `lost` it."""
        stages, self.memory = len(pipeline.stages), Memory(pipeline.memory)
        self._refused = None
        self.expected.forget()
        for sequence in self._book.running.values():
            self.memory.place(sequence.id, sequence.request.fidelity.kv_bits, sequence.reserved)
        for entry in self.index.kept:
            self.memory.place(entry.sequence, entry.fidelity.kv_bits, entry.held)
            if (lost or entry.lacking) and not entry.lose(lost, stages, same):
                self._drop(entry)
            elif held is not None and not entry.lacking:
                self._shrink(entry, held.get(entry.sequence, 0))
        self.inquire(stages)
        while self.memory.over and (entries := self._evictable()):
            self._evict(entries[0])

    def inquire(self, stages: int) -> None:
        """The stages are asked what they hold: what is kept now must be in each answer."""
        self.silent = set(range(stages))
        for entry in self.index.kept:
            entry.unsure = True

    def report(self, stage: int, held: Mapping[bytes, int]) -> None:
        """What one stage says that it holds is all that counts. What nobody here knows goes."""
        self.silent.discard(stage)
        self._book.reported(held)
        for sequence in held:
            if not any(sequence in known for known in (self._book, self.index, self.expected)):
                self._outbox.release(sequence)
        for entry in [one for one in self.index.kept if one.unsure]:
            if entry.held_by(stage):
                self._shrink(entry, held.get(entry.sequence, 0))
            entry.unsure = bool(self.silent)

    def forget(self) -> None:
        """Another model is to be loaded, or none: the stages free everything on their own."""
        for entry in self.index.kept:
            self.memory.free(entry.sequence)
        self.index.clear()
        self.expected.forget()

    # --- sequences that run ---------------------------------------------------------------------

    def admit(self, sequence: Sequence, now: float) -> Shortage | None:
        """Give the sequence its place, and begin its attempt after what it can start from; or say
        what is lacking, also when everything is evicted that may be.
        """
        if self._refused and self._refused[:2] == (sequence.id, self.memory.freed):
            return self._refused[2]
        tokens = tuple(sequence.history.tokens)
        fidelity, reach = sequence.request.fidelity, self.memory.reach
        hit = None if sequence.inherited else self.index.match(fidelity, tokens, reach)
        # One that was preempted gets more room, so that it is not preempted again at once.
        alone = not self._book.running
        more = self._headroom << (0 if alone else min(sequence.preemptions, MAX_DOUBLINGS))
        short = self._make_room(sequence, sequence.room(more), {hit[0].sequence} if hit else set())
        if short and hit:  # both do not fit: rather compute it again than not at all
            hit = None
            short = self._make_room(sequence, sequence.room(more), set())
        if short:
            self._refused = sequence.id, self.memory.freed, short
            return short
        length, sequence.inherited = sequence.inherited or 0, None
        if hit:
            entry, length = hit
            sequence.prefix = Prefix(entry.sequence, length)
            sequence.origin = entry.sequence
            self.index.use(entry, now)
            self.counts["hits"] += 1
            self.counts["hit_tokens"] += length
        elif len(tokens) > MIN_REUSE and not length:
            self.counts["misses"] += 1
        if sequence.admitted is None:
            sequence.cached, sequence.admitted = min(length, sequence.prompt_length), now
        refilling = hit[0].refilling(length) if hit else None
        sequence.begin_attempt(0 if refilling else length, refilling)
        return None

    def grow(self, sequence: Sequence) -> Shortage | None:
        """Room for the tokens it has now, and for some more if there is."""
        short = self._make_room(sequence, sequence.room(self._headroom), set())
        return short and self._make_room(sequence, len(sequence.history), set())

    def widen(self, sequence: Sequence) -> None:
        """More room for guesses, if it costs nobody who runs any."""
        room = sequence.room(self._headroom)
        if room > sequence.reserved:
            self._make_room(sequence, room, set())

    def proved(self, sequence: Sequence, now: float) -> None:
        """Every stage holds more of it. What it was forked from is not needed for it any more, and
        others may be forked of it once its prompt is computed.
        """
        source = None
        if sequence.prefix and sequence.proven >= sequence.prefix.length:
            source, sequence.prefix = self.index.get(sequence.prefix.source), None
            self._refused = None  # it may be evicted again
        if not sequence.listed and sequence.proven >= sequence.prompt_length:
            sequence.listed = True
            if sequence.prompt_length >= MIN_REUSE:
                self._add(Entry.of(sequence, sequence.prompt_length, now, running=True))
        if source and source.sequence in self.index:
            self._drop_if_covered(source)

    def began(self, sequence: Sequence) -> None:
        """Another attempt began, perhaps before the end of its prompt."""
        if sequence.listed and sequence.proven < sequence.prompt_length:
            sequence.listed = False
            self.index.remove(sequence.id)

    def forkable(self, sequence: Sequence) -> int:
        """How much of it the stages are still to fork, and hold elsewhere."""
        source = self.index.get(sequence.prefix.source) if sequence.prefix else None
        return min(sequence.prefix.length, len(source.tokens)) if sequence.prefix and source else 0

    def preempt(self, sequence: Sequence) -> None:
        """The stages forget it, for now."""
        self.counts["preemptions"] += 1
        self.index.remove(sequence.id)
        self.memory.free(sequence.id)
        sequence.wait_again()
        self._outbox.release(sequence.id, sequence.attempt)

    def ended(self, sequence: Sequence, keep: bool, now: float) -> None:
        """Keep it, as far as every stage holds it, or let the stages forget it."""
        before = self.index.get(sequence.id)
        self.index.remove(sequence.id)
        if not sequence.attempt:
            return
        if not keep or sequence.proven < MIN_REUSE or not self._max_kept:
            self.memory.free(sequence.id)
            self._outbox.release(sequence.id)
            return
        entry = Entry.of(sequence, sequence.proven, now, running=False)
        if before:
            entry.hits, entry.created = before.hits, before.created
        self.memory.place(sequence.id, entry.fidelity.kv_bits, entry.held)
        self.keep(entry)

    # --- sequences that are kept ----------------------------------------------------------------

    def departed(self, sequence: bytes, attempt: int, held: int) -> None:
        """A late word on the last attempt of a sequence that has ended."""
        entry = self.index.get(sequence)
        if entry and entry.running is None and entry.attempt == attempt:
            self._shrink(entry, held)

    def pin(self, sequence: bytes, pinned: bool) -> None:
        """Whether it stays when there is no room; KeyError for one that is not in the index. What
        is pinned while it runs stays so when it ends, and when it has to begin again.
        """
        entry = self.index.entries[sequence]
        entry.pinned = pinned
        if entry.running:
            entry.running.pinned = pinned
        self._refused = None  # there may be room now for who waits

    def evict(self, sequence: bytes) -> bool:
        """Also one that is pinned. False when it is not kept, or just now used for another."""
        entry = self.index.get(sequence)
        if entry is None or entry.running is not None or sequence in self._sources():
            return False
        self._evict(entry)
        return True

    def keep(self, entry: Entry) -> None:
        """It has its place, and every stage holds it: who waits may be given that place now."""
        self._refused = None
        self._add(entry)
        self._drop_if_covered(entry)
        if len(self.index.kept) > self._max_kept and (entries := self._evictable()):
            self._evict(entries[0])

    def _add(self, entry: Entry) -> None:
        self.index.add(entry)
        for other in self.index.covered_by(entry, self.memory.reach):
            if self._may_go(other, self._sources()):
                self._drop(other)

    def _drop_if_covered(self, entry: Entry) -> None:
        may_go = self._may_go(entry, self._sources())
        if may_go and self.index.is_covered(entry, self.memory.reach):
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        self.index.remove(entry.sequence)
        self.memory.free(entry.sequence)
        self._outbox.release(entry.sequence)

    def _evict(self, entry: Entry) -> None:
        self.counts["evictions"] += 1
        self._drop(entry)

    def _shrink(self, entry: Entry, held: int) -> None:
        if held < MIN_REUSE:
            self._drop(entry)
        else:
            self.index.trim(entry.sequence, held)

    def _sources(self) -> Collection[bytes]:
        """What running sequences are still being forked from."""
        return {s.prefix.source for s in self._book.running.values() if s.prefix}

    def _may_go(self, entry: Entry, sources: Collection[bytes]) -> bool:
        return entry.running is None and not entry.pinned and entry.sequence not in sources

    def _evictable(self, spared: Collection[bytes] = ()) -> list[Entry]:
        """The least recently used first."""
        sources = {*spared, *self._sources()}
        return [entry for entry in self.index if self._may_go(entry, sources)]

    def _make_room(
        self, sequence: Sequence, tokens: int, spared: Collection[bytes]
    ) -> Shortage | None:
        short = self.place((sequence.id, sequence.request.fidelity.kv_bits, tokens), spared)
        if short is None:
            sequence.reserved = tokens
        return short

    def place(self, wanted: tuple[bytes, int, int], spared: Collection[bytes]) -> Shortage | None:
        """Give a sequence a place of that type and length, evicting as few as will do; none when
        all would not do.
        """
        if self.memory.shortage(*wanted):
            entries = self._evictable(spared)
            if short := self.memory.shortage(*wanted, without=[e.sequence for e in entries]):
                return short
            for entry in entries:
                self._evict(entry)
                if not self.memory.shortage(*wanted):
                    break
        self.memory.place(*wanted)
        return None

    def check_integrity(self) -> None:
        self.index.check_integrity()
        self.memory.check_integrity()
        self.expected.check_integrity()
        for sequence in self._book.running.values():
            assert sequence.id in self.memory, "residency: runs without a place"
            assert len(sequence.history) <= sequence.reserved, "residency: outgrew its place"
        for entry in self.index:
            assert entry.sequence in self.memory, "residency: kept without a place"
            place = self.memory.tokens_of(entry.sequence)
            assert entry.running or place == entry.held, "residency: kept in another place"
            runs = entry.sequence in self._book.running
            assert runs == (entry.running is not None), "residency: runs, or is kept"
        places = len(self._book.running) + len(self.index.kept) + len(self.expected)
        assert len(self.memory) == places, "residency: a place of nobody"
