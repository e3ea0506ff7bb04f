"""The small parts: composition, outbox, traces."""

from __future__ import annotations

import pytest

from daemon.hop_path import HopPath
from daemon.scheduler.compose import Load, compose
from daemon.scheduler.cost import CostModel, Pass
from daemon.scheduler.outbox import MAX_COMMANDS, Outbox
from daemon.scheduler.pipeline import Pipeline, StageCost
from daemon.scheduler.ready import ReadyQueue
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.speculation.speculator import Speculator
from daemon.scheduler.trace import KEPT, PipelineStats
from tests.scheduler.harness import A, B, C, request
from transports.frame import Release, StageTrace

COST = CostModel([StageCost(((1, 0.1),), 0.01)] * 2, 16)
OFF = Speculator(False)


def ready(decode: bytes, prefill: bytes) -> ReadyQueue:
    """A queue of sequences with one-letter names."""
    queue = ReadyQueue()
    for name in decode + prefill:
        made = Sequence(request(bytes([name]) * 16, 40), 0.0)
        made.begin_attempt(0)
        if name in decode:
            made.issued = 40
            made.accept((1,), 1000, 0.0)
        queue.push(made)
    queue.check_integrity()
    return queue


@pytest.mark.parametrize(
    ("decode", "prefill", "load", "chosen"),
    [
        (b"", b"", Load(), ""),
        (b"a", b"", Load(decoding=1), "a1"),
        (b"ab", b"", Load(decoding=2), "a1"),  # two groups of one
        (b"b", b"", Load(steps=1, decoding=2), "b1"),
        (b"abcd", b"", Load(decoding=4), "a1 b1"),  # two groups of two
        (b"cd", b"", Load(steps=2, decoding=6), ""),
        (b"a", b"p", Load(decoding=1), "a1"),  # one group: the other stage is for the prompt
        (b"a", b"p", Load(chunks=1, decoding=1), "a1"),  # a chunk keeps no step away
        (b"", b"p", Load(steps=1, decoding=1), "p8"),
        (b"ab", b"p", Load(decoding=2), "a1 p3"),  # two: a piece of it rides in each
        (b"", b"p", Load(steps=1, chunks=1, decoding=1), ""),
        (b"b", b"p", Load(steps=2, decoding=3), ""),  # both groups are under way
        (b"", b"p", Load(), "p16"),
        (b"", b"p", Load(chunks=2), "p16"),  # alone, prefill may have all places
        (b"", b"p", Load(chunks=3), ""),
        (b"a", b"p", Load(decoding=1, alone=True), ""),
    ],
)
def test_compose(decode: bytes, prefill: bytes, load: Load, chosen: str) -> None:
    pieces = compose(ready(decode, prefill), load, COST, OFF, 0.0)
    assert " ".join(f"{chr(p.sequence.id[0])}{p.length}" for p in pieces) == chosen


@pytest.mark.parametrize(("prefill", "size"), [(b"", 4), (b"p", 2)])
def test_groups_are_not_joined_for_little_beside_a_prompt(prefill: bytes, size: int) -> None:
    """It is so much better for four to be one group that two groups are given up: not then."""
    cost = CostModel([StageCost(((1, 0.03), (2, 0.02), (4, 0.03)), 0.001)] * 2, 16)
    assert cost.groups(4, 0).size == 2
    for _ in range(100):
        done = [StageTrace(i, 0.0, 0.0, 0.033, 0.033) for i in range(2)]
        cost.observe(Pass(2), done, 0.0, 0.066)
    pieces = compose(ready(b"abcd", prefill), Load(decoding=4), cost, OFF, 0.0)
    assert sum(piece.sequence.id[0] in b"abcd" for piece in pieces) == size


def test_a_model_that_cannot_mix_has_one_chunk_beside_the_steps() -> None:
    cost = CostModel([StageCost(((1, 0.1),), 0.01)] * 2, 16, mixed=False)
    assert [p.length for p in compose(ready(b"a", b"p"), Load(decoding=1), cost, OFF, 0.0)] == [1]
    beside = [
        [p.length for p in compose(ready(b"", b"p"), load, cost, OFF, 0.0)]
        for load in (Load(steps=2, decoding=2), Load(steps=2, chunks=1, decoding=2))
    ]
    assert beside == [[2], []]


def test_who_is_computed_alone_waits_for_an_empty_pipe() -> None:
    queue = ready(b"a", b"p")
    guilty = Sequence(request(C, 40), 0.0)
    guilty.begin_attempt(0)
    guilty.alone = True
    queue.push(guilty)
    assert not compose(queue, Load(steps=1, decoding=1), COST, OFF, 0.0)
    (piece,) = compose(queue, Load(decoding=1), COST, OFF, 0.0)
    assert piece.sequence is guilty


def test_ready_takes_turns_and_parks() -> None:
    queue = ready(b"", b"a")
    first = queue.prefill
    assert first is not None
    queue.park(other := Sequence(request(B), 0.0), 2.0)
    assert B in queue
    assert queue.next_wake() == 2.0
    queue.wake(1.9)
    assert queue.next_wake() == 2.0
    queue.wake(2.0)
    assert queue.next_wake() is None
    queue.discard(A)
    queue.push(first)
    assert queue.prefill is other
    queue.clear()
    assert A not in queue


