"""Requests that come together and begin alike: the first one's prompt is computed, and the others
are forked from it rather than compute the same beside it.
"""

from __future__ import annotations

from daemon.scheduler.book import Book
from daemon.scheduler.prefix import PrefixIndex
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.trie import common

MIN_SHARED = 64  # tokens: for fewer nobody waits


class Following:
    def __init__(self, book: Book, index: PrefixIndex) -> None:
        self._book = book
        self._index = index

    def waits(self, sequence: Sequence, reach: int | None) -> bool:
        """Whether one that runs is about to have computed what this one begins with. Caches can be
        cut by `reach` tokens, None: by any number.
        """
        if sequence.leader is None or not self._leads(sequence.leader):
            sequence.leader = self._find(sequence, reach)
        return sequence.leader is not None

    def _leads(self, other: Sequence) -> bool:
        """Its prompt is being computed, and nothing is known that speaks against its end."""
        runs = other.id in self._book.running
        return runs and not other.listed and not other.alone and other.repeats <= 1

    def _find(self, sequence: Sequence, reach: int | None) -> Sequence | None:
        """Whom to wait for. Computed beside the other, what they share would take twice as long:
        who waits for no more than that loses nothing.
        """
        prompt, fidelity = sequence.request.prompt, sequence.request.fidelity
        head = prompt[:MIN_SHARED]
        others = [
            other
            for other in self._book.running.values()
            if other.request.prompt[:MIN_SHARED] == head
            and other.request.fidelity == fidelity
            and self._leads(other)
        ]
        if not others:
            return None
        hit = self._index.match(fidelity, tuple(sequence.history.tokens), reach)
        for other in others:
            shared = min(common(other.request.prompt, prompt, 0), len(sequence.history) - 1)
            saved = shared - (hit[1] if hit else 0)
            soon = other.prompt_length - other.confirmed <= 2 * saved
            forkable = reach is None or other.prompt_length - shared <= reach
            if saved >= MIN_SHARED and soon and forkable:
                return other
        return None
