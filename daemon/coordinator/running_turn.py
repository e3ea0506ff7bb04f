"""A turn of a conversation while it runs: its prompt, and what the client was given so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daemon import logs
from daemon.coordinator.answer import EXIT_REFUSED, Refusal
from daemon.coordinator.arguments import Generate
from daemon.coordinator.conversation import Conversation
from daemon.coordinator.models import ServedModel
from daemon.coordinator.turns import Prompt, Turn, go_on
from daemon.fidelity import Fidelity
from daemon.kv_bits import EXACT

log = logs.get("conversations")

Messages = tuple[Mapping[str, str], ...]


@dataclass(slots=True)
class RunningTurn:
    """`messages` are those of the prompt; none in a raw conversation. `turns` counts this one.
    The codecs of `fidelity` are known when it is admitted.
    """

    name: str
    model: str
    digest: str
    raw: bool
    fidelity: Fidelity
    messages: Messages
    prompt: Prompt
    turns: int
    reply: list[int] = field(default_factory=list)
    shown: str = ""

    def take(self, tokens: Sequence[int], text: str) -> None:
        """The client was given these."""
        self.reply.extend(tokens)
        self.shown += text

    def ended(self, sequence: bytes, cut: bool, now: float) -> Conversation:
        """What is remembered. An answer that was cancelled stays as far as it came; without any
        the templates that want user and assistant to take turns would refuse what follows.
        """
        answer = {"role": "assistant", "content": self.shown}
        return Conversation(
            self.name,
            self.model,
            self.digest,
            self.raw,
            self.fidelity,
            () if self.raw else (*self.messages, answer),
            Turn(self.prompt, tuple(self.reply), self.shown, cut),
            sequence,
            self.turns,
            now,
        )


def begin(
    name: str, model: ServedModel, wanted: Generate, past: Conversation | None
) -> RunningTurn:
    """The next turn. Refusal when it does not go together with the conversation's `past`. Slow for
    long ones: work for the desk.
    """
    raw = _is_raw(name, model, wanted, past)
    known = past is not None and past.digest == model.spec.digest
    if raw:
        fresh = wanted.prompt if wanted.prompt is not None else _joined(wanted.messages)
        messages: Messages = ()
        prompt = _raw_prompt(model, fresh, past)
    else:
        new = wanted.messages or ({"role": "user", "content": wanted.prompt or ""},)
        messages = _followed(name, past.messages if past else (), new)
        prompt = _chat_prompt(name, model, messages, past.turn if past and known else None)
    spec, turns, kv_bits = model.spec, past.turns + 1 if past else 1, wanted.kv_bits
    if kv_bits is None:
        kv_bits = past.fidelity.kv_bits if past else EXACT
    fidelity = Fidelity(kv_bits)
    return RunningTurn(name, spec.name, spec.digest, raw, fidelity, messages, prompt, turns)


def _is_raw(name: str, model: ServedModel, wanted: Generate, past: Conversation | None) -> bool:
    """Whether its text is taken as it is: as it began, whatever is not said now."""
    template = model.tokenizer.has_chat_template
    if past is None:
        return bool(wanted.raw) or not template
    kind = "raw" if past.raw else "a chat"
    if wanted.raw is not None and wanted.raw != past.raw and (template or wanted.raw):
        what, why = f"conversation {name} is {kind}", "it goes on as it began"
        option = "--raw" if past.raw else "--chat"
        raise Refusal(EXIT_REFUSED, what, why, f"use {option}, or another name")
    if not past.raw and not template:
        what = f"conversation {name} is {kind}"
        why = f"{model.spec.name} has no chat template"
        raise Refusal(EXIT_REFUSED, what, why, "load a chat model, or use another name")
    if past.raw and past.digest != model.spec.digest:
        what = f"conversation {name} is raw, and of another model"
        why = f"it was held with {past.model}, its text was made for that"
        todo = f"load {past.model}, or use another name"
        raise Refusal(EXIT_REFUSED, what, why, todo)
    return past.raw


def _followed(name: str, past: Messages, new: Messages) -> Messages:
    """All messages. The system's stands at the beginning; to say it again changes nothing."""
    told = [m for m in new if m["role"] == "system"] if past else []
    if any(message not in past for message in told):
        what, why = f"conversation {name} has begun", "its system message cannot be changed"
        raise Refusal(EXIT_REFUSED, what, why, "leave it out, or use another name")
    return (*past, *(m for m in new if m not in told))


def _joined(messages: Messages) -> str:
    return "\n".join(message["content"] for message in messages)


def _raw_prompt(model: ServedModel, text: str, past: Conversation | None) -> Prompt:
    if past is None:
        return Prompt(text, tuple(model.tokenizer.encode(text)))
    found = go_on(model.tokenizer, past.turn, past.turn.text + text)
    assert found is not None, "a raw text begins with what it goes on from"
    return found


def _chat_prompt(name: str, model: ServedModel, messages: Messages, last: Turn | None) -> Prompt:
    text = model.tokenizer.render(messages)
    found = go_on(model.tokenizer, last, text) if last else None
    if last and found is None:
        log.debug("conversation %s: its template wrote earlier turns anew: encoded anew", name)
    elif last and found and found.tokens[: len(last.tokens)] != last.tokens:
        log.debug("conversation %s: the last answer is encoded anew: its text changed", name)
    return found or Prompt(text, tuple(model.tokenizer.encode_chat(messages)))
