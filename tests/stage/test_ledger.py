"""The frame rule at a stage: (what it knows, what comes) -> what it does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from daemon.history import History
from daemon.stage.ledger import Compute, Skip, SpanLedger
from transports.frame import Departure, Fork, Reason, Span

A, B = b"a" * 16, b"b" * 16
TOKENS = (11, 12, 13, 14, 15, 16, 17, 18)
STAGE = 2
CONSTANTS = {"seed": 7}


def span(attempt: int, position: int, length: int, tokens: tuple[int, ...] = TOKENS) -> Span:
    """Tokens [position, position + length) of a sequence that is `tokens`."""
    return Span(A, attempt, position, length, History(tokens).hash_at(position))


@dataclass(frozen=True)
class Come:
    """A span comes, first in its attempt or not."""

    attempt: int
    position: int
    length: int
    tokens: tuple[int, ...] = TOKENS
    constants: bool = True


@dataclass(frozen=True)
class Revoked:
    attempt: int


@dataclass(frozen=True)
class Forgotten:
    """The span that came last could not be computed."""

    held: int


@dataclass(frozen=True)
class Released:
    """Up to an attempt: the sequence may come back with a later one."""

    attempt: int


@dataclass(frozen=True)
class Forked:
    """From B, which is `tokens`."""

    attempt: int
    length: int
    tokens: tuple[int, ...] = TOKENS


RELEASED = "released"
CLEARED = "cleared"
OTHER = (11, 12, 99, 14, 15, 16, 17, 18)

TABLE = [
    # name, what happened before, what comes, answer, tokens held after
    ("first span", [], Come(1, 0, 4), 0, 4),
    ("next span", [Come(1, 0, 4)], Come(1, 4, 2, constants=False), 4, 6),
    ("unknown, not from 0", [], Come(1, 4, 2), (Reason.MISSING, 0), 0),
    ("no constants", [], Come(1, 0, 4, constants=False), (Reason.MISSING, 0), 0),
    ("gap", [Come(1, 0, 2)], Come(1, 4, 2), (Reason.MISSING, 2), 2),
    ("gap in a new attempt", [Come(1, 0, 2)], Come(2, 4, 2), (Reason.MISSING, 2), 2),
    ("second after a gap", [Come(1, 0, 2), Come(1, 4, 2)], Come(1, 6, 1), (Reason.STALE, 2), 2),
    ("right one after a gap", [Come(1, 0, 2), Come(1, 4, 2)], Come(1, 2, 2), (Reason.STALE, 2), 2),
    ("new attempt after a gap", [Come(1, 0, 2), Come(1, 4, 2)], Come(2, 2, 2), 2, 4),
    ("duplicate", [Come(1, 0, 4)], Come(1, 0, 4), (Reason.DUPLICATE, 4), 4),
    ("back in an attempt", [Come(1, 0, 4)], Come(1, 2, 4), (Reason.DUPLICATE, 4), 4),
    ("back in a new attempt", [Come(1, 0, 4)], Come(2, 2, 4), 2, 6),
    ("back to 0", [Come(1, 0, 4)], Come(2, 0, 2), 0, 2),
    ("first of the attempt lost", [Come(1, 0, 6)], Come(2, 4, 3, constants=False), 4, 7),
    ("overtaken in its attempt", [Come(1, 0, 6), Come(2, 4, 3)], Come(2, 2, 2),
     (Reason.DUPLICATE, 7), 7),
    ("old attempt", [Come(2, 0, 4)], Come(1, 4, 2), (Reason.STALE, 4), 4),
    ("other tokens before", [Come(1, 0, 4)], Come(2, 4, 2, OTHER), (Reason.MISSING, 3), 4),
    ("other tokens still", [Come(1, 0, 4), Come(2, 4, 2, OTHER)], Come(3, 3, 2, OTHER),
     (Reason.MISSING, 0), 4),
    ("other tokens, cut off", [Come(1, 0, 4), Come(2, 4, 2, OTHER)], Come(3, 2, 3, OTHER), 2, 5),
    ("other tokens once more", [Come(1, 0, 4), Come(2, 4, 2, OTHER), Come(3, 2, 3, OTHER)],
     Come(4, 5, 1), (Reason.MISSING, 4), 5),
    ("other tokens, same before", [Come(1, 0, 4)], Come(2, 2, 4, OTHER), 2, 6),
    ("other tokens, from 0", [Come(1, 0, 4)], Come(2, 0, 4, OTHER), 0, 4),
    ("revoked", [Come(1, 0, 4), Revoked(2)], Come(1, 4, 2), (Reason.STALE, 4), 4),
    ("live after a revoke", [Come(1, 0, 4), Revoked(2)], Come(2, 1, 2), 1, 3),
    ("revoke of the present", [Come(2, 0, 4), Revoked(2)], Come(2, 4, 2), 4, 6),
    ("revoke of the past", [Come(2, 0, 4), Revoked(1)], Come(2, 4, 2), 4, 6),
    ("revoke of a refused one", [Come(1, 4, 2), Revoked(1)], Come(1, 0, 2), (Reason.STALE, 0), 0),
    ("after a failure", [Come(1, 0, 4), Forgotten(0)], Come(1, 4, 2), (Reason.STALE, 0), 0),
    ("issued again", [Come(1, 0, 4), Forgotten(3)], Come(2, 3, 2), 3, 5),
    ("released", [Come(1, 0, 4), RELEASED], Come(2, 4, 2), (Reason.CANCELLED, 0), None),
    ("released unseen", [RELEASED], Come(1, 0, 4), (Reason.CANCELLED, 0), None),
    ("released and cleared", [RELEASED, CLEARED], Come(1, 0, 4), (Reason.CANCELLED, 0), None),
    ("preempted", [Come(1, 0, 4), Released(2)], Come(2, 4, 2), (Reason.CANCELLED, 0), None),
    ("preempted, back", [Come(1, 0, 4), Released(2)], Come(3, 0, 4), 0, 4),
    ("preempted, back, released again", [Come(3, 0, 4), Released(2)], Come(3, 4, 1), 4, 5),
    ("preempted, back, old frame", [Come(1, 0, 4), Released(1), Come(3, 0, 4)], Come(2, 4, 1),
     (Reason.STALE, 4), 4),
    ("preempted, ended, back", [Released(2), RELEASED, Released(1)], Come(9, 0, 4),
     (Reason.CANCELLED, 0), None),
    ("forked", [Forked(1, 4)], Come(1, 4, 2), 4, 6),
    ("forked too little", [Forked(1, 3)], Come(1, 4, 2), (Reason.MISSING, 3), 3),
    ("forked, other tokens", [Forked(1, 4, OTHER)], Come(1, 4, 2), (Reason.MISSING, 3), 4),
    ("forked twice", [Forked(1, 4), Come(1, 4, 2), Forked(1, 4)], Come(1, 6, 1), 6, 7),
    ("forked again in a later attempt", [Forked(1, 4), Come(1, 4, 2), Forked(2, 4)],
     Come(2, 4, 2), 4, 6),
    ("forked, its first span lost", [Forked(1, 4)], Come(1, 6, 1), (Reason.MISSING, 4), 4),
    ("forked, constants lost", [Forked(1, 4)], Come(1, 3, 1, constants=False),
     (Reason.MISSING, 3), 4),
    ("forked after a refusal", [Come(1, 6, 1), Forked(2, 4)], Come(2, 4, 2), 4, 6),
    ("forked in a dead attempt", [Come(1, 4, 2), Revoked(3), Forked(2, 4)], Come(3, 4, 2),
     (Reason.MISSING, 0), 0),
    ("forked, but released", [RELEASED, Forked(1, 4)], Come(1, 4, 2), (Reason.CANCELLED, 0), None),
    ("forked, but preempted", [Released(1), Forked(1, 4)], Come(2, 4, 2), (Reason.MISSING, 0), 0),
    ("preempted, then forked", [Come(1, 0, 4), Released(1), Forked(2, 4)], Come(2, 4, 2), 4, 6),
    ("cleared", [Come(1, 0, 4), CLEARED], Come(1, 4, 2), (Reason.MISSING, 0), 0),
    ("cleared, from 0", [Come(3, 0, 4), CLEARED], Come(4, 0, 2), 0, 2),
]  # fmt: skip


def come(ledger: SpanLedger, event: Come) -> Compute | Skip:
    end = event.position + event.length
    return ledger.admit(
        span(event.attempt, event.position, event.length, event.tokens),
        event.tokens[event.position : end],
        CONSTANTS if event.constants else None,
    )


def fork(ledger: SpanLedger, event: Forked) -> None:
    """As a worker does it whose caches hold what its ledger says."""
    source = Span(B, 1, 0, len(event.tokens), 0)
    if B not in ledger:
        ledger.admit(source, event.tokens, CONSTANTS)
    command = Fork(B, A, event.attempt, event.length)
    if ledger.can_fork(command):
        ledger.fork(command, event.length)


@pytest.mark.parametrize(("name", "before", "event", "answer", "held"), TABLE)
def test_table(name: str, before: list[object], event: Come, answer: object, held: object) -> None:
    ledger = SpanLedger(STAGE)
    last: Span | None = None
    for past in before:
        match past:
            case Come():
                come(ledger, past)
                last = span(past.attempt, past.position, past.length, past.tokens)
            case Revoked(attempt):
                ledger.revoke(A, attempt)
            case Forgotten(kept):
                assert last is not None
                ledger.forget(last, kept, Reason.FAILED)
            case Released(attempt):
                ledger.release(A, attempt)
            case Forked():
                fork(ledger, past)
            case "released":
                ledger.release(A)
            case "cleared":
                ledger.clear()
        ledger.check_integrity()
    got = come(ledger, event)
    ledger.check_integrity()
    if isinstance(answer, int):
        assert got == Compute(trim_to=answer)
    else:
        assert isinstance(answer, tuple)
        assert got == Skip(Departure(A, event.attempt, STAGE, answer[0], answer[1]))
        assert ledger.counts[answer[0]] > 0
    assert ledger.held().get(A) == held


def test_tokens_and_constants_are_those_of_the_span() -> None:
    ledger = SpanLedger(0)
    come(ledger, Come(1, 0, 4))
    come(ledger, Come(2, 2, 3, OTHER))
    assert list(ledger.tokens(A)) == [11, 12, 99, 14, 15]
    assert ledger.constants(A) == CONSTANTS
    with pytest.raises(KeyError):
        ledger.constants(B)


def test_new_constants_replace_old_ones() -> None:
    ledger = SpanLedger(0)
    come(ledger, Come(1, 0, 4))
    ledger.admit(span(2, 4, 1), TOKENS[4:5], {"seed": 8})
    assert ledger.constants(A) == {"seed": 8}


def test_forgetting_counts_and_answers() -> None:
    ledger = SpanLedger(STAGE)
    come(ledger, Come(1, 0, 4))
    departure = ledger.forget(span(1, 0, 4), 1, Reason.MISSING)
    assert departure == Departure(A, 1, STAGE, Reason.MISSING, 1)
    assert ledger.counts[Reason.MISSING] == 1
    assert ledger.held() == {A: 1}


def test_release_says_whether_there_was_something() -> None:
    ledger = SpanLedger(0)
    come(ledger, Come(1, 0, 4))
    assert A in ledger
    assert ledger.release(A)
    assert not ledger.release(A)
    assert len(ledger) == 0


def test_a_fork_of_the_unknown_leaves_the_target_unknown() -> None:
    ledger = SpanLedger(0)
    assert not ledger.can_fork(Fork(B, A, 1, 4))
    assert A not in ledger


def test_source_and_target_go_their_own_ways() -> None:
    ledger = SpanLedger(0)
    fork(ledger, Forked(1, 4))
    ledger.admit(Span(B, 2, 2, 1, History(TOKENS).hash_at(2)), (77,), None)
    come(ledger, Come(1, 4, 2))
    ledger.check_integrity()
    assert list(ledger.tokens(B)) == [11, 12, 77]
    assert list(ledger.tokens(A)) == list(TOKENS[:6])
    ledger.release(B)
    assert list(ledger.tokens(A)) == list(TOKENS[:6])


def test_revoke_leaves_the_unknown_unknown() -> None:
    ledger = SpanLedger(0)
    ledger.revoke(A, 3)
    assert A not in ledger


def test_tombstones_are_bounded_and_the_oldest_goes_first() -> None:
    ledger = SpanLedger(0, tombstones=2)
    for sequence in (A, B, A, b"c" * 16):  # A was released again, so B is the oldest
        ledger.release(sequence)
        ledger.check_integrity()
    assert isinstance(come(ledger, Come(1, 0, 4)), Skip)
    late = Span(B, 1, 0, 1, 0)
    assert isinstance(ledger.admit(late, (1,), CONSTANTS), Compute)


def test_a_coordinator_of_a_higher_term_counts_attempts_from_the_beginning() -> None:
    ledger = SpanLedger(STAGE)
    ledger.obey(3)
    assert ledger.admit(span(7, 0, 4), TOKENS[:4], CONSTANTS) == Compute(0)
    ledger.release(B)
    ledger.obey(3)
    assert isinstance(ledger.admit(span(1, 4, 1), TOKENS[4:5], None), Skip), "an old attempt"
    ledger.obey(4)
    assert ledger.held() == {A: 4}
    assert ledger.admit(span(1, 4, 1), TOKENS[4:5], CONSTANTS) == Compute(4)
    assert ledger.awaits(B), "who released it is gone"
    ledger.obey(2)
    assert isinstance(ledger.admit(span(0, 4, 1), TOKENS[4:5], None), Skip)
    ledger.check_integrity()
