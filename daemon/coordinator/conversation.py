"""What is remembered of one conversation between its turns, and how it is written down."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.coordinator.turns import Prompt, Turn
from daemon.fidelity import Fidelity
from transports.frame import SEQUENCE_ID_BYTES

VERSION = 1
NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")


class Damaged(ValueError):
    """A file that is not the conversation it should be; the text says why."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Up to the end of a turn.

    raw        it has no messages: its text goes on as it is
    digest     of the model that its tokens belong to; `model` is its name, for people
    fidelity   of the last turn
    messages   all of them, the last answer too
    sequence   of the last turn: who holds its KV calls it so
    updated    Unix time
    """

    name: str
    model: str
    digest: str
    raw: bool
    fidelity: Fidelity
    messages: tuple[Mapping[str, str], ...]
    turn: Turn
    sequence: bytes
    turns: int
    updated: float

    @property
    def tokens(self) -> int:
        """How many it has, prompt and answer of the last turn together."""
        return len(self.turn.tokens)


def to_text(conversation: Conversation) -> str:
    """As one JSON document with a checksum."""
    c, turn = conversation, conversation.turn
    body = {
        "name": c.name,
        "model": c.model,
        "digest": c.digest,
        "raw": c.raw,
        **c.fidelity.to_wire(),
        "messages": [dict(message) for message in c.messages],
        "prompt": {"text": turn.prompt.text, "tokens": _packed(turn.prompt.tokens)},
        "reply": {
            "tokens": _packed(turn.reply),
            "text": turn.shown,
            "cut": turn.cut,
        },
        "sequence": c.sequence.hex(),
        "turns": c.turns,
        "updated": c.updated,
    }
    return json.dumps({"version": VERSION, "sha256": _checksum(body), "conversation": body})


def from_text(text: str, name: str) -> Conversation:
    """Raise Damaged unless it is the conversation of that name, whole and unchanged."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"not JSON ({error})") from error
    _require(isinstance(whole, dict), "not a conversation")
    _require(whole.get("version") == VERSION, f"version {whole.get('version')!r:.20}")
    body = whole.get("conversation")
    _require(isinstance(body, dict), "no conversation in it")
    _require(whole.get("sha256") == _checksum(body), "its checksum is another")
    try:
        found = _read(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"a value is missing or wrong ({error})") from error
    _require(found.name == name, f"it is that of {found.name!r:.80}")
    return found


def _read(body: Mapping[str, Any]) -> Conversation:
    prompt, reply = body["prompt"], body["reply"]
    turn = Turn(
        Prompt(_a(str, prompt["text"]), _unpacked(prompt["tokens"])),
        _unpacked(reply["tokens"]),
        _a(str, reply["text"]),
        _a(bool, reply["cut"]),
    )
    _require(bool(turn.prompt.tokens), "its prompt is empty")
    messages = tuple(
        {"role": _a(str, m["role"]), "content": _a(str, m["content"])}
        for m in _a(list, body["messages"])
    )
    sequence = bytes.fromhex(_a(str, body["sequence"]))
    _require(len(sequence) == SEQUENCE_ID_BYTES, "its sequence is none")
    _require(NAME.fullmatch(_a(str, body["name"])) is not None, "its name is none")
    return Conversation(
        body["name"],
        _a(str, body["model"]),
        _a(str, body["digest"]),
        _a(bool, body["raw"]),
        Fidelity.from_wire(body),
        messages,
        turn,
        sequence,
        _a(int, body["turns"]),
        float(_a(float, body["updated"])),
    )


def _a(kind: type, value: Any) -> Any:
    _require(type(value) is kind, f"{value!r:.40} is no {kind.__name__}")
    return value


def _packed(tokens: tuple[int, ...]) -> str:
    """int32, little-endian, base64: numbers of JSON would hold up the whole process for long
    conversations.
    """
    return base64.b64encode(struct.pack(f"<{len(tokens)}i", *tokens)).decode("ascii")


def _unpacked(text: Any) -> tuple[int, ...]:
    data = base64.b64decode(_a(str, text), validate=True)
    _require(len(data) % 4 == 0, "its tokens are cut short")
    tokens = struct.unpack(f"<{len(data) // 4}i", data)
    _require(not tokens or min(tokens) >= 0, "a token is negative")
    return tokens


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise Damaged(why)


def _checksum(body: Mapping[str, Any]) -> str:
    plain = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
