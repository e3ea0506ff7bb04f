"""How large a frame may be. Both ends of a link use the same limits, made from the model."""

from __future__ import annotations

from dataclasses import dataclass

HEADER_BYTES = 56
SPAN_BYTES = 40
TOKEN_BYTES = 4
COMMAND_BYTES = 44
DEPARTURE_BYTES = 28
TRACE_BYTES = 36
TENSOR_BYTES = 20
CRC_BYTES = 4
MAX_RANK = 4


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Upper bounds that a frame is checked against before anything is allocated for it.

    `max_records` bounds each of commands, departures and traces. With `vocab`, token ids must lie
    below it.
    """

    max_tensor_bytes: int
    max_tokens: int = 8192
    max_spans: int = 256
    max_records: int = 1024
    max_meta_bytes: int = 1 << 18
    max_tensors: int = 8
    vocab: int | None = None

    @classmethod
    def for_model(
        cls, row_bytes: int, chunk_tokens: int, vocab: int | None = None, max_spans: int = 256
    ) -> FrameLimits:
        """Limits for rows of at most `row_bytes` (the widest type a hop may carry) and prefill
        chunks of at most `chunk_tokens`."""
        tokens = max(chunk_tokens, max_spans)
        return cls(
            max_tensor_bytes=row_bytes * tokens,
            max_tokens=tokens,
            max_spans=max_spans,
            vocab=vocab,
        )

    @property
    def max_head_bytes(self) -> int:
        """The longest legal part 0."""
        return (
            HEADER_BYTES
            + self.max_spans * SPAN_BYTES
            + self.max_tokens * TOKEN_BYTES
            + self.max_records * (COMMAND_BYTES + DEPARTURE_BYTES + TRACE_BYTES)
            + self.max_tensors * TENSOR_BYTES
            + self.max_meta_bytes
            + CRC_BYTES
        )

    @property
    def max_part_bytes(self) -> int:
        """The longest legal part of any kind: what ZeroMQ's MAXMSGSIZE is set to."""
        return max(self.max_head_bytes, self.max_tensor_bytes)
