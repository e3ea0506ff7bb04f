"""How shardctl ends, and what it says when it does not end well."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """The exit statuses of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DEGRADED = 3
    UNREACHABLE = 4
    REFUSED = 5
    TIMEOUT = 6


class CommandError(Exception):
    """A command ends here: what went wrong, why, and what the operator can do about it."""

    def __init__(self, code: int, what: str, why: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.todo = todo

    def line(self) -> str:
        """The error as one line of text; parts that are empty are left out."""
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.todo:
            text += f"; {self.todo}"
        return "error: " + one_line(text)

    def record(self) -> dict[str, Any]:
        """The error as the JSON document that `-o json` puts on stderr."""
        return {
            "schema": 1,
            "error": {
                "code": int(self.code),
                "what": self.what,
                "why": self.why or None,
                "todo": self.todo or None,
            },
        }


def one_line(text: str) -> str:
    """`text` without line breaks and without characters that steer a terminal."""
    joined = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in joined)


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived. Not an Exception: nothing but the top, and what must clean
    up on the way, may catch it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.code = 128 + signum
