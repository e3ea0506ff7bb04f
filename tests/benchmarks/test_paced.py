"""The arithmetic of a paced run: how long what takes, and which guesses are right."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import cast

import pytest

from benchmarks.ladder import best_split, split_pace
from benchmarks.paced.ends import SENT, Arrivals, stamped
from benchmarks.paced.field import TWO, Field, Overrun, Row
from benchmarks.paced.oracle import Oracle, OracleDrafter, Script, trace
from benchmarks.paced.pace import FULL_ROW, MS, Link, Pace
from benchmarks.paced.plan import Kept, PacedPlan
from benchmarks.paced.reference import Reference
from daemon.draft.drafter import Guess, Lag
from daemon.history import History
from daemon.scheduler.request import Request
from daemon.scheduler.sequence import Sequence
from transports.frame import DType, Frame, FrameKind, Tensor

A, B = b"a" * 16, b"b" * 16
PACE = Pace((6, 2), (30 * MS, 27 * MS))


def plan(folder: Path, slow: float = 3.0, pace: Pace = PACE) -> PacedPlan:
    script = Script((1, 2), (3, 4, 5), (True, False, True))
    return PacedPlan(pace, slow, 192, "tcp://127.0.0.1:1", folder, (script,), False, 3 * MS)


def test_a_hop_takes_the_seeds_time_in_every_width() -> None:
    link = Link()
    assert link.hidden(FULL_ROW) == pytest.approx(3 * MS)
    assert link.hidden(FULL_ROW / 4) == pytest.approx(1.5 * MS)
    assert link.hidden(4 * FULL_ROW) == pytest.approx(9 * MS)
    assert link.quicker(10).ids == pytest.approx(0.3 * MS)


def test_a_further_token_costs_a_twentieth_of_a_pass() -> None:
    assert PACE.pass_seconds(0, 1) == pytest.approx(30 * MS)
    assert PACE.pass_seconds(1, 5) == pytest.approx(27 * MS * 1.2)
    assert PACE.round_seconds(1) == pytest.approx(63 * MS)
    assert PACE.slowest_seconds(4) == pytest.approx(34.5 * MS)


def test_a_stage_is_known_by_its_first_layer() -> None:
    assert Pace((3, 3, 2), (1.0, 2.0, 3.0)).stage_from(6) == 2
    with pytest.raises(ValueError, match="not in list"):
        PACE.stage_from(5)


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = plan(tmp_path)
    written.write(tmp_path / "plan.json")
    assert PacedPlan.read(tmp_path / "plan.json") == written


def test_a_small_models_rows_count_like_large_ones(tmp_path: Path) -> None:
    paced = plan(tmp_path)
    assert paced.hop_seconds(False, 192 * 4) == pytest.approx(9 * MS)
    assert paced.hop_seconds(False, 192) == pytest.approx(4.5 * MS)
    assert paced.hop_seconds(True, 0) == pytest.approx(9 * MS)
    assert paced.pass_seconds(6, 1) == pytest.approx(81 * MS)


def test_a_link_carries_one_frame_at_a_time(tmp_path: Path) -> None:
    """Two rows sent together arrive one after the other, and nothing of the stamp is left."""
    paced, kept = plan(tmp_path, slow=1.0), Kept()
    arrivals = Arrivals(paced, kept)
    row = Tensor(DType.FLOAT32, (1, 192), bytes(768))
    frame = Frame(FrameKind.WORK, 1, 1, 1, constants={b"x" * 16: {"a": 1}}, tensors=(row,))
    began = time.monotonic()
    first, second = stamped(frame), stamped(frame)
    assert SENT in first.constants
    assert arrivals.take(first) == frame
    assert time.monotonic() - began >= 3 * MS
    arrivals.take(second)
    assert time.monotonic() - began >= 6 * MS
    assert arrivals.take(frame) is frame


def test_work_that_does_not_fit_is_counted(tmp_path: Path) -> None:
    kept = Kept()
    kept.keep(time.monotonic() - 1.0)
    assert (kept.count, kept.overruns, kept.ok) == (1, 1, False)
    for _ in range(99):
        kept.keep(time.monotonic() + 1e-4)
    assert kept.ok == (kept.overruns <= 1)
    kept.tell(tmp_path, "passes")
    assert json.loads(next(tmp_path.glob("passes-*")).read_text())["count"] == 100
    assert Kept.told(tmp_path, "passes") == kept


def test_an_oracle_is_right_as_often_as_it_is_told_to_be() -> None:
    for acceptance in (0.0, 0.6, 0.8, 0.95, 1.0):
        assert sum(trace(acceptance, 200)) == round(200 * acceptance)
    assert trace(0.6, 200) == trace(0.6, 200) != trace(0.6, 200, seed=1)


def test_an_oracle_goes_on_from_what_is_known_and_assumed() -> None:
    script = Script((1, 2), (10, 20, 30, 40), (True, True, False, True))
    oracle = Oracle([script])
    sequence = Sequence(Request(bytes(16), (1, 2), 4), 0.0)
    sequence.history.extend([10])
    assert oracle.guess(sequence, 2) == [20, 31]
    sequence.guess([20])
    assert oracle.guess(sequence, 5) == [31, 40]
    assert oracle.guess(Sequence(Request(bytes(16), (9,), 4), 0.0), 3) == []


def test_paced_stands_beside_every_number() -> None:
    cells = Row("baseline", "15.9", 15.7, 15.87).cells()
    assert all("paced" in cell for cell in cells[2:5])
    assert Row("first token", "", 200.0, 100.0, "ms").reached == 0.5


def test_a_split_takes_the_seeds_times_per_layer() -> None:
    assert split_pace(53).passes == pytest.approx(TWO.passes)
    assert split_pace(40).passes[1] == pytest.approx(45 * MS)
    assert 50 < best_split((1, 1)) < 58, "where both stages take about as long"
    assert best_split() == 65, "two rows cost hardly more than one, and its layers are quicker"


def test_an_oracle_drafts_a_token_a_step_on_its_own_assumption() -> None:
    script = Script((1, 2), (10, 20, 30, 40), (True, False, True, True))
    drafter = OracleDrafter([script])
    history = History((1, 2, 10))
    assert drafter.propose(A, 0, 0, history.tokens, 6, {}, 0.0) is None
    (first,) = drafter.step()
    assert (first.position, first.prefix_hash, first.tokens) == (3, history.hash_at(3), (21,))
    (second,) = drafter.step()
    assert second.tokens == (30,)
    assert second.prefix_hash == History((1, 2, 10, 21)).hash_at(4)
    right = drafter.propose(A, 3, history.hash_at(3), (20,), 6, {}, 0.0)
    assert right is None, "what followed from a wrong guess is forgotten"
    assert [guess.tokens for guess in drafter.step()] == [(30,)]
    said = drafter.propose(A, 4, History((1, 2, 10, 20)).hash_at(4), (), 6, {}, 0.0)
    assert isinstance(said, Guess)
    assert said.tokens == (30,)
    drafter.step()
    assert not drafter.busy
    lag = drafter.propose(B, 4, 77, (30,), 6, {}, 0.0)
    assert lag == Lag(B, 0)


def test_an_oracle_drafts_nothing_for_others() -> None:
    drafter = OracleDrafter([])
    drafter.propose(A, 0, 0, (1, 2), 6, {}, 0.0)
    assert not drafter.busy


class _NoReference:
    """Nothing is asked of it here."""


@pytest.mark.parametrize(("overruns", "rows"), [(0, 1), (2, 1), (3, None)])
def test_a_row_whose_real_work_did_not_fit_is_measured_again(
    overruns: int, rows: int | None
) -> None:
    field = Field(cast(Reference, _NoReference()), short=True)
    left = [None] * overruns

    def measure(field: Field) -> None:
        field.add(Row("row", "", 1.0, 2.0), "row", 0.5)
        if left:
            left.pop()
            raise Overrun("2 of 9 hops took longer than paced")

    if rows is None:
        with pytest.raises(Overrun):
            field.measure(measure)
        return
    field.measure(measure)
    assert (len(field.rows), len(field.checks)) == (rows, rows)
