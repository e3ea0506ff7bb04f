"""kill -9 of the coordinator at any moment: clients see a pause, then exactly the rest."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.generation import Generation, arguments
from tests.cluster.harness import PATIENCE, Cluster, clean, until
from tests.cluster.prompts import CLASS, CODE, IMPORT, LONG
from tests.cluster.reference import Reference
from tests.cluster.shardctl import running, shardctl

TOKENS = 120
MANY = 120  # of six streams none ends before all have begun
LONGER = 500  # takes half a second or more
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.9, "top_p": 0.9, "seed": 11},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.4, "penalty_window": 64},
    "logprobs": {"temperature": 0.7, "seed": 5, "logprobs": 2},
    "8 bits": {"kv_bits": 8},
}


KILLS: Counter[Cluster] = Counter()
MOST_KILLS = 6  # of one cluster: shardd gives a coordinator up that ends nine times in two minutes


@pytest.fixture(scope="module")
def clusters(_three: Cluster) -> Iterator[list[Cluster]]:
    """The one in use at the end, that of all tests at first."""
    used = [_three]
    yield used
    for one in used[1:]:
        one.close()


@pytest.fixture
def cluster(
    clusters: list[Cluster], tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> Iterator[Cluster]:
    """One of which not many coordinators were killed."""
    if KILLS[clusters[-1]] > MOST_KILLS - 3:
        for one in clusters[1:]:
            one.close()
        folder = tmp_path_factory.mktemp("killed") / "c"
        clusters.append(Cluster(folder, (3, 3, 2), {"embedded": model_folder}).start())
    with clean(clusters[-1]):
        yield clusters[-1]


def kill(cluster: Cluster) -> int:
    """The term before."""
    term = int(cluster.ask("status")["term"])
    os.kill(cluster.coordinator_pid(), signal.SIGKILL)
    cluster.forget_client()
    KILLS[cluster] += 1
    return term


def said(one: Generation) -> tuple[Any, ...]:
    return one.tokens, one.text, one.reply["finish_reason"]


def logprobs(one: Generation) -> list[float]:
    return [entry["logprob"] for entry in one.logprobs]


def test_streams_of_every_kind_go_on(cluster: Cluster, reference: Reference) -> None:
    calm = {kind: Generation(cluster, CODE, MANY, **o) for kind, o in KINDS.items()}
    # Sampled text does not repeat itself: what ends it stands near its end, and nowhere before.
    stopped = {"stop": [calm["sampled"].result().text[-60:-40]], **KINDS["sampled"]}
    calm["stop"] = Generation(cluster, CODE, 2 * MANY, **stopped).result()
    assert calm["stop"].reply["finish_reason"] == "stop"
    cluster.wait_empty()

    stages = cluster.stage_pids()
    together = {kind: Generation(cluster, CODE, MANY, **o) for kind, o in KINDS.items()}
    together["stop"] = Generation(cluster, CODE, 2 * MANY, **stopped)
    for one in together.values():
        one.wait_tokens(8)
    term = kill(cluster)
    for kind, one in together.items():
        assert said(one.result()) == said(calm[kind].result()), kind
        # What is computed with others rounds otherwise in the last digits.
        assert logprobs(one) == pytest.approx(logprobs(calm[kind]), abs=1e-3)
    assert any(one.notes for one in together.values()), "nobody noticed"
    assert len(together["logprobs"].logprobs) == MANY
    reference.check(CODE, together["greedy"].tokens)
    status = cluster.ask("status")
    assert status["term"] > term
    assert cluster.stage_pids() == stages
    assert together["greedy"].reply["cached_tokens"] == together["greedy"].reply["prompt_tokens"]
    assert len(cluster.events("resumed")) == len(together)


@pytest.mark.soak
def test_while_a_prompt_is_read(cluster: Cluster, reference: Reference) -> None:
    taken = cluster.mark("sleep-1", "16")
    one = Generation(cluster, LONG, 24)
    until(taken.exists, "the prompt reaches stage 1")
    kill(cluster)
    reference.check(LONG, one.result().tokens)
    assert len(one.tokens) == 24


@pytest.mark.soak
def test_again_and_again(cluster: Cluster, reference: Reference) -> None:
    one = Generation(cluster, CLASS, TOKENS)
    for count in (1, 30, 60):
        one.wait_tokens(count)
        kill(cluster)
        until(lambda: cluster.state() == "ready", "it is back")
    reference.check(CLASS, one.result().tokens)
    assert len(one.tokens) == TOKENS


def test_what_waited_still_comes(cluster: Cluster, reference: Reference) -> None:
    """Nothing can run while a stage is loading; then the coordinator dies."""
    cluster.mark("hold-load")
    first = Generation(cluster, CLASS, TOKENS).wait_tokens(10)
    cluster.kill_stage(1)
    until(lambda: cluster.node(1)["state"] == "loading", "stage 1 loads")
    second = Generation(cluster, IMPORT, 24).wait_started()
    kill(cluster)
    until(lambda: cluster.state() not in ("", "ready"), "it is back, and waits")
    until(lambda: len(cluster.ask("ps")["sequences"]) == 2, "both wait")
    (cluster.marks / "hold-load").unlink()
    reference.check(CLASS, first.result().tokens)
    reference.check(IMPORT, second.result().tokens)
    assert (len(first.tokens), len(second.tokens)) == (TOKENS, 24)


def test_the_end_of_a_stream_is_kept_for_a_while(cluster: Cluster, reference: Reference) -> None:
    one = Generation(cluster, CODE, 20).result()
    sequence = one.start["sequence"]
    kill(cluster)
    cluster.wait_ready()
    again = Generation(cluster, "", None, resume=sequence).result()
    assert said(again) == said(one)
    assert again.reply == one.reply
    end = Generation(cluster, "", None, resume=sequence, received=15).result()
    assert end.tokens == one.tokens[15:]
    assert one.text.endswith(end.text)
    reference.check(CODE, one.tokens)


def test_another_client_takes_it_over(cluster: Cluster, reference: Reference) -> None:
    one = Generation(cluster, CODE, LONGER).wait_tokens(10)
    other = Generation(cluster, "", None, resume=one.start["sequence"], received=5)
    error = one.join().error
    assert error is not None
    assert "another client has this request now" in error.line()
    other.result()
    assert other.tokens == reference.tokens(CODE, LONGER)[5:]


@pytest.mark.soak
def test_a_turn_of_a_conversation(cluster: Cluster, reference: Reference) -> None:
    wanted = arguments(CODE, TOKENS, conversation="killed")
    first = Generation(cluster, CODE, TOKENS, wanted=wanted).wait_tokens(10)
    kill(cluster)
    reference.check(CODE, first.result().tokens)
    more = "\n\n\nprint("
    wanted = arguments(more, 24, conversation="killed")
    second = Generation(cluster, more, 24, wanted=wanted).result()
    assert second.start["turn"] == 2
    held = (*reference.encode(CODE), *first.tokens, *reference.encode(more))
    assert second.start["prompt_tokens"] == len(held)
    reference.check(held, second.tokens)
    kill(cluster)  # perhaps before its file is written
    cluster.wait_ready()
    third = Generation(cluster, more, 8, wanted=wanted | {"max_tokens": 8}).result()
    assert third.start["turn"] == 3
    cluster.ask("conversation.forget", conversation="killed")


def test_shardctl_goes_on_printing(cluster: Cluster, reference: Reference) -> None:
    words = ("generate", "--raw", "--ignore-eos", "--max-tokens", "400", CODE)
    with running(cluster, *words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        begin = process.stdout.read(40)
        kill(cluster)
        printed = (begin + process.stdout.read()).decode()
        assert process.wait(PATIENCE) == 0
        assert b"trying again" in process.stderr.readline()
    assert printed.removesuffix("\n") == reference.text(reference.tokens(CODE, 400))


@pytest.mark.soak
def test_a_killed_client_is_followed_by_another(cluster: Cluster, reference: Reference) -> None:
    words = ("generate", "--raw", "--ignore-eos", "--max-tokens", str(LONGER), CODE)
    with running(cluster, *words) as process:
        assert process.stdout is not None
        assert process.stdout.read(40)
        process.kill()
    (row,) = cluster.ask("ps")["sequences"]
    done = shardctl(cluster, "generate", "--resume", row["sequence"][:10])
    assert done.returncode == 0, done.stderr
    expected = reference.text(reference.tokens(CODE, LONGER))
    assert done.stdout.decode().removesuffix("\n") == expected


def test_what_nobody_comes_back_for_is_cancelled(tmp_path: Path, model_folder: Path) -> None:
    changes = {"n1": {"timeouts": {"resume_s": 0.5, "drain_s": 60}}}
    own = Cluster(tmp_path / "c", (4, 4), {"embedded": model_folder}, changes=changes).start()
    try:
        # Sampled: nothing guesses so much of it that it ends before its time is over.
        one = Generation(own, CODE, 3000, steady=False, temperature=1.0, seed=3).wait_tokens(5)
        kill(own)
        error = one.join().error
        assert error is not None
        assert error.code == 4
        own.wait_ready()
        until(lambda: own.events("cancelled"), "it is cancelled")
        assert "nobody came back" in own.events("cancelled")[-1]["text"]
        assert not own.ask("ps")["sequences"]
    finally:
        own.close()


@pytest.mark.soak
@pytest.mark.parametrize("count", range(1, 41))
def test_at_every_moment(cluster: Cluster, reference: Reference, count: int) -> None:
    both = [Generation(cluster, prompt, 40) for prompt in (CODE, CLASS)]
    both[0].wait_tokens(count)
    kill(cluster)
    for prompt, one in zip((CODE, CLASS), both, strict=True):
        reference.check(prompt, one.result().tokens)
        assert len(one.tokens) == 40
