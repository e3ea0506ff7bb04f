"""The token history of a sequence, with the hash of every prefix of it.

The hash is polynomial over the prime 2**61 - 1 (Karp and Rabin 1987): appending and cutting cost
one step a token, and two different prefixes of a cluster's life collide with probability below
2**-40. It guards against mistakes, not attackers.
"""

from __future__ import annotations

from collections.abc import Iterable

_PRIME = (1 << 61) - 1
_BASE = 0x1B873593CC9E2D51 % _PRIME
EMPTY_HASH = 0


def roll(before: int, token: int) -> int:
    """The hash of some tokens and one more."""
    return (before * _BASE + token + 1) % _PRIME


class History:
    """Tokens and, for every length n, the hash of the first n of them."""

    __slots__ = ("_hashes", "tokens")

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens: list[int] = []
        self._hashes: list[int] = [EMPTY_HASH]
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def hash_at(self, length: int) -> int:
        """Hash of the first `length` tokens; IndexError when there are fewer."""
        return self._hashes[length]

    def extend(self, tokens: Iterable[int]) -> None:
        h = self._hashes[-1]
        for token in tokens:
            h = roll(h, token)
            self.tokens.append(token)
            self._hashes.append(h)

    def head(self, length: int) -> History:
        """A history of its own of the first `length` tokens."""
        copy = History()
        copy.tokens = self.tokens[:length]
        copy._hashes = self._hashes[: length + 1]
        return copy

    def trim(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        del self.tokens[length:]
        del self._hashes[length + 1 :]

    def check_integrity(self) -> None:
        fresh = History(self.tokens)
        assert fresh._hashes == self._hashes, "history: hashes do not belong to the tokens"
