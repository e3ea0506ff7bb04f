"""The verbs of `shardctl rdma`: enable, disable, test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.cluster.rdma import events as rd
from daemon.coordinator.answer import EXIT_FAILED, EXIT_REFUSED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.hop_path import HopPath

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

SLACK_SECONDS = 10.0  # beside the limits of the group and its probes, until an answer is due


@dataclass(slots=True)
class Waiting:
    """Who has enabled RDMA, and is told what came of it by `until`."""

    answer: Answer
    until: float


class RdmaVerbs:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._waiting: list[Waiting] = []
        self._testing: Answer | None = None

    def enable(self, answer: Answer, arguments: dict[str, Any]) -> None:
        rdma = self._of.rdma
        if typed(arguments, "dry_run", bool, False):
            answer.reply({**rdma.view(), "dry_run": True})
            return
        self._of.note("rdma", "", "enabled by an operator")
        rules, now = rdma.rules, time.monotonic()
        until = now + rules.gather_within + rules.join_within + rules.probe_within + SLACK_SECONDS
        rdma.want(rd.PolicyIs(True))
        self._waiting.append(Waiting(answer, until))
        self.tick(now)

    def disable(self, answer: Answer, arguments: dict[str, Any]) -> None:
        dry_run, was = typed(arguments, "dry_run", bool, False), self._of.rdma.policy.enabled
        if was and not dry_run:
            self._of.note("rdma", "", "disabled by an operator")
            self._of.rdma.want(rd.PolicyIs(False))
            for waiting in self._waiting:
                what, why = "RDMA was disabled meanwhile", "another operator has done so"
                waiting.answer.fail(EXIT_FAILED, what, why, "see `shardctl events`")
            self._waiting.clear()
        answer.reply({**self._of.rdma.view(), "changed": was, "dry_run": dry_run})

    def test(self, answer: Answer, arguments: dict[str, Any]) -> None:
        a, b = (self._node(arguments, name) for name in ("a", "b"))
        if a == b:
            raise BadArguments(f"{a} and {b} are one node")
        if self._testing is not None:
            what, why = "another test is under way", "there is one at a time"
            raise Refusal(EXIT_REFUSED, what, why, "ask again in a minute")
        if typed(arguments, "dry_run", bool, False):
            why_not = self._of.rdma.policy.offers.between(a, b)
            backend = "" if why_not else self._of.rdma.policy.offers.backend([a, b])
            answer.reply({"a": a, "b": b, "backend": backend, "why": why_not, "dry_run": True})
            return
        self._testing = answer
        self._of.rdma.want(rd.TestWanted(a, b))

    def _node(self, arguments: dict[str, Any], name: str) -> str:
        node: str | None = typed(arguments, name, str, None)
        known = self._of.cluster.members
        if node not in known:
            raise BadArguments(f"no node {node}; known are {', '.join(sorted(known))}")
        return node

    def tested(self, tested: rd.Tested) -> None:
        answer, self._testing = self._testing, None
        text = tested.why or f"{1e6 * tested.round_trip_seconds:.0f} µs there and back"
        self._of.note("rdma", "", f"test of {tested.a} and {tested.b}: {text}")
        if answer:
            answer.reply(
                {
                    "a": tested.a,
                    "b": tested.b,
                    "backend": tested.backend,
                    "round_trip_seconds": tested.round_trip_seconds,
                    "bytes_per_second": tested.bytes_per_second,
                    "why": tested.why,
                    "dry_run": False,
                }
            )

    def tick(self, now: float) -> None:
        """Tell who has enabled it how far it is, and the end."""
        if not self._waiting:
            return
        rdma = self._of.rdma
        hops = rdma.hops()
        taken = all(hop["path"] == HopPath.RDMA for hop in hops if hop["wished"] == HopPath.RDMA)
        for waiting in list(self._waiting):
            over = (rdma.policy.settled and taken) or now >= waiting.until
            if over:
                waiting.answer.reply({**rdma.view(), "dry_run": False})
            if over or not waiting.answer.chunk({"hops": hops}):
                self._waiting.remove(waiting)  # RDMA stays enabled, whoever waits
