"""A draft model beside the stages changes the time, not the tokens; it may die at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CODE
from tests.cluster.reference import Reference


@pytest.fixture(scope="module")
def drafted(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Cluster]:
    changes = {"n2": {"node": {"draft": "embedded-draft"}}}
    folder = tmp_path_factory.mktemp("draft") / "c"
    cluster = Cluster(folder, (4, 4), {"embedded": model_folder}, changes=changes).start()
    yield cluster
    cluster.close()


def draft(cluster: Cluster) -> dict[str, Any] | None:
    return next(iter(cluster.ask("status")["drafts"]), None)


def ready(cluster: Cluster) -> bool:
    found = draft(cluster)
    return found is not None and found["state"] == "ready"


def test_its_guesses_are_used_and_the_tokens_are_the_models(
    drafted: Cluster, reference: Reference
) -> None:
    until(lambda: ready(drafted), "the draft is ready")
    found = draft(drafted)
    assert found
    assert (found["node"], found["model"]) == ("n2", "embedded-draft")
    assert found["tokens_per_second"] > 0
    done = Generation(drafted, CODE, 200).result()
    reference.check(CODE, done.tokens)
    guesses = drafted.ask("pipeline")["speculation"]
    assert guesses["source"] == "draft"
    assert guesses["right"] > 0


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_killed_or_stopped_under_way_it_comes_back(
    drafted: Cluster, reference: Reference, harm: signal.Signals
) -> None:
    until(lambda: ready(drafted), "the draft is ready")
    losses = len(drafted.events("draft-gone"))
    running = Generation(drafted, CODE, 300).wait_tokens(20)
    first = drafted.child_pid(1, "daemon.draft")
    os.kill(first, harm)
    reference.check(CODE, running.result().tokens)
    until(lambda: len(drafted.events("draft-gone")) > losses, "the loss is noticed")
    until(lambda: ready(drafted), "another life")
    assert drafted.child_pid(1, "daemon.draft") != first
