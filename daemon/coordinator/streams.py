"""The requests of clients that have begun: what they are told, to the last piece of text."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from daemon.coordinator.answer import EXIT_FAILED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.stream import Stream
from daemon.scheduler import actions as sc
from daemon.scheduler import request as rq

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

SILENT_SECONDS = 10.0  # after which a client that waits for tokens is taken for gone
RATE_SECONDS = 5.0  # over which tokens per second are counted


class Streams:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._streams: dict[bytes, Stream] = {}  # by sequence
        self._waiting: str | None = None
        self._delivered: deque[tuple[float, int]] = deque()

    # --- verbs ---

    def alive(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """A waiting client says that it is still there, and hears that so are we: its stream may
        be silent for long while a stage computes a prompt, or comes back.
        """
        now = time.monotonic()
        for stream in self._streams.values():
            if stream.answer.client == answer.client:
                stream.alive_at = now
        answer.reply({})

    def cancel(self, answer: Answer, arguments: dict[str, Any]) -> None:
        wanted = typed(arguments, "sequence", str, None)
        if not wanted:
            raise BadArguments("which sequence? give its id, the beginning of it, or 'all'")
        known = self._known()
        found = known if wanted == "all" else [s for s in known if s.hex().startswith(wanted)]
        if not found and wanted != "all":
            what, why = f"no sequence {wanted}", "it has ended, or never was"
            raise Refusal(EXIT_FAILED, what, why, "see `shardctl ps`")
        if len(found) > 1 and wanted != "all":
            raise BadArguments(f"{wanted} is the beginning of {len(found)} sequences")
        for sequence in found:
            self._cancel(sequence)
        answer.reply({"cancelled": [s.hex() for s in found]})

    def _known(self) -> list[bytes]:
        """Those that run, and those that wait for whatever."""
        scheduled = [s.id for s in self._of.scheduler.sequences()]
        return [*scheduled, *self._of.clients.intake.waiting]

    def _cancel(self, sequence: bytes) -> None:
        if self._of.clients.intake.drop(sequence):
            self._ended(self._streams.pop(sequence), rq.FinishReason.CANCELLED)
        else:
            self._of.perform(self._of.scheduler.cancel(sequence, time.monotonic()))

    def cancel_all(self) -> None:
        for sequence in self._known():
            self._cancel(sequence)

    # --- what happens to a stream ---

    def begin(self, stream: Stream, seed: int | None) -> None:
        """It is taken: its client hears what it is called, once."""
        if stream.sequence in self._streams:
            return
        self._streams[stream.sequence] = stream
        turn = stream.turn
        head = {
            "sequence": stream.sequence.hex(),
            "prompt_tokens": stream.prompt_tokens,
            "cached_tokens": self._of.scheduler.cached_tokens(stream.sequence),
            "seed": seed,
            "conversation": turn.name if turn else None,
            "turn": turn.turns if turn else None,
        }
        self._tell(stream, head)
        if self._waiting:
            self._tell(stream, {"waiting": self._waiting})

    def refuse(self, stream: Stream, refusal: Refusal) -> None:
        """It cannot be computed, whether it has begun or not."""
        self._streams.pop(stream.sequence, None)
        self._turn_failed(stream)
        stream.answer.refuse(refusal)

    def _tell(self, stream: Stream, data: dict[str, Any]) -> None:
        if not stream.answer.chunk(data):
            self._gone(stream, "its client is gone")

    def _gone(self, stream: Stream, why: str) -> None:
        if self._streams.pop(stream.sequence, None):
            self._of.note("cancelled", "", f"{stream.sequence.hex()[:8]}: {why}")
            stream.rest()
            self._turn_ended(stream, rq.FinishReason.CANCELLED)
            if not self._of.clients.intake.drop(stream.sequence):
                self._of.perform(self._of.scheduler.cancel(stream.sequence, time.monotonic()))

    def waiting(self, why: str | None) -> None:
        """The pipeline went down, or (None) is up again."""
        self._waiting = why
        if why:
            for stream in list(self._streams.values()):
                self._tell(stream, {"waiting": why})

    def deliver(self, action: sc.Deliver) -> None:
        now = time.monotonic()
        stream = self._streams.get(action.sequence)
        if stream is None:
            return
        try:
            text, used = stream.take(action.tokens, now)
        except (LookupError, ValueError, OverflowError) as error:
            # A model's vocabulary may be padded: such a token has no text.
            self._without_text(stream, action.tokens, error)
            return
        self._delivered.append((now, used))
        logprobs = list(action.logprobs[:used]) if action.logprobs is not None else None
        tokens = list(action.tokens[:used])
        self._tell(stream, {"text": text, "tokens": tokens, "logprobs": logprobs})
        if stream.stopped:
            ended = self._of.scheduler.finish(action.sequence, rq.FinishReason.STOP, now)
            self._of.perform(ended)

    def _without_text(self, stream: Stream, tokens: tuple[int, ...], error: Exception) -> None:
        del self._streams[stream.sequence]
        self._turn_failed(stream)
        what, why = "the model gave a token without text", f"one of {list(tokens)}: {error!r}"
        stream.answer.fail(EXIT_FAILED, what, why, "do not bias tokens outside the vocabulary")
        self._of.perform(self._of.scheduler.cancel(stream.sequence, time.monotonic()))

    def finished(self, action: sc.Finished) -> None:
        stream = self._streams.pop(action.sequence, None)
        if stream is None:
            return
        if action.reason in (rq.FinishReason.FAILED, rq.FinishReason.CONTEXT):
            self._turn_failed(stream)
            todo = "shardctl logs NODE; then ask again"
            stream.answer.fail(EXIT_FAILED, "the request failed", action.error, todo)
            return
        usage = action.usage
        self._ended(stream, action.reason, action.error, usage.reissues, usage.cached_tokens)

    def _ended(
        self,
        stream: Stream,
        reason: rq.FinishReason,
        error: str = "",
        reissues: int = 0,
        cached_tokens: int = 0,
    ) -> None:
        summary = stream.summary(time.monotonic(), reissues, cached_tokens)
        ending = {
            "text": stream.rest(),
            "finish_reason": reason.value,
            "error": error or None,
        }
        self._turn_ended(stream, reason)
        stream.answer.reply(summary | ending)

    def _turn_ended(self, stream: Stream, reason: rq.FinishReason) -> None:
        """The conversation goes on from what the client was given. Cancelled before there was
        anything, it is what it was.
        """
        turn, conversations = stream.turn, self._of.clients.conversations
        if turn and (turn.reply or reason is not rq.FinishReason.CANCELLED):
            conversations.ended(turn, stream.sequence, stream.stopped)
        elif turn:
            conversations.left(turn.name)

    def _turn_failed(self, stream: Stream) -> None:
        if stream.turn:
            self._of.clients.conversations.left(stream.turn.name)

    def tick(self, now: float) -> None:
        for stream in [s for s in self._streams.values() if now - s.alive_at > SILENT_SECONDS]:
            self._gone(stream, "its client is silent")

    def rate(self, now: float) -> float:
        """Tokens per second of all streams together."""
        while self._delivered and now - self._delivered[0][0] > RATE_SECONDS:
            self._delivered.popleft()
        return sum(count for _, count in self._delivered) / RATE_SECONDS

    def close(self) -> None:
        for stream in self._streams.values():
            what, why = "the coordinator has stopped", "it was asked to"
            stream.answer.fail(EXIT_FAILED, what, why, "start it, then ask again")
