"""The coordinator's view of one request while it runs: its tokens, and how far they were computed.

Prefill and decode are the same thing here: the tokens of `history` from `issued` on are still to be
sent, and the span that contains the last of them asks for the next token. Guesses may be sent after
them; every position from the last known token on asks for the token that follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any

from daemon.history import History
from daemon.scheduler.refilling import Refilling
from daemon.scheduler.request import FinishReason, Request, Usage
from daemon.scheduler.speculation.acceptance import Acceptance
from daemon.scheduler.speculation.guesses import Guesses
from daemon.scheduler.speculation.lookup import Lookup
from transports.frame import Refill, Span


class SequenceStatus(Enum):
    WAITING = "waiting"
    PREFILL = "prefill"  # also when tokens it had already are computed again
    DECODE = "decode"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first `length` tokens are those of another sequence, and are to be forked from it."""

    source: bytes
    length: int


class Sequence:
    """`history` is the only truth; everything else says how far this attempt has got.

    guesses    what is assumed to follow the history; some of them may be sent. `refuted`: one that
               was sent is wrong, and what came after it is not to be used
    issued     end of what was sent in this attempt, guesses included
    confirmed  every stage holds the tokens before this, as far as results of this attempt tell
    proven     the same, as a result has told, and nothing since then against it
    peak       the most that any attempt sent: how much the stages may hold
    furthest   the highest `confirmed` of any attempt; `regained`: since an attempt last had to
               begin before what was confirmed, as after a stage was lost. That is progress too,
               for back-off and for giving up
    refilling  what some stages alone are to compute first in this attempt, until results say that
               they have
    repeats    re-issues since `regained` last rose; `fruitless`: all but those of a link that is
               down; `falls` back, and `failures` to compute, since `furthest` last rose
    tried      something of it was sent in this layout, and has not come back
    downs      layouts that went down after it was tried in them, since `furthest` last rose: it may
               be what ends the stages; `alone`: it is computed alone, to find out whether it is
               what ends them, or what fails
    prefix     what the first span of an attempt forks, until every stage is known to have done so;
               `cached`: tokens of the prompt that were not computed; `origin`: forked from it
    reserved   tokens that it has a place for in the stages' memory
    leader     while it waits: whose prompt is computed, to be forked from it
    listed     whether the index has been told of its prompt; `pinned`: it stays there
    given      tokens of the answer that were known when it came here
    inherited  the most that every stage may hold of it from under a coordinator before this one,
               as far as they have said; None for one that began here, and once it was admitted
    """

    def __init__(
        self,
        request: Request,
        now: float,
        acceptance: Acceptance | None = None,
        given: tuple[int, ...] | None = None,
    ) -> None:
        """`given`: it was begun under a coordinator before this one, and these tokens of the answer
        are known.
        """
        self.id = request.sequence
        self.number = 0  # in the order of arrival
        self.request = request
        self.prompt_length = len(request.prompt)
        self.history = History((*request.prompt, *(given or ())))
        self.guesses = Guesses()
        self.lookup = Lookup()
        self.acceptance = acceptance or Acceptance()
        self.refuted = False
        self.constants: Mapping[str, Any] = {
            "sampling": request.params.to_wire(),
            **request.fidelity.to_wire(),
        }
        self.status = SequenceStatus.WAITING
        self.attempt = 0
        self.issued = 0
        self.confirmed = 0
        self.proven = 0
        self.peak = 0
        self.furthest = 0
        self.regained = 0
        self.refilling: Refilling | None = None
        self.prefix: Prefix | None = None
        self.cached = 0
        self.origin: bytes | None = None
        self.reserved = 0
        self.leader: Sequence | None = None
        self.listed = False
        self.pinned = False
        self.preemptions = 0
        self.repeats = 0
        self.fruitless = 0
        self.falls = 0
        self.failures = 0
        self.tried = False
        self.downs = 0
        self.alone = False
        self.reissues = 0
        self.constants_due = True
        self.generated = self.given = len(given or ())
        self.inherited = None if given is None else len(self.history)
        self.submitted = now
        self.admitted: float | None = None
        self.first_token: float | None = None

    @property
    def remaining(self) -> int:
        """Tokens that are known but not yet sent in this attempt."""
        return max(0, len(self.history) - self.issued)

    @property
    def refill(self) -> Refill | None:
        """Who the next span is for, if not all stages."""
        refilling = self.refilling
        return refilling.stages if refilling and self.issued < refilling.until else None

    @property
    def due(self) -> int:
        """Of those, how many the next span may have."""
        refilling = self.refilling
        if refilling and self.issued < refilling.until:
            return refilling.until - self.issued
        return self.remaining

    @property
    def assumed(self) -> int:
        """Guesses that were sent."""
        return max(0, self.issued - len(self.history))

    def guess_room(self, context_length: int) -> int:
        """How many guesses can be of use, or have a place."""
        end = min(self.prompt_length + self.request.max_tokens, context_length)
        return max(0, min(self.reserved, end - 1) - len(self.history))

    def guess(self, tokens: Iterable[int]) -> None:
        """Assume that these follow the history and the guesses before."""
        self.guesses.extend(self.history.hash_at(len(self.history)), tokens)

    def hash_at(self, position: int) -> int:
        """Hash of the tokens before `position`, guesses included."""
        beyond = position - len(self.history)
        return self.guesses.hash_at(beyond) if beyond > 0 else self.history.hash_at(position)

    def span(self, length: int) -> tuple[Span, list[int]]:
        """The next `length` tokens, known ones and guesses, as they are sent."""
        start, known = self.issued, len(self.history)
        end = start + length
        tokens = self.history.tokens[start:end]
        if end > known:
            tokens += islice(self.guesses.tokens, max(0, start - known), end - known)
        outputs = max(0, end - max(start, known - 1))
        span = Span(self.id, self.attempt, start, length, self.hash_at(start), outputs)
        return span, tokens

    def room(self, more: int) -> int:
        """Tokens that it has or will have after `more` steps."""
        return min(len(self.history) + more, self.prompt_length + self.request.max_tokens)

    def begin_attempt(self, position: int, refilling: Refilling | None = None) -> None:
        """Start over from `position`, some stages alone at first if `refilling`. At least the last
        token is computed again by all: the next one comes from it.
        """
        self.attempt += 1
        self.guesses.clear()
        self.refuted = False
        self.peak = max(self.peak, self.issued)
        self.issued = self.confirmed = max(0, min(position, len(self.history) - 1))
        self.proven = min(self.proven, self.issued)
        if self.issued < self.regained:
            self.falls += 1
            self.regained = self.issued
        self.refilling = refilling if refilling and self.issued < refilling.until else None
        whole = self.refilling.until if self.refilling else self.issued
        if self.prefix and whole < self.prefix.length:
            self.prefix = Prefix(self.prefix.source, whole) if whole else None
            self.cached = min(self.cached, whole)
        self.constants_due = True
        decoding = self.remaining == 1 and self.generated > 0
        self.status = SequenceStatus.DECODE if decoding else SequenceStatus.PREFILL

    def confirm(self, position: int) -> None:
        """Every stage holds the tokens before `position`."""
        self.confirmed = self.proven = max(self.confirmed, position)
        self.tried = self.confirmed < self.issued
        if self.refilling and self.confirmed >= self.refilling.until:
            self.refilling = None
        if self.confirmed > self.regained:
            self.regained = self.confirmed
            self.repeats = self.fruitless = 0
        if self.confirmed > self.furthest:
            self.furthest = self.confirmed
            self.downs, self.alone = 0, False
            self.forgive()

    def wait_again(self) -> None:
        """The stages forget it, attempts up to this one included; its tokens stay."""
        self.attempt += 1
        self.guesses.clear()
        self.issued = self.confirmed = self.proven = self.peak = self.reserved = 0
        self.regained = 0  # the fall is no fault of its own
        self.prefix, self.refilling, self.listed = None, None, False
        self.preemptions += 1
        self.status = SequenceStatus.WAITING

    def forgive(self) -> None:
        """There was progress, or a new layout."""
        self.repeats = self.failures = self.fruitless = self.falls = 0

    def accept(
        self, tokens: tuple[int, ...], context_length: int, now: float
    ) -> tuple[FinishReason | None, tuple[int, ...]]:
        """Enter new tokens, up to one that refutes a guess: those after it follow from what did not
        happen. Returns why the sequence ends with them, if so, and which of them are to be
        delivered.
        """
        for count, token in enumerate(tokens):
            if self.guesses:
                self._judge(token)
            self.history.extend((token,))
            self.generated += 1
            self.status = SequenceStatus.DECODE
            if self.first_token is None:
                self.first_token = now
            if token in self.request.stop_tokens:
                return FinishReason.STOP, tokens[:count]
            full = len(self.history) >= context_length
            if full or self.generated >= self.request.max_tokens:
                return FinishReason.LENGTH, tokens[: count + 1]
            if self.refuted:
                return None, tokens[: count + 1]
        return None, tokens

    def _judge(self, token: int) -> None:
        right = self.guesses.matches(token)
        self.acceptance.judge(right)
        if not right:
            self.refuted = self.issued > len(self.history)
            self.guesses.clear()

    def usage(self, now: float) -> Usage:
        admitted = now if self.admitted is None else self.admitted
        first = None if self.first_token is None else self.first_token - self.submitted
        return Usage(
            prompt_tokens=self.prompt_length,
            completion_tokens=self.generated,
            cached_tokens=self.cached,
            reissues=self.reissues,
            waiting_seconds=admitted - self.submitted,
            first_token_seconds=first,
            total_seconds=now - self.submitted,
        )

    def check_integrity(self) -> None:
        known = len(self.history)
        assert 0 <= self.confirmed <= self.issued <= known + len(self.guesses), "sequence: issued"
        assert self.confirmed < max(known, 1), "sequence: the last token is computed, and none new"
        self.guesses.check_integrity(self.history.hash_at(known))
        assert self.proven <= self.confirmed, "sequence: proven, but not confirmed"
        if self.refilling:
            assert self.confirmed < self.refilling.until < known, "sequence: refilling"
        whole = self.refilling.until if self.refilling else self.issued
        assert self.prefix is None or self.prefix.length <= whole, "sequence: prefix"
        assert len(self.history) == self.prompt_length + self.generated, "sequence: tokens"
        if self.status is SequenceStatus.WAITING:
            assert self.issued == self.reserved == 0, "sequence: waits, but was issued"
