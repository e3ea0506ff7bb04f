"""Tokens that are assumed to follow a history."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from daemon.history import roll


class Guesses:
    """The oldest first, each with the hash of everything up to it."""

    def __init__(self) -> None:
        self.tokens: deque[int] = deque()
        self._hashes: deque[int] = deque()

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, base_hash: int, tokens: Iterable[int]) -> None:
        """`base_hash` is that of the history; it counts while there are no guesses."""
        h = self._hashes[-1] if self._hashes else base_hash
        for token in tokens:
            h = roll(h, token)
            self.tokens.append(token)
            self._hashes.append(h)

    def hash_at(self, count: int) -> int:
        """Hash of the history and the first `count` guesses, at least one."""
        return self._hashes[count - 1]

    def matches(self, token: int) -> bool:
        """The history has grown by `token`: whether that is the first guess, which it takes out."""
        self._hashes.popleft()
        return self.tokens.popleft() == token

    def clear(self) -> None:
        self.tokens.clear()
        self._hashes.clear()

    def check_integrity(self, base_hash: int) -> None:
        fresh = Guesses()
        fresh.extend(base_hash, self.tokens)
        assert fresh._hashes == self._hashes, "guesses: hashes do not follow from the history"
