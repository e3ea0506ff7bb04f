"""The arguments of a client's request, checked: what a socket brings is not believed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.cluster.placement.problem import Objective
from daemon.cluster.placement.wishes import Wishes
from daemon.coordinator.conversation import NAME
from daemon.kv_bits import check_kv_bits
from daemon.layers import LayerRange
from daemon.sampling import SamplingParams

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256


class BadArguments(ValueError):
    """The client's fault; the text says which argument and why."""


@dataclass(frozen=True, slots=True)
class Generate:
    """`prompt` or `messages`, never both. `raw` and `kv_bits` None: as the conversation was, else
    neither. `sequence` is the client's own choice of an id, so that it can resume whatever it has
    heard.
    """

    prompt: str | None
    messages: tuple[Mapping[str, str], ...]
    raw: bool | None
    sampling: SamplingParams
    max_tokens: int | None
    stop: tuple[str, ...]
    stop_at_eos: bool
    kv_bits: int | None
    conversation: str | None
    sequence: bytes | None

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> Generate:
        unknown = set(arguments) - {
            "prompt", "messages", "raw", "sampling", "max_tokens", "stop", "stop_at_eos",
            "kv_bits", "conversation", "sequence",
        }  # fmt: skip
        if unknown:
            raise BadArguments(f"unknown argument {min(unknown)!r}")
        prompt = typed(arguments, "prompt", str, None)
        messages = typed(arguments, "messages", list, None)
        if (prompt is None) == (messages is None):
            raise BadArguments("give either a prompt or messages")
        for message in messages or ():
            if not (
                isinstance(message, dict)
                and set(message) == {"role", "content"}
                and all(isinstance(value, str) for value in message.values())
            ):
                raise BadArguments("a message is a map of role and content, both text")
        max_tokens = typed(arguments, "max_tokens", int, None)
        if max_tokens is not None and max_tokens < 1:
            raise BadArguments(f"max_tokens is {max_tokens}, must be 1 or more")
        stops = typed(arguments, "stop", list, [])
        if len(stops) > MAX_STOPS or not all(
            isinstance(s, str) and 0 < len(s) <= MAX_STOP_CHARACTERS for s in stops
        ):
            raise BadArguments(
                f"stop is at most {MAX_STOPS} texts of 1 to {MAX_STOP_CHARACTERS} characters"
            )
        try:
            sampling = SamplingParams.from_wire(typed(arguments, "sampling", dict, {}))
            bits = typed(arguments, "kv_bits", int, None)
            kv_bits = None if bits is None else check_kv_bits(bits)
        except (ValueError, TypeError) as error:
            raise BadArguments(str(error)) from error
        return cls(
            prompt,
            tuple(messages or ()),
            typed(arguments, "raw", bool, None),
            sampling,
            max_tokens,
            tuple(stops),
            typed(arguments, "stop_at_eos", bool, True),
            kv_bits,
            conversation_name(arguments),
            _sequence(arguments),
        )


def conversation_name(arguments: Mapping[str, Any]) -> str | None:
    """The argument `conversation`: a name that is a file's too."""
    name: str | None = typed(arguments, "conversation", str, None)
    if name is not None and not NAME.fullmatch(name):
        raise BadArguments(
            f"conversation is {name!r:.80}, not 1 to 64 of the characters A-Z a-z 0-9 . _ -, "
            "the first of them not a dot"
        )
    return name


def _sequence(arguments: Mapping[str, Any]) -> bytes | None:
    text: str | None = typed(arguments, "sequence", str, None)
    if text is not None and not re.fullmatch(r"[0-9a-f]{32}", text):
        raise BadArguments(f"sequence is {text!r:.80}, not 32 hexadecimal digits")
    return None if text is None else bytes.fromhex(text)


def placement_wishes(arguments: Mapping[str, Any]) -> Wishes:
    """The arguments that say how layers are to be placed."""
    try:
        objective = Objective(typed(arguments, "objective", str, Objective.BALANCED.value))
        pins = {
            str(node): LayerRange(start, end)
            for node, (start, end) in typed(arguments, "pins", dict, {}).items()
        }
    except (TypeError, ValueError) as error:
        raise BadArguments(str(error)) from error
    split, memory = typed(arguments, "split", list, []), typed(arguments, "memory", dict, {})
    exclude = typed(arguments, "exclude", list, [])
    if not all(type(n) is int for n in (*split, *memory.values())):
        raise BadArguments("layers and bytes are whole numbers")
    if not all(isinstance(name, str) for name in exclude):
        raise BadArguments("exclude is a list of nodes")
    return Wishes(objective, tuple(split), pins, memory, frozenset(exclude))


def typed_context(arguments: Mapping[str, Any]) -> int | None:
    """The argument `context`: tokens of KV to have room for."""
    context: int | None = typed(arguments, "context", int, None)
    if context is not None and context < 1:
        raise BadArguments(f"context is {context}, must be 1 or more")
    return context


def typed(arguments: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """The argument, of that type; null and absent mean the default."""
    value = arguments.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise BadArguments(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value
