"""The log of hidden states against a list of rows: cut, forked and forgotten as caches are."""

from __future__ import annotations

import random

import pytest

from daemon.stage.hidden_log import PIECE_ROWS, HiddenLog
from transports.frame import DType, Span, Tensor

A, B = b"a" * 16, b"b" * 16
PLENTY = 1 << 20


def sent(*values: int, dtype: DType = DType.UINT8) -> Tensor:
    """Rows of two bytes."""
    data = b"".join(value.to_bytes(2, "little") for value in values)
    return Tensor(dtype, (len(values), 2), data)


def span(sequence: bytes, position: int, length: int) -> Span:
    return Span(sequence, 1, position, length, 0)


def keep(log: HiddenLog, sequence: bytes, position: int, rows: Tensor) -> None:
    log.keep([span(sequence, position, rows.shape[0])], [rows])


def log_of(*values: int, budget: int = PLENTY) -> HiddenLog:
    log = HiddenLog(budget)
    keep(log, A, 0, sent(*values))
    return log


def test_what_is_given_back_is_what_was_sent() -> None:
    log = log_of(1, 2, 3)
    fp8 = sent(6, dtype=DType.FP8_ROWS)
    spans = [span(B, 0, 1), span(A, 3, 2), span(b"c" * 16, 0, 1)]
    log.keep(spans, [sent(9, 4, 5), fp8])
    assert log.rows(A, 1, 5) == sent(2, 3, 4, 5)
    assert log.rows(B, 0, 1) == sent(9)
    assert sum(map(log.bytes_of, (A, B, b"c" * 16, b"d" * 16))) == log.nbytes > 0
    assert log.rows(b"c" * 16, 0, 1) == fp8
    assert log.rows(A, 0, 6) is None
    assert log.rows(b"d" * 16, 0, 1) is None
    log.check_integrity()


def test_rows_are_replaced_from_where_a_span_begins() -> None:
    log = log_of(1, 2, 3)
    keep(log, A, 1, sent(7))
    assert log.rows(A, 0, 2) == sent(1, 7)
    assert log.rows(A, 0, 3) is None


@pytest.mark.parametrize(
    ("position", "rows"),
    [(4, sent(1)), (3, sent(1, dtype=DType.FP8_ROWS)), (3, Tensor(DType.UINT8, (1, 3), b"abc"))],
    ids=["hole", "codec", "width"],
)
def test_what_does_not_follow_is_a_hole(position: int, rows: Tensor) -> None:
    log = log_of(1, 2, 3)
    keep(log, A, position, rows)
    assert not log.lengths
    keep(log, A, position + 1, rows)
    assert not log.lengths, "what has no beginning is not kept"
    assert log.nbytes == 0


def test_forks_do_not_see_each_other() -> None:
    log = log_of(1, 2, 3)
    log.fork(A, B, 2)
    keep(log, A, 1, sent(7, 7))
    keep(log, B, 2, sent(8))
    assert log.rows(B, 0, 3) == sent(1, 2, 8)
    log.forget(A)
    assert log.lengths == {B: 3}
    log.fork(B, A, 4)
    assert A not in log.lengths, "the source has fewer"
    log.retain([A])
    assert not log.lengths
    log.check_integrity()


def test_who_was_not_added_to_for_longest_goes_first() -> None:
    one = log_of(1).nbytes
    log = log_of(1, budget=2 * one)
    keep(log, B, 0, sent(1))
    keep(log, A, 0, sent(2))
    keep(log, b"c" * 16, 0, sent(3))
    assert list(log.lengths) == [A, b"c" * 16]
    keep(log, A, 1, sent(*range(2 * one)))
    assert not log.lengths, "more than the budget alone"
    log.check_integrity()


def test_without_a_budget_nothing_is_kept() -> None:
    log = log_of(1, 2, budget=0)
    assert not log.keeps
    assert not log.lengths


@pytest.mark.parametrize("seed", range(20))
def test_against_lists(seed: int) -> None:
    rng = random.Random(seed)
    log, model = HiddenLog(1 << 30), dict[bytes, list[int]]()
    names = [bytes([n]) * 16 for n in range(4)]
    for step in range(300):
        name, other = rng.sample(names, 2)
        held = model.get(name, [])
        match rng.randrange(6):
            case 0:
                model.pop(name, None)
                log.forget(name)
            case 1 if held:
                length = rng.randrange(1, len(held) + 1)
                model[other] = held[:length]
                log.fork(name, other, length)
            case 2 if held:
                length = rng.randrange(1, len(held) + 1)
                del held[length:]
                log.trim(name, length)
            case _:
                position = rng.choice((len(held), rng.randrange(len(held) + 1)))
                count = rng.choice((1, 3, rng.randrange(1, 3 * PIECE_ROWS)))
                values = [step * 200 + n for n in range(count)]
                model[name] = held[:position] + values
                keep(log, name, position, sent(*values))
        log.check_integrity()
        assert log.lengths == {name: len(rows) for name, rows in model.items()}
        for name, rows in model.items():
            start = rng.randrange(len(rows))
            end = rng.randrange(start + 1, len(rows) + 1)
            assert log.rows(name, start, end) == sent(*rows[start:end])
