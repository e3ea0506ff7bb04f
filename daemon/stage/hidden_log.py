"""The hidden states that a stage has sent on, kept as they were written on the wire: from them the
stage after it is refilled when it has lost its caches, without running any stage before it
(DESIGN.md §9).

What is kept of a sequence belongs to its cache: it is cut, forked and forgotten with it, and never
has more rows than that has positions. It starts at position 0 and has no hole; what cannot be so is
not kept. Rows live in pieces that never change, so that forks share them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate

from transports.frame import DType, Span, Tensor
from transports.records import Buffer, payload

PIECE_ROWS = 64  # of a chunk of a prompt: what is cut off is copied, never more than that
PIECE_BYTES = 96  # of the interpreter, about, for each piece beside its rows


@dataclass(slots=True)
class _Rows:
    """Of one sequence: `ends` are the positions after each piece."""

    dtype: DType
    shape: tuple[int, ...]  # of a row
    row_bytes: int
    pieces: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def nbytes(self) -> int:
        return self.end * self.row_bytes + len(self.pieces) * PIECE_BYTES

    def append(self, data: Buffer) -> None:
        for start in range(0, len(data), PIECE_ROWS * self.row_bytes):
            piece = bytes(data[start : start + PIECE_ROWS * self.row_bytes])
            self.ends.append(self.end + len(piece) // self.row_bytes)
            self.pieces.append(piece)

    def trim(self, length: int) -> None:
        if length >= self.end:
            return
        whole = bisect_right(self.ends, length)
        start = self.ends[whole - 1] if whole else 0
        part = self.pieces[whole][: (length - start) * self.row_bytes]
        del self.pieces[whole:], self.ends[whole:]
        self.append(part)

    def between(self, start: int, end: int) -> bytes:
        parts = []
        for index in range(bisect_right(self.ends, start), bisect_left(self.ends, end) + 1):
            first = self.ends[index - 1] if index else 0
            low, high = max(start - first, 0), min(end, self.ends[index]) - first
            parts.append(self.pieces[index][low * self.row_bytes : high * self.row_bytes])
        return b"".join(parts)

    def head(self, length: int) -> _Rows:
        """The first rows, in lists of its own."""
        copy = replace(self, pieces=list(self.pieces), ends=list(self.ends))
        copy.trim(length)
        return copy


class HiddenLog:
    """For one thread. Over `budget_bytes` those go that were not added to for longest; what two
    forks share counts for both. 0 keeps nothing.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._rows: OrderedDict[bytes, _Rows] = OrderedDict()  # in the order of their last use
        self.nbytes = 0

    @property
    def keeps(self) -> bool:
        return self.budget_bytes > 0

    @property
    def lengths(self) -> Mapping[bytes, int]:
        """Positions kept, by sequence."""
        return {sequence: rows.end for sequence, rows in self._rows.items()}

    def bytes_of(self, sequence: bytes) -> int:
        """What is kept of it takes."""
        rows = self._rows.get(sequence)
        return rows.nbytes if rows else 0

    def keep(self, spans: Iterable[Span], tensors: Iterable[Tensor]) -> None:
        """What was sent of these spans, whose rows stand in the tensors one after another, in place
        of whatever was from where each begins. Rows are copied.
        """
        if not self.keeps:
            return
        following = iter(spans)
        for tensor in tensors:
            rows, data, first = tensor.shape[0], payload(tensor), 0
            size = len(data) // rows
            while first < rows:
                span = next(following)
                part = data[first * size : (first + span.length) * size]
                self._append(span, _Rows(tensor.dtype, tensor.shape[1:], size), part)
                first += span.length

    def _append(self, span: Span, like: _Rows, data: Buffer) -> None:
        rows = self._rows.pop(span.sequence, None)
        if rows is None:
            rows = like
        else:
            self.nbytes -= rows.nbytes
        if rows.end < span.position or (rows.dtype, rows.shape) != (like.dtype, like.shape):
            return  # a hole: all of it is of no use
        rows.trim(span.position)
        rows.append(data)
        self._enter(span.sequence, rows)

    def trim(self, sequence: bytes, length: int) -> None:
        """The cache was cut to so many positions."""
        if (rows := self._rows.get(sequence)) is None:
            return
        if not length:
            return self.forget(sequence)
        self.nbytes -= rows.nbytes
        rows.trim(length)
        self.nbytes += rows.nbytes

    def fork(self, source: bytes, target: bytes, length: int) -> None:
        """`target` has the first `length` positions of `source`, and nothing else."""
        self.forget(target)
        rows = self._rows.get(source)
        if rows is not None and rows.end >= length:
            self._enter(target, rows.head(length))

    def forget(self, sequence: bytes) -> None:
        if (rows := self._rows.pop(sequence, None)) is not None:
            self.nbytes -= rows.nbytes

    def retain(self, sequences: Container[bytes]) -> None:
        """Forget all others."""
        for sequence in [s for s in self._rows if s not in sequences]:
            self.forget(sequence)

    def rows(self, sequence: bytes, start: int, end: int) -> Tensor | None:
        """Those of positions [start, end), as they were sent; None unless all are kept."""
        rows = self._rows.get(sequence)
        if rows is None or rows.end < end:
            return None
        return Tensor(rows.dtype, (end - start, *rows.shape), rows.between(start, end))

    def _enter(self, sequence: bytes, rows: _Rows) -> None:
        """As the one that was used last."""
        self._rows[sequence] = rows
        self.nbytes += rows.nbytes
        while self.nbytes > self.budget_bytes:
            self.forget(next(iter(self._rows)))

    def check_integrity(self) -> None:
        assert self.nbytes == sum(rows.nbytes for rows in self._rows.values()), "log: bytes"
        assert self.nbytes <= self.budget_bytes, "log: over its budget"
        for rows in self._rows.values():
            counts = [len(piece) // rows.row_bytes for piece in rows.pieces]
            assert list(accumulate(counts)) == rows.ends, "log: pieces are not as long as it says"
            assert 0 not in counts, "log: an empty piece"
