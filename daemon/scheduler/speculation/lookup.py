"""Guesses from the sequence itself: what followed the last time that its tokens ended like this.

Prompt lookup decoding (Saxena 2023): good at code, quotations, tables and summaries.
"""

from __future__ import annotations

from collections.abc import Sequence

from daemon.scheduler.speculation.acceptance import Acceptance

LONGEST, SHORTEST = 4, 2  # tokens that must agree; one alone is right too seldom
AT_ONCE = 500  # tokens that are read in one call, about a millisecond; a long prompt takes several


class Lookup:
    """An index of the n-grams of one growing sequence. `acceptance` is how often they would have
    been right about its own tokens, whether or not they were asked.
    """

    def __init__(self) -> None:
        self.acceptance = Acceptance()
        self._ends: dict[tuple[int, ...], int] = {}  # n-gram -> place after its last occurrence
        self._seen = 0

    def guess(self, tokens: Sequence[int], assumed: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow `tokens` and what is `assumed` after them. `tokens`
        may only have grown since the last call.
        """
        self._index(tokens)
        tail = [*tokens[-LONGEST:], *assumed][-LONGEST:]
        for n in range(min(LONGEST, len(tail)), SHORTEST - 1, -1):
            place = self._ends.get(tuple(tail[-n:]))
            if place is not None:
                return self._follow(tokens, assumed, place, most)
        return []

    def _index(self, tokens: Sequence[int]) -> None:
        """Up to the last token but one: the end of the sequence must not be found as its own."""
        until = min(len(tokens), self._seen + 1 + AT_ONCE)
        for end in range(self._seen + 1, until):
            longest_first = range(min(LONGEST, end), SHORTEST - 1, -1)
            grams = [tuple(tokens[end - n : end]) for n in longest_first]
            place = next((self._ends[gram] for gram in grams if gram in self._ends), None)
            if place is not None:
                self.acceptance.judge(tokens[place] == tokens[end])
            self._ends.update(dict.fromkeys(grams, end))
        self._seen = max(self._seen, until - 1)

    def _follow(
        self, tokens: Sequence[int], assumed: Sequence[int], place: int, most: int
    ) -> list[int]:
        """The text from `place` on; when it reaches the end of what there is, it repeats."""
        known = len(tokens)
        found: list[int] = []
        for at in range(place, place + most):
            if at < known:
                found.append(tokens[at])
            elif at - known < len(assumed):
                found.append(assumed[at - known])
            else:
                found.append(found[at - known - len(assumed)])
        return found
