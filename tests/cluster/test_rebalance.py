"""Layers that move while people read their answers: nobody sees a wrong token, and nothing is
computed again. What is killed in the middle leaves the layout as it was.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ctl.errors import CommandError
from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.moves import Move, layout
from tests.cluster.prompts import CLASS, CODE, LONG
from tests.cluster.reference import Reference

ALL = ["n1", "n2", "n3"]
TOKENS = 300
SAMPLING = {"temperature": 1.1, "seed": 7, "repetition_penalty": 1.2}
HERE = ((3, 3, 2), ALL)


@pytest.fixture
def three(cluster: Cluster) -> Iterator[Cluster]:
    """In the usual layout, before and after."""
    yield cluster
    cluster.wait_ready()
    if list(layout(cluster).items()) != [("n1", "0-2"), ("n2", "3-5"), ("n3", "6-7")]:
        assert not Move(cluster, *HERE).end().error


@pytest.mark.parametrize(
    ("split", "nodes"),
    [
        pytest.param((2, 4, 2), ALL, marks=pytest.mark.soak),  # up
        pytest.param((4, 2, 2), ALL, marks=pytest.mark.soak),  # down
        pytest.param((3, 3, 2), ["n2", "n1", "n3"], marks=pytest.mark.soak),  # swapped
        ((4, 4), ["n1", "n3"]),  # one removed; on the way back it is inserted
        pytest.param((3, 3, 2), ["n1", "n3", "n2"], marks=pytest.mark.soak),  # the last moved
        pytest.param((8,), ["n2"], marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_nothing_is_computed_again(
    three: Cluster, reference: Reference, split: tuple[int, ...], nodes: list[str]
) -> None:
    calm = Generation(three, CODE, TOKENS, **SAMPLING).result().tokens
    for there in ((split, nodes), HERE):
        running = [Generation(three, prompt, TOKENS) for prompt in (CODE, LONG)]
        sampled = Generation(three, CODE, TOKENS, **SAMPLING)
        quantised = Generation(three, CLASS, TOKENS, kv_bits=8)
        both = [*running, sampled, quantised]
        for one in both:
            one.wait_tokens(10)
        before = three.ask("pipeline")["epoch"]
        move = Move(three, *there).end()
        assert move.error is None
        assert not move.reply["replayed"]
        assert any(not one.reply for one in both), "somebody was reading"
        assert list(layout(three)) == there[1]
        assert three.ask("pipeline")["epoch"] == before + 1
        for prompt, one in zip((CODE, LONG), running, strict=True):
            reference.check(prompt, one.result().tokens)
        assert sampled.result().tokens == calm
        assert all(one.result().reply["reissues"] == 0 for one in both)
        assert all(not one.waited for one in both), "the pipeline stays up"
        assert len(quantised.tokens) == TOKENS
    assert not any(node["dropped"].get("missing") for node in three.nodes())


def test_what_is_kept_moves_along(three: Cluster, reference: Reference) -> None:
    first = Generation(three, LONG, 20).result()
    assert Move(three, (2, 3, 3), ALL).end().error is None
    again = Generation(three, LONG, 20).result()
    assert again.reply["cached_tokens"] > first.reply["prompt_tokens"] // 2
    reference.check(LONG, again.tokens)


@pytest.mark.parametrize(
    ("victim", "phase"),
    [
        (1, "preparing"),
        pytest.param(0, "preparing", marks=pytest.mark.soak),
        pytest.param(2, "preparing", marks=pytest.mark.soak),
    ],
)
def test_a_stage_killed_in_the_middle_ends_it(
    three: Cluster, reference: Reference, victim: int, phase: str
) -> None:
    """The layout is as it was, and every request goes on."""
    running = [Generation(three, prompt, TOKENS) for prompt in (CODE, CLASS)]
    for one in running:
        one.wait_tokens(10)
    three.mark("hold-load")
    move = Move(three, (2, 4, 2), ALL)
    until(lambda: phase in move.phases, f"it is {phase}")
    three.kill_stage(victim)
    (three.marks / "hold-load").unlink()
    move.end()
    assert move.error is not None
    assert f"{three.names[victim]}: stage process" in move.error.line()
    for prompt, one in zip((CODE, CLASS), running, strict=True):
        reference.check(prompt, one.result().tokens)
    three.wait_ready()
    assert layout(three) == {"n1": "0-2", "n2": "3-5", "n3": "6-7"}


def test_an_operator_ends_it(three: Cluster, reference: Reference) -> None:
    running = Generation(three, CODE, TOKENS).wait_tokens(10)
    three.mark("hold-load")
    move = Move(three, (2, 4, 2), ALL)
    until(lambda: "preparing" in move.phases, "it has begun")
    three.ask("rebalance.abort")
    (three.marks / "hold-load").unlink()
    assert "operator" in str(move.end().error and move.error.line())
    reference.check(CODE, running.result().tokens)
    assert running.reply["reissues"] == 0
    assert layout(three) == {"n1": "0-2", "n2": "3-5", "n3": "6-7"}


def test_the_coordinator_is_killed_in_the_middle(three: Cluster, reference: Reference) -> None:
    """The next one knows nothing of the move: stages let go of what they had prepared."""
    stages = three.stage_pids()
    three.mark("hold-load")
    move = Move(three, (2, 4, 2), ALL)
    until(lambda: "preparing" in move.phases, "it has begun")
    os.kill(three.coordinator_pid(), signal.SIGKILL)
    (three.marks / "hold-load").unlink()
    with suppress(CommandError):
        move.end()
    three.forget_client()
    three.wait_ready()
    assert three.stage_pids() == stages
    assert layout(three) == {"n1": "0-2", "n2": "3-5", "n3": "6-7"}
    reference.check(CODE, Generation(three, CODE, 40).result().tokens)
    assert Move(three, (2, 4, 2), ALL).end().error is None


@pytest.fixture
def two(tmp_path: Path, model_folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "c", (4, 4), {"embedded": model_folder})
    cluster.names = ["n1", "n2"]
    yield cluster.start()
    cluster.close()


def test_a_new_node_is_given_layers(two: Cluster, reference: Reference) -> None:
    running = Generation(two, CODE, 600).wait_tokens(10)
    two.names.append("n3")
    two.start_node("n3")
    until(lambda: any(n["name"] == "n3" and n["state"] == "idle" for n in two.nodes()), "a spare")
    assert Move(two, *HERE).end().error is None
    assert layout(two) == {"n1": "0-2", "n2": "3-5", "n3": "6-7"}
    reference.check(CODE, running.result().tokens)
    assert running.reply["reissues"] == 0
