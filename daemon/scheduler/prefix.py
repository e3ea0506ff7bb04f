"""The prefix index: what the stages hold that a new sequence could start from (DESIGN.md §6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from daemon.fidelity import Fidelity
from daemon.scheduler.refilling import Refilling, refill_of
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.trie import Tokens, TokenTrie
from transports.frame import Refill

MIN_REUSE = 16  # tokens: fewer are computed again sooner than they are found and forked


@dataclass(slots=True)
class Entry:
    """A sequence that every stage holds `tokens` of: one that has ended and is kept, or one that
    runs and whose prompt is computed.

    `surplus` bounds how many tokens more the stages may hold of one that is kept; `unsure`: the
    stages have not yet said in the present layout that they hold it; `origin` is what it was forked
    from itself; `lacking`: stages that have restarted since, and are to be refilled with what is
    forked from it.
    """

    sequence: bytes
    fidelity: Fidelity
    tokens: Tokens
    attempt: int
    created: float
    used: float
    running: Sequence | None = None
    surplus: int = 0
    unsure: bool = False
    pinned: bool = False
    hits: int = 0
    origin: bytes | None = None
    lacking: Refill | None = None

    @classmethod
    def of(cls, sequence: Sequence, length: int, now: float, running: bool) -> Entry:
        """Its first `length` tokens."""
        return cls(
            sequence.id,
            sequence.request.fidelity,
            tuple(sequence.history.tokens[:length]),
            sequence.attempt,
            now,
            now,
            running=sequence if running else None,
            surplus=max(sequence.peak, sequence.issued) - length,
            pinned=sequence.pinned,
            origin=sequence.origin,
        )

    @property
    def held(self) -> int:
        """The most tokens that a stage holds of it."""
        return self.running.issued if self.running else len(self.tokens) + self.surplus

    def held_by(self, stage: int) -> bool:
        return self.lacking is None or stage not in self.lacking

    def lose(self, lost: Collection[int], stages: int, same: bool) -> bool:
        """These stages have nothing of it any more, beside those that had nothing already. False
        when that is as good as all of so many, or not known any more, as the stages are not the
        `same`.
        """
        if self.lacking and not same:
            return False
        before = range(self.lacking.first, self.lacking.end) if self.lacking else ()
        self.lacking = refill_of({*lost, *before}, stages)
        return self.lacking is not None

    def refilling(self, length: int) -> Refilling | None:
        """Of who begins with its first `length` tokens."""
        return Refilling(self.lacking, length) if self.lacking else None

    def reaches(self, length: int, reach: int | None) -> bool:
        """Whether caches that can be cut by `reach` tokens (None: by any number) can be forked at
        `length`.
        """
        return reach is None or self.held - length <= reach


class PrefixIndex:
    """Entries in the order of their last use, and by their tokens. One trie per fidelity, because
    no other can go on from it.
    """

    def __init__(self) -> None:
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._tries: dict[Fidelity, TokenTrie] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        """The least recently used first."""
        return iter(list(self.entries.values()))

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self.entries

    def get(self, sequence: bytes) -> Entry | None:
        return self.entries.get(sequence)

    @property
    def fidelities(self) -> list[Fidelity]:
        """Of all entries, each once, in the order in which they came up."""
        return list(self._tries)

    @property
    def kept(self) -> list[Entry]:
        """Those that have ended."""
        return [entry for entry in self.entries.values() if entry.running is None]

    def add(self, entry: Entry) -> None:
        """As the most recently used; in place of the entry of that sequence, if there is one."""
        self.remove(entry.sequence)
        self.entries[entry.sequence] = entry
        self._tries.setdefault(entry.fidelity, TokenTrie()).add(entry.tokens, entry.sequence)

    def remove(self, sequence: bytes) -> None:
        entry = self.entries.pop(sequence, None)
        if entry is not None:
            trie = self._tries[entry.fidelity]
            trie.remove(entry.tokens, sequence)
            if not trie:
                del self._tries[entry.fidelity]

    def trim(self, sequence: bytes, length: int) -> None:
        """Not every stage holds more than the first `length` tokens any more; some still may. Its
        place in the order stays.
        """
        entry = self.entries[sequence]
        if length < len(entry.tokens):
            trie = self._tries[entry.fidelity]
            trie.remove(entry.tokens, sequence)
            entry.surplus += len(entry.tokens) - length
            entry.tokens = entry.tokens[:length]
            trie.add(entry.tokens, sequence)

    def clear(self) -> None:
        self.entries.clear()
        self._tries.clear()

    def match(
        self, fidelity: Fidelity, tokens: Tokens, reach: int | None
    ) -> tuple[Entry, int] | None:
        """The entry with the most of `tokens`, and how many of them a fork may take: never the
        last, because the next token comes from computing it. None when it is not worth it.
        """
        trie = self._tries.get(fidelity)
        for same, sequence in trie.candidates(tokens) if trie else ():
            length = min(same, len(tokens) - 1)
            if length < MIN_REUSE:
                break
            if self.entries[sequence].reaches(length, reach):
                return self.entries[sequence], length
        return None

    def use(self, entry: Entry, now: float) -> None:
        """Something was forked from it."""
        entry.hits += 1
        entry.used = now
        self.entries.move_to_end(entry.sequence)

    def covered_by(self, entry: Entry, reach: int | None) -> list[Entry]:
        """Entries that `entry` can be used instead of."""
        trie = self._tries[entry.fidelity]
        found = [self.entries[s] for s in trie.prefixes(entry.tokens)]
        return [e for e in found if e is not entry and _covers(entry, e, reach)]

    def is_covered(self, entry: Entry, reach: int | None) -> bool:
        """Whether another entry can be used instead."""
        trie = self._tries[entry.fidelity]
        found = (self.entries[s] for s in trie.extensions(entry.tokens))
        return any(e is not entry and _covers(e, entry, reach) for e in found)

    def check_integrity(self) -> None:
        for trie in self._tries.values():
            assert trie, "prefix: a trie without entries"
            trie.check_integrity()
        listed = 0
        for sequence, entry in self.entries.items():
            assert entry.sequence == sequence, "prefix: id"
            assert len(entry.tokens) >= MIN_REUSE, "prefix: too short an entry"
            assert sequence in self._tries[entry.fidelity].prefixes(entry.tokens), "prefix: lost"
            if entry.running is not None:
                assert entry.running.id == sequence, "prefix: another sequence"
                assert entry.running.proven >= len(entry.tokens), "prefix: not held by all"
        for trie in self._tries.values():
            listed += sum(1 for _ in trie.everything())
        assert listed == len(self.entries), "prefix: the trie has others"


def _covers(wide: Entry, narrow: Entry, reach: int | None) -> bool:
    """`wide` has all tokens of `narrow`. It can be cut back to them now, and will be able to: one
    that runs and whose caches cannot go back far will not. One that some stages lack does not stand
    for one that they have.
    """
    if wide.lacking and wide.lacking != narrow.lacking:
        return False
    if reach is None:
        return True
    return wide.running is None and wide.reaches(len(narrow.tokens), reach)
