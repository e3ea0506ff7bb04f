"""Requests without end while processes are killed, stopped, slowed and requests cancelled, from a
seed: every token is that of one process, and nothing is left at the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ctl.errors import CommandError
from tests.cluster import strangers
from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.prompts import CLASS, CODE, IMPORT, LONG, UNICODE
from tests.cluster.reference import Reference

PROMPTS = (CODE, CLASS, IMPORT, UNICODE, LONG)
SPARE_SECONDS = 16.0  # between two ends of one stage: more than 8 in 120 s open its breaker
MOST_TOKENS = 150


class Chaos:
    """What happens next, and to whom."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.running: list[tuple[str, Generation]] = []
        self.reissues = self.done = 0
        self._hurt = dict.fromkeys(range(len(cluster.names)), 0.0)

    def ask(self) -> None:
        prompt = self.chance.choice(PROMPTS)
        count = self.chance.randrange(20, MOST_TOKENS)
        self.running.append((prompt, Generation(self.cluster, prompt, count)))

    def wait_some(self) -> None:
        """Until the newest request has a token, or has ended."""
        _, newest = self.running[-1]
        until(lambda: newest.tokens or newest.reply or newest.error, "some token", 300.0)

    def harm(self) -> str:
        kind = self.chance.choice(("kill", "kill", "stop", "spin", "cancel", "cancel", "garbage"))
        victim = self.chance.randrange(len(self.cluster.names))
        if kind == "cancel":
            return self._cancel()
        if kind == "garbage":
            address = self.cluster.node(victim)["address"]
            if address:
                strangers.raw(address, self.chance.randrange(1000))
            return f"garbage to {victim}"
        if time.monotonic() - self._hurt[victim] < SPARE_SECONDS:
            return "spared"
        self._hurt[victim] = time.monotonic()
        if kind == "spin":
            self.cluster.mark(f"spin-{victim}")
        elif pid := self.cluster.child_pid(victim, "daemon.stage"):
            os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        return f"{kind} {victim}"

    def _cancel(self) -> str:
        if not self.running:
            return "nobody to cancel"
        _, request = self.chance.choice(self.running)
        sequence = request.wait_started().start["sequence"]
        with suppress(CommandError):  # it has ended
            self.cluster.ask("cancel", sequence=sequence)
        return "cancel"

    def settle(self, reference: Reference) -> None:
        """All that runs ends, and is exact."""
        for prompt, request in self.running:
            request.join(300.0)
            if request.error is not None:  # it had ended when the cancel came
                raise AssertionError(request.error.line())
            reference.check(prompt, request.tokens)
            reason = request.reply["finish_reason"]
            assert reason in ("length", "cancelled")
            self.reissues += request.reply["reissues"]
            self.done += 1
        self.running.clear()


@pytest.fixture
def own(tmp_path: Path, model_folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "c", (3, 3, 2), {"embedded": model_folder}).start()
    yield cluster
    cluster.close()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thirty_misfortunes(own: Cluster, reference: Reference, seed: int) -> None:
    chaos = Chaos(own, seed)
    harms: list[str] = []
    while sum(h != "spared" for h in harms) < 30:
        for _ in range(chaos.chance.randrange(1, 4)):
            chaos.ask()
        chaos.wait_some()
        harms.append(chaos.harm())
        if len(chaos.running) > 8:
            chaos.settle(reference)
    for marker in own.marks.iterdir():
        marker.unlink()
    chaos.settle(reference)
    own.wait_ready()
    own.wait_empty()
    assert chaos.done >= 30
    # A stage that ends costs every request that runs one re-issue, a stop or a spin up to three.
    assert chaos.reissues <= 4 * chaos.done, (chaos.reissues, chaos.done, harms)
