"""Turns of one conversation go on from the tokens of those before, whatever ends meanwhile."""

from __future__ import annotations

import os
import signal

from tests.cluster.generation import Generation, arguments
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference
from tests.cluster.shardctl import refused, shardctl

MORE = "\n\n\ndef factorial(n):\n    "
LAST = "\n\nprint("


def turn(cluster: Cluster, text: str, count: int) -> Generation:
    """Started, not ended."""
    wanted = arguments(text, count) | {"conversation": "notes"}
    return Generation(cluster, text, count, wanted=wanted)


def saved(cluster: Cluster, turns: int) -> bool:
    (row,) = cluster.ask("conversation.list")["conversations"]
    return bool(row["saved"]) and row["turns"] == turns


def test_a_conversation_goes_on_after_its_coordinator_was_killed(
    two: Cluster, reference: Reference
) -> None:
    first = turn(two, CODE, 24).result()
    reference.check(CODE, first.tokens)

    held = (*reference.encode(CODE), *first.tokens, *reference.encode(MORE))
    second = turn(two, MORE, 24).result()
    assert second.start["prompt_tokens"] == len(held)
    assert (second.start["conversation"], second.start["turn"]) == ("notes", 2)
    reference.check(held, second.tokens)

    until(lambda: saved(two, 2), "the second turn is on disk")
    term = two.ask("status")["term"]
    os.kill(two.coordinator_pid(), signal.SIGKILL)
    two.forget_client()
    two.wait_ready()
    assert two.ask("status")["term"] > term

    third = turn(two, LAST, 3000).wait_tokens(4)
    error = refused(two, 5, "generate", "--conversation", "notes", "too early")
    assert "conversation notes is busy" in error
    assert shardctl(two, "cancel", "all").returncode == 0
    held = (*held, *second.tokens, *reference.encode(LAST))
    reference.check(held, third.result().tokens)
    assert third.start["prompt_tokens"] == len(held)

    done = shardctl(two, "generate", "-c", "notes", "--max-tokens", "8", "--stats", "x = 1")
    assert done.returncode == 0, "raw, as it began"
    assert b"cached" in done.stderr
    listed = shardctl(two, "kv", "list")
    assert b"notes" in listed.stdout
    two.ask("conversation.forget", conversation="notes")
