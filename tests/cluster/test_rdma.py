"""RDMA over real processes, by mlx's ring over TCP: enabled and disabled while people read their
answers, and its processes killed, stopped and crashed under them.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.messages import Chunk
from tests.cluster.generation import Generation
from tests.cluster.harness import PATIENCE, Cluster, until
from tests.cluster.prompts import CLASS, CODE
from tests.cluster.reference import Reference
from tests.holding import Holding, holding

PACE = "0.02"  # seconds more for each frame, until all is done that is done to a stream
TOKENS = 500
FEWER = 300  # where less is done to it
LONG = 2000
WARM, SWITCHES = 100, 1000
GROWTH = 16 << 20  # bytes that a process may have more
SIGNALS = [signal.SIGKILL, signal.SIGSTOP]


@pytest.fixture(scope="module")
def _ring(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ring") / "c"
    rdma = {"rdma": {"backend": "ring", "watchdog_s": 1.0}}
    changes: dict[str, Any] = {name: rdma for name in ("n1", "n2", "n3")}
    changes["n1"] = {**rdma, "coordinator": {"speculation": "off"}}
    models = {"embedded": model_folder}
    cluster = Cluster(folder, (3, 3, 2), models, changes=changes).start()
    yield cluster
    cluster.close()


@pytest.fixture
def ring(_ring: Cluster) -> Iterator[Cluster]:
    """Ready, empty and without RDMA, before and after."""
    _ring.wait_ready()
    _ring.mark("pace-0", PACE)
    yield _ring
    hurry(_ring)
    _ring.forget_client()
    _ring.ask("rdma.disable")
    until(lambda: not processes(_ring), "the rdma processes end")
    _ring.wait_ready()
    _ring.wait_empty()


def hurry(cluster: Cluster) -> None:
    (cluster.marks / "pace-0").unlink(missing_ok=True)


def processes(cluster: Cluster) -> list[int]:
    """The pids of all rdma processes."""
    pids = (cluster.child_pid(i, "daemon.rdma") for i in range(len(cluster.names)))
    return [pid for pid in pids if pid]


def enable(cluster: Cluster) -> dict[str, Any]:
    with cluster.client(PATIENCE) as client:
        for message in client.stream("rdma.enable", {}):
            if not isinstance(message, Chunk):
                return message.data
    raise AssertionError("no reply")


def paths(cluster: Cluster) -> list[str]:
    return [hop["path"] for hop in cluster.ask("status")["hops"][1:-1]]


def on_rdma(cluster: Cluster) -> bool:
    return all(path.startswith("rdma") for path in paths(cluster))


def test_enabled_and_disabled_under_load(ring: Cluster, reference: Reference) -> None:
    stages = ring.stage_pids()
    running = [Generation(ring, prompt, TOKENS).wait_tokens(10) for prompt in (CODE, CLASS)]
    told = enable(ring)
    assert [hop["path"] for hop in told["hops"]] == ["rdma", "rdma"], told
    assert all(hop["round_trip_seconds"] > 0 for hop in told["hops"])
    assert told["group"]["nodes"] == ring.names
    assert on_rdma(ring)
    files = [Path(f"/proc/{pid}/autogroup") for pid in processes(ring)]
    nice = [file.read_text().split()[-1] for file in files if file.exists()]
    assert nice == ["0"] * len(nice), "a process that has started is as nice as any other"
    for one in running:
        one.wait_tokens(len(one.tokens) + 20)
    assert ring.ask("rdma.disable")["changed"]
    until(lambda: paths(ring) == ["zmq (plain)"] * 2, lambda: f"ZeroMQ again: {paths(ring)}")
    assert not any(one.over for one in running), "it was under load"
    until(lambda: not processes(ring), "the rdma processes end")
    hurry(ring)
    for prompt, one in zip((CODE, CLASS), running, strict=True):
        reference.check(prompt, one.result().tokens)
        assert len(one.tokens) == TOKENS
    assert ring.stage_pids() == stages
    assert ring.reissues() == 0, "a planned switch loses nothing"


def held_by(cluster: Cluster, sequence: str) -> dict[int, int]:
    """Tokens that each stage holds of it."""
    rows = cluster.ask("kv")["sequences"]
    return {row["stage"]: row["tokens"] for row in rows if row["sequence"] == sequence}


def lose(ring: Cluster, reference: Reference, victim: int, sig: int) -> None:
    """One rdma process goes wrong in the middle of an answer: the stages go on with what they hold,
    and only what was on its way is computed again.
    """
    stages = ring.stage_pids()
    running = Generation(ring, CODE, FEWER).wait_tokens(10)
    sequence, before = running.start["sequence"], ring.ask("pipeline")
    held = held_by(ring, sequence)
    os.kill(ring.child_pid(victim, "daemon.rdma"), sig)
    until(lambda: not on_rdma(ring), "the loss is noticed")
    since = held_by(ring, sequence)
    assert held.keys() == since.keys() == set(range(len(stages))), "each stage has its part of it"
    assert all(since[stage] >= held[stage] for stage in held), "what was held is held"
    running.wait_tokens(len(running.tokens) + 10)
    assert not running.over
    hurry(ring)
    reference.check(CODE, running.result().tokens)
    after = ring.ask("pipeline")
    again = Counter(after["reissues"]) - Counter(before["reissues"])
    assert set(again) <= {"path"}, "no stage lacked anything"
    assert after["refills"] == before["refills"]
    assert after["epoch"] == before["epoch"]
    assert len(running.tokens) == FEWER
    assert ring.stage_pids() == stages
    assert 1 <= running.reply["reissues"] <= 3, "for the group, and for each sender that was late"
    assert not running.waited, "the pipeline was never down"


@pytest.mark.parametrize("sig", SIGNALS, ids=lambda sig: sig.name)
def test_a_process_that_goes_wrong(ring: Cluster, reference: Reference, sig: int) -> None:
    enable(ring)
    lose(ring, reference, 1, sig)
    until(lambda: on_rdma(ring), "back on RDMA after a pause and three good probes")


@pytest.mark.soak
@pytest.mark.parametrize("sig", [*SIGNALS, signal.SIGSEGV], ids=lambda sig: sig.name)
def test_a_hundred_that_go_wrong(ring: Cluster, reference: Reference, sig: int) -> None:
    for turn in range(100):
        ring.mark("pace-0", PACE)
        told = enable(ring)  # at once: an operator waits for no pause
        assert [hop["path"] for hop in told["hops"]] == ["rdma", "rdma"], (turn, told)
        lose(ring, reference, turn % 3, sig)


@pytest.mark.soak
def test_a_thousand_switches_leave_nothing_over(ring: Cluster, reference: Reference) -> None:
    """Of two hops, there and back, each time with processes of their own, while one reads."""
    switch_while_one_reads(ring, reference, WARM)
    before = held_when_empty(ring)
    switch_while_one_reads(ring, reference, SWITCHES)
    after = held_when_empty(ring)
    assert ring.reissues() == 0
    assert after.keys() == before.keys(), "the same processes"
    for pid, was in before.items():
        assert all(a <= b for a, b in zip(after[pid].counts, was.counts, strict=True)), pid
        assert after[pid].memory - was.memory < GROWTH


def switch_while_one_reads(ring: Cluster, reference: Reference, switches: int) -> None:
    running = Generation(ring, CODE, LONG)
    for turn in range(0, switches, 4):
        if running.over:
            reference.check(CODE, running.result().tokens)
            running = Generation(ring, CODE, LONG)
        running.wait_tokens(len(running.tokens) + 1)
        told = enable(ring)
        assert [hop["path"] for hop in told["hops"]] == ["rdma", "rdma"], (turn, told)
        assert ring.ask("rdma.disable")["changed"]
        until(lambda: not processes(ring), "the rdma processes end")
    hurry(ring)
    reference.check(CODE, running.result().tokens)
    ring.mark("pace-0", PACE)


def held_when_empty(cluster: Cluster) -> dict[int, Holding]:
    """By each of its processes."""
    cluster.wait_empty()
    cluster.ask("kv.evict", sequence="all")
    return {one.pid: holding(one) for one in cluster.family()}


def test_a_killed_coordinator_leaves_the_group_standing(ring: Cluster) -> None:
    enable(ring)
    before = processes(ring)
    assert len(before) == 3
    coordinator = ring.coordinator_pid()
    ring.forget_client()
    os.kill(coordinator, signal.SIGKILL)
    until(lambda: ring.coordinator_pid() not in (0, coordinator), "another coordinator")
    ring.wait_ready()
    until(lambda: on_rdma(ring), lambda: f"on RDMA: {ring.ask('rdma.enable', dry_run=True)}")
    assert processes(ring) == before


def test_a_pair_is_tried_without_anything_enabled(ring: Cluster) -> None:
    with ring.client(PATIENCE) as client:
        *_, last = client.stream("rdma.test", {"a": "n1", "b": "n3"})
    assert last.data["why"] == ""
    assert last.data["bytes_per_second"] > 0
    until(lambda: not processes(ring), "the rdma processes end")
