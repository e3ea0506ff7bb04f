"""A draft that knows the answer, and is right as often as it is told to be.

Which guesses are right is fixed beforehand, token by token: so a run can be repeated, and compared
with the best that could have been made of the same guesses.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from daemon.scheduler.sequence import Sequence


def trace(acceptance: float, tokens: int, seed: int = 0) -> tuple[bool, ...]:
    """Whether the guess of each token of an answer is right: of exactly this share, at random."""
    right = [place < round(acceptance * tokens) for place in range(tokens)]
    random.Random(seed).shuffle(right)
    return tuple(right)


@dataclass(frozen=True, slots=True)
class Script:
    """The tokens that answer one prompt, and which of them are guessed right."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    right: tuple[bool, ...]

    def guess(self, at: int, most: int) -> list[int]:
        """Up to `most` tokens of the answer, from number `at` on."""
        until = at + max(0, most)
        known = zip(self.answer[at:until], self.right[at:until], strict=True)
        return [token if right else token ^ 1 for token, right in known]

    def to_json(self) -> list[list[int]]:
        return [list(self.prompt), list(self.answer), list(map(int, self.right))]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        prompt, answer, right = data
        return cls(tuple(prompt), tuple(answer), tuple(map(bool, right)))


class Oracle:
    """The scheduler's Guesser for requests that have a script; others are not guessed at all."""

    def __init__(self, scripts: Iterable[Script]) -> None:
        self._scripts: Mapping[tuple[int, ...], Script] = {s.prompt: s for s in scripts}

    def guess(self, sequence: Sequence, most: int) -> list[int]:
        script = self._scripts.get(sequence.request.prompt)
        if script is None:
            return []
        at = len(sequence.history) + len(sequence.guesses) - sequence.prompt_length
        return script.guess(at, most)
