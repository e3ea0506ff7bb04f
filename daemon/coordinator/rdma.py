"""RDMA as the coordinator does it: the policy's shell."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from daemon import messages as msg
from daemon.cluster.events import GroupLost, Note, ToNode
from daemon.cluster.rdma import events as rd
from daemon.cluster.rdma.policy import Rdma
from daemon.cluster.rdma.rules import RdmaRules
from daemon.cluster.wish import Wish
from daemon.coordinator.cables import Cables
from daemon.coordinator.rdma_memory import RdmaMemory
from daemon.hop_path import HopPath

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator


class RdmaGroups:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._memory = RdmaMemory(coordinator.config.node.state_dir / "rdma.json")
        self.rules = RdmaRules(join_within=coordinator.config.rdma.start_s + 5.0)
        self.policy = Rdma(self.rules, coordinator.cluster.term, self._memory.recall())
        self._cables = Cables(coordinator)
        self._beats: dict[str, msg.RdmaBeat] = {}  # of the present group

    # --- what happens ---

    def hear(self, message: rd.FromRdma) -> None:
        if isinstance(message, msg.RdmaOffer) and not self.policy.knows(message):
            self._look()  # it has joined since the last tick
        self._step(message)

    def beat(self, beat: msg.RdmaBeat) -> None:
        """What has gone through a process, and whether its stage is connected."""
        if self.policy.group and beat.group == self.policy.group.number:
            self._beats[beat.node] = beat
            self._step(beat)

    def lost(self, lost: GroupLost) -> None:
        """A stage, its heartbeat or a lost frame has told that a group is over."""
        self._step(lost)

    def tick(self) -> None:
        self._look()
        for wish in self.policy.wishes:  # a layout that came up meanwhile knows nothing of them
            self._of.cluster.paths.wish(wish)

    def _look(self) -> None:
        cluster = self._of.cluster
        pipeline = tuple(slot.node for slot in cluster.slots)
        present = {m.name: m.node.incarnation for m in cluster.members.values() if m.node}
        self._step(rd.ClusterIs(pipeline, present, self._of.idle))

    def want(self, wanted: rd.PolicyIs | rd.TestWanted) -> None:
        self._step(wanted)
        self.tick()

    def _step(self, event: rd.Event) -> None:
        now = time.monotonic()
        for action in self.policy.step(event, now):
            self._do(action, now)

    def _do(self, action: rd.Action, now: float) -> None:
        of, term = self._of, self._of.cluster.term
        match action:
            case ToNode(node, msg.RdmaStart() | msg.RdmaStop() as message):
                of.to_node(node, replace(message, term=term))
            case rd.ToProcess():
                peer = f"rdma:{action.node}:{action.incarnation}:{action.group}"
                of.say(peer.encode(), replace(action.message, term=term))
            case Wish():
                of.cluster.paths.wish(action)
            case rd.GroupOver(group, reason, why):
                self._beats.clear()
                of.do(of.cluster.group_over(group, reason, why, now))
            case rd.FindCables(group, nodes):
                self._cables.find(nodes, lambda found: self._step(found.of(group)))
            case rd.Remember():
                if why := self._memory.keep(action):
                    of.note("rdma", "", f"a restart would forget the policy: {why}")
            case rd.Tested():
                of.clients.rdma.tested(action)
            case Note():
                of.note(action.kind, action.node, action.text)

    # --- people ---

    def view(self) -> dict[str, Any]:
        """The policy in the shape of docs/protocol.md."""
        policy = self.policy
        group = policy.group
        quarantine = sorted({node for one in policy.attempts.quarantine for node in one})
        return {
            "enabled": policy.enabled,
            "settled": policy.settled,
            "group": None
            if group is None
            else {
                "group": group.number,
                "backend": group.backend,
                "nodes": list(group.members),
                "state": group.phase.value,
                "test": group.trial,
            },
            "why": None if group or not policy.waits else policy.waits,
            "quarantine": quarantine,
            "nodes": [
                {
                    "node": offer.node,
                    "backends": offer.backends,
                    "devices": offer.devices,
                    "starts_left": offer.starts_left,
                    "why": offer.why_not or None,
                    "pid": offer.pid or None,
                }
                for offer in sorted(policy.offers, key=lambda offer: offer.node)
            ],
            "processes": [_process_view(beat) for _, beat in sorted(self._beats.items())],
            "hops": self.hops(),
        }

    def hops(self) -> list[dict[str, Any]]:
        """Between stages: the path in use, and why it is not RDMA."""
        wished = {wish.sender: wish for wish in self.policy.wishes}
        rows = []
        for one, other in pairwise(slot.node for slot in self._of.cluster.slots):
            hop, wish = self._of.cluster.paths.of(one), wished.get(one)
            trial = self.policy.trials[one, other]
            path = hop.path if hop else HopPath.ZMQ
            why = wish.why if wish else "the policy has not seen it yet"
            rows.append(
                {
                    "from": one,
                    "to": other,
                    "path": path.value,
                    "wished": (wish.path if wish else HopPath.ZMQ).value,
                    "why": None if path is HopPath.RDMA else why or (hop and hop.why_not) or None,
                    "round_trip_seconds": trial.round_trip_seconds or None if trial else None,
                    "bytes_per_second": trial.bytes_per_second or None if trial else None,
                }
            )
        return rows


def _process_view(beat: msg.RdmaBeat) -> dict[str, Any]:
    return {
        "node": beat.node,
        "rank": beat.rank,
        "stage": beat.stage,
        "frames_out": beat.frames_out,
        "bytes_out": beat.bytes_out,
        "frames_in": beat.frames_in,
        "bytes_in": beat.bytes_in,
        "dropped": dict(beat.dropped),
        "handover": {"p50": beat.handover_p50, "p99": beat.handover_p99},
    }
