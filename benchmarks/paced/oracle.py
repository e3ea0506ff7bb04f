"""A draft that knows the answer, and is right as often as it is told to be.

Which guesses are right is fixed beforehand, token by token: so a run can be repeated, and compared
with the best that could have been made of the same guesses.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Any, Self

from daemon.draft.drafter import Guess, Lag
from daemon.history import History
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


@dataclass(slots=True)
class _Entry:
    """`until` is the length up to which guesses are wanted."""

    history: History = field(default_factory=History)
    until: int = 0


class OracleDrafter:
    """In the place of the draft process's Drafter, with its interface: a token more in every step,
    on the assumption that those before it are right, for each sequence that has a script.
    """

    def __init__(self, scripts: Iterable[Script]) -> None:
        self._scripts = tuple(scripts)
        self._entries: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def busy(self) -> bool:
        return any(len(entry.history) < entry.until for entry in self._entries.values())

    def propose(
        self,
        sequence: bytes,
        position: int,
        prefix_hash: int,
        tokens: Tokens[int],
        until: int,
        constants: Mapping[str, Any],
        now: float,
    ) -> Guess | Lag | None:
        entry = self._entries.setdefault(sequence, _Entry())
        history = entry.history
        if position > len(history) or history.hash_at(position) != prefix_hash:
            return Lag(sequence, len(history) if position > len(history) else 0)
        known = position + len(tokens)
        if history.tokens[position:known] != [*tokens]:
            history.trim(position)
            history.extend(tokens)
        entry.until = until if self._script(history) else 0
        ready = tuple(history.tokens[known:until])
        return Guess(sequence, known, history.hash_at(known), ready) if ready else None

    def step(self) -> list[Guess]:
        guesses = []
        for sequence, entry in self._entries.items():
            history, at = entry.history, len(entry.history)
            script = self._script(history)
            if at >= entry.until or script is None:
                continue
            guess = tuple(script.guess(at - len(script.prompt), 1))
            guesses.append(Guess(sequence, at, history.hash_at(at), guess))
            history.extend(guess)
        return guesses

    def expire(self, before: float) -> None:
        """It is asked for a few sequences only."""

    def _script(self, history: History) -> Script | None:
        """Of the request, whose prompt is what it began with."""
        for script in self._scripts:
            if tuple(history.tokens[: len(script.prompt)]) == script.prompt:
                return script
        return None
