"""The layers of a stage over rows of sequences: in one forward where the model takes them together,
else in one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from daemon import logs
from daemon.batching import MOST_TOGETHER, Batching
from daemon.engine.caches import CachePlan, SequenceCache
from daemon.engine.interception import PartialModel
from daemon.engine.model import ModelInfo
from daemon.sampling import SamplingParams

log = logs.get("engine")

_MOST_PADDING = 2  # filled-up keys take so many times what is held at most


@dataclass(slots=True)
class Row:
    """One sequence's part of a microbatch.

    `tokens` are the new ids; the cache holds everything before them. `history` are all ids of the
    sequence up to and including these (only the last stage looks at it). `outputs` tokens are
    chosen, after the last positions of the row.
    """

    cache: SequenceCache
    tokens: Sequence[int]
    history: Sequence[int]
    outputs: int
    params: SamplingParams


class Forward:
    """`batching` is the most that the model can be given at once."""

    def __init__(
        self, partial: PartialModel, plan: CachePlan, info: ModelInfo, is_first: bool
    ) -> None:
        """`is_first`: from ids, not from hidden states."""
        self._partial = partial
        self._plan = plan
        self.batching = self._find_batching(info, is_first)

    def run(self, rows: Sequence[Row], entering: mx.array | None) -> mx.array:
        """Hidden states [tokens, hidden_size], not evaluated; the caches have what they need of
        them. `entering` are such, or None on the first stage.
        """
        lengths = [len(row.tokens) for row in rows]
        if self._fit_together(rows, lengths):
            return self._together(rows, lengths, entering, self.batching)
        return self._alone(rows, lengths, entering)

    def _find_batching(self, info: ModelInfo, is_first: bool) -> Batching:
        """Found out on graphs that are never evaluated."""
        for batching, lengths in (
            (Batching.SPANS, (2, 1)),
            (Batching.STEPS, (1, 1)),
            (Batching.PADDED, (1, 1)),
        ):
            rows = [Row(self._plan.new(), (0,) * n, (), 0, SamplingParams()) for n in lengths]
            if batching is Batching.SPANS and rows[0].cache.states:
                continue
            hidden = None if is_first else blank(info, sum(lengths))
            try:
                self._together(rows, lengths, hidden, batching)
            except (TypeError, AttributeError, ValueError, IndexError) as error:
                log.debug("%s takes no %s: %s", info.name, batching.value, error)
                continue
            return batching
        return Batching.ALONE

    def _fit_together(self, rows: Sequence[Row], lengths: Sequence[int]) -> bool:
        if len(rows) == 1 or self.batching is Batching.ALONE:
            return False
        if any(row.cache.states and not row.cache.length for row in rows):
            return False  # it has no state yet that could stand beside the others'
        if self.batching is Batching.PADDED:
            held = [row.cache.length for row in rows]
            if len(rows) * max(held) > _MOST_PADDING * sum(held):
                return False  # one long sequence among short ones would fill memory with zeros
        return max(lengths) <= (MOST_TOGETHER if self.batching is Batching.SPANS else 1)

    def _together(
        self,
        rows: Sequence[Row],
        lengths: Sequence[int],
        entering: mx.array | None,
        batching: Batching,
    ) -> mx.array:
        """One forward for all rows: hidden states [tokens, hidden_size], not evaluated."""
        tokens = mx.array([token for row in rows for token in row.tokens], mx.int32)[:, None]
        for row in rows:
            row.cache.begin()
        padded = batching is Batching.PADDED
        entries = self._plan.together([row.cache for row in rows], lengths, padded)
        hidden = None if entering is None else entering[:, None]
        leaving = self._partial.body(tokens, entries, hidden)
        for row, n in zip(rows, lengths, strict=True):
            row.cache.advance(n)
        return leaving[:, 0]

    def _alone(
        self, rows: Sequence[Row], lengths: Sequence[int], entering: mx.array | None
    ) -> mx.array:
        """One forward for each row; the same result."""
        parts = []
        start = 0
        for row, n in zip(rows, lengths, strict=True):
            tokens = mx.array([row.tokens], mx.int32)
            hidden = None if entering is None else entering[None, start : start + n]
            row.cache.begin()
            parts.append(self._partial.body(tokens, row.cache.entries, hidden)[0])
            row.cache.advance(n)
            start += n
        return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def blank(info: ModelInfo, n: int) -> mx.array:
    """Hidden states of `n` tokens."""
    return mx.zeros((n, info.hidden_size), getattr(mx, info.dtype))
