"""What a kv command was pointed at: a conversation, or a sequence by the start of its id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctl.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from ctl.client import Client

Row = dict[str, Any]
SEQUENCE = re.compile(r"[0-9a-fA-F]{1,32}")
LIST = "see `shardctl kv list`"


@dataclass(frozen=True)
class Target:
    """`word` is what was written, `sequence` the start of an id: of a conversation the whole id of
    its last turn.
    """

    word: str
    sequence: str
    conversation: Row | None

    def argument(self, key: str = "sequence") -> dict[str, str]:
        """As the coordinator's verbs take it."""
        if self.conversation is not None:
            return {"conversation": self.word}
        return {key: self.sequence}

    def of(self, rows: list[Row]) -> list[Row]:
        """Those that are meant."""
        return [row for row in rows if id_of(row).startswith(self.sequence)]

    def one_of(self, entries: list[Row]) -> Row:
        """The one entry that the coordinator would take; by its rules."""
        found = self.of(entries)
        if not found:
            raise unheld(self.word)
        if len(found) > 1:
            raise ambiguous(self.word, len(found))
        return found[0]

    def held(self, client: Client) -> Row:
        """That entry, of those there are now."""
        return self.one_of(client.request("kv").get("entries") or [])


def id_of(row: Row) -> str:
    """What is on the disks only is no sequence, and has an id of its own."""
    return str(row.get("sequence") or row.get("entry"))


def target(client: Client, word: str) -> Target:
    """The conversation of that name, else the sequence: a name may look like an id."""
    for conversation in client.request("conversation.list")["conversations"]:
        if conversation.get("name") == word:
            return Target(word, str(conversation.get("sequence")), conversation)
    if SEQUENCE.fullmatch(word):
        return Target(word, word.lower(), None)
    why = "no conversation has that name, and it is no sequence's id"
    raise CommandError(ExitCode.FAILED, f"unknown {word!r}", why, LIST)


def unheld(word: str) -> CommandError:
    return CommandError(ExitCode.FAILED, f"no KV of {word!r}", "no stage holds any", LIST)


def ambiguous(word: str, count: int) -> CommandError:
    why = f"{count} sequences start like that"
    return CommandError(ExitCode.USAGE, f"unclear {word!r}", why, "give more of the id")
