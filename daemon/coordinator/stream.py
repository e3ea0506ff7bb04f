"""One client's request while it runs: from tokens to text, and when it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.coordinator.answer import Answer
from daemon.coordinator.running_turn import RunningTurn
from daemon.coordinator.stop import StopMatcher
from daemon.coordinator.tokenizer import Detokenizer


@dataclass(slots=True)
class Stream:
    """Times are of the coordinator's clock. `turn` when it is one of a conversation."""

    answer: Answer
    sequence: bytes
    prompt_tokens: int
    detokenizer: Detokenizer
    stops: StopMatcher
    began: float
    alive_at: float
    turn: RunningTurn | None = None
    first_at: float | None = None
    last_at: float | None = None
    tokens: int = 0
    stopped: bool = False

    def take(self, tokens: Sequence[int], now: float) -> tuple[str, int]:
        """The text that these tokens make visible, and how many of them are the answer's: after it
        `stopped` says whether a stop string was met, and then what comes after it is not.
        """
        self.first_at = now if self.first_at is None else self.first_at
        self.last_at = now
        shown, used = "", 0
        for token in tokens:
            used += 1
            self.detokenizer.add_token(token)
            piece, self.stopped = self.stops.push(self.detokenizer.last_segment)
            shown += piece
            if self.stopped:
                break
        self.tokens += used
        if self.turn:
            self.turn.take(tokens[:used], shown)
        return shown, used

    def rest(self) -> str:
        """The stream has ended: what was still held back."""
        if self.stopped:
            return ""
        self.detokenizer.finalize()
        piece, self.stopped = self.stops.push(self.detokenizer.last_segment)
        shown = piece if self.stopped else piece + self.stops.flush()
        if self.turn:
            self.turn.take((), shown)
        return shown

    def summary(self, now: float, reissues: int, cached_tokens: int) -> dict[str, Any]:
        """The numbers of the reply to `generate`."""
        ttft = None if self.first_at is None else self.first_at - self.began
        decoding = (self.last_at or 0.0) - (self.first_at or 0.0)
        return {
            "sequence": self.sequence.hex(),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": cached_tokens,
            "output_tokens": self.tokens,
            "ttft": ttft,
            "duration": now - self.began,
            "tokens_per_second": (self.tokens - 1) / decoding if decoding > 0 else None,
            "prompt_tokens_per_second": self.prompt_tokens / ttft if ttft else None,
            "reissues": reissues,
        }
