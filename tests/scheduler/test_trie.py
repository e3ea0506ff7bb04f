"""The trie against a plain list that compares everything with everything."""

from __future__ import annotations

import random

import pytest

from daemon.scheduler.trie import Tokens, TokenTrie, common


def shared(a: Tokens, b: Tokens) -> int:
    pairs = zip(a, b, strict=False)
    return next((n for n, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


@pytest.mark.parametrize("seed", range(30))
def test_finds_what_comparing_everything_finds(seed: int) -> None:
    rng = random.Random(seed)
    trie, known = TokenTrie(), dict[bytes, Tokens]()

    def some() -> Tokens:
        base = rng.choice(list(known.values())) if known and rng.random() < 0.6 else ()
        base = base[: rng.randint(0, len(base))]
        return (*base, *(rng.randrange(3) for _ in range(rng.randint(base == (), 8))))

    for step in range(80):
        if known and rng.random() < 0.35:
            sequence = rng.choice(list(known))
            trie.remove(known.pop(sequence), sequence)
        else:
            sequence = step.to_bytes(2, "big")
            known[sequence] = some()
            trie.add(known[sequence], sequence)
        trie.check_integrity()
        wanted = some()
        found = list(trie.candidates(wanted))
        lengths = {s: shared(t, wanted) for s, t in known.items()}
        assert dict((s, n) for n, s in found) == {s: n for s, n in lengths.items() if n}
        assert [n for n, _ in found] == sorted((n for n, _ in found), reverse=True)
        assert set(trie.prefixes(wanted)) == {s for s, n in lengths.items() if n == len(known[s])}
        assert set(trie.extensions(wanted)) == {s for s, n in lengths.items() if n == len(wanted)}
        assert sorted(trie.everything()) == sorted(known)
    for sequence, tokens in known.items():
        trie.remove(tokens, sequence)
    trie.check_integrity()
    assert not list(trie.everything())


def test_what_is_not_there_cannot_be_removed() -> None:
    trie = TokenTrie()
    trie.add((1, 2, 3), b"a")
    for tokens in ((1, 2), (1, 2, 3, 4), (2,)):
        with pytest.raises(KeyError):
            trie.remove(tokens, b"a")
    with pytest.raises(KeyError):
        trie.remove((1, 2, 3), b"b")
    trie.check_integrity()


@pytest.mark.parametrize("same", [0, 1, 7, 499, 500])
def test_common(same: int) -> None:
    edge = tuple(range(500))
    other = (*edge[:same], -1, *edge)
    assert common(edge, (9, 9, *other), 2) == same
    assert common(edge, edge[:same], 0) == same
