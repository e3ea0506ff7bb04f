"""What is written down of one request: all that another coordinator needs to go on with it."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.coordinator.answer import Answer
from daemon.coordinator.running_turn import RunningTurn
from daemon.coordinator.turns import Prompt
from daemon.fidelity import Fidelity
from daemon.sampling import SamplingParams
from daemon.scheduler import request as rq
from transports.frame import SEQUENCE_ID_BYTES


@dataclass(frozen=True, slots=True)
class End:
    """The last word to the client: the data of a Reply, or (code, what, why, todo) of a Failure."""

    reply: Mapping[str, Any] | None
    failure: tuple[int, str, str, str] | None = None

    def say(self, answer: Answer) -> bool:
        """False when the client is not connected any more."""
        if self.failure is not None:
            return answer.fail(*self.failure)
        return answer.reply(dict(self.reply or {}))

    def to_wire(self) -> dict[str, Any]:
        return {"reply": self.reply, "failure": self.failure}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> End:
        """Raises KeyError, TypeError or ValueError for what is none."""
        reply, failure = values["reply"], values["failure"]
        if failure is not None:
            code, what, why, todo = failure
            return cls(None, (_a(int, code), _a(str, what), _a(str, why), _a(str, todo)))
        return cls(_a(dict, reply))


@dataclass(slots=True)
class Journalled:
    """`turn` is as it was when it began, and `stop` are the stop strings; with `continues` its text
    goes on from other text.

    digest    of the model's weights
    began     Unix time
    tokens    of the answer that its client may have been given; `logprobs` of each, if asked for
    ttft      seconds to the first of them
    tries     how often a coordinator began with it since a token came
    end       when it has ended; `unsaved`: its turn is part of a conversation, and not on disk
    """

    request: rq.Request
    digest: str
    stop: tuple[str, ...]
    continues: bool
    began: float
    turn: RunningTurn | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    ttft: float | None = None
    tries: int = 0
    end: End | None = None
    unsaved: bool = False

    @property
    def sequence(self) -> bytes:
        return self.request.sequence

    def to_wire(self) -> dict[str, Any]:
        r, turn = self.request, self.turn
        return {
            "sequence": r.sequence,
            "prompt": packed(r.prompt),
            "max_tokens": r.max_tokens,
            "sampling": r.params.to_wire(),
            "stop_tokens": sorted(r.stop_tokens),
            **r.fidelity.to_wire(),
            "digest": self.digest,
            "stop": self.stop,
            "continues": self.continues,
            "began": self.began,
            "turn": turn
            and {
                "name": turn.name,
                "model": turn.model,
                "raw": turn.raw,
                "messages": [dict(message) for message in turn.messages],
                "text": turn.prompt.text,
                "turns": turn.turns,
            },
            "tokens": packed(self.tokens),
            "logprobs": self.logprobs,
            "ttft": self.ttft,
            "tries": self.tries,
            "end": self.end and self.end.to_wire(),
            "unsaved": self.unsaved,
        }

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Journalled:
        """Raises KeyError, TypeError or ValueError for what is none."""
        prompt, fidelity = unpacked(values["prompt"]), Fidelity.from_wire(values)
        request = rq.Request(
            sequence_id(values["sequence"]),
            prompt,
            _a(int, values["max_tokens"]),
            SamplingParams.from_wire(values["sampling"]),
            frozenset(_a(int, token) for token in values["stop_tokens"]),
            fidelity,
        )
        rq.check_request(request, None)
        digest, end = _a(str, values["digest"]), values["end"]
        turn = values["turn"] and _turn(values["turn"], digest, fidelity, prompt)
        ttft = values["ttft"]
        return cls(
            request,
            digest,
            tuple(_a(str, text) for text in values["stop"]),
            _a(bool, values["continues"]),
            _a(float, values["began"]),
            turn,
            list(unpacked(values["tokens"])),
            _a(list, values["logprobs"]),
            None if ttft is None else _a(float, ttft),
            _a(int, values["tries"]),
            end and End.from_wire(end),
            _a(bool, values["unsaved"]),
        )


def _turn(
    values: Mapping[str, Any], digest: str, fidelity: Fidelity, prompt: tuple[int, ...]
) -> RunningTurn:
    messages = tuple(
        {"role": _a(str, m["role"]), "content": _a(str, m["content"])} for m in values["messages"]
    )
    return RunningTurn(
        _a(str, values["name"]),
        _a(str, values["model"]),
        digest,
        _a(bool, values["raw"]),
        fidelity,
        messages,
        Prompt(_a(str, values["text"]), prompt),
        _a(int, values["turns"]),
    )


def packed(tokens: Sequence[int]) -> bytes:
    """int32, little-endian."""
    numbers = array("i", tokens)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unpacked(data: Any) -> tuple[int, ...]:
    """Raises ValueError or TypeError for what are no tokens."""
    numbers = array("i")
    numbers.frombytes(_a(bytes, data))  # ValueError when it is cut short
    if sys.byteorder == "big":
        numbers.byteswap()
    if numbers and min(numbers) < 0:
        raise ValueError("a token is negative")
    return tuple(numbers)


def sequence_id(value: Any) -> bytes:
    """Raises ValueError for what is none."""
    if type(value) is not bytes or len(value) != SEQUENCE_ID_BYTES:
        raise ValueError(f"{value!r:.80} is no sequence id")
    return value


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r:.40} is no {kind.__name__}")
    return value
