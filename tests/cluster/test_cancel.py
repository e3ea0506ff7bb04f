"""A request ends at any moment, by whatever way its client goes; no stage keeps anything of it."""

from __future__ import annotations

import signal
import subprocess

from tests.cluster.generation import Generation
from tests.cluster.harness import PATIENCE, Cluster, until
from tests.cluster.prompts import CLASS, CODE, LONG, PROMPTS
from tests.cluster.reference import Reference
from tests.cluster.shardctl import running, shardctl

GENERATE = ("generate", "--raw", "--ignore-eos", "--max-tokens")
ENDLESS = (*GENERATE, "3000", CODE)


def check_usable(cluster: Cluster, reference: Reference) -> None:
    cluster.wait_empty()
    reference.check(CLASS, Generation(cluster, CLASS, 12).result().tokens)
    cluster.wait_empty()


def test_by_shardctl(cluster: Cluster, reference: Reference) -> None:
    request = Generation(cluster, CODE, 3000).wait_tokens(5)
    other = Generation(cluster, CLASS, 40)
    sequence = request.start["sequence"]
    done = shardctl(cluster, "cancel", sequence[:12])
    assert done.returncode == 0, done.stderr
    assert request.result().reply["finish_reason"] == "cancelled"
    reference.check(CODE, request.tokens)
    reference.check(CLASS, other.result().tokens)
    again = shardctl(cluster, "cancel", sequence)
    assert again.returncode == 1
    assert b"no sequence" in again.stderr
    check_usable(cluster, reference)


def test_during_a_long_prefill(cluster: Cluster, reference: Reference) -> None:
    taken = cluster.mark("sleep-1", "16")
    request = Generation(cluster, LONG * 4, 100).wait_started()
    until(taken.exists, "stage 1 computes it")
    assert cluster.ask("cancel", sequence="all")["cancelled"] == [request.start["sequence"]]
    assert request.result().reply["finish_reason"] == "cancelled"
    assert request.tokens == []
    check_usable(cluster, reference)


def test_by_ctrl_c(cluster: Cluster, reference: Reference) -> None:
    with running(cluster, *ENDLESS) as process:
        assert process.stdout is not None
        assert process.stdout.read(8)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    check_usable(cluster, reference)


def test_by_a_client_that_is_killed(cluster: Cluster, reference: Reference) -> None:
    with running(cluster, *GENERATE, "1000", CODE) as process:
        assert process.stdout is not None
        assert process.stdout.read(8)
        process.kill()
        process.wait()
        assert cluster.ask("ps")["sequences"], "it may be resumed for a while"
        check_usable(cluster, reference)


def test_by_head(cluster: Cluster, reference: Reference) -> None:
    prompt = next(p for p in PROMPTS if "\n" in reference.text(reference.tokens(p, 48)))
    with running(cluster, *ENDLESS[:-1], prompt) as process:
        head = subprocess.run(
            ["head", "-n", "1"], stdin=process.stdout, capture_output=True, check=True
        )
        assert head.stdout.endswith(b"\n")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) in (0, 141)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    check_usable(cluster, reference)


def test_many_at_every_moment(cluster: Cluster, reference: Reference) -> None:
    """Eight requests, each cancelled after another number of tokens, two never."""
    requests = [Generation(cluster, CODE, 120) for _ in range(8)]
    for count, request in enumerate(requests[:6]):
        request.wait_tokens(count) if count else request.wait_started()
        cluster.ask("cancel", sequence=request.start["sequence"])
    for request in requests[:6]:
        request.result()
        reference.check(CODE, request.tokens)
    for request in requests[6:]:
        assert len(request.result().tokens) == 120
        reference.check(CODE, request.tokens)
    check_usable(cluster, reference)
