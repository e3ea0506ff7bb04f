"""Going on with what a coordinator before this one was killed over, and with what a client asks to
resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.coordinator.answer import EXIT_FAILED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.intake import refusal_of
from daemon.coordinator.journalled import Journalled
from daemon.coordinator.loading import explained
from daemon.coordinator.models import ServedModel
from daemon.coordinator.stream import Stream
from daemon.coordinator.streams import taken_over
from daemon.scheduler import request as rq

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

NOT_YET = "the coordinator was started again: the model is being loaded"


class Resuming:
    """`left` waits for its model to be served, and with it the clients that ask for it; both in
    vain, if that takes longer than a request waits for its client.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self.left: dict[bytes, Journalled] = {}
        self._claims: dict[bytes, tuple[Answer, int]] = {}
        self._patience = coordinator.config.timeouts.resume_s
        self._began = 0.0

    def knows(self, sequence: bytes) -> bool:
        """Whether some request has this id."""
        streams = self._of.clients.streams
        prepared = sequence in self._of.clients.intake.preparing
        return prepared or any(sequence in ids for ids in (self.left, streams, streams.endings))

    def take_over(self, left: list[Journalled]) -> None:
        """What the journal has, at the start."""
        self.left = {entry.sequence: entry for entry in left}
        self._began = time.monotonic()

    # --- the verb ---

    def resume(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """Go on with a stream from where a client has it."""
        wanted = typed(arguments, "sequence", str, None)
        tokens = typed(arguments, "tokens", int, 0)
        if not wanted:
            raise BadArguments("which sequence? give its id, or the beginning of it")
        if tokens < 0:
            raise BadArguments(f"tokens is {tokens}, must be 0 or more")
        streams, preparing = self._of.clients.streams, self._of.clients.intake.preparing
        known = [*self.left, *preparing, *streams, *streams.endings]
        found = [sequence for sequence in known if sequence.hex().startswith(wanted)]
        if not found:
            what, why = f"no request {wanted}", "it ended some time ago, or never was"
            raise Refusal(EXIT_FAILED, what, why, "ask anew")
        if len(found) > 1:
            raise BadArguments(f"{wanted} is the beginning of {len(found)} sequences")
        (sequence,) = found
        if sequence in self.left:
            if sequence in self._claims:
                taken_over(self._claims[sequence][0])
            self._claims[sequence] = answer, tokens
            answer.chunk({"waiting": NOT_YET})
        elif sequence in preparing:  # it has no tokens yet
            taken_over(preparing[sequence])
            preparing[sequence] = answer
        else:
            self._attach(sequence, answer, tokens)

    def _attach(self, sequence: bytes, answer: Answer, tokens: int) -> None:
        streams = self._of.clients.streams
        if sequence in streams:
            streams.attach(sequence, answer, tokens)
        else:
            streams.endings.tell(sequence, answer, tokens)

    # --- after a restart ---

    def make_ready(self, model: ServedModel, then: Callable[[list[Stream]], object]) -> None:
        """Make the text of what is left again, at the desk, then call `then` with what can go on:
        it is for `go_on`, once the model is served.
        """
        mine = [entry for entry in self.left.values() if entry.digest == model.spec.digest]
        if not mine:
            then([])
            return

        def failed(error: BaseException) -> None:
            self._give_up(explained("what was running cannot go on", error))
            then([])

        self._of.desk.submit(partial(_streams, mine, model), then, failed)

    def go_on(self, ready: list[Stream]) -> None:
        """The model is served. What was left with another is dropped."""
        for stream in ready:
            if self.left.pop(stream.sequence, None):
                self._go_on(stream)
        what, why = "the request is not resumed", "another model is served now"
        self._give_up(Refusal(EXIT_FAILED, what, why, "ask anew"))

    def _go_on(self, stream: Stream) -> None:
        streams, record, now = self._of.clients.streams, stream.record, time.monotonic()
        stream.heard_at = now
        length = len(record.request.prompt) + len(record.tokens)
        if record.end:
            self._ended_before(stream, now)
        elif stream.stopped:
            streams.ended(stream, rq.FinishReason.STOP)
        elif len(record.tokens) >= record.request.max_tokens or length >= self._of.context_length:
            streams.ended(stream, rq.FinishReason.LENGTH)
        else:
            self._run(stream, now)
        if claim := self._claims.pop(stream.sequence, None):
            self._attach(stream.sequence, *claim)

    def _run(self, stream: Stream, now: float) -> None:
        streams, record = self._of.clients.streams, stream.record
        streams.adopt(stream)
        if stream.turn:
            self._of.clients.conversations.goes_on(stream.turn.name)
        try:
            started = self._of.scheduler.submit(record.request, now, tuple(record.tokens))
        except rq.RequestError as error:
            streams.refuse(stream, refusal_of(error, stream.turn))
            return
        name, tokens = stream.sequence.hex()[:8], len(record.tokens)
        self._of.note("resumed", "", f"{name}: goes on after {tokens} tokens of its answer")
        self._of.perform(started)

    def _ended_before(self, stream: Stream, now: float) -> None:
        record, streams = stream.record, self._of.clients.streams
        streams.endings.add(stream, now)
        if record.unsaved and stream.turn:
            stream.rest()
            self._of.clients.conversations.ended(stream.turn, stream.sequence, stream.stopped)

    def _give_up(self, refusal: Refusal) -> None:
        for sequence in self.left:
            self._of.journal.forget(sequence)
            self._of.note("not-resumed", "", f"{sequence.hex()[:8]}: {refusal.why}")
        self.left.clear()
        for answer, _ in self._claims.values():
            answer.refuse(refusal)
        self._claims.clear()

    def tick(self, now: float) -> None:
        if self.left and now - self._began > self._patience and not self._of.desk.waiting:
            what, why = "the request is not resumed", "its model is not served"
            self._give_up(Refusal(EXIT_FAILED, what, why, "shardctl model load; then ask anew"))


def _streams(entries: list[Journalled], model: ServedModel) -> list[Stream]:
    """Work for the desk. Their times go on as if nothing had happened."""
    now, wall = time.monotonic(), time.time()
    return [Stream.of(one, model, now - max(0.0, wall - one.began), now) for one in entries]
