"""What shardctl asks for of saved KV: `kv.save` and `kv.load`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from daemon.coordinator.answer import EXIT_DEGRADED, EXIT_FAILED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, conversation_name, typed
from daemon.coordinator.conversation import Conversation
from daemon.coordinator.conversations import unknown
from daemon.coordinator.saved_kv import Held, Outcome
from daemon.scheduler.stored import MIN_STORED, Stored

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator


class KvVerbs:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator

    def save(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """Answered when every stage has its part on the disk."""
        if refusal := self._down("cannot save"):
            raise refusal
        found = self._one_held(arguments)
        if (count := len(found.tokens)) < MIN_STORED:
            what, why = (
                f"cannot save sequence {found.sequence.hex()[:8]}",
                f"the stages hold {count} tokens of it",
            )
            todo = f"with fewer than {MIN_STORED} nothing would be won"
            raise Refusal(EXIT_FAILED, what, why, todo)
        self._of.saved_kv.save(found, lambda outcome: _tell(answer, outcome, "save"))

    def _one_held(self, arguments: Mapping[str, Any]) -> Held:
        held = {one.sequence.hex(): one for one in self._held()}
        if name := conversation_name(arguments):
            sequence = self._of.clients.conversations.sequence_of(name)
            if sequence is None:
                raise unknown(name)
            if sequence.hex() not in held:
                what, why = f"cannot save {name}", "the stages hold nothing of it"
                raise Refusal(EXIT_FAILED, what, why, "see `shardctl kv` for what is held")
            return held[sequence.hex()]
        prefix = _prefix(arguments, "sequence")
        return held[_only(held, prefix, "sequence", "see `shardctl kv` for what is held")]

    def load(self, answer: Answer, arguments: dict[str, Any]) -> None:
        """Answered when every stage holds it; with `dry_run` at once, by what would be read. Of a
        conversation: what has most of it.
        """
        dry_run = typed(arguments, "dry_run", bool, False)
        if name := conversation_name(arguments):
            conversations = self._of.clients.conversations
            conversations.recall(name, lambda found: self._load_of(answer, found, dry_run), answer)
            return
        prefix = _prefix(arguments, "entry")
        known = self._of.saved_kv.disks.index.entries
        found = known[_only(known, prefix, "saved entry", "see `shardctl kv` for what is saved")]
        self._load(answer, found, dry_run)

    def _load_of(self, answer: Answer, conversation: Conversation, dry_run: bool) -> None:
        disks, reach = self._of.saved_kv.disks, self._of.scheduler.residency.memory.reach
        tokens = (*conversation.turn.tokens, 0)  # any that follows
        found = disks.index.match(conversation.fidelity, tokens, disks.layers, reach)
        if found is None:
            what, why = f"nothing of {conversation.name} is saved", "it was removed, or never was"
            answer.fail(EXIT_FAILED, what, why, "see `shardctl kv` for what is saved")
            return
        self._load(answer, found[0], dry_run)

    def _load(self, answer: Answer, stored: Stored, dry_run: bool) -> None:
        if refusal := self._down("cannot load"):  # perhaps only since it was asked for
            answer.refuse(refusal)
        elif dry_run:
            answer.reply(_view(None, stored.entry, stored.length, stored.nbytes, None))
        else:
            self._of.saved_kv.load(stored, lambda outcome: _tell(answer, outcome, "load"))

    def _held(self) -> Iterable[Held]:
        """What is kept, and what runs, as far as its results have come: so much every stage has."""
        for entry in self._of.scheduler.residency.index.kept:
            yield Held(entry.sequence, entry.fidelity, entry.tokens)
        for sequence in self._of.scheduler.sequences():
            tokens = tuple(sequence.history.tokens[: sequence.proven])
            yield Held(sequence.id, sequence.request.fidelity, tokens)

    def _down(self, what: str) -> Refusal | None:
        if self._of.cluster.up:
            return None
        why, todo = self._of.cluster.why_down, "ask again when `shardctl status` says ready"
        return Refusal(EXIT_DEGRADED, what, why, todo)


def _prefix(arguments: Mapping[str, Any], name: str) -> str:
    prefix = typed(arguments, name, str, "")
    if not prefix:
        raise BadArguments(f"{name} is missing")
    return str(prefix).lower()


def _only(known: Iterable[str], prefix: str, kind: str, todo: str) -> str:
    """The one id that begins so."""
    found = [name for name in known if name.startswith(prefix)]
    if len(found) != 1:
        why = "none begins so" if not found else f"{len(found)} begin so"
        raise Refusal(EXIT_FAILED, f"no {kind} {prefix}", why, todo)
    return found[0]


def _tell(answer: Answer, outcome: Outcome, verb: str) -> None:
    if outcome.why:
        what = f"cannot {verb} {outcome.entry[:8]}"
        answer.fail(EXIT_FAILED, what, outcome.why, "see `shardctl logs` of these nodes")
        return
    sequence, tokens = outcome.sequence.hex(), outcome.tokens
    answer.reply(_view(sequence, outcome.entry, tokens, outcome.nbytes, outcome.seconds))


def _view(
    sequence: str | None, entry: str, tokens: int, nbytes: int, seconds: float | None
) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "entry": entry,
        "tokens": tokens,
        "bytes": nbytes,
        "seconds": seconds,
    }
