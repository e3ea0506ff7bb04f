"""Where the answer to one request of a client goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from daemon import messages as msg

EXIT_FAILED, EXIT_USAGE, EXIT_DEGRADED, EXIT_REFUSED = 1, 2, 3, 5


class Refusal(Exception):
    """A verb cannot be carried out: the fields of a Failure."""

    def __init__(self, code: int, what: str, why: str, todo: str) -> None:
        super().__init__(f"{what}: {why}; {todo}")
        self.code, self.what, self.why, self.todo = code, what, why, todo


@dataclass(frozen=True, slots=True)
class Answer:
    """Every method returns False when the client is not connected any more."""

    say: Callable[[bytes, msg.Message], bool]
    client: bytes
    request: int

    def chunk(self, data: dict[str, Any]) -> bool:
        return self.say(self.client, msg.Chunk(self.request, data))

    def measuring(self, nodes: list[str]) -> bool:
        """These measure themselves first, which takes seconds."""
        return self.chunk({"measuring": nodes})

    def reply(self, data: dict[str, Any]) -> bool:
        return self.say(self.client, msg.Reply(self.request, data))

    def fail(self, code: int, what: str, why: str, todo: str) -> bool:
        return self.say(self.client, msg.Failure(self.request, code, what, why, todo))

    def refuse(self, refusal: Refusal) -> bool:
        return self.fail(refusal.code, refusal.what, refusal.why, refusal.todo)
