"""Saved entries are found by their tokens, when all their layers can be had."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from daemon.fidelity import Fidelity
from daemon.scheduler.stored import MIN_STORED, StoredIndex, Told, common, pack, unpack

LAYERS = 8
TEXT = tuple(random.Random(1).randrange(1000) for _ in range(400))


def told(
    tokens: Sequence[int], start: int = 0, end: int = LAYERS, kv_bits: int = 0, used: float = 1.0
) -> Told:
    entry = f"{len(tokens)}-{kv_bits}-{hash(tuple(tokens))}"
    return Told(entry, Fidelity(kv_bits), pack(tokens), 1, start, end, 100, used)


def length_of(
    index: StoredIndex, tokens: Sequence[int], kv_bits: int = 0, reach: int | None = None
) -> int:
    index.check_integrity()
    found = index.match(Fidelity(kv_bits), tokens, LAYERS, reach)
    return found[1] if found else 0


def test_the_longest_common_beginning_counts() -> None:
    index = StoredIndex()
    fork = (*TEXT[:150], 5001, *TEXT[151:300])
    index.told("a", [told(TEXT[:100]), told(TEXT[:200]), told(fork)])
    assert length_of(index, TEXT) == 200
    assert length_of(index, TEXT[:180]) == 179  # the last one is computed
    assert length_of(index, (*fork, 1, 2)) == 300
    assert length_of(index, (*TEXT[:150], 5002, 1)) == 150
    assert length_of(index, (7, *TEXT)) == 0
    found = index.match(Fidelity(), TEXT, LAYERS, None)
    assert found is not None
    assert found[0].tokens == pack(TEXT[:200])


def test_caches_that_cannot_be_cut_far_are_found_near_their_end_only() -> None:
    index = StoredIndex()
    index.told("a", [told(TEXT[:100]), told(TEXT[:300])])
    assert length_of(index, TEXT[:290], reach=11) == 289
    assert length_of(index, TEXT[:289], reach=11) == 100
    assert length_of(index, TEXT[:101], reach=0) == 100


def test_little_is_not_worth_it() -> None:
    index = StoredIndex()
    index.told("a", [told(TEXT[:100])])
    assert length_of(index, TEXT[: MIN_STORED + 1]) == MIN_STORED
    assert length_of(index, TEXT[:MIN_STORED]) == 0


def test_another_type_is_another_entry() -> None:
    index = StoredIndex()
    index.told("a", [told(TEXT[:100]), told(TEXT[:200], kv_bits=8)])
    assert length_of(index, TEXT) == 100
    assert length_of(index, TEXT, kv_bits=8) == 200
    assert length_of(index, TEXT, kv_bits=4) == 0


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([("a", 0, 8)], True),
        ([("a", 0, 3), ("b", 3, 8)], True),
        ([("b", 3, 8), ("a", 0, 5)], True),
        ([("a", 0, 2), ("a", 1, 8)], True),
        ([("a", 0, 3), ("b", 4, 8)], False),
        ([("a", 1, 8)], False),
        ([("a", 0, 7)], False),
    ],
)
def test_every_layer_must_be_somewhere(pieces: list[tuple[str, int, int]], whole: bool) -> None:
    index = StoredIndex()
    for node, start, end in pieces:
        index.saved(node, told(TEXT[:100], start, end))
    assert (length_of(index, TEXT) == 100) == whole
    (stored,) = index.entries.values()
    assert stored.nbytes == 100 * len(pieces)


def test_what_a_node_says_replaces_what_it_said() -> None:
    index = StoredIndex()
    index.told("a", [told(TEXT[:100], 0, 4), told(TEXT[:80])])
    index.told("b", [told(TEXT[:100], 4, 8)])
    assert length_of(index, TEXT) == 100
    index.told("a", [told(TEXT[:80])])
    assert length_of(index, TEXT) == 80
    index.gone("a")
    assert length_of(index, TEXT) == 0
    index.gone("b")
    assert not index.entries
    index.told("a", [told(TEXT[:80])])
    index.drop(told(TEXT[:80]).entry)
    assert not index.entries


def test_what_a_node_has_evicted_is_forgotten_though_others_have_it() -> None:
    index = StoredIndex()
    halves = [told(TEXT[:100], 0, 4), told(TEXT[:100], 4, 8)]
    for node, half in zip("ab", halves, strict=True):
        index.told(node, [half, told((7, *TEXT[:80]))])
    index.told("a", [])
    assert length_of(index, TEXT) == 0, "half of it is nowhere"
    assert length_of(index, (7, *TEXT)) == 81
    (half,) = [s for s in index.entries.values() if s.tokens == pack(TEXT[:100])]
    assert [(piece.node, piece.start) for piece in half.pieces] == [("b", 4)]
    index.told("b", [])
    assert not index.entries


def test_of_too_many_those_used_last_are_known() -> None:
    index = StoredIndex(most=3)
    files = [told((n, *TEXT[:99]), used=float(n)) for n in range(6)]
    index.told("a", files[:5])
    index.check_integrity()
    assert index.entries.keys() == {file.entry for file in files[2:5]}
    index.saved("b", files[5])
    assert index.entries.keys() == {file.entry for file in files[3:]}
    index.saved("b", files[4])
    index.check_integrity()
    assert index.entries.keys() == {file.entry for file in files[3:]}


def test_the_entries_that_a_longer_one_makes_superfluous() -> None:
    index = StoredIndex()
    files = [told(TEXT[:n]) for n in (70, 90)]
    index.told("a", [*files, told(TEXT[:200]), told((9, *TEXT[:60])), told(TEXT[:80], kv_bits=8)])
    long = index.entries[told(TEXT[:200]).entry]
    assert {stored.entry for stored in index.prefixes(long)} == {file.entry for file in files}


@pytest.mark.parametrize("seed", range(50))
def test_common_is_what_it_says(seed: int) -> None:
    draw = random.Random(seed)
    one = [draw.randrange(3) for _ in range(draw.randrange(40))]
    other = one[: draw.randrange(41)] + [draw.randrange(3) for _ in range(draw.randrange(5))]
    wanted = 0
    while wanted < min(len(one), len(other)) and one[wanted] == other[wanted]:
        wanted += 1
    assert common(pack(one), pack(other)) == wanted
    assert list(unpack(pack(one))) == one