def test_commands_are_done_when_their_frame_came_back() -> None:
    outbox = Outbox()
    outbox.release(A)
    outbox.release(B)
    assert outbox.board(1) == (Release(A), Release(B))
    outbox.release(A)  # it rides already
    outbox.release(C)
    assert outbox.board(2) == (Release(C),)
    outbox.lost(1)
    outbox.check_integrity()
    assert (outbox.waiting, len(outbox)) == (2, 3)
    outbox.done(1)  # too late: others must carry them
    assert outbox.board(3) == (Release(A), Release(B))
    outbox.done(2)
    outbox.done(3)
    assert len(outbox) == 0


def test_a_new_layout_loses_what_rides() -> None:
    outbox = Outbox()
    outbox.release(A)
    outbox.board(1)
    outbox.lost_all()
    assert outbox.waiting == 1


def test_a_frame_carries_only_so_many_commands() -> None:
    outbox = Outbox()
    for number in range(MAX_COMMANDS + 1):
        outbox.release(number.to_bytes(16, "big"))
    assert len(outbox.board(1)) == MAX_COMMANDS
    assert outbox.waiting == 1


def test_where_the_time_went() -> None:
    stats = PipelineStats(2)
    for start in (10.0, 11.0):
        stats.observe(
            [
                StageTrace(0, start + 0.1, start + 0.2, start + 0.5, start + 0.6),
                StageTrace(1, start + 0.7, start + 0.7, start + 0.8, start + 0.8),
            ],
            start,
            start + 0.9,
        )
    stats.check_integrity()
    shown = stats.as_dict(12.0, window=2.0)
    first, second = shown["stages"]
    assert first["queue"]["p50"] == pytest.approx(0.1)
    assert first["compute"] == {"count": 2, "p50": pytest.approx(0.3), "p99": pytest.approx(0.3)}
    assert first["encode"]["p99"] == pytest.approx(0.1)
    assert second["queue"]["p50"] == pytest.approx(0.0)
    assert [round(h["link"]["p50"], 6) for h in shown["hops"]] == [0.1, 0.1, 0.1]
    assert first["busy"] == pytest.approx(0.6 / 1.8)  # known since 10.2
    assert first["bubble"] == pytest.approx(1 - 0.6 / 1.8)
    assert stats.busy_share(0, 12.0, 1.0) == pytest.approx(0.3)
    assert stats.busy_share(0, 20.0, 1.0) == 0.0


def test_nothing_is_known_at_first_and_other_layouts_teach_nothing() -> None:
    stats = PipelineStats(1)
    stats.observe([StageTrace(1, 0, 0, 1, 1)], 0.0, 1.0)
    stats.observe([StageTrace(0, 0, 0, 1, 1), StageTrace(1, 1, 1, 2, 2)], 0.0, 1.0)
    shown = PipelineStats(1).as_dict(5.0)
    assert shown["stages"][0]["busy"] is None
    assert shown["stages"][0]["compute"] == {"count": 0, "p50": None, "p99": None}
    assert PipelineStats(0).as_dict(5.0)["hops"] == []


def test_each_path_of_a_hop_has_its_own_times() -> None:
    """A frame that was under way when the path changed may have gone by either."""
    stats = PipelineStats(2)

    def passed(start: float, seconds: float) -> None:
        first = StageTrace(0, start, start, start, start)
        then = (start + seconds,) * 4
        stats.observe([first, StageTrace(1, *then)], start, start + seconds)

    passed(1.0, 0.5)
    stats.path_changed(1, HopPath.RDMA, 2.0)
    passed(1.9, 0.4)
    assert stats.as_dict(3.0)["hops"][1]["link"]["count"] == 0
    passed(2.0, 0.125)
    hops = stats.as_dict(3.0)["hops"]
    assert hops[1]["link"]["p50"] == 0.125
    assert {path: one["p50"] for path, one in hops[1]["paths"].items()} == {
        "zmq": 0.5,
        "rdma": 0.125,
    }
    assert hops[0]["link"]["count"] == hops[2]["link"]["count"] == 3
    stats.path_changed(7, HopPath.ZMQ, 3.0)  # of a layout that is not up any more
    stats.check_integrity()


def test_samples_are_bounded() -> None:
    stats = PipelineStats(1)
    for i in range(KEPT + 10):
        stats.observe([StageTrace(0, i, i, i + 0.5, i + 0.5)], i, i + 1)
    stats.check_integrity()
    assert stats.as_dict(KEPT + 10.0)["stages"][0]["compute"]["count"] == KEPT
    assert stats.busy_share(0, KEPT + 10.0, 10_000.0) == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [{"stages": ()}, {"context_length": 1}, {"chunk_tokens": 0}])
def test_layouts_that_cannot_be(wrong: dict[str, object]) -> None:
    values: dict[str, object] = {
        "term": 1,
        "epoch": 1,
        "stages": (StageCost(((1, 0.1),), 0.01),),
        "context_length": 10,
        "chunk_tokens": 16,
    }
    Pipeline(**values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least|or more"):
        Pipeline(**{**values, **wrong})  # type: ignore[arg-type]
