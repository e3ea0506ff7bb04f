"""The requests of clients that have begun: what they are told, to the last piece of text."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from daemon.coordinator.answer import EXIT_FAILED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.endings import Endings
from daemon.coordinator.gaps import GapWatch
from daemon.coordinator.journal import Delivery
from daemon.coordinator.journalled import End
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
        self.watch: GapWatch | None = None  # while somebody wants to know how long clients wait
        self._patience = coordinator.config.timeouts.resume_s
        self.endings = Endings(coordinator.journal, self._patience)

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self._streams

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._streams)

    # --- verbs ---

    def alive(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """A waiting client says that it is still there, and hears that so are we: its stream may
        be silent for long while a stage computes a prompt, or comes back.
        """
        now = time.monotonic()
        for stream in self._streams.values():
            if stream.answer and stream.answer.client == answer.client:
                stream.heard_at = now
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
            self.ended(self._streams.pop(sequence), rq.FinishReason.CANCELLED)
        else:
            self._of.perform(self._of.scheduler.cancel(sequence, time.monotonic()))

    def cancel_all(self) -> None:
        for sequence in self._known():
            self._cancel(sequence)

    # --- what happens to a stream ---

    def begin(self, stream: Stream) -> None:
        """It is taken: its client hears what it is called, once."""
        if stream.sequence in self._streams:
            return
        self.adopt(stream)
        self._of.journal.begin(stream.record)
        self._greet(stream)

    def adopt(self, stream: Stream) -> None:
        """It goes on; who listens, if anybody, knows of it."""
        self._streams[stream.sequence] = stream

    def attach(self, sequence: bytes, answer: Answer, tokens: int) -> None:
        """A client that has so many tokens of it takes the place of the one before."""
        stream = self._streams[sequence]
        if stream.answer:
            taken_over(stream.answer)
        stream.answer, stream.told, stream.heard_at = answer, tokens, time.monotonic()
        self._greet(stream)
        if news := stream.news():
            self._tell(stream, news)

    def _greet(self, stream: Stream) -> None:
        self._tell(stream, stream.head(self._of.scheduler.cached_tokens(stream.sequence)))
        if self._waiting:
            self._tell(stream, {"waiting": self._waiting})

    def refuse(self, stream: Stream, refusal: Refusal) -> None:
        """It cannot be computed, whether it has begun or not."""
        begun = self._streams.pop(stream.sequence, None)
        self._turn_failed(stream)
        failure = refusal.code, refusal.what, refusal.why, refusal.todo
        if begun:
            self._close(stream, End(None, failure))
        elif stream.answer:
            stream.answer.fail(*failure)

    def _tell(self, stream: Stream, data: dict[str, Any]) -> None:
        if stream.answer and not stream.answer.chunk(data):
            self._lost(stream, "its client is gone")

    def _lost(self, stream: Stream, why: str) -> None:
        """Nobody listens: it goes on for a while, as its client may come back."""
        stream.answer, stream.heard_at = None, time.monotonic()
        name = stream.sequence.hex()[:8]
        self._of.note("unheard", "", f"{name}: {why}; cancelled in {self._patience:g} s")

    def _gone(self, stream: Stream) -> None:
        self._of.note("cancelled", "", f"{stream.sequence.hex()[:8]}: nobody came back for it")
        self._cancel(stream.sequence)

    def waiting(self, why: str | None) -> None:
        """The pipeline went down, or (None) is up again."""
        self._waiting = why
        if why:
            for stream in list(self._streams.values()):
                self._tell(stream, {"waiting": why})

    def deliver(self, actions: Sequence[sc.Deliver]) -> None:
        """All that came at once, of one sequence or several: it is in the journal before any client
        is told, by one write.
        """
        now = time.monotonic()
        taken: list[Stream] = []
        given: list[Delivery] = []
        for action in actions:
            stream = self._streams.get(action.sequence)
            if stream is None or stream.stopped:
                continue
            try:
                used = stream.take(action.tokens, action.logprobs or (), now)
            except (LookupError, ValueError, OverflowError) as error:
                # A model's vocabulary may be padded: such a token has no text.
                self._without_text(stream, action.tokens, error)
                continue
            taken.append(stream)
            if used:
                logprobs = (action.logprobs or ())[:used]
                given.append((stream.record, action.tokens[:used], logprobs))
            self._delivered.append((now, used))
            if self.watch and stream.answer:
                self.watch.delivered(stream.sequence, stream.gaps, used)
        self._of.journal.given(given)
        for stream in taken:
            if news := stream.news():
                self._tell(stream, news)
            if stream.stopped:
                reason = rq.FinishReason.STOP
                self._of.perform(self._of.scheduler.finish(stream.sequence, reason, now))

    def _without_text(self, stream: Stream, tokens: tuple[int, ...], error: Exception) -> None:
        del self._streams[stream.sequence]
        self._turn_failed(stream)
        what, why = "the model gave a token without text", f"one of {list(tokens)}: {error!r}"
        todo = "do not bias tokens outside the vocabulary"
        self._close(stream, End(None, (EXIT_FAILED, what, why, todo)))
        self._of.perform(self._of.scheduler.cancel(stream.sequence, time.monotonic()))

    def finished(self, action: sc.Finished) -> None:
        stream = self._streams.pop(action.sequence, None)
        if stream is None:
            return
        if action.reason in (rq.FinishReason.FAILED, rq.FinishReason.CONTEXT):
            self._turn_failed(stream)
            todo = "shardctl logs NODE; then ask again"
            failure = EXIT_FAILED, "the request failed", action.error, todo
            self._close(stream, End(None, failure))
            return
        usage = action.usage
        self.ended(stream, action.reason, action.error, usage.reissues, usage.cached_tokens)

    def ended(
        self,
        stream: Stream,
        reason: rq.FinishReason,
        error: str = "",
        reissues: int = 0,
        cached_tokens: int = 0,
    ) -> None:
        """With a good end. It is none of the streams any more."""
        summary = stream.summary(time.monotonic(), reissues, cached_tokens)
        ending = {
            "text": stream.rest(),
            "finish_reason": reason.value,
            "error": error or None,
        }
        stream.record.unsaved = self._turn_ended(stream, reason)
        self._close(stream, End(summary | ending))

    def _close(self, stream: Stream, end: End) -> None:
        stream.record.end = end
        self._of.journal.ended(stream.record)
        self.endings.add(stream, time.monotonic())
        if stream.answer:
            end.say(stream.answer)

    def _turn_ended(self, stream: Stream, reason: rq.FinishReason) -> bool:
        """The conversation goes on from what the client was given: True. Cancelled before there was
        anything, it is what it was.
        """
        turn, conversations = stream.turn, self._of.clients.conversations
        if turn and (turn.reply or reason is not rq.FinishReason.CANCELLED):
            conversations.ended(turn, stream.sequence, stream.stopped)
            return True
        if turn:
            conversations.left(turn.name)
        return False

    def _turn_failed(self, stream: Stream) -> None:
        if stream.turn:
            self._of.clients.conversations.left(stream.turn.name)

    def tick(self, now: float) -> None:
        self.endings.tick(now)
        self._forget_delivered(now)
        for stream in list(self._streams.values()):
            silent = now - stream.heard_at
            if stream.answer and silent > SILENT_SECONDS:
                self._lost(stream, "its client is silent")
            elif not stream.answer and silent > self._patience:
                self._gone(stream)

    def behind(self, since: float) -> list[Stream]:
        """Whose clients were given tokens, but none since then."""
        streams = [s for s in self._streams.values() if s.answer]
        return [s for s in streams if s.last_at is not None and s.last_at < since]

    def rate(self, now: float) -> float:
        """Tokens per second of all streams together."""
        self._forget_delivered(now)
        return sum(count for _, count in self._delivered) / RATE_SECONDS

    def _forget_delivered(self, now: float) -> None:
        """Also when nobody asks for the rate."""
        while self._delivered and now - self._delivered[0][0] > RATE_SECONDS:
            self._delivered.popleft()

    def close(self) -> None:
        """This process was asked to end, and no other is to go on with them."""
        for stream in self._streams.values():
            self._of.journal.forget(stream.sequence)
            if stream.answer:
                what, why = "the coordinator has stopped", "it was asked to"
                stream.answer.fail(EXIT_FAILED, what, why, "start it, then ask again")


def taken_over(answer: Answer) -> None:
    """Say so to the client that had the request before."""
    what, why = "another client has this request now", "it asked to resume it"
    answer.fail(EXIT_FAILED, what, why, "see what that one prints")
