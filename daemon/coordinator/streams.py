"""The running requests of clients: from `generate` to the last piece of text."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.coordinator.answer import (
    EXIT_DEGRADED,
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_USAGE,
    Answer,
    Refusal,
)
from daemon.coordinator.arguments import BadArguments, Generate, typed
from daemon.coordinator.loading import explained
from daemon.coordinator.models import ServedModel
from daemon.coordinator.running_turn import RunningTurn
from daemon.coordinator.stop import StopMatcher
from daemon.coordinator.stream import Stream
from daemon.kv_bits import EXACT
from daemon.scheduler import actions as sc
from daemon.scheduler import request as rq

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

SILENT_SECONDS = 10.0  # after which a client that waits for tokens is taken for gone
MOST_PREPARING = 256  # prompts that wait to be made tokens of
RATE_SECONDS = 5.0  # over which tokens per second are counted


class Streams:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._streams: dict[bytes, Stream] = {}  # by sequence
        self._waiting: str | None = None
        self._delivered: deque[tuple[float, int]] = deque()

    # --- verbs ---

    def generate(self, answer: Answer, arguments: dict[str, Any]) -> None:
        wanted = Generate.parse(arguments)
        model = self._of.model
        if self._of.closing:
            what, why = "the cluster is draining", "it takes no new request before a node leaves"
            raise Refusal(EXIT_REFUSED, what, why, "ask again later")
        if model is None and self._of.clients.loading.preparing:
            what, why = "the model is being loaded", "its description is still being read"
            raise Refusal(EXIT_DEGRADED, what, why, "ask again in a moment")
        if model is None:
            what, why = "no model is loaded", "nothing can be generated without one"
            raise Refusal(EXIT_FAILED, what, why, "shardctl model load NAME")
        if wanted.messages and not wanted.raw and not model.tokenizer.has_chat_template:
            what, why = f"{model.spec.name} has no chat template", "it is not a chat model"
            raise Refusal(EXIT_USAGE, what, why, "use a plain prompt (--raw)")
        if refusal := _kv_refusal(model, wanted.kv_bits or EXACT):
            raise refusal
        if self._of.desk.waiting >= MOST_PREPARING:
            what, why = "too many requests at once", f"{MOST_PREPARING} prompts are waiting"
            raise Refusal(EXIT_DEGRADED, what, why, "ask again later")
        began = time.monotonic()
        work: Callable[[], list[int] | RunningTurn] = partial(_encode, model, wanted)
        if wanted.conversation:
            work = self._of.clients.conversations.beginning(model, wanted)
        self._of.desk.submit(
            work,
            lambda prompt: self._of.saved_kv.before(
                *_beginning(wanted, prompt),
                lambda: self._begin(answer, model, wanted, prompt, began),
            ),
            lambda error: self._refuse(
                answer, wanted, explained("the prompt cannot be read", error)
            ),
        )

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
        known = [s.id for s in self._of.scheduler.sequences()]
        found = known if wanted == "all" else [s for s in known if s.hex().startswith(wanted)]
        if not found and wanted != "all":
            what, why = f"no sequence {wanted}", "it has ended, or never was"
            raise Refusal(EXIT_FAILED, what, why, "see `shardctl ps`")
        if len(found) > 1 and wanted != "all":
            raise BadArguments(f"{wanted} is the beginning of {len(found)} sequences")
        for sequence in found:
            self._of.perform(self._of.scheduler.cancel(sequence, time.monotonic()))
        answer.reply({"cancelled": [s.hex() for s in found]})

    # --- what happens to a stream ---

    def _refuse(self, answer: Answer, wanted: Generate, refusal: Refusal) -> None:
        if wanted.conversation:
            self._of.clients.conversations.left(wanted.conversation)
        answer.refuse(refusal)

    def _begin(
        self,
        answer: Answer,
        model: ServedModel,
        wanted: Generate,
        prepared: list[int] | RunningTurn,
        began: float,
    ) -> None:
        if model is not self._of.model:
            what, why = "the model was unloaded", "another took its place meanwhile"
            self._refuse(answer, wanted, Refusal(EXIT_FAILED, what, why, "ask again"))
            return
        turn = prepared if isinstance(prepared, RunningTurn) else None
        if turn and (refusal := _kv_refusal(model, turn.kv_bits)):
            self._refuse(answer, wanted, refusal)
            return
        kv_bits, prompt = _beginning(wanted, prepared)
        now, sequence = time.monotonic(), self._of.new_sequence()
        most = wanted.max_tokens or max(1, self._of.context_length - len(prompt))
        stops = model.tokenizer.eos_tokens if wanted.stop_at_eos else frozenset[int]()
        request = rq.Request(sequence, prompt, most, wanted.sampling, stops, kv_bits)
        try:
            started = self._of.scheduler.submit(request, now)
        except rq.RequestError as error:
            self._refuse(answer, wanted, _refusal(error, turn))
            return
        raw = turn.raw if turn else wanted.raw or not model.tokenizer.has_chat_template
        detokenizer = model.tokenizer.detokenizer(continues=raw)
        matcher = StopMatcher(wanted.stop)
        stream = Stream(answer, sequence, len(prompt), detokenizer, matcher, began, now, turn)
        self._streams[sequence] = stream
        head = {
            "sequence": sequence.hex(),
            "prompt_tokens": len(prompt),
            "cached_tokens": self._of.scheduler.cached_tokens(sequence),
            "seed": wanted.sampling.seed,
            "conversation": turn.name if turn else None,
            "turn": turn.turns if turn else None,
        }
        self._tell(stream, head)
        if self._waiting:
            self._tell(stream, {"waiting": self._waiting})
        self._of.perform(started)

    def _tell(self, stream: Stream, data: dict[str, Any]) -> None:
        if not stream.answer.chunk(data):
            self._gone(stream, "its client is gone")

    def _gone(self, stream: Stream, why: str) -> None:
        if self._streams.pop(stream.sequence, None):
            self._of.note("cancelled", "", f"{stream.sequence.hex()[:8]}: {why}")
            stream.rest()
            self._turn_ended(stream, rq.FinishReason.CANCELLED)
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
        self._delivered.append((now, len(action.tokens)))
        try:
            text = stream.take(action.tokens, now)
        except (LookupError, ValueError, OverflowError) as error:
            # A model's vocabulary may be padded: such a token has no text.
            self._without_text(stream, action.tokens, error)
            return
        logprobs = list(action.logprobs) if action.logprobs is not None else None
        self._tell(stream, {"text": text, "tokens": list(action.tokens), "logprobs": logprobs})
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
        summary = stream.summary(time.monotonic(), usage.reissues, usage.cached_tokens)
        ending = {
            "text": stream.rest(),
            "finish_reason": action.reason.value,
            "error": action.error or None,
        }
        self._turn_ended(stream, action.reason)
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

    def cancel_all(self) -> None:
        for sequence in [s.id for s in self._of.scheduler.sequences()]:
            self._of.perform(self._of.scheduler.cancel(sequence, time.monotonic()))

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


def _kv_refusal(model: ServedModel, kv_bits: int) -> Refusal | None:
    why = model.info.kv_quantization.refusal(kv_bits)
    what = f"{model.spec.name} cannot hold its KV in {kv_bits} bits"
    return Refusal(EXIT_USAGE, what, why, "use --kv-bits 0") if why else None


def _refusal(error: rq.RequestError, turn: RunningTurn | None) -> Refusal:
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
        return prepared.kv_bits, prepared.prompt.tokens
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
