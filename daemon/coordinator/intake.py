"""Requests before the scheduler has them: from `generate` over the desk, where tokens are made of
their prompts, until the stages have read what is saved of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.coordinator import views
from daemon.coordinator.answer import (
    EXIT_DEGRADED,
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_USAGE,
    Answer,
    Refusal,
)
from daemon.coordinator.arguments import Generate
from daemon.coordinator.journalled import Journalled
from daemon.coordinator.loading import explained
from daemon.coordinator.models import ServedModel
from daemon.coordinator.running_turn import RunningTurn
from daemon.coordinator.stream import Stream
from daemon.kv_bits import EXACT
from daemon.scheduler import request as rq

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

MOST_PREPARING = 256  # prompts that wait to be made tokens of
LEAST_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """It has begun, and waits for saved KV to be read; at `due` it goes on without."""

    stream: Stream
    request: rq.Request
    due: float


class Intake:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self.waiting: dict[bytes, Waiting] = {}  # by sequence
        self.preparing: dict[bytes, Answer] = {}  # whose ids their clients chose: who is to hear

    def generate(self, answer: Answer, arguments: dict[str, Any]) -> None:
        wanted = Generate.parse(arguments)
        model = self._of.model
        if self._of.closing:
            raise _draining()
        if model is None and self._of.clients.loading.preparing:
            what, why = "the model is being loaded", "its description is still being read"
            raise Refusal(EXIT_DEGRADED, what, why, "ask again in a moment")
        if model is None:
            what, why = "no model is loaded", "nothing can be generated without one"
            raise Refusal(EXIT_FAILED, what, why, "shardctl model load NAME")
        if wanted.messages and not wanted.raw and not model.tokenizer.has_chat_template:
            what, why = f"{model.spec.name} has no chat template", "it is not a chat model"
            raise Refusal(EXIT_USAGE, what, why, "use a plain prompt (--raw)")
        if refusal := self._kv_refusal(model, wanted.kv_bits or EXACT):
            raise refusal
        if refusal := self._taken(wanted):
            raise refusal
        if self._of.desk.waiting >= MOST_PREPARING:
            what, why = "too many requests at once", f"{MOST_PREPARING} prompts are waiting"
            raise Refusal(EXIT_DEGRADED, what, why, "ask again later")
        began = time.monotonic()
        work: Callable[[], list[int] | RunningTurn] = partial(_encode, model, wanted)
        if wanted.conversation:
            work = self._of.clients.conversations.beginning(model, wanted)
        if wanted.sequence:
            self.preparing[wanted.sequence] = answer
        self._of.desk.submit(
            work,
            lambda prompt: self._prepared(answer, model, wanted, prompt, began),
            lambda error: self._refuse(
                answer, wanted, explained("the prompt cannot be read", error)
            ),
        )

    def _taken(self, wanted: Generate) -> Refusal | None:
        """Whether it has been taken already, or another with that id."""
        if wanted.sequence and self._of.clients.resuming.knows(wanted.sequence):
            what, why = f"sequence {wanted.sequence.hex()}", "a request has this id"
            return Refusal(EXIT_USAGE, what, why, "resume it, or choose another id")
        return None

    def _refuse(self, answer: Answer, wanted: Generate, refusal: Refusal) -> None:
        answer = self.preparing.pop(wanted.sequence or b"", answer)
        if wanted.conversation:
            self._of.clients.conversations.left(wanted.conversation)
        answer.refuse(refusal)

    def _prepared(
        self,
        answer: Answer,
        model: ServedModel,
        wanted: Generate,
        prepared: list[int] | RunningTurn,
        began: float,
    ) -> None:
        turn = prepared if isinstance(prepared, RunningTurn) else None
        refusal = self._kv_refusal(model, turn.fidelity.kv_bits) if turn else None
        if self._of.closing:
            refusal = _draining()
        elif model is not self._of.model:
            what, why = "the model was unloaded", "another took its place meanwhile"
            refusal = Refusal(EXIT_FAILED, what, why, "ask again")
        if refusal:
            self._refuse(answer, wanted, refusal)
            return
        answer = self.preparing.pop(wanted.sequence or b"", answer)  # it may have come back
        kv_bits, prompt = _beginning(wanted, prepared)
        now, sequence = time.monotonic(), wanted.sequence or self._of.new_sequence()
        most = wanted.max_tokens or max(1, self._of.context_length - len(prompt))
        stops = model.tokenizer.eos_tokens if wanted.stop_at_eos else frozenset[int]()
        fidelity = self._of.scheduler.fidelity(kv_bits, prompt, most)
        if turn:
            turn.fidelity = fidelity
        request = rq.Request(sequence, prompt, most, wanted.sampling, stops, fidelity)
        raw = turn.raw if turn else wanted.raw or not model.tokenizer.has_chat_template
        digest, since = model.spec.digest, time.time() - (now - began)
        record = Journalled(request, digest, wanted.stop, continues=raw, began=since, turn=turn)
        stream = Stream.of(record, model, began, now)
        stream.answer = answer
        if found := self._of.saved_kv.worth_loading(fidelity, prompt):
            stored, more = found
            self.waiting[sequence] = Waiting(stream, request, now + self._patience(more))
            self._of.clients.streams.begin(stream)
            if sequence in self.waiting:  # its client is there
                self._of.saved_kv.load(stored, lambda _: self._go_on(sequence))
        else:
            self._submit(stream, request)

    def _kv_refusal(self, model: ServedModel, kv_bits: int) -> Refusal | None:
        """The model cannot, or one of its stages cannot: they all hold the same sequences."""
        what = f"{model.spec.name} cannot hold its KV in {kv_bits} bits"
        why, todo = model.info.kv_quantization.refusal(kv_bits), "use --kv-bits 0"
        for slot in () if why or kv_bits == EXACT else self._of.cluster.slots:
            member = self._of.cluster.members.get(slot.node)  # None: it has left
            if member and member.loaded and kv_bits not in member.memory.footprints:
                why = f"MLX cannot compute with such keys on the device of {slot.node}"
                todo += f"; `shardctl logs {slot.node}` has what MLX says"
                break
        return Refusal(EXIT_USAGE, what, why, todo) if why else None

    def _patience(self, tokens: int) -> float:
        """As long as computing these tokens would take: whatever comes of waiting, it takes no more
        than twice as long as not waiting.
        """
        members = (self._of.cluster.members[slot.node] for slot in self._of.cluster.slots)
        slowest = max((m.loaded.prefill_token_seconds for m in members if m.loaded), default=0.0)
        return max(LEAST_PATIENCE, tokens * slowest)

    def _go_on(self, sequence: bytes) -> None:
        """If it still waits."""
        if found := self.waiting.pop(sequence, None):
            self._submit(found.stream, found.request)

    def _submit(self, stream: Stream, request: rq.Request) -> None:
        streams = self._of.clients.streams
        try:
            started = self._of.scheduler.submit(request, time.monotonic())
        except rq.RequestError as error:
            streams.refuse(stream, refusal_of(error, stream.turn))
            return
        streams.begin(stream)
        self._of.perform(started)

    def drop(self, sequence: bytes) -> bool:
        """Nobody wants it any more. False when it does not wait here."""
        return self.waiting.pop(sequence, None) is not None

    def tick(self, now: float) -> None:
        for sequence in [s for s, one in self.waiting.items() if now >= one.due]:
            self._go_on(sequence)

    def views(self, now: float) -> list[dict[str, Any]]:
        """Rows of `ps`."""
        return [
            views.loading_kv_view(one.request, now - one.stream.began)
            for one in self.waiting.values()
        ]


def _draining() -> Refusal:
    what, why = "the cluster is draining", "it takes no new request before a node leaves"
    return Refusal(EXIT_REFUSED, what, why, "ask again later")


def refusal_of(error: rq.RequestError, turn: RunningTurn | None) -> Refusal:
    """Why the scheduler does not take it, for the client."""
    if error.refusal is rq.Refusal.BUSY:
        code, todo = EXIT_DEGRADED, "ask again later"
    elif turn and turn.turns > 1 and error.refusal is rq.Refusal.OVER_CONTEXT:
        what = f"conversation {turn.name} has come to the end of the context"
        todo = f"begin another one, or `shardctl kv evict {turn.name} --forget` and begin it anew"
        return Refusal(EXIT_REFUSED, what, str(error), todo)
    else:
        code, todo = EXIT_USAGE, "shorten it"
    return Refusal(code, "the request cannot be taken", str(error), todo)


def _beginning(wanted: Generate, prepared: list[int] | RunningTurn) -> tuple[int, tuple[int, ...]]:
    """The type of its KV, and its prompt's tokens."""
    if isinstance(prepared, RunningTurn):
        return prepared.fidelity.kv_bits, prepared.prompt.tokens
    return wanted.kv_bits or EXACT, tuple(prepared)


def _encode(model: ServedModel, wanted: Generate) -> list[int]:
    """The prompt's tokens."""
    tokenizer = model.tokenizer
    if wanted.messages and not wanted.raw:
        return tokenizer.encode_chat(wanted.messages)
    if wanted.messages:
        return tokenizer.encode("\n".join(m["content"] for m in wanted.messages))
    prompt = wanted.prompt or ""
    if wanted.raw or not tokenizer.has_chat_template:
        return tokenizer.encode(prompt)
    return tokenizer.encode_chat([{"role": "user", "content": prompt}])
