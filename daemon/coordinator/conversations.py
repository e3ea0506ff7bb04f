"""The conversations, by name: what each has said, and that no two turns of one run at a time.

Written down after each turn, by the desk; a disk that refuses costs the memory after a restart,
never a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon import logs
from daemon.coordinator.answer import EXIT_FAILED, EXIT_REFUSED, Answer, Refusal
from daemon.coordinator.archive import Archive
from daemon.coordinator.arguments import BadArguments, Generate, conversation_name
from daemon.coordinator.conversation import Conversation
from daemon.coordinator.loading import explained
from daemon.coordinator.models import ServedModel
from daemon.coordinator.running_turn import RunningTurn, begin
from daemon.fidelity import Fidelity

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

log = logs.get("conversations")

MOST = 1000  # that there may be
KEPT = 32  # in memory; the others are read when they go on


@dataclass(frozen=True, slots=True)
class Brief:
    """What is always at hand of one. `tokens`: of its last turn, prompt and answer."""

    model: str
    raw: bool
    fidelity: Fidelity
    turns: int
    tokens: int
    sequence: bytes
    updated: float


def _brief(c: Conversation) -> Brief:
    return Brief(c.model, c.raw, c.fidelity, c.turns, c.tokens, c.sequence, c.updated)


def unknown(name: str) -> Refusal:
    what, why = f"no conversation {name}", "it was forgotten, or never was"
    return Refusal(EXIT_FAILED, what, why, "see `shardctl kv list`")


class Conversations:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._archive = Archive(coordinator.config.node.state_dir / "conversations")
        self._known: dict[str, Brief | None] = dict.fromkeys(self._archive.names())  # None: unread
        self._kept: dict[str, Conversation] = {}  # the one used last at the end
        self._unsaved: dict[str, Conversation] = {}  # not on disk, or not yet
        self._running: set[str] = set()
        self._refused = False  # whether the disk refused the last write

    # --- what others ask ---

    def sequence_of(self, name: str) -> bytes | None:
        """The sequence of its last turn; None when there is no such conversation."""
        brief = self._known.get(name)
        return brief.sequence if brief else None

    def names(self) -> dict[bytes, list[str]]:
        """Of which conversations a sequence is the last turn."""
        found: dict[bytes, list[str]] = {}
        for name, brief in self._known.items():
            if brief:
                found.setdefault(brief.sequence, []).append(name)
        return found

    def recall(self, name: str, then: Callable[[Conversation], object], answer: Answer) -> None:
        """Call `then` with the conversation, read from the disk if need be; a failure goes to
        `answer`.
        """
        at_hand = self._at_hand(name)
        self._of.desk.submit(
            lambda: at_hand or self._archive.read(name),
            lambda found: then(found) if found else answer.refuse(unknown(name)),
            lambda error: answer.refuse(explained(f"conversation {name} cannot be used", error)),
        )

    # --- a turn ---

    def beginning(self, model: ServedModel, wanted: Generate) -> Callable[[], RunningTurn]:
        """The work that prepares a turn, for the desk. From now on until `left` or `ended` no other
        turn of it is taken. Refusal when one runs.
        """
        name = wanted.conversation or ""
        self._check_idle(name)
        if name not in self._known:
            self._check_new(name)
        self._running.add(name)
        at_hand, archive = self._at_hand(name), self._archive

        def work() -> RunningTurn:
            # One that is not known may have a file all the same, which this turn would replace.
            return begin(name, model, wanted, at_hand or archive.read(name))

        return work

    def goes_on(self, name: str) -> None:
        """A turn of it was begun under a coordinator before this one, and has not ended."""
        self._running.add(name)

    def left(self, name: str) -> None:
        """The turn came to nothing: the conversation is what it was."""
        self._running.discard(name)

    def ended(self, turn: RunningTurn, sequence: bytes, cut: bool) -> None:
        """The turn is part of the conversation now."""
        self._running.discard(turn.name)
        conversation = turn.ended(sequence, cut, time.time())
        self._remember(conversation)
        self._unsaved.pop(turn.name, None)
        self._unsaved[turn.name] = conversation
        self._of.saved_kv.keep(sequence)
        self._of.desk.submit(
            partial(self._archive.write, conversation),
            lambda _: self._written(conversation),
            lambda error: self._not_written(conversation, error),
        )

    def _at_hand(self, name: str) -> Conversation | None:
        return self._unsaved.get(name) or self._kept.get(name)

    def _check_idle(self, name: str) -> None:
        if name in self._running:
            what, why = f"conversation {name} is busy", "a turn of it has not ended"
            raise Refusal(EXIT_REFUSED, what, why, "wait for it, or end it: see `shardctl ps`")

    def _check_new(self, name: str) -> None:
        names = (*self._known, *self._running)
        alike = next((n for n in names if n.lower() == name.lower()), None)
        if alike:  # some file systems take them for the same
            what, why = f"there is a conversation {alike}", "names must differ in more than case"
            raise Refusal(EXIT_REFUSED, what, why, "use that name, or another")
        if len(self._known) >= MOST:
            what, why = f"there are {MOST} conversations", "more are not kept"
            raise Refusal(EXIT_REFUSED, what, why, "shardctl kv evict NAME --forget")

    def _remember(self, c: Conversation) -> None:
        self._known[c.name] = _brief(c)
        self._kept.pop(c.name, None)
        self._kept[c.name] = c
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    # --- the disk ---

    def scan(self) -> None:
        """Read what is on disk, one after the other: prompts wait at the same desk."""
        name = next((n for n, brief in self._known.items() if brief is None), None)
        if name is None:
            return
        self._of.desk.submit(
            partial(self._archive.read, name),
            partial(self._scanned, name),
            partial(self._not_scanned, name),
        )

    def _scanned(self, name: str, found: Conversation | None) -> None:
        if found and name in self._known and self._known[name] is None:
            self._known[name] = _brief(found)  # else it was forgotten, or went on, meanwhile
        self._drop_unread(name)
        self.scan()

    def _not_scanned(self, name: str, error: BaseException) -> None:
        self._drop_unread(name)
        refusal = explained(f"conversation {name} cannot be used", error)
        self._of.note("conversation-unusable", "", str(refusal))
        self.scan()

    def _drop_unread(self, name: str) -> None:
        if name in self._known and self._known[name] is None:
            del self._known[name]

    def _written(self, conversation: Conversation) -> None:
        self._refused = False
        self._of.journal.saved(conversation.sequence)
        if self._unsaved.get(conversation.name) is conversation:
            del self._unsaved[conversation.name]

    def _not_written(self, conversation: Conversation, error: BaseException) -> None:
        """It stays in memory as long as there is room."""
        path = self._archive.path(conversation.name)
        if not self._refused:
            what = f"{path} cannot be written ({error}): a restart would forget its last turn"
            self._of.note("conversation-unsaved", "", what)
        self._refused = True
        while len(self._unsaved) > KEPT:
            name = next(iter(self._unsaved))
            del self._unsaved[name]
            self._of.note("conversation-lost", "", f"{name}: its last turns are not on disk")

    def close(self) -> None:
        """After the desk has closed: what it did not come to."""
        for conversation in self._unsaved.values():
            try:
                self._archive.write(conversation)
            except OSError as error:
                path = self._archive.path(conversation.name)
                self._of.note("conversation-unsaved", "", f"{path} cannot be written ({error})")

    # --- verbs ---

    def listing(self, answer: Answer, arguments: dict[str, Any]) -> None:
        now = time.time()
        rows = [
            {
                "name": name,
                "model": brief.model,
                "raw": brief.raw,
                **brief.fidelity.to_wire(),
                "turns": brief.turns,
                "tokens": brief.tokens,
                "sequence": brief.sequence.hex(),
                "idle": max(0.0, now - brief.updated),
                "running": name in self._running,
                "saved": name not in self._unsaved,
            }
            for name, brief in sorted(self._known.items())
            if brief
        ]
        answer.reply({"conversations": rows})

    def forget(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """With its file, and what the nodes have saved of it."""
        name = conversation_name(arguments)
        if name is None:
            raise BadArguments("which conversation? give its name")
        self._check_idle(name)
        if name not in self._known:
            raise unknown(name)
        at_hand = self._at_hand(name)
        for held in (self._known, self._kept, self._unsaved):
            held.pop(name, None)

        def forgotten(found: Conversation | None) -> None:
            if found:
                self._of.saved_kv.forget(found.digest, found.fidelity, found.turn.tokens)
            answer.reply({"forgotten": name})

        self._of.desk.submit(
            partial(self._removed, name, at_hand),
            forgotten,
            lambda error: answer.refuse(explained(f"cannot forget {name}", error)),
        )

    def _removed(self, name: str, at_hand: Conversation | None) -> Conversation | None:
        """What it was, as far as that can be read. Work for the desk."""
        found = at_hand
        try:
            found = found or self._archive.read(name)
        except Refusal as refusal:
            log.warning("what is saved of %s stays on the disks: %s", name, refusal)
        self._archive.remove(name)
        return found

    def check_integrity(self) -> None:
        assert self._unsaved.keys() <= self._known.keys(), "conversations: unsaved, but unknown"
        assert self._kept.keys() <= self._known.keys(), "conversations: kept, but unknown"
        assert len(self._kept) <= KEPT, "conversations: too many kept"
