"""Two coordinators never act at once: one that was stopped and replaced does nothing any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CLASS, CODE
from tests.cluster.reference import Reference

TOKENS = 400


def stop(cluster: Cluster) -> tuple[psutil.Process, int]:
    """The coordinator, stopped while it delivers, and its term."""
    term = int(cluster.ask("status")["term"])
    process = psutil.Process(cluster.coordinator_pid())
    process.send_signal(signal.SIGSTOP)
    cluster.forget_client()
    return process, term


def check(cluster: Cluster, reference: Reference, term: int, *running: Generation) -> None:
    """Every client has every token once, and the coordinator is another."""
    for prompt, one in zip((CODE, CLASS), running, strict=True):
        reference.check(prompt, one.result().tokens)
        assert len(one.tokens) == TOKENS
    assert cluster.ask("status")["term"] > term


def begin(cluster: Cluster) -> list[Generation]:
    cluster.wait_ready()
    both = [Generation(cluster, prompt, TOKENS) for prompt in (CODE, CLASS)]
    for one in both:
        one.wait_tokens(10)
    return both


def test_its_shardd_replaces_one_that_stands_still(two: Cluster, reference: Reference) -> None:
    both = begin(two)
    old, term = stop(two)
    until(lambda: two.coordinator_pid() not in (0, old.pid), "another is started")
    assert not old.is_running(), "it was killed: it cannot be continued"
    check(two, reference, term, *both)


@pytest.mark.soak
def test_another_shardd_ends_the_one_that_was_left_behind(
    two: Cluster, reference: Reference
) -> None:
    """shardd is killed while its coordinator stands still, and holds port and lock."""
    both = begin(two)
    old, term = stop(two)
    two.processes["n1"].kill()
    two.processes["n1"].wait()
    assert old.status() == psutil.STATUS_STOPPED
    two.start_node("n1")
    until(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE, "it is ended")
    check(two, reference, term, *both)


@pytest.mark.soak
def test_one_that_finds_itself_replaced_ends_without_a_word(
    two: Cluster, reference: Reference
) -> None:
    """Where no lock holds, a state_dir on several machines, the term's file says it."""
    both = begin(two)
    old, term = stop(two)
    folder = two.folder / "n1"
    (folder / "term.other").write_text(str(term + 5))
    (folder / "term.other").replace(folder / "term")
    journal = (folder / "journal").stat()
    old.send_signal(signal.SIGCONT)
    until(lambda: two.coordinator_pid() not in (0, old.pid), "its shardd starts another")
    assert "another coordinator has taken node.state_dir over" in two.logs()
    check(two, reference, term + 5, *both)
    assert (folder / "journal").stat().st_ino != journal.st_ino, "the next one wrote its own"


def test_a_second_one_on_the_same_state_dir_does_not_start(two: Cluster) -> None:
    two.wait_ready()
    config = two.folder / "n1" / "config.resolved.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "daemon.coordinator", str(config), str(os.getpid())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78
    assert "runs with" in done.stderr
    assert two.state() == "ready"
