"""One client's request while it runs: from tokens to text, and when it goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.coordinator.answer import Answer
from daemon.coordinator.journalled import Journalled
from daemon.coordinator.models import ServedModel
from daemon.coordinator.running_turn import RunningTurn
from daemon.coordinator.stop import StopMatcher
from daemon.coordinator.tokenizer import Detokenizer

KEPT_GAPS = 64


@dataclass(slots=True)
class Stream:
    """Times are of the coordinator's clock.

    record   what is written down of it, its tokens among that
    answer   where it goes; None while nobody listens
    told     tokens that its client has
    heard_at when its client last said something, or went
    pieces   the text that each token made visible: always the same for the same tokens
    gaps     the latest times between two deliveries, in seconds
    """

    record: Journalled
    detokenizer: Detokenizer
    stops: StopMatcher
    began: float
    heard_at: float
    answer: Answer | None = None
    told: int = 0
    pieces: list[str] = field(default_factory=list)
    first_at: float | None = None
    last_at: float | None = None
    stopped: bool = False
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_GAPS))

    @classmethod
    def of(cls, record: Journalled, model: ServedModel, began: float, now: float) -> Stream:
        """As the record has it: the text of its tokens is made again. Raises as `take` does."""
        detokenizer = model.tokenizer.detokenizer(continues=record.continues)
        stream = cls(record, detokenizer, StopMatcher(record.stop), began, now)
        if record.ttft is not None:
            stream.first_at = began + record.ttft
        if record.turn:
            record.turn.reply, record.turn.shown = [], ""
        stream._show(record.tokens)
        return stream

    @property
    def sequence(self) -> bytes:
        return self.record.sequence

    @property
    def turn(self) -> RunningTurn | None:
        """When it is one of a conversation."""
        return self.record.turn

    def take(self, tokens: Sequence[int], logprobs: Sequence[Any], now: float) -> int:
        """How many of these tokens are the answer's: after it `stopped` says whether a stop string
        was met, and then what comes after it is not. LookupError, ValueError or OverflowError for a
        token without text.
        """
        try:
            used = self._show(tokens)
        except (LookupError, ValueError, OverflowError):
            del self.pieces[len(self.record.tokens) :]
            raise
        self.record.tokens += tokens[:used]
        self.record.logprobs += logprobs[:used]
        if used:
            if self.last_at is not None:
                self.gaps.append(now - self.last_at)
            self.last_at = now
            self.first_at = now if self.first_at is None else self.first_at
            self.record.ttft = self.first_at - self.began
        return used

    def _show(self, tokens: Sequence[int]) -> int:
        used, shown = 0, ""
        for token in () if self.stopped else tokens:
            self.detokenizer.add_token(token)
            piece, self.stopped = self.stops.push(self.detokenizer.last_segment)
            self.pieces.append(piece)
            shown += piece
            used += 1
            if self.stopped:
                break
        if self.turn:
            self.turn.take(tokens[:used], shown)
        return used

    def news(self) -> dict[str, Any] | None:
        """What its client does not have; it has it then. None when there is nothing. A client may
        have more than is known here, after a machine's failure: it is the same again.
        """
        first, self.told = self.told, max(self.told, len(self.pieces))
        if first >= len(self.pieces):
            return None
        asked = self.record.request.params.logprobs is not None
        return {
            "text": "".join(self.pieces[first:]),
            "tokens": self.record.tokens[first:],
            "logprobs": self.record.logprobs[first:] if asked else None,
        }

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

    def head(self, cached_tokens: int | None) -> dict[str, Any]:
        """The first word to a client."""
        request, turn = self.record.request, self.turn
        return {
            "sequence": self.sequence.hex(),
            "prompt_tokens": len(request.prompt),
            "cached_tokens": cached_tokens,
            "seed": request.params.seed,
            "conversation": turn.name if turn else None,
            "turn": turn.turns if turn else None,
        }

    def summary(self, now: float, reissues: int, cached_tokens: int) -> dict[str, Any]:
        """The numbers of the reply to `generate`."""
        prompt, tokens = len(self.record.request.prompt), len(self.record.tokens)
        ttft = None if self.first_at is None else self.first_at - self.began
        decoding = (self.last_at or 0.0) - (self.first_at or 0.0)
        return {
            "sequence": self.sequence.hex(),
            "prompt_tokens": prompt,
            "cached_tokens": cached_tokens,
            "output_tokens": tokens,
            "ttft": ttft,
            "duration": now - self.began,
            "tokens_per_second": (tokens - 1) / decoding if decoding > 0 else None,
            "prompt_tokens_per_second": prompt / ttft if ttft else None,
            "reissues": reissues,
        }
