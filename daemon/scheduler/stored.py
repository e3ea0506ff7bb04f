"""What the nodes have saved on their disks, as they have told: found by tokens, from pieces that
together have every layer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from daemon.fidelity import Fidelity

MIN_STORED = 64  # tokens: fewer are computed again sooner than they are read and installed
MOST_STORED = 4096  # entries: every lookup walks through them, and each has its tokens in memory


@dataclass(frozen=True, slots=True)
class Told:
    """One file of one node: layers [start, end) of an entry. `tokens` are packed by `pack`; `used`
    is Unix time.
    """

    entry: str
    fidelity: Fidelity
    tokens: bytes
    token_hash: int
    start: int
    end: int
    nbytes: int
    used: float


@dataclass(frozen=True, slots=True)
class Piece:
    """Layers [start, end), saved by `node`."""

    node: str
    start: int
    end: int


@dataclass(slots=True)
class Stored:
    """An entry, wherever its pieces are."""

    entry: str
    fidelity: Fidelity
    tokens: bytes
    token_hash: int
    used: float
    pieces: dict[Piece, int] = field(default_factory=dict)  # with their bytes

    @property
    def length(self) -> int:
        return len(self.tokens) // 4

    @property
    def nbytes(self) -> int:
        return sum(self.pieces.values())

    def covers(self, layers: int) -> bool:
        """Whether every layer of a model of so many is in some piece."""
        reached = 0
        for piece in sorted(self.pieces, key=lambda piece: piece.start):
            if piece.start > reached:
                return False
            reached = max(reached, piece.end)
        return reached >= layers


class StoredIndex:
    """Of one model: the caller clears it when another is loaded. Of more than `most` entries those
    that were used last are known.
    """

    def __init__(self, most: int = MOST_STORED) -> None:
        self.entries: dict[str, Stored] = {}
        self._most = most

    def told(self, node: str, files: Iterable[Told]) -> None:
        """All that the node has: what it does not name, it has not any more."""
        self.gone(node)
        for file in files:
            self._enter(node, file)
        self._bound()

    def saved(self, node: str, file: Told) -> None:
        """The node has this file too."""
        self._enter(node, file)
        self._bound()

    def gone(self, node: str) -> None:
        """What it has cannot be read now."""
        for stored in list(self.entries.values()):
            for piece in [piece for piece in stored.pieces if piece.node == node]:
                del stored.pieces[piece]
            if not stored.pieces:
                del self.entries[stored.entry]

    def drop(self, entry: str) -> None:
        self.entries.pop(entry, None)

    def clear(self) -> None:
        self.entries.clear()

    def match(
        self, fidelity: Fidelity, tokens: Sequence[int], layers: int, reach: int | None
    ) -> tuple[Stored, int] | None:
        """The entry with the most of `tokens`, and how many of them: never the last, because the
        next token comes from computing it. Caches can be cut by `reach` tokens, None: by any
        number. None when it is not worth it.
        """
        packed = pack(tokens[:-1])
        found: Stored | None = None
        longest = MIN_STORED - 1
        for stored in self.entries.values():
            # Most are other texts: what decides is whether they agree up to where they must.
            least = 4 * (longest + 1)
            if stored.fidelity != fidelity or stored.tokens[:least] != packed[:least]:
                continue
            length = common(stored.tokens, packed)
            if reach is not None and stored.length - length > reach:
                continue
            if length > longest and stored.covers(layers):
                found, longest = stored, length
        return (found, longest) if found else None

    def prefixes(self, of: Stored) -> list[Stored]:
        """Other entries whose tokens are the first ones of this one."""
        return [
            stored
            for stored in self.entries.values()
            if stored is not of
            and stored.fidelity == of.fidelity
            and of.tokens.startswith(stored.tokens)
        ]

    def _enter(self, node: str, file: Told) -> None:
        stored = self.entries.setdefault(
            file.entry, Stored(file.entry, file.fidelity, file.tokens, file.token_hash, file.used)
        )
        stored.used = max(stored.used, file.used)
        stored.pieces[Piece(node, file.start, file.end)] = file.nbytes

    def _bound(self) -> None:
        if (more := len(self.entries) - self._most) > 0:
            oldest = sorted(self.entries.values(), key=lambda stored: stored.used)
            for stored in oldest[:more]:
                self.drop(stored.entry)

    def check_integrity(self) -> None:
        assert len(self.entries) <= self._most, "stored: unbounded"
        for entry, stored in self.entries.items():
            assert stored.entry == entry, "stored: id"
            assert stored.pieces, "stored: nowhere"
            assert len(stored.tokens) % 4 == 0, "stored: half a token"


def pack(tokens: Sequence[int]) -> bytes:
    """Token ids as int32, little-endian."""
    return struct.pack(f"<{len(tokens)}i", *tokens)


def unpack(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 4}i", packed)


def common(one: bytes, other: bytes) -> int:
    """How many packed tokens two histories begin with in common."""
    low, high = 0, min(len(one), len(other)) // 4
    while low < high:
        middle = (low + high + 1) // 2
        if one[4 * low : 4 * middle] == other[4 * low : 4 * middle]:
            low = middle
        else:
            high = middle - 1
    return low
