"""Misfortunes of all kinds for a cluster of real processes, one after another, from a seed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ctl.errors import CommandError
from tests.cluster import strangers
from tests.cluster.generation import Generation
from tests.cluster.harness import Cluster, until
from tests.cluster.moves import Move
from tests.cluster.prompts import CLASS, CODE, IMPORT, LONG, UNICODE
from tests.cluster.reference import Reference

PROMPTS = (CODE, CLASS, IMPORT, UNICODE, LONG)
SAMPLING = {"temperature": 1.1, "seed": 11, "repetition_penalty": 1.2}
SPARE_SECONDS = 16.0  # between two ends of one process: more than 8 in 120 s open its breaker
MOST_TOKENS = 150
LAYERS = 8
FRAMES = ("drop", "double", "cut", "lag")  # marks, taken by the next frame that a stage sends
KINDS = (*FRAMES * 3, *("move",) * 6, *("abort",) * 2, *("cancel",) * 3, "garbage", "nap", "kill",
         "stop", "spin", "coordinator", "node")  # fmt: skip


@dataclass
class Chaos:
    """`done` requests of `asked` have ended well; `harms` counts what befell the cluster."""

    cluster: Cluster
    seed: int
    reference: Reference
    harms: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    done: int = 0
    running: list[tuple[str, bool, Generation]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._hurt: dict[str, float] = {}
        self._under_way: Move | None = None
        calm = {p: Generation(self.cluster, p, MOST_TOKENS, **SAMPLING) for p in PROMPTS}
        self._calm = {prompt: one.result().tokens for prompt, one in calm.items()}

    def ask(self) -> None:
        prompt, sampled = self.chance.choice(PROMPTS), self.chance.random() < 0.3
        count = self.chance.randrange(20, MOST_TOKENS)
        options: dict[str, Any] = SAMPLING if sampled else {}
        generation = Generation(self.cluster, prompt, count, **options)
        self.running.append((prompt, sampled, generation))

    def wait_some(self) -> None:
        """Until the newest request has a token, or has ended."""
        _, _, newest = self.running[-1]
        until(lambda: newest.tokens or newest.reply or newest.error, "some token", 300.0)

    def harm(self) -> None:
        kind = self.chance.choice(KINDS)
        victim = self.chance.randrange(len(self.cluster.names))
        with suppress(CommandError):  # nobody answers just now, or it has ended already
            if getattr(self, f"_{kind}", self._mark)(victim, kind):
                self.harms[kind] += 1

    def settle(self) -> None:
        """All that runs ends, and is exact."""
        for prompt, sampled, request in self.running:
            request.join(300.0)
            if request.error is not None:
                raise AssertionError(request.error.line())
            if sampled:
                assert request.tokens == self._calm[prompt][: len(request.tokens)], prompt
            else:
                self.reference.check(prompt, request.tokens)
            assert request.reply["finish_reason"] in ("length", "cancelled")
            self.done += 1
        self.running.clear()

    def end(self) -> None:
        """Nothing happens any more: all is well, and nothing is left."""
        for marker in self.cluster.marks.iterdir():
            marker.unlink()
        self.settle()
        self._end_of_move()
        self.cluster.wait_ready()
        self.cluster.wait_empty()

    # --- what may happen: False when it was not done ----------------------------------------------

    def _mark(self, victim: int, kind: str) -> bool:
        self.cluster.mark(f"{kind}-{victim}")
        return True

    def _spin(self, victim: int, kind: str) -> bool:
        return self._spared(f"stage {victim}") and self._mark(victim, kind)

    def _cancel(self, victim: int, kind: str) -> bool:
        _, _, request = self.chance.choice(self.running)
        sequence = request.wait_started().start["sequence"]
        self.cluster.ask("cancel", sequence=sequence)
        return True

    def _garbage(self, victim: int, kind: str) -> bool:
        name = self.cluster.names[victim]
        found = [n["address"] for n in self.cluster.nodes() if n["name"] == name and n["address"]]
        for address in found:
            strangers.raw(address, self.chance.randrange(1000))
        return bool(found)

    def _kill(self, victim: int, kind: str) -> bool:
        return self._signal(victim, signal.SIGKILL)

    def _stop(self, victim: int, kind: str) -> bool:
        return self._signal(victim, signal.SIGSTOP)

    def _signal(self, victim: int, sig: int) -> bool:
        if not self._spared(f"stage {victim}"):
            return False
        pid = self.cluster.child_pid(victim, "daemon.stage")
        if pid:
            os.kill(pid, sig)
        return bool(pid)

    def _nap(self, victim: int, kind: str) -> bool:
        """Stopped, and continued before anybody minds."""
        module = self.chance.choice(("daemon.stage", "daemon.coordinator"))
        index = 0 if module == "daemon.coordinator" else victim
        if pid := self.cluster.child_pid(index, module):
            os.kill(pid, signal.SIGSTOP)
            wake = threading.Timer(self.chance.uniform(0.05, 0.6), _continue, (pid,))
            wake.start()
            wake.join()
        return bool(pid)

    def _coordinator(self, victim: int, kind: str) -> bool:
        if not self._spared("coordinator"):
            return False
        pid = self.cluster.coordinator_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)
            self.cluster.forget_client()
            # Who asks for something new meanwhile is told that nobody is there.
            until(lambda: self.cluster.state() in ("ready", "degraded"), "another coordinator")
        return bool(pid)

    def _node(self, victim: int, kind: str) -> bool:
        """A machine loses its power, and joins again."""
        if victim == 0 or not self._spared(f"stage {victim}"):
            return False
        self.cluster.kill_node(victim)
        self.cluster.start_node(self.cluster.names[victim])
        return True

    def _move(self, victim: int, kind: str) -> bool:
        """To any layout over any of the nodes, while another may be under way."""
        if self._under_way and not self._under_way.over:
            return False
        self._end_of_move()
        names = self.cluster.names
        nodes = self.chance.sample(names, self.chance.randint(1, len(names)))
        cuts = sorted(self.chance.sample(range(1, LAYERS), len(nodes) - 1))
        split = tuple(b - a for a, b in itertools.pairwise((0, *cuts, LAYERS)))
        self._under_way = Move(self.cluster, split, nodes)
        return True

    def _abort(self, victim: int, kind: str) -> bool:
        if self._under_way is None or self._under_way.over:
            return False
        self.cluster.ask("rebalance.abort")
        return True

    def _end_of_move(self) -> None:
        move, self._under_way = self._under_way, None
        if move and move.end().error is None and move.reply.get("changed"):
            self.moved += 1

    def _spared(self, whom: str) -> bool:
        """Whether it may be hurt again."""
        if time.monotonic() - self._hurt.get(whom, float("-inf")) < SPARE_SECONDS:
            return False
        self._hurt[whom] = time.monotonic()
        return True


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
