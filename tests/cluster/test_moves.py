"""Layers that move again and again, in every way, while people read their answers: no token is
wrong, lost or doubled, and nothing is computed twice.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.layouts import KINDS, Layout, changed
from tests.cluster.moves import Move, layout
from tests.cluster.readers import Readers
from tests.cluster.reference import Reference

MOVES = 25
START: Layout = (("n1", 3), ("n2", 3), ("n3", 2))
NAMES = ("n1", "n2", "n3", "n4")


@pytest.fixture
def four(tmp_path: Path, model_folder: Path) -> Iterator[Cluster]:
    """Three have layers, the fourth has none."""
    cluster = Cluster(tmp_path / "c", [n for _, n in START], {"embedded": model_folder})
    yield cluster.start()
    cluster.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1, 10))
def test_many_moves(four: Cluster, reference: Reference, seed: int) -> None:
    chance = random.Random(seed)
    readers = Readers(four, reference, chance)
    four.names.append("n4")
    four.start_node("n4")
    four.wait_nodes()
    readers.prepare()
    now, done, gaps = START, Counter[str](), []
    replayed = unread = 0
    try:
        while done.total() < MOVES:
            kind = chance.choice(KINDS)
            new = changed(now, NAMES, kind, chance)
            if new is None or new == now:
                continue
            readers.have(chance.randrange(1, 5))
            before = four.ask("pipeline")["epoch"]
            move = Move(four, [n for _, n in new], [name for name, _ in new]).end()
            assert move.error is None, move.error.line()
            assert move.reply["epoch"] == before + 1
            assert list(layout(four)) == [name for name, _ in new]
            replayed += move.reply["replayed"]
            unread += not readers.reading
            if gap := move.reply["longest_gap"]:
                gaps.append(gap["seconds"])
            now, done = new, done + Counter([kind])
        readers.settle()
        guesses = four.ask("pipeline")["speculation"]
        assert guesses["sent"], "nothing was guessed"
        assert not replayed
        assert not readers.reissues
        four.wait_empty()
    except BaseException:
        sys.stdout.write(four.logs())
        raise
    finally:
        sys.stdout.write(
            f"seed {seed}: {done.total()} moves {dict(done)}, {replayed} replayed, {unread} that "
            f"nobody read; {readers.done} answers of {readers.tokens} tokens, {reference.ties} "
            f"ties; longest gap of a client {median(gaps or [0.0]):.2f} s (median), "
            f"{max(gaps, default=0.0):.2f} s at most\n"
        )
