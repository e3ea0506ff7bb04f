"""One group of rdma processes, from its start to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from daemon import messages as msg
from daemon.cluster.events import ToNode
from daemon.cluster.rdma.attempts import FOLLOWING
from daemon.cluster.rdma.events import CablesAre, ToProcess
from daemon.cluster.rdma.offers import Offers
from daemon.cluster.rdma.rules import RdmaRules

NEEDS_CABLES = "jaccl"


class Phase(StrEnum):
    """CABLES: the matrix of devices is looked for. LEAVING: it stands, and hops turn away."""

    CABLES = "finding cables"
    STARTING = "starting"
    STANDING = "standing"
    LEAVING = "leaving"


@dataclass(slots=True)
class Group:
    """`members` are its nodes, the rank of each its place; `shardds` their incarnations. `reach`
    has the ranks that each rank can send to, as soon as it has joined, `connected` whether the
    stage of a node is, as far as it has been told. `trial`: it was made for a test, and no hop uses
    it. `adopted`: it stood before this coordinator came. `used_at` is when a hop was first told to
    use it, `proven` that all its hops were tried, and one at least is used.
    """

    number: int
    backend: str
    members: tuple[str, ...]
    shardds: Mapping[str, str]
    begun_at: float
    phase: Phase
    trial: bool = False
    adopted: bool = False
    hosts: list[str] = field(default_factory=list)
    devices: list[list[list[str]]] = field(default_factory=list)
    reach: dict[int, frozenset[int]] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    connected: dict[str, bool] = field(default_factory=dict)
    used_at: float | None = None
    proven: bool = False
    leave_at: float = 0.0
    why: str = ""

    @classmethod
    def of(
        cls, number: int, members: tuple[str, ...], offers: Offers, trial: bool, now: float
    ) -> Group:
        """A new one, of nodes that have made offers."""
        said = [offer for node in members if (offer := offers.of(node))]
        backend = offers.backend(members)
        phase = Phase.CABLES if backend == NEEDS_CABLES else Phase.STARTING
        shardds = {offer.node: offer.incarnation for offer in said}
        hosts = [offer.address for offer in said]
        return cls(number, backend, members, shardds, now, phase, trial, hosts=hosts)

    @property
    def missing(self) -> list[str]:
        """Who has not joined."""
        return [node for rank, node in enumerate(self.members) if rank not in self.reach]

    @property
    def deaf(self) -> list[str]:
        """Members whose stage is not connected: what is sent to them is dropped."""
        return [node for node in self.members if self.connected.get(node) is False]

    def rank(self, node: str) -> int | None:
        return self.members.index(node) if node in self.members else None

    def reaches(self, sender: str, receiver: str) -> bool:
        """Whether the one can send to the other and back, once both have joined."""
        a, b = self.rank(sender), self.rank(receiver)
        if a is None or b is None:
            return False
        return b in self.reach.get(a, ()) and a in self.reach.get(b, ())

    def cabled(self, found: CablesAre, now: float) -> None:
        """JACCL's matrix is known: the processes can be started."""
        self.devices = [[list(cell) for cell in row] for row in found.devices]
        if found.coordinator:
            port = self.hosts[0].rpartition(":")[2]
            self.hosts[0] = f"{found.coordinator}:{port}"
        self.phase, self.begun_at = Phase.STARTING, now

    def joined(self, said: msg.RdmaJoined) -> None:
        others = frozenset(rank for rank in said.reach if rank < len(self.members))
        self.reach[said.rank] = others - {said.rank}
        if self.phase is Phase.STARTING and not self.missing:
            self.phase = Phase.STANDING

    def said_by_member(self, said: msg.RdmaJoined | msg.RdmaProbed | msg.RdmaBeat) -> bool:
        """Whether it comes from a process of this group."""
        if said.group != self.number or self.shardds.get(said.node) != said.incarnation:
            return False
        return isinstance(said, msg.RdmaProbed) or said.rank == self.rank(said.node)

    def trouble(
        self, offers: Offers, present: Mapping[str, str], rules: RdmaRules, now: float
    ) -> tuple[str, str]:
        """Why it is over, for programs and for people; both "" while it is not."""
        for node in self.members:
            if present.get(node) != self.shardds[node]:
                return "lost", f"{node}: its shardd is gone"
        said = [offer for node in self.members if (offer := offers.of(node))]
        ended = [offer for offer in said if offer.ended >= self.number]
        if ended:  # who follows others says less than who came first
            first = min(ended, key=lambda offer: offer.reason in FOLLOWING)
            return first.reason, f"{first.node}: {first.detail}"
        if now - self.begun_at <= rules.join_within:
            return "", ""
        if self.phase is Phase.CABLES:
            return "lost", "the nodes did not say how they are cabled"
        if self.phase is Phase.STARTING:
            who = ", ".join(self.missing)
            return "silent", f"{who} did not join within {rules.join_within:.0f} s"
        return "", ""

    def start(
        self, term: int, offers: Offers, rules: RdmaRules, now: float
    ) -> list[ToNode | ToProcess]:
        """Ask who does not run it to start it, and who runs it to say when it has joined."""
        actions: list[ToNode | ToProcess] = []
        for rank, node in enumerate(self.members):
            if rank in self.reach or now - self.asked_at.get(node, -1e9) < rules.ask_again_after:
                continue
            offer = offers.of(node)
            if offer is not None and offer.group == self.number:
                shardd = self.shardds[node]
                if node in self.asked_at or self.adopted:
                    identify = msg.Identify(term)
                    actions.append(ToProcess(node, shardd, self.number, identify))
            else:
                start = msg.RdmaStart(
                    term, self.number, self.backend, rank, self.hosts, self.devices
                )
                actions.append(ToNode(node, start))
            self.asked_at[node] = now
        return actions

    def check_integrity(self) -> None:
        assert len(set(self.members)) == len(self.members) >= 2, "members of a group"
        assert set(self.shardds) == set(self.members), "shardds of a group"
        assert self.phase is not Phase.STANDING or not self.missing, "it stands without a member"
        for rank, others in self.reach.items():
            assert 0 <= rank < len(self.members), f"rank {rank}"
            assert rank not in others, f"rank {rank} reaches itself"
        assert self.used_at is None or not self.trial, "a hop uses a test"
