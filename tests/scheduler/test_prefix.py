"""What the index answers, and what makes an entry superfluous."""

from __future__ import annotations

import pytest

from daemon.fidelity import Fidelity
from daemon.scheduler.prefix import MIN_REUSE, Entry, PrefixIndex
from daemon.scheduler.trie import Tokens

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
LONG = tuple(range(100))


def entry(sequence: bytes, tokens: Tokens, kv_bits: int = 0, surplus: int = 0) -> Entry:
    return Entry(sequence, Fidelity(kv_bits), tokens, 1, 0.0, 0.0, surplus=surplus)


def index(*entries: Entry) -> PrefixIndex:
    made = PrefixIndex()
    for one in entries:
        made.add(one)
    made.check_integrity()
    return made


def found(made: PrefixIndex, tokens: Tokens, kv_bits: int = 0, reach: int | None = None) -> object:
    hit = made.match(Fidelity(kv_bits), tokens, reach)
    return hit and (hit[0].sequence, hit[1])


def test_the_longest_match_leaves_the_last_token() -> None:
    made = index(entry(A, LONG[:40]), entry(B, LONG[:60]))
    assert found(made, LONG) == (B, 60)
    assert found(made, LONG[:60]) == (B, 59)
    assert found(made, LONG[:40]) in ((A, 39), (B, 39))
    assert found(made, (*LONG[:50], 7, 7)) == (B, 50)
    assert found(made, (5, *LONG)) is None


def test_what_saves_little_is_no_match() -> None:
    made = index(entry(A, LONG))
    assert found(made, (*LONG[:MIN_REUSE], 7)) == (A, MIN_REUSE)
    assert found(made, (*LONG[: MIN_REUSE - 1], 7, 7)) is None
    assert found(made, LONG[:MIN_REUSE]) is None, "of which the last is computed anyway"


def test_nothing_is_left_of_what_nobody_has_any_more() -> None:
    made = index(entry(A, LONG[:40], kv_bits=8), entry(B, LONG[:30]), entry(C, LONG[:20]))
    made.remove(A)
    made.remove(B)
    assert made.fidelities == [Fidelity()]
    made.check_integrity()
    made.remove(C)
    assert made.fidelities == []


def test_other_bits_are_other_kv() -> None:
    made = index(entry(A, LONG[:40], kv_bits=8), entry(B, LONG[:30]))
    assert found(made, LONG) == (B, 30)
    assert found(made, LONG, kv_bits=8) == (A, 40)
    assert found(made, LONG, kv_bits=4) is None


@pytest.mark.parametrize(("surplus", "wanted"), [(0, (A, 60)), (5, (B, 30))])
def test_caches_that_cannot_go_back_far_are_left_for_others(surplus: int, wanted: object) -> None:
    """A holds 70 tokens and more, of which 60 are wanted, and can be cut by 10."""
    made = index(entry(A, (*LONG[:60], *range(900, 910)), surplus=surplus), entry(B, LONG[:30]))
    assert found(made, LONG, reach=10) == wanted
    assert found(made, LONG) == (A, 60)


def test_trimmed_and_removed() -> None:
    made = index(entry(A, LONG), entry(B, LONG[:20]))
    made.trim(A, 50)
    made.check_integrity()
    assert found(made, LONG) == (A, 50)
    made.remove(A)
    made.remove(A)
    assert found(made, LONG) == (B, 20)
    assert [e.sequence for e in made] == [B]


def test_what_one_stage_has_lost_others_may_still_hold() -> None:
    made = index(entry(A, LONG, surplus=2))
    made.trim(A, 60)
    assert (made.entries[A].held, made.entries[A].surplus) == (102, 42)
    assert found(made, LONG, reach=41) is None, "they cannot be cut back so far"
    assert found(made, LONG, reach=42) == (A, 60)


def test_the_last_used_is_the_last_to_go() -> None:
    made = index(entry(A, LONG[:40]), entry(B, LONG[:50]), entry(C, LONG[:60]))
    made.use(made.entries[A], 3.0)
    assert [e.sequence for e in made] == [B, C, A]
    assert (made.entries[A].hits, made.entries[A].used) == (1, 3.0)


def test_an_entry_covers_its_beginnings() -> None:
    made = index(entry(A, LONG[:40]), entry(B, LONG), entry(C, (*LONG[:40], 7)))
    covered = made.covered_by(made.entries[B], None)
    assert [e.sequence for e in covered] == [A]
    assert made.is_covered(made.entries[A], None)
    assert not made.is_covered(made.entries[C], None)
    assert not made.covered_by(made.entries[B], reach=59), "it cannot be cut back to 40"
    assert made.covered_by(made.entries[B], reach=60)
